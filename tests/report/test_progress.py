import contextlib
import errno
import io
import json
import os
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rich.console import Console

import jaxkd
from jaxkd.data import passes
from jaxkd.errors import Stopped, UserError
from jaxkd.report import progress


def show(terminal, steps=20, every=2):
  out = io.StringIO()
  seen = []
  console = Console(file=out, force_terminal=terminal, width=100)

  @contextlib.contextmanager
  def writer(stage):
    yield lambda step, values: seen.append((step, values))

  reporter = progress.Reporter(console, 'top1', [writer])
  with reporter.stage('students/distilled', steps) as on_log:
    for step in range(every, steps + 1, every):
      on_log(
        step,
        {'train/loss': np.array([1.0, 2.0]), 'validation/top1': np.ones(2)},
      )
  return out.getvalue(), seen


def test_lines_where_there_is_no_terminal():
  text, seen = show(terminal=False)
  lines = text.splitlines()
  assert [line.split()[1] for line in lines] == ['2/20', '20/20']
  assert '\x1b' not in text
  assert lines[-1].split()[:2] == ['students/distilled', '20/20']
  assert 'loss 1.5000  top1 1.0000' in lines[-1]
  assert [step for step, _ in seen] == list(range(2, 21, 2))
  np.testing.assert_array_equal(seen[0][1]['train/loss'], [1, 2])


def test_bars_on_a_terminal():
  text, _ = show(terminal=True)
  assert 'students/distilled' in text
  assert '20/20' in text
  assert 'loss 1.5000' in text


@pytest.mark.parametrize('terminal', [False, True])
def test_of_a_grid_the_range_is_told_and_no_mean(terminal, tmp_path, client):
  out, seen = io.StringIO(), []
  console = Console(file=out, force_terminal=terminal, width=120)

  @contextlib.contextmanager
  def writer(stage):
    yield lambda step, values: seen.append((step, values))

  wandb = progress.wandb('project', tmp_path, {'name': 'mine'})
  reporter = progress.Reporter(
    console, 'top1', [writer, progress.tensorboard(tmp_path), wandb]
  )
  stage, over = 'tuning/distilled/0', '2 points'
  with reporter.stage(stage, 8, over) as on_log:
    on_log(4, {'loss': np.array([9.0, 1.0, 2.0, 3.0])})
    on_log(
      8,
      {
        'train/loss': np.array([3.0, 1.0, 2.0]),  # one has diverged
        'validation/top1': np.array([0.13, 0.24, 0.2]),
      },
    )
  text = out.getvalue()
  assert 'top1 0.130 to 0.240 over 2 points' in text
  assert 'loss' not in text  # points may weigh it otherwise
  last = {
    'train/loss/lowest': 1.0,
    'train/loss/highest': 3.0,
    'validation/top1/lowest': 0.13,
    'validation/top1/highest': 0.24,
  }
  assert seen == [(4, {'loss/lowest': 1.0, 'loss/highest': 9.0}), (8, last)]
  (file,) = (tmp_path / stage).iterdir()
  assert b'validation/top1/highest' in file.read_bytes()
  (run,) = client.runs.values()
  assert run.logged[-1] == (8, last)


def test_stages_at_the_same_time_share_the_terminal(tmp_path):
  out = io.StringIO()
  console = Console(file=out, force_terminal=True, width=100)
  reporter = progress.Reporter(
    console, 'top1', [progress.tensorboard(tmp_path)]
  )
  meet = threading.Barrier(2, timeout=60)

  def stage(name, loss):
    with reporter.stage(f'teachers/{name}', 20) as on_log:
      meet.wait()
      on_log(20, {'train/loss': np.array([loss])})
      meet.wait()

  with ThreadPoolExecutor(2) as pool:
    list(pool.map(stage, 'ab', (1.0, 2.0)))
  text = out.getvalue()
  last = text[min(text.rindex(f'teachers/{name}') for name in 'ab') :]
  assert 'loss 1.0000' in last
  assert 'loss 2.0000' in last
  (a,) = (tmp_path / 'teachers' / 'a').iterdir()
  (b,) = (tmp_path / 'teachers' / 'b').iterdir()
  assert a.stat().st_size == b.stat().st_size
  with reporter.stage('teachers/c', 20) as on_log:  # a display of its own
    on_log(20, {})
  after = out.getvalue()[len(text) :]
  assert 'teachers/c' in after
  assert 'teachers/a' not in after


def test_tensorboard_events_without_tensorflow(tmp_path):
  with progress.tensorboard(tmp_path)('students/distilled') as write:
    write(3, {'train/loss': 0.5})
  (file,) = (tmp_path / 'students' / 'distilled').iterdir()
  assert b'train/loss' in file.read_bytes()


def test_a_full_disk_is_one_sentence_and_hides_nothing(tmp_path, monkeypatch):
  from tensorboardX import record_writer

  full = []

  class Disk:
    def write(self, data=b''):
      if full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flush = close = write

  monkeypatch.setattr(record_writer, 'open_file', lambda path: Disk())
  open_ = progress.tensorboard(tmp_path)

  def log():
    with open_('students') as write:
      full.append(True)
      write(3, {'train/loss': 0.5})

  def fail():
    with open_('students'):
      full.append(True)
      raise ZeroDivisionError

  message = r'^\S*/students cannot be written: No space left on device; make'
  with pytest.raises(UserError, match=message):
    log()
  with pytest.raises(UserError, match=message):
    open_('students').__enter__()
  full.clear()
  with pytest.raises(ZeroDivisionError):
    fail()


