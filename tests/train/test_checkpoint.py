"""Checkpoints survive what machines do to them."""

import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint import checkpoint_manager
from orbax.checkpoint._src.metadata import checkpoint as metadata

from jaxkd.errors import UserError
from jaxkd.train.checkpoint import Checkpoints, _checksums, export, load

META = {'history': {'train/loss': [[1.5, float('inf')], []]}, 'members': 'vmap'}
PAYLOAD = np.array([0x7FC12345, 0x7F800001, 0x80000000], np.uint32)


def a_tree(fill: int = 0) -> dict:
  """One leaf of every sort that a carry holds."""
  return {
    'train': {
      'nets': {
        'student': {'layers.0': {'kernel': jnp.full((3, 4), 1.5 + fill)}}
      },
      'terms': {},
    },
    'state': {'bank': np.zeros((0, 5), np.float32), 'nan': PAYLOAD.view('f4')},
    'opt': [(jnp.zeros((), jnp.int32), {}), np.array([True, False])],
    'low': jnp.array([1.0, float('nan')], jnp.bfloat16),
    'half': np.array([0x7E01, 0xFC00], np.uint16).view(np.float16),
    'step': np.array(7 + fill, np.int32),
    'seed': np.uint32(2**32 - 1) * np.ones((2,), np.uint32),
    'wide': np.array([1.0, 2.0]) + fill,
    'noise': np.random.default_rng(fill).integers(0, 256, 5000, np.uint8),
  }


def assert_same_bits(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, e in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert type(a) is type(e)
    assert (a.shape, a.dtype) == (e.shape, e.dtype)
    assert np.asarray(a).tobytes() == np.asarray(e).tobytes()


def abstract(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def save_steps(directory, *steps):
  with Checkpoints(directory) as checkpoints:
    for step in steps:
      checkpoints.save(step, a_tree(step), {'step': step})


def restore(directory, like=None):
  with Checkpoints(directory) as checkpoints:
    return checkpoints.restore(a_tree() if like is None else like)


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.rglob('*') if p.is_file())


def warnings_in(caplog) -> list[str]:
  return [
    r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING
  ]


def test_round_trip_is_bitwise_and_keeps_the_kind_of_array(tmp_path):
  with Checkpoints(tmp_path / 'a' / 'b') as checkpoints:
    assert checkpoints.restore(a_tree()) is None
    assert checkpoints.latest_step() is None
    checkpoints.save(3, a_tree(), META)
    assert checkpoints.latest_step() == 3
    checkpoints.wait()
  step, tree, meta = restore(tmp_path / 'a' / 'b')
  assert step == 3
  assert meta == META
  assert_same_bits(tree, a_tree())


def test_a_list_of_members(tmp_path):
  members = [a_tree(i) for i in range(12)]
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, members, {})
    _, tree, _ = checkpoints.restore(members)
  assert_same_bits(tree, members)


def test_a_tree_without_any_elements(tmp_path):
  tree = {'params': {}, 'empty': np.zeros((2, 0), np.int32)}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, tree, {})
    _, restored, _ = checkpoints.restore(tree)
  assert_same_bits(restored, tree)


def test_relative_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  save_steps('here', 1)
  assert restore('here')[0] == 1
  assert (tmp_path / 'here' / '1').is_dir()


def test_restore_places_arrays_as_like_says(tmp_path):
  devices = np.array(jax.devices()[:4]).reshape(2, 2)
  mesh = jax.sharding.Mesh(devices, ('member', 'data'))
  sharded = jax.NamedSharding(mesh, jax.P('member'))
  value = np.arange(8.0, dtype=np.float32).reshape(4, 2)
  tree = {'x': jax.device_put(value, sharded), 'y': value, 'z': value}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, tree, {})
    like = {
      'x': jax.ShapeDtypeStruct((4, 2), np.float32),
      'y': jax.ShapeDtypeStruct((4, 2), np.float32, sharding=sharded),
      'z': jax.device_put(value, jax.devices()[3]),
    }
    _, restored, _ = checkpoints.restore(like)
  assert not restored['x'].committed
  assert restored['y'].sharding == sharded
  assert restored['z'].devices() == {jax.devices()[3]}
  for leaf in restored.values():
    np.testing.assert_array_equal(leaf, value)


