"""What a run keeps may be in a bucket, where nothing is renamed or locked."""

import contextlib
import json
import logging
import os
import sys
import time
import types

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxkd
from jaxkd import files, locks
from jaxkd.data import cache
from jaxkd.errors import UserError
from jaxkd.report import __main__ as report
from jaxkd.report import progress, rows
from jaxkd.run import config as configs
from jaxkd.run import pipeline, workdir
from jaxkd.train import checkpoint

WHERE = 'gs://bucket/runs/mine'


def place(text=WHERE):
  return files.path(text, at='--workdir', remote=True)


@pytest.mark.parametrize('text', ['gs://', 'gs://bucket', 'gs://bucket/'])
def test_a_bucket_alone_is_no_folder(bucket, text):
  with pytest.raises(UserError, match='names no folder in a bucket'):
    place(text)


def test_other_stores_are_refused(bucket):
  with pytest.raises(UserError, match=r"--workdir: 's3://b/x' is not on a loc"):
    place('s3://b/x')


def test_without_the_package_that_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gcsfs', None)
  with pytest.raises(UserError, match=r'--workdir: .*jaxkd\[gcs\]'):
    place()


def test_variables_stand_for_buckets_too(bucket, monkeypatch):
  monkeypatch.setenv('RUNS', 'gs://bucket/runs')
  assert str(place('$RUNS/mine/')) == WHERE
  assert files.absolute(place()) == place()


def test_files_appear_whole_or_not_at_all(bucket):
  file = place() / 'sub' / 'x.txt'
  with contextlib.suppress(KeyError), files.replacing(file) as draft:
    draft.write_text('half')
    raise KeyError
  assert not bucket.names()
  files.write_text(file, 'one')
  files.write_text(file, 'grüß')
  assert file.read_text() == 'grüß'
  assert files.below(place()) == {'sub/x.txt': 6}
  assert files.below(file) == {}
  files.remove(place())
  files.remove(place())
  assert not bucket.names()


def test_what_is_refused_is_said(bucket):
  bucket.refuses = 'x.txt'
  with pytest.raises(
    UserError, match=f'{WHERE}/x.txt cannot be written: Forbidden: .*; look at'
  ):
    files.write_text(place() / 'x.txt', 'text')


def taken(text=WHERE):
  return locks.locked(place(text), at='--workdir')


def test_a_lock_keeps_others_out_and_is_given_back(bucket, monkeypatch):
  monkeypatch.setattr(locks, 'BEAT', 0.05)
  with taken():
    # Its process lives, so only signs of life tell that it is at work.
    with (
      pytest.raises(
        UserError, match=f'process {os.getpid()} on .* is at work in {WHERE};'
      ),
      taken(),
    ):
      pass
    assert locks.owner(place()).startswith(f'process {os.getpid()} on ')
  with taken():
    pass
  assert bucket.names() == ['bucket/runs/mine/.lock/00000002']


def left_by(store, **facts):
  held = json.dumps({'owner': 'process 7 on another', **facts}).encode()
  store.put('bucket/runs/mine/.lock/00000004', held)


def test_the_lock_of_a_process_that_gives_no_sign_is_taken(
  bucket, monkeypatch, caplog
):
  monkeypatch.setattr(locks, 'STALE', 0.2)
  left_by(bucket)
  begun = time.monotonic()
  with caplog.at_level(logging.WARNING), taken():
    assert time.monotonic() - begun >= 0.2
    assert bucket.names() == ['bucket/runs/mine/.lock/00000005']
  assert 'no sign of process 7 on another for 0 s; its lock' in caplog.text


@pytest.mark.skipif(not locks._machine(), reason='the system does not tell')
def test_a_process_that_died_here_is_not_waited_for(bucket):
  left_by(bucket, machine=locks._machine(), pid=2**30)
  begun = time.monotonic()
  with taken():
    assert time.monotonic() - begun < locks.STALE / 2


def test_the_faster_of_two_has_it(bucket, monkeypatch):
  create = locks._write

  def late(place, number, **facts):
    if facts.get('mode') == 'create':
      left_by(bucket)  # as another process does at the same time
      monkeypatch.setattr(locks, '_write', create)
    create(place, number, **facts)

  bucket.put('bucket/runs/mine/.lock/00000003', b'{"free": true}')
  monkeypatch.setattr(locks, '_write', late)
  with pytest.raises(UserError, match='process 7 on another is at'), taken():
    pass


