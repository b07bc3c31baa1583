"""What all models that translate have in common: how they are asked.

They are plain functions of a dict, so what decodes them (see
`jaxkd.tasks.decoding`) needs nothing but the model's outputs.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError

KINDS = ({'source', 'prefix'}, {'source'}, {'state', 'token'})


class Translator(nnx.Module):
  """A model that gives the next token of a translation.

  What it is given says what it gives:

  - ``source`` [B, Ls] and ``prefix`` [B, Lt], what comes before each token of
    the translation (`jaxkd.data.tokens.shifted`): ``logits`` [B, Lt, V] and,
    where the state has a ``mask``, ``source_valid`` [B, Ls], bool: which
    positions of the encoder's layers are more than padding;
  - ``source``: ``state``, a dict of arrays [B, ...], before the first token;
  - ``state`` and ``token`` [B], the one before: ``logits`` [B, V] and, as
    ``state``, those entries of the state that have changed.

  Tokens are int32. ``source`` is filled up with `jaxkd.data.tokens.PAD`, and
  what it gives does not depend on how much there is of it.

  A family has ``start``, ``(source) -> state``, and ``advance``, ``(state,
  tokens [B, n]) -> (logits [B, n, V], what has changed of the state)``.
  """

  def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(inputs, Mapping) or set(inputs) not in KINDS:
      given = ', '.join(inputs) if isinstance(inputs, Mapping) else 'an array'
      raise UserError(
        'this model translates: give it a source and a prefix, a source, or a '
        f'state and a token, not {given}'
      )
    if 'token' in inputs:
      logits, state = self.advance(inputs['state'], inputs['token'][:, None])
      return {'logits': logits[:, 0], 'state': state}
    state = self.start(jnp.asarray(inputs['source']))
    if 'prefix' not in inputs:
      return {'state': state}
    outputs = {'logits': self.advance(state, inputs['prefix'])[0]}
    if 'mask' in state:
      outputs['source_valid'] = state['mask']
    return outputs


def lengths(input_shape: Any) -> tuple[int, int]:
  """How long sources and prefixes are.

  Args:
    input_shape: of one example, ``{'source': ShapeDtypeStruct((Ls,), int32),
      'prefix': ShapeDtypeStruct((Lt,), int32)}``.

  Raises:
    UserError: inputs of another kind.
  """
  shapes = input_shape if isinstance(input_shape, Mapping) else {}
  if set(shapes) != {'source', 'prefix'} or not all(
    len(getattr(x, 'shape', ())) == 1 and jnp.issubdtype(x.dtype, jnp.integer)
    for x in shapes.values()
  ):
    raise UserError(
      'this model translates: it takes tokens, a source and a prefix, not '
      f'inputs of shape {input_shape}; choose another model or source of data'
    )
  return shapes['source'].shape[0], shapes['prefix'].shape[0]


def attend(scores: Array, mask: Array) -> Array:
  """Probabilities of positions, float32.

  Args:
    scores: [..., L].
    mask: bool of that shape, or with axes of 1: which positions there are. If
      none, all are 0, so that an example without any has finite outputs.
  """
  scores = scores.astype(jnp.float32)
  p = nnx.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min))
  return jnp.where(mask, p, 0)
