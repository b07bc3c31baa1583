"""Arrays computed from files, cached in the home folder.

Each result has a file of its own, whose name is a hash of all inputs. So a
change of the inputs never finds an old result, and an interrupted write leaves
no file of that name.
"""

import contextlib
import errno
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from jaxkd import files as files_lib
from jaxkd.errors import UserError

# A draft is named after what it will be and whoever writes it.
_DRAFT = re.compile(r'\.[0-9a-f]{32}$')
_ABANDONED = 24 * 60 * 60  # seconds after which nobody writes a draft any more
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def key(files: Iterable[Path], *made_by: Any) -> str:
  """A hash that changes when any input of a result does.

  Files are identified by path, size, modification time and inode change time.
  Unlike the modification time, a user cannot set the last one back.

  Args:
    files: what the result is computed from.
    *made_by: what else it depends on; each is hashed by its ``repr``.
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
  """Reads arrays from a file, or computes them and writes it if it is missing.

  A file that is damaged is written again, and one that cannot be written is
  skipped; both log a warning.

  Args:
    file: ends in ``.npz``; ``~`` is the home folder.
    make: computes the arrays by name; none has the dtype object.
  """
  try:
    with file.expanduser().open('rb') as opened, np.load(opened) as found:
      return dict(found)
  except (FileNotFoundError, NotADirectoryError):
    pass
  except RuntimeError:  # no home folder; `_save` will log it
    pass
  except Exception as error:  # a damaged file may raise anything
    logging.warning(
      '%s is damaged (%s) and written again', file.expanduser(), error
    )
  made = {key: np.asarray(value) for key, value in make().items()}
  _save(made, file)
  return made


def mapped(
  file: Path,
  shape: tuple[int, ...],
  dtype: Any,
  rows: Callable[[], Iterable[np.ndarray]],
) -> np.ndarray:
  """Maps an array that may be larger than memory, written if it is missing.

  A file that is damaged is written again, with a warning.

  Args:
    file: ends in ``.npy``; ``~`` is the home folder.
    shape: of the array, [N, ...].
    dtype: of the array.
    rows: gives its N rows, in order.

  Raises:
    UserError: the file cannot be written.
  """
  try:
    file = file.expanduser()
  except RuntimeError as error:
    raise unwritable(file, error) from error
  try:
    found = np.load(file, mmap_mode='r')
    if found.shape == shape and found.dtype == dtype:
      return found
    raise ValueError(f'it holds {found.dtype} {list(found.shape)}')
  except (FileNotFoundError, NotADirectoryError):
    pass
  except Exception as error:  # a damaged file may raise anything
    logging.warning('%s is damaged (%s) and written again', file, error)
  header = {
    'descr': np.lib.format.dtype_to_descr(np.dtype(dtype)),
    'fortran_order': False,
    'shape': shape,
  }
  draft = file.with_suffix(f'.{uuid.uuid4().hex}')  # of this writer alone
  try:
    make_folder(file.parent)
    with draft.open('wb') as opened:
      np.lib.format.write_array_header_1_0(opened, header)
      for row in rows():
        opened.write(np.ascontiguousarray(row, dtype).tobytes())
    draft.replace(file)
  except OSError as error:
    raise unwritable(file, error) from error
  finally:
    with contextlib.suppress(OSError):
      draft.unlink()
  return np.load(file, mmap_mode='r')


def make_folder(folder: Path) -> None:
  """Makes a folder of the cache, and removes drafts of runs that were killed.

  Raises:
    OSError: it cannot be made.
  """
  files_lib.make_folder(folder)
  for left in folder.iterdir():
    if _DRAFT.search(left.name):
      with contextlib.suppress(OSError):  # another run may remove it, too
        if time.time() - left.stat().st_mtime > _ABANDONED:
          files_lib.remove(left)


def unwritable(file: Path, error: Exception) -> UserError:
  """The error for a file, or a folder, of the cache that a source needs."""
  code = getattr(error, 'errno', None)
  do = 'make room there' if code in _FULL else 'make it writable'
  return UserError(
    f'{file} cannot be written: {getattr(error, "strerror", None) or error}; '
    f'{do}, or set HOME to another folder, whose .cache is then used',
    entry='data.source',
  )


def _save(made: Mapping[str, np.ndarray], file: Path) -> None:
  draft = None
  try:
    file = file.expanduser()
    make_folder(file.parent)
    draft = file.with_suffix(f'.{uuid.uuid4().hex}')  # of this writer alone
    with draft.open('wb') as opened:
      np.savez_compressed(opened, **made)
    draft.replace(file)
  except (OSError, RuntimeError) as error:
    logging.warning('%s cannot be cached (%s)', file.parent.name, error)
    if draft:
      with contextlib.suppress(OSError):
        draft.unlink()
