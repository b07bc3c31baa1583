"""What takes long to make is made once, and again of other files."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from jaxkd.data import file_cache
from jaxkd.errors import UserError


@pytest.fixture
def file(tmp_path):
  return tmp_path / 'some' / 'things' / 'a.npz'


def make():
  return {'numbers': [1, 2], 'text': 'a', 'texts': ('b', 'cd'), 'none': ()}


def test_what_is_made_is_found(file):
  first, again = (
    file_cache.arrays(file, make),
    file_cache.arrays(file, pytest.fail),
  )
  assert first.keys() == again.keys() == make().keys()
  for name, x in first.items():
    np.testing.assert_array_equal(x, again[name])
    assert x.dtype == again[name].dtype
  assert again['text'].item() == 'a'
  assert [*file.parent.iterdir()] == [file]


def test_what_is_cut_short_leaves_nothing(file, monkeypatch):
  def failed():
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    file_cache.arrays(file, failed)
  assert not file.exists()
  monkeypatch.setattr(
    file_cache.np, 'savez_compressed', lambda *_, **__: failed()
  )
  with pytest.raises(KeyboardInterrupt):  # as it writes
    file_cache.arrays(file, make)
  assert not file.exists()
  monkeypatch.undo()
  file_cache.arrays(file, make)
  file_cache.arrays(file, pytest.fail)


@pytest.mark.parametrize('damage', [b'', b'no archive', None])
def test_what_is_damaged_is_made_anew(file, damage, caplog):
  file_cache.arrays(file, make)
  whole = file.read_bytes()
  file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
  assert file_cache.arrays(file, make)['numbers'].tolist() == [1, 2]
  assert f'{file} is damaged' in caplog.text
  file_cache.arrays(file, pytest.fail)


def test_what_cannot_be_kept_is_made_all_the_same(file, caplog, monkeypatch):
  file.parent.parent.write_text('in the way')
  assert file_cache.arrays(file, make)['numbers'].tolist() == [1, 2]
  assert 'things cannot be cached' in caplog.text
  caplog.clear()

  def homeless(path):
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.setattr(file_cache.Path, 'expanduser', homeless)
  assert file_cache.arrays(file, make)['numbers'].tolist() == [1, 2]
  assert 'things cannot be cached' in caplog.text


def test_files_that_change_have_another_name(tmp_path):
  file, other = tmp_path / 'a', tmp_path / 'b'
  file.write_text('one')
  other.write_text('one')
  names = [
    file_cache.key([file], 1),
    file_cache.key([file], 2),
    file_cache.key([other], 1),
  ]
  names.append(file_cache.key([file, other], 1))
  assert file_cache.key([file], 1) == names[0]
  status = file.stat()
  file.write_text('longer')
  names.append(file_cache.key([file], 1))
  # Even where the size and the time of the contents are as they were.
  while file.stat().st_ctime_ns == status.st_ctime_ns:
    file.write_text('two')
  os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
  names.append(file_cache.key([file], 1))
  assert len({*names}) == len(names)


def test_a_large_array_is_mapped_and_made_once(tmp_path):
  file, made = tmp_path / 'a' / 'b.npy', []

  def rows():
    made.append(1)
    yield from np.arange(12, dtype=np.uint8).reshape(3, 4)

  for _ in range(2):
    found = file_cache.mapped(file, (3, 4), np.uint8, rows)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, np.arange(12).reshape(3, 4))
  assert made == [1]
  file.write_bytes(file.read_bytes()[:-2])  # damaged
  found = file_cache.mapped(file, (3, 4), np.uint8, rows)
  np.testing.assert_array_equal(found, np.arange(12).reshape(3, 4))
  assert made == [1, 1]
  assert [*file.parent.iterdir()] == [file]


def test_a_large_array_that_fails_leaves_nothing(tmp_path):
  def rows():
    yield np.zeros(4, np.uint8)
    raise UserError('a file is damaged')

  file = tmp_path / 'a' / 'b.npy'
  with pytest.raises(UserError, match='a file is damaged'):
    file_cache.mapped(file, (3, 4), np.uint8, rows)
  assert not [*file.parent.iterdir()]
  (tmp_path / 'c').write_text('')
  message = r'^data\.source: \S+d\.npy cannot be written: Not a .*set HOME'
  with pytest.raises(UserError, match=message):
    file_cache.mapped(tmp_path / 'c' / 'd.npy', (1, 4), np.uint8, rows)


@pytest.mark.parametrize(
  ('code', 'message'),
  [
    (errno.ENOSPC, 'No space left on device; make room there, or set HOME'),
    (errno.EACCES, 'Permission denied; make it writable, or set HOME'),
  ],
)
def test_errors_say_what_to_do(code, message):
  error = OSError(code, os.strerror(code))
  assert message in str(file_cache.unwritable(Path('a.npy'), error))


def test_what_killed_runs_have_left_is_removed(tmp_path):
  name, now = 'a' * 32, time.time()
  old, folder, new = (
    tmp_path / f'{start}.{char * 32}'
    for start, char in ((name, 'b'), (f'.{name}', 'c'), (name, 'd'))
  )
  kept = tmp_path / f'{name}.npy'
  (folder / 'train').mkdir(parents=True)
  for path in (old, new, kept):
    path.touch()
  for path, days in ((old, 2), (folder, 2), (new, 0.5), (kept, 9)):
    os.utime(path, times=(now, now - days * 86400))
  found = file_cache.arrays(tmp_path / 'b.npz', lambda: {'a': 1})
  assert found['a'] == 1
  assert {*tmp_path.iterdir()} == {new, kept, tmp_path / 'b.npz'}
