"""Encoder-decoder transformers (Vaswani et al., 2017).

`Transformer` is all but how the source is read; `Model` reads tokens, and
`jaxkd.models.speech_transformer` frames. Blocks normalise before attention and
before the MLP, which trains without warming up, and positions are sines of
their number.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.data.text.tokens import PAD
from jaxkd.errors import UserError
from jaxkd.models import layers, translator
from jaxkd.models.vit import MLP, layer_norm, linear


class Attention(nnx.Module):
  """Attention of [B, n, D] on what ``remember`` gave of [B, L, D].

  Its probabilities, [B, h, n, L], are a tap.
  """

  def __init__(self, width: int, heads: int, *, dropout: float, **options: Any):
    if width % heads:
      raise UserError(f'heads={heads} does not divide width={width}')
    self.heads = heads
    self.query = linear(width, width, **options)
    self.memory = linear(width, 2 * width, **options)
    self.probabilities = layers.Identity()
    self.project_out = linear(width, width, **options)
    self.dropout = nnx.Dropout(dropout, rngs=options['rngs'])

  def remember(self, x: Array) -> tuple[Array, Array]:
    """Keys and values, [B, L, h, D / h] each."""
    x = self.memory(x).reshape(*x.shape[:2], 2, self.heads, -1)
    return x[:, :, 0], x[:, :, 1]

  def __call__(self, x: Array, keys: Array, values: Array, mask: Array):
    query = self.query(x).reshape(*x.shape[:2], self.heads, -1)
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, keys)
    scores = scores.astype(jnp.float32) * query.shape[-1] ** -0.5
    p = self.probabilities(translator.attend(scores, mask))
    found = jnp.einsum('bhqk,bkhd->bqhd', p.astype(values.dtype), values)
    return self.dropout(self.project_out(found.reshape(x.shape)))


class EncoderBlock(nnx.Module):
  """Attention on the source itself, then MLP, each added to its input."""

  def __init__(
    self,
    width: int,
    heads: int,
    mlp_ratio: float,
    *,
    dropout: float,
    **options: Any,
  ):
    self.norm1 = layer_norm(width, **options)
    self.attention = Attention(width, heads, dropout=dropout, **options)
    self.norm2 = layer_norm(width, **options)
    self.mlp = MLP(width, int(mlp_ratio * width), dropout=dropout, **options)

  def __call__(self, x: Array, mask: Array) -> Array:
    normal = self.norm1(x)
    x = x + self.attention(normal, *self.attention.remember(normal), mask)
    return x + self.mlp(self.norm2(x))


class DecoderBlock(nnx.Module):
  """Attention on what came before, on the source, then MLP.

  Its outputs are ``output`` [B, n, D], and the ``keys`` and ``values`` that
  later tokens look at.
  """

  def __init__(
    self,
    width: int,
    heads: int,
    mlp_ratio: float,
    *,
    dropout: float,
    **options: Any,
  ):
    self.norm1 = layer_norm(width, **options)
    self.attention = Attention(width, heads, dropout=dropout, **options)
    self.norm2 = layer_norm(width, **options)
    self.cross = Attention(width, heads, dropout=dropout, **options)
    self.norm3 = layer_norm(width, **options)
    self.mlp = MLP(width, int(mlp_ratio * width), dropout=dropout, **options)

  def __call__(
    self,
    x: Array,
    past: tuple[Array, Array] | None,
    visible: Array,
    source: tuple[Array, Array],
    mask: Array,
    here: Array | None,
  ) -> dict[str, Array]:
    normal = self.norm1(x)
    memory = self.attention.remember(normal)
    if past is not None:  # one token, which takes its place among the others
      memory = tuple(
        jnp.where(here, new, old) for new, old in zip(memory, past, strict=True)
      )
    x = x + self.attention(normal, *memory, visible)
    x = x + self.cross(self.norm2(x), *source, mask)
    keys, values = memory
    output = x + self.mlp(self.norm3(x))
    return {'output': output, 'keys': keys, 'values': values}


class Transformer(translator.Translator):
  """An encoder and a decoder of transformer blocks.

  See `jaxkd.models.translator` for how it is asked. Step by step it gives as
  many tokens as prefixes are long; logits of later ones are nan. A subclass has
  ``read``, ``(source) -> (features [B, Ls, D], mask [B, Ls])``.

  Args:
    num_classes: tokens that there are, V.
    length: the most tokens that it writes.
    width: features of a token, D.
    depth: blocks of the encoder.
    decoder_depth: blocks of the decoder.
    heads: attention heads; divides the width.
    mlp_ratio: hidden units of a block's MLP over its width.
    dropout: the probability that training drops a unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: heads that do not divide the width.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    length: int,
    width: int,
    depth: int,
    decoder_depth: int,
    heads: int,
    mlp_ratio: float,
    dropout: float,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.length, self.width = length, width
    options = {'dtype': dtype, 'rngs': rngs}
    sizes = width, heads, mlp_ratio
    self.target = embedding(num_classes, width, **options)
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.encoder = nnx.List(
      EncoderBlock(*sizes, dropout=dropout, **options) for _ in range(depth)
    )
    self.encoder_norm = layer_norm(width, **options)
    self.decoder = nnx.List(
      DecoderBlock(*sizes, dropout=dropout, **options)
      for _ in range(decoder_depth)
    )
    self.norm = layer_norm(width, **options)
    self.head = layers.head(width, num_classes, rngs=rngs)

  def encoded(self, source: Any) -> tuple[Array, Array]:
    """The encoder's last layer, [B, Ls, D], and its mask, [B, Ls]."""
    x, mask = self.read(source)
    x = self._placed(x, jnp.zeros(x.shape[0], jnp.int32))
    for block in self.encoder:
      x = block(x, mask[:, None, None])
    return self.encoder_norm(x), mask

  def start(self, source: Any) -> dict[str, Array]:
    return self.remembered(*self.encoded(source))

  def remembered(self, x: Array, mask: Array) -> dict[str, Array]:
    """The decoder's state before the first token."""
    memories = [block.cross.remember(x) for block in self.decoder]
    keys, values = (jnp.stack(m, axis=1) for m in zip(*memories, strict=True))
    heads = keys.shape[-2:]
    past = jnp.zeros((x.shape[0], len(memories), self.length, *heads), x.dtype)
    return {
      'source_keys': keys,
      'source_values': values,
      'mask': mask,
      'keys': past,
      'values': past,
      'step': jnp.zeros(x.shape[0], jnp.int32),
    }

  def advance(
    self, state: dict[str, Array], tokens: Array
  ) -> tuple[Array, dict[str, Array]]:
    step, number = state['step'], tokens.shape[1]
    x = self._placed(self.target(tokens) * self.width**0.5, step)
    if number == 1:
      place = jnp.arange(self.length)[None]
      here = (place == step[:, None])[..., None, None]
      visible = (place <= step[:, None])[:, None, None]
    else:  # a whole prefix, from the beginning
      here = None
      visible = jnp.tril(jnp.ones((number, number), bool))[None, None]
    memories = []
    for i, block in enumerate(self.decoder):
      past, source = (
        tuple(state[of + name][:, i].astype(x.dtype) for name in KEPT)
        for of in ('', 'source_')
      )
      outputs = block(
        x,
        None if here is None else past,
        visible,
        source,
        state['mask'][:, None, None],
        here,
      )
      x = outputs['output']
      memories.append(outputs)
    changed = {
      name: jnp.stack([m[name] for m in memories], axis=1) for name in KEPT
    }
    logits = self.head(self.norm(x))
    if number == 1:
      logits = jnp.where((step < self.length)[:, None, None], logits, jnp.nan)
    return logits, {**changed, 'step': step + number}

  def _placed(self, x: Array, start: Array) -> Array:
    """Features with their positions, the first of which is given."""
    place = start[:, None] + jnp.arange(x.shape[1])[None]
    wave = sines(place, self.width).astype(x.dtype)
    return self.dropout(x + wave)


