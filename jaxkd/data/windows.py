"""Windows of tokenised texts, for language models."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxkd.data import words as words_lib
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.text import Document
from jaxkd.data.tokens import BOS, EOS, PAD, UNK
from jaxkd.errors import UserError


class Windows(NamedTuple):
  """Splits of windows.

  Attributes:
    splits: see `cut`.
    pieces: what each token stands for.
    notes: sentences about the data, for the row.
  """

  splits: dict[str, ArrayExamples]
  pieces: tuple[str, ...]
  notes: tuple[str, ...]


def tokenized(
  splits: Mapping[str, Sequence[Document]],
  *,
  tokens: str,
  vocabulary: int,
  length: int,
  context: int,
  name: str,
) -> Windows:
  """Tokenises texts with one vocabulary, learnt from ``train``.

  Args:
    splits: 'train' and others.
    tokens: what is a word; see `jaxkd.data.words.learn`.
    vocabulary: the most tokens.
    length: tokens of a window.
    context: how many of them, at its beginning, a window of the other splits
      shares with the one before.
    name: of the source, for errors.

  Raises:
    UserError: invalid options, a split without words, or one of which no word
      is in ``train``.
  """
  if length < 2:
    raise UserError(
      f'data.kw.length: {length} is too short for a window; use 2 or more'
    )
  if not 0 <= context < length:
    raise UserError(
      f'data.kw.context: {context} should be 0 or more, and less than '
      f'data.kw.length, {length}'
    )
  lines = (line for document in splits['train'] for line in document)
  learnt = words_lib.learn(lines, vocabulary, tokens)
  made, notes = {}, []
  for split, documents in splits.items():
    stream, sizes = _stream(documents, learnt)
    of_words = ~np.isin(stream, (BOS, EOS))
    count, unknown = of_words.sum(), (stream == UNK).sum()
    here = f'{split} of {name!r}'
    if not count:
      raise UserError(f'data.source: {here} has no words; add text')
    if unknown == count:
      raise UserError(
        f'data.source: no word of {here} is among the '
        f'{len(learnt.pieces) - len(words_lib.SPECIAL):,} that are learnt from '
        'train; take texts of one language'
      )
    share = f' {unknown:,} of them unknown,' if unknown else ''
    notes.append(
      f'{split} has {count:,} words,{share} in {len(documents):,} documents'
    )
    overlap = 0 if split == 'train' else context
    made[split] = cut(stream, sizes, length, overlap)
  return Windows(made, learnt.pieces, (*notes, *_seen(splits)))


def cut(
  stream: np.ndarray, sizes: np.ndarray, length: int, overlap: int = 0
) -> ArrayExamples:
  """Windows of a stream of documents, each of which begins with `BOS`.

  Args:
    stream: tokens, int32 [n + 1].
    sizes: how many bytes each stands for, int32 [n + 1].
    length: L, tokens of a window.
    overlap: how many each has of the one before, to look at. They count there.

  Returns:
    Examples with the inputs, int32 [N, L]; ``labels``, the token that follows
    each of them; ``bytes``, what this token stands for; and ``valid``, which
    labels count: each once, but for the beginnings of documents, and `PAD` at
    the end of the last window.
  """
  count, step = len(stream) - 1, length - overlap
  number = 1 + max(0, -(-(count - length) // step))
  place = step * np.arange(number)[:, None] + np.arange(length)[None]
  there = place < count
  place = np.minimum(place, count - 1)
  inputs, labels, bytes_ = (
    np.where(there, x, PAD).astype(np.int32)
    for x in (stream[place], stream[place + 1], sizes[place + 1])
  )
  valid = there & (labels != BOS)
  valid[1:, :overlap] = False
  return ArrayExamples(inputs, labels, valid=valid, bytes=bytes_)


def _stream(documents, learnt):
  """All documents in a row: tokens and bytes."""
  tokens, sizes = [], []
  for document in documents:
    own, of_own = learnt.encode(document)
    tokens += [BOS, *own]
    sizes += [0, *of_own]
  return np.array(tokens, np.int32), np.array(sizes, np.int32)


def _seen(splits):
  known = set(splits['train'])
  for split, documents in splits.items():
    again = sum(document in known for document in documents)
    if split != 'train' and again:
      yield (
        f'{again:,} of the {len(documents):,} documents in {split} are in '
        'train too'
      )
