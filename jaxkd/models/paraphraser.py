"""The paraphraser of factor transfer: an autoencoder of another net's maps.

It reads a layer of a teacher (``reads=('main', 'stages/2')``), is trained to
reconstruct it, and gives the factors that a student's translator imitates.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers

SLOPE = 0.1


class Coder(nnx.Module):
  """Three 3x3 convolutions, each with a leaky ReLU."""

  def __init__(self, widths: Sequence[int], **options: Any):
    self.convs = nnx.List(
      layers.conv(below, above, 3, bias=True, **options)
      for below, above in itertools.pairwise(widths)
    )

  def __call__(self, x: Array) -> Array:
    for conv in self.convs:
      x = nnx.leaky_relu(conv(x), SLOPE)
    return x


class Model(nnx.Module):
  """Factors of a map, and the map again (Kim et al., 2018).

  Outputs: ``factors``, [B, H, W, rate · C], and ``reconstruction``,
  [B, H, W, C]. At stride 1 a transposed convolution is a convolution, so the
  decoder is made as the encoder is.

  Args:
    input_shape: (H, W, C) of the map that it reads.
    rate: the share of the channels that the factors have.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: it reads no map, or no factor is left.
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    rate: float = 0.5,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    width = layers.image_shape(input_shape)[-1]
    factors = round(rate * width)
    if factors < 1:
      raise UserError(f'paraphraser: rate {rate} of {width} channels is none')
    options = {'dtype': dtype, 'rngs': rngs}
    self.encoder = Coder((width, width, factors, factors), **options)
    self.decoder = Coder((factors, factors, width, width), **options)

  def __call__(self, x: Array) -> dict[str, Array]:
    factors = self.encoder(x)
    return {'factors': factors, 'reconstruction': self.decoder(factors)}
