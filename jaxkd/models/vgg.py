"""VGG for small images (Simonyan & Zisserman, 2015), with BatchNorm.

One linear layer after global pooling takes the place of the three of the
original, as in the nets that distillation is compared on.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers, pooling
from jaxkd.models.layers import ConvNorm

CHANNELS = (64, 128, 256, 512, 512)
SHORT = (1, 1, 1, 1, 1)  # convolutions of each stage
NAMED = {
  'vgg8': {'widths': CHANNELS, 'sizes': SHORT},
  'vgg11': {'widths': CHANNELS, 'sizes': (1, 1, 2, 2, 2)},
  'vgg13': {'widths': CHANNELS, 'sizes': (2, 2, 2, 2, 2)},
  'vgg16': {'widths': CHANNELS, 'sizes': (2, 2, 3, 3, 3)},
  'vgg19': {'widths': CHANNELS, 'sizes': (2, 2, 4, 4, 4)},
}
# Layers of the CIFAR zoos -> ours, see models/pytorch.py.
PYTORCH = {
  r'block(\d)\.(\d+)': lambda i, k: (
    f'stages/{i}/blocks/{k // 3}/{layers.IN_TURN[k % 3]}'
  ),
  r'classifier': lambda: 'head',
}


class Model(nnx.Module):
  """Stages of 3x3 convolutions.

  A 2x2 max pooling follows each of the first three stages, and the fourth
  where images have 64 pixels or more; global average pooling follows the last.
  Taps: ``stages/*``, ``stages/*/preactivation`` (before the last ReLU).

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    widths: channels of each stage.
    sizes: convolutions in each stage.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    widths: Sequence[int] = CHANNELS,
    sizes: Sequence[int] = SHORT,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    height, _, width_in = layers.image_shape(input_shape)
    self.pools = 4 if height >= 64 else 3
    self.stages = nnx.List()
    for width, size in zip(widths, sizes, strict=True):
      blocks = []
      for _ in range(size):
        blocks.append(
          ConvNorm(width_in, width, 3, bias=True, dtype=dtype, rngs=rngs)
        )
        width_in = width
      self.stages.append(layers.ReLUChain(blocks))
    self.head = layers.head(width_in, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    for i, stage in enumerate(self.stages):
      x = stage(x)
      if i < min(self.pools, len(self.stages) - 1):
        x = pooling.max_pool(x, (2, 2), strides=(2, 2))
    x = x.mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
