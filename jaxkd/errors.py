"""One kind of error for everything that a user can put right; and stopping."""

import contextlib
import difflib
import os
import re
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


class UserError(ValueError):
  """A mistake in a config, a flag, a file or the data.

  The message is one sentence that names the entry at fault and says what to
  do; the scripts print it without a traceback and exit with code 2.

  Args:
    sentence: what is wrong and what to do, after the entry if that is part of
      the text: ``UserError('train.steps: 0 should be 1 or more')``.
    entry: the config entry, where code has to know it:
      ``UserError('0 should be 1 or more', entry='train.steps')``.

  Attributes:
    sentence: as above.
    entry: as above; empty where the sentence itself may name it.
  """

  def __init__(self, sentence: str = '', *, entry: str = ''):
    super().__init__(f'{entry}: {sentence}' if entry else sentence)
    self.sentence, self.entry = sentence, entry


class Stopped(Exception):
  """The run was asked to stop, and did so after saving its state."""


class UnknownName(UserError):
  """A name that is not there.

  Attributes:
    kind: what the name should have named, e.g. ``'layer'``.
    name: the name.
  """

  kind = name = ''


def unknown(
  kind: str, name: str, known: Iterable[str], at: str = ''
) -> UnknownName:
  """The error for a name that is not there, with the nearest known ones.

  Args:
    kind: what the name should have named, e.g. ``'loss'``.
    name: the name given.
    known: the names there are.
    at: the config entry that held it, e.g. ``'distill.soft.loss'``.
  """
  known = sorted(map(str, known))
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  did = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
  # Whoever mistyped a name needs the nearest; whoever guessed, all of them.
  listed = several(known, 20 if near else 200) or 'none'
  error = UnknownName(
    f'there is no {kind} {name!r}{did} (known: {listed})', entry=at
  )
  error.kind, error.name = kind, name
  return error


def several(values: Sequence[Any], most: int = 10) -> str:
  """Values in a sentence, the first ``most`` of them if they are more."""
  more = len(values) - most
  said = ', '.join(map(str, values[:most]))
  return f'{said} and {more:,} more' if more > 0 else said


def first_line(error: BaseException) -> str:
  """What an exception says of itself, in its first line."""
  return (str(error).strip().splitlines() or ['without a word'])[0]


def summary(error: BaseException) -> str:
  """The kind of an exception, and its first line."""
  return f'{type(error).__name__}: {first_line(error)}'


@contextlib.contextmanager
def blamed(at: str) -> Iterator[None]:
  """Re-raises any exception as a `UserError` that names the config entry.

  For code that runs what a user has named or written. The message says where
  the exception came from; the scripts print the whole of it with --verbosity=1.

  Args:
    at: the entry, e.g. ``'students.student'``.
  """
  try:
    yield
  except (UserError, Stopped):
    raise
  except SyntaxError as error:  # which says itself where it is
    raise UserError(f'{at}: {type(error).__name__}: {error}') from error
  except (Exception, SystemExit) as error:
    said = f'{summary(error)} ({_place(error)})'
    raise UserError(said, entry=at) from error


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
  """Re-raises a `UserError` with the part of the config that it is about.

  Args:
    where: ``'teachers.main.'``, the part that the entry of the error is in; or
      ``'distill.hint.at: '``, the entry of an error that has none. An error
      that names that entry, or one inside it, is left as it is.
  """
  at = where.rstrip('.: ')
  try:
    yield
  except UserError as error:
    if not at or str(error).startswith((f'{at}.', f'{at}: ')):
      raise
    if where.endswith('.') and error.entry:
      raise _moved(error, error.sentence, where + error.entry) from error
    if where.endswith('.'):
      raise _moved(error, f'{where}{error}', '') from error
    raise _moved(error, str(error), at) from error


def _moved(error: UserError, sentence: str, entry: str) -> UserError:
  """The same error, put down to another entry."""
  made = type(error)(sentence, entry=entry)
  made.__dict__ |= {k: v for k, v in vars(error).items() if k not in vars(made)}
  return made


@contextlib.contextmanager
def writing(where: str | os.PathLike) -> Iterator[None]:
  """Says in one sentence that a disk or a bucket is full or closed to us.

  Args:
    where: a file or a folder. In a bucket (``gs://...``) any exception means
      that; the clients of buckets have dozens of their own.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    if is_remote(where):
      raise UserError(
        f'{os.fspath(where)} cannot be written: {said_of(error)}; look at the '
        'bucket, its quota and your rights there, or choose another folder'
      ) from error
    code = _number_of(error)
    if code is None:
      raise
    raise UserError(
      f'{where} cannot be written: {os.strerror(code)}; make room there '
      'or choose another directory'
    ) from error


@contextlib.contextmanager
def reading(where: str | os.PathLike) -> Iterator[None]:
  """Says in one sentence that a bucket cannot be read.

  What does not exist is left a `FileNotFoundError`, what is no text a
  `UnicodeDecodeError`, and errors of local disks as they are.
  """
  try:
    yield
  except (UserError, FileNotFoundError, UnicodeDecodeError):
    raise
  except Exception as error:
    if not is_remote(where):
      raise
    raise UserError(
      f'{os.fspath(where)} cannot be read: {said_of(error)}; look at the '
      'bucket and your rights there, or choose another folder'
    ) from error


def _number_of(error: Exception) -> int | None:
  """The number of an error of the operating system; None if it is none."""
  if isinstance(error, OSError):
    return error.errno
  # Errors of TensorStore and of safetensors quote it.
  quoted = re.search(r"os_error_code='(\d+)'|\(os error (\d+)\)", str(error))
  return int(quoted[1] or quoted[2]) if quoted else None


def is_remote(where: str | os.PathLike) -> bool:
  """Whether a path is in a bucket of Google Cloud Storage."""
  return os.fspath(where).startswith('gs://')


def said_of(error: Exception) -> str:
  """What an exception says of itself, short and without a last full stop."""
  # TensorStore appends pages of its specification in brackets.
  said = str(error).partition(' [')[0].strip() or type(error).__name__
  if isinstance(error, FileNotFoundError) and error.errno is None:
    said = f'{said} is not there'  # of a client of buckets, which says no more
  return textwrap.shorten(said, 300).rstrip('.')


def _place(error: BaseException) -> str:
  """The last line of a traceback that is not deep inside a package."""
  frames = traceback.extract_tb(error.__traceback__)
  ours = [f for f in frames if 'site-packages' not in f.filename] or frames
  return f'{Path(ours[-1].filename).name}, line {ours[-1].lineno}'
