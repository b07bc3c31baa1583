"""How text becomes tokens, and how many bytes of it each token stands for.

The likelihood of a text depends on the vocabulary only through its number of
tokens, so that bits per byte compare models of different vocabularies. That
needs the bytes of each token, whose sum over a text must be the bytes of the
text, also where a character is split between tokens.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxkd.data.text import words as words_lib
from jaxkd.data.text.tokens import EOS, Special

PORTION = 2**20  # characters of one text that are tokenised at once, about
GROUP = 2**22  # characters of all texts, likewise
SPACES = ('▁', 'Ġ')  # as SentencePiece and byte-level vocabularies write it
_BETWEEN_LINES = re.compile(r'(?<=\S)\n(?=\S)')


class Encoded(NamedTuple):
  """Texts as tokens, one text behind the other.

  Attributes:
    tokens: whole numbers [n], of the fewest bytes that do.
    sizes: bytes of UTF-8 that each stands for, likewise.
    counts: how many tokens each text has, int64 [texts].
  """

  tokens: np.ndarray
  sizes: np.ndarray
  counts: np.ndarray


class Vocabulary:
  """Tokens of text.

  A kind of vocabulary has `_ids` and `decode`, and `_ends` if the bytes of a
  token are not always those of its piece.

  Attributes:
    pieces: what each token stands for, in the order of their numbers.
    special: the tokens that stand for no text.
    begins: whether documents had a beginning of their own when the tokenizer
      was made; else ``special.bos`` is another token that stands in for it.
    is_lossless: whether tokens keep the text, spaces and line feeds too.
    end_size: bytes that the `EOS` of a document stands for.
    name: as ``data.kw.tokens`` has it.
    notes: sentences about it, for the row.
  """

  begins = True
  is_lossless = True
  end_size = 0

  def __init__(
    self,
    name: str,
    pieces: Sequence[str],
    literal: np.ndarray,
    special: Special,
    notes: Sequence[str] = (),
  ):
    """Keeps what `_ids` needs nothing of.

    Args:
      name: see `Vocabulary`.
      pieces: likewise.
      literal: bytes of each piece, int32 [pieces].
      special: see `Vocabulary`.
      notes: likewise.
    """
    self.name, self.pieces, self.special = name, tuple(pieces), special
    self.notes, self._literal = tuple(notes), literal.astype(np.int32)

  @property
  def checksum(self) -> str:
    """See `checksum`."""
    return checksum(self.pieces)

  def encode(
    self,
    texts: Sequence[str],
    continues: Sequence[bool] | bool = False,
    *,
    markup: bool = False,
  ) -> Encoded:
    """Tokenises texts, without a beginning or an end.

    A text of more than `PORTION` characters is tokenised in portions, cut at a
    line feed, where the vocabulary splits there anyway.

    Args:
      texts: one or more.
      continues: whether each goes on where another has ended, so that nothing
        is put before it.
      markup: whether what is written as a special token is one, as in what a
        chat template gives; its bytes do not count as text. Else it is text
        as any other.
    """
    flags = np.broadcast_to(np.asarray(continues, bool), len(texts))
    units, owner = [], []
    for i, (text, flag) in enumerate(zip(texts, flags, strict=True)):
      first, *rest = self._portions(text)
      units += [(first, bool(flag)), *((part, self._after) for part in rest)]
      owner += [i] * (1 + len(rest))
    found, lengths = [], []
    for group in _groups(units):
      ids = self._ids_of(group, markup)
      sizes = self._sizes(np.concatenate(ids), map(len, ids), group, markup)
      lengths += map(len, ids)
      found.append((
        np.concatenate(ids).astype(np.min_scalar_type(len(self.pieces) - 1)),
        sizes.astype(np.min_scalar_type(sizes.max(initial=0))),
      ))  # fmt: skip
    tokens, sizes = (np.concatenate(x) for x in zip(*found, strict=True))
    counts = np.bincount(owner, lengths, len(texts)).astype(np.int64)
    return Encoded(tokens, sizes, counts)

  def decode(self, tokens: Sequence[int]) -> str:
    """The text of tokens; special ones are left out."""
    raise NotImplementedError

  def _ids(
    self, texts: Sequence[str], continues: bool, markup: bool
  ) -> list[np.ndarray]:
    """The tokens of each text, see `encode`."""
    raise NotImplementedError

  def _ends(self, text: str, continues: bool, markup: bool) -> np.ndarray:
    """The character of the text at which each of its tokens ends, int [n]."""
    raise NotImplementedError

  def _portions(self, text: str) -> list[str]:
    long = len(text) > PORTION and self._after is not None
    return [*_portions(text)] if long else [text]

  @functools.cached_property
  def _after(self) -> bool | None:
    """How a text goes on behind a line feed, so that its tokens are the same.

    Returns:
      What `_ids` takes for ``continues``; None if there is no such way.
    """
    first, second = 'One line.\n', 'Another'
    (whole,) = self._ids([first + second], False, False)
    for continues in (True, False):
      parts = (
        *self._ids([first], False, False),
        *self._ids([second], continues, False),
      )
      if np.array_equal(whole, np.concatenate(parts)):
        return continues
    return None

  def _ids_of(
    self, units: Sequence[tuple[str, bool]], markup: bool
  ) -> list[np.ndarray]:
    """The tokens of texts, each with whether it goes on."""
    found = [np.zeros(0, np.int32)] * len(units)
    for flag in (False, True):
      where = [i for i, (_, goes_on) in enumerate(units) if goes_on == flag]
      made = self._ids([units[i][0] for i in where], flag, markup)
      for i, ids in zip(where, made, strict=True):
        found[i] = ids
    return found

  def _is_markup(self, tokens: np.ndarray) -> np.ndarray:
    """Which tokens are special and have no bytes, bool [n]."""
    return np.zeros(len(tokens), bool)

  def _sizes(self, tokens, lengths, units, markup):
    """Bytes of each token, whose sum is that of the text; int32 [n].

    They are those of its piece where these add up. Else, as after a
    normalisation or with an unknown token, a token has the bytes from where
    the one before has ended, of which each counts once.
    """
    sizes = self._literal[tokens]
    edges = np.concatenate([[0], np.cumsum([*lengths])]).astype(np.int64)
    total = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    said = total[edges[1:]] - total[edges[:-1]]
    there = np.array([len(text.encode()) for text, _ in units], np.int64)
    for i in np.flatnonzero(said != there):
      text, continues = units[i]
      start, stop = edges[i : i + 2]
      first = self.pieces[tokens[start]] if stop > start else ''
      if said[i] == there[i] + 1 and first[:1] in SPACES and text[:1] != ' ':
        sizes[start] -= 1  # of the space that was put before the text
        continue
      ends = self._ends(text, continues, markup)
      sizes[start:stop] = _covered(text, ends)
    if markup:
      sizes[self._is_markup(tokens)] = 0
    return sizes


class Bytes(Vocabulary):
  """The bytes of UTF-8, after the special tokens."""

  def __init__(self):
    pieces = (*words_lib.SPECIAL, *(f'<0x{i:02X}>' for i in range(256)))
    literal = np.array([0] * 4 + [1] * 256)
    super().__init__('bytes', pieces, literal, Special(unk=None))

  def decode(self, tokens):
    own = np.asarray(tokens, np.int64) - 4
    own = own[(own >= 0) & (own < 256)].astype(np.uint8)
    return own.tobytes().decode('utf-8', 'replace')

  def _ids(self, texts, continues, markup):
    found = (np.frombuffer(text.encode(), np.uint8) for text in texts)
    return [own.astype(np.int32) + 4 for own in found]


class Words(Vocabulary):
  """Frequent words; an `EOS` stands for a line feed.

  What stands between words is lost, but for the space or the line feed.
  """

  is_lossless = False
  end_size = 1  # a line feed, too

  def __init__(self, learnt: words_lib.Words, name: str):
    super().__init__(
      name, learnt.pieces, np.zeros(len(learnt.pieces)), Special()
    )
    self._learnt = learnt

  def encode(self, texts, continues=False, *, markup=False):
    """As `Vocabulary.encode`; sizes are of the words and what is between."""
    del continues, markup
    tokens, sizes, counts = [], [], []
    for text in texts:
      own, of_own = self._learnt.encode(text.split('\n'))
      tokens.append(np.array(own[:-1], np.int32))
      sizes.append(np.array(of_own[:-1], np.int32))
    counts = np.array([len(own) for own in tokens], np.int64)
    return Encoded(np.concatenate(tokens), np.concatenate(sizes), counts)

  def decode(self, tokens):
    words = self.pieces
    found = ['\n' if t == EOS else words[t] for t in tokens if t not in (0, 2)]
    return ' '.join(found).replace(' \n ', '\n').strip()


def checksum(pieces: Sequence[str]) -> str:
  """SHA-256 of a vocabulary: of what each token stands for, in their order.

  Equal ones give each token the same meaning, whatever file they are from. It
  may be taken of the classes of a net that `jaxkd.load` gives.
  """
  return hashlib.sha256(json.dumps(list(pieces)).encode()).hexdigest()


def _portions(text: str) -> Iterator[str]:
  """A text in portions that end with a line feed between words."""
  start = 0
  while found := _BETWEEN_LINES.search(text, start + PORTION):
    yield text[start : found.end()]
    start = found.end()
  yield text[start:]


def _groups(
  units: Sequence[tuple[str, bool]],
) -> Iterator[list[tuple[str, bool]]]:
  """Texts in groups of about `GROUP` characters, one or more."""
  group, size = [], 0
  for unit in units:
    group.append(unit)
    size += len(unit[0])
    if size >= GROUP:
      yield group
      group, size = [], 0
  if group or not units:
    yield group


def _covered(text: str, ends: np.ndarray) -> np.ndarray:
  """Bytes from where each token's forerunner has ended; all of the text.

  Args:
    text: of one token or more, if it is not empty.
    ends: characters, int [n].
  """
  if not len(ends):
    return np.zeros(0, np.int32)
  each = np.array([len(character.encode()) for character in text], np.int64)
  place = np.concatenate([[0], np.cumsum(each)])
  reached = np.maximum.accumulate(place[np.minimum(ends, len(text))])
  reached[-1] = place[-1]
  return np.diff(reached, prepend=0).astype(np.int32)
