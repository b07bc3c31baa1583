"""Two processes of four devices each, as two hosts that share a disk."""

import io
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import chex
import pytest
from rich.console import Console

from jaxkd.run import config as configs
from jaxkd.run import pipeline
from jaxkd.train import checkpoint

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / 'experiments' / 'distill.py')

# The teachers' batches span the hosts, and so do the students as members.
CONFIG = """
  from jaxkd.run import config

  def get_config(arg=None):
    return config.complete(dict(
      task='diagnosis',  # with a metric that takes a whole split
      data=dict(
        source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
      ),
      teachers=dict(main=dict(
        kw=dict(widths=(8,)), count=2,
        train=dict(mesh=dict(member=1, data=8)),
      )),
      students=dict(student=dict(kw=dict(widths=(4,)))),
      distill=dict(soft=dict(loss='kl', teacher='main')),
      report=dict(compare=dict(better='student', than='teacher')),
      train=dict(
        optimizer=dict(name='sgd'), learning_rate=0.01, steps=6, seeds=2,
        batch_size=8, members='vmap', eval_every=3, save_every=2,
      ),
    ))
"""
# What a host does differently runs before the script: it cannot be told.
DRIVER = """
import os, runpy, signal, sys
exec(os.environ['HOOK'])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'two.py'
  path.write_text(textwrap.dedent(CONFIG))
  return path


def start(*flags, hook=''):
  flag = '--xla_force_host_platform_device_count='
  return subprocess.Popen(
    [sys.executable, '-c', DRIVER, SCRIPT, *map(str, flags)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={
      **os.environ,
      'HOOK': textwrap.dedent(hook),
      'XLA_FLAGS': os.environ['XLA_FLAGS'].replace(f'{flag}8', f'{flag}4'),
    },
  )


def both(*flags, hooks=('', ''), own=((), ()), limit=60):
  """Exit code, output and errors of two hosts that run the same command."""
  with socket.create_server(('', 0)) as free:
    port = free.getsockname()[1]
  several = (
    '--hosts=2',
    f'--coordinator=127.0.0.1:{port}',
    f'--hosts_timeout={limit}',
  )
  processes = [
    start(*flags, *several, f'--host={i}', *own[i], hook=hooks[i])
    for i in range(2)
  ]
  try:
    said = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [
    (process.returncode, *map(without_gloo, texts))
    for process, texts in zip(processes, said, strict=True)
  ]


def without_gloo(text):
  """What is left of a text without what the CPU's collectives print."""
  lines = text.splitlines(keepends=True)
  return ''.join(x for x in lines if '[Gloo]' not in x and ' peer ' not in x)


def nets(directory):
  return {
    path: checkpoint.load(directory / 'nets' / path)[0]
    for path in ('teachers/main', 'students/student/student')
  }


HALF = """
  from jaxkd.data import examples
  fetch = examples.ArrayExamples.fetch
  def told(self, indices):
    print('fetched', len(indices), file=sys.stderr)
    return fetch(self, indices)
  examples.ArrayExamples.fetch = told
"""


NUMBERS = """
  from orbax.checkpoint._src.futures import synchronization
  from jaxkd.train import checkpoint
  save = checkpoint.Checkpoints.save
  def numbered(self, step, tree, meta):
    save(self, step, tree, meta)
    if 'network' not in meta:  # which one host exports alone
      number = synchronization.OperationIdGenerator.get_current_operation_id()
      print('saved', step, 'as', number, file=sys.stderr)
  checkpoint.Checkpoints.save = numbered
"""


@pytest.fixture(scope='module')
def unbroken(file, tmp_path_factory):
  directory = tmp_path_factory.mktemp('unbroken')
  hooks = (HALF + NUMBERS,) * 2
  return directory, both(
    f'--config={file}', f'--workdir={directory}', hooks=hooks
  )


@pytest.mark.all_devices
def test_two_hosts_give_what_one_gives(unbroken, file, tmp_path):
  directory, done = unbroken
  assert [code for code, _, _ in done] == [0, 0], done
  console = Console(file=io.StringIO())
  config = configs.plain(configs.load(str(file)))
  row = pipeline.run(config, tmp_path, console=console)
  there = json.loads((directory / 'row.json').read_text())
  for mine, its in zip(row['summary'], there['summary'], strict=True):
    chex.assert_trees_all_close(mine['arms'], its['arms'], rtol=1e-5)
  chex.assert_trees_all_close(
    nets(tmp_path), nets(directory), rtol=1e-5, atol=1e-6
  )
  assert 'host' not in there['command']


