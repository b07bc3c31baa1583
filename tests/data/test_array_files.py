"""Arrays of files come back by name and by row, in every format."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from safetensors.numpy import save_file

from jaxkd.data import array_files
from jaxkd.errors import UserError

X = np.arange(24, dtype=np.float32).reshape(6, 4)
MAPS = np.arange(48, dtype=np.float32).reshape(6, 2, 4)
ID = np.array([3, 1, 0, 2, 5, 4])
SUM = 'f' * 64


def zarr(path, array, driver):
  store = {'driver': 'file', 'path': str(path)}
  ts.open(
    {'driver': driver, 'kvstore': store}, create=True,
    dtype=ts.dtype(array.dtype), shape=array.shape,
  ).result().write(array).result()  # fmt: skip


def npy(path):
  np.save(path, X)


def npz(path):
  np.savez(path, x=X, maps=MAPS, id=ID, checksum=np.array(SUM))


def safetensors(path):
  arrays = {'x': X, 'maps': MAPS, 'id': ID}
  save_file(arrays, path, metadata={'checksum': SUM})


def parquet(path):
  pa = pytest.importorskip('pyarrow')
  pq = pytest.importorskip('pyarrow.parquet')
  table = pa.table({'x': list(X), 'maps': MAPS.tolist(), 'id': ID})
  pq.write_table(table.replace_schema_metadata({'checksum': SUM}), path)


def zarr_array(path):
  zarr(path, X, 'zarr3')


def zarr_group(path, driver='zarr3'):
  for name, array in {'x': X, 'maps': MAPS, 'id': ID}.items():
    zarr(path / name, array, driver)
  said = {'checksum': SUM}
  if driver == 'zarr3':
    said = {'zarr_format': 3, 'node_type': 'group', 'attributes': said}
  name = 'zarr.json' if driver == 'zarr3' else '.zattrs'
  (path / name).write_text(json.dumps(said))


def old_zarr_group(path):
  zarr_group(path, 'zarr')


@pytest.mark.parametrize(
  'write',
  [npy, npz, safetensors, parquet, zarr_array, zarr_group, old_zarr_group],
)
def test_arrays_come_back(write, tmp_path):
  ending = write.__name__.removeprefix('old_').partition('_')[0]
  path = tmp_path / f'a.{ending}'
  write(path)
  found = array_files.read(path, unnamed='x', at='at')
  alone = write in (npy, zarr_array)
  wanted = {'x': X} if alone else {'x': X, 'maps': MAPS, 'id': ID}
  assert found.checksum == ('' if alone else SUM)
  assert found.arrays.keys() == wanted.keys()
  for name, array in found.arrays.items():
    assert tuple(array.shape) == wanted[name].shape
    got = array_files.rows(array, ID, at='at')
    np.testing.assert_array_equal(got, wanted[name][ID])
  before = array_files.fingerprint(path, at='at')
  assert array_files.fingerprint(path, at='at') == before
  file = max(
    (p for p in [path, *path.rglob('*')] if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  file.write_bytes(file.read_bytes() + b' ')
  assert array_files.fingerprint(path, at='at') != before


def test_lists_of_several_lengths_are_refused(tmp_path):
  pa = pytest.importorskip('pyarrow')
  pq = pytest.importorskip('pyarrow.parquet')
  path = tmp_path / 'a.parquet'
  for column in ([[1.0], [1.0, 2.0]], [[1.0], None], [1.0, None]):
    pq.write_table(pa.table({'x': column}), path)
    with pytest.raises(
      UserError, match=r'^at: .*the column x has (lists|rows)'
    ):
      array_files.read(path, unnamed='x', at='at')


def test_what_is_no_such_file_is_refused(tmp_path):
  def refused(name, said):
    with pytest.raises(UserError, match=rf'^at: .*{said}'):
      array_files.read(tmp_path / name, unnamed='x', at='at')

  refused('a.npy', 'there is no file')
  refused('a.pt', 'should end in one of .npy, .npz')
  Path(tmp_path / 'a.npz').write_text('no')
  refused('a.npz', r'cannot be read \(it is no array of numbers that NumPy')
  np.save(tmp_path / 'b.npy', np.array([{}]), allow_pickle=True)
  refused('b.npy', r'cannot be read \(it is no array of numbers that NumPy')
  for name in ('a.safetensors', 'a.parquet'):
    Path(tmp_path / name).write_text('no')
    refused(name, 'cannot be read')
  Path(tmp_path / 'a.zarr').mkdir()
  refused('a.zarr', 'holds no arrays')
  np.savez(tmp_path / 'c.npz', x=3.0)
  refused('c.npz', 'x in .* is a single number')
