"""Arrays on disk that are written once and read by row.

A cache is a folder of TensorStore arrays, ``[lines, rows, ...]`` each, and
``record.json``, which describes what they were computed from. It is written as
a draft beside that folder, shard by shard, each atomically, and renamed when
all are on disk. So an interrupted writer resumes where it was, and a folder of
that name is complete. The bytes have checksums, which every read verifies. In a
bucket, where nothing can be renamed at once, the draft is the folder itself,
which is complete once its ``record.json`` says so.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import numpy as np
import tensorstore as ts
from absl import logging

from jaxkd import files, locks
from jaxkd.errors import UserError, within, writing
from jaxkd.paths import by_path

IN_MEMORY = 2**30  # bytes; smaller caches are read into memory
BLOCK = 512  # rows; a shard is some of these
_SHARD = 4 * 2**20  # bytes, about
_READ_AHEAD = 2**28  # bytes of TensorStore's own cache
_PER_CHUNK = 24  # bytes of index and checksums


class Layout(NamedTuple):
  """The arrays of a cache.

  Attributes:
    arrays: name -> shape and dtype of a row.
    lines: number of lines.
    rows: number of rows in each line.
    together: how many neighbouring rows form a chunk; it divides `BLOCK`.
    compressed: whether chunks are, as those with many equal values may be.
  """

  arrays: Mapping[str, jax.ShapeDtypeStruct]
  lines: int
  rows: int
  together: int
  compressed: bool = False

  @property
  def nbytes(self) -> int:
    """Bytes of all arrays."""
    return self.lines * self.rows * self._row

  @property
  def on_disk(self) -> int:
    """Approximate bytes of the files, before they are compressed."""
    chunks = self.lines * math.ceil(self.rows / self.together)
    padded = chunks * self.together * self._row
    return padded + chunks * len(self.arrays) * _PER_CHUNK

  @property
  def shard(self) -> int:
    """Rows of a shard."""
    return BLOCK * max(1, _SHARD // (BLOCK * self._row))

  @property
  def _row(self) -> int:
    return sum(_bytes(one) for one in self.arrays.values())


class Cache:
  """A complete cache, for reading.

  Args:
    folder: of the cache.
    layout: of its arrays.
    at: the config entry, for errors.
  """

  def __init__(self, folder: Path, layout: Layout, at: str):
    self._folder, self._at = folder, at
    self.in_memory = layout.nbytes <= IN_MEMORY
    context = ts.Context({'cache_pool': {'total_bytes_limit': _READ_AHEAD}})
    with self._reading():
      found = {
        name: ts.open(
          _spec(folder / quote(name, '')), context=context, open=True
        )
        for name in layout.arrays
      }
      arrays = {name: one.result() for name, one in found.items()}
      if self.in_memory:
        own = {n: x[:, : layout.rows].read() for n, x in arrays.items()}
        arrays = _all(own)
    self._arrays = arrays

  def take(self, lines: Any, rows: Any) -> dict[str, np.ndarray]:
    """Reads single rows.

    Args:
      lines: the line of each, integers.
      rows: the row of each, integers of a shape that broadcasts with `lines`.

    Returns:
      name -> values, of that shape followed by the shape of a row.
    """
    if self.in_memory:
      return {name: x[lines, rows] for name, x in self._arrays.items()}
    index = np.broadcast_arrays(lines, rows)
    with self._reading():
      return _all({n: x.vindex[*index].read() for n, x in self._arrays.items()})

  def span(self, start: int, stop: int) -> dict[str, np.ndarray]:
    """Reads the rows from start to stop of every line, [lines, rows, ...]."""
    if self.in_memory:
      return {name: x[:, start:stop] for name, x in self._arrays.items()}
    with self._reading():
      return _all({n: x[:, start:stop].read() for n, x in self._arrays.items()})

  @contextlib.contextmanager
  def _reading(self) -> Iterator[None]:
    try:
      yield
    except ValueError as error:
      raise _damaged(self._folder, self._at, str(error)) from error


class Draft:
  """A cache that is being written.

  Args:
    folder: of the draft.
    layout: of its arrays.
    at: the config entry, for errors.
  """

  def __init__(self, folder: Path, layout: Layout, at: str):
    self._folder, self._layout, self._at = folder, layout, at
    with within(f'{at}: '), writing(folder):
      self._arrays = _all(
        {
          name: ts.open(
            _spec(folder / quote(name, ''), layout, one), open=True, create=True
          )
          for name, one in layout.arrays.items()
        }
      )

  def missing(self) -> list[tuple[int, int, int]]:
    """The shards that are not on disk, as (line, first row, end)."""
    layout, kept = self._layout, files.below(self._folder)
    found = []
    for line, start in itertools.product(
      range(layout.lines), range(0, layout.rows, layout.shard)
    ):
      place = map(str, (line, start // layout.shard))
      shard = '/'.join(('c', *place))
      names = [
        '/'.join((quote(name, ''), shard, *'0' * len(one.shape)))
        for name, one in layout.arrays.items()
      ]
      if not kept.keys() >= {*names}:
        found.append((line, start, min(start + layout.shard, layout.rows)))
    return found

  def write(
    self, line: int, start: int, rows: Mapping[str, np.ndarray]
  ) -> None:
    """Writes a shard; returns once it is on disk.

    Raises:
      UserError: it cannot be written; then the whole draft is removed.
    """
    try:
      with within(f'{self._at}: '), writing(self._folder.parent):
        _all(
          {
            name: self._arrays[name][line, start : start + len(x)].write(x)
            for name, x in rows.items()
          }
        )
    except UserError:
      _remove(self._folder)
      raise


@contextlib.contextmanager
def drafted(
  folder: Path, layout: Layout, facts: Mapping[str, Any], at: str
) -> Iterator[Draft | None]:
  """A draft that becomes the cache when the block ends without an error.

  Args:
    folder: of the cache.
    layout: of its arrays.
    facts: what it is computed from, see `find`.
    at: the config entry, for errors.

  Yields:
    The draft, or None if another process has finished it meanwhile.

  Raises:
    UserError: another process is writing there, or the disk is full or not
      writable.
  """
  draft, above = _draft_of(folder), folder.parent
  record = draft / 'record.json'
  held = {'facts': dict(facts), 'layout': _described(layout)}
  with _locked(above, at) as check:
    if _is_complete(folder):
      yield None
      return
    if _json(record) != held:
      _remove(draft)
    _check_room(draft, layout, at)
    with within(f'{at}: '), writing(above):
      if not record.exists():
        files.make_folder(draft)
        _save(record, held)
    yield Draft(draft, layout, at)
    check()
    with within(f'{at}: '), writing(above):
      _save(record, {**held, 'files': _files(draft)})
      if draft != folder:
        draft.rename(folder)


def find(
  folder: Path, layout: Layout, facts: Mapping[str, Any], at: str
) -> bool:
  """Whether a cache exists; checks that it was computed from these facts.

  Args:
    folder: of the cache.
    layout: the wanted arrays; the cache may have more rows.
    facts: what it should be computed from, by name.
    at: the config entry, for errors.

  Raises:
    UserError: it was computed from other facts, or files are missing.
  """
  if not _is_complete(folder):
    return False
  held = _json(folder / 'record.json')
  if not isinstance(held, dict) or 'files' not in held:
    raise _damaged(folder, at, 'record.json cannot be read')
  for name, value in facts.items():
    there = held['facts'].get(name)
    if there != value:
      raise UserError(
        f'{at}: what is kept in {folder} was made with another {name}, '
        f'{_short(there)} there and {_short(value)} here; remove that folder '
        f'to have it made again, or name another in {at}.dir'
      )
  wanted = _described(layout)
  rows = held['layout']['rows']
  if {**held['layout'], 'rows': layout.rows} != wanted:
    raise _damaged(folder, at, 'its record does not fit its facts')
  if rows < layout.rows:
    raise UserError(
      f'{at}: {folder} keeps {rows:,} rows of each of its lines and this run '
      f'reads {layout.rows:,}; take fewer train.steps, remove that folder to '
      f'have it made again, or name another in {at}.dir'
    )
  if _files(folder) != held['files']:
    raise _damaged(folder, at, 'files are missing or cut short')
  return True


def check_room(folder: Path, layout: Layout, at: str) -> None:
  """Refuses a cache that does not fit on the disk, unless it exists.

  Args:
    folder: of the cache.
    layout: of its arrays.
    at: the config entry, for errors.

  Raises:
    UserError: the disk is too small.
  """
  if not _is_complete(folder):
    _check_room(_draft_of(folder), layout, at)


def _check_room(draft: Path, layout: Layout, at: str) -> None:
  if files.is_remote(draft):
    return  # a bucket does not say
  there = sum(size for _, size in _sizes(draft))
  disk = next(path for path in draft.parents if path.exists())
  free, needed = shutil.disk_usage(disk).free, layout.on_disk - there
  if needed > free:
    raise UserError(
      f'{at}: it needs {size(needed)} in {draft.parent}, where {size(free)} '
      f'are free; make room, keep less of it (top, outputs), or name another '
      f'folder in {at}.dir'
    )


def size(count: int) -> str:
  """A number of bytes in readable form.

  Examples:
    >>> size(14_300_000)
    '14.3 MB'
  """
  units = ('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')
  power = min(len(units) - 1, (len(str(count)) - 1) // 3)
  return f'{count / 1000**power:.{1 if power else 0}f} {units[power]}'


def fingerprint(trees: Iterable[Any]) -> str:
  """SHA-256 of arrays, with their paths, shapes and dtypes."""
  found = hashlib.sha256()
  for tree in trees:
    add(found, tree)
  return found.hexdigest()


def add(found: Any, tree: Any) -> None:
  """Adds a tree to a checksum of hashlib, as `fingerprint` does."""
  for path, leaf in sorted(by_path(tree).items()):
    leaf = np.asarray(leaf)
    found.update(header(path, leaf.shape, leaf.dtype))
    found.update(bytes_of(leaf))


def bytes_of(array: np.ndarray) -> np.ndarray:
  """The bytes of an array, in order."""
  return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def header(path: str, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
  """What `add` hashes of an array before the bytes of its values."""
  return f'{path} {dtype.name}{list(shape)}\n'.encode()


def _spec(
  folder: Path,
  layout: Layout | None = None,
  row: jax.ShapeDtypeStruct | None = None,
) -> dict[str, Any]:
  """TensorStore's spec of an array that exists or, with a layout, a new one."""
  spec = {'driver': 'zarr3', 'kvstore': files.kvstore(folder)}
  if layout is None:
    return spec
  inner = [{'name': 'bytes', 'configuration': {'endian': 'little'}}]
  checked = [{'name': 'crc32c'}]
  zstd = [{'name': 'zstd', 'configuration': {'level': 1}}]
  sharding = {
    'chunk_shape': [1, layout.together, *row.shape],
    'codecs': [*inner, *(zstd if layout.compressed else []), *checked],
    'index_codecs': [*inner, *checked],
  }
  grid = {'chunk_shape': [1, layout.shard, *row.shape]}
  return spec | {
    'metadata': {
      'shape': [layout.lines, layout.rows, *row.shape],
      'data_type': np.dtype(row.dtype).name,
      'chunk_grid': {'name': 'regular', 'configuration': grid},
      'codecs': [{'name': 'sharding_indexed', 'configuration': sharding}],
    },
    # By default a shard of zeros is not written; it would look missing.
    'store_data_equal_to_fill_value': True,
  }


