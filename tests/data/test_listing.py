"""Lists of files: what is in them, and what changes their key."""

import os
import types

import numpy as np
import pytest

from jaxkd.data import folders, listing


@pytest.fixture
def files(tmp_path):
  for name in ('b.x', 'a/c.x', 'a.x', '.hidden'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(name)
  return tmp_path


def walked(top):
  return listing.gathered(folders.walk(top))


def test_has_the_files_below_a_folder_in_the_order_of_their_paths(files):
  found = walked(files)
  assert found.paths == [str(path) for path in folders.below(files)]
  assert found.paths == [f'{files}/{x}' for x in ('a/c.x', 'a.x', 'b.x')]
  assert found.status[:, 0].tolist() == [5, 3, 3]
  np.testing.assert_array_equal(found.status, listing.of(found.paths).status)
  assert listing.joined([found, found]).paths == found.paths * 2
  assert walked(files / 'a').status.shape == (1, 5)
  (files / 'empty').mkdir()
  assert walked(files / 'empty').status.shape == (0, 5)


def test_another_file_name_size_or_time_is_another_key(files):
  keys = [listing.key(walked(files), 1), listing.key(walked(files), 2)]
  assert listing.key(walked(files), 1) == keys[0]
  status = (files / 'a.x').stat()
  # In place, of the same size, with the old time of modification put back.
  while (files / 'a.x').stat().st_ctime_ns == status.st_ctime_ns:
    (files / 'a.x').write_text('new')
  os.utime(files / 'a.x', ns=(status.st_atime_ns, status.st_mtime_ns))
  keys.append(listing.key(walked(files), 1))
  (files / 'a.x').rename(files / 'd.x')
  keys.append(listing.key(walked(files), 1))
  (files / 'e.x').touch()
  keys.append(listing.key(walked(files), 1))
  assert len({*keys}) == len(keys)


def test_sizes_depend_on_names_below_the_folder_and_sizes_alone(files):
  found = listing.sizes(walked(files), files)
  os.utime(files / 'a.x', ns=(0, 0))
  assert listing.sizes(walked(files), files) == found
  moved = files.with_name('moved')
  files.rename(moved)
  assert listing.sizes(walked(moved), moved) == found
  (moved / 'a.x').write_text('longer')
  assert listing.sizes(walked(moved), moved) != found


def test_times_and_numbers_of_any_size(files):
  os.utime(files / 'a.x', ns=(-(10**18), -(10**18)))
  status = (files / 'a.x').stat()
  wide = types.SimpleNamespace(
    **{name: getattr(status, name) for name in dir(status) if 'st_' in name}
  )
  wide.st_ino = 2**64 - 1
  found = listing.gathered([('a', status), ('b', wide)])
  assert found.status[0, 1] == -(10**18)
  assert found.status[1, 4] == 2**63 - 1
