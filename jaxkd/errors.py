"""One kind of error for everything that a user can put right."""

import contextlib
import difflib
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


class UserError(ValueError):
  """A mistake in a config, a flag, a file or the data.

  The message is one sentence that names the entry at fault and says what to
  do; the scripts print it without a traceback and exit with code 2.
  """


def unknown(
  kind: str, name: str, known: Iterable[str], at: str = ''
) -> UserError:
  """The error for a name that is not there, with the nearest known ones.

  Args:
    kind: what the name should have named, e.g. ``'loss'``.
    name: the name given.
    known: the names there are.
    at: the config entry that held it, e.g. ``'distill.soft.loss'``.
  """
  known = sorted(map(str, known))
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  where = f'{at}: ' if at else ''
  did = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
  return UserError(
    f'{where}there is no {kind} {name!r}{did} '
    f'(known: {", ".join(known) or "none"})'
  )


def several(values: Sequence[Any], most: int = 10) -> str:
  """Values in a sentence, the first ``most`` of them if they are more."""
  more = len(values) - most
  said = ', '.join(map(str, values[:most]))
  return f'{said} and {more:,} more' if more > 0 else said


@contextlib.contextmanager
def blamed(at: str) -> Iterator[None]:
  """Whatever goes wrong inside is put down to an entry of the config.

  For code that runs what a user has named or written: an exception of any
  kind becomes a `UserError` that says where it came from. The scripts print
  the whole of it with --verbosity=1.

  Args:
    at: the entry, e.g. ``'students.student'``.
  """
  try:
    yield
  except UserError:
    raise
  except SyntaxError as error:  # which says itself where it is
    raise UserError(f'{at}: {type(error).__name__}: {error}') from error
  except (Exception, SystemExit) as error:
    said = (str(error).strip().splitlines() or ['without a word'])[0]
    raise UserError(
      f'{at}: {type(error).__name__}: {said} ({_place(error)})'
    ) from error


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
  """A `UserError` raised inside says first where it arose.

  Args:
    where: what comes before its message, e.g. ``'teachers.main.'``.
  """
  try:
    yield
  except UserError as error:
    if str(error).startswith(where):
      raise
    raise UserError(f'{where}{error}') from error


@contextlib.contextmanager
def writing(directory: str | os.PathLike) -> Iterator[None]:
  """Says in one sentence that the disk is full or closed to us."""
  try:
    yield
  except (OSError, ValueError) as error:
    code = getattr(error, 'errno', None)
    if code is None:  # TensorStore's errors are ValueErrors that quote it
      quoted = re.search(r"os_error_code='(\d+)'", str(error))
      if not quoted:
        raise
      code = int(quoted[1])
    raise UserError(
      f'{directory} cannot be written: {os.strerror(code)}; make room there '
      'or choose another directory'
    ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
  """A draft to write, which takes the place of a file when it is whole.

  The folder is made where there is none; `writing` says what goes wrong.
  """
  path = Path(path)
  draft = path.with_name(f'.{path.name}.draft')
  with writing(path.parent):
    path.parent.mkdir(parents=True, exist_ok=True)
    yield draft
    draft.replace(path)


def _place(error: BaseException) -> str:
  """The last line of a traceback that is not deep inside a package."""
  frames = traceback.extract_tb(error.__traceback__)
  ours = [f for f in frames if 'site-packages' not in f.filename] or frames
  return f'{Path(ours[-1].filename).name}, line {ours[-1].lineno}'
