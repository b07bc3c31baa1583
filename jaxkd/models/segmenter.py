"""Pyramid scene parsing nets: a class for each pixel (Zhao et al., 2017).

A residual network whose last stages are dilated rather than smaller, pooling
to a pyramid of bins, and a classifier at each position; Zhao et al., `Pyramid
scene parsing network <https://arxiv.org/abs/1612.01105>`_.

The published names are the teacher and the students of work [16], Liu et al.,
`Structured knowledge distillation for semantic segmentation
<https://arxiv.org/abs/1903.04197>`_, 2019: 70.4, 13.1 and 3.3 million
parameters with 19 classes, the auxiliary head's included.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError, unknown
from jaxkd.losses import _pooling
from jaxkd.models import layers, pooling
from jaxkd.models.layers import ConvNorm
from jaxkd.models.resnet import BasicBlock, Bottleneck

BLOCKS = {'basic': BasicBlock, 'bottleneck': Bottleneck}
STEMS = ('small', 'deep')
_PSPNET = {'stem': 'deep', 'stride': 8, 'dropout': 0.1, 'auxiliary': True}
_RESNET18 = {**_PSPNET, 'block': 'basic', 'sizes': (2, 2, 2, 2)}
NAMED = {
  'pspnet_resnet101': {
    **_PSPNET,
    'block': 'bottleneck',
    'sizes': (3, 4, 23, 3),
    'width': 64,
    'pyramid': 512,
  },
  'pspnet_resnet18': {**_RESNET18, 'width': 64, 'pyramid': 128},
  'pspnet_resnet18_half': {**_RESNET18, 'width': 32, 'pyramid': 64},
}


class Fusion(nnx.Module):
  """A 3x3 convolution with BatchNorm and a leaky ReLU, then dropout of maps."""

  def __init__(
    self,
    width_in: int,
    width: int,
    dropout: float,
    *,
    bias: bool = False,
    **options: Any,
  ):
    self.conv = ConvNorm(width_in, width, 3, bias=bias, **options)
    self.dropout = nnx.Dropout(
      dropout, broadcast_dims=(1, 2), rngs=options['rngs']
    )

  def __call__(self, x: Array) -> Array:
    return self.dropout(nnx.leaky_relu(self.conv(x)))


class Pyramid(nnx.Module):
  """What grids of bins average, put behind each position, and its fusion."""

  def __init__(
    self,
    width_in: int,
    width: int,
    bins: Sequence[int],
    dropout: float,
    **options: Any,
  ):
    self.bins = tuple(bins)
    self.branches = nnx.List(
      ConvNorm(width_in, width, 1, **options) for _ in bins
    )
    together = width_in + len(self.bins) * width
    self.fusion = Fusion(together, width, dropout, **options)

  def __call__(self, x: Array) -> Array:
    pooled = [
      upsampled(
        nnx.leaky_relu(branch(_pooling.average(x, (n, n)))), x.shape[1:3]
      )
      for n, branch in zip(self.bins, self.branches, strict=True)
    ]
    return self.fusion(jnp.concatenate([*pooled, x], axis=-1))


class Auxiliary(nnx.Module):
  """The classifier of the last stage but one, for training alone."""

  def __init__(
    self,
    width_in: int,
    width: int,
    num_classes: int,
    dropout: float,
    **options: Any,
  ):
    self.fusion = Fusion(width_in, width, dropout, bias=True, **options)
    self.head = layers.head(width, num_classes, rngs=options['rngs'])

  def __call__(self, x: Array) -> Array:
    return self.head(self.fusion(x))


class Model(nnx.Module):
  """A residual network with dilated stages, a pyramid and a head.

  Outputs: ``logits`` [B, H, W, K], of the size of the image, ``scores`` [B, h,
  w, K], of which they are the bilinear interpolation, and, where there is an
  auxiliary head, ``auxiliary``, its logits [B, H, W, K].

  Taps: ``stem``, ``stages/*``, ``stages/*/preactivation`` (before the last
  ReLU), ``stages/*/blocks/*``, and ``features``, [B, h, w, pyramid], which the
  head classifies.

  Args:
    num_classes: K.
    input_shape: (H, W, C).
    block: ``'basic'`` or ``'bottleneck'``.
    sizes: blocks in each stage.
    width: channels of the first stage, doubled by each of the others.
    stem: ``'small'``, a 3x3 convolution with stride 2, or ``'deep'``, three of
      them, the last twice as wide, and pooling, with stride 4.
    stride: pixels of the image that a position stands for, along each side; a
      power of two, which the stem and the first stages make up. Later stages
      are dilated by twice as much as the one before.
    pyramid: channels of each branch, and of the features.
    bins: of the branches, along each side.
    dropout: the probability that training drops a feature map.
    auxiliary: whether the last stage but one has a head too.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: not images, images or stages too few for the options, or no such
      block, stem or stride.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    block: str = 'basic',
    sizes: Sequence[int] = (1, 1, 1),
    width: int = 8,
    stem: str = 'small',
    stride: int = 4,
    pyramid: int = 16,
    bins: Sequence[int] = (1, 2, 3, 6),
    dropout: float = 0.0,
    auxiliary: bool = False,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    if block not in BLOCKS:
      raise unknown('block', block, BLOCKS, 'segmenter: block')
    if stem not in STEMS:
      raise unknown('stem', stem, STEMS, 'segmenter: stem')
    for option, values in (('sizes', sizes), ('bins', bins)):
      if not values or min(values) < 1:
        raise UserError(
          f'segmenter: {option}={values} should be one number or more above 0'
        )
    height, breadth, channels = layers.image_shape(input_shape)
    reached = 2 if stem == 'small' else 4
    strides = [reached * 2**i for i in range(max(1, len(sizes)))]
    if stride not in strides:
      raise UserError(
        f'segmenter: stride={stride} cannot be made by a {stem} stem and '
        f'{len(sizes)} stages; use one of {", ".join(map(str, strides))}'
      )
    least = stride * max(bins)
    if min(height, breadth) <= least - stride:
      raise UserError(
        f'segmenter: images of {height} by {breadth} pixels do not fill '
        f'{max(bins)} bins at stride {stride}; take fewer bins, a smaller '
        f'stride or images of {least} pixels'
      )
    if auxiliary and len(sizes) < 2:
      raise UserError(
        'segmenter: auxiliary=True needs two stages or more; give more sizes'
      )
    options = {'dtype': dtype, 'rngs': rngs}
    self.pools = stem == 'deep'
    widths = (width, width, 2 * width) if self.pools else (width,)
    convs, before = [], channels
    for i, after in enumerate(widths):
      convs.append(ConvNorm(before, after, 3, stride=1 + (i == 0), **options))
      before = after
    self.stem = layers.ReLUChain(convs)
    self.stages, dilation = nnx.List(), 1
    for i, size in enumerate(sizes):
      step = 2 if i and reached < stride else 1
      reached *= step
      dilation *= 2 if i and step == 1 else 1
      blocks, penultimate = [], before
      for j in range(size):
        blocks.append(
          BLOCKS[block](
            before,
            width * 2**i,
            stride=step if j == 0 else 1,
            dilation=dilation,
            **options,
          )
        )
        before = width * 2**i * BLOCKS[block].expansion
      self.stages.append(layers.ReLUChain(blocks))
    self.pyramid = Pyramid(before, pyramid, bins, dropout, **options)
    self.features = layers.Identity()
    self.head = layers.head(pyramid, num_classes, rngs=rngs)
    self.auxiliary = (
      Auxiliary(penultimate, pyramid, num_classes, dropout, **options)
      if auxiliary
      else None
    )

  def __call__(self, x: Array) -> dict[str, Array]:
    size = x.shape[1:3]
    x = self.stem(x)
    if self.pools:
      x = pooling.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    *stages, last = self.stages
    for stage in stages:
      x = stage(x)
    scores = self.head(self.features(self.pyramid(last(x))))
    found = {'logits': upsampled(scores, size), 'scores': scores}
    if self.auxiliary is not None:
      found['auxiliary'] = upsampled(self.auxiliary(x), size)
    return found


def upsampled(x: Array, size: tuple[int, int]) -> Array:
  """Maps [B, h, w, D] at a larger size, by bilinear interpolation.

  Pixels have their values at their centres, as in OpenCV; the authors of the
  nets align the centres of the corners.
  """
  return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'bilinear')