def test_what_is_donated_after_save_is_saved_as_it_was(tmp_path):
  def advance(x):
    return x + 1

  advance = jax.jit(advance, donate_argnums=0)
  x = advance(jnp.zeros((512, 512)))
  host = np.ones((512, 512), np.float32)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {'x': x, 'host': host}, {})
    host += 1
    for _ in range(20):
      old, x = x, advance(x)
      assert old.is_deleted()
    _, restored, _ = checkpoints.restore({'x': x, 'host': host})
    assert (restored['x'] == 1).all()
    assert (restored['host'] == 1).all()
    again = advance(restored['x'])  # what is restored can be donated too
    assert restored['x'].is_deleted()
    assert (again == 2).all()


def test_only_the_last_few_are_kept(tmp_path):
  save_steps(tmp_path, 1, 2, 3, 4, 5)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['3', '4', '5']
  with pytest.raises(ValueError, match='keep must be at least 1'):
    Checkpoints(tmp_path, keep=0)


def test_steps_must_grow(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(5, a_tree(), {})
    with pytest.raises(ValueError, match='step 5 must come after that of step'):
      checkpoints.save(5, a_tree(), {})


def test_two_leaves_of_one_path_are_refused(tmp_path):
  tree = {'a': {'b': np.ones(2)}, 'a/b': np.ones(2)}
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(ValueError, match='same path'),
  ):
    checkpoints.save(1, tree, {})


@pytest.mark.parametrize('damage', ['delete', 'truncate', 'empty', 'no arrays'])
def test_damaged_newest_falls_back_with_a_warning(tmp_path, damage, caplog):
  save_steps(tmp_path, 10, 20, 30)
  largest = max(files_of(tmp_path / '30'), key=lambda p: p.stat().st_size)
  if damage == 'delete':
    largest.unlink()
  elif damage == 'truncate':
    os.truncate(largest, largest.stat().st_size // 2)
  elif damage == 'empty':
    os.truncate(largest, 0)
  else:
    shutil.rmtree(tmp_path / '30' / 'arrays')
  with Checkpoints(tmp_path) as checkpoints:
    step, tree, meta = checkpoints.restore(a_tree())
    assert (step, meta) == (20, {'step': 20})
    assert_same_bits(tree, a_tree(20))
    (warning,) = warnings_in(caplog)
    assert f'{tmp_path / "30"} is damaged' in warning
    # The run goes on from 20, and comes past 30 again.
    assert checkpoints.latest_step() == 20
    checkpoints.save(25, a_tree(25), {})
    checkpoints.save(30, a_tree(30), {'step': 30})
  assert sorted(p.name for p in tmp_path.iterdir()) == ['20', '25', '30']
  step, tree, _ = restore(tmp_path)
  assert step == 30
  assert_same_bits(tree, a_tree(30))


def test_no_flipped_byte_passes(tmp_path):
  save_steps(tmp_path, 1, 2)
  outcomes = {1: 0, 2: 0}
  with Checkpoints(tmp_path) as checkpoints:
    for path in files_of(tmp_path / '2'):
      whole = path.read_bytes()
      for at in {len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        path.write_bytes(flipped)
        step, tree, meta = checkpoints.restore(a_tree())
        outcomes[step] += 1
        assert meta == {'step': step}
        assert_same_bits(tree, a_tree(step))
      path.write_bytes(whole)
    assert checkpoints.restore(a_tree())[0] == 2
  assert outcomes[1] >= 10  # some bytes don't matter, e.g. those of a date


def test_flipped_array_bytes_are_found(tmp_path, caplog):
  noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
  with Checkpoints(tmp_path) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, {'noise': noise + np.uint8(step)}, {})
  data = max(files_of(tmp_path / '2'), key=lambda p: p.stat().st_size)
  flipped = bytearray(data.read_bytes())
  flipped[50_000] ^= 1
  data.write_bytes(flipped)
  step, tree, _ = restore(tmp_path, {'noise': noise})
  assert step == 1
  np.testing.assert_array_equal(tree['noise'], noise + np.uint8(1))
  assert f'{tmp_path / "2"} is damaged' in warnings_in(caplog)[0]


def test_all_damaged_does_not_start_afresh(tmp_path):
  save_steps(tmp_path, 1)
  shutil.rmtree(tmp_path / '1' / 'record')
  with pytest.raises(UserError, match=r'none of the 1 in .* can be read'):
    restore(tmp_path)
  assert (tmp_path / '1').is_dir()


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (lambda t: t.update(low=np.zeros(3, jnp.bfloat16)),
     r'low is bfloat16\[2\] there and bfloat16\[3\] here'),
    (lambda t: t.update(step=np.zeros((), np.uint32)),
     r'step is int32\[\] there and uint32\[\] here'),
    (lambda t: t['train'].update(terms={'hint': np.zeros(2)}),
     r'train/terms/hint is missing there and float64\[2\] here'),
    (lambda t: t.pop('seed'),
     r'seed is uint32\[2\] there and missing here'),
  ],
)  # fmt: skip
def test_another_architecture_is_named(tmp_path, change, said):
  save_steps(tmp_path, 1, 2)
  like = a_tree()
  change(like)
  with pytest.raises(UserError, match=said) as error:
    restore(tmp_path, abstract(like))
  assert str(tmp_path / '2') in str(error.value)


