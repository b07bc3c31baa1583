"""Arrays on disk: whole, of what they say, and undamaged, or refused."""

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple

import jax
import numpy as np
import pytest

from jaxkd.data import cache
from jaxkd.errors import UserError

AT = 'teachers.main.cache'
FACTS = {'teacher': 'a' * 64, 'view': 'noise(0.1)'}
ROWS = 20
RANDOM = np.random.default_rng(0)
ARRAYS = {
  'stages/1': RANDOM.normal(size=(2, ROWS, 3, 4)).astype(np.float32),
  'logits.classes': RANDOM.integers(9, size=(2, ROWS, 1)).astype(np.uint16),
  'logits.rest': np.zeros((2, ROWS), np.float32),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Three shards a line."""
  monkeypatch.setattr(cache, 'BLOCK', 8)
  monkeypatch.setattr(cache, '_SHARD', 1)


def layout(rows=ROWS):
  arrays = {
    name: jax.ShapeDtypeStruct(x.shape[2:], x.dtype)
    for name, x in ARRAYS.items()
  }
  return cache.Layout(arrays, 2, rows, 4)


def write(folder, facts=FACTS, shards=None):
  """Writes some of the shards, or all; gives how many were missing."""
  with cache.drafted(folder, layout(), facts, AT) as draft:
    missing = draft.missing()
    for line, start, stop in missing[:shards]:
      rows = {name: x[line, start:stop] for name, x in ARRAYS.items()}
      draft.write(line, start, rows)
    if shards is not None:
      raise InterruptedError
  return len(missing)


@pytest.fixture
def folder(tmp_path):
  write(tmp_path / 'main' / 'rows')
  return tmp_path / 'main' / 'rows'


def test_a_folder_may_be_named_by_way_of_another(tmp_path):
  """As in ``dir='../outputs'``."""
  (tmp_path / 'run').mkdir()
  folder = tmp_path / 'run' / '..' / 'out puts#?%' / 'rows'
  assert write(folder)
  assert cache.find(folder, layout(), FACTS, AT)
  got = cache.Cache(folder, layout(), AT).take(np.array([1]), np.array([3]))
  np.testing.assert_array_equal(got['stages/1'][0], ARRAYS['stages/1'][1, 3])


def find(folder, rows=ROWS, **facts):
  return cache.find(folder, layout(rows), {**FACTS, **facts}, AT)


def check(found, lines, rows):
  for name, x in ARRAYS.items():
    assert found[name].dtype == x.dtype
    np.testing.assert_array_equal(found[name], x[lines, rows])


@pytest.mark.parametrize('most', [0, 2**30], ids=['disk', 'memory'])
def test_rows_come_back(folder, most, monkeypatch):
  monkeypatch.setattr(cache, 'IN_MEMORY', most)
  assert find(folder)
  held = cache.Cache(folder, layout(), AT)
  assert held.in_memory == bool(most)
  lines, rows = np.array([[0], [1]]), np.array([[5, 19, 0], [7, 7, 1]])
  check(held.take(lines, rows), lines, rows)
  check(held.take(1, rows[0]), 1, rows[0])
  check(held.span(6, 18), slice(None), slice(6, 18))


def test_fewer_rows_can_be_read_and_more_not(folder):
  assert find(folder, rows=9)
  held = cache.Cache(folder, layout(9), AT)
  check(held.span(0, 9), slice(None), slice(0, 9))
  with pytest.raises(UserError, match=r'keeps 20 rows .* reads 21; take fewer'):
    find(folder, rows=21)


def test_its_size_is_known_before(folder):
  there = sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())
  assert layout().nbytes == sum(x.nbytes for x in ARRAYS.values())
  # Here the description of the arrays outweighs them.
  described = 1000 * (len(ARRAYS) + 1)
  assert (
    layout().nbytes
    < layout().on_disk
    < there
    < (layout().on_disk + described + 6 * 3 * 30)
  )


def test_a_writer_that_was_cut_short_goes_on(tmp_path):
  folder = tmp_path / 'main' / 'rows'
  with pytest.raises(InterruptedError):
    write(folder, shards=4)
  assert not folder.exists()
  assert not find(folder)
  assert write(folder) == 2
  check(
    cache.Cache(folder, layout(), AT).span(0, ROWS), slice(None), slice(None)
  )
  assert [p.name for p in folder.parent.iterdir()] == ['rows']


def test_a_draft_of_something_else_is_written_again(tmp_path):
  folder = tmp_path / 'main' / 'rows'
  with pytest.raises(InterruptedError):
    write(folder, shards=4)
  assert write(folder, {**FACTS, 'teacher': 'b' * 64}) == 6


@pytest.mark.parametrize(
  ('facts', 'said'),
  [
    ({'teacher': 'b' * 64}, 'another teacher, aaaaaaaa… there and bbbbbbbb…'),
    ({'view': ''}, r'another view, noise\(0.1\) there and  here'),
    ({'top': 3}, 'another top, None there and 3 here'),
  ],
)
def test_a_cache_of_something_else_is_refused(folder, facts, said):
  with pytest.raises(UserError, match=f'^{AT}: .*{said}.*remove that folder'):
    find(folder, **facts)


def remove_shard(folder):
  (folder / 'stages%2F1/c/1/2/0/0').unlink()


def cut_shard(folder):
  os.truncate(folder / 'stages%2F1/c/1/2/0/0', 50)


def no_record(folder):
  (folder / 'record.json').unlink()


def cut_record(folder):
  os.truncate(folder / 'record.json', 50)


@pytest.mark.parametrize(
  'damage', [remove_shard, cut_shard, no_record, cut_record]
)
def test_what_is_not_whole_is_refused(folder, damage):
  damage(folder)
  with pytest.raises(UserError, match=f'^{AT}: .* is damaged .*remove'):
    find(folder)


@pytest.mark.parametrize('most', [0, 2**30], ids=['disk', 'memory'])
def test_bytes_that_have_changed_are_refused(folder, most, monkeypatch):
  monkeypatch.setattr(cache, 'IN_MEMORY', most)
  file = folder / 'stages%2F1/c/1/2/0/0'
  held = bytearray(file.read_bytes())
  held[30] ^= 1
  file.write_bytes(held)
  with pytest.raises(
    UserError, match=f'^{AT}: .* is damaged .*igest.*; remove'
  ):
    cache.Cache(folder, layout(), AT).span(16, 20)


def test_another_writer_is_not_disturbed(tmp_path):
  folder = tmp_path / 'main' / 'rows'
  with pytest.raises(InterruptedError):
    write(folder, shards=4)
  other = os.open(folder.parent, os.O_RDONLY)
  fcntl.flock(other, fcntl.LOCK_EX)
  with pytest.raises(UserError, match=f'^{AT}: another run is writing'):
    write(folder)
  os.close(other)
  assert write(folder) == 2


def test_what_another_has_finished_meanwhile_stays(folder):
  before = (folder / 'record.json').stat().st_mtime_ns
  with cache.drafted(folder, layout(), FACTS, AT) as draft:
    assert draft is None
  assert (folder / 'record.json').stat().st_mtime_ns == before


def test_a_disk_that_is_too_small_is_refused_before(tmp_path, monkeypatch):
  folder = tmp_path / 'main' / 'rows'
  free = namedtuple('usage', 'free')(layout().on_disk - 1)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: free)
  message = rf'^{AT}: it needs 2.9 kB in {folder.parent}, where 2.9 kB are free'
  with pytest.raises(UserError, match=message):
    cache.check_room(folder, layout(), AT)
  assert not list(tmp_path.iterdir())
  with pytest.raises(UserError, match=message):
    write(folder)
  assert not list(folder.parent.iterdir())


FULL = """
  import pathlib, resource, sys
  import jax
  import numpy as np
  from jaxkd.data import cache
  from jaxkd.errors import UserError

  rows = np.random.default_rng(0).normal(size=(512, 100))
  one = jax.ShapeDtypeStruct((100,), rows.dtype)
  layout = cache.Layout({'logits': one}, 1, 512, 1)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
  try:
    with cache.drafted(pathlib.Path(sys.argv[1]), layout, {}, 'entry') as draft:
      draft.write(0, 0, {'logits': rows})
  except UserError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_no_draft(tmp_path):
  script = [sys.executable, '-c', textwrap.dedent(FULL), str(tmp_path / 'rows')]
  run = subprocess.run(script, capture_output=True, text=True)
  said = f'entry: {tmp_path} cannot be written: File too large; make room'
  assert run.stdout.startswith(said), run.stderr
  assert not list(tmp_path.iterdir())


def test_a_fingerprint_is_of_values_types_and_shapes():
  x = np.arange(6, dtype=np.float32)
  others = [x + 1, x.reshape(2, 3), x.astype(np.int32), {'a': x}, [x, x]]
  found = {cache.fingerprint([tree]) for tree in (x, *others)}
  assert len(found) == 6
  assert cache.fingerprint([x.copy()]) in found
