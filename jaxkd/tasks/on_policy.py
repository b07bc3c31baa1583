"""On-policy distillation: language models learn from what they write.

A rollout of a config, `data.rollout.name='on_policy'`: in each step the student
goes on from the beginnings of some rows, and these take the place of the data's
own. What is compared on them, and in which direction, is for the terms to say:
`jensen_shannon` is generalised knowledge distillation (GKD), `reverse_kl` the
divergence of MiniLLM at each token, `sampled_reverse_kl` an estimate of it from
the token that was drawn.

References:
  Agarwal et al., `On-Policy Distillation of Language Models: Learning from
  Self-Generated Mistakes <https://arxiv.org/abs/2306.13649>`_, 2024
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data.source import Source
from jaxkd.data.text.tokens import EOS, PAD
from jaxkd.distill.step import MEASURED
from jaxkd.errors import UserError, unknown
from jaxkd.keys import fold
from jaxkd.losses import _numerics
from jaxkd.tasks import sampling

__all__ = ['on_policy']

WRITTEN = 'written'  # the labels that the student drew
GIVEN = 'given'  # the labels that are of the data
LOG_PROBS = 'sampled_log_probs'


def on_policy(
  student: Callable[[Any], dict] | Mapping[str, Callable[[Any], dict]],
  batch: Mapping[str, Any],
  key: Array,
  *,
  length: int = 64,
  share: float = 1.0,
  drawn: Literal['example', 'batch'] = 'example',
  prompt: int = 1,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  stop: int | Sequence[int] = EOS,
  pad: int = PAD,
  by: str = '',
) -> dict:
  """A batch of which the student has written some rows.

  A prompt ends before the first label that counts, from the `prompt`-th on; of
  a row of several documents it is that of one of them, and only this one is
  written. Tokens that a row has no room for are left out. A row without a label
  that counts stays as it is.

  Args:
    student: ``(inputs) -> outputs`` of the net that writes; by name, where
      several train.
    batch: of language: ``inputs``, the tokens [B, L] or a dict of ``tokens``,
      ``segments`` and ``positions``; ``labels`` and ``valid`` [B, L]; ``id``
      and ``epoch``; where the data says so, ``prompt_length`` [B].
    key: of the step.
    length: the most tokens that are written in a row.
    share: λ, the share of rows that the student writes.
    drawn: whether this is drawn for each 'example' or, as in GKD, for a whole
      'batch'. The latter saves the time to write the others where members are
      not mapped (`train.members` is 'unroll' or 'sequence').
    prompt: the least tokens of a prompt; one that would end with `pad` is
      longer.
    temperature: see `jaxkd.tasks.sampling.sample`, as for the next two.
    top_k: see there.
    top_p: see there.
    stop: the token that ends a text, or several; () for none. By default that
      of the data's tokenizer, as `pad`.
    pad: fills up rows. It may be drawn, too: what a student must never learn
      to write, it has to be able to write.
    by: the student that writes, where several train.

  Returns:
    The batch with rows that are written, of which the labels that count are
    those that the student drew: in ``valid`` beside the others, alone in
    ``written`` [B, L], and the data's alone in ``given``. ``sampled_log_probs``
    [B, L] are those of the distribution that each was drawn from, NaN where
    none was; they are left out where some tokens could not be drawn. So are
    further fields of positions, such as ``bytes``.

  Raises:
    UserError: options that are out of range, or a batch of another kind.
  """
  if not 0 <= share <= 1:
    raise UserError(f'{share} should be from 0 to 1', entry='share')
  rows = _rows(batch, prompt, pad)
  size, places = rows.tokens.shape
  if prompt + length > places + 1:
    raise UserError(
      f'{length} tokens after a prompt of {prompt} are longer than the rows of '
      f'the data, which have room for {max(places + 1 - prompt, 0)}; write '
      'less, or take longer rows',
      entry='length',
    )
  apply = _writer(student, by)
  keys = jax.vmap(lambda e, i: fold(key, e, i))(batch['epoch'], batch['id'])
  whole = drawn == 'batch'
  if whole:
    asked = jnp.full(size, jax.random.uniform(fold(key, 'share')) < share)
  else:
    asked = jax.vmap(jax.random.uniform)(_folded(keys, 'share')) < share

  def written():
    found = sampling.sample(
      apply,
      rows.prompts(pad),
      _folded(keys, 'tokens'),
      length,
      temperature=temperature,
      top_k=top_k,
      top_p=top_p,
      stop=(stop,) if isinstance(stop, int) else tuple(stop),
      pad=pad,
      never=(),
    )
    return rows.with_written(found, asked & rows.some, pad)

  def kept():
    return rows.with_written(sampling.nothing(size), jnp.zeros(size, bool), pad)

  if share == 0:
    made = kept()
  elif whole and share < 1:
    made = jax.lax.cond(asked[0], written, kept)
  else:
    made = written()
  if _rules_out(temperature, top_k, top_p):
    del made[LOG_PROBS]
  alone = {k: x for k, x in batch.items() if getattr(x, 'ndim', 0) == 1}
  return alone | made


def tokens_of(source: Source) -> dict[str, int]:
  """The special tokens of the data's tokenizer, as options of `on_policy`.

  Args:
    source: the data; one without a tokenizer has those of
      `jaxkd.data.text.tokens`.
  """
  special = getattr(getattr(source, 'tokenizer', None), 'special', None)
  if special is None:
    return {}
  return {'stop': special.eos, 'pad': special.pad}


def check_term(fields: Collection[str], mask: str, kw: Mapping) -> None:
  """Refuses a term that would learn from what it does not mean.

  Args:
    fields: of the batch, that its loss takes.
    mask: what of the batch counts in it.
    kw: the options of `on_policy` that are given.

  Raises:
    UserError: whose entry is in the term's.
  """
  if LOG_PROBS in fields and mask != WRITTEN:
    raise UserError(
      f'{mask!r} counts labels that no student drew; write {WRITTEN!r}',
      entry='mask',
    )
  if 'labels' in fields and mask not in (WRITTEN, GIVEN):
    raise UserError(
      f'{mask!r} counts labels that the student itself drew as if they were '
      f'true; write {GIVEN!r} for those of the data, or {WRITTEN!r} for these',
      entry='mask',
    )
  options = {k: kw[k] for k in ('temperature', 'top_k', 'top_p') if k in kw}
  if LOG_PROBS in fields and _rules_out(**options):
    raise UserError(
      'what cannot be drawn would never be unlearnt; set temperature above 0, '
      'top_k=0 and top_p=1 in data.rollout.kw, or take reverse_kl',
      entry='loss',
    )


def _rules_out(
  temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> bool:
  """Whether some tokens cannot be drawn."""
  return temperature == 0 or bool(top_k) or top_p < 1


def said(kw: Mapping[str, Any], batch_size: int) -> str:
  """What the student writes in a step, in words, and so what it costs.

  Args:
    kw: the options of `on_policy` that are given.
    batch_size: B.
  """
  taken = inspect.signature(on_policy).parameters
  share, drawn, length = (
    kw.get(name, taken[name].default) for name in ('share', 'drawn', 'length')
  )
  if not share:
    return 'the student writes nothing'
  whole = drawn == 'batch'
  when = f'in {share:.0%} of the steps' if whole else 'in each step'
  kept = f', of which {share:.0%} take the place of the data'
  return (
    f'{when} the student writes up to {length} tokens to each of '
    f'{batch_size} rows, in {length} passes of one token each'
    f'{"" if whole or share == 1 else kept}'
  )


class _Rows(NamedTuple):
  """Rows of the data, of which each may be written from its prompt on.

  Attributes:
    inputs: as in the batch.
    tokens: of the inputs, int32 [B, L].
    labels: int32 [B, L].
    valid: which labels count, bool [B, L].
    first: where prompts begin, int32 [B].
    last: where they end, int32 [B]: the place of their last token, whose label
      is the first that may be written.
    some: which rows have a label that may be written, bool [B].
  """

  inputs: Any
  tokens: Array
  labels: Array
  valid: Array
  first: Array
  last: Array
  some: Array

  def prompts(self, pad: int) -> Array:
    """The prompts alone, [B, L], filled up at the right."""
    place = _places(self.tokens)
    here = jnp.minimum(self.first[:, None] + place, place.shape[1] - 1)
    tokens = jnp.take_along_axis(self.tokens, here, axis=1)
    return jnp.where(place <= (self.last - self.first)[:, None], tokens, pad)

  def with_written(
    self, found: sampling.Sampled, chosen: Array, pad: int
  ) -> dict[str, Any]:
    """The fields of rows of which the chosen have what was written.

    Args:
      found: what was written: the labels from the place `last` on, [B, N].
      chosen: which rows are, bool [B].
      pad: stands behind it.
    """
    place = _places(self.tokens)
    nth = place - self.last[:, None]  # which of the tokens is the label there
    at = jnp.clip(nth, 0, found.tokens.shape[1] - 1)
    tokens, valid, log_probs = (
      jnp.take_along_axis(x, at, axis=1)
      for x in (found.tokens, found.valid, found.log_probs)
    )
    valid &= at == nth
    labels = jnp.where(valid, tokens, jnp.where(nth < 0, self.labels, pad))
    new = {
      'inputs': self._inputs(labels, valid, nth, pad),
      'labels': labels,
      'valid': valid,
      WRITTEN: valid,
      GIVEN: jnp.zeros_like(valid),
      LOG_PROBS: jnp.where(valid, log_probs, jnp.nan),
    }
    old = {
      'inputs': self.inputs,
      'labels': self.labels,
      'valid': self.valid,
      WRITTEN: jnp.zeros_like(valid),
      GIVEN: self.valid,
      LOG_PROBS: jnp.full_like(log_probs, jnp.nan),
    }
    made = jax.tree.map(
      lambda x, y: jnp.where(chosen[:, None], x, y.astype(x.dtype)), new, old
    )
    number = valid.sum(1)
    # What was drawn of logits that are no numbers must not pass for text.
    number *= _numerics.one_or_nan(~(valid & jnp.isnan(log_probs)).any(1))
    # A row without room for the token that stops it goes on, too.
    goes_on = ~found.stopped | (found.valid.sum(1) > valid.sum(1))
    measured = {'written': 1.0, 'unfinished': goes_on, 'tokens': number}
    return made | {
      MEASURED: {
        name: jnp.where(chosen, x, 0).astype(jnp.float32)
        for name, x in measured.items()
      }
    }

  def _inputs(self, labels: Array, valid: Array, nth: Array, pad: int) -> Any:
    """The inputs of written rows: each label is the token of the next place."""
    behind = lambda x: jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]  # noqa: E731
    there, follows = behind(valid), nth > 0
    tokens = jnp.where(there, behind(labels), pad)
    if not isinstance(self.inputs, Mapping):
      return jnp.where(follows, tokens, self.inputs)
    own = {
      'tokens': tokens,
      'segments': there * _at(self.inputs['segments'], self.last),
      'positions': there * (_at(self.inputs['positions'], self.last) + nth),
    }
    return {k: jnp.where(follows, own[k], x) for k, x in self.inputs.items()}


def _rows(batch: Mapping[str, Any], prompt: int, pad: int) -> _Rows:
  """The rows of a batch, and where their prompts are.

  A net that goes on from a prompt tells its end by what fills it up, which may
  be a token, such as that which ends texts. So no prompt ends with it.
  """
  if prompt < 1:
    raise UserError(f'{prompt} should be 1 token or more', entry='prompt')
  for name in ('labels', 'valid', 'id', 'epoch'):
    if name not in batch:
      raise unknown('field of the batch', name, batch)
  inputs, labels, valid = (
    batch[name] for name in ('inputs', 'labels', 'valid')
  )
  known = {'tokens', 'segments', 'positions'}
  if isinstance(inputs, Mapping) and {*inputs} != known:
    raise UserError(
      f'inputs of {", ".join(inputs)} are no rows of tokens; on_policy is for '
      'language models'
    )
  tokens = inputs['tokens'] if isinstance(inputs, Mapping) else inputs
  shape = getattr(tokens, 'shape', ())
  if len(shape) != 2 or labels.shape != shape or valid.shape != shape:
    raise UserError(
      f'inputs {list(shape)}, labels {list(labels.shape)} and valid '
      f'{list(valid.shape)} should be rows of tokens, [B, L] each; on_policy '
      'is for language models'
    )
  place = _places(tokens)
  least = prompt - 1
  if 'prompt_length' in batch:
    least = jnp.maximum(least, batch['prompt_length'][:, None] - 1)
  is_packed = isinstance(inputs, Mapping)
  begins = (inputs['positions'] if is_packed else place) == 0
  may = valid & (place >= least) & ((tokens != pad) | begins)
  last = jnp.argmax(may, axis=1).astype(jnp.int32)
  first = jnp.zeros_like(last)
  if is_packed:
    own = inputs['segments'] == _at(inputs['segments'], last)
    first = jnp.argmax(own, axis=1).astype(jnp.int32)
  return _Rows(inputs, tokens, labels, valid, first, last, may.any(1))


def _writer(student, by: str) -> Callable[[Any], dict]:
  """The net that writes."""
  if not isinstance(student, Mapping):
    if by:
      raise unknown('student', by, (), 'by')
    return student
  if not by:
    raise UserError(
      f'several nets train ({", ".join(student)}); name the one that writes',
      entry='by',
    )
  if by not in student:
    raise unknown('student', by, student, 'by')
  return student[by]


def _places(tokens: Array) -> Array:
  """The place of each token in its row, int32 [B, L]."""
  return jax.lax.broadcasted_iota(jnp.int32, tokens.shape, 1)


def _at(x: Array, place: Array) -> Array:
  """What stands at a place of each row, [B, 1]."""
  return jnp.take_along_axis(x, place[:, None], axis=1)


def _folded(keys: Array, name: str) -> Array:
  """A key for each of some keys, folded from a name."""
  return jax.vmap(lambda key: fold(key, name))(keys)
