"""Residual networks of four stages (He et al., 2016, section 4.1).

``resnet18`` and its like have the stem for large images, ``resnet18_cifar``
the one for small.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import unknown
from jaxkd.models import layers, pooling
from jaxkd.models.layers import ConvNorm
from jaxkd.models.resnet import PYTORCH as _TORCHVISION
from jaxkd.models.resnet import BasicBlock, Bottleneck, make_stages

_18 = {'block': 'basic', 'sizes': (2, 2, 2, 2), 'width': 64}
_34 = {'block': 'basic', 'sizes': (3, 4, 6, 3), 'width': 64}
_50 = {'block': 'bottleneck', 'sizes': (3, 4, 6, 3), 'width': 64}
_101 = {'block': 'bottleneck', 'sizes': (3, 4, 23, 3), 'width': 64}
_152 = {'block': 'bottleneck', 'sizes': (3, 8, 36, 3), 'width': 64}
NAMED = {
  'resnet18': {**_18, 'stem': 'imagenet'},
  'resnet18_cifar': {**_18, 'stem': 'cifar'},
  'resnet34': {**_34, 'stem': 'imagenet'},
  'resnet34_cifar': {**_34, 'stem': 'cifar'},
  'resnet50': {**_50, 'stem': 'imagenet'},
  'resnet50_cifar': {**_50, 'stem': 'cifar'},
  'resnet101': {**_101, 'stem': 'imagenet'},
  'resnet101_cifar': {**_101, 'stem': 'cifar'},
  'resnet152': {**_152, 'stem': 'imagenet'},
}
# Layers of torchvision and timm, and of transformers -> ours, see
# models/pytorch.py.
_LAYER = r'(convolution|normalization)'
_KIND = {'convolution': 'conv', 'normalization': 'norm'}
PYTORCH = {
  **_TORCHVISION,
  rf'resnet\.embedder\.embedder\.{_LAYER}': lambda kind: f'stem/{_KIND[kind]}',
  rf'resnet\.encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.{_LAYER}': (
    lambda i, j, k, kind: f'stages/{i}/blocks/{j}/conv{k + 1}/{_KIND[kind]}'
  ),
  rf'resnet\.encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.{_LAYER}': (
    lambda i, j, kind: f'stages/{i}/blocks/{j}/shortcut/{_KIND[kind]}'
  ),
  r'classifier\.1': lambda: 'head',
}


class Model(nnx.Module):
  """A residual network of four stages.

  Taps: ``stem``, ``stages/*``, ``stages/*/preactivation`` (before the last
  ReLU), ``stages/*/blocks/*`` (each block's sum before its ReLU).

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    block: ``'basic'`` or ``'bottleneck'``.
    sizes: blocks in each stage.
    width: channels of the first stage, doubled by each of the others.
    stem: ``'imagenet'``, 7x7 with stride 2 and pooling, or ``'cifar'``, 3x3.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images, or no such block or stem.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    block: str = 'basic',
    sizes: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    stem: str = 'imagenet',
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    blocks = {'basic': BasicBlock, 'bottleneck': Bottleneck}
    if block not in blocks:
      raise unknown('block', block, blocks, 'resnet_imagenet: block')
    if stem not in ('imagenet', 'cifar'):
      raise unknown(
        'stem', stem, ('imagenet', 'cifar'), 'resnet_imagenet: stem'
      )
    channels = layers.image_shape(input_shape)[-1]
    options = {'dtype': dtype, 'rngs': rngs}
    self.pools = stem == 'imagenet'
    kernel, stride = (7, 2) if self.pools else (3, 1)
    self.stem = ConvNorm(channels, width, kernel, stride=stride, **options)
    widths = [width * 2**i for i in range(len(sizes))]
    self.stages = make_stages(blocks[block], width, widths, sizes, **options)
    self.head = layers.head(
      widths[-1] * blocks[block].expansion, num_classes, rngs=rngs
    )

  def __call__(self, x: Array) -> dict[str, Array]:
    x = nnx.relu(self.stem(x))
    if self.pools:
      x = pooling.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage in self.stages:
      x = stage(x)
    x = x.mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