def test_one_that_was_taken_for_dead_stops(bucket, monkeypatch):
  monkeypatch.setattr(locks, 'BEAT', 0.02)
  config, console = {'report': {'wandb': ''}}, Console(quiet=True)
  with taken() as check:
    writers = progress.writers(config, place(), check)
    reporter = progress.Reporter(console, 'top1', writers)
    with reporter.stage('students/s', 2) as on_log:
      on_log(1, {'loss': np.ones(1)})
      left_by(bucket)
      message = 'process 7 on another has taken .*; leave the run to it'
      with pytest.raises(UserError, match=message):
        log_for_ten_seconds(on_log)
  # It leaves the lock to the other.
  assert 'bucket/runs/mine/.lock/00000004' in bucket.names()
  assert locks.owner(place()) == 'process 7 on another'


def log_for_ten_seconds(on_log):
  for _ in range(500):
    on_log(2, {'loss': np.ones(1)})
    time.sleep(0.02)


def test_a_cache_that_was_cut_short_goes_on(bucket, tmp_path):
  layout = cache.Layout(
    {'logits': jax.ShapeDtypeStruct((3,), np.float32)}, 2, 5, 1
  )
  facts, at = {'teacher': 'abc'}, 'teachers.main.cache'
  folder = place() / 'outputs' / 'main'
  rows = np.arange(30, dtype=np.float32).reshape(2, 5, 3)
  for line in range(2):
    with (
      contextlib.suppress(InterruptedError),
      cache.drafted(folder, layout, facts, at) as draft,
    ):
      assert [each[0] for each in draft.missing()] == [*range(line, 2)]
      draft.write(line, 0, {'logits': rows[line]})
      assert not cache.find(folder, layout, facts, at)
      if line == 0:
        raise InterruptedError
  assert cache.find(folder, layout, facts, at)
  kept = cache.Cache(folder, layout, at)
  np.testing.assert_array_equal(kept.span(0, 5)['logits'], rows)
  with pytest.raises(UserError, match='was made with another teacher'):
    cache.find(folder, layout, {'teacher': 'other'}, at)


def test_checkpoints_and_nets(bucket):
  tree = {'a': np.arange(5.0), 'b': {'c': np.ones((2, 3), np.float32)}}
  with checkpoint.Checkpoints(place() / 'checkpoints' / 's', keep=1) as kept:
    kept.save(1, tree, {})
    kept.save(2, {**tree, 'a': 2 * tree['a']}, {'at': 2})
    step, found, meta = kept.restore(tree)
  assert (step, meta) == (2, {'at': 2})
  np.testing.assert_array_equal(found['a'], 2 * tree['a'])
  assert not [n for n in bucket.names() if '/s/1/' in n]
  # One that has no end is none: the process was killed as it wrote it.
  bucket.put('bucket/runs/mine/checkpoints/s/3/arrays/d/x', b'')
  with checkpoint.Checkpoints(place() / 'checkpoints' / 's', keep=1) as kept:
    assert kept.latest_step() == 2
  for number in range(2):
    checkpoint.export(place() / 'nets', tree, {'number': number})
  assert checkpoint.description(place() / 'nets') == {'number': 1}


def test_a_folder_belongs_to_one_run(bucket):
  one, other = '{"a": 1}', '{"a": 2}'
  origin = {workdir.VERSION: '1', 'data': 'x'}
  with taken():
    workdir.check_shared(place())
    assert not workdir.holds(place(), one)
    assert workdir.enter(place(), one, origin, overwrite=False) == origin
    assert workdir.holds(place(), one)
    files.write_text(place() / 'nets' / 'x', 'of a net')
    with pytest.raises(UserError, match='in which a is 1 and not 2'):
      workdir.enter(place(), other, origin, overwrite=False)
    changed = {**origin, 'data': 'y'}
    with pytest.raises(UserError, match='data has changed since'):
      workdir.enter(place(), one, changed, overwrite=False)
    workdir.enter(place(), other, origin, overwrite=True)
  assert workdir.holds(place(), other)
  assert not [name for name in bucket.names() if '/nets/' in name]


