"""Words as tokens: the most frequent ones, and one token for all others."""

import collections
import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxkd.data.text.tokens import EOS, UNK
from jaxkd.errors import UserError, unknown

SPECIAL = ('<pad>', '<unk>', '<s>', '</s>')  # in the order of their numbers


@functools.cache
def _word() -> re.Pattern:
  """Letters and digits with the marks on them, such as vowels of Hindi."""
  marks = ''.join(
    x
    for x in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(x).startswith('M')
  )
  part = rf'[^\W_]+(?:[{marks}]+[^\W_]*)*'
  return re.compile(rf"{part}(?:['’-]{part})*")


def _words(line: str) -> list[str]:
  # A letter and its mark may be one character or two (NFC, NFD).
  return _word().findall(unicodedata.normalize('NFC', line.lower()))


SPLIT: Mapping[str, Callable[[str], list[str]]] = {
  'words': _words,
  'spaces': str.split,
}


class Words(NamedTuple):
  """A vocabulary of words.

  Attributes:
    pieces: the word of each token, after those that stand for no word.
    numbers: word -> token.
    split: ``(line) -> words``.
  """

  pieces: tuple[str, ...]
  numbers: dict[str, int]
  split: Callable[[str], list[str]]

  def encode(self, lines: Sequence[str]) -> tuple[list[int], list[int]]:
    """The tokens of lines, and how many bytes of UTF-8 each stands for.

    An `EOS` ends each line and stands for the line feed. A word stands for
    itself and the space before it, if there is one. Lines without words are
    left out.
    """
    tokens, sizes = [], []
    for words in filter(None, map(self.split, lines)):
      tokens += [self.numbers.get(word, UNK) for word in words]
      sizes += [len(word.encode()) + (i > 0) for i, word in enumerate(words)]
      tokens.append(EOS)
      sizes.append(1)
    return tokens, sizes


def learn(lines: Iterable[str], size: int, how: str) -> Words:
  """The most frequent words; of equally frequent ones, the first by name.

  Args:
    lines: the text.
    size: the most tokens, those that stand for no word included.
    how: 'words' for words in lower case, without punctuation; 'spaces' for
      what stands between spaces, as it is.

  Raises:
    UserError: another way to split, or too few tokens.
  """
  if how not in SPLIT:
    raise unknown('way to make tokens', how, SPLIT, 'data.kw.tokens')
  if size <= len(SPECIAL):
    raise UserError(
      f'data.kw.vocabulary: {size} tokens leave none for words; use '
      f'{len(SPECIAL) + 1} or more'
    )
  counts = collections.Counter()
  for line in lines:
    counts.update(SPLIT[how](line))
  for word in SPECIAL:
    counts.pop(word, None)
  order = sorted(counts, key=lambda word: (-counts[word], word))
  pieces = (*SPECIAL, *order[: size - len(SPECIAL)])
  numbers = {word: i for i, word in enumerate(pieces)}
  # Text that says so itself, as the Penn Treebank does, has an unknown word.
  known = {'<unk>': UNK, **{word: numbers[word] for word in pieces[4:]}}
  return Words(pieces, known, SPLIT[how])
