"""Wide residual networks (Zagoruyko & Komodakis, 2016).

Pre-activation blocks: BatchNorm and ReLU come before each convolution.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers

NAMED = {
  'wrn_10_1': {'depth': 10, 'width': 1},
  'wrn_10_2': {'depth': 10, 'width': 2},
  'wrn_10_4': {'depth': 10, 'width': 4},
  'wrn_10_8': {'depth': 10, 'width': 8},
  'wrn_10_10': {'depth': 10, 'width': 10},
  'wrn_16_1': {'depth': 16, 'width': 1},
  'wrn_16_2': {'depth': 16, 'width': 2},
  'wrn_16_4': {'depth': 16, 'width': 4},
  'wrn_16_8': {'depth': 16, 'width': 8},
  'wrn_16_10': {'depth': 16, 'width': 10},
  'wrn_22_1': {'depth': 22, 'width': 1},
  'wrn_22_2': {'depth': 22, 'width': 2},
  'wrn_22_4': {'depth': 22, 'width': 4},
  'wrn_22_8': {'depth': 22, 'width': 8},
  'wrn_22_10': {'depth': 22, 'width': 10},
  'wrn_28_1': {'depth': 28, 'width': 1},
  'wrn_28_2': {'depth': 28, 'width': 2},
  'wrn_28_4': {'depth': 28, 'width': 4},
  'wrn_28_8': {'depth': 28, 'width': 8},
  'wrn_28_10': {'depth': 28, 'width': 10},
  'wrn_40_1': {'depth': 40, 'width': 1},
  'wrn_40_2': {'depth': 40, 'width': 2},
  'wrn_40_4': {'depth': 40, 'width': 4},
  'wrn_40_8': {'depth': 40, 'width': 8},
  'wrn_40_10': {'depth': 40, 'width': 10},
}
# Layers of the CIFAR zoos -> ours, see models/pytorch.py.
PYTORCH = {
  r'conv1': lambda: 'stem',
  r'block(\d)\.layer\.(\d+)\.(conv|bn)(\d)': lambda i, j, kind, k: (
    f'stages/{i - 1}/blocks/{j}/{kind}{k}'
  ),
  r'block(\d)\.layer\.(\d+)\.convShortcut': lambda i, j: (
    f'stages/{i - 1}/blocks/{j}/shortcut'
  ),
  r'bn1': lambda: 'norm',
  r'fc': lambda: 'head',
}


class Block(nnx.Module):
  """Two 3x3 convolutions and a shortcut."""

  def __init__(
    self,
    width_in: int,
    width: int,
    *,
    stride: int,
    dropout: float,
    **options: Any,
  ):
    self.norm1 = layers.norm(width_in, **options)
    self.conv1 = layers.conv(width_in, width, 3, stride=stride, **options)
    self.norm2 = layers.norm(width, **options)
    self.dropout = nnx.Dropout(dropout, rngs=options['rngs'])
    self.conv2 = layers.conv(width, width, 3, **options)
    self.shortcut = (
      None
      if width_in == width
      else layers.conv(width_in, width, 1, stride=stride, **options)
    )

  def __call__(self, x: Array) -> Array:
    y = nnx.relu(self.norm1(x))
    if self.shortcut is not None:  # it sees what the convolutions see
      x = self.shortcut(y)
    y = self.dropout(nnx.relu(self.norm2(self.conv1(y))))
    return x + self.conv2(y)


class Model(nnx.Module):
  """A wide residual network of three stages.

  Taps: ``stem``, ``stages/*`` (sums that no ReLU has seen),
  ``stages/*/blocks/*``; the BatchNorms before the ReLUs that follow stages are
  ``stages/1/blocks/0/norm1``, ``stages/2/blocks/0/norm1`` and ``norm``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    depth: layers with weights, 6n + 4 for n blocks a stage.
    width: widening factor of the stages' 16, 32 and 64 channels.
    dropout: the probability that training drops a unit inside a block.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: not images, or a depth that is not 6n + 4.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    depth: int = 16,
    width: int = 2,
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    size, rest = divmod(depth - 4, 6)
    if rest or size < 1:
      raise UserError(f'wrn: depth must be 10, 16, 22... (6n + 4), not {depth}')
    options = {'dtype': dtype, 'rngs': rngs}
    self.stem = layers.conv(channels, 16, 3, **options)
    self.stages = nnx.List()
    width_in = 16
    for i in range(3):
      blocks = []
      for j in range(size):
        stride = 2 if i > 0 and j == 0 else 1
        width_out = 16 * 2**i * width
        blocks.append(
          Block(width_in, width_out, stride=stride, dropout=dropout, **options)
        )
        width_in = width_out
      self.stages.append(layers.Chain(blocks))
    self.norm = layers.norm(width_in, **options)
    self.head = layers.head(width_in, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = self.stem(x)
    for stage in self.stages:
      x = stage(x)
    x = nnx.relu(self.norm(x)).mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
