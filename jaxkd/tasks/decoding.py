"""Translations of models that give a token at a time, and how good they are.

All of it is pure, of fixed shapes, and takes the net as ``apply``: ``(inputs)
-> outputs`` with its variables bound, where the net is asked as
`jaxkd.models.translator.Translator` says.

A translation is int32 [length]: its tokens, `EOS`, and `PAD` after it. `PAD`
and `BOS` are never given. One that has no `EOS` at ``length`` counts as it is.
A teacher's translations of the training set and those that are tested should
follow one rule: the same ``length``, ``width`` and ``penalty``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data.tokens import BOS, EOS, PAD, shifted
from jaxkd.errors import UserError
from jaxkd.losses import _checks

Apply = Callable[[Any], dict[str, Array]]
ORDERS = 4


def greedy(apply: Apply, source: Array, length: int) -> tuple[Array, Array]:
  """The likeliest token each time.

  Args:
    apply: the net.
    source: int [B, Ls].
    length: tokens of a translation at most, the one for its end included.

  Returns:
    The translations, int32 [B, length], and their log-probabilities, float32
    [B].

  Raises:
    UserError: a length below 1.
  """
  tokens, scores = beam(apply, source, length, 1)
  return tokens[:, 0], scores[:, 0]


def beam(
  apply: Apply, source: Array, length: int, width: int, *, penalty: float = 0.0
) -> tuple[Array, Array]:
  """The best translations that a beam search finds.

  At each step the best ``width`` of all continuations stay. A translation that
  has ended stays as it is and competes with the others. Its score is log p /
  n^penalty, where n counts its tokens and its end (Wu et al., `Google's Neural
  Machine Translation System <https://arxiv.org/abs/1609.08144>`_, 2016, have a
  smoother one). No penalty is what Kim and Rush, 2016, have in `their code
  <https://github.com/harvardnlp/seq2seq-attn>`_; it favours short ones.

  Args:
    apply: the net.
    source: int [B, Ls].
    length: tokens of a translation at most, the one for its end included.
    width: how many are kept.
    penalty: the exponent of the length.

  Returns:
    The translations, int32 [B, width, length], the best first, and their
    scores, float32 [B, width]; -inf where there are not as many.

  Raises:
    UserError: a length or width below 1.
  """
  for name, value in {'length': length, 'width': width}.items():
    if value < 1:
      raise UserError(f'decoding: {name}={value} should be 1 or more')
  batch = len(source)
  state = {
    name: jnp.repeat(x, width, axis=0)
    for name, x in _state(apply({'source': source})).items()
  }

  def going(carry):
    step, _, total, ended, _ = carry
    return (step < length) & ~(ended | jnp.isneginf(total)).all()

  def advance(carry):
    step, tokens, total, ended, state = carry
    last = jax.lax.dynamic_index_in_dim(
      tokens, jnp.maximum(step - 1, 0), axis=2, keepdims=False
    )
    last = jnp.where(step == 0, BOS, last)
    outputs = apply({'state': state, 'token': last.reshape(-1)})
    log_p = _log_probabilities(outputs['logits']).reshape(batch, width, -1)
    number = log_p.shape[-1]
    token = jnp.arange(number)[None, None]
    log_p = jnp.where((token == PAD) | (token == BOS), -jnp.inf, log_p)
    stay = jnp.where(token == PAD, 0.0, -jnp.inf)
    log_p = jnp.where(ended[..., None], stay, log_p)
    longer = total[..., None] + log_p
    ranks = longer
    if penalty:
      spoken = (tokens != PAD).sum(-1) + ~ended
      ranks = longer / (spoken ** jnp.float32(penalty))[..., None]

    _, best = jax.lax.top_k(ranks.reshape(batch, -1), width)
    total = jnp.take_along_axis(longer.reshape(batch, -1), best, axis=1)
    parent, token = best // number, (best % number).astype(jnp.int32)
    tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1)
    tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, step, axis=2)
    ended = jnp.take_along_axis(ended, parent, axis=1) | (token == EOS)
    # What a step leaves as it is, all translations of a source share.
    changed = _state(outputs)
    if width > 1:
      row = (jnp.arange(batch)[:, None] * width + parent).reshape(-1)
      changed = {name: x[row] for name, x in changed.items()}
    return step + 1, tokens, total, ended, {**state, **changed}

  # Translations that differ from the first in nothing are none yet.
  first = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
  total = jnp.broadcast_to(first.astype(jnp.float32)[None], (batch, width))
  tokens = jnp.full((batch, width, length), PAD, jnp.int32)
  ended = jnp.zeros((batch, width), bool)
  _, tokens, total, _, _ = jax.lax.while_loop(
    going, advance, (jnp.int32(0), tokens, total, ended, state)
  )
  if penalty:
    spoken = jnp.maximum((tokens != PAD).sum(-1), 1)
    total = total / spoken ** jnp.float32(penalty)
  return tokens, total


def log_likelihood(apply: Apply, source: Array, tokens: Array) -> Array:
  """How likely a net thinks translations that it is given.

  Args:
    apply: the net.
    source: int [B, Ls].
    tokens: the translations, int [B, L].

  Returns:
    Their log-probabilities, with that of their end, float32 [B].
  """
  outputs = apply({'source': source, 'prefix': shifted(tokens)})
  log_p = _log_probabilities(outputs['logits'])
  own = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
  return jnp.where(tokens == PAD, 0, own).sum(-1)


def sentence_bleu(hypothesis: Array, reference: Array) -> Array:
  """Smoothed BLEU of single sentences, of up to four tokens in a row.

  Geometric mean of the precisions, one match and one place more for those of
  two tokens or more (Lin and Och, 2004, the second in Chen and Cherry, `A
  Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU
  <https://aclanthology.org/W14-3346>`_, 2014), times the brevity penalty. It
  is 0 where no token is right.

  Args:
    hypothesis: int [..., L]; what is `PAD`, and all from `EOS` on, is left out.
    reference: int [..., M], in the same way.

  Returns:
    From 0 to 1, float32 [...].
  """
  _checks.arrays(
    hypothesis=(hypothesis, 'int[..., L]'), reference=(reference, 'int[..., M]')
  )
  said, wanted = _words(hypothesis), _words(reference)
  # [..., L, L] and [..., L, M]: the same tokens at two places, n in a row.
  itself, other = (
    (hypothesis[..., :, None] == y[..., None, :])
    & said[..., :, None]
    & there[..., None, :]
    for y, there in ((hypothesis, said), (reference, wanted))
  )
  mine, theirs, long = itself, other, said
  log_precision = jnp.zeros(hypothesis.shape[:-1], jnp.float32)
  for order in range(ORDERS):
    if order:
      mine = mine & _later(itself, order, 2)
      theirs = theirs & _later(other, order, 2)
      long = long & _later(said, order, 1)
    there = mine.sum(-1)
    # Each of the places of a phrase has its share of the phrase's matches.
    share = jnp.minimum(1.0, theirs.sum(-1) / jnp.maximum(there, 1))
    matches = jnp.where(long, share, 0).sum(-1) + bool(order)
    places = jnp.maximum(long.sum(-1) + bool(order), 1)
    log_precision += jnp.log(matches / places) / ORDERS
  short = wanted.sum(-1) / jnp.maximum(said.sum(-1), 1)
  return jnp.exp(log_precision + jnp.minimum(1 - short, 0))


def _state(outputs: dict[str, Array]) -> dict[str, Array]:
  """The state among a net's outputs."""
  return {
    name.removeprefix('state/'): x
    for name, x in outputs.items()
    if name.startswith('state/')
  }


def _log_probabilities(logits: Array) -> Array:
  return jax.nn.log_softmax(logits.astype(jnp.float32))


def _words(tokens: Array) -> Array:
  """Which tokens are words, bool."""
  return (tokens != PAD) & ((tokens == EOS).cumsum(-1) == 0)


def _later(x: Array, by: int, axes: int) -> Array:
  """What is so many places on along each of the last axes; False past them."""
  pads = [(0, 0)] * (x.ndim - axes) + [(0, by)] * axes
  return jnp.pad(x, pads)[(..., *[slice(by, None)] * axes)]
