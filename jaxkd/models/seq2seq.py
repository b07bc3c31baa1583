"""LSTMs that translate, with attention (Luong et al., 2015).

As Kim and Rush, 2016, have them in distillation of sequences: stacked LSTMs,
global attention with general scores, input feeding, and a decoder that starts
from the states in which the encoder ends. Sizes and places of biases and
dropout are those of their code.

What comes before a recurrence is one product for all of its steps. So the two
matrices of attention that meet the source are applied to it once: scores are
``h · (W s)`` with ``W s`` known, and the half of the output layer that meets
the context, which is a mean of ``s``, is applied to ``s``.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.data.text.tokens import PAD
from jaxkd.models import layers, translator

NAMED = {
  'lstm_4x1000': {'depth': 4, 'width': 1000},
  'lstm_2x500': {'depth': 2, 'width': 500},
  'lstm_2x300': {'depth': 2, 'width': 300},
  'lstm_2x100': {'depth': 2, 'width': 100},
}


class Recurrent(nnx.Module):
  """The weights of one step: no layer, for a loop cannot be looked into."""

  def __init__(
    self, width_in: int, width_out: int, *, bias: bool, init, rngs: nnx.Rngs
  ):

    def draw(*shape):
      return nnx.Param(init(rngs.params(), shape, jnp.float32))

    self.kernel = draw(width_in, width_out)
    self.bias = draw(width_out) if bias else None

  def step(self, dtype: jnp.dtype):
    """Its linear map, to be called in a loop."""
    kernel = self.kernel[...].astype(dtype)
    if self.bias is None:
      return lambda x: x @ kernel
    bias = self.bias[...].astype(dtype)
    return lambda x: x @ kernel + bias[None]


class LSTM(nnx.Module):
  """A layer of the encoder: [B, L, D] to as many outputs of the same width.

  It passes over positions that do not count, where a mask [B, L] says so. Its
  outputs are ``output``, [B, L, D], and ``c``, the last cell state [B, D].
  """

  def __init__(self, width: int, *, init, dtype: jnp.dtype, rngs: nnx.Rngs):
    self.inputs = linear(
      width, 4 * width, bias=True, init=init, dtype=dtype, rngs=rngs
    )
    self.recurrent = Recurrent(
      width, 4 * width, bias=False, init=init, rngs=rngs
    )

  def __call__(self, x: Array, mask: Array | None = None) -> dict[str, Array]:
    gates = self.inputs(x).swapaxes(0, 1)
    recurrent = self.recurrent.step(gates.dtype)

    def step(state, now):
      gates, counts = now
      new = lstm(gates + recurrent(state[0]), state[1])
      if counts is not None:
        new = jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, state)
      return new, new[0]

    zeros = jnp.zeros((x.shape[0], x.shape[-1]), gates.dtype)
    counts = None if mask is None else mask.T[..., None]
    state, output = jax.lax.scan(step, (zeros, zeros), (gates, counts))
    return {'output': output.swapaxes(0, 1), 'c': state[1]}


class Decoder(nnx.Module):
  """Stacked LSTMs that see the last output, and attention on the source.

  Its outputs are ``output`` [B, n, D], and ``h`` and ``c`` of all layers after
  the last step, [B, depth, D].
  """

  def __init__(
    self,
    width: int,
    depth: int,
    *,
    dropout: float,
    init,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    self.inputs = linear(
      width, 4 * width, bias=True, init=init, dtype=dtype, rngs=rngs
    )
    self.recurrent = nnx.List(
      Recurrent(2 * width, 4 * width, bias=i > 0, init=init, rngs=rngs)
      for i in range(depth)
    )
    self.out = Recurrent(width, width, bias=False, init=init, rngs=rngs)
    self.probabilities = layers.Identity()
    self.dropout = nnx.Dropout(dropout, rngs=rngs)

  def __call__(self, x: Array, state: dict[str, Array]) -> dict[str, Array]:
    gates = self.inputs(x).swapaxes(0, 1)
    steps, depth = len(gates), len(self.recurrent)
    recurrent = [layer.step(gates.dtype) for layer in self.recurrent]
    out = self.out.step(gates.dtype)
    state = {
      name: x if x.dtype == bool else x.astype(gates.dtype)
      for name, x in state.items()
    }
    keys, values, mask = (state[name] for name in ('keys', 'values', 'mask'))

    def step(carry, now):
      h, c, output = carry
      gates, kept = now
      below, new = output, []
      for i in range(depth):
        joined = recurrent[i](jnp.concatenate([below, h[i]], axis=-1))
        new.append(lstm(joined if i else gates + joined, c[i]))
        below = new[i][0]
        if kept is not None and i < depth - 1:
          below = below * kept[i]
      p = translator.attend(jnp.einsum('bd,bsd->bs', below, keys), mask)
      context = jnp.einsum('bs,bsd->bd', p.astype(values.dtype), values)
      output = jnp.tanh(context + out(below))
      if kept is not None:
        output = output * kept[-1]
      h, c = zip(*new, strict=True)
      return (h, c, output), (output, p)

    h, c = (tuple(jnp.unstack(state[name], axis=1)) for name in 'hc')
    kept = self._kept(gates, steps, depth)
    (h, c, _), (output, p) = jax.lax.scan(
      step, (h, c, state['output']), (gates, kept)
    )
    self.probabilities(p.swapaxes(0, 1))
    return {
      'output': output.swapaxes(0, 1),
      'h': jnp.stack(h, axis=1),
      'c': jnp.stack(c, axis=1),
    }

  def _kept(self, gates: Array, steps: int, depth: int) -> Array | None:
    """What dropout multiplies the layers' outputs with, drawn at once."""
    if self.dropout.deterministic or not self.dropout.rate:
      return None
    batch, width = gates.shape[1], gates.shape[2] // 4
    return self.dropout(jnp.ones((steps, depth, batch, width), gates.dtype))


