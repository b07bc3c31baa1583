"""Pieces of words, which several languages share.

Kudo and Richardson, `SentencePiece <https://arxiv.org/abs/1808.06226>`_, 2018;
the pieces are those of byte pair encoding (Sennrich et al., `Neural Machine
Translation of Rare Words with Subword Units
<https://arxiv.org/abs/1508.07909>`_, 2016).
"""

import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxkd import lookup
from jaxkd.data.text.tokens import BOS, EOS, PAD, UNK
from jaxkd.errors import UserError

SPACE = '▁'  # as SentencePiece writes it
MOST_LINES = 100_000  # that are learnt from
_AS_WRITTEN = {'normalization_rule_name': 'identity'}
_LOSSLESS = {
  **_AS_WRITTEN,
  'add_dummy_prefix': False,
  'byte_fallback': True,
  'remove_extra_whitespaces': False,
  'user_defined_symbols': ['\n'],
}


class Tokenizer(NamedTuple):
  """How text becomes tokens.

  Attributes:
    pieces: what each token stands for; `PAD`, `UNK`, `BOS` and `EOS` for
      nothing.
    model: SentencePiece's, serialised.
  """

  pieces: tuple[str, ...]
  model: bytes

  def encode(self, lines: Sequence[str]) -> list[list[int]]:
    """The tokens of each line, without a beginning or an end."""
    return _processor(self.model).encode(list(lines))


def learn(
  lines: Sequence[str],
  size: int,
  lossless: bool = False,
  *,
  normalize: bool = True,
) -> Tokenizer:
  """Pieces of which the lines have few: learnt in memory, always the same.

  Digits are pieces of their own. Of more than `MOST_LINES` lines, some at equal
  distances are learnt from.

  Args:
    lines: text of all languages.
    size: number of pieces, with those that are no words.
    lossless: whether spaces and line feeds are kept as they are, and rare
      characters become their bytes, which are 256 of the pieces.
    normalize: whether characters that mean the same become one, as '½' and
      '1⁄2' (NFKC); never where pieces are lossless.

  Raises:
    UserError: fewer pieces than characters, or more than there can be, or the
      package is not installed.
  """
  spm = package()
  model = io.BytesIO()
  chosen = lines[:: -(-len(lines) // MOST_LINES) or 1]
  try:
    spm.SentencePieceTrainer.train(
      sentence_iterator=iter(chosen),
      model_writer=model,
      model_type='bpe',
      vocab_size=size,
      character_coverage=1.0,
      split_digits=True,
      max_sentence_length=max(10, 1 + max(len(x.encode()) for x in chosen)),
      pad_id=PAD,
      unk_id=UNK,
      bos_id=BOS,
      eos_id=EOS,
      pad_piece='<pad>',
      minloglevel=2,
      **(_LOSSLESS if lossless else {} if normalize else _AS_WRITTEN),
    )
  except (RuntimeError, ValueError, OSError) as error:
    most = re.search(r'value <= (\d+)', str(error))
    least = re.search(r'\d+ vs (\d+)', str(error))
    use = 'more pieces than characters'
    if most:
      use = f'{most[1]} at most, or leave more lines in train'
    elif least:
      use = f'{least[1]} or more'
    raise UserError(
      f'data.kw.vocabulary: {size} pieces cannot be made of {len(lines):,} '
      f'lines with {len({*"".join(chosen)})} different characters; use {use}'
    ) from error
  made = _processor(model.getvalue())
  pieces = tuple(made.id_to_piece([*range(made.get_piece_size())]))
  return Tokenizer(pieces, model.getvalue())


def text(tokens: Iterable[int], pieces: Sequence[str]) -> str:
  """The text of tokens up to the first `EOS`.

  Args:
    tokens: their numbers.
    pieces: what each stands for, as `Tokenizer.pieces`.
  """
  found = []
  for token in tokens:
    if token == EOS:
      break
    if token not in (PAD, BOS):
      found.append(pieces[token])
  return ''.join(found).replace(SPACE, ' ').strip()


def package():
  """The package sentencepiece."""
  return lookup.package('sentencepiece', extra='text', at='data.source')


def _processor(model: bytes):
  return package().SentencePieceProcessor(model_proto=model)
