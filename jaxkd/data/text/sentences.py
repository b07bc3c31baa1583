"""Tokenised pairs of sentences, for translation."""

import collections
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.data.examples import ArrayExamples
from jaxkd.data.text import tokenizer
from jaxkd.data.text.tokens import EOS, PAD, UNK, shifted
from jaxkd.errors import UserError

VOID = f'{tokenizer.SPACE}\N{REPLACEMENT CHARACTER}'  # become spaces
TOO_LONG = {'refuse': 'refused', 'cut': 'cut', 'drop': 'left out'}

Pair = tuple[str, str]  # a sentence and its translation


class Sentences(NamedTuple):
  """Splits of pairs of sentences.

  Attributes:
    splits: examples with the inputs ``source``, its tokens, and ``prefix``,
      what comes before each token of the translation; with ``labels``, the
      translation and `EOS`; and with ``valid``, where the labels are not `PAD`.
      All are [N, length].
    pieces: what each token stands for.
    notes: sentences about the data, for the row.
  """

  splits: dict[str, ArrayExamples]
  pieces: tuple[str, ...]
  notes: tuple[str, ...]


def tokenized(
  splits: Mapping[str, Sequence[Pair]],
  *,
  vocabulary: int,
  length: int,
  too_long: str,
  name: str,
) -> Sentences:
  """Tokenises sentences with one vocabulary, learnt from ``train``.

  Args:
    splits: 'train' and others.
    vocabulary: number of pieces.
    length: the most tokens of a sentence, in its translation with `EOS`.
    too_long: what to do with longer pairs: 'refuse' for an error, 'cut' to
      truncate them, without an `EOS`, or 'drop'.
    name: of the source, for errors.

  Raises:
    UserError: invalid options, empty sentences, pairs that are too long, or
      a split without a character that ``train`` has.
  """
  if length < 2:
    raise UserError(
      f'data.kw.length: {length} is too short for a sentence; use 2 or more'
    )
  if too_long not in TOO_LONG:
    raise UserError(
      f'data.kw.too_long: {too_long!r} should be one of {", ".join(TOO_LONG)}'
    )
  learnt = tokenizer.learn(
    [x for pair in splits['train'] for x in pair], vocabulary
  )
  made, notes = {}, []
  for split, pairs in splits.items():
    tokens = [learnt.encode([pair[side] for pair in pairs]) for side in (0, 1)]
    _check_empty(tokens, split, name)
    _check_known(tokens, learnt.pieces.index(tokenizer.SPACE), split, name)
    for line in tokens[1]:
      line.append(EOS)
    longest = np.array(
      [max(map(len, both)) for both in zip(*tokens, strict=True)]
    )
    long = longest > length
    if long.any():
      if too_long == 'refuse':
        raise UserError(
          f'data.kw.length: {long.sum():,} of the {len(pairs):,} pairs in '
          f'{split} of {name!r} have more than {length} tokens, the longest '
          f"{longest.max()}; raise it, or set data.kw.too_long to 'cut' or "
          "'drop'"
        )
      notes.append(
        f'{long.sum():,} of the {len(pairs):,} pairs in {split} have more than '
        f'{length} tokens and are {TOO_LONG[too_long]}'
      )
    kept = ~long | (too_long == 'cut')
    if not kept.any():
      raise UserError(
        f'data.kw.length: all {len(pairs):,} pairs in {split} of {name!r} have '
        f'more than {length} tokens, the shortest {longest.min()}, and '
        "data.kw.too_long='drop' leaves out each of them; raise it, or cut them"
      )
    source, labels = (
      _padded([*itertools.compress(side, kept)], length) for side in tokens
    )
    notes += _unknown((source, labels), split)
    made[split] = _examples(source, labels)
  return Sentences(made, learnt.pieces, (*notes, *_seen(splits)))


def hold_out(
  items: Sequence[Any],
  size: int,
  key: Callable[[Any], Any] = operator.itemgetter(0),
) -> tuple[list[Any], list[Any]]:
  """Splits off ``size`` items or a few more, always the same: (rest, chosen).

  All of one key stay together: all translations of a sentence, so that no
  sentence is in both.
  """
  counts = sorted(collections.Counter(map(key, items)).items())
  order = np.random.default_rng(0).permutation(len(counts))
  before = np.cumsum([0, *(counts[i][1] for i in order)])[:-1]
  chosen = {counts[i][0] for i in order[before < size]}
  rest = [item for item in items if key(item) not in chosen]
  return rest, [item for item in items if key(item) in chosen]


def is_blank(line: str) -> bool:
  """Whether a line has no printable character besides spaces."""
  return not any(
    x.isprintable() and not x.isspace() and x not in VOID for x in line
  )


def _examples(source, labels):
  inputs = {'source': source, 'prefix': shifted(labels)}
  return ArrayExamples(inputs, labels, valid=labels != PAD)


def _padded(lines, length):
  made = np.full((len(lines), length), PAD, np.int32)
  for row, line in zip(made, lines, strict=True):
    row[: len(line)] = line[:length]
  return made


def _check_empty(tokens, split, name):
  for side, lines in zip(('source', 'translation'), tokens, strict=True):
    for i, line in enumerate(lines):
      if not line:
        raise UserError(
          f'data.source: the {side} of pair {i + 1} in {split} of {name!r} is '
          'empty; remove the pair'
        )


def _check_known(tokens, space, split, name):
  for side, lines in zip(('source', 'translation'), tokens, strict=True):
    if all(token in (UNK, space) for line in lines for token in line):
      raise UserError(
        f'data.source: no {side} in {split} of {name!r} has a character that '
        'train has; take texts of the same languages'
      )


def _unknown(sides, split):
  count = sum((side == UNK).sum() for side in sides)
  many = sum((side != PAD).sum() for side in sides)
  if count:
    yield (
      f'{count:,} of the {many:,} tokens in {split} are of characters that '
      'train does not have'
    )


def _seen(splits):
  known = {source for source, _ in splits['train']}
  for split, pairs in splits.items():
    again = sum(source in known for source, _ in pairs)
    if split != 'train' and again:
      yield (
        f'{again:,} of the {len(pairs):,} sentences in {split} are in train too'
      )
