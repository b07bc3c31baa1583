"""Residual networks for small images (He et al., 2016, section 4.2).

Three stages, as in the nets that distillation is compared on: resnet20,
resnet56... have widths 16, 16, 32, 64; the x4 form is wider. Where a stage
changes width or size its shortcut is a 1x1 convolution with BatchNorm.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers
from jaxkd.models.layers import ConvNorm

NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
NAMED = {
  'resnet8': {'depth': 8, 'widths': NARROW},
  'resnet14': {'depth': 14, 'widths': NARROW},
  'resnet20': {'depth': 20, 'widths': NARROW},
  'resnet32': {'depth': 32, 'widths': NARROW},
  'resnet44': {'depth': 44, 'widths': NARROW},
  'resnet56': {'depth': 56, 'widths': NARROW},
  'resnet110': {'depth': 110, 'widths': NARROW},
  'resnet8x4': {'depth': 8, 'widths': WIDE},
  'resnet14x4': {'depth': 14, 'widths': WIDE},
  'resnet32x4': {'depth': 32, 'widths': WIDE},
}
# Layers of the CIFAR zoos and of torchvision -> ours, see models/pytorch.py.
PYTORCH = {
  r'(conv|bn)1': lambda kind: f'stem/{kind}',
  r'layer(\d)\.(\d+)\.(conv|bn)(\d)': lambda i, j, kind, k: (
    f'stages/{i - 1}/blocks/{j}/conv{k}/{kind}'
  ),
  r'layer(\d)\.(\d+)\.(?:downsample|shortcut)\.([01])': lambda i, j, k: (
    f'stages/{i - 1}/blocks/{j}/shortcut/{layers.IN_TURN[k]}'
  ),
  r'fc|linear': lambda: 'head',
}


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions and a shortcut; the ReLU after the sum is not here."""

  expansion = 1

  def __init__(self, width_in: int, width: int, *, stride: int, **options: Any):
    self.conv1 = ConvNorm(width_in, width, 3, stride=stride, **options)
    self.conv2 = ConvNorm(width, width, 3, **options)
    self.shortcut = _shortcut(width_in, width, stride, **options)

  def __call__(self, x: Array) -> Array:
    y = nnx.relu(self.conv1(x))
    return self.conv2(y) + self.shortcut(x)


class Bottleneck(nnx.Module):
  """1x1, 3x3 and 1x1 convolutions to four times the width, and a shortcut."""

  expansion = 4

  def __init__(self, width_in: int, width: int, *, stride: int, **options: Any):
    self.conv1 = ConvNorm(width_in, width, 1, **options)
    self.conv2 = ConvNorm(width, width, 3, stride=stride, **options)
    self.conv3 = ConvNorm(width, 4 * width, 1, **options)
    self.shortcut = _shortcut(width_in, 4 * width, stride, **options)

  def __call__(self, x: Array) -> Array:
    y = nnx.relu(self.conv1(x))
    y = nnx.relu(self.conv2(y))
    return self.conv3(y) + self.shortcut(x)


class Neck(nnx.Module):
  """1x1, 3x3 and 1x1 convolutions to another width, a ReLU after each."""

  def __init__(self, width_in: int, width: int, **options: Any):
    half = max(1, width // 2)
    self.convs = nnx.List(
      [
        ConvNorm(width_in, half, 1, **options),
        ConvNorm(half, half, 3, **options),
        ConvNorm(half, width, 1, **options),
      ]
    )

  def __call__(self, x: Array) -> Array:
    for conv in self.convs:
      x = nnx.relu(conv(x))
    return x


class Model(nnx.Module):
  """A residual network of three stages.

  Taps: ``stem``, ``stages/*``, ``stages/*/preactivation`` (before the last
  ReLU), ``stages/*/blocks/*`` (each block's sum before its ReLU), ``neck``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    depth: layers with weights, 6n + 2 for n blocks a stage.
    widths: channels of the first convolution and of the three stages.
    neck: channels behind a projector between the last stage and the
      classifier, so that this can be another net's (SimKD, Chen et al., 2022);
      0 for none.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images, or a depth that is not 6n + 2.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    depth: int = 20,
    widths: Sequence[int] = NARROW,
    neck: int = 0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    size, rest = divmod(depth - 2, 6)
    if rest or size < 1:
      raise UserError(
        f'resnet: depth must be 8, 14, 20... (6n + 2), not {depth}'
      )
    options = {'dtype': dtype, 'rngs': rngs}
    self.stem = ConvNorm(channels, widths[0], 3, **options)
    self.stages = make_stages(
      BasicBlock, widths[0], widths[1:], (size,) * 3, **options
    )
    self.neck = Neck(widths[-1], neck, **options) if neck else None
    self.head = layers.head(neck or widths[-1], num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = nnx.relu(self.stem(x))
    for stage in self.stages:
      x = stage(x)
    if self.neck is not None:
      x = self.neck(x)
    x = x.mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}


def make_stages(
  block: type[nnx.Module],
  width_in: int,
  widths: Sequence[int],
  sizes: Sequence[int],
  **options: Any,
) -> nnx.List:
  """Stages of blocks; all but the first halve height and width."""
  stages = nnx.List()
  for i, (width, size) in enumerate(zip(widths, sizes, strict=True)):
    blocks = []
    for j in range(size):
      stride = 2 if i > 0 and j == 0 else 1
      blocks.append(block(width_in, width, stride=stride, **options))
      width_in = width * block.expansion
    stages.append(layers.ReLUChain(blocks))
  return stages


def _shortcut(
  width_in: int, width_out: int, stride: int, **options: Any
) -> nnx.Module:
  if stride == 1 and width_in == width_out:
    return layers.Identity()
  return ConvNorm(width_in, width_out, 1, stride=stride, **options)
