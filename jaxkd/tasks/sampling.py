"""Sampling of sequences from language models, token by token, with a KV cache.

``apply(inputs) -> outputs`` is such a model with its variables; see
`jaxkd.models.translator` for how it is asked. Prompts of unequal length are
filled up at the right. Every sequence draws with a key of its own, so what it
becomes does not depend on the others of its batch. The loop is a scan of so
many steps: sequences that have stopped wait for the others.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError
from jaxkd.tasks.decoding import Apply, state_of


class Sampled(NamedTuple):
  """Sequences that were drawn.

  Attributes:
    tokens: int32 [B, N]; after a stop token there is padding.
    valid: what was drawn, a stop token included, bool [B, N], the first ones.
    log_probs: of each token under the distribution that it was drawn from,
      float32 [B, N]; 0 where nothing was.
    stopped: which sequences have a stop token, bool [B]. The others would have
      gone on.
  """

  tokens: Array
  valid: Array
  log_probs: Array
  stopped: Array


def nothing(size: int) -> Sampled:
  """What is drawn where nothing is: sequences of no token, [B, 1]."""
  none = jnp.zeros((size, 1), bool)
  return Sampled(
    none.astype(jnp.int32),
    none,
    none.astype(jnp.float32),
    jnp.zeros(size, bool),
  )


def sample(
  apply: Apply,
  source: Any,
  keys: Array,
  length: int,
  *,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  stop: Collection[int] = (EOS,),
  pad: int = PAD,
  never: Collection[int] = (PAD, BOS),
) -> Sampled:
  """Draws a sequence for each prompt.

  Args:
    apply: the model.
    source: the prompts, int32 [B, P], filled up with padding at the right; or
      what else the model reads, [B, ...].
    keys: a PRNG key for each sequence, [B].
    length: N, the most tokens that a sequence gets.
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: how many of the likeliest tokens may be drawn; 0 for all. As many
      more as are as likely as the last of them.
    top_p: the likeliest tokens are kept until they have this share of the mass;
      after `top_k`, of what that leaves.
    stop: tokens that end a sequence.
    pad: stands where there is nothing.
    never: tokens that are not drawn, unless they are among `stop`.

  Raises:
    UserError: an option that is out of range, for this vocabulary too.
  """
  _check(length, temperature, top_p)
  ruled_out = sorted({*never} - {*stop})
  state = _start(apply, source)

  def draw(carry, step):
    state, last, going = carry
    outputs = apply({'state': state, 'token': last})
    _check_tokens(outputs['logits'].shape[-1], stop, top_k, pad)
    log_probs = log_distribution(
      outputs['logits'],
      temperature=temperature,
      top_k=top_k,
      top_p=top_p,
      never=ruled_out,
    )
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    drawn = jax.vmap(jax.random.categorical)(own, log_probs).astype(jnp.int32)
    log_prob = jnp.take_along_axis(log_probs, drawn[:, None], axis=-1)[:, 0]
    token = jnp.where(going, drawn, pad)
    # What a step does not change is the source's, whatever is written.
    state = {
      **state,
      **{k: x.astype(state[k].dtype) for k, x in state_of(outputs).items()},
    }
    ends = jnp.isin(drawn, jnp.asarray([*stop], jnp.int32))
    found = token, going, jnp.where(going, log_prob, 0)
    return (state, token, going & ~ends), found

  size = len(keys)
  start = state, jnp.full(size, BOS, jnp.int32), jnp.ones(size, bool)
  (_, _, going), found = jax.lax.scan(draw, start, jnp.arange(length))
  tokens, valid, log_probs = (x.T for x in found)
  return Sampled(tokens, valid, log_probs, ~going)


def log_distribution(
  logits: Array,
  *,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  never: Collection[int] = (),
) -> Array:
  """Log probabilities of the tokens that may be drawn, -inf of the others.

  Args:
    logits: [..., V].
    temperature: as in `sample`, as are the others.
    top_k: see there.
    top_p: see there.
    never: tokens that are not drawn.

  Returns:
    float32 [..., V], whose exponentials have the sum 1. NaN where a logit is.
  """
  logits = logits.astype(jnp.float32)
  kinds = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  forbidden = jnp.isin(kinds, jnp.asarray([*never], jnp.int32))
  logits = jnp.where(forbidden, -jnp.inf, logits)
  if temperature == 0:  # the first of several that are equally likely
    best = jnp.argmax(logits, axis=-1, keepdims=True)
    return jnp.where(kinds == best, logits - logits, -jnp.inf)
  logits = logits / temperature
  if top_k or top_p < 1:
    largest, _ = jax.lax.top_k(logits, top_k or logits.shape[-1])
    least = largest[..., -1:]
    if top_p < 1:
      p = jax.nn.softmax(largest)
      kept = jnp.cumsum(p, axis=-1) - p < top_p
      least = jnp.where(kept, largest, jnp.inf).min(-1, keepdims=True)
    logits = jnp.where(logits < least, -jnp.inf, logits)
  return jax.nn.log_softmax(logits)


def _start(apply: Apply, source: Any) -> dict[str, Array]:
  """The state before the first token."""
  why = 'it gives no state'
  try:
    state = state_of(apply({'source': source}))
  except UserError:
    raise
  except Exception as error:  # of a model that takes tokens alone
    state, why = {}, str(error).partition('\n')[0]
  if not state:
    raise UserError(
      f'the net that should write cannot go on from a text ({why}); choose a '
      'model that can, such as decoder'
    )
  return state


def _check(length: int, temperature: float, top_p: float) -> None:
  """Refuses options that are out of range."""
  if length < 1:
    raise UserError(f'{length} should be 1 token or more', entry='length')
  if not temperature >= 0:
    raise UserError(
      f'{temperature} should be above 0, or 0 for the likeliest tokens',
      entry='temperature',
    )
  if not 0 < top_p <= 1:
    raise UserError(
      f'{top_p} should be a share above 0, or 1 for all tokens', entry='top_p'
    )


def _check_tokens(
  kinds: int, stop: Collection[int], top_k: int, pad: int
) -> None:
  """Refuses tokens that a vocabulary does not have."""
  for entry, tokens in (('stop', stop), ('pad', (pad,))):
    for token in tokens:
      if not 0 <= token < kinds:
        raise UserError(
          f'{token} is no token of a vocabulary of {kinds:,}; give one from 0 '
          f'to {kinds - 1}',
          entry=entry,
        )
  if not 0 <= top_k <= kinds:
    raise UserError(
      f'{top_k} should be from 1 to {kinds:,}, the size of the vocabulary, or '
      '0 for all',
      entry='top_k',
    )
