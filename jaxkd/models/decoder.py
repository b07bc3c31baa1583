"""Decoders: the language models of Llama, Qwen2, Qwen3, SmolLM and Gemma 3.

A block normalises (RMSNorm) before attention and before the MLP. Attention has
rotary positions (RoPE; Su et al., `2021 <https://arxiv.org/abs/2104.09864>`_)
and fewer heads of keys and values than of queries (GQA; Ainslie et al., `2023
<https://arxiv.org/abs/2305.13245>`_); the MLP is gated by SiLU (Shazeer, `2020
<https://arxiv.org/abs/2002.05202>`_). Gemma 3 (`2025
<https://arxiv.org/abs/2503.19786>`_) normalises after both too, and most of its
blocks see a window of the last tokens alone. The families differ in the options
below.
`jaxkd.models.hugging_face` reads and writes their weights.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError, unknown
from jaxkd.logits.factored import check_kind, product
from jaxkd.models import layers, translator

SMOLLM2 = {'norm_eps': 1e-5, 'tied': True}
QWEN2_5 = {'rope_theta': 1e6, 'norm_eps': 1e-6, 'qkv_bias': True}
QWEN3 = {'rope_theta': 1e6, 'norm_eps': 1e-6, 'qk_norm': True}
QWEN3 |= {'kv_heads': 8, 'head_width': 128}
LLAMA3 = {'rope_theta': 5e5, 'norm_eps': 1e-5, 'kv_heads': 8}
LLAMA3_SCALING = {
  'rope_type': 'llama3',
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 8192,
}
GEMMA3 = {'kv_heads': 4, 'head_width': 256, 'rope_theta': 1e6, 'qk_norm': True}
GEMMA3 |= {'activation': 'gelu', 'post_norm': True, 'zero_centered': True}
GEMMA3 |= {'scaled_embedding': True, 'window': 1024, 'tied': True}
NAMED = {
  'smollm2_135m': {
    **SMOLLM2,
    **{'width': 576, 'depth': 30, 'heads': 9, 'kv_heads': 3},
    **{'mlp_width': 1536, 'rope_theta': 1e5},
  },
  'smollm2_360m': {
    **SMOLLM2,
    **{'width': 960, 'depth': 32, 'heads': 15, 'kv_heads': 5},
    **{'mlp_width': 2560, 'rope_theta': 1e5},
  },
  'smollm2_1_7b': {
    **SMOLLM2,
    **{'width': 2048, 'depth': 24, 'heads': 32, 'kv_heads': 32},
    **{'mlp_width': 8192, 'rope_theta': 1.3e5},
  },
  'qwen2_5_0_5b': {
    **QWEN2_5,
    **{'width': 896, 'depth': 24, 'heads': 14, 'kv_heads': 2},
    **{'mlp_width': 4864, 'tied': True},
  },
  'qwen2_5_1_5b': {
    **QWEN2_5,
    **{'width': 1536, 'depth': 28, 'heads': 12, 'kv_heads': 2},
    **{'mlp_width': 8960, 'tied': True},
  },
  'qwen2_5_7b': {
    **QWEN2_5,
    **{'width': 3584, 'depth': 28, 'heads': 28, 'kv_heads': 4},
    **{'mlp_width': 18944, 'tied': False},
  },
  'qwen3_0_6b': {
    **QWEN3,
    **{'width': 1024, 'depth': 28, 'heads': 16},
    **{'mlp_width': 3072, 'tied': True},
  },
  'qwen3_1_7b': {
    **QWEN3,
    **{'width': 2048, 'depth': 28, 'heads': 16},
    **{'mlp_width': 6144, 'tied': True},
  },
  'qwen3_8b': {
    **QWEN3,
    **{'width': 4096, 'depth': 36, 'heads': 32},
    **{'mlp_width': 12288, 'tied': False},
  },
  'llama3_2_1b': {
    **LLAMA3,
    **{'width': 2048, 'depth': 16, 'heads': 32, 'mlp_width': 8192},
    **{'rope_scaling': {**LLAMA3_SCALING, 'factor': 32.0}, 'tied': True},
  },
  'llama3_2_3b': {
    **LLAMA3,
    **{'width': 3072, 'depth': 28, 'heads': 24, 'mlp_width': 8192},
    **{'rope_scaling': {**LLAMA3_SCALING, 'factor': 32.0}, 'tied': True},
  },
  'llama3_1_8b': {
    **LLAMA3,
    **{'width': 4096, 'depth': 32, 'heads': 32, 'mlp_width': 14336},
    **{'rope_scaling': {**LLAMA3_SCALING, 'factor': 8.0}, 'tied': False},
  },
  'gemma3_270m': {
    **GEMMA3,
    **{'width': 640, 'depth': 18, 'heads': 4, 'kv_heads': 1},
    **{'mlp_width': 2048, 'window': 512},
  },
  'gemma3_1b': {
    **GEMMA3,
    **{'width': 1152, 'depth': 26, 'heads': 4, 'kv_heads': 1},
    **{'mlp_width': 6912, 'window': 512},
  },
  'gemma3_4b': {
    **GEMMA3,
    **{'width': 2560, 'depth': 34, 'heads': 8, 'mlp_width': 10240},
    'rope_scaling': {'rope_type': 'linear', 'factor': 8.0},
  },
}

# What each kind of `rope_scaling` needs beside its `rope_type`.
SCALINGS = {
  'default': (),
  'linear': ('factor',),
  'llama3': (
    *('factor', 'low_freq_factor', 'high_freq_factor'),
    'original_max_position_embeddings',
  ),
}
PACKED = {'tokens', 'segments', 'positions'}
# What the gate of an MLP goes through.
ACTIVATIONS = {'silu': nnx.silu, 'gelu': nnx.gelu}  # by tanh, as Gemma has it
# The linear maps of a block, which LoRA may adapt.
LINEAR = ('query', 'key', 'value', 'output', 'gate', 'up', 'down')
ADAPTER = 'adapter'

Rotation = tuple[Array, Array]  # cosines and sines, [B or 1, n, d / 2]
Cache = tuple[Array, Array]  # keys and values, [B, S, kv_heads, d]


class Adapted(nnx.Linear):
  """A linear map with one of low rank added to it (LoRA).

  x (W + alpha / rank · A B), where B begins at 0 (Hu et al., `2022
  <https://arxiv.org/abs/2106.09685>`_).
  """

  def __init__(
    self,
    width_in: int,
    width_out: int,
    *,
    rank: int,
    alpha: float,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    **options: Any,
  ):
    super().__init__(
      width_in,
      width_out,
      dtype=dtype,
      dot_general=layers.rows_dot_general,
      rngs=rngs,
      **options,
    )
    self.scale = alpha / rank
    self.adapter = nnx.LoRA(width_in, rank, width_out, dtype=dtype, rngs=rngs)

  def __call__(self, x: Array) -> Array:
    return super().__call__(x) + self.scale * self.adapter(x)


class ZeroCentered(nnx.RMSNorm):
  """RMSNorm that multiplies by 1 + scale, where scales begin at 0."""

  def __init__(self, width: int, **options: Any):
    super().__init__(width, scale_init=nnx.initializers.zeros, **options)

  def __call__(self, x: Array) -> Array:
    x = x.astype(jnp.float32)  # so that 1 + scale is not rounded
    mean = jnp.mean(x**2, axis=-1, keepdims=True)
    scale = 1 + self.scale[...].astype(jnp.float32)
    scale = scale.reshape((1,) * (x.ndim - 1) + scale.shape)
    return (x * jax.lax.rsqrt(mean + self.epsilon) * scale).astype(self.dtype)


class Attention(nnx.Module):
  """Causal self-attention of [B, n, D] with rotary positions.

  Its probabilities, [B, heads, n, S], are a tap.
  """

  def __init__(
    self,
    width: int,
    heads: int,
    kv_heads: int,
    head_width: int,
    *,
    bias: bool,
    qk_norm: bool,
    query_scalar: int,
    norm: Mapping[str, Any],
    init: float,
    output_init: float,
    lora: Mapping[str, Any],
    **options: Any,
  ):
    self.kv_heads, self.head_width = kv_heads, head_width
    self.scale = query_scalar**-0.5
    inner, memory = heads * head_width, kv_heads * head_width
    own = {'init': init, 'lora': lora, **options}
    self.query = linear(width, inner, name='query', bias=bias, **own)
    self.key = linear(width, memory, name='key', bias=bias, **own)
    self.value = linear(width, memory, name='value', bias=bias, **own)
    by_head = lambda: rms_norm(head_width, **norm, **options)  # noqa: E731
    self.query_norm = by_head() if qk_norm else None
    self.key_norm = by_head() if qk_norm else None
    self.probabilities = layers.Identity()
    own['init'] = output_init
    self.output = linear(inner, width, name='output', **own)

  def __call__(
    self,
    x: Array,
    rotation: Rotation,
    mask: Array,
    cache: Cache | None = None,
    slots: Array | None = None,
  ) -> Any:
    """Attends to the tokens themselves, or to those of a cache.

    Args:
      x: [B, n, D].
      rotation: of their positions.
      mask: bool [B or 1, n, S]: which keys each of them sees.
      cache: where keys and values take their place first; S is its length.
      slots: the place of each in the cache, int [B, n].

    Returns:
      [B, n, D]; with a cache also the cache that results.
    """
    heads = lambda x: x.reshape(*x.shape[:2], -1, self.head_width)  # noqa: E731
    query, key, value = heads(self.query(x)), heads(self.key(x)), self.value(x)
    if self.query_norm is not None:
      query, key = self.query_norm(query), self.key_norm(key)
    query, key = rotated(query, rotation), rotated(key, rotation)
    memory = key, heads(value)
    if cache is not None:
      at = jnp.arange(x.shape[0])[:, None], slots
      memory = tuple(
        old.astype(new.dtype).at[at].set(new, mode='drop')
        for old, new in zip(cache, memory, strict=True)
      )
    key, value = memory
    # Query heads in groups, each of which shares a head of keys and values.
    query = query.reshape(*query.shape[:2], self.kv_heads, -1, self.head_width)
    scores = jnp.einsum(
      'bnkgd,bskd->bkgns', query, key, preferred_element_type=jnp.float32
    )
    p = translator.attend(scores * self.scale, mask[:, None, None, :, :])
    grouped = p.shape
    p = self.probabilities(p.reshape(p.shape[0], -1, *p.shape[3:]))
    p = p.reshape(grouped).astype(value.dtype)
    found = jnp.einsum('bkgns,bskd->bnkgd', p, value)
    found = self.output(found.reshape(*found.shape[:2], -1))
    return found if cache is None else (found, memory)


class MLP(nnx.Module):
  """Two linear maps, the first multiplied with an activation of a third."""

  def __init__(
    self,
    width: int,
    hidden: int,
    *,
    activation: str,
    init: float,
    output_init: float,
    **options: Any,
  ):
    self.activation = activation
    self.gate = linear(width, hidden, name='gate', init=init, **options)
    self.up = linear(width, hidden, name='up', init=init, **options)
    self.down = linear(hidden, width, name='down', init=output_init, **options)

  def __call__(self, x: Array) -> Array:
    gated = ACTIVATIONS[self.activation](self.gate(x))
    return self.down(gated * self.up(x))


class Block(nnx.Module):
  """Attention, then MLP, each of a normalised input and added to it.

  With ``post_norm`` what is added is normalised too.
  """

  def __init__(
    self,
    width: int,
    mlp_width: int,
    *,
    attention: Mapping[str, Any],
    activation: str,
    norm: Mapping[str, Any],
    post_norm: bool,
    dropout: float,
    linears: Mapping[str, Any],
    **options: Any,
  ):
    own = {**linears, **options}
    normal = lambda: rms_norm(width, **norm, **options)  # noqa: E731
    self.norm1 = normal()
    self.attention = Attention(width, norm=norm, **attention, **own)
    self.post_norm1 = normal() if post_norm else None
    self.norm2 = normal()
    self.mlp = MLP(width, mlp_width, activation=activation, **own)
    self.post_norm2 = normal() if post_norm else None
    self.dropout1 = nnx.Dropout(dropout, rngs=options['rngs'])
    self.dropout2 = nnx.Dropout(dropout, rngs=options['rngs'])

  def __call__(self, x: Array, rotation: Rotation, mask: Array, *cached: Any):
    """As `Attention`."""
    found = self.attention(self.norm1(x), rotation, mask, *cached)
    attended, *cache = found if cached else (found,)
    if self.post_norm1 is not None:
      attended = self.post_norm1(attended)
    x = x + self.dropout1(attended)
    computed = self.mlp(self.norm2(x))
    if self.post_norm2 is not None:
      computed = self.post_norm2(computed)
    x = x + self.dropout2(computed)
    return (x, *cache) if cached else x


class Model(translator.Translator):
  """A decoder: logits of the next token at each of the tokens.

  What it is given says what it gives:

  - tokens, int32 [B, L]: ``logits`` [B, L, K] and ``hidden`` [B, L, D], the
    normalised state that enters the head. Padding is at the right, where no
    token before it sees it;
  - packed rows, a dict of ``tokens``, ``segments`` and ``positions``, each
    int32 [B, L]: the same, where a token sees those before it of its own
    segment alone. Segments count from 1, and 0 is padding; positions begin at
    0 in each segment;
  - ``source``, or ``state`` and ``token``, or ``source`` and ``prefix``: it
    continues the source, as `jaxkd.models.translator` says. Sources are filled
    up with ``pad`` at the right, and each is continued where it ends. The token
    before the first that is written is the source's own last one, whatever is
    given in its place; only an empty source is continued from there, with
    ``bos``. The state has keys and values, with room for the source's padding
    and ``length`` tokens more, up to the ``context``; logits beyond it are nan.

  Taps: ``embed``, ``blocks/*`` ([B, L, D]), ``norm``,
  ``blocks/*/attention/probabilities`` ([B, heads, L, L]).

  Args:
    num_classes: tokens that there are, K.
    input_shape: of tokens, ``ShapeDtypeStruct((L,), int32)``, or a dict of
      several of them as above.
    width: features of a token, D.
    depth: blocks.
    heads: heads of queries.
    kv_heads: heads of keys and values; divides ``heads``. 0 for as many.
    head_width: features of a head, an even number; 0 for width / heads.
    mlp_width: hidden units of a block's MLP; 0 for four times the width.
    rope_theta: base of the wavelengths of RoPE.
    rope_scaling: how RoPE goes beyond the length of the first training, as
      ``config.json`` of the families has it: a ``rope_type`` of 'linear' or
      'llama3', and its factors.
    norm_eps: what RMSNorm adds to the mean square.
    qkv_bias: whether queries, keys and values have biases (Qwen2).
    qk_norm: whether queries and keys are normalised by head (Qwen3, Gemma 3).
    query_scalar: attention's scores are divided by its root; 0 for
      ``head_width``.
    activation: of the MLP's gate, 'silu' or 'gelu' (the approximation by tanh).
    post_norm: whether what attention and MLP give is normalised before it is
      added (Gemma 3).
    zero_centered: whether norms multiply by 1 + scale (Gemma 3).
    scaled_embedding: whether embeddings are multiplied by √width (Gemma 3).
    window: how many tokens a token sees in blocks of local attention, itself
      among them (Gemma 3); 0 for none of these blocks. Keys and values of all
      tokens are kept in them too as it writes.
    window_period: of so many blocks the last sees all tokens, the others a
      window.
    window_theta: ``rope_theta`` of the blocks with a window; ``rope_scaling``
      is of the others alone.
    tied: whether the embedding of the inputs is the head too.
    vocabulary: rows of embedding and head, where there are more than tokens, as
      some are padded to a round number; 0 for as many. The logits of the others
      are not given.
    logits: 'dense', an array; or 'factored', `jaxkd.logits.Factored`, for a
      vocabulary that is too large for it. Of a token at a time, as it writes,
      they are always dense.
    chunk: how many tokens of the vocabulary losses then form at once; 0 for a
      rule.
    context: the longest rows that it can read, which are those of its first
      training; longer ones are refused. 0 for as long as inputs are.
    length: the most tokens that it writes; 0 for as many as an input has.
    pad: the token that fills sources up.
    bos: the token with which an empty source begins.
    eos: the token with which a text ends. None of these three for that of the
      data's tokenizer, or of `jaxkd.data.text.tokens`.
    lora: adapters of low rank, which train in place of all else: their
      ``rank``, ``alpha``, a factor over the rank (twice the rank if it is left
      out), and ``targets``, those of `LINEAR` that have one (all of them).
      What is exported has them merged.
    dropout: the probability that training drops a unit of what is embedded,
      attended or computed by an MLP.
    init: standard deviation of initial weights; of those that are added to the
      residual stream, over √(2 · depth) (Radford et al., 2019).
    dtype: what to compute in. Softmax, norms and logits are in float32.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: inputs that are no tokens, or sizes that do not fit.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Any,
    width: int = 256,
    depth: int = 4,
    heads: int = 4,
    kv_heads: int = 0,
    head_width: int = 0,
    mlp_width: int = 0,
    rope_theta: float = 1e4,
    rope_scaling: Mapping[str, Any] | None = None,
    norm_eps: float = 1e-6,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    query_scalar: int = 0,
    activation: str = 'silu',
    post_norm: bool = False,
    zero_centered: bool = False,
    scaled_embedding: bool = False,
    window: int = 0,
    window_period: int = 6,
    window_theta: float = 1e4,
    tied: bool = True,
    vocabulary: int = 0,
    logits: str = 'dense',
    chunk: int = 0,
    context: int = 0,
    length: int = 0,
    pad: int | None = None,
    bos: int | None = None,
    eos: int | None = None,
    lora: Mapping[str, Any] | None = None,
    dropout: float = 0.0,
    init: float = 0.02,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    kv_heads = kv_heads or heads
    head_width = head_width or _divided(width, heads, 'heads', 'width')
    _divided(heads, kv_heads, 'kv_heads', 'heads')
    if head_width % 2:
      raise UserError(
        f'head_width: {head_width} should be even, as RoPE turns pairs of '
        'features'
      )
    if activation not in ACTIVATIONS:
      raise unknown('activation', activation, ACTIVATIONS, 'activation')
    for name, number, least in (
      ('window', window, 0),
      ('window_period', window_period, 1),
      ('query_scalar', query_scalar, 0),
    ):
      if not number >= least:
        raise UserError(f'{name}: {number} should be {least} or more')
    rows = vocabulary or num_classes
    if rows < num_classes:
      raise UserError(
        f'vocabulary: the head has {rows} rows, and there are {num_classes} '
        'tokens; take the tokenizer of this model, or vocabulary=0'
      )
    self.pad = PAD if pad is None else pad
    self.bos = BOS if bos is None else bos
    self.eos = EOS if eos is None else eos
    for name in ('pad', 'bos', 'eos'):
      token = getattr(self, name)
      if not 0 <= token < rows:
        raise UserError(
          f'{name}: {token} should be a token, from 0 to below {rows}'
        )
    longest = _length(input_shape)
    if 0 < context < longest:
      raise UserError(
        f'context: this model reads rows of {context} tokens, and those of the '
        f'data have {longest}; make them shorter'
      )
    check_kind(logits, chunk)
    self.logits, self.chunk = logits, chunk
    self.num_classes, self.head_width = num_classes, head_width
    self.length, self.context = length or longest, context
    self.scaled_embedding, self.window = scaled_embedding, window
    self.local = tuple(
      window > 0 and (i + 1) % window_period > 0 for i in range(depth)
    )
    self.frequencies = tuple(
      frequencies(head_width, rope_theta, rope_scaling).tolist()
    )
    self.local_frequencies = tuple(
      frequencies(head_width, window_theta).tolist()
    )
    options = {'dtype': dtype, 'rngs': rngs}
    linears = {
      'init': init,
      'output_init': init * (2 * depth) ** -0.5,
      'lora': {} if lora is None else _lora(lora),
    }
    norm = {'epsilon': norm_eps, 'zero_centered': zero_centered}
    normal = nnx.initializers.normal(init)
    self.embed = nnx.Embed(rows, width, embedding_init=normal, **options)
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.blocks = nnx.List(
      Block(
        width,
        mlp_width or 4 * width,
        attention={
          'heads': heads,
          'kv_heads': kv_heads,
          'head_width': head_width,
          'bias': qkv_bias,
          'qk_norm': qk_norm,
          'query_scalar': query_scalar or head_width,
        },
        activation=activation,
        norm=norm,
        post_norm=post_norm,
        dropout=dropout,
        linears=linears,
        **options,
      )
      for _ in range(depth)
    )
    options['dtype'] = jnp.float32
    self.norm = rms_norm(width, **norm, **options)
    own = {'name': 'head', 'init': init, 'lora': {}, **options}
    self.head = None if tied else linear(width, rows, **own)

  def __call__(self, inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, Mapping):
      return self._scored(self._hidden(inputs))
    if set(inputs) == PACKED:
      return self._scored(self._hidden(**inputs))
    if set(inputs) == {'source', 'prefix'}:
      return self._scored(self._continued(**inputs))
    return super().__call__(inputs)

  def start(self, source: Array) -> dict[str, Array]:
    batch, number = source.shape
    room = number + self.length
    if self.context:
      room = max(number, min(room, self.context))
    place, last = self._end(source)
    slots = jnp.arange(number)[None]
    visible = jnp.arange(room)[None, None] <= slots[..., None]
    empty = jnp.zeros((batch, room, self._kv_heads, self.head_width))
    caches = [(empty, empty)] * len(self.blocks)
    _, caches = self._cached(source, slots, visible, caches)
    return {**_named(caches), 'place': place, 'last': last}

  def advance(
    self, state: dict[str, Array], tokens: Array
  ) -> tuple[Array, dict[str, Array]]:
    place, last = state['place'], state['last']
    tokens = jnp.where(last[:, None] < 0, tokens, last[:, None])
    caches = [
      (state[f'keys/{i}'], state[f'values/{i}'])
      for i in range(len(self.blocks))
    ]
    room = caches[0][0].shape[1]
    visible = (jnp.arange(room)[None] <= place[:, None])[:, None]
    x, caches = self._cached(tokens, place[:, None], visible, caches)
    logits = product('dense', self.norm(x), self._head())
    logits = jnp.where((place < room)[:, None, None], logits, jnp.nan)
    changed = {'place': place + 1, 'last': jnp.full_like(last, -1)}
    return logits, {**_named(caches), **changed}

  @staticmethod
  def merged(kw: Mapping[str, Any], variables: dict) -> tuple[dict, dict]:
    """The net without adapters that computes the same.

    Args:
      kw: its options.
      variables: [..., *shape].

    Returns:
      Its options and variables.
    """
    if not kw.get('lora'):
      return dict(kw), variables
    lora = _lora(kw['lora'])
    scale = lora['alpha'] / lora['rank']

    def plain(tree):
      if not isinstance(tree, Mapping):
        return tree
      own = {k: plain(x) for k, x in tree.items() if k != ADAPTER}
      if ADAPTER in tree:
        pair = tree[ADAPTER]['lora_a'], tree[ADAPTER]['lora_b']
        change = scale * jnp.einsum('...ir,...ro->...io', *pair)
        own['kernel'] = own['kernel'] + change.astype(own['kernel'].dtype)
      return own

    params = plain(variables['params'])
    return {**kw, 'lora': None}, {**variables, 'params': params}

  @property
  def _kv_heads(self) -> int:
    return self.blocks[0].attention.kv_heads

  def _hidden(
    self,
    tokens: Array,
    segments: Array | None = None,
    positions: Array | None = None,
  ) -> Array:
    """The state of each token, [B, L, D] in float32."""
    number = tokens.shape[1]
    visible = jnp.tril(jnp.ones((number, number), bool))[None]
    if segments is not None:
      same = segments[:, :, None] == segments[:, None, :]
      visible = visible & same & (segments > 0)[:, None, :]
    if positions is None:
      positions = jnp.arange(number)[None]
    x, slots = self._embedded(tokens), jnp.arange(number)[None]
    attending = self._attending(positions, slots, visible)
    for block, (rotation, mask) in zip(self.blocks, attending, strict=True):
      x = block(x, rotation, mask)
    return self.norm(x)

  def _cached(
    self, tokens: Array, slots: Array, visible: Array, caches: list[Cache]
  ) -> tuple[Array, list[Cache]]:
    """The states of tokens that take their place in caches, and the caches.

    They are not normalised: of a source nobody asks for them.
    """
    x, found = self._embedded(tokens), []
    attending = self._attending(slots, slots, visible)
    for block, own, cache in zip(self.blocks, attending, caches, strict=True):
      x, cache = block(x, *own, cache, slots)
      found.append(cache)
    return x, found

  def _embedded(self, tokens: Array) -> Array:
    x = self.embed(tokens)
    if self.scaled_embedding:
      x *= jnp.asarray(x.shape[-1] ** 0.5, x.dtype)
    return self.dropout(x)

  def _attending(
    self, positions: Array, slots: Array, visible: Array
  ) -> list[tuple[Rotation, Array]]:
    """The rotation and the mask of each block.

    Args:
      positions: of the tokens in their texts, [B or 1, n].
      slots: their places among the keys, [B or 1, n].
      visible: which keys each may see, bool [B or 1, n, S].
    """
    everywhere = _rotation(positions, self.frequencies), visible
    if not any(self.local):
      return [everywhere] * len(self.local)
    distance = slots[..., None] - jnp.arange(visible.shape[-1])[None, None]
    nearby = (
      _rotation(positions, self.local_frequencies),
      visible & (distance < self.window),
    )
    return [nearby if local else everywhere for local in self.local]

  def _continued(self, source: Array, prefix: Array) -> Array:
    """The states before each token that is written, [B, Lt, D]."""
    place, last = self._end(source)
    tokens = jnp.concatenate([last[:, None], prefix[:, 1:]], axis=1)
    number = tokens.shape[1]
    at = (
      jnp.arange(len(source))[:, None],
      place[:, None] + jnp.arange(number)[None],
    )
    rows = jnp.pad(source, ((0, 0), (0, number)), constant_values=self.pad)
    return self._hidden(rows.at[at].set(tokens))[at]

  def _end(self, source: Array) -> tuple[Array, Array]:
    """The place of each source's last token, and that token, [B] each."""
    is_token = source != self.pad
    places = jnp.arange(source.shape[1])[None]
    place = jnp.max(jnp.where(is_token, places, 0), axis=1)
    last = jnp.take_along_axis(source, place[:, None], axis=1)[:, 0]
    return place, jnp.where(is_token.any(1), last, self.bos)

  def _scored(self, hidden: Array) -> dict[str, Any]:
    logits = product(self.logits, hidden, self._head(), chunk=self.chunk)
    return {'logits': logits, 'hidden': hidden}

  def _head(self) -> Array:
    """A row for each token, [K, D] in float32."""
    if self.head is None:
      head = self.embed.embedding[...]
    else:
      head = self.head.kernel[...].T
    return head[: self.num_classes].astype(jnp.float32)


