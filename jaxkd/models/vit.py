"""Vision transformers (Dosovitskiy et al., 2021).

Blocks normalise before attention and before the MLP.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError, unknown
from jaxkd.models import layers
from jaxkd.models.convolution import conv_general_dilated

BASE = {'patch': 16, 'depth': 12, 'mlp_ratio': 4.0, 'pool': 'token'}
NAMED = {
  'vit_ti_16': {**BASE, 'width': 192, 'heads': 3},
  'vit_s_16': {**BASE, 'width': 384, 'heads': 6},
  'vit_b_16': {**BASE, 'width': 768, 'heads': 12},
}
# Layers of torchvision, of timm, and of transformers, in its files and in its
# nets -> ours, see models/pytorch.py.
_EMBEDDINGS = r'vit\.embeddings\.'
_BLOCK = (
  r'(?:encoder\.layers\.encoder_layer_|blocks\.'
  r'|vit\.encoder\.layer\.|vit\.layers\.)(\d+)\.'
)
_IN_TURN = {'q': 0, 'k': 1, 'v': 2}
PYTORCH = {
  rf'class_token|cls_token|{_EMBEDDINGS}cls_token': lambda: 'token',
  rf'encoder\.pos_embedding|pos_embed|{_EMBEDDINGS}position_embeddings': (
    lambda: 'position'
  ),
  rf'conv_proj|patch_embed\.proj|{_EMBEDDINGS}patch_embeddings\.projection': (
    lambda: 'patches/conv'
  ),
  rf'{_BLOCK}(?:ln_1|norm1|layernorm_before)': lambda i: f'blocks/{i}/norm1',
  rf'{_BLOCK}(?:ln_2|norm2|layernorm_after)': lambda i: f'blocks/{i}/norm2',
  rf'{_BLOCK}(?:self_attention\.in_proj|attn\.qkv)': lambda i: (
    f'blocks/{i}/attention/project_in'
  ),
  rf'{_BLOCK}attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)': (
    lambda i, which: f'blocks/{i}/attention/project_in#{_IN_TURN[which]}'
  ),
  (
    rf'{_BLOCK}(?:self_attention\.out_proj|attn\.proj'
    r'|attention\.output\.dense|attention\.o_proj)'
  ): lambda i: f'blocks/{i}/attention/project_out',
  rf'{_BLOCK}(?:mlp\.(?:0|linear_1|fc1)|intermediate\.dense)': lambda i: (
    f'blocks/{i}/mlp/linear1'
  ),
  rf'{_BLOCK}(?:mlp\.(?:3|linear_2|fc2)|output\.dense)': lambda i: (
    f'blocks/{i}/mlp/linear2'
  ),
  r'encoder\.ln|norm|vit\.layernorm': lambda: 'norm',
  r'heads\.head|head|classifier': lambda: 'head',
}


class Patches(nnx.Module):
  """Embeds square patches that do not overlap: [B, H, W, C] to [B, N, D]."""

  def __init__(
    self, input_shape: Sequence[int], patch: int, width: int, **options: Any
  ):
    *size, channels = layers.image_shape(input_shape)
    if any(n % patch for n in size):
      raise UserError(
        f'patch={patch} does not divide images of {size[0]} by {size[1]}'
      )
    self.number = (size[0] // patch) * (size[1] // patch)
    self.conv = nnx.Conv(
      channels,
      width,
      (patch, patch),
      strides=patch,
      conv_general_dilated=conv_general_dilated,
      kernel_init=nnx.initializers.xavier_uniform(),
      **options,
    )

  def __call__(self, x: Array) -> Array:
    x = self.conv(x)
    return x.reshape(x.shape[0], -1, x.shape[-1])


class MLP(nnx.Module):
  """Two linear maps of the last axis with GELU between them."""

  def __init__(
    self, width: int, hidden: int, *, dropout: float, **options: Any
  ):
    self.linear1 = linear(width, hidden, **options)
    self.linear2 = linear(hidden, width, **options)
    self.dropout1 = nnx.Dropout(dropout, rngs=options['rngs'])
    self.dropout2 = nnx.Dropout(dropout, rngs=options['rngs'])

  def __call__(self, x: Array) -> Array:
    x = self.dropout1(nnx.gelu(self.linear1(x), approximate=False))
    return self.dropout2(self.linear2(x))


class Attention(nnx.Module):
  """Self-attention over [B, N, D]; its probabilities [B, h, N, N] are a tap."""

  def __init__(self, width: int, heads: int, *, dropout: float, **options: Any):
    if width % heads:
      raise UserError(f'heads={heads} does not divide width={width}')
    self.heads = heads
    self.project_in = linear(width, 3 * width, **options)
    self.probabilities = layers.Identity()
    self.project_out = linear(width, width, **options)
    self.dropout = nnx.Dropout(dropout, rngs=options['rngs'])

  def __call__(self, x: Array) -> Array:
    batch, number, width = x.shape
    x = self.project_in(x).reshape(batch, number, 3, self.heads, -1)
    query, key, value = jnp.unstack(x, axis=2)
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, key).astype(jnp.float32)
    p = self.probabilities(jax.nn.softmax(scores * query.shape[-1] ** -0.5))
    x = jnp.einsum('bhqk,bkhd->bqhd', p.astype(value.dtype), value)
    return self.dropout(self.project_out(x.reshape(batch, number, width)))


class Block(nnx.Module):
  """Attention, then MLP, each added to its input."""

  def __init__(
    self,
    width: int,
    heads: int,
    mlp_ratio: float,
    *,
    dropout: float,
    norm_eps: float,
    **options: Any,
  ):
    self.norm1 = layer_norm(width, norm_eps, **options)
    self.attention = Attention(width, heads, dropout=dropout, **options)
    self.norm2 = layer_norm(width, norm_eps, **options)
    self.mlp = MLP(width, int(mlp_ratio * width), dropout=dropout, **options)

  def __call__(self, x: Array) -> Array:
    x = x + self.attention(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class Model(nnx.Module):
  """A vision transformer with learned positions.

  Taps: ``patches``, ``blocks/*`` ([B, N, D]), ``norm``,
  ``blocks/*/attention/probabilities`` ([B, heads, N, N]).

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    patch: side of a patch in pixels; divides H and W.
    width: features of a token.
    depth: blocks.
    heads: attention heads; divides the width.
    mlp_ratio: hidden units of a block's MLP over its width.
    dropout: the probability that training drops a unit.
    pool: what is classified, the ``'mean'`` of all tokens or a class
      ``'token'``, which comes first.
    norm_eps: what LayerNorm adds to a variance.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: sizes that do not divide, or another ``pool``.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    patch: int = 4,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    pool: str = 'mean',
    norm_eps: float = 1e-6,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    if pool not in ('mean', 'token'):
      raise unknown('pooling', pool, ('mean', 'token'), 'vit: pool')
    options = {'dtype': dtype, 'rngs': rngs}
    self.patches = Patches(input_shape, patch, width, **options)
    token = jnp.zeros((1, 1, width), jnp.float32)
    self.token = nnx.Param(token) if pool == 'token' else None
    number = self.patches.number + (pool == 'token')
    self.position = nnx.Param(
      0.02 * jax.random.normal(rngs.params(), (1, number, width), jnp.float32)
    )
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.blocks = nnx.List(
      Block(
        width,
        heads,
        mlp_ratio,
        dropout=dropout,
        norm_eps=norm_eps,
        **options,
      )
      for _ in range(depth)
    )
    self.norm = layer_norm(width, norm_eps, **options)
    self.head = layers.head(width, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = self.patches(x)
    if self.token is not None:
      token = jnp.broadcast_to(self.token[...], (x.shape[0], 1, x.shape[-1]))
      x = jnp.concatenate([token.astype(x.dtype), x], axis=1)
    x = self.dropout(x + self.position[...].astype(x.dtype))
    for block in self.blocks:
      x = block(x)
    x = self.norm(x)
    x = x.mean(1) if self.token is None else x[:, 0]
    return {'logits': self.head(x), 'embedding': x}


def linear(width_in: int, width_out: int, **options: Any) -> nnx.Linear:
  """A linear map with the initial values of transformers."""
  xavier = nnx.initializers.xavier_uniform()
  return layers.linear(width_in, width_out, kernel_init=xavier, **options)


def layer_norm(
  width: int, epsilon: float = 1e-6, **options: Any
) -> nnx.LayerNorm:
  """LayerNorm; its epsilon is what most transformers for images have."""
  return nnx.LayerNorm(width, epsilon=epsilon, **options)
