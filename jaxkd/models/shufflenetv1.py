"""ShuffleNet (Zhang et al., 2018) with the stem for small images."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers
from jaxkd.models.layers import ConvNorm

STEM = 24
# Layers of the CIFAR zoos -> ours, see models/pytorch.py.
PYTORCH = {
  r'(conv|bn)1': lambda kind: f'stem/{kind}',
  r'layer(\d)\.(\d)\.(conv|bn)(\d)': lambda i, j, kind, k: (
    f'stages/{i - 1}/blocks/{j}/conv{k}/{kind}'
  ),
  r'linear': lambda: 'head',
}


class Block(nnx.Module):
  """Grouped 1x1, depthwise 3x3 and grouped 1x1 convolutions, and a shortcut.

  Under stride 2 the shortcut is pooled and concatenated, else added. The ReLU
  after that is not here.
  """

  def __init__(
    self,
    width_in: int,
    width_out: int,
    *,
    stride: int,
    groups: int,
    **options: Any,
  ):
    if stride == 2:
      width_out -= width_in
    inner = width_out // 4
    self.stride = stride
    self.groups = 1 if width_in == STEM else groups
    self.conv1 = ConvNorm(width_in, inner, 1, groups=self.groups, **options)
    self.conv2 = ConvNorm(
      inner, inner, 3, stride=stride, groups=inner, **options
    )
    self.conv3 = ConvNorm(inner, width_out, 1, groups=groups, **options)

  def __call__(self, x: Array) -> Array:
    y = nnx.relu(self.conv1(x))
    y = layers.shuffle_channels(y, self.groups)
    y = nnx.relu(self.conv2(y))
    y = self.conv3(y)
    if self.stride == 1:
      return y + x
    x = nnx.avg_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    return jnp.concatenate([y, x], axis=-1)


class Model(nnx.Module):
  """A ShuffleNet of three stages.

  Taps: ``stem``, ``stages/*``, ``stages/*/preactivation`` (before the last
  ReLU).

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    widths: channels of the stages.
    sizes: blocks in the stages.
    groups: groups of the 1x1 convolutions.
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
    widths: Sequence[int] = (240, 480, 960),
    sizes: Sequence[int] = (4, 8, 4),
    groups: int = 3,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    options = {'dtype': dtype, 'rngs': rngs}
    self.stem = ConvNorm(channels, STEM, 1, **options)
    self.stages = nnx.List()
    width_in = STEM
    for width, size in zip(widths, sizes, strict=True):
      blocks = []
      for j in range(size):
        stride = 2 if j == 0 else 1
        blocks.append(
          Block(width_in, width, stride=stride, groups=groups, **options)
        )
        width_in = width
      self.stages.append(layers.ReLUChain(blocks))
    self.head = layers.head(width_in, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = nnx.relu(self.stem(x))
    for stage in self.stages:
      x = stage(x)
    x = x.mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