def test_a_bucket_that_cannot_be_read_holds_no_other_run(bucket, monkeypatch):
  def forbidden(*args, **kwargs):
    raise OSError('Forbidden: you have no storage.objects.get access')

  monkeypatch.setattr(bucket.system, '_open', forbidden)
  with pytest.raises(UserError, match=r'cannot be read: Forbidden: .*; look'):
    workdir.holds(place(), '{}')
  with pytest.raises(UserError, match=r'row\.json cannot be read: Forb'):
    rows.load(place() / 'row.json')


def test_events_are_copied_now_and_then(bucket, tmp_path, monkeypatch):
  ends = []
  for where in (place(), tmp_path):
    with progress.tensorboard(where)('students/s') as write:
      sizes = set()
      for step in range(3):
        write(step, {'loss': np.ones(2)})
        sizes |= {*files.below(where).values()}
    ends.append(*files.below(where).values())
    assert len(sizes) == (1 if where == place() else 3)
  assert ends[0] == ends[1] > min(sizes)
  bucket.refuses = 'events'
  message = r'students/s cannot be written: Forbidden'
  with (
    pytest.raises(UserError, match=message),
    progress.tensorboard(place())('students/s'),
  ):
    pass


def test_weights_and_biases_has_its_files_here(bucket, monkeypatch):
  given = []

  def init(**settings):
    given.append(settings)
    run = types.SimpleNamespace(step=0, log=lambda values, step: None)
    return contextlib.nullcontext(run)

  module = types.ModuleType('wandb')
  module.init = init
  monkeypatch.setitem(sys.modules, 'wandb', module)
  for _ in range(2):
    with progress.wandb('project', place(), {'name': 'x'})('students/s'):
      pass
  assert [each['dir'] for each in given] == [None, None]
  assert given[0]['id'] == given[1]['id']
  assert bucket.names() == ['bucket/runs/mine/wandb/key']


def small():
  given = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=60)
    ),
    teachers=dict(
      main=dict(
        kw=dict(widths=(4,)),
        cache=dict(outputs=('logits',)),
        train=dict(steps=2),
      )
    ),
    students=dict(student=dict(kw=dict(widths=(4,)))),
    distill=dict(soft=dict(loss='kl', teacher='main')),
    report=dict(compare=dict(better='student', than='teacher')),
    train=dict(steps=4, seeds=1, batch_size=8, members='vmap'),
  )
  return configs.plain(configs.complete(given))


def test_a_run_in_a_bucket_is_the_run_on_a_disk(bucket, tmp_path, capsys):
  config, console = small(), Console(quiet=True)
  # It stops where the bucket takes no more, and goes on where it does.
  bucket.refuses = 'students/.*commit_success'
  message = 'checkpoints/students/student cannot be written: .*Forbidden'
  with pytest.raises(UserError, match=message):
    pipeline.run(config, WHERE, console=console)
  assert any('/nets/teachers/main/' in name for name in bucket.names())
  bucket.refuses = ''
  row = pipeline.run(config, WHERE, console=console)
  local = pipeline.run(config, tmp_path / 'run', console=console)
  for name in ('arms', 'metrics', 'comparison', 'provenance'):
    assert row[name] == local[name]
  there = {name.partition('/')[0] for name in files.below(place())}
  assert there - {'.lock'} == {p.name for p in (tmp_path / 'run').iterdir()} - {
    '.lock'
  }
  nets = [jaxkd.load(where)[1] for where in (WHERE, tmp_path / 'run')]
  for a, b in zip(*map(jax.tree.leaves, nets), strict=True):
    np.testing.assert_array_equal(a, b)
  again = pipeline.run(config, WHERE, console=console)
  assert again == row
  other = configs.put(config, 'train.steps', 5)
  with pytest.raises(UserError, match='it holds the run of another'):
    pipeline.run(other, WHERE, console=console)
  assert report.main(['compare', WHERE, str(tmp_path / 'run')]) == 0
  assert 'mine  synthetic' in capsys.readouterr().out