def _all(futures: Mapping[str, ts.Future]) -> dict[str, Any]:
  return {name: future.result() for name, future in futures.items()}


def _bytes(one: jax.ShapeDtypeStruct) -> int:
  return math.prod(one.shape) * np.dtype(one.dtype).itemsize


def _described(layout: Layout) -> dict[str, Any]:
  arrays = {
    name: f'{np.dtype(one.dtype).name}{list(one.shape)}'
    for name, one in layout.arrays.items()
  }
  found = {**layout._asdict(), 'arrays': arrays}
  if not layout.compressed:  # as older records say it
    del found['compressed']
  return found


def _sizes(folder: Path) -> list[tuple[str, int]]:
  """The files of the arrays, with their sizes in bytes."""
  found = files.below(folder).items()
  return [(name, size) for name, size in found if name != 'record.json']


def _files(folder: Path) -> str:
  """A checksum of the names and sizes of the files."""
  return hashlib.sha256(repr(sorted(_sizes(folder))).encode()).hexdigest()


def _remove(folder: Path) -> None:
  with contextlib.suppress(Exception):  # what is left is written over
    files.remove(folder)


def _json(path: Path) -> Any:
  """The contents of a JSON file; None if it cannot be read."""
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    return None


def _save(path: Path, value: Any) -> None:
  files.write_text(path, json.dumps(value, indent=1, sort_keys=True))


