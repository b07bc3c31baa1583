"""Paths as people write them, and files on disks and in buckets alike.

A path is a `pathlib.Path` on a local disk and an `etils.epath.Path` in a bucket
of Google Cloud Storage, which have the same methods for what is done here. The
functions below do what differs. A bucket has no folders: one is there as long
as something is in it, and nothing can be renamed at once. But a file appears
there whole or not at all.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from jaxkd.errors import UserError, is_remote, writing

# 's3://bucket'; a `Path` of it has one slash left.
_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')
_VARIABLE = re.compile(r'\$(?:(\w+)|\{([^}]*)\})')
_BUCKET = 'gs://'
_POINTER = b'version https://git-lfs.github.com/spec/'


def path(
  text: str | os.PathLike, *, at: str, remote: bool = False
) -> Path | epath.Path:
  """The path that a text means: ``~`` and ``$VARIABLE`` are replaced.

  What is relative stays so. Rows and configs keep the text, which means the
  same on another machine, and not what it stands for here.

  Args:
    text: a path on a local disk, or ``gs://BUCKET/...``.
    at: the config entry or the flag that holds it, for errors.
    remote: whether it may be in a bucket.

  Raises:
    UserError: a path on a remote store that is not supported there, a package
      for it that is not installed, a variable that is not set, or the home
      folder of a user who does not exist.
  """
  text = os.fspath(text)
  if not (remote and is_remote(text)):
    refuse_remote(text, at=at, buckets=remote)
  for names in _VARIABLE.findall(text):
    name = next(filter(None, names), '')
    if not os.environ.get(name):
      raise UserError(
        f'{at}: {text!r} names the environment variable {name!r}, which is not '
        'set or is empty; set it, or write the path itself'
      )
  expanded = os.path.expandvars(text)
  if remote and is_remote(expanded):
    return _in_bucket(expanded, at)
  refuse_remote(expanded, at=at, buckets=remote)
  try:
    return Path(expanded).expanduser()
  except RuntimeError as error:
    raise UserError(
      f'{at}: {text!r} is in the home folder of a user who is not known here; '
      'write the path itself, or ./~NAME for a folder of that name'
    ) from error


def expanded(text: str) -> str:
  """A text that may be a path, with ``~`` and set variables replaced."""
  return os.path.expanduser(os.path.expandvars(text))


def refuse_pointer(file: Path, *, at: str = '') -> None:
  """Refuses a file that only stands for another, which Git LFS is to fetch.

  A clone without Git LFS has such files under the names of the others.

  Args:
    file: on a local disk; one that cannot be read is left to others.
    at: the config entry that holds it, for errors.
  """
  with contextlib.suppress(OSError), file.open('rb') as opened:
    if opened.read(len(_POINTER)) == _POINTER:
      raise UserError(
        f'{file} is a pointer of Git LFS and not the file itself; fetch that '
        'by `git lfs pull`, or download it',
        entry=at,
      )


def text(file: Path, *, at: str) -> str:
  """What is in a small file of text, which a config names.

  Args:
    file: on a local disk.
    at: the config entry that holds it, for errors.

  Raises:
    UserError: it cannot be read, or is not UTF-8.
  """
  try:
    return file.read_text(encoding='utf-8')
  except OSError as error:
    raise UserError(f'{at}: cannot read {file}: {error.strerror}') from error
  except UnicodeDecodeError as error:
    raise UserError(
      f'{at}: {file} is not UTF-8; convert it, or name another file'
    ) from error


def share(file: Path) -> None:
  """Gives a local file the permissions of the user's new files.

  Safetensors writes files that nobody but their owner can read.
  """
  new = file.with_name(f'.{file.name}.new')  # `os.umask` is of all threads
  new.touch()
  shutil.copymode(new, file)
  new.unlink()


def refuse_remote(text: str, *, at: str, buckets: bool = False) -> None:
  """Refuses ``scheme://...``, which would become a local folder of that name.

  Args:
    text: a path.
    at: the config entry or the flag that holds it.
    buckets: whether ``gs://`` would do, for the error.

  Raises:
    UserError: the text has a scheme.
  """
  scheme = _SCHEME.match(text)
  if scheme and scheme[0].lower() == 'file:/':
    raise UserError(f'{at}: write {text!r} as a path, without file://')
  if scheme and buckets:
    raise UserError(
      f'{at}: {text!r} is not on a local disk nor in a bucket of Google Cloud '
      'Storage, and jaxkd knows no other places here; name a local path or '
      'gs://BUCKET/PATH'
    )
  if scheme:
    raise UserError(
      f'{at}: {text!r} is not on a local disk, and jaxkd reads and writes '
      'local disks only here; name a local path, and copy the files from or to '
      'the remote one yourself'
    )


def _in_bucket(text: str, at: str) -> epath.Path:
  """A path in a bucket, once the packages for it are known to be there."""
  from jaxkd import lookup  # imports much of what needs paths

  bucket, _, key = text.removeprefix(_BUCKET).partition('/')
  if not bucket or not key.strip('/'):
    raise UserError(
      f'{at}: {text!r} names no folder in a bucket; write gs://BUCKET/FOLDER'
    )
  lookup.package('gcsfs', extra='gcs', at=at)
  # What another process or TensorStore has written is there at once.
  import fsspec

  for name in ('gcs', 'gs'):
    fsspec.config.conf.setdefault(name, {})['use_listings_cache'] = False
  # It prints the traceback of each error that it raises too.
  client = logging.getLogger('gcsfs')
  client.setLevel(client.level or logging.CRITICAL)
  return epath.Path(text.rstrip('/'))


def as_path(where: str | os.PathLike) -> Path | epath.Path:
  """What `path` gave, or its text, as a path again."""
  return epath.Path(where) if is_remote(where) else Path(where)


def absolute(where: str | os.PathLike) -> Path | epath.Path:
  """An absolute path, as all paths in a bucket are."""
  where = as_path(where)
  return where if is_remote(where) else where.absolute()


def filesystem(where: str | os.PathLike) -> Any:
  """The `fsspec.AbstractFileSystem` of a path."""
  import fsspec

  return fsspec.filesystem('gcs' if is_remote(where) else 'file')


@contextlib.contextmanager
def replacing(where: str | os.PathLike) -> Iterator[Path]:
  """A local draft to write, which takes the place of a file when it is whole.

  The folder is made where there is none.

  Raises:
    UserError: the disk is full or not writable, or the bucket takes nothing.
  """
  where = as_path(where)
  if is_remote(where):
    with tempfile.TemporaryDirectory(prefix='jaxkd-') as folder:
      with writing(folder):
        yield (draft := Path(folder, where.name))
      with writing(where):
        where.write_bytes(draft.read_bytes())
    return
  draft = where.with_name(f'.{where.name}.draft')
  with writing(where):
    make_folder(where.parent)
    yield draft
    with draft.open('rb') as file:
      os.fsync(file.fileno())
    draft.replace(where)


def write_text(where: str | os.PathLike, text: str) -> None:
  """Writes a small file in UTF-8, whole or not at all.

  Raises:
    UserError: as `replacing`.
  """
  with replacing(where) as draft:
    draft.write_text(text, encoding='utf-8')


def make_folder(where: str | os.PathLike) -> None:
  """Makes a folder and those above it; a bucket needs none."""
  if is_remote(where):
    return
  try:
    Path(where).mkdir(parents=True, exist_ok=True)
  except FileExistsError as error:
    said = os.strerror(errno.ENOTDIR)  # what is wrong, plainly
    raise NotADirectoryError(errno.ENOTDIR, said, str(where)) from error


def remove(where: str | os.PathLike) -> None:
  """Removes a file or a folder with all that is in it, if it is there."""
  where = as_path(where)
  if is_remote(where):
    where.rmtree(missing_ok=True)
  elif where.is_dir() and not where.is_symlink():
    shutil.rmtree(where)
  else:
    where.unlink(missing_ok=True)


def below(folder: str | os.PathLike) -> dict[str, int]:
  """The files in a folder and in its folders: path from it -> bytes."""
  folder = as_path(folder)
  if not is_remote(folder):
    return {
      str(path.relative_to(folder)): path.stat().st_size
      for path in folder.rglob('*')
      if path.is_file()
    }
  root = f'{os.fspath(folder).removeprefix(_BUCKET)}/'
  found = filesystem(folder).find(os.fspath(folder), detail=True)
  return {
    name.removeprefix(root): info['size']
    for name, info in found.items()
    if name.startswith(root)  # not the folder, where it is a file
  }


def checksum(where: str | os.PathLike, *, at: str) -> str:
  """SHA-256 of a file on a local disk.

  Args:
    where: its path.
    at: the config entry that names it, for errors.

  Raises:
    UserError: it cannot be read.
  """
  try:
    with open(where, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise UserError(
      f'{at}: {where} cannot be read ({error.strerror})'
    ) from error


def kvstore(folder: str | os.PathLike) -> dict[str, str]:
  """TensorStore's description of a folder as a place for arrays."""
  if is_remote(folder):
    text = os.fspath(folder).removeprefix(_BUCKET)
    bucket, _, key = text.partition('/')
    return {'driver': 'gcs', 'bucket': bucket, 'path': f'{key}/'}
  # TensorStore takes no path with `..` in it.
  return {'driver': 'file', 'path': os.path.realpath(folder)}