KILLED = """
  import sys
  import numpy as np
  from jaxkd.train.checkpoint import Checkpoints

  rng = np.random.default_rng(0)
  with Checkpoints(sys.argv[1]) as checkpoints:
    for step in range(1, 4):
      noise = rng.normal(size=(2_000_000 if step == 3 else 10,))
      if step == 3:
        checkpoints.wait()
        print('ready', flush=True)
        sys.stdin.readline()
      checkpoints.save(step, {'x': noise[:10], 'noise': noise}, {'step': step})
      checkpoints.wait()
"""


def start(code, *arguments):
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def test_kill_while_saving_leaves_nothing_that_looks_finished(tmp_path):
  with start(KILLED, tmp_path) as process:
    assert process.stdout.readline() == 'ready\n'
    process.stdin.write('go\n')
    process.stdin.flush()
    while not list(tmp_path.glob('3*')):  # the save has begun
      assert process.poll() is None
    process.send_signal(signal.SIGKILL)
  left = sorted(p.name for p in tmp_path.iterdir())
  assert left[:2] == ['1', '2']
  assert left[2].startswith('3.')  # it was killed at work
  like = {'x': np.zeros(10), 'noise': np.zeros(10)}
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step() == 2
    step, tree, meta = checkpoints.restore(like)
    assert (step, meta) == (2, {'step': 2})
    np.testing.assert_array_equal(tree['x'], tree['noise'])
    checkpoints.save(3, like, {})
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2', '3']


FULL = """
  import resource, sys
  import numpy as np
  from jaxkd.errors import UserError
  from jaxkd.train.checkpoint import Checkpoints, export

  noise = np.random.default_rng(0).normal(size=(50_000,))
  with Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, {'x': noise}, {})
    checkpoints.wait()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
      checkpoints.save(2, {'x': noise}, {})
      checkpoints.wait()
    except UserError as error:
      print(error)
    try:
      export(sys.argv[2], {'params': {'x': noise}}, {})
    except UserError as error:
      print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    checkpoints.save(3, {'x': noise}, {})
"""