def _rotation(positions: Array, rates: Sequence[float]) -> Rotation:
  """Of tokens at these positions, [B or 1, n], at each of the rates."""
  rates = jnp.asarray(rates, jnp.float32)[None, None]
  angle = positions[..., None].astype(jnp.float32) * rates
  return jnp.cos(angle), jnp.sin(angle)


def rotated(x: Array, rotation: Rotation) -> Array:
  """RoPE: turns pairs of features by angles that grow with the position.

  Feature i makes a pair with i + d/2, as in the families' published weights.

  Args:
    x: [B, n, h, d].
    rotation: cosines and sines of the angles, [B or 1, n, d / 2] each.
  """
  cosine, sine = (part[:, :, None] for part in rotation)
  one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [one * cosine - two * sine, two * cosine + one * sine]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def frequencies(
  width: int, theta: float, scaling: Mapping[str, Any] | None = None
) -> np.ndarray:
  """The angles by which RoPE turns from one position to the next, [width / 2].

  With 'llama3' wavelengths beyond ``original_max_position_embeddings`` /
  ``low_freq_factor`` become ``factor`` times as long, those below it /
  ``high_freq_factor`` stay, and those between are interpolated.

  Args:
    width: features of a head.
    theta: the base; wavelengths are 2π · theta^(2i / width).
    scaling: see `Model`.

  Raises:
    UserError: another kind of scaling, or one whose numbers are missing or
      contradict each other; or a base that is not above 0.
  """
  if not 0 < theta < math.inf:
    raise UserError(f'rope_theta: {theta} should be a number above 0')
  rates = float(theta) ** -(np.arange(0, width, 2) / width)
  scaling = dict(scaling or {})
  kind = scaling.pop('rope_type', 'default')
  if kind not in [*SCALINGS]:
    raise unknown('rope_type', kind, SCALINGS, 'rope_scaling')
  if set(scaling) != set(SCALINGS[kind]) or not all(
    isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < math.inf
    for x in scaling.values()
  ):
    wanted = ', '.join(SCALINGS[kind]) or 'nothing'
    raise UserError(
      f'rope_scaling: {kind!r} takes {wanted}, as numbers above 0, not '
      f'{scaling}'
    )
  if kind == 'default':
    return rates
  slow = rates / scaling['factor']
  if kind == 'linear':
    return slow
  low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
  if low >= high:
    raise UserError(
      f'rope_scaling: low_freq_factor, {low}, should be below '
      f'high_freq_factor, {high}'
    )
  turns = scaling['original_max_position_embeddings'] * rates / (2 * np.pi)
  share = np.clip((turns - low) / (high - low), 0, 1)
  return (1 - share) * slow + share * rates


