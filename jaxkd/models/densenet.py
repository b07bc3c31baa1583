"""Densely connected networks for small images (Huang et al., 2017).

The BC form: bottlenecks of four times the growth, and compression between
stages.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers

NAMED = {
  'densenet_100_12': {'depth': 100, 'growth': 12, 'compression': 0.5},
  'densenet_250_24': {'depth': 250, 'growth': 24, 'compression': 0.5},
  'densenet_190_40': {'depth': 190, 'growth': 40, 'compression': 0.5},
}


class Block(nnx.Module):
  """Adds ``growth`` channels to those that came before."""

  def __init__(self, width: int, growth: int, **options: Any):
    self.norm1 = layers.norm(width, **options)
    self.conv1 = layers.conv(width, 4 * growth, 1, **options)
    self.norm2 = layers.norm(4 * growth, **options)
    self.conv2 = layers.conv(4 * growth, growth, 3, **options)

  def __call__(self, x: Array) -> Array:
    y = self.conv1(nnx.relu(self.norm1(x)))
    y = self.conv2(nnx.relu(self.norm2(y)))
    return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
  """Compresses the channels and halves height and width."""

  def __init__(self, width_in: int, width_out: int, **options: Any):
    self.norm = layers.norm(width_in, **options)
    self.conv = layers.conv(width_in, width_out, 1, **options)

  def __call__(self, x: Array) -> Array:
    x = self.conv(nnx.relu(self.norm(x)))
    return nnx.avg_pool(x, (2, 2), strides=(2, 2))


class Model(nnx.Module):
  """A DenseNet-BC of three stages.

  Taps: ``stem``, ``stages/*``, ``transitions/*``, ``norm``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    depth: layers with weights; each stage has (depth - 4) // 6 blocks.
    growth: channels that a block adds.
    compression: share of the channels that a transition keeps.
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
    depth: int = 100,
    growth: int = 12,
    compression: float = 0.5,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    options = {'dtype': dtype, 'rngs': rngs}
    width = 2 * growth
    self.stem = layers.conv(channels, width, 3, **options)
    self.stages = nnx.List()
    self.transitions = nnx.List()
    for i in range(3):
      if i > 0:
        kept = int(width * compression)
        self.transitions.append(Transition(width, kept, **options))
        width = kept
      blocks = []
      for _ in range((depth - 4) // 6):
        blocks.append(Block(width, growth, **options))
        width += growth
      self.stages.append(layers.Chain(blocks))
    self.norm = layers.norm(width, **options)
    self.head = layers.head(width, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    first, *others = self.stages
    x = first(self.stem(x))
    for transition, stage in zip(self.transitions, others, strict=True):
      x = stage(transition(x))
    x = nnx.relu(self.norm(x)).mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
