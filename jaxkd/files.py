"""Paths as people write them, the same in every flag, entry and function."""

import os
import re
from pathlib import Path

from jaxkd.errors import UserError

# 's3://bucket'; a `Path` of it has one slash left.
_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')
_VARIABLE = re.compile(r'\$(?:(\w+)|\{([^}]*)\})')


def path(text: str | os.PathLike, *, at: str) -> Path:
  """The path that a text means: ``~`` and ``$VARIABLE`` are replaced.

  What is relative stays so. Rows and configs keep the text, which means the
  same on another machine, and not what it stands for here.

  Args:
    text: a path on a local disk.
    at: the config entry or the flag that holds it, for errors.

  Raises:
    UserError: a path on a remote store (``scheme://``), a variable that is not
      set, or the home folder of a user who does not exist.
  """
  text = os.fspath(text)
  refuse_remote(text, at=at)
  for names in _VARIABLE.findall(text):
    name = next(filter(None, names), '')
    if not os.environ.get(name):
      raise UserError(
        f'{at}: {text!r} names the environment variable {name!r}, which is not '
        'set or is empty; set it, or write the path itself'
      )
  expanded = os.path.expandvars(text)
  refuse_remote(expanded, at=at)
  try:
    return Path(expanded).expanduser()
  except RuntimeError as error:
    raise UserError(
      f'{at}: {text!r} is in the home folder of a user who is not known here; '
      'write the path itself, or ./~NAME for a folder of that name'
    ) from error


def refuse_remote(text: str, *, at: str) -> None:
  """Refuses ``scheme://...``, which would become a local folder of that name.

  Raises:
    UserError: the text has a scheme.
  """
  scheme = _SCHEME.match(text)
  if scheme and scheme[0].lower() == 'file:/':
    raise UserError(f'{at}: write {text!r} as a path, without file://')
  if scheme:
    raise UserError(
      f'{at}: {text!r} is not on a local disk, and jaxkd reads and writes '
      'local disks only; name a local path, and copy the files from or to the '
      'remote one yourself'
    )
