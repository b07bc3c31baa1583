"""LSTMs as language models (Zaremba et al., 2014).

With dropout between layers and not in time, and with the embedding of the
inputs as the output layer, as Press and Wolf, 2016, have it and Furlanello et
al., 2018, in their language models.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.logits.factored import check_kind, product
from jaxkd.models.seq2seq import LSTM, embedding, linear, symmetric

NAMED = {
  'lstm_language_2x1500': {'depth': 2, 'width': 1500, 'tied': True},
}


class Model(nnx.Module):
  """Logits of the next token, [B, L, K], at each of the tokens [B, L].

  Each sequence begins with a state of zeros. Embeddings are as wide as the
  layers. There is an output ``embedding``, [B, L, D], which goes into the
  output layer.

  Taps: ``embed`` and ``layers/*/output`` ([B, L, D]).

  Args:
    num_classes: tokens that there are, K.
    input_shape: of one sequence, ``ShapeDtypeStruct((L,), int32)``.
    width: units of a layer, D.
    depth: layers.
    dropout: the probability that training drops a unit of the embedding or of
      an output of a layer, not of one to itself at the next step.
    tied: whether the embedding is the output layer too, with biases.
    logits: 'dense', an array; or 'factored', `jaxkd.logits.Factored`, for a
      vocabulary that is too large for it.
    chunk: how many tokens of the vocabulary losses then form at once; 0 for a
      rule.
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
    tied: bool = True,
    logits: str = 'dense',
    chunk: int = 0,
    init: float = 0.05,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    shape = getattr(input_shape, 'shape', None)
    integers = shape and jnp.issubdtype(input_shape.dtype, jnp.integer)
    if not integers or len(shape) != 1:
      raise UserError(
        'this model is of language: it takes sequences of tokens, not inputs '
        f'of shape {input_shape}; choose another model or source of data'
      )
    check_kind(logits, chunk)
    self.logits, self.chunk = logits, chunk
    options = {'init': symmetric(init), 'dtype': dtype, 'rngs': rngs}
    self.embed = embedding(num_classes, width, **options)
    self.layers = nnx.List(LSTM(width, **options) for _ in range(depth))
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    options['dtype'] = jnp.float32
    if tied:
      self.bias = nnx.Param(jnp.zeros((num_classes,), jnp.float32))
    else:
      self.head = linear(width, num_classes, bias=True, **options)
    self.tied = tied

  def __call__(self, tokens: Array) -> dict[str, Array]:
    x = self.dropout(self.embed(tokens))
    for layer in self.layers:
      x = self.dropout(layer(x)['output'])
    x = x.astype(jnp.float32)
    if self.tied:
      head, bias = self.embed.embedding[...], self.bias[...]
    elif self.logits == 'factored':
      head, bias = self.head.kernel[...].T, self.head.bias[...]
    else:
      return {'logits': self.head(x), 'embedding': x}
    logits = product(self.logits, x, head, bias, chunk=self.chunk)
    return {'logits': logits, 'embedding': x}