def test_a_folder_for_events_that_cannot_be_made(tmp_path):
  (tmp_path / 'events').write_text('a file')
  open_ = progress.tensorboard(tmp_path / 'events')
  with pytest.raises(UserError, match='cannot be written: Not a directory'):
    open_('students').__enter__()


class Client:
  """What is used of the package wandb, as its documentation has it."""

  def __init__(self):
    self.runs, self.begun, self.__name__ = {}, [], 'wandb'

  def init(self, *, id, resume, **given):
    assert resume == 'allow'
    self.begun.append((id, given))
    run = self.runs.setdefault(id, Run())
    assert not run.open
    return run


class Run:
  def __init__(self):
    self.logged, self.summary, self.open, self.exits = [], {}, False, []

  @property
  def step(self):
    return self.logged[-1][0] + 1 if self.logged else 0

  def __enter__(self):
    self.open = True
    return self

  def __exit__(self, kind, error, traceback):
    self.open = False
    self.exits.append(kind)

  def log(self, values, step):
    assert step >= self.step, 'it drops what comes late, with a warning'
    self.logged.append((step, values))


@pytest.fixture
def client(monkeypatch):
  made = Client()
  monkeypatch.setitem(sys.modules, 'wandb', made)
  return made


def logged(writer, stage, *steps, error=None):
  with contextlib.suppress(KeyError), writer(stage) as write:
    for step in steps:
      write(step, {'train/loss': np.array([step, step + 2.0])})
    if error:
      raise error


def test_weights_and_biases_has_one_run_for_each_population(client, tmp_path):
  config = {'name': 'mine', 'train': {'seeds': 2}, 'some': (1, 2)}
  writer = progress.wandb('project', tmp_path, config)
  logged(writer, 'students/distilled', 5, 10, error=KeyError())
  # After the run was cut short, another process goes on from a checkpoint.
  writer = progress.wandb('project', tmp_path, config)
  logged(writer, 'students/distilled', 10, 15)
  logged(writer, 'r02/teachers/main', 5)
  logged(writer, 'tuning/distilled/0', 5)
  logged(writer, 'outputs/teachers/main', 5)  # which is no population
  writer.tested('students/distilled', {'test/top1': np.array([0.5, 1.0])})
  writer.tested('r02/teachers/main', {'test/top1': np.array([0.5])})
  students, teachers, tuning = client.runs.values()
  values = {'train/loss': 16.0, 'train/loss/0': 15.0, 'train/loss/1': 17.0}
  assert [step for step, _ in students.logged] == [5, 10, 15]
  assert students.logged[-1] == (15, values)
  assert students.summary == {
    'test/top1': 0.75,
    'test/top1/0': 0.5,
    'test/top1/1': 1.0,
  }
  assert students.exits == [KeyError, None, None]
  assert teachers.summary == {'test/top1': 0.5}
  by_seed = {'train/loss/0': 5.0, 'train/loss/1': 7.0}
  assert tuning.logged == [(5, {'train/loss': 6.0, **by_seed})]
  first, *_ = given = [given for _, given in client.begun]
  assert first['project'] == 'project'
  assert first['name'] == 'mine/students/distilled'
  assert first['config'] == json.loads(
    json.dumps({**config, 'job': 'students/distilled'})
  )
  assert [each['job_type'] for each in given[1:4]] == [
    'students', 'teachers', 'tuning',
  ]  # fmt: skip
  (group,) = {each['group'] for each in given}
  assert group.startswith('mine-')
  assert not any(set(id) & set(r'/\#?%:') for id, _ in client.begun)


def test_another_workdir_has_other_runs(client, tmp_path):
  for directory in (tmp_path / 'a', tmp_path / 'b'):
    logged(progress.wandb('p', directory, {'name': 'x'}), 'students/s', 5)
  assert len(client.runs) == 2
  assert len({given['group'] for _, given in client.begun}) == 2


@pytest.mark.parametrize('there', [None, types.ModuleType('wandb')])
def test_a_missing_weights_and_biases_is_said(there, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'wandb', there)  # None or a bare folder
  with pytest.raises(UserError, match=r'report.wandb: .*pip install'):
    progress.wandb('project', tmp_path, {})
  config = dict(
    data=dict(source='digits'),
    students=dict(student={}),
    report=dict(wandb='project'),
  )
  with pytest.raises(UserError, match=r'report.wandb: .*pip install'):
    jaxkd.run(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_a_pass_that_is_shown_stops_when_asked(monkeypatch):
  monkeypatch.setattr(passes, 'PATIENCE', -1.0)
  stop, seen = threading.Event(), []

  def decode():
    for item in passes.over(range(1000), 'decoding'):
      seen.append(item)
      if item == 300:
        stop.set()

  with (
    progress.shows_passes(Console(file=io.StringIO()), stop),
    pytest.raises(Stopped, match='stopped while decoding'),
  ):
    decode()
  assert 300 < seen[-1] < 999