def _draft_of(folder: Path) -> Path:
  """Where a cache is written until it is complete."""
  if files.is_remote(folder):
    return folder
  return folder.with_name(f'.{folder.name}.draft')


def _is_complete(folder: Path) -> bool:
  """Whether there is a cache, be it damaged."""
  if not files.is_remote(folder):
    return folder.exists()
  held = _json(folder / 'record.json')
  return isinstance(held, dict) and 'files' in held


@contextlib.contextmanager
def _locked(folder: Path, at: str) -> Iterator[Callable[[], None]]:
  """Locks out other writers, until the process ends at the latest.

  On a disk by the folder itself, in which no other file should appear. Yields
  as `jaxkd.locks.locked` does.
  """
  if files.is_remote(folder):
    with locks.locked(folder, at=at) as check:
      yield check
    return
  with within(f'{at}: '), writing(folder):
    files.make_folder(folder)
  file = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(
        f'{at}: another run is writing to {folder}; wait until it has, and '
        'give this command again'
      ) from error
    except OSError as error:
      logging.warning('%s cannot be locked (%s)', folder, error.strerror)
    yield lambda: None
  finally:
    os.close(file)


def _short(value: Any) -> str:
  """A fact in readable form; checksums are shortened."""
  text = str(value)
  return f'{text[:8]}…' if re.fullmatch('[0-9a-f]{64}', text) else text


def _damaged(folder: Path, at: str, why: str) -> UserError:
  why = why.partition(' [')[0]  # TensorStore appends pages in brackets
  return UserError(
    f'{at}: what is kept in {folder} is damaged ({why}); remove that folder, '
    'and the same command makes it again'
  )
