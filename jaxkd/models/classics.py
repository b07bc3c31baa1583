"""AlexNet and VGG16 for large images, as torchvision has them.

Krizhevsky et al., 2012, in the form of Krizhevsky, 2014; Simonyan & Zisserman,
2015, without BatchNorm. Layers are numbered as they are there.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, pooling
from jaxkd.models.convolution import conv_general_dilated

# Convolutions are (number, channels, kernel, stride); numbers are poolings.
_ALEXNET = (
  (0, 64, 11, 4), 2, (3, 192, 5, 1), 5, (6, 384, 3, 1), (8, 256, 3, 1),
  (10, 256, 3, 1), 12,
)  # fmt: skip
_VGG16 = (
  (0, 64, 3, 1), (2, 64, 3, 1), 4, (5, 128, 3, 1), (7, 128, 3, 1), 9,
  (10, 256, 3, 1), (12, 256, 3, 1), (14, 256, 3, 1), 16,
  (17, 512, 3, 1), (19, 512, 3, 1), (21, 512, 3, 1), 23,
  (24, 512, 3, 1), (26, 512, 3, 1), (28, 512, 3, 1), 30,
)  # fmt: skip
NAMED = {
  'alexnet_imagenet': {
    'features': _ALEXNET, 'window': 3, 'hidden': (1, 4), 'side': 6,
  },
  'vgg16_imagenet': {
    'features': _VGG16, 'window': 2, 'hidden': (0, 3), 'side': 7,
  },
}  # fmt: skip
# Layers of torchvision -> ours, see models/pytorch.py.
PYTORCH = {
  r'features\.(\d+)': lambda i: f'features/{i}',
  r'classifier\.6': lambda: 'head',
  r'classifier\.(\d)': lambda i: f'classifier/{i}',
}


class Model(nnx.Module):
  """Convolutions with ReLU and max pooling, two hidden layers, the head.

  Taps: ``features/*`` (convolutions before their ReLU), ``hidden/*`` (fc6 and
  fc7, behind the ReLU).

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C), about 224 by 224.
    features: convolutions and poolings in turn.
    window: side of a pooling's window; its stride is 2.
    hidden: numbers of the two hidden layers.
    side: of the map that the first of them takes, in pixels.
    width: of the hidden layers.
    dropout: the probability that training drops a hidden unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: not images, or of a size that leaves a map of another side.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    features: Sequence[Any] = _ALEXNET,
    window: int = 3,
    hidden: Sequence[int] = (1, 4),
    side: int = 6,
    width: int = 4096,
    dropout: float = 0.5,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    *size, channels = layers.image_shape(input_shape)
    self.window, self.plan = window, tuple(features)
    self.features, options = nnx.Dict(), {'dtype': dtype, 'rngs': rngs}
    for step in self.plan:
      if isinstance(step, int):
        size = [(n - window) // 2 + 1 for n in size]
        continue
      number, out, kernel, stride = step
      # That of AlexNet's first is 2, and not half of its kernel.
      padding = min(kernel // 2, 2)
      size = [(n + 2 * padding - kernel) // stride + 1 for n in size]
      self.features[str(number)] = nnx.Conv(
        channels,
        out,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        conv_general_dilated=conv_general_dilated,
        kernel_init=layers.he_fan_out,
        **options,
      )
      channels = out
    if size != [side, side]:
      raise UserError(
        f'classics: images of {tuple(input_shape)} leave maps of {size[0]} by '
        f'{size[1]} and not {side} by {side}; resize them to 224'
      )
    self.classifier, self.hidden = nnx.Dict(), nnx.List()
    self.numbers = tuple(map(str, hidden))
    width_in = side * side * channels
    for number in self.numbers:
      self.classifier[number] = nnx.Linear(width_in, width, **options)
      self.hidden.append(layers.Identity())
      width_in = width
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.head = layers.head(width, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    for step in self.plan:
      if isinstance(step, int):
        window = (self.window, self.window)
        x = pooling.max_pool(x, window, strides=(2, 2))
      else:
        x = nnx.relu(self.features[str(step[0])](x))
    x = x.transpose(0, 3, 1, 2)  # as PyTorch lays it out
    x = x.reshape(x.shape[0], -1)
    for number, layer in zip(self.numbers, self.hidden, strict=True):
      x = layer(nnx.relu(self.classifier[number](self.dropout(x))))
    return {'logits': self.head(x), 'embedding': x}