class Model(Transformer):
  """A transformer that reads tokens.

  Taps: ``encoder/*`` and ``decoder/*/output`` ([B, L, D]),
  ``encoder/*/attention/probabilities`` ([B, heads, Ls, Ls]),
  ``decoder/*/cross/probabilities`` ([B, heads, Lt, Ls]).

  Args:
    num_classes: tokens that there are, V, in both languages together.
    input_shape: of a source and a prefix; see
      `jaxkd.models.translator.lengths`.
    width: features of a token.
    depth: blocks of the encoder, and of the decoder.
    heads: attention heads; divides the width.
    mlp_ratio: hidden units of a block's MLP over its width.
    dropout: the probability that training drops a unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: inputs that are no tokens, or heads that do not divide the
      width.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Any,
    width: int = 128,
    depth: int = 2,
    heads: int = 4,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    _, length = translator.lengths(input_shape)
    options = {'dtype': dtype, 'rngs': rngs}
    self.source = embedding(num_classes, width, **options)
    super().__init__(
      num_classes=num_classes,
      length=length,
      width=width,
      depth=depth,
      decoder_depth=depth,
      heads=heads,
      mlp_ratio=mlp_ratio,
      dropout=dropout,
      **options,
    )

  def read(self, source: Array) -> tuple[Array, Array]:
    return self.source(source) * self.width**0.5, source != PAD


KEPT = 'keys', 'values'


def embedding(number: int, width: int, **options: Any) -> nnx.Embed:
  """A vector for each token."""
  normal = nnx.initializers.normal(width**-0.5)
  return nnx.Embed(number, width, embedding_init=normal, **options)


def sines(place: Array, width: int) -> Array:
  """Sines, then cosines, of wavelengths from 2π to 10,000 · 2π.

  Args:
    place: positions, int [...].
    width: how many.

  Returns:
    float32 [..., width].
  """
  half = -(-width // 2)
  rate = 1e4 ** -(jnp.arange(half, dtype=jnp.float32) / half)
  angle = place[..., None] * rate.reshape(*(1,) * place.ndim, half)
  both = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
  return both[..., :width]
