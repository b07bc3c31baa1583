"""Lists of files with what tells whether one of them has changed.

A list is made anew at each start: to ask the file system about one file takes
microseconds, so that a million take seconds, and a change of any is seen. What
takes longer, to read the files, is cached under the `key` of the list.
"""

import array
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_POSITIVE = 2**63 - 1  # some file systems number with all 64 bits


class Listing(NamedTuple):
  """N files.

  Attributes:
    paths: of the files, as texts, which take less memory than `Path`.
    status: int64 [N, 5]: bytes, times of the last modification and of the last
      change of the inode in nanoseconds, device, inode.
  """

  paths: list[str]
  status: np.ndarray


def of(paths: Iterable[str | Path]) -> Listing:
  """The list of files with these paths, in their order."""
  paths = [os.fspath(path) for path in paths]
  return gathered((path, os.stat(path)) for path in paths)


def gathered(found: Iterable[tuple[str, os.stat_result]]) -> Listing:
  """The list of files whose status is known."""
  paths, status = [], array.array('q')
  for path, its in found:
    paths.append(path)
    status.extend(
      (
        its.st_size,
        its.st_mtime_ns,
        its.st_ctime_ns,
        its.st_dev & _POSITIVE,
        its.st_ino & _POSITIVE,
      )
    )
  return Listing(paths, np.frombuffer(status, np.int64).reshape(-1, 5))


def joined(parts: Sequence[Listing]) -> Listing:
  """The files of several lists, one behind the other."""
  paths = [path for part in parts for path in part.paths]
  return Listing(paths, np.concatenate([part.status for part in parts]))


def key(files: Listing, *made_by: Any) -> str:
  """A hash that changes when any file does, as `jaxkd.data.file_cache.key`.

  Args:
    files: what a result is computed from. Files are identified by path, size
      and both times, of which a user cannot set the last one back.
    *made_by: what else it depends on; each is hashed by its ``repr``.
  """
  found = hashlib.sha256(repr(made_by).encode())
  found.update('\0'.join(files.paths).encode(errors='surrogateescape'))
  found.update(np.ascontiguousarray(files.status[:, :3]).tobytes())
  return found.hexdigest()[:32]


def sizes(files: Listing, top: Path) -> str:
  """A hash of the files' names below a folder, and of their sizes."""
  start = len(os.path.join(top, ''))
  found = hashlib.sha256()
  for path, size in zip(files.paths, files.status[:, 0].tolist(), strict=True):
    line = f'{path[start:]} {size}\n'
    found.update(line.encode(errors='surrogateescape'))
  return found.hexdigest()
