"""Arrays by name in files of other tools, of which rows are read.

| ending | what is in it |
|---|---|
| `.npy` | one array, which has no name |
| `.npz` | arrays by name |
| `.safetensors` | arrays by name |
| `.parquet` | columns of numbers, or of lists of them of one length |
| `.zarr` | a folder: one array, which has no name, or a group of arrays |

An array ``checksum``, or an entry of this name in the metadata that a
safetensors file, a table or a group has, says what the arrays were made of.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from jaxkd import files, lookup
from jaxkd.errors import UserError, within

CHECKSUM = 'checksum'
_ZARR = {'zarr.json': 'zarr3', '.zarray': 'zarr'}


class ArrayFile(NamedTuple):
  """The arrays of a file.

  Attributes:
    arrays: name -> array [N, ...], of NumPy or TensorStore, with ``shape`` and
      ``dtype``; see `rows`.
    checksum: of what they were made of, as the file says; empty if it does not.
  """

  arrays: Mapping[str, Any]
  checksum: str = ''


def read(path: Path, *, unnamed: str, at: str) -> ArrayFile:
  """Opens a file; of `.npy` and `.zarr`, rows are read when asked for.

  Args:
    path: of the file, or of the folder of a `.zarr`.
    unnamed: what an array without a name is called.
    at: the config entry that names it, for errors.

  Raises:
    UserError: there is no such file, it is none of these, or is damaged.
  """
  if path.suffix not in ENDINGS:
    raise UserError(
      f'{at}: the name of {path} should end in one of {", ".join(ENDINGS)}'
    )
  if not path.exists():
    raise UserError(f'{at}: there is no file {path}')
  try:
    with within(f'{at}: {path}: '):
      found = ENDINGS[path.suffix](path, at)
  except UserError:
    raise
  except Exception as error:  # of many kinds
    files.refuse_pointer(path, at=at)
    said = (str(error).splitlines() or [type(error).__name__])[0]
    if 'pickle' in said or 'Python objects' in said:
      said = 'it is no array of numbers that NumPy wrote'
    raise UserError(
      f'{at}: {path} cannot be read ({said}); write it once more'
    ) from error
  arrays = {name or unnamed: x for name, x in found.arrays.items()}
  if not arrays:
    raise UserError(f'{at}: {path} holds no arrays')
  for name, x in arrays.items():
    if not len(x.shape):
      raise UserError(
        f'{at}: {name} in {path} is a single number, and not one for each '
        'example'
      )
  return found._replace(arrays=arrays)


def rows(array: Any, numbers: np.ndarray, *, at: str) -> np.ndarray:
  """The rows of an array of an `ArrayFile` with these numbers, int [n].

  Raises:
    UserError: they cannot be read.
  """
  if isinstance(array, np.ndarray):
    return np.asarray(array[numbers])
  try:
    return array[numbers].read().result()
  except ValueError as error:
    said = str(error).partition(' [')[0]
    raise UserError(f'{at}: rows cannot be read ({said})') from error


def paths(path: Path) -> list[Path]:
  """The files that are read: itself, or all in the folder of a `.zarr`."""
  if not path.is_dir():
    return [path]
  return sorted(own for own in path.rglob('*') if own.is_file())


def fingerprint(path: Path, *, at: str) -> str:
  """SHA-256 of a file, or of all files in the folder of a `.zarr`.

  Raises:
    UserError: one of them cannot be read.
  """
  if not path.is_dir():
    return files.checksum(path, at=at)
  found = hashlib.sha256()
  for own in paths(path):
    line = f'{own.relative_to(path)} {files.checksum(own, at=at)}\n'
    found.update(line.encode())
  return found.hexdigest()


def _npy(path: Path, at: str) -> ArrayFile:
  return ArrayFile({'': np.load(path, mmap_mode='r', allow_pickle=False)})


def _npz(path: Path, at: str) -> ArrayFile:
  with np.load(path, allow_pickle=False) as file:
    arrays = {name: file[name] for name in file.files}
  checksum = arrays.pop(CHECKSUM, '')
  return ArrayFile(arrays, str(checksum))


def _safetensors(path: Path, at: str) -> ArrayFile:
  with safetensors.safe_open(path, framework='numpy') as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    said = file.metadata() or {}
  return ArrayFile(arrays, said.get(CHECKSUM, ''))


def _parquet(path: Path, at: str) -> ArrayFile:
  parquet = lookup.package('pyarrow.parquet', extra='hf', at=at)
  table = parquet.read_table(path)
  said = table.schema.metadata or {}
  arrays = {
    name: _column(table.column(name).combine_chunks(), name)
    for name in table.column_names
  }
  return ArrayFile(arrays, said.get(CHECKSUM.encode(), b'').decode())


def _column(column: Any, name: str) -> np.ndarray:
  """A column of numbers, or of lists of them, as an array."""
  types = lookup.package('pyarrow', extra='hf', at=name).types
  shape = [len(column)]
  while any(
    is_one(column.type)
    for is_one in (types.is_list, types.is_large_list, types.is_fixed_size_list)
  ):
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if column.null_count or len(lengths) != 1:
      raise UserError(
        f'the column {name} has lists of different lengths, or rows without '
        'one; write lists of one length'
      )
    shape.append(int(lengths[0]))
    column = column.flatten()
  if column.null_count:
    raise UserError(f'the column {name} has rows without a value')
  return column.to_numpy(zero_copy_only=False).reshape(shape)


def _zarr(path: Path, at: str) -> ArrayFile:
  arrays = dict(_zarr_arrays(path))
  said = {}
  for name, key in (('zarr.json', 'attributes'), ('.zattrs', '')):
    with contextlib.suppress(FileNotFoundError):
      found = json.loads((path / name).read_text())
      said |= found.get(key, {}) if key else found
  return ArrayFile(arrays, str(said.get(CHECKSUM, '')))


def _zarr_arrays(path: Path) -> Iterator[tuple[str, Any]]:
  """The array in a folder, without a name, or those in the folders in it."""
  import tensorstore as ts

  for folder in (path, *sorted(p for p in path.iterdir() if p.is_dir())):
    for file, driver in _ZARR.items():
      if not (folder / file).is_file():
        continue
      kind = json.loads((folder / file).read_text()).get('node_type', 'array')
      if kind == 'array':
        spec = {'driver': driver, 'kvstore': files.kvstore(folder)}
        found = ts.open(spec, open=True, read=True).result()
        yield ('' if folder == path else folder.name), found


ENDINGS = {
  '.npy': _npy,
  '.npz': _npz,
  '.safetensors': _safetensors,
  '.parquet': _parquet,
  '.zarr': _zarr,
}
