"""Parallel texts: a line of one file is the translation of one of the other."""

from collections.abc import Sequence
from pathlib import Path

from jaxkd.data import folders
from jaxkd.data.text import text_files
from jaxkd.data.text.sentences import Pair, is_blank
from jaxkd.errors import UserError


def read(folder: Path, languages: Sequence[str]) -> dict[str, list[Pair]]:
  """The pairs of each split that is there.

  Args:
    folder: with the files train.LANGUAGE, test.LANGUAGE and perhaps
      validation.LANGUAGE, UTF-8, of both languages. Splits may go by their
      other names, as in `jaxkd.data.folders`.
    languages: of the sources and of the translations, as the files have them.

  Raises:
    UserError: files that are missing, are empty, are not UTF-8, have empty
      lines or carriage returns within lines, are not of the same number of
      lines, or are two for one split.
  """
  if not folder.is_dir():
    raise UserError(f'data.source: there is no folder {folder}')
  stems = {
    path.name.removesuffix(f'.{language}')
    for path in folders.listed(folder)
    for language in languages
    if path.name.endswith(f'.{language}') and path.is_file()
  }
  names = {'train': 'train', 'test': 'test'}
  names |= folders.splits(stems, where=str(folder))
  splits = {}
  for split in ('train', 'validation', 'test'):
    if split not in names:
      continue
    texts = [folder / f'{names[split]}.{language}' for language in languages]
    for file in texts:
      if not file.is_file():
        raise UserError(
          f'data.source: there is no file {file}; a folder of parallel texts '
          f'in {" and ".join(languages)} has train.{languages[0]}, '
          f'train.{languages[1]}, test.{languages[0]}, test.{languages[1]} and '
          'perhaps validation of both'
        )
    sides = [_lines(file) for file in texts]
    if len(sides[0]) != len(sides[1]):
      raise UserError(
        f'data.source: {texts[0]} has {len(sides[0])} lines and {texts[1]} '
        f'{len(sides[1])}; line n of one must be the translation of line n of '
        'the other'
      )
    splits[split] = [*zip(*sides, strict=True)]
  return splits


def _lines(file: Path) -> list[str]:
  content = text_files.content(file, 'write a sentence in each of its lines')
  # Not splitlines, which splits at characters that text may hold.
  lines = content.removesuffix('\n').split('\n')
  for i, line in enumerate(lines):
    if is_blank(line):
      raise UserError(
        f'data.source: line {i + 1} of {file} is empty; remove it from both '
        'files'
      )
    if '\r' in line.strip():
      raise UserError(
        f'data.source: line {i + 1} of {file} has a carriage return within it; '
        'end lines by a line feed'
      )
  return [line.strip() for line in lines]
