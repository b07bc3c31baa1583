"""U-Net: a class for each pixel, from maps of all sizes.

Ronneberger et al., `U-Net: Convolutional networks for biomedical image
segmentation <https://arxiv.org/abs/1505.04597>`_, 2015; with BatchNorm, padded
convolutions, so that logits have the size of the image, and bilinear
interpolation in place of transposed convolutions.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, pooling
from jaxkd.models.layers import ConvNorm
from jaxkd.models.segmenter import upsampled


class Model(nnx.Module):
  """An encoder, a decoder and connections between their maps of a size.

  Outputs: ``logits`` [B, H, W, K], of the size of the image.

  Taps: ``encoder/*``, ``decoder/*``, the smallest maps first, and
  ``features``, [B, H, W, width], which the head classifies.

  Args:
    num_classes: K.
    input_shape: (H, W, C).
    width: channels of maps of the image's size, doubled where their sides are
      halved.
    depth: how often they are halved.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images, or too small.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    width: int = 8,
    depth: int = 3,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    height, breadth, channels = layers.image_shape(input_shape)
    if min(height, breadth) < 2**depth:
      raise UserError(
        f'unet: images of {height} by {breadth} pixels cannot be halved '
        f'depth={depth} times; give a smaller depth'
      )
    options = {'dtype': dtype, 'rngs': rngs}
    widths = [width * 2**i for i in range(depth + 1)]
    self.encoder = nnx.List(
      _pair(before, after, **options)
      for before, after in itertools.pairwise([channels, *widths])
    )
    self.decoder = nnx.List(
      _pair(3 * after, after, **options) for after in widths[-2::-1]
    )
    self.features = layers.Identity()
    self.head = layers.head(width, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    kept = []
    for stage in self.encoder:
      if kept:
        x = pooling.max_pool(x, (2, 2), strides=(2, 2))
      x = stage(x)
      kept.append(x)
    for stage, skip in zip(self.decoder, kept[-2::-1], strict=True):
      x = jnp.concatenate([skip, upsampled(x, skip.shape[1:3])], axis=-1)
      x = stage(x)
    return {'logits': self.head(self.features(x))}


def _pair(width_in: int, width: int, **options: Any) -> nnx.Module:
  return layers.ReLUChain(
    [
      ConvNorm(width_in, width, 3, **options),
      ConvNorm(width, width, 3, **options),
    ]
  )
