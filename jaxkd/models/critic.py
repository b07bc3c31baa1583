"""The critic of holistic distillation: it scores whole maps.

It learns to distinguish a teacher's maps of class scores from a student's, with
or without the image, and trains in a term of the loss; see
`jaxkd.distill.critic`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers

SLOPE = 0.1

NAMED = {
  'critic_liu2019': {'widths': (64, 128, 256, 512), 'attention': 2},
}


class Stage(nnx.Module):
  """A convolution that halves rows and columns, of spectral norm 1."""

  def __init__(self, width_in: int, width_out: int, **options: Any):
    self.conv = nnx.SpectralNorm(
      layers.conv(
        width_in, width_out, 4, stride=2, padding=1, bias=True, **options
      ),
      rngs=options['rngs'],
    )

  def __call__(self, x: Array) -> Array:
    return nnx.leaky_relu(self.conv(x), SLOPE)


class Attention(nnx.Module):
  """What all positions make of one another, added; nothing at first (SAGAN).

  Zhang et al., `Self-Attention Generative Adversarial Networks
  <https://arxiv.org/abs/1805.08318>`_, 2019.
  """

  def __init__(self, width: int, **options: Any):
    narrow = max(1, width // 8)
    self.query = layers.linear(width, narrow, **options)
    self.key = layers.linear(width, narrow, **options)
    self.value = layers.linear(width, width, **options)
    self.gamma = nnx.Param(jnp.zeros((), jnp.float32))

  def __call__(self, x: Array) -> Array:
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    energy = (self.query(flat) @ self.key(flat).mT).astype(jnp.float32)
    seen = jax.nn.softmax(energy).astype(x.dtype) @ self.value(flat)
    return x + self.gamma[...].astype(x.dtype) * seen.reshape(x.shape)


class Model(nnx.Module):
  """A score of each map (Liu et al., 2019).

  Outputs: ``score``, [B], float32. Convolutions of kernel 4 and stride 2 and
  of spectral norm 1, each with a leaky ReLU; self-attention behind the last of
  them; a linear map of all that is left. ``critic_liu2019`` are the widths for
  maps of 65x65, where it is the authors' last convolution.

  What comes first is normalised: in the authors' code by BatchNorm, here each
  example by its own mean and deviation, then scaled and shifted by class.
  Statistics of a batch would let a score depend on other examples, which a
  penalty on the slope of each (`jaxkd.losses.gradient_penalty`) cannot see. So
  the critic sees what an example's scores are to one another, not how large
  they are in all.

  The spectral norm is found by one step of power iteration for each step of
  training; its vectors are the net's state.

  Args:
    input_shape: of the maps, (h, w, K), or of ``{'maps': (h, w, K), 'image':
      (H, W, C)}``. The image is resized to the maps' size and put behind them.
    widths: channels of each convolution.
    attention: how many of the last convolutions self-attention follows.
    dtype: what to compute in; the last map is in float32.
    rngs: where initial values come from.

  Raises:
    UserError: inputs that are no maps, or too small for that many
      convolutions, or more attention than convolutions.
  """

  def __init__(
    self,
    *,
    input_shape: Any,
    widths: Sequence[int] = (16, 32, 64),
    attention: int = 2,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    both = isinstance(input_shape, Mapping)
    maps = _map_shape(input_shape['maps'] if both else input_shape, 'scores')
    image = _map_shape(input_shape['image'], 'an image') if both else (0,)
    *size, classes = maps
    side = 2 ** len(widths)
    if min(size) < side:
      raise UserError(
        f'{len(widths)} convolutions of stride 2 take maps of at least {side} '
        f'by {side}, not {size[0]} by {size[1]}: give fewer widths'
      )
    if not 0 <= attention <= len(widths):
      raise UserError(
        f'attention is {attention} and should be from 0 to {len(widths)}, the '
        'number of widths'
      )
    options = {'dtype': dtype, 'rngs': rngs}
    self.norm = nnx.GroupNorm(classes, num_groups=1, epsilon=1e-5, **options)
    channels = (classes + image[-1], *widths)
    self.stages = nnx.List(
      Stage(below, above, **options)
      for below, above in itertools.pairwise(channels)
    )
    self.attentions = nnx.List(
      Attention(width, **options) for width in widths[len(widths) - attention :]
    )
    left = (size[0] // side) * (size[1] // side) * channels[-1]
    self.head = layers.head(left, 1, rngs=rngs)

  def __call__(self, x: Array | Mapping[str, Array]) -> dict[str, Array]:
    maps, image = (
      (x['maps'], x['image']) if isinstance(x, Mapping) else (x, None)
    )
    x = self.norm(maps)
    if image is not None:
      shape = (*maps.shape[:3], image.shape[-1])
      image = jax.image.resize(image, shape, 'linear')
      x = jnp.concatenate([x, image.astype(x.dtype)], axis=-1)
    plain = len(self.stages) - len(self.attentions)
    for i, stage in enumerate(self.stages):
      x = stage(x)
      if i >= plain:
        x = self.attentions[i - plain](x)
    return {'score': self.head(x.reshape(x.shape[0], -1))[:, 0]}


def _map_shape(shape: Any, what: str) -> tuple[int, int, int]:
  """Height, width and channels."""
  if not isinstance(shape, Sequence) or len(shape) != 3:
    raise UserError(
      f'a critic takes maps of shape (height, width, channels), not {what} of '
      f'shape {shape}'
    )
  return tuple(shape)
