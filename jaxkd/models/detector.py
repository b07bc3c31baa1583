"""A one-stage detector: classes and boxes of anchors on one grid.

Strided residual stages down to a grid of cells, and a head that gives each
anchor of a cell a score for each class and offsets of its box; Lin et al.,
`Focal Loss for Dense Object Detection <https://arxiv.org/abs/1708.02002>`_,
2017, without the pyramid. It has GroupNorm, which does not depend on the batch.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd import boxes
from jaxkd.errors import UserError
from jaxkd.models import layers

PRIOR = 0.01  # the probability of each class at the start

SQUARES = boxes.shapes((18, 25, 34), (0.5, 1.0, 2.0))


class ConvNorm(nnx.Module):
  """A 3x3 convolution, then GroupNorm."""

  def __init__(
    self,
    width_in: int,
    width: int,
    groups: int,
    *,
    stride: int = 1,
    **options: Any,
  ):
    self.conv = layers.conv(width_in, width, 3, stride=stride, **options)
    self.norm = nnx.GroupNorm(width, num_groups=groups, **options)

  def __call__(self, x: Array) -> Array:
    return self.norm(self.conv(x))


class Block(nnx.Module):
  """Two convolutions around which the input is added."""

  def __init__(self, width: int, groups: int, **options: Any):
    self.one = ConvNorm(width, width, groups, **options)
    self.two = ConvNorm(width, width, groups, **options)

  def __call__(self, x: Array) -> Array:
    return nnx.relu(x + self.two(nnx.relu(self.one(x))))


class Stage(nnx.Module):
  """A convolution with stride 2, then blocks."""

  def __init__(
    self, width_in: int, width: int, blocks: int, groups: int, **options: Any
  ):
    self.down = ConvNorm(width_in, width, groups, stride=2, **options)
    self.blocks = nnx.List(
      Block(width, groups, **options) for _ in range(blocks)
    )

  def __call__(self, x: Array) -> Array:
    x = nnx.relu(self.down(x))
    for block in self.blocks:
      x = block(x)
    return x


class Model(nnx.Module):
  """A detector of the objects in an image.

  Outputs, for h rows and w columns of cells with A anchors each: ``logits``
  [B, h·w·A, K], one for each anchor and class, whose sigmoid is the
  probability; ``offsets`` [B, h·w·A, 4], see `jaxkd.boxes.encode`; and
  ``anchors`` [B, h, w, A, 4], the same in all images of one size.
  `jaxkd.tasks.detection.detections` makes objects of them.

  Taps: ``stages/*``; and ``features``, [B, h, w, last width], on which the head
  is.

  Args:
    num_classes: K; there is none for the background.
    input_shape: (H, W, C).
    widths: channels of the stages; each halves the grid.
    blocks: residual blocks in each stage.
    anchors: their heights and widths in pixels, A pairs.
    groups: of GroupNorm, in all layers.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images, no stage or anchor, sides that are not above 0, or
      widths that the groups do not divide.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    widths: Sequence[int] = (8, 16, 32),
    blocks: int = 1,
    anchors: Sequence[Sequence[float]] = SQUARES,
    groups: int = 4,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    _, _, channels = layers.image_shape(input_shape)
    if not widths or blocks < 0:
      raise UserError(
        f'detector: widths={widths} and blocks={blocks} should be one stage or '
        'more, of 0 blocks or more'
      )
    pairs = [tuple(pair) for pair in anchors]
    if not pairs or any(len(p) != 2 or not min(p) > 0 for p in pairs):
      raise UserError(
        f'detector: anchors={anchors} should be pairs of a height and a width '
        'in pixels, above 0'
      )
    for width in widths:
      if groups < 1 or width % groups:
        raise UserError(
          f'detector: groups={groups} does not divide the width {width}; '
          'choose other widths or another number of groups'
        )
    options = {'dtype': dtype, 'rngs': rngs}
    self.shapes, self.classes = tuple(pairs), num_classes
    self.stride, before = 2 ** len(widths), channels
    self.stages = nnx.List()
    for width in widths:
      self.stages.append(Stage(before, width, blocks, groups, **options))
      before = width
    self.features = layers.Identity()
    self.neck = ConvNorm(before, before, groups, **options)
    count = len(self.shapes)
    self.head = layers.head(before, count * num_classes, rngs=rngs)
    bias = jnp.full(count * num_classes, -math.log(1 / PRIOR - 1), jnp.float32)
    self.head.bias.set_value(bias)
    self.offsets = layers.head(before, count * 4, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    size, image = x.shape[0], x.shape[1:3]
    for stage in self.stages:
      x = stage(x)
    x = self.features(x)
    x = nnx.relu(self.neck(x))
    anchors = boxes.anchors(image, self.stride, self.shapes)
    return {
      'logits': self.head(x).reshape(size, -1, self.classes),
      'offsets': self.offsets(x).reshape(size, -1, 4),
      'anchors': jnp.broadcast_to(anchors, (size, *anchors.shape)),
    }
