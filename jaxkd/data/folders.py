"""Folders of data: which files in them are data, and of which split."""

import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jaxkd.errors import UserError

SPLITS: Mapping[str, tuple[str, ...]] = {
  'train': ('train', 'training'),
  'validation': ('validation', 'val', 'valid', 'dev'),
  'test': ('test', 'testing'),
}
# What names of splits are often longer by: 'training_set', 'test images'.
_LONGER = re.compile(r'[ _-]?(set|split|data|images?|imgs?|folder|dir)$')
# Files that archives, file servers and file systems add to folders.
_LEFT_BEHIND = {
  '__MACOSX',
  '@eaDir',
  '$RECYCLE.BIN',
  'System Volume Information',
  'lost+found',
  'Thumbs.db',
  'desktop.ini',
}


def is_data(path: Path) -> bool:
  """Whether a file is data by its name: not hidden, nor a system's own."""
  return _is_data(path.name)


def listed(folder: Path) -> list[Path]:
  """The entries of a folder that are data (`is_data`), sorted by name.

  Raises:
    UserError: a folder that cannot be read, or a link that leads nowhere.
  """
  return [Path(folder, entry.name) for entry in _entries(folder)]


def below(top: Path) -> list[Path]:
  """The files in a folder that are data, at any depth, in order.

  Links are followed.

  Raises:
    UserError: as `listed`, or links that form a cycle.
  """
  return [Path(path) for path, _ in walk(top)]


def walk(top: Path) -> Iterator[tuple[str, os.stat_result]]:
  """The files of `below`, as texts, with what the file system says of each."""
  parent = os.path.realpath(os.path.dirname(os.path.abspath(top)))
  above = {parent, *map(str, Path(parent).parents)}
  return _walk(os.fspath(top), frozenset(above))


def _walk(
  folder: str, above: frozenset[str]
) -> Iterator[tuple[str, os.stat_result]]:
  real = os.path.realpath(folder)
  if real in above:
    raise UserError(
      f'data.source: {folder} is a link to {real}, a folder that it is in '
      'itself; remove the link'
    )
  for entry in _entries(folder):
    if entry.is_dir():
      yield from _walk(entry.path, above | {real})
    elif entry.is_file():
      yield entry.path, entry.stat()


def _entries(folder: str | Path) -> list[os.DirEntry]:
  """What is in a folder and is data, sorted by name."""
  try:
    with os.scandir(folder) as opened:
      found = [entry for entry in opened if _is_data(entry.name)]
  except OSError as error:
    raise UserError(
      f'data.source: cannot read the folder {folder}: {error.strerror}'
    ) from error
  found.sort(key=operator.attrgetter('name'))
  for entry in found:
    if entry.is_symlink() and not os.path.exists(entry.path):
      raise UserError(
        f'data.source: {entry.path} is a link to {os.readlink(entry.path)}, '
        'which is not there; repair or remove the link'
      )
  return found


def _is_data(name: str) -> bool:
  return not name.startswith('.') and name not in _LEFT_BEHIND


def check_no_splits(names: Iterable[str], where: str) -> None:
  """Refuses names that read like those of splits and are none that are known.

  Args:
    names: of the folders of classes, or of what is in one.
    where: what has them, for errors.

  Raises:
    UserError: names that read like two splits, such as 'train_set', 'test_set'.
  """
  shorter = {_LONGER.sub('', name.lower()): name for name in sorted(names)}
  alike = [
    [name for short, name in shorter.items() if short in known]
    for known in SPLITS.values()
  ]
  firsts = [own[0] for own in alike if own]
  if len(firsts) > 1:
    raise UserError(
      f'data.source: {where} has the folders {" and ".join(firsts)}, '
      'as if these were classes; the splits are called '
      f'{", ".join(SPLITS)}, and the folders of the classes are in them'
    )


def splits(names: Iterable[str], where: str) -> dict[str, str]:
  """Which of the names stand for which split, whatever their case.

  Args:
    names: of folders, files or splits.
    where: what has them, for errors.

  Returns:
    Split -> name, of `SPLITS` in their order.

  Raises:
    UserError: two names for one split.
  """
  names, found = sorted(names), {}
  for split, known in SPLITS.items():
    own = [name for name in names if name.lower() in known]
    if not own:
      continue
    if len(own) > 1:
      raise UserError(
        f'data.source: {where} has {" and ".join(own)}, which are names of the '
        f'{split} split alike; merge, rename or remove one'
      )
    found[split] = own[0]
  return found
