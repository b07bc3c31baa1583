"""Rows of tokens, as language models read them: cut from a stream of documents.

The documents of a split stand one behind the other in flat arrays. A piece is a
stretch of them, and a row holds one piece or several. Rows are made of these
when they are read, so that the text takes a few bytes for each token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.data import examples as examples_lib
from jaxkd.data.examples import Examples, StreamedExamples
from jaxkd.data.text.tokens import Special
from jaxkd.errors import UserError

PACKINGS = ('windows', 'packed', 'none')
TOO_LONG = ('refuse', 'split', 'cut')
_BINS = 256  # rows that are filled at the same time


class Stream(NamedTuple):
  """The documents of a split.

  Attributes:
    tokens: whole numbers [T].
    sizes: bytes that each stands for, whole numbers [T].
    counts: which tokens are learnt, bool [T].
    starts: where each document begins, and the end of the last, int64 [D + 1].
    prompts: how many tokens of each are a prompt, int64 [D].
  """

  tokens: np.ndarray
  sizes: np.ndarray
  counts: np.ndarray
  starts: np.ndarray
  prompts: np.ndarray


class Pieces(NamedTuple):
  """Stretches of a stream; each token of one is the label of that before.

  Attributes:
    starts: the first input of each, int64 [P].
    lengths: how many inputs it has, and labels, int64 [P].
    skips: how many labels at its beginning do not count, int64 [P].
    prompts: how many inputs at its beginning are a prompt, int64 [P].
  """

  starts: np.ndarray
  lengths: np.ndarray
  skips: np.ndarray
  prompts: np.ndarray

  def take(self, chosen: np.ndarray) -> 'Pieces':
    """Those with these numbers, or where it is True."""
    return Pieces(*(x[chosen] for x in self))


class Rows(NamedTuple):
  """The rows of a split.

  Attributes:
    stream: what they are cut from.
    pieces: in the order of the rows.
    firsts: the first piece of each row, and their number, int64 [N + 1].
    length: tokens of a row, L.
    special: of the vocabulary.
    packed: whether a row may have several pieces, and tells them apart.
    prompt: the most tokens of a prompt, P; 0 for no prompts.
  """

  stream: Stream
  pieces: Pieces
  firsts: np.ndarray
  length: int
  special: Special
  packed: bool
  prompt: int

  def examples(self) -> Examples:
    """The rows as examples, in memory if they are small."""
    return examples_lib.held(StreamedExamples(len(self.firsts) - 1, self.fetch))

  def fetch(self, numbers: np.ndarray) -> dict[str, Any]:
    """Reads rows; see `jaxkd.data.examples.Examples`.

    Args:
      numbers: of the rows, int [n].

    Returns:
      ``inputs``, int32 [n, L], or, packed, a dict of ``tokens``, ``segments``,
      which count from 1, and ``positions``, from 0 in each segment;
      ``labels``, the token that follows each; ``valid``, which of these count;
      ``bytes``, what they stand for; ``unknown_bytes``, the bytes of those that
      are unknown, if there is such a token; and, where there are prompts,
      ``prompt`` [n, P] and ``prompt_length`` [n].
    """
    shape = len(numbers), self.length
    place = np.zeros(shape, np.int64)
    segments, positions = (np.zeros(shape, np.int32) for _ in range(2))
    counted = np.zeros(shape, bool)
    for i, row in enumerate(numbers):
      end = 0
      for nth, piece in enumerate(range(*self.firsts[row : row + 2]), start=1):
        start, length, skip, _ = (x[piece] for x in self.pieces)
        own = slice(end, end + length)
        place[i, own] = np.arange(start, start + length)
        positions[i, own] = np.arange(length)
        segments[i, own] = nth
        counted[i, end + skip : end + length] = True
        end += length
    there, pad = segments > 0, self.special.pad
    tokens, labels = (
      np.where(there, self.stream.tokens[x], pad).astype(np.int32)
      for x in (place, place + 1)
    )
    sizes = np.where(there, self.stream.sizes[place + 1], 0).astype(np.int32)
    found = {
      'inputs': tokens,
      'labels': labels,
      'valid': counted & self.stream.counts[place + 1],
      'bytes': sizes,
    }
    if self.packed:
      found['inputs'] = {
        'tokens': tokens,
        'segments': segments,
        'positions': positions,
      }
    if self.special.unk is not None:
      is_unknown = there & (labels == self.special.unk)
      found['unknown_bytes'] = np.where(is_unknown, sizes, 0)
    if self.prompt:
      lengths = self.pieces.prompts[self.firsts[numbers]]
      inside = np.arange(self.prompt) < lengths[:, None]
      found['prompt'] = np.where(inside, tokens[:, : self.prompt], pad)
      found['prompt_length'] = lengths.astype(np.int32)
    return found


def windows(stream: Stream, length: int, overlap: int = 0) -> Pieces:
  """Windows of a stream, whatever documents they are of.

  Args:
    stream: the documents.
    length: L, tokens of a window.
    overlap: how many each has of the one before, to look at. They count there.
  """
  count, step = len(stream.tokens) - 1, length - overlap
  number = 1 + max(0, -(-(count - length) // step))
  starts = step * np.arange(number, dtype=np.int64)
  skips = np.full(number, overlap, np.int64)
  skips[0] = 0
  return Pieces(
    starts, np.minimum(length, count - starts), skips, np.zeros_like(starts)
  )


def documents(
  stream: Stream, length: int, too_long: str, at: str
) -> tuple[Pieces, int]:
  """The documents of a stream, each by itself.

  Args:
    stream: the documents.
    length: the most tokens of a piece.
    too_long: what becomes of longer ones: 'refuse', 'split' into pieces of this
      length, of which the last token of each is the first of the next, or 'cut'
      off.
    at: what to call the split in errors.

  Returns:
    The pieces, and how many documents are too long.

  Raises:
    UserError: documents that are too long, and are refused.
  """
  starts, lengths = stream.starts[:-1], np.diff(stream.starts) - 1
  long = lengths > length
  if long.any() and too_long == 'refuse':
    raise UserError(
      f'data.kw.length: {long.sum():,} of the {len(long):,} documents in {at} '
      f'do not fit into {length:,} tokens, and the longest needs '
      f"{lengths.max():,}; raise it, or set data.kw.too_long to 'split' or "
      "'cut'"
    )
  prompts = stream.prompts
  if too_long == 'split':
    parts = np.maximum(1, -(-lengths // length))
    of = np.repeat(np.arange(len(parts)), parts)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = starts[of] + nth * length
    lengths, prompts = lengths[of] - nth * length, prompts[of]
  lengths = np.minimum(lengths, length)
  prompts = np.minimum(prompts, lengths)
  return Pieces(starts, lengths, np.zeros_like(starts), prompts), long.sum()


def prompted(pieces: Pieces, tokens: int) -> Pieces:
  """Makes the first tokens of each piece its prompt, which is not learnt."""
  return pieces._replace(
    prompts=np.full_like(pieces.prompts, tokens),
    skips=np.maximum(pieces.skips, tokens - 1),
  )


def learnt(stream: Stream, pieces: Pieces) -> np.ndarray:
  """How many labels of each piece count, int64 [P]."""
  before = np.concatenate([[0], np.cumsum(stream.counts, dtype=np.int64)])
  first = pieces.starts + 1
  return (
    before[first + pieces.lengths]
    - before[first + np.minimum(pieces.skips, pieces.lengths)]
  )


def packed(
  lengths: Sequence[int], length: int
) -> tuple[np.ndarray, np.ndarray]:
  """Which pieces go into which row, first fit, by Grain; always the same.

  Args:
    lengths: of the pieces, each at most `length`; int [P].
    length: of a row.

  Returns:
    The numbers of the pieces, row by row, int64 [P], and the first of each row,
    with their number behind the last, int64 [N + 1].
  """
  import grain
  from grain import experimental

  inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  pieces = grain.MapDataset.range(len(lengths)).map(
    lambda i: {'tokens': np.zeros(lengths[i], bool), 'piece': i}
  )
  rows = experimental.FirstFitPackIterDataset(
    pieces.to_iter_dataset(read_options=inline),
    length_struct={'tokens': length},
    num_packing_bins=_BINS,
    shuffle_bins=False,
    meta_features=('piece',),
  )
  found = [np.array(row['piece'], np.int64) for row in rows]
  counts = np.array([len(own) for own in found], np.int64)
  return np.concatenate(found), np.concatenate([[0], np.cumsum(counts)])
