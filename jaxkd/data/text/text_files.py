"""Texts: documents from files of text or of JSON Lines."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxkd.data import folders
from jaxkd.data.text.conversations import FIELDS, Document, Format
from jaxkd.errors import UserError

JSON_LINES = '.jsonl'


def read(path: Path, form: Format) -> dict[str, list[Document]]:
  """The documents of each split, or of 'all' where there are no splits.

  In a folder, files or folders called train, test and perhaps validation are
  the splits. File names may have something in front, as ``ptb.train.txt``, and
  splits their other names, as in `jaxkd.data.folders`. A file of JSON Lines has
  a document in each line, any other file in a folder is one. Of a file that is
  not in a folder, the parts between blank lines are documents.

  Args:
    path: a file or a folder.
    form: what the objects in JSON Lines have.

  Raises:
    UserError: files that are missing, are not UTF-8, or have no text; lines
      that are no JSON objects of that form.
  """
  if path.is_file():
    if path.suffix == JSON_LINES:
      return {'all': list(_documents(path, form))}
    return {'all': _parts(_plain(path, form))}
  if not path.is_dir():
    raise UserError(f'data.source: there is no file or folder {path}')
  named: dict[str, list[Path]] = {}
  for entry in folders.listed(path):
    named.setdefault(_split_name(entry), []).append(entry)
  found = folders.splits(named, where=str(path))
  for split, name in found.items():
    if len(named[name]) > 1:
      raise UserError(
        f'data.source: {path} has '
        f'{" and ".join(entry.name for entry in named[name])}, which are the '
        f'{split} split alike; put them into one folder called {name}'
      )
  chosen = {split: named[name][0] for split, name in found.items()}
  return {
    split: [
      document for file in _files(entry) for document in _documents(file, form)
    ]
    for split, entry in (chosen or {'all': path}).items()
  }


def _split_name(path: Path) -> str:
  """What may say which split a file or a folder is."""
  return path.name if path.is_dir() else path.stem.rpartition('.')[2]


def _files(path: Path) -> list[Path]:
  found = folders.below(path) if path.is_dir() else [path]
  if not found:
    raise UserError(f'data.source: the folder {path} has no file')
  return found


def _documents(file: Path, form: Format) -> Iterator[Document]:
  if file.suffix != JSON_LINES:
    yield _plain(file, form)
    return
  for where, made in json_lines(file):
    yield form.read(made, f'data.source: {where}')


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
  """Where each line of a file is, for errors, and what JSON it holds.

  Raises:
    UserError: as `content`, or a line that is no JSON.
  """
  for number, line in enumerate(content(file).split('\n'), 1):
    if not line.strip():
      continue
    where = f'line {number} of {file}'
    try:
      yield where, json.loads(line)
    except (ValueError, RecursionError) as error:
      raise UserError(
        f'data.source: {where} is not JSON: {error}; repair it'
      ) from error


def _plain(file: Path, form: Format) -> str:
  """The text of a file of text."""
  if form.kind != 'text':
    raise UserError(
      f'data.source: {file} is text without fields, so that it has no answers; '
      f'give JSON Lines ({JSON_LINES}), or remove data.kw.format'
    )
  if form.fields != FIELDS['text']:
    raise UserError(
      f'data.kw.field: {file} is text without fields; give JSON Lines '
      f'({JSON_LINES}), or remove the entry'
    )
  whole = content(file)
  if sum(map(_is_object, whole.split('\n', 2)[:2])) == 2:
    raise UserError(
      f'data.source: {file} has objects of JSON in its lines, and a file of '
      f'this name is read as it is; rename it to {file.stem}{JSON_LINES}'
    )
  return whole.replace('\r\n', '\n').strip('\n')


def _is_object(line: str) -> bool:
  try:
    return isinstance(json.loads(line), dict)
  except (ValueError, RecursionError):
    return False


def _parts(whole: str) -> list[str]:
  """The parts of a text between blank lines."""
  found = itertools.groupby(whole.split('\n'), lambda line: bool(line.strip()))
  return ['\n'.join(part) for is_text, part in found if is_text]


def lines(document: Document) -> tuple[str, ...]:
  """The lines of a document that are not blank, without spaces around them."""
  said = [document] if isinstance(document, str) else [x for _, x in document]
  # Not splitlines, which splits at characters that text may hold.
  stripped = (line.strip() for text in said for line in text.split('\n'))
  return tuple(line for line in stripped if line)


def content(
  file: Path, if_empty: str = 'write text into it, or remove it'
) -> str:
  """The text of a file, which is UTF-8.

  Args:
    file: its path.
    if_empty: what to do if there is no text in it, for the error.

  Raises:
    UserError: a file that cannot be read, is no text, or is empty.
  """
  try:
    raw = file.read_bytes()
  except OSError as error:
    raise UserError(
      f'data.source: cannot read {file}: {error.strerror}'
    ) from error
  try:
    found = raw.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = raw[: error.start].count(b'\n') + 1
    raise UserError(
      f'data.source: line {line} of {file} is not UTF-8; convert the file, or '
      'remove it if it is no text'
    ) from error
  if not found.strip():
    raise UserError(f'data.source: {file} is empty; {if_empty}')
  return found
