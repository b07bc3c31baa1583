"""What takes long to make of files, kept in the home folder's cache.

Each is a file of its own, named by all that it was made of. So what was made
of other files is never found, and whoever is cut short leaves nothing behind
that has the name.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging


def name(files: Iterable[Path], *made_by: Any) -> str:
  """Another one if any file was changed, or what is made of them is.

  Files are known by their paths, sizes and times. The time at which the file
  system saw a change is among these: unlike that of the contents, nobody can
  set it back.

  Args:
    files: what it is made of.
    *made_by: what else it depends on, each with a ``repr`` that says it.
  """
  found = hashlib.sha256(repr(made_by).encode())
  for path in files:
    stat = path.stat()
    facts = str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    found.update(repr(facts).encode())
  return found.hexdigest()[:32]


def arrays(
  file: Path, make: Callable[[], Mapping[str, Any]]
) -> dict[str, np.ndarray]:
  """Arrays from a file; they are made, and kept there, if it is not there.

  What cannot be kept is given all the same, and what is damaged is made anew,
  with a warning.

  Args:
    file: ends in ``.npz``; ``~`` is the home folder.
    make: gives the arrays by name; none holds objects of Python.
  """
  try:
    with file.expanduser().open('rb') as opened, np.load(opened) as found:
      return dict(found)
  except (FileNotFoundError, NotADirectoryError):
    pass
  except RuntimeError:  # nobody knows the home folder, as `_save` will say
    pass
  except Exception as error:  # a damaged file may raise anything
    logging.warning(
      '%s is damaged (%s) and made anew', file.expanduser(), error
    )
  made = {key: np.asarray(value) for key, value in make().items()}
  _save(made, file)
  return made


def _save(made: Mapping[str, np.ndarray], file: Path) -> None:
  draft = None
  try:
    file = file.expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f'.{uuid.uuid4().hex}')  # others may write, too
    with draft.open('wb') as opened:
      np.savez_compressed(opened, **made)
    draft.replace(file)
  except (OSError, RuntimeError) as error:
    logging.warning('%s cannot be cached (%s)', file.parent.name, error)
    if draft:
      with contextlib.suppress(OSError):
        draft.unlink()
