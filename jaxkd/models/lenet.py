"""LeNet-5 with ReLU and max pooling (LeCun et al., 1998).

The halved net is the student of zero-shot distillation (Nayak et al., 2019).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, mlp, pooling

NAMED = {
  'lenet5': {'widths': (6, 16, 120, 84)},
  'lenet5_half': {'widths': (3, 8, 60, 42)},
}


class ConvPool(nnx.Module):
  """5x5 convolution, ReLU, 2x2 max pooling."""

  def __init__(
    self, width_in: int, width_out: int, *, padding: int, **options: Any
  ):
    self.conv = layers.conv(
      width_in, width_out, 5, padding=padding, bias=True, **options
    )

  def __call__(self, x: Array) -> Array:
    return pooling.max_pool(nnx.relu(self.conv(x)), (2, 2), strides=(2, 2))


class Model(nnx.Module):
  """Two convolutions and two hidden layers.

  Images of less than 32 pixels are padded by two at first, as the original
  does with MNIST's 28. Taps: ``convs/*``, ``layers/*``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C), at least 12 by 12.
    widths: channels of the two convolutions, widths of the two layers.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images, or too small.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    widths: Sequence[int] = (6, 16, 120, 84),
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    *size, channels = layers.image_shape(input_shape)
    if min(size) < 12:
      raise UserError(
        f'lenet needs images of at least 12 by 12 pixels, not {size[0]} by '
        f'{size[1]}: resize them with a view or choose another model'
      )
    conv1, conv2, layer1, layer2 = widths
    padding = 2 if min(size) < 32 else 0
    height, width = (((n + 2 * padding - 4) // 2 - 4) // 2 for n in size)
    options = {'dtype': dtype, 'rngs': rngs}
    self.convs = nnx.List()
    self.convs.append(ConvPool(channels, conv1, padding=padding, **options))
    self.convs.append(ConvPool(conv1, conv2, padding=0, **options))
    options['dropout'] = 0.0
    self.layers = nnx.List()
    self.layers.append(mlp.Layer(height * width * conv2, layer1, **options))
    self.layers.append(mlp.Layer(layer1, layer2, **options))
    self.head = layers.head(layer2, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    for conv in self.convs:
      x = conv(x)
    x = x.reshape(x.shape[0], -1)
    for layer in self.layers:
      x = layer(x)
    return {'logits': self.head(x), 'embedding': x}
