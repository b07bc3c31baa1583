"""Language models, and what they write, judged by their teachers.

As the task `language`; besides, each finished net goes on from the first half
of every row of the test split, at the temperature 1, for the length of the
other half or to the end of the text. How likely that is under the net itself
and under a teacher tells what bits per byte do not: a student that knows fewer
words than its teacher may spread over all of them, or write only those that it
knows well.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data.text.tokens import PAD
from jaxkd.data.text.words import SPECIAL
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.tasks import decoding, language, sampling
from jaxkd.tasks.metrics import counted, mean
from jaxkd.types import Metric

GROUND_TRUTH = language.GROUND_TRUTH
LABELS = language.LABELS
MASK = language.MASK
FIELDS = language.FIELDS
OWN, BY = 'written', 'written/'  # outputs of `decode`


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Those of `language`, and how likely a net finds what it writes.

  `written_nll` is the negative log-likelihood of a token of what the net
  writes, under itself, in nats: an estimate of its entropy.

  Args:
    classes: what each token stands for.

  Raises:
    UserError: the tokens of another vocabulary than of our own.
  """
  if tuple(classes[: len(SPECIAL)]) != SPECIAL:
    raise UserError(
      'task: writing knows which token pads and which one ends a text of '
      "vocabularies of our own alone; set data.kw.tokens='pieces', 'bytes', "
      "'words' or 'spaces', or task='language'"
    )
  return {
    **language.metrics(classes),
    'written_nll': _per_token(0, OWN),
  }


def fidelity(teacher: str) -> dict[str, Metric]:
  """Those of `language`, and how likely a teacher finds what a net writes.

  `written_teacher_nll` is the negative log-likelihood of a token under the
  teacher, in nats, and `written_kl` the difference to that under the net: an
  estimate of the divergence of whole texts from the teacher's, by token.

  Args:
    teacher: the group's name; it has one net.
  """
  return {
    **language.fidelity(teacher),
    'written_teacher_nll': _per_token(1, BY + teacher),
    'written_kl': _per_token(2, BY + teacher),
  }


def decode(
  apply: Callable[[Any], dict],
  inputs: Any,
  wanted: Collection[str],
  teachers: Mapping[str, Callable[[Any], dict]],
) -> dict[str, Array]:
  """What a net writes, and how likely it is.

  A row is continued by draws that depend on its own beginning alone, so that
  nets and seeds are compared on the same draws, whatever the batch.

  Args:
    apply: ``(inputs) -> outputs`` of the net.
    inputs: tokens [B, L].
    wanted: names of outputs.
    teachers: name -> ``apply``.

  Returns:
    ``written`` and ``written/NAME`` for each teacher: of what is written, the
    negative log-likelihood under the net and, of a teacher, under that and
    their difference; then how many tokens it has; [B, 2] or [B, 4].

  Raises:
    UserError: packed rows, or rows of a single token.
  """
  names = [name for name in teachers if BY + name in wanted]
  if not names and OWN not in wanted:
    return {}
  if isinstance(inputs, Mapping):
    raise UserError(
      'task: writing goes on from the beginning of a row, and a packed row has '
      "several; set data.kw.packing='windows' or 'none'"
    )
  half = inputs.shape[1] // 2
  if not half:
    raise UserError(
      'data.kw.length: rows of 1 token have no beginning to go on from; use 2 '
      'or more'
    )
  prompt = inputs[:, :half]
  drawn = sampling.sample(
    apply, prompt, jax.vmap(_key)(prompt), inputs.shape[1] - half
  )
  # A row that has ended before is not continued.
  count = jnp.where(prompt[:, -1] != PAD, drawn.valid.sum(1), 0)
  # What is drawn of NaN is no token.
  lost = jnp.isnan(drawn.log_probs).any(1)

  def surprise(of):
    found = -decoding.log_likelihood(of, prompt, drawn.tokens)
    return jnp.where(lost, jnp.nan, found)

  own = surprise(apply)
  found = {OWN: (own, count)}
  for name in names:
    other = surprise(teachers[name])
    found[BY + name] = own, other, other - own, count
  return {name: jnp.stack(x, axis=-1) for name, x in found.items()}


def _key(prompt):
  key, _ = jax.lax.scan(
    lambda key, token: (jax.random.fold_in(key, token), None),
    fold(jax.random.key(0), 'writing'),
    prompt,
  )
  return key


def _per_token(i, output):
  """The mean over all tokens that are written of what `decode` has at i."""

  def measure(outputs, batch, teachers):
    found = outputs[output]
    some = found[:, -1] > 0
    total, _ = counted(jnp.where(some, found[:, i], 0), batch)
    count, _ = counted(found[:, -1], batch)
    return total, count

  return Metric(
    measure, mean, higher_is_better=False, output=output, finished=True
  )
