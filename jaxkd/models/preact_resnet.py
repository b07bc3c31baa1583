"""Residual networks with full pre-activation (He et al., 2016b).

The bottleneck form for small images: BatchNorm and ReLU come before each
convolution.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers

NAMED = {
  'preact_resnet164': {'depth': 164, 'width': 1},
  'preact_resnet1001': {'depth': 1001, 'width': 1},
}


class Block(nnx.Module):
  """1x1, 3x3 and 1x1 convolutions to four times the width, and a shortcut."""

  def __init__(self, width_in: int, width: int, *, stride: int, **options: Any):
    self.norm1 = layers.norm(width_in, **options)
    self.conv1 = layers.conv(width_in, width, 1, **options)
    self.norm2 = layers.norm(width, **options)
    self.conv2 = layers.conv(width, width, 3, stride=stride, **options)
    self.norm3 = layers.norm(width, **options)
    self.conv3 = layers.conv(width, 4 * width, 1, **options)
    self.shortcut = (
      None
      if width_in == 4 * width
      else layers.conv(width_in, 4 * width, 1, stride=stride, **options)
    )

  def __call__(self, x: Array) -> Array:
    y = nnx.relu(self.norm1(x))
    if self.shortcut is not None:  # it sees what the convolutions see
      x = self.shortcut(y)
    y = nnx.relu(self.norm2(self.conv1(y)))
    y = nnx.relu(self.norm3(self.conv2(y)))
    return x + self.conv3(y)


class Model(nnx.Module):
  """A pre-activation residual network of three stages.

  Taps: ``stem``, ``stages/*`` (sums that no ReLU has seen), ``norm``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    depth: layers with weights, 9n + 2 for n blocks a stage.
    width: factor of the stages' 64, 128 and 256 channels.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images, or a depth that is not 9n + 2.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    depth: int = 164,
    width: int = 1,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    size, rest = divmod(depth - 2, 9)
    if rest or size < 1:
      raise UserError(
        f'preact_resnet: depth must be 11, 20, 29... (9n + 2), not {depth}'
      )
    options = {'dtype': dtype, 'rngs': rngs}
    self.stem = layers.conv(channels, 16, 3, **options)
    self.stages = nnx.List()
    width_in = 16
    for i in range(3):
      blocks = []
      for j in range(size):
        stride = 2 if i > 0 and j == 0 else 1
        inner = 16 * 2**i * width
        blocks.append(Block(width_in, inner, stride=stride, **options))
        width_in = 4 * inner
      self.stages.append(layers.Chain(blocks))
    self.norm = layers.norm(width_in, **options)
    self.head = layers.head(width_in, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = self.stem(x)
    for stage in self.stages:
      x = stage(x)
    x = nnx.relu(self.norm(x)).mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
