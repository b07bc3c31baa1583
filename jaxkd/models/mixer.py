"""MLP-Mixer (Tolstikhin et al., 2021): MLPs over tokens, then over channels."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers
from jaxkd.models.vit import MLP, Patches, layer_norm

BASE = {'patch': 16, 'token_ratio': 0.5, 'channel_ratio': 4.0}
NAMED = {
  'mixer_s_16': {**BASE, 'width': 512, 'depth': 8},
  'mixer_b_16': {**BASE, 'width': 768, 'depth': 12},
}


class Block(nnx.Module):
  """An MLP over tokens and one over channels, each added to its input."""

  def __init__(
    self,
    number: int,
    width: int,
    *,
    token_ratio: float,
    channel_ratio: float,
    dropout: float,
    **options: Any,
  ):
    self.norm1 = layer_norm(width, **options)
    self.mix_tokens = MLP(
      number, int(token_ratio * width), dropout=dropout, **options
    )
    self.norm2 = layer_norm(width, **options)
    self.mix_channels = MLP(
      width, int(channel_ratio * width), dropout=dropout, **options
    )

  def __call__(self, x: Array) -> Array:
    x = x + self.mix_tokens(self.norm1(x).mT).mT
    return x + self.mix_channels(self.norm2(x))


class Model(nnx.Module):
  """An MLP-Mixer.

  Taps: ``patches``, ``blocks/*`` ([B, N, D]), ``norm``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    patch: side of a patch in pixels; divides H and W.
    width: features of a token.
    depth: blocks.
    token_ratio: hidden units of the MLP over tokens, over the width.
    channel_ratio: hidden units of the MLP over channels, over the width.
    dropout: the probability that training drops a unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: not images, or a patch that does not divide them.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    patch: int = 4,
    width: int = 128,
    depth: int = 6,
    token_ratio: float = 0.5,
    channel_ratio: float = 4.0,
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'rngs': rngs}
    self.patches = Patches(input_shape, patch, width, **options)
    self.blocks = nnx.List(
      Block(
        self.patches.number,
        width,
        token_ratio=token_ratio,
        channel_ratio=channel_ratio,
        dropout=dropout,
        **options,
      )
      for _ in range(depth)
    )
    self.norm = layer_norm(width, **options)
    self.head = layers.head(width, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = self.patches(x)
    for block in self.blocks:
      x = block(x)
    x = self.norm(x).mean(1)
    return {'logits': self.head(x), 'embedding': x}
