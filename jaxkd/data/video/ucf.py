"""The folders and lists of UCF-101, as it is published."""

from collections.abc import Iterator
from pathlib import Path

from jaxkd.data import folders
from jaxkd.data.images import image_files
from jaxkd.errors import UserError, unknown

# The folders of its videos and of its splits.
_VIDEOS, _LISTS = 'UCF-101', 'ucfTrainTestlist'


def is_laid_out(root: Path) -> bool:
  """Whether a folder is laid out as UCF-101 is."""
  return (root / _LISTS).is_dir()


def check_has_lists(root: Path) -> None:
  """Refuses the videos of UCF-101 without the lists of its splits.

  Split at random, clips of one recording would be in train and test.

  Raises:
    UserError: a folder of that name without folders of splits, or one that it
      is in.
  """
  top = root
  if not (root / _VIDEOS).is_dir():
    split = folders.splits(image_files.classes(root), where=str(root))
    if split or root.absolute().name != _VIDEOS:
      return
    top = root.absolute().parent
  if is_laid_out(top):
    raise UserError(
      f'data.source: {root} has the videos of UCF-101, whose splits are beside '
      f'it in {_LISTS}; give {top}, the folder of both'
    )
  raise UserError(
    f'data.source: {top} has {_VIDEOS}, and beside it no {_LISTS} with its '
    'splits; unpack UCF101TrainTestSplits-RecognitionTask.zip there, or rename '
    f'{_VIDEOS}'
  )


def read(
  root: Path, fold: int
) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
  """The classes of UCF-101, and the files of a fold with their labels.

  The videos are in ``UCF-101/CLASS`` or ``CLASS``, the lists of the folds in
  ``ucfTrainTestlist``, as they are published.

  Args:
    root: the folder of both.
    fold: from 1 to 3.

  Raises:
    UserError: a list or a video that is missing, a line that is damaged, or a
      class or a video that is there twice.
  """
  names, found, seen = {}, {}, {}
  file = root / _LISTS / 'classInd.txt'
  for where, (number, name) in _lines(file, 'NUMBER CLASS'):
    if number != str(len(names) + 1):
      raise _wrong(
        where,
        f'has the number {number!r} and should have {len(names) + 1}, since '
        'classes are numbered from 1 on',
      )
    if name in names:
      raise _wrong(where, f'names the class {name!r} again')
    names[name] = int(number) - 1
  top = root / _VIDEOS if (root / _VIDEOS).is_dir() else root
  for split, form in (('train', 'CLASS/FILE NUMBER'), ('test', 'CLASS/FILE')):
    found[split] = []
    file = root / _LISTS / f'{split}list{fold:02d}.txt'
    for where, (name, *number) in _lines(file, form):
      path = top / name
      own = path.parent.name
      if own not in names:
        raise unknown('class', own, names, f'data.source: {where}')
      label = names[own]
      if number not in ([], [str(label + 1)]):
        raise _wrong(
          where, f'gives {own} the number {number[0]}, and not {label + 1}'
        )
      if not path.is_file():
        raise _wrong(where, f'names {name}, and there is no file {path}')
      if path in seen:
        raise _wrong(where, f'names {name}, and so does {seen[path]}')
      seen[path] = where
      found[split].append((path, label))
  return list(names), found


def _lines(file: Path, form: str) -> Iterator[tuple[str, list[str]]]:
  """Where each line of a list of UCF-101 is, for errors, and its words.

  Args:
    file: the list.
    form: what the words are, for errors.

  Raises:
    UserError: a file that cannot be read, or a line of more or fewer words.
  """
  try:
    lines = file.read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'data.source: cannot read {file}, a list of UCF-101: '
      f'{getattr(error, "strerror", None) or error}'
    ) from error
  for number, line in enumerate(lines, start=1):
    found, where = line.split(), f'line {number} of {file}'
    if found and len(found) != len(form.split()):
      raise _wrong(where, f'is {line!r} and should be {form}')
    if found:
      yield where, found


def _wrong(where: str, what: str) -> UserError:
  return UserError(
    f'{where} {what}; repair it, or fetch the lists again', entry='data.source'
  )