def test_the_first_host_alone_prints_and_writes(unbroken):
  directory, (first, second) = unbroken
  assert 'synthetic' in first[1]
  assert second[1] == ''
  for stage in ('teachers/main', 'students/student'):
    assert len(list((directory / 'events' / stage).iterdir())) == 1
  assert (directory / 'curves.png').exists()


def test_hosts_number_their_saves_alike(unbroken):
  _, done = unbroken
  first, second = (
    [line for line in errors.splitlines() if line.startswith('saved')]
    for _, _, errors in done
  )
  assert first == second
  assert len(first) == len(set(first)) == 2 * 3  # of both stages


def test_a_host_fetches_what_its_devices_need(unbroken):
  _, done = unbroken
  whole = 2 * 8  # members × batch
  for _, _, errors in done:
    sizes = [
      int(line.split()[1]) for line in errors.splitlines() if 'fe' in line
    ]
    assert sizes.count(whole // 2) == 2 * 6  # in each step of both stages
    assert sizes.count(whole) < 2 * 6


FULL = """
  import resource
  from jaxkd.train import checkpoint
  save = checkpoint.Checkpoints.save
  def on_a_full_disk(self, step, *rest):
    if step == 4 and 'students' in str(self._directory):
      resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))
    return save(self, step, *rest)
  checkpoint.Checkpoints.save = on_a_full_disk
"""
SIGNAL = """
  import itertools
  import time
  from jaxkd.train.population import Population
  step, count = Population.step, itertools.count(1)
  def slow(self, *rest):
    time.sleep(0.5)  # the signal is looked for once a second
    if next(count) == {at}:
      os.kill(os.getpid(), signal.{name})
    return step(self, *rest)
  Population.step = slow
"""


def test_whatever_ends_the_hosts_the_run_goes_on(unbroken, file, tmp_path):
  command = (f'--config={file}', f'--workdir={tmp_path}')
  stopped = both(
    *command,
    hooks=(
      SIGNAL.format(at=0, name='SIGTERM'),
      SIGNAL.format(at=1, name='SIGTERM'),
    ),
  )
  assert [code for code, _, _ in stopped] == [143, 143]
  assert 'stopped after step' in stopped[0][1]

  full = both(*command, hooks=('', FULL))
  for code, _, errors in full:
    assert code == 2
    assert 'checkpoints/students/student cannot be written: File to' in errors
  left = (tmp_path / 'checkpoints' / 'students' / 'student').iterdir()
  assert {p.name for p in left} == {'2', '4.orbax-checkpoint-tmp'}

  killed = both(
    *command,
    limit=20,
    hooks=('', SIGNAL.format(at=3, name='SIGKILL')),
  )
  assert killed[1][0] == -9
  assert killed[0][0] not in (0, None)  # and has ended
  assert not (tmp_path / 'row.json').exists()

  done = both(*command)
  assert [code for code, _, _ in done] == [0, 0], done
  chex.assert_trees_all_equal(nets(tmp_path), nets(unbroken[0]))


def test_another_config_on_one_host(file, tmp_path):
  other = ['--config.train.learning_rate=0.5']
  done = both(
    f'--config={file}', f'--workdir={tmp_path / "run"}', own=((), other)
  )
  for code, out, errors in done:
    assert code == 2
    assert out == ''
    assert errors == (
      'error: host 1 has another config than host 0: train.learning_rate is '
      '0.5 on host 1 and 0.01 on host 0; start the same command, with the same '
      'files, on all\n'
    )
  assert not (tmp_path / 'run').exists()


OTHER = """
  import functools
  from jaxkd.data.sources import images as sources
  synthetic = sources.synthetic
  @functools.wraps(synthetic)
  def with_another_label(**options):
    made = synthetic(**options)
    made.splits['test'].labels[0] += 1
    made.splits['test'].labels[0] %= 3
    return made
  sources.synthetic = with_another_label
"""


def test_other_data_on_one_host(file, tmp_path):
  done = both(
    f'--config={file}', f'--workdir={tmp_path / "run"}', hooks=('', OTHER)
  )
  for code, _, errors in done:
    assert code == 2
    assert errors.startswith(
      'error: host 1 has another provenance than host 0: '
      'data.source (labels of test) is '
    )
  assert not (tmp_path / 'run').exists()


def test_a_first_host_that_is_not_there(file, tmp_path):
  with socket.create_server(('', 0)) as free:
    port = free.getsockname()[1]
  several = [
    '--hosts=2',
    f'--coordinator=127.0.0.1:{port}',
    '--hosts_timeout=2',
  ]
  process = start(
    f'--config={file}', f'--workdir={tmp_path / "run"}', '--host=1', *several
  )
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 2
  assert errors.startswith('error: --hosts: the hosts have not all come togeth')
  assert errors.count('\n') == 1
  assert not (tmp_path / 'run').exists()