def test_a_write_that_fails_is_one_sentence_and_loses_nothing(tmp_path):
  run = subprocess.run(
    [
      sys.executable,
      '-c',
      textwrap.dedent(FULL),
      tmp_path / 'c',
      tmp_path / 'e',
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stderr == ''
  reason = 'cannot be written: File too large; make room there'
  first, second = run.stdout.splitlines()
  assert first.startswith(f'{tmp_path / "c"} {reason}')
  assert second.startswith(f'{tmp_path / "e"} {reason}')
  with Checkpoints(tmp_path / 'c') as checkpoints:
    assert checkpoints.latest_step() == 3
    checkpoints.save(4, {}, {})
  assert sorted(p.name for p in (tmp_path / 'c').iterdir()) == ['1', '3', '4']


@pytest.mark.parametrize(
  'write', [Checkpoints, lambda d: export(d, {'params': {}}, {})]
)
def test_a_directory_that_cannot_be_made(tmp_path, write):
  (tmp_path / 'file').write_text('')
  inside = tmp_path / 'file' / 'run'
  with pytest.raises(UserError, match=f'{inside} cannot be written: Not a dir'):
    write(inside)


def a_network(fill: float = 1.0) -> dict:
  return {
    'params': {'dense.0': {'kernel': jnp.full((2, 3), fill), 'b': jnp.ones(3)}},
    'state': {},
  }


SPEC = {'model': 'mlp', 'kw': {'widths': [3]}, 'num_classes': 3}


def test_export_and_load(tmp_path):
  export(tmp_path / 'net', a_network(), SPEC)
  variables, spec = load(tmp_path / 'net')
  assert spec == SPEC
  assert_same_bits(variables, a_network())
  export(tmp_path / 'net', a_network(2.0), {'model': 'other'})
  variables, spec = load(tmp_path / 'net')
  assert spec == {'model': 'other'}
  assert_same_bits(variables, a_network(2.0))
  assert len(list((tmp_path / 'net').iterdir())) == 1


def test_export_goes_over_what_a_killed_export_has_left(tmp_path):
  (tmp_path / '0.orbax-checkpoint-tmp').mkdir()
  export(tmp_path, a_network(), SPEC)
  assert [p.name for p in tmp_path.iterdir()] == ['0']


def test_export_leaves_what_is_not_its_own(tmp_path):
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'notes' / 'thesis.tex').write_text('')
  with pytest.raises(UserError, match='files that are not an exported network'):
    export(tmp_path / 'notes', a_network(), SPEC)
  save_steps(tmp_path / 'run', 1)
  for use in (load, lambda d: export(d, a_network(), SPEC)):
    with pytest.raises(UserError, match='run holds the checkpoints of a run'):
      use(tmp_path / 'run')
  assert restore(tmp_path / 'run')[0] == 1
  export(tmp_path / 'net', a_network(), SPEC)
  with pytest.raises(UserError, match='made by another configuration'):
    restore(tmp_path / 'net')
  with pytest.raises(TypeError, match='nested dicts with strings'):
    export(tmp_path / 'odd', {'params': (jnp.ones(2),)}, SPEC)


def test_load_says_what_is_wrong(tmp_path):
  with pytest.raises(UserError, match=r'no exported network in .*nowhere'):
    load(tmp_path / 'nowhere')
  assert not (tmp_path / 'nowhere').exists()
  export(tmp_path / 'net', a_network(), SPEC)
  for path in files_of(tmp_path / 'net' / '0' / 'arrays'):
    os.truncate(path, 0)
  with pytest.raises(UserError, match=r'network in .*net is damaged'):
    load(tmp_path / 'net')
  shutil.rmtree(tmp_path / 'net' / '0' / 'record')
  with pytest.raises(UserError, match=r'network in .*net is damaged'):
    load(tmp_path / 'net')


def test_an_error_underway_is_not_hidden(tmp_path, caplog):
  def interrupted():
    with Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(1, a_tree(), {})
      raise KeyError('mine')

  with pytest.raises(KeyError, match='mine'):
    interrupted()
  assert restore(tmp_path)[0] == 1
  assert warnings_in(caplog) == []


def test_waiting_for_the_save_before_is_not_worth_a_word(
  tmp_path, monkeypatch, caplog
):
  # As if the disk were slow: Orbax tells of any wait.
  threshold = '_WAIT_FOR_PREV_SAVE_WARNING_THRESHOLD_SECS'
  monkeypatch.setattr(checkpoint_manager, threshold, -1)
  save_steps(tmp_path, 1, 2)
  assert warnings_in(caplog) == []
  with ocp.CheckpointManager(tmp_path / 'theirs') as theirs:
    theirs.save(1, args=ocp.args.JsonSave({}))
  assert any('Waiting for previous' in said for said in warnings_in(caplog))


def test_a_folder_that_is_being_written_is_not_worth_a_word(tmp_path, caplog):
  read = metadata.metadata_store(enable_write=False).read
  with Checkpoints(tmp_path / 'mine'):
    read(tmp_path / 'missing')
  assert warnings_in(caplog) == []
  read(tmp_path / 'missing')
  assert any('does not exist' in said for said in warnings_in(caplog))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'uint8', 'bool'])
def test_the_checksum_of_what_hosts_write_together(dtype):
  values = np.random.default_rng(0).normal(size=(8, 3, 2)) * 3
  x = values.astype(jnp.dtype(dtype))
  mesh = jax.sharding.Mesh(jax.devices(), 'member')
  spread = jax.device_put(x, jax.NamedSharding(mesh, jax.P('member')))
  (here,), (there,) = _checksums([x]), _checksums([spread])
  assert int(here) == int(there)
  for at in range(0, x.nbytes, 7):
    flipped = x.copy()
    flipped.view(np.uint8).reshape(-1)[at] ^= 1
    assert int(_checksums([flipped])[0]) != int(here)


def test_runs_in_threads_save_at_the_same_time(tmp_path):
  def run(name):
    for part in range(2):
      with Checkpoints(tmp_path / name) as checkpoints:
        for step in range(5 * part, 5 * part + 5):
          checkpoints.save(step, a_tree(step), META)
      export(tmp_path / 'nets' / name, {'params': {'w': jnp.ones(3)}}, {})
    with Checkpoints(tmp_path / name) as checkpoints:
      return checkpoints.restore(abstract(a_tree()))

  with ThreadPoolExecutor(4) as pool:
    for step, tree, _ in pool.map(run, 'abcd'):
      assert step == 9
      assert tree['step'] == a_tree(9)['step']
