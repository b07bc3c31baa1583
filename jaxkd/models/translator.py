"""What all models that write sequences have in common: how they are asked.

They are plain functions of a dict, so what decodes them (see
`jaxkd.tasks.decoding`) needs nothing but the model's outputs.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError

KINDS = ({'source', 'prefix'}, {'source'}, {'state', 'token'})


class Translator(nnx.Module):
  """A model that gives the next token of a translation, or of a transcript.

  What it is given says what it gives:

  - ``source`` and ``prefix`` [B, Lt], what comes before each token that it
    writes (`jaxkd.data.text.tokens.shifted`): ``logits`` [B, Lt, V] and, where
    the state has a ``mask``, ``source_valid`` [B, Ls], bool: which positions of
    the encoder's layers are more than padding. An encoder that shortens its
    input has fewer of them than the input;
  - ``source``: ``state``, a dict of arrays [B, ...], before the first token;
  - ``state`` and ``token`` [B], the one before: ``logits`` [B, V] and, as
    ``state``, those entries of the state that have changed.

  Tokens are int32. A ``source`` of tokens, [B, Ls], is filled up with
  `jaxkd.data.text.tokens.PAD`; one of frames is a dict of ``frames`` [B, F, D]
  and ``valid`` [B, F], bool. What a net gives does not depend on how much
  padding there is.

  A family has ``start``, ``(source) -> state``, and ``advance``, ``(state,
  tokens [B, n]) -> (logits [B, n, V], what has changed of the state)``.

  Attributes:
    beside: the entries of what ``start`` gives that are no state but outputs of
      the encoder, given beside ``logits``.
  """

  beside: tuple[str, ...] = ()

  def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(inputs, Mapping) or set(inputs) not in KINDS:
      given = ', '.join(inputs) if isinstance(inputs, Mapping) else 'an array'
      raise UserError(
        'this model writes sequences: give it a source and a prefix, a source, '
        f'or a state and a token, not {given}'
      )
    if 'token' in inputs:
      logits, state = self.advance(inputs['state'], inputs['token'][:, None])
      return {'logits': logits[:, 0], 'state': state}
    state = self.start(jax.tree.map(jnp.asarray, inputs['source']))
    outputs = {name: state.pop(name) for name in self.beside}
    if 'prefix' not in inputs:
      return {'state': state}
    outputs['logits'] = self.advance(state, inputs['prefix'])[0]
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


def frames(input_shape: Any) -> tuple[int, int, int]:
  """How long sources of frames are, how wide, and how long prefixes are.

  Args:
    input_shape: of one example, ``{'source': {'frames': (F, D), 'valid':
      ShapeDtypeStruct((F,), bool)}, 'prefix': ShapeDtypeStruct((Lt,),
      int32)}``.

  Raises:
    UserError: inputs of another kind.
  """
  shapes = input_shape if isinstance(input_shape, Mapping) else {}
  source = shapes.get('source')
  if (
    set(shapes) != {'source', 'prefix'}
    or not isinstance(source, Mapping)
    or set(source) != {'frames', 'valid'}
    or not isinstance(source['frames'], tuple)
    or len(source['frames']) != 2
  ):
    raise UserError(
      'this model transcribes: it takes frames with their mask, and a prefix, '
      f'not inputs of shape {input_shape}; choose another model or source of '
      'data'
    )
  return *source['frames'], shapes['prefix'].shape[0]


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
