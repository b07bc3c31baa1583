"""Vocabularies from files: of the package tokenizers, and of SentencePiece.

Many tokenizers put a space before a text. Here each has a second form that does
not, for text that goes on. So the tokens of a prompt, and behind them those of
the answer, are the tokens of both, and no token has characters of both.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd import files, lookup
from jaxkd.data.text import tokenizer as tokenizer_lib
from jaxkd.data.text.tokenizer import SPACE
from jaxkd.data.text.tokens import Special
from jaxkd.data.text.vocabulary import Vocabulary
from jaxkd.errors import UserError, unknown

AT = 'data.kw.tokens'
FILE, SAID = 'tokenizer.json', 'tokenizer_config.json'
TEMPLATE = 'chat_template.jinja'
MOST = 2**24  # tokens
ROLES = ('pad', 'bos', 'eos', 'unk')
_SAMPLE = (
  'One  line.\n  Another'  # tells whether spaces and line feeds are kept
)


class Pieces(Vocabulary):
  """A vocabulary of SentencePiece."""

  def __init__(self, model: bytes, name: str, eos: str = ''):
    """Reads a model.

    Args:
      model: serialised.
      name: see `Vocabulary`.
      eos: the token that ends a text; by default what the model says.

    Raises:
      UserError: it is no model, or nothing in it ends a text.
    """
    package = tokenizer_lib.package()
    try:
      first = package.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, TypeError) as error:
      raise UserError(
        f'{AT}: {name!r} is no model of SentencePiece; name another file'
      ) from error
    numbers = range(first.get_piece_size())
    if not numbers:
      raise UserError(f'{AT}: {name!r} is empty; name another file')
    pieces = first.id_to_piece([*numbers])
    bytes_ = np.array([first.is_byte(i) for i in numbers])
    empty = np.array(
      [first.is_control(i) or first.is_unknown(i) for i in numbers]
    )
    literal = [len(piece.replace(SPACE, ' ').encode()) for piece in pieces]
    found = {role: getattr(first, f'{role}_id')() for role in ROLES}
    found = {role: i for role, i in found.items() if i >= 0}
    special, notes = _completed(found, {}, pieces, eos, name)
    if bytes_.any():
      special = special._replace(unk=None)  # bytes write all else
    literal = np.where(bytes_, 1, np.where(empty, 0, literal))
    super().__init__(name, pieces, literal, special, notes)
    self.begins = 'bos' in found
    # Its parser is here, whatever version of it protobuf has.
    from sentencepiece import sentencepiece_model_pb2

    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    parsed.normalizer_spec.add_dummy_prefix = False
    goes_on = package.SentencePieceProcessor(
      model_proto=parsed.SerializeToString()
    )
    self._processors = first, goes_on
    self.notes += tuple(_changes(self))

  def decode(self, tokens):
    return self._processors[0].decode([int(token) for token in tokens])

  def _ids(self, texts, continues, markup):
    del markup
    found = self._processors[continues].encode([*texts])
    return [np.array(own, np.int32) for own in found]

  def _ends(self, text, continues, markup):
    del markup
    processor = self._processors[continues]
    found = processor.encode(text, return_type='offset_mapping')
    return np.array([end for _, end in found['offsets']], np.int64)


class HuggingFace(Vocabulary):
  """A vocabulary of the package tokenizers: a ``tokenizer.json``.

  Attributes:
    template: the chat template beside it, in Jinja; empty for none.
    spelt: role of a special token -> how it is written, for the template.
  """

  def __init__(self, file: Path, name: str, eos: str = ''):
    """Reads the file, and what is said beside it about special tokens.

    Args:
      file: of the tokenizer.
      name: see `Vocabulary`.
      eos: the token that ends a text; by default what the files say.

    Raises:
      UserError: files that are missing or broken, or nothing that ends a text.
    """
    package = lookup.package('tokenizers', extra='text', at=AT)
    said = _json(file)
    try:
      self._tokenizers = tuple(
        package.Tokenizer.from_str(json.dumps(form))
        for form in (said, _going_on(said))
      )
    except Exception as error:  # of no class of its own
      raise UserError(
        f'{AT}: {file} is no tokenizer that the package tokenizers reads: '
        f'{_first_line(error)}; repair it, or name another file'
      ) from error
    first = self._tokenizers[0]
    for each in self._tokenizers:
      each.no_truncation()
      each.no_padding()
    numbers = first.get_vocab(with_added_tokens=True)
    size = 1 + max(numbers.values(), default=-1)
    if not 0 < size <= MOST:
      raise UserError(
        f'{AT}: the largest token in {file} is {size - 1:,}; tokens must be '
        f'numbers from 0 to {MOST - 1:,}'
      )
    pieces = [''] * size
    for piece, number in numbers.items():
      pieces[number] = piece
    added = first.get_added_tokens_decoder()
    model = said.get('model') or {}
    of_bytes = '"ByteLevel"' in json.dumps(
      [said.get('pre_tokenizer'), said.get('decoder')]
    )
    literal = np.array([_length(piece, of_bytes) for piece in pieces])
    for number, token in added.items():
      literal[number] = len(token.content.encode())
    self._special = np.array([i for i, x in added.items() if x.special], int)
    self.spelt = _spelt(file.parent)
    config = _json(file.parent / 'config.json', {})
    other = {role: _first(config.get(f'{role}_token_id')) for role in ROLES}
    found = {
      role: _number(piece, pieces, file)
      for role, piece in self.spelt.items()
      if role != 'unk'
    }
    if unk := _unknown(model, pieces):
      found['unk'] = _number(unk, pieces, file)
    special, notes = _completed(found, other, pieces, eos, name)
    if model.get('byte_fallback') or 'unk' not in found:
      special = special._replace(unk=None)
    super().__init__(name, pieces, literal, special, notes)
    self.begins = 'bos' in found
    self.template = _template(file.parent)
    self.notes += tuple(_changes(self))

  def decode(self, tokens):
    own = [int(token) for token in tokens]
    return self._tokenizers[0].decode(own, skip_special_tokens=True)

  def _ids(self, texts, continues, markup):
    tokenizer = self._tokenizers[continues]
    tokenizer.encode_special_tokens = not markup
    found = tokenizer.encode_batch_fast([*texts], add_special_tokens=False)
    return [np.array(own.ids, np.int32) for own in found]

  def _ends(self, text, continues, markup):
    tokenizer = self._tokenizers[continues]
    tokenizer.encode_special_tokens = not markup
    found = tokenizer.encode(text, add_special_tokens=False)
    return np.array([end for _, end in found.offsets], np.int64)

  def _is_markup(self, tokens):
    return np.isin(tokens, self._special)


def learnt(lines: Sequence[str], size: int) -> Pieces:
  """Pieces of SentencePiece that keep spaces, and bytes for rare characters.

  Args:
    lines: the text.
    size: number of tokens: four are special, 256 are bytes, one is the line
      feed.

  Raises:
    UserError: too few tokens, or more than the text has pieces.
  """
  made = tokenizer_lib.learn(lines, size, lossless=True)
  return Pieces(made.model, 'pieces')


def sentencepiece(path: str, eos: str = '') -> Pieces:
  """The vocabulary of a model of SentencePiece; see `Pieces`.

  Args:
    path: of the file.
    eos: see `Pieces`.

  Raises:
    UserError: a file that is missing or no such model.
  """
  file = files.path(path, at=AT)
  try:
    model = file.read_bytes()
  except OSError as error:
    raise UserError(f'{AT}: cannot read {file}: {error.strerror}') from error
  if not model:
    raise UserError(f'{AT}: {file} is empty; name another file')
  files.refuse_pointer(file, at=AT)
  return Pieces(model, f'sentencepiece:{path}', eos)


def tokenizer(path: str, eos: str = '') -> HuggingFace:
  """The vocabulary of a ``tokenizer.json``, or of a folder with one.

  Args:
    path: of the file or the folder.
    eos: see `HuggingFace`.

  Raises:
    UserError: as `HuggingFace`.
  """
  file = files.path(path, at=AT)
  if file.is_dir():
    others = sorted(file.glob('*.model'))
    if not (file / FILE).is_file() and others:
      raise UserError(
        f'{AT}: {file} has no {FILE}; write sentencepiece:{others[0]}'
      )
    file /= FILE
  return HuggingFace(file, f'tokenizer:{path}', eos)


def _json(file: Path, missing: Any = None) -> dict[str, Any]:
  """What a file of JSON holds; `missing`, if it is given, if it is not there.

  Raises:
    UserError: a file that is missing, or no object of JSON.
  """
  if missing is not None and not file.is_file():
    return missing
  try:
    made = json.loads(file.read_bytes())
  except OSError as error:
    raise UserError(f'{AT}: cannot read {file}: {error.strerror}') from error
  except ValueError as error:
    files.refuse_pointer(file, at=AT)
    raise UserError(
      f'{AT}: {file} is not JSON: {_first_line(error)}; repair it, or name '
      'another file'
    ) from error
  if not isinstance(made, dict):
    raise UserError(f'{AT}: {file} holds no object of JSON; name another file')
  return made


def _going_on(said: Mapping[str, Any]) -> dict[str, Any]:
  """A tokenizer that puts nothing before a text."""
  steps = ('normalizer', 'pre_tokenizer')
  return {k: _bare(v) if k in steps else v for k, v in said.items()}


def _bare(node: Any) -> Any:
  if isinstance(node, list):
    return [x for x in map(_bare, node) if x is not None]
  if not isinstance(node, dict):
    return node
  made = {key: _bare(value) for key, value in node.items()}
  if made.get('type') == 'Prepend':
    return None
  if made.get('type') == 'Metaspace':
    made['prepend_scheme'] = 'never'
  if 'add_prefix_space' in made:
    made['add_prefix_space'] = False
  return made


def _length(piece: str, of_bytes: bool) -> int:
  """Bytes of a piece; in a byte-level vocabulary each character is one."""
  if of_bytes:
    return len(piece)
  if len(piece) == 6 and piece.startswith('<0x') and piece.endswith('>'):
    return 1
  return len(piece.replace(SPACE, ' ').encode())


def _spelt(folder: Path) -> dict[str, str]:
  """How special tokens are written, by what is beside a tokenizer."""
  found = {}
  for name in ('special_tokens_map.json', SAID):
    said = _json(folder / name, {})
    for role in ROLES:
      token = said.get(f'{role}_token')
      token = token.get('content') if isinstance(token, dict) else token
      if isinstance(token, str) and token:
        found[role] = token
  return found


def _template(folder: Path) -> str:
  file = folder / TEMPLATE
  if file.is_file():
    return files.text(file, at=AT)
  said = _json(folder / SAID, {}).get('chat_template')
  if isinstance(said, list):  # several, by name
    own = [x for x in said if isinstance(x, Mapping)]
    named = {x.get('name'): x.get('template') for x in own}
    said = named.get('default')
  if not isinstance(said, str | None):
    raise UserError(
      f'{AT}: chat_template in {folder / SAID} is no text; repair it'
    )
  return said or ''


def _unknown(model: Mapping[str, Any], pieces: Sequence[str]) -> str:
  """The piece that a model gives for what it cannot write; empty for none."""
  number = model.get('unk_id')
  if isinstance(number, int) and 0 <= number < len(pieces):
    return pieces[number]
  return model.get('unk_token') or ''


def _number(piece: str, pieces: Sequence[str], file: Path) -> int:
  if piece not in pieces:
    raise UserError(
      f'{AT}: {file.parent} names the special token {piece!r}, which {file} '
      'does not have; name another file'
    )
  return pieces.index(piece)


def _completed(
  found: Mapping[str, int],
  other: Mapping[str, int | None],
  pieces: Sequence[str],
  eos: str,
  name: str,
) -> tuple[Special, list[str]]:
  """All special tokens, and notes on those that others stand in for.

  Args:
    found: role -> token, of the tokenizer itself.
    other: likewise, as the model beside it says.
    pieces: what tokens stand for.
    eos: the piece that ends a text; empty for what is found.
    name: of the vocabulary.
  """
  if eos and eos not in pieces:
    raise unknown(f'token of {name}', eos, pieces, 'data.kw.eos')
  other = {
    role: i
    for role, i in other.items()
    if i is not None and 0 <= i < len(pieces)
  }
  given = {'eos': pieces.index(eos)} if eos else {}
  known = {**other, **found, **given}
  if 'eos' not in known:
    raise UserError(
      f'data.kw.eos: {name!r} does not say which token ends a text; write the '
      'token'
    )
  bos = found.get('bos', other.get('bos', known['eos']))
  pad = known.get('pad', known.get('unk', known['eos']))
  notes = [
    f'{name} has no token of its own {what}; {pieces[token]} stands in'
    for role, token, what in (
      ('bos', bos, 'that begins a document'),
      ('pad', pad, 'that fills up'),
    )
    if role not in found
  ]
  return Special(pad, bos, known['eos'], known.get('unk')), notes


def _changes(vocabulary: Vocabulary) -> list[str]:
  ids = vocabulary.encode([_SAMPLE]).tokens
  if vocabulary.decode(ids) == _SAMPLE:
    return []
  return [f'{vocabulary.name} changes characters, spaces or line feeds']


def _first(number: Any) -> int | None:
  """A number; of a list, the first."""
  number = number[0] if isinstance(number, list) and number else number
  return number if isinstance(number, int) else None


def _first_line(error: Exception) -> str:
  return str(error).partition('\n')[0]
