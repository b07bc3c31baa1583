"""Decoding of sequences by autoregressive models: greedy and beam search.

``apply(inputs) -> outputs`` is such a model with its variables; see
`jaxkd.models.translator` for its inputs. The source is an array [B, ...], such
as tokens, or a pytree of them, such as frames of speech with their mask. What
is written ends with `EOS`, and `PAD` follows; one without `EOS` at the largest
length is truncated there. All shapes are fixed, so that there is one program,
which stops when all sequences have ended.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data.text.tokens import BOS, EOS, PAD, shifted
from jaxkd.errors import UserError

STATE = 'state/'
NEVER = -1e9  # the log probability of tokens that are ruled out

Apply = Callable[[dict[str, Any]], dict[str, Array]]


def greedy(apply: Apply, source: Any, length: int) -> tuple[Array, Array]:
  """Greedy decoding: the most probable token at each step.

  Args:
    apply: the model.
    source: what is read, [B, ...].
    length: the most tokens that are written, `EOS` included.

  Returns:
    Tokens, int32 [B, length], and their log probabilities, [B].
  """
  found, scores = beam(apply, source, length, width=1)
  return found[:, 0], scores[:, 0]


def beam(
  apply: Apply,
  source: Any,
  length: int,
  width: int,
  *,
  penalty: float = 0.0,
) -> tuple[Array, Array]:
  """Beam search: the most probable sequences that it visits.

  Those that have ended stay and compete with those that go on.

  Args:
    apply: the model.
    source: what is read, [B, ...].
    length: the most tokens that are written, `EOS` included.
    width: how many are kept.
    penalty: α; in the end they are in the order of log p / length^α. With 0,
      as in Kim & Rush (2016), the likeliest is the first.

  Returns:
    Tokens, int32 [B, width, length], the best first, and their scores, log p /
    length^α, [B, width].

  Raises:
    UserError: a width below 1.
  """
  if width < 1:
    raise UserError(f'width: {width} hypotheses cannot be kept; use 1 or more')
  size = len(jax.tree.leaves(source)[0])
  first = state_of(apply({'source': source}))
  repeat = lambda x: jnp.repeat(x, width, axis=0)  # noqa: E731
  first = jax.tree.map(repeat, first)
  # Only one beam starts as possible, or all would stay the same.
  scores = jnp.full((size, width), NEVER, jnp.float32).at[:, 0].set(0.0)
  tokens = jnp.full((size, width, length), PAD, jnp.int32)
  last = jnp.full((size, width), BOS, jnp.int32)

  def going_on(carry):
    step, _, _, ended, _, _ = carry
    return (step < length) & ~ended.all()

  def extend(carry):
    step, state, last, ended, tokens, scores = carry
    outputs = apply({'state': state, 'token': last.reshape(-1)})
    each = _allowed(outputs['logits']).reshape(size, width, -1)
    kinds = each.shape[-1]
    nothing = jnp.where(jnp.arange(kinds) == PAD, 0.0, NEVER)
    each = jnp.where(ended[..., None], nothing, each)
    total = (scores[..., None] + each).reshape(size, -1)
    scores, best = jax.lax.top_k(total, width)
    parent, last = best // kinds, (best % kinds).astype(jnp.int32)
    of_parent = functools.partial(jnp.take_along_axis, indices=parent, axis=1)
    tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1)
    tokens = tokens.at[..., step].set(last)
    row = (jnp.arange(size)[:, None] * width + parent).reshape(-1)
    # What a step does not change is the source's, whatever is written.
    changed = {
      name: x[row].astype(state[name].dtype)
      for name, x in state_of(outputs).items()
    }
    ended = of_parent(ended) | (last == EOS)
    return step + 1, {**state, **changed}, last, ended, tokens, scores

  carry = (0, first, last, last == EOS, tokens, scores)
  *_, tokens, scores = jax.lax.while_loop(going_on, extend, carry)
  if penalty:
    scores = scores / (tokens != PAD).sum(-1).astype(jnp.float32) ** penalty
    order = jnp.argsort(-scores, axis=1)
    tokens = jnp.take_along_axis(tokens, order[..., None], axis=1)
    scores = jnp.take_along_axis(scores, order, axis=1)
  return tokens, scores


def log_likelihood(apply: Apply, source: Any, tokens: Array) -> Array:
  """The log-likelihood of sequences under a model.

  Args:
    apply: the model.
    source: what is read, [B, ...].
    tokens: that are written, int32 [B, L].

  Returns:
    log p, [B].
  """
  logits = apply({'source': source, 'prefix': shifted(tokens)})['logits']
  each = jax.nn.log_softmax(logits.astype(jnp.float32))
  own = jnp.take_along_axis(each, tokens[..., None], axis=-1)[..., 0]
  return jnp.where(tokens != PAD, own, 0).sum(-1)


def sentence_bleu(hypothesis: Array, reference: Array) -> Array:
  """Smoothed BLEU of single sentences, over n-grams of one to four tokens.

  One is added to the matches and to the counts of all n-grams but single
  tokens, so that a sentence without a long match is not worth nothing (Lin &
  Och, `2004 <https://aclanthology.org/C04-1072>`_; the second smoothing of Chen
  & Cherry, `2014 <https://aclanthology.org/W14-3346>`_).

  Args:
    hypothesis: tokens, int [..., L]; `EOS` and `PAD` are no words.
    reference: tokens, int [..., L'], of shapes that broadcast with it.

  Returns:
    From 0 to 1, [...].
  """
  lengths = [_words(x).sum(-1) for x in (hypothesis, reference)]
  logs = []
  for order in range(1, 5):
    ours, theirs = (_grams(x, order) for x in (hypothesis, reference))
    there = _are_words(hypothesis, order)
    in_ours = _occurrences(ours, ours, there)
    in_theirs = _occurrences(ours, theirs, _are_words(reference, order))
    # Each of the c places of an n-gram has a cth of its min(c, r) matches.
    share = jnp.minimum(1, in_theirs / jnp.maximum(in_ours, 1))
    matches = jnp.where(there, share, 0).sum(-1)
    more = float(order > 1)
    count = there.sum(-1) + more
    logs.append(_log((matches + more) / jnp.maximum(count, 1)))
  ours, theirs = (x.astype(jnp.float32) for x in lengths)
  brevity = jnp.minimum(0, 1 - theirs / jnp.maximum(ours, 1))
  return jnp.exp(brevity + sum(logs) / 4)


def state_of(outputs: dict[str, Array]) -> dict[str, Array]:
  """The state among a model's outputs, such as a KV cache."""
  return {
    name.removeprefix(STATE): x
    for name, x in outputs.items()
    if name.startswith(STATE)
  }


def _allowed(logits: Array) -> Array:
  """Log probabilities, with `PAD` and `BOS` ruled out."""
  logs = jax.nn.log_softmax(logits.astype(jnp.float32))
  kinds = jnp.arange(logits.shape[-1])
  return jnp.where((kinds == PAD) | (kinds == BOS), NEVER, logs)


def _words(tokens: Array) -> Array:
  return (tokens != PAD) & (tokens != EOS)


def _grams(tokens: Array, order: int) -> Array:
  """The n-grams [..., L - n + 1, n] of tokens [..., L]."""
  count = max(tokens.shape[-1] - order + 1, 0)
  parts = [tokens[..., i : i + count] for i in range(order)]
  return jnp.stack(parts, axis=-1)


def _are_words(tokens: Array, order: int) -> Array:
  """Which n-grams consist of words alone, bool [..., L - n + 1]."""
  return _grams(_words(tokens), order).all(-1)


def _occurrences(grams: Array, among: Array, there: Array) -> Array:
  """How often each n-gram is among others, [..., L - n + 1]."""
  same = (grams[..., :, None, :] == among[..., None, :, :]).all(-1)
  return (same & there[..., None, :]).sum(-1).astype(jnp.float32)


def _log(x: Array) -> Array:
  """The logarithm; very little where x is 0."""
  return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), NEVER)
