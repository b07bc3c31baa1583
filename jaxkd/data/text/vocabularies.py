"""Vocabularies by the names that a config gives them."""

from collections.abc import Sequence

from jaxkd.data.text import pretrained, vocabulary
from jaxkd.data.text import words as words_lib
from jaxkd.errors import UserError

LEARNT = ('words', 'spaces', 'pieces')  # from the texts to train on
READ = ('tokenizer', 'sentencepiece')  # with a path behind a colon
_MOST_WORDS = 10_000  # that are learnt by default


def of(
  tokens: str,
  size: int | None,
  lines: Sequence[str] = (),
  eos: str = '',
) -> vocabulary.Vocabulary:
  """The vocabulary that ``data.kw.tokens`` names.

  Args:
    tokens: 'words', 'spaces', 'pieces' or 'bytes', or 'tokenizer:PATH' or
      'sentencepiece:PATH'.
    size: the most tokens, of a vocabulary that is learnt; None for the default.
    lines: what it is learnt from.
    eos: the token that ends a text, of one that is read; as it says itself by
      default.

  Raises:
    UserError: there is no such vocabulary, or it cannot be learnt or read.
  """
  kind, _, path = tokens.partition(':')
  if path and kind in READ:
    _refuse_size(size, tokens)
    return getattr(pretrained, kind)(path, eos)
  if tokens not in (*LEARNT, 'bytes'):
    raise UserError(
      f"data.kw.tokens: {tokens!r} should be 'words', 'spaces', 'pieces', "
      "'bytes', 'tokenizer:PATH' or 'sentencepiece:PATH'"
    )
  if eos:
    raise UserError(
      f"data.kw.eos: the vocabulary {tokens!r} ends texts with '</s>'; remove "
      'the entry'
    )
  if tokens == 'bytes':
    _refuse_size(size, tokens)
    return vocabulary.Bytes()
  size = _MOST_WORDS if size is None else size
  if tokens == 'pieces':
    return pretrained.learnt(lines, size)
  return vocabulary.Words(words_lib.learn(lines, size, tokens), tokens)


def _refuse_size(size, tokens):
  if size is not None:
    raise UserError(
      f'data.kw.vocabulary: {tokens!r} says itself how many tokens there are; '
      'remove the entry'
    )
