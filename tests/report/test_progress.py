import builtins
import contextlib
import errno
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.report import progress


def show(terminal, steps=20, every=2):
  out = io.StringIO()
  seen = []
  console = Console(file=out, force_terminal=terminal, width=100)

  @contextlib.contextmanager
  def writer(stage):
    yield lambda step, means: seen.append((step, means))

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
  assert len(lines) == 4
  assert lines[-1].split()[:2] == ['students/distilled', '20/20']
  assert 'loss 1.5000  top1 1.0000' in lines[-1]
  assert [step for step, _ in seen] == list(range(2, 21, 2))
  assert seen[0][1]['train/loss'] == 1.5


def test_bars_on_a_terminal():
  text, _ = show(terminal=True)
  assert 'students/distilled' in text
  assert '20/20' in text
  assert 'loss 1.5000' in text


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


def test_a_missing_weights_and_biases_is_said(monkeypatch, tmp_path):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name == 'wandb':
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without)
  with pytest.raises(UserError, match=r'report.wandb: .*pip install'):
    progress.wandb('project', tmp_path, {})