class Model(translator.Translator):
  """An encoder and a decoder of LSTMs with attention and input feeding.

  See `jaxkd.models.translator` for how it is asked. Embeddings are as wide as
  the layers.

  Taps: ``source`` and ``target``, the embeddings, ``encoder/*/output`` and
  ``decoder/output`` ([B, L, D]), ``decoder/probabilities`` ([B, Lt, Ls]).

  Args:
    num_classes: tokens that there are, V, in both languages together.
    input_shape: of a source and a prefix; see
      `jaxkd.models.translator.lengths`.
    width: units of a layer.
    depth: layers of the encoder, and of the decoder.
    dropout: the probability that training drops an output of a layer, not of
      one to itself at the next step.
    init: initial values are uniform between -init and init.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: inputs that are no tokens.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Any,
    width: int = 128,
    depth: int = 1,
    dropout: float = 0.0,
    init: float = 0.1,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    translator.lengths(input_shape)
    options = {'init': symmetric(init), 'dtype': dtype, 'rngs': rngs}
    self.source = embedding(num_classes, width, **options)
    self.encoder = nnx.List(LSTM(width, **options) for _ in range(depth))
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.keys = linear(width, width, bias=False, **options)
    self.values = linear(width, width, bias=False, **options)
    self.target = embedding(num_classes, width, **options)
    self.decoder = Decoder(width, depth, dropout=dropout, **options)
    self.head = linear(
      width, num_classes, bias=True, **{**options, 'dtype': jnp.float32}
    )

  def start(self, source: Array) -> dict[str, Array]:
    mask = source != PAD
    x, h, c = self.source(source), [], []
    for i, layer in enumerate(self.encoder):
      outputs = layer(self.dropout(x) if i else x, mask)
      x = outputs['output']
      h.append(x[:, -1])
      c.append(outputs['c'])
    return {
      'keys': self.keys(x),
      'values': self.values(x),
      'mask': mask,
      'h': jnp.stack(h, axis=1),
      'c': jnp.stack(c, axis=1),
      'output': jnp.zeros_like(x[:, 0]),
    }

  def advance(
    self, state: dict[str, Array], tokens: Array
  ) -> tuple[Array, dict[str, Array]]:
    outputs = self.decoder(self.target(tokens), state)
    output = outputs['output']
    return self.head(output), {**outputs, 'output': output[:, -1]}


def lstm(gates: Array, c: Array) -> tuple[Array, Array]:
  """One step of an LSTM (Hochreiter and Schmidhuber, 1997; forget gates).

  Args:
    gates: what goes into the gates of input, forgetting and output, and into
      the new values, [B, 4D].
    c: the cell state [B, D].

  Returns:
    The output and the new cell state, [B, D].
  """
  *opened, new = jnp.split(gates, 4, axis=-1)
  write, keep, read = map(nnx.sigmoid, opened)
  c = keep * c + write * jnp.tanh(new)
  return read * jnp.tanh(c), c


def symmetric(scale: float):
  """Initial values between -scale and scale."""

  def init(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -scale, scale)

  return init


def linear(
  width_in: int, width_out: int, *, bias: bool, init, **options: Any
) -> nnx.Linear:
  """A linear map whose bias has initial values as its kernel has."""
  return layers.linear(
    width_in,
    width_out,
    use_bias=bias,
    kernel_init=init,
    bias_init=init,
    **options,
  )


def embedding(number: int, width: int, *, init, **options: Any) -> nnx.Embed:
  """A vector for each token."""
  return nnx.Embed(number, width, embedding_init=init, **options)