def linear(
  width_in: int,
  width_out: int,
  *,
  name: str,
  init: float,
  lora: Mapping[str, Any],
  bias: bool = False,
  **options: Any,
) -> nnx.Linear:
  """A linear map, its weights drawn from a normal distribution."""
  options |= {
    'use_bias': bias,
    'kernel_init': nnx.initializers.normal(init),
  }
  if name not in lora.get('targets', ()):
    return layers.linear(width_in, width_out, **options)
  sizes = {'rank': lora['rank'], 'alpha': lora['alpha']}
  return Adapted(width_in, width_out, **sizes, **options)


def rms_norm(width: int, *, zero_centered: bool, **options: Any) -> nnx.RMSNorm:
  """Divides by the root of the mean square, computed in float32."""
  return (ZeroCentered if zero_centered else nnx.RMSNorm)(width, **options)


def _lora(given: Mapping[str, Any]) -> dict[str, Any]:
  """What `Model` is told of LoRA, complete."""
  known = ('rank', 'alpha', 'targets')
  for name in given:
    if name not in known:
      raise unknown('option', name, known, 'lora')
  rank = given.get('rank')
  if isinstance(rank, bool) or not (isinstance(rank, int) and rank > 0):
    raise UserError(f'lora.rank: {rank!r} should be a whole number above 0')
  alpha = given.get('alpha', 2 * rank)
  if isinstance(alpha, bool) or not (
    isinstance(alpha, int | float) and 0 < alpha < math.inf
  ):
    raise UserError(f'lora.alpha: {alpha!r} should be a number above 0')
  targets = given.get('targets', LINEAR)
  targets = (targets,) if isinstance(targets, str) else targets
  if not isinstance(targets, Sequence):
    raise UserError(f'lora.targets: {targets!r} should be a list of names')
  for target in targets:
    if target not in LINEAR:
      raise unknown('linear map', target, LINEAR, 'lora.targets')
  if not targets:
    raise UserError('lora.targets: name at least one linear map of a block')
  return {'rank': rank, 'alpha': alpha, 'targets': tuple(targets)}


def _named(caches: list[Cache]) -> dict[str, Array]:
  """Caches as entries of a state, an array each."""
  found = {}
  for i, (keys, values) in enumerate(caches):
    found |= {f'keys/{i}': keys, f'values/{i}': values}
  return found


def _divided(whole: int, parts: int, divisor: str, name: str) -> int:
  if whole % parts:
    raise UserError(f'{divisor}={parts} does not divide {name}={whole}')
  return whole // parts


def _length(input_shape: Any) -> int:
  """How long inputs are.

  Raises:
    UserError: they are no tokens.
  """
  is_dict = isinstance(input_shape, Mapping)
  shapes = dict(input_shape) if is_dict else {'tokens': input_shape}
  known = ({'tokens'}, PACKED, {'source', 'prefix'}, {'source'})
  if set(shapes) not in known or not all(
    len(getattr(x, 'shape', ())) == 1 and jnp.issubdtype(x.dtype, jnp.integer)
    for x in shapes.values()
  ):
    raise UserError(
      'this model is of language: it takes rows of tokens, not inputs of shape '
      f'{input_shape}; choose another model or source of data'
    )
  return max(x.shape[0] for x in shapes.values())
