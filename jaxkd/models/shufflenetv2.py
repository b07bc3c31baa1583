"""ShuffleNet V2 (Ma et al., 2018) with the stem for small images."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers
from jaxkd.models.layers import ConvNorm

# Layers of the CIFAR zoos -> ours, see models/pytorch.py. Where the size is
# halved theirs are numbered through both branches.
PYTORCH = {
  r'(conv|bn)1': lambda kind: f'stem/{kind}',
  r'layer(\d)\.0\.(conv|bn)([12])': lambda i, kind, k: (
    f'stages/{i - 1}/blocks/0/conv{k}/{kind}'
  ),
  r'layer(\d)\.0\.(conv|bn)([345])': lambda i, kind, k: (
    f'stages/{i - 1}/blocks/0/branch/conv{k - 2}/{kind}'
  ),
  r'layer(\d)\.([1-9])\.(conv|bn)(\d)': lambda i, j, kind, k: (
    f'stages/{i - 1}/blocks/{j}/branch/conv{k}/{kind}'
  ),
  r'(conv|bn)2': lambda kind: f'neck/{kind}',
  r'linear': lambda: 'head',
}


class Branch(nnx.Module):
  """1x1, depthwise 3x3 and 1x1 convolutions, with a ReLU after the 1x1 ones."""

  def __init__(
    self, width_in: int, width_out: int, *, stride: int, **options: Any
  ):
    self.conv1 = ConvNorm(width_in, width_out, 1, **options)
    self.conv2 = ConvNorm(
      width_out, width_out, 3, stride=stride, groups=width_out, **options
    )
    self.conv3 = ConvNorm(width_out, width_out, 1, **options)

  def __call__(self, x: Array) -> Array:
    x = nnx.relu(self.conv1(x))
    return nnx.relu(self.conv3(self.conv2(x)))


class Down(nnx.Module):
  """Halves height and width in two branches."""

  def __init__(self, width_in: int, width_out: int, **options: Any):
    half = width_out // 2
    self.conv1 = ConvNorm(
      width_in, width_in, 3, stride=2, groups=width_in, **options
    )
    self.conv2 = ConvNorm(width_in, half, 1, **options)
    self.branch = Branch(width_in, half, stride=2, **options)

  def __call__(self, x: Array) -> Array:
    short = nnx.relu(self.conv2(self.conv1(x)))
    return layers.shuffle_channels(
      jnp.concatenate([short, self.branch(x)], axis=-1), 2
    )


class Block(nnx.Module):
  """Convolves one half of the channels and leaves the other."""

  def __init__(self, width: int, **options: Any):
    self.branch = Branch(width // 2, width // 2, stride=1, **options)

  def __call__(self, x: Array) -> Array:
    kept, changed = jnp.split(x, 2, axis=-1)
    return layers.shuffle_channels(
      jnp.concatenate([kept, self.branch(changed)], axis=-1), 2
    )


class Model(nnx.Module):
  """A ShuffleNet V2 of three stages.

  Taps: ``stem``, ``stages/*``, ``neck``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    widths: channels of the stages and of the last convolution.
    sizes: blocks in the stages after the one that halves the size.
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
    widths: Sequence[int] = (116, 232, 464, 1024),
    sizes: Sequence[int] = (3, 7, 3),
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    options = {'dtype': dtype, 'rngs': rngs}
    *widths, last = widths
    width_in = 24
    self.stem = ConvNorm(channels, width_in, 1, **options)
    self.stages = nnx.List()
    for width, size in zip(widths, sizes, strict=True):
      down = Down(width_in, width, **options)
      blocks = [Block(width, **options) for _ in range(size)]
      self.stages.append(layers.Chain([down, *blocks]))
      width_in = width
    self.neck = ConvNorm(width_in, last, 1, **options)
    self.head = layers.head(last, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = nnx.relu(self.stem(x))
    for stage in self.stages:
      x = stage(x)
    x = nnx.relu(self.neck(x)).mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
