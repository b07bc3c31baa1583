"""Whole runs, as small as they can be."""

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import jaxkd
from jaxkd import tasks
from jaxkd.data import cache, sources
from jaxkd.errors import UserError
from jaxkd.report import rows
from jaxkd.run import (
  checks,
  export,
  job_checks,
  pipeline,
  train_job,
  tuning,
  workdir,
)
from jaxkd.run import config as configs
from jaxkd.students import stored
from jaxkd.train import checkpoint, sharding
from jaxkd.train.population import Population

ROOT = Path(__file__).parents[2]
# The methods, which are many, are traced in test_methods.py, side by side.
CONFIGS = [
  file
  for file in sorted((ROOT / 'configs').glob('*.py'))
  if not file.stem.startswith('methods_compared')
]


def small(**changes):
  """A run of a second or two; changes are entries of the config."""
  given = dict(
    name='small',
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
    ),
    teachers=dict(
      main=dict(model='mlp', kw=dict(widths=(8,)), train=dict(steps=6))
    ),
    students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
    distill=dict(
      labels=dict(loss='cross_entropy'), soft=dict(loss='kl', teacher='main')
    ),
    arms=dict(student=dict(distill=dict(soft=dict(weight=0.0))), distilled={}),
    train=dict(
      steps=6,
      seeds=2,
      batch_size=8,
      members='vmap',
      eval_every=3,
      save_every=2,
      learning_rate=0.01,
    ),
  )
  return configs.plain(configs.complete({**given, **changes}))


def run(config, directory, **kw):
  console = Console(file=io.StringIO())
  return pipeline.run(config, directory, console=console, **kw)


def found(row):
  """What a row says of the nets, without what depends on the clock."""
  kept = ('arms', 'metrics', 'comparison', 'comparisons', 'summary')
  return {key: row[key] for key in kept}


def nets(directory):
  """All exported arrays of a run, by folder and path."""
  steps = [p for p in (directory / 'nets').rglob('*') if p.name.isdigit()]
  return {
    str(step.parent.relative_to(directory)): checkpoint.load(step.parent)[0]
    for step in sorted(steps)
  }


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  directory = tmp_path_factory.mktemp('finished')
  return directory, run(small(), directory)


@pytest.mark.parametrize(
  'file', CONFIGS, ids=lambda p: str(p.relative_to(ROOT / 'configs'))
)
def test_every_config_runs_tiny(
  file, of_the_claim, seldom, request, tmp_path, monkeypatch
):
  """A step of every arm is traced; those of the claim run, or all if asked."""
  config = configs.plain(configs.load(f'{file}:tiny'))
  if not request.config.getoption('every_arm'):
    whole, config = config, of_the_claim(config)
    check = job_checks.check

    def traced_if_it_does_not_run(session, job):
      kind, name = job.stage.split('/')[-2:]
      if name not in config['arms' if kind == 'students' else 'teachers']:
        check(session, job)

    with monkeypatch.context() as patched:
      patched.setattr(job_checks, 'check', traced_if_it_does_not_run)
      checks.prepare(whole, tmp_path)
  row = run(seldom(config), tmp_path)
  rows.check(row, at=file.stem)
  assert set(row['arms']) >= set(config['arms'])
  for name in (
    'config.json',
    'row.json',
    'report.html',
    'curves.png',
    'events',
  ):
    assert (tmp_path / name).exists()
  shows = hasattr(tasks.find(config['task']), 'show')
  assert shows == (tmp_path / 'shown').exists()


def test_a_row_has_what_it_takes_to_trust_it(finished):
  directory, row = finished
  assert row == rows.load(directory / 'row.json')
  assert set(row['arms']) == {'teacher', 'student', 'distilled'}
  assert len(row['arms']['distilled']['values']) == 2
  assert row['comparison']['seeds'] == 2
  difference = np.subtract(
    row['arms']['distilled']['values'], row['arms']['student']['values']
  )
  assert row['comparison']['mean_difference'] == pytest.approx(
    difference.mean()
  )
  assert row['params'] == {'teacher': 163, 'student': 83}
  assert 0 < row['cost']['teacher_share'] < 1
  for kind in ('step_flops', 'step_bytes'):
    assert row['cost'][kind]['distilled'] > row['cost'][kind]['student'] > 0
  assert 'agreement' in row['metrics']['student']
  assert any('share the teachers' in note for note in row['notes'])
  assert row['device'] and row['versions']['jax'] == jax.__version__


def test_the_student_can_be_loaded_and_predicts(finished):
  directory, _ = finished
  images = np.zeros((5, 4, 4, 1), np.float32)
  net, variables = jaxkd.load(directory)
  outputs, _ = net.apply(variables, images)
  assert outputs['logits'].shape == (5, 3)
  net, other = jaxkd.load(directory, arm='student', member=1)
  assert not np.allclose(
    net.apply(other, images + 1)[0]['logits'],
    net.apply(variables, images + 1)[0]['logits'],
  )
  with pytest.raises(UserError, match=r"no arm 'studnet'.*'student'"):
    jaxkd.load(directory, arm='studnet')
  with pytest.raises(UserError, match='member 2 is not'):
    jaxkd.load(directory, member=2)


def test_a_finished_run_is_shown_again_and_never_mixed(finished):
  directory, row = finished
  before = (directory / 'row.json').stat().st_mtime_ns
  console = Console(file=io.StringIO(), width=200)
  assert pipeline.run(small(), directory, console=console) == row
  assert console.file.getvalue() == (
    f'finished on {row["finished"]}, not run again (--overwrite does)\n'
  )
  assert (directory / 'row.json').stat().st_mtime_ns == before
  other = configs.put(small(), 'train.seed', 7)
  with pytest.raises(UserError, match=r'train.seed is 0 and not 7.*overwrite'):
    run(other, directory)


def test_overwrite_removes_only_what_a_run_made(tmp_path):
  (tmp_path / 'mine.txt').write_text('keep me')
  run(small(), tmp_path)
  other = configs.put(small(), 'train.seed', 7)
  assert run(other, tmp_path, overwrite=True)['arms']
  assert (tmp_path / 'mine.txt').read_text() == 'keep me'
  assert (
    json.loads((tmp_path / 'config.json').read_text())['train']['seed'] == 7
  )


def test_workdirs_that_cannot_be(tmp_path):
  file = tmp_path / 'file'
  file.write_text('')
  with pytest.raises(UserError, match='cannot be written'):
    workdir.enter(file / 'sub', '{}', {}, overwrite=False)
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(UserError, match='it is not known whose'):
    workdir.enter(tmp_path, '{}', {}, overwrite=False)


def test_stopped_anywhere_it_ends_as_an_unbroken_run(tmp_path):
  """Stopped at every stage in turn, through the event that SIGTERM sets."""
  steps = dict(steps=3, eval_every=2)
  config = small(train={**small()['train'], **steps})
  config = configs.put(config, 'teachers.main.train.steps', 3)
  row = run(config, tmp_path / 'whole')
  stop = threading.Event()
  stop.set()
  stops = 0
  while True:
    try:
      again = run(config, tmp_path / 'broken', stop=stop)
      break
    except pipeline.Stopped:
      stops += 1
      assert not (tmp_path / 'broken' / 'row.json').exists()
  assert stops == 3 * 2  # after each step but the last, of three stages
  assert found(again) == found(row)
  assert again['wall_s'] is None
  jax.tree.map(
    np.testing.assert_array_equal,
    nets(tmp_path / 'broken'),
    nets(tmp_path / 'whole'),
  )


def script(directory, *flags):
  demo = f'{ROOT}/configs/hinton2015_soft_targets.py:tiny'
  return [
    sys.executable,
    f'{ROOT}/experiments/distill.py',
    f'--config={demo}',
    f'--workdir={directory}',
    '--config.train.save_every=2',
    '--config.train.steps=30',
    *flags,
  ]


def test_killed_and_resumed_it_is_bit_identical(tmp_path):
  """kill -9 in the middle of training, then the same command again."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  subprocess.run(script(whole), check=True, capture_output=True)
  process = subprocess.Popen(
    script(broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  folder = broken / 'checkpoints' / 'students' / 'distilled'
  deadline = time.time() + 120
  while not (
    folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())
  ):
    assert process.poll() is None and time.time() < deadline
    time.sleep(0.01)
  process.kill()
  process.wait()
  assert not (broken / 'row.json').exists()
  process = subprocess.Popen(
    script(broken), stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  os.kill(process.pid, 0)
  output, errors = process.communicate()
  assert process.returncode == 0, errors.decode()
  assert b'distilled' in output
  jax.tree.map(np.testing.assert_array_equal, nets(broken), nets(whole))
  assert found(rows.load(broken / 'row.json')) == found(
    rows.load(whole / 'row.json')
  )


def test_sigterm_saves_and_leaves(tmp_path):
  process = subprocess.Popen(
    script(
      tmp_path, '--config.train.steps=100000', '--config.train.save_every=50000'
    ),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  started = tmp_path / 'events' / 'students'
  deadline = time.time() + 120
  while not started.is_dir():
    assert process.poll() is None and time.time() < deadline
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  output, errors = process.communicate()
  assert process.returncode == 143, errors
  assert 'run the same command to go on' in ' '.join(output.split())
  assert 'Traceback' not in errors


def test_adding_a_term_moves_no_other_draw(tmp_path):
  """Of weight so small that the result cannot tell, but it does draw."""
  extra = dict(
    labels=dict(loss='cross_entropy'),
    aaa=dict(loss='logit_mse', teacher='main', weight=1e-30),
    soft=dict(loss='kl', teacher='main'),
  )
  noisy = dict(
    student=dict(model='mlp', kw=dict(widths=(4,), dropout=0.5),
                 views=dict(train='noise(0.3)'))
  )  # fmt: skip
  first = run(small(students=noisy), tmp_path / 'a')
  second = run(small(students=noisy, distill=extra), tmp_path / 'b')
  assert first['arms'] == second['arms']
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    nets(tmp_path / 'a')['nets/students/distilled/student'],
    nets(tmp_path / 'b')['nets/students/distilled/student'],
  )


def test_several_groups_each_seed_its_own_and_rounds(tmp_path):
  """Two groups fused, teachers of each seed, and a second generation."""
  row = run(
    small(
      teachers=dict(
        one=dict(kw=dict(widths=(8,)), count=2, per_seed=True),
        two=dict(kw=dict(widths=(6,)), views=dict(train='blur(0.5)')),
      ),
      distill=dict(
        labels=dict(loss='cross_entropy'),
        soft=dict(loss='kl', teacher=('one', 'two'), fuse='mean_probabilities'),
      ),
      arms=dict(
        student=dict(distill=dict(soft=dict(weight=0.0))),
        distilled=dict(),
        each=dict(distill=dict(soft=dict(fuse=''))),
      ),
      rounds=dict(
        r01={},
        r02=dict(
          teachers=dict(
            one=dict(
              kw=dict(widths=(4,)),
              count=1,
              restore='r01/students/student',
            )
          )
        ),
      ),
      report=dict(compare=dict(better='r02/distilled', than='r01/student')),
    ),
    tmp_path,
  )
  for together in ('', ' ensemble'):  # one value for each seed
    assert len(row['arms'][f'r01/teacher one{together}']['values']) == 2
  assert len(row['arms']['r01/teacher two']['values']) == 1
  # The second generation's teachers are the first's distilled students.
  assert (
    row['arms']['r02/teacher one']['values']
    == row['arms']['r01/distilled']['values']
  )
  assert 'agreement:one' in row['metrics']['r02/each']


def test_which_student_of_a_run_is_restored_is_said(finished, tmp_path):
  directory, _ = finished
  teacher = dict(kw=dict(widths=(4,)))
  for folder in (directory, directory / 'nets/students/distilled/student'):
    own = dict(main=dict(**teacher, restore=str(folder)))
    source, _ = checks.prepare(small(teachers=own), tmp_path)
    said = [note for note in source.notes if str(directory) in note]
    if folder == directory:
      assert said == [
        'the restored teachers main are the student distilled/student of '
        f'{directory}, which has student/student too'
      ]
    else:  # named itself
      assert not said


def test_nets_of_another_architecture_are_not_restored(finished, tmp_path):
  directory, _ = finished
  where = str(directory / 'nets' / 'teachers' / 'main')
  teacher = dict(kw=dict(widths=(8,)), restore=where)
  row = run(small(teachers=dict(main=teacher)), tmp_path / 'same')
  assert row['arms']['teacher'] == finished[1]['arms']['teacher']
  teacher = dict(kw=dict(widths=(9,)), restore=where)
  with pytest.raises(UserError) as error:
    run(small(teachers=dict(main=teacher)), tmp_path / 'other')
  for part in ('teachers.main.restore', 'another architecture', '(8, 3)',
               '(9, 3)'):  # fmt: skip
    assert part in str(error.value)
  assert not (tmp_path / 'other').exists()


def test_a_restored_teacher_may_compute_in_float16(finished, tmp_path):
  directory, row = finished
  where = str(directory / 'nets' / 'teachers' / 'main')
  half = dict(kw=dict(widths=(8,)), restore=where, train=dict(dtype='float16'))
  again = run(small(teachers=dict(main=half)), tmp_path)
  full, halved = (r['metrics']['teacher']['nll'] for r in (row, again))
  np.testing.assert_allclose(halved, full, rtol=1e-2)
  assert halved != full


def test_parameters_in_bfloat16_and_masters_in_float32(
  finished, tmp_path, monkeypatch
):
  """Students that are stopped and go on, of a teacher held in bfloat16."""
  directory, row = finished
  where = str(directory / 'nets' / 'teachers' / 'main')
  config = small(
    teachers=dict(main=dict(kw=dict(widths=(8,)), restore=where)),
    train={**small()['train'], 'param_dtype': 'bfloat16'},
  )
  train, seen = train_job.train, {}

  def watched(session, job, **kw):
    _, (carry, _, frozen, _) = train_job.member_shapes(session, job)
    found = {'carry': carry, 'opt': carry['opt'], 'frozen': frozen}
    seen[job.stage] = {
      name: {str(x.dtype) for x in jax.tree.leaves(tree) if x.ndim}
      for name, tree in found.items()
    }
    given = {n: group.variables for n, group in job.groups.items()}
    assert {x.dtype for x in jax.tree.leaves(given)} == {jnp.bfloat16.dtype}
    return train(session, job, **kw)

  monkeypatch.setattr(train_job, 'train', watched)
  whole = run(config, tmp_path / 'whole')
  assert seen['students/distilled'] == {
    'carry': {'float32'}, 'opt': {'float32'}, 'frozen': {'bfloat16'},
  }  # fmt: skip
  stop = threading.Event()
  stop.set()
  with pytest.raises(pipeline.Stopped):
    run(config, tmp_path / 'broken', stop=stop)
  assert found(run(config, tmp_path / 'broken')) == found(whole)
  exported = nets(tmp_path / 'whole')
  jax.tree.map(
    np.testing.assert_array_equal, nets(tmp_path / 'broken'), exported
  )
  chex.assert_type(jax.tree.leaves(exported), np.float32)
  notes = ' '.join(whole['notes'])
  assert 'students/student: parameters are used in bfloat16' in notes
  assert 'main were trained with parameters in float32 and have' in notes
  full, rounded = (r['metrics']['teacher']['nll'] for r in (row, whole))
  np.testing.assert_allclose(rounded, full, rtol=1e-2)
  assert rounded != full
  net, variables = jaxkd.load(tmp_path / 'whole')
  images = np.ones((5, 4, 4, 1), np.float32)
  params = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16).astype(np.float32), variables['params']
  )
  assert np.any(
    params['head']['kernel'] != variables['params']['head']['kernel']
  )
  chex.assert_trees_all_equal(
    net.apply(variables, images),
    net.apply({**variables, 'params': params}, images),
  )


def test_copies_of_a_role_learn_from_each_other(tmp_path):
  """Deep mutual learning is one role of two copies that sees itself."""
  config = small(
    teachers={},
    students=dict(student=dict(kw=dict(widths=(4,)), count=2)),
    distill=dict(
      labels=dict(loss='cross_entropy'),
      peers=dict(loss='kl', teacher='student'),
    ),
    arms=dict(student=dict(distill=dict(peers=dict(weight=0.0))), distilled={}),
  )
  row = run(config, tmp_path)
  assert set(row['arms']) == {'student', 'distilled'}
  assert row['arms']['student'] != row['arms']['distilled'] or (
    row['metrics']['student'] != row['metrics']['distilled']
  )


def test_nets_need_not_be_called_student(tmp_path):
  """A row tells of the first role where none is called so."""
  row = run(
    small(
      students=dict(net=dict(kw=dict(widths=(4,)), count=2)),
      teachers={},
      distill=dict(
        labels=dict(loss='cross_entropy'),
        peers=dict(loss='kl', teacher='net'),
      ),
      arms=dict(
        student=dict(distill=dict(peers=dict(weight=0.0))), distilled={}
      ),
    ),
    tmp_path,
  )
  assert len(row['arms']['distilled']['values']) == 2


def test_overwrite_runs_again_what_has_finished(tmp_path):
  row = run(small(report=dict(rank=True)), tmp_path)
  (tmp_path / 'row.json').write_text('{}')
  assert (tmp_path / 'costs.png').exists()
  again = run(small(), tmp_path, overwrite=True)
  assert not (tmp_path / 'costs.png').exists()
  assert found(again) == found(row)
  assert again['wall_s'] is not None  # nothing was there to be gone on with
  assert workdir.MADE[-1] == workdir.CONFIG


def test_tuning_gives_every_arm_as_many_trials(tmp_path):
  grids = (
    'train.learning_rate=0.001,0.1',
    'distilled:distill.soft.weight=0.5,1.0',
    'student:train.optimizer.kw.weight_decay=0.0001,0.1',
  )
  row = run(small(train=small()['train'] | dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)))),
    tmp_path, tune=grids)  # fmt: skip
  tuned = row['tuning']
  assert tuned['student']['trials'] == tuned['distilled']['trials'] == 4
  assert set(tuned['distilled']['chosen']) == {
    'train.learning_rate', 'distill.soft.weight',
  }  # fmt: skip
  assert tuned['student']['split'] == 'validation'
  for texts, message in (
    (('distilled:distill.soft.weight=1,2',), 'equally many trials'),
    (('distill.soft.wieght=1,2',), "'weight'"),
    (('train.steps=1,2',), 'budget'),
    (('train.dtype=float32,bfloat16',), 'what can be tuned'),
    (('train.accumulate=1,3',), 'do not divide a batch'),
    (('train.optimizer.name=sgd,adamm',), "'adam'"),
    (('distill.soft.kw.temperature=0,4',), 'should be above 0'),
    (('train.learning_rate=-1,4',), 'should be above 0'),
    (('distilld:distill.soft.weight=1',), "'distilled'"),
    (('distill.soft.weight=a,b',), 'should be a number'),
    (('nonsense',), 'write'),
  ):
    with pytest.raises(UserError, match=message):
      run(small(), tmp_path / 'bad', tune=texts)
  assert not (tmp_path / 'bad').exists()


def test_a_run_that_keeps_what_its_teachers_give(tmp_path):
  """Its trials, arms and a later run of other arms all look it up."""
  noisy = dict(kw=dict(widths=(8,)), views=dict(train='noise(0.3)'))
  kept = dict(outputs=('logits',), dir=str(tmp_path / 'kept'))
  grids = ('distill.labels.weight=0.5,1.0',)
  live = run(small(teachers=dict(main=noisy)), tmp_path / 'a', tune=grids)
  config = small(teachers=dict(main=noisy | dict(cache=kept)))
  row = run(config, tmp_path / 'b', tune=grids)
  for name, values in live['metrics']['distilled'].items():
    assert row['metrics']['distilled'][name] == pytest.approx(
      values, rel=1e-3, abs=1e-3
    )
  chosen = [r['tuning']['distilled']['chosen'] for r in (live, row)]
  assert chosen[0] == chosen[1]
  assert row['cost']['teacher_share'] == 0 < live['cost']['teacher_share']
  assert any('(logits) were cached on disk' in note for note in row['notes'])
  # Of the seeds of the trials, and of those of the run.
  there = sorted((tmp_path / 'kept' / 'main').iterdir())
  assert len(there) == 2
  before = [path.stat().st_mtime_ns for path in there]
  nets = str(tmp_path / 'b' / 'nets' / 'teachers' / 'main')
  teacher = noisy | dict(cache=kept, restore=nets)
  wider = dict(student=dict(model='mlp', kw=dict(widths=(6,))))
  run(small(teachers=dict(main=teacher), students=wider), tmp_path / 'c')
  assert sorted((tmp_path / 'kept' / 'main').iterdir()) == there
  assert [path.stat().st_mtime_ns for path in there] == before
  other = configs.put(small(teachers=dict(main=teacher)), 'train.seed', 3)
  other = configs.put(other, 'teachers.main.restore', '')
  assert run(other, tmp_path / 'd')['arms']  # its own seeds, its own rows
  teacher['restore'] = str(tmp_path / 'd' / 'nets' / 'teachers' / 'main')
  with pytest.raises(UserError, match=r'teachers\.main\.cache: .*another teac'):
    run(small(teachers=dict(main=teacher)), tmp_path / 'e')


NET = dict(model='mlp', kw=dict(widths=(8,)))
SOFT = dict(loss='kl', teacher='main')


def test_a_teacher_assistant_learns_from_the_teacher_first(tmp_path):
  """TAKD: the teacher teaches an assistant, and it the student."""
  assistant = dict(kw=dict(widths=(6,)), distill=dict(soft=SOFT))
  config = small(
    teachers=dict(main=NET, assistant=assistant),
    distill=dict(
      labels=dict(loss='cross_entropy'),
      soft=dict(loss='kl', teacher='assistant'),
    ),
  )
  row = run(config, tmp_path)
  assert set(row['arms']) == {
    'teacher main', 'teacher assistant', 'student', 'distilled',
  }  # fmt: skip
  assert set(row['params']) == {
    'teacher main', 'teacher assistant', 'student',
  }  # fmt: skip
  assert {'agreement:main', 'agreement:assistant'} <= set(
    row['metrics']['distilled']
  )
  made = [p.name for p in (tmp_path / 'checkpoints/teachers').iterdir()]
  assert sorted(made) == ['assistant', 'main']


def test_what_starts_from_a_group_has_its_trained_values(tmp_path):
  """Groups of each seed: a group's own is what its students look at."""
  still = dict(**NET, init='main', freeze='*')
  row = run(
    small(
      teachers=dict(
        main=dict(**NET, per_seed=True),
        copies=dict(**still, count=2, per_seed=True, distill=dict(soft=SOFT)),
      ),
      students=dict(student=still),
      distill=dict(
        labels=dict(loss='cross_entropy'),
        soft=dict(loss='kl', teacher='copies'),
      ),
    ),
    tmp_path,
  )
  kept = nets(tmp_path)
  main, copies, student = (
    jax.tree.leaves(kept[f'nets/{name}'])
    for name in (
      'teachers/main',
      'teachers/copies',
      'students/distilled/student',
    )
  )
  for one, two, same in zip(main, copies, student, strict=True):
    assert one.shape[0] == 2
    np.testing.assert_array_equal(two, np.repeat(one, 2, axis=0))
    np.testing.assert_array_equal(same, one)
  values = row['arms']['teacher main']['values']
  assert row['arms']['distilled']['values'] == values
  for together in ('', ' ensemble'):
    found = row['arms'][f'teacher copies{together}']['values']
    assert found == pytest.approx(values)


def test_rounds_may_take_different_numbers_of_steps(tmp_path):
  """What is seen along the way is that of the round that is compared."""
  config = small(
    rounds=dict(r01={}, r02=dict(train=dict(steps=3))),
    report=dict(compare=dict(better='r02/distilled', than='r01/student')),
  )
  row = run(config, tmp_path)
  for summary in row['summary']:
    assert summary['step'] == [3]
    assert set(summary['arms']) == {'r02/student', 'r02/distilled'}


class After(threading.Event):
  """Set once, after being looked at so many times."""

  def __init__(self, looks):
    super().__init__()
    self.looks = looks

  def is_set(self):
    self.looks -= 1
    return self.looks == 0


def test_what_a_term_remembers_outlasts_a_stop(tmp_path):
  contrast = dict(
    term='memory', teacher='main', at=('layers/0', 'layers/0'),
    adapter='embed', teacher_adapter='embed',
    teacher_adapter_kw=dict(width=4), kw=dict(negatives=5, momentum=0.5),
  )  # fmt: skip
  config = small(
    distill=dict(labels=dict(loss='cross_entropy'), contrast=contrast),
    arms=dict(
      student=dict(distill=dict(contrast=dict(weight=0.0))), distilled={}
    ),
  )
  row = run(config, tmp_path / 'whole')
  # The teacher's six steps, and three of the first arm, which is distilled.
  with pytest.raises(pipeline.Stopped, match='after step 3 of 6'):
    run(config, tmp_path / 'broken', stop=After(6 + 3))
  stopped = tmp_path / 'broken/checkpoints/students'
  assert [p.name for p in stopped.iterdir()] == ['distilled']
  assert found(run(config, tmp_path / 'broken')) == found(row)
  jax.tree.map(
    np.testing.assert_array_equal,
    nets(tmp_path / 'broken'),
    nets(tmp_path / 'whole'),
  )


class Normalised(nnx.Module):
  def __init__(self, *, num_classes, input_shape, rngs):
    width = math.prod(input_shape)
    self.first = nnx.Linear(width, 4, use_bias=False, rngs=rngs)
    self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
    self.last = nnx.Linear(4, num_classes, rngs=rngs)

  def __call__(self, x):
    return self.last(nnx.relu(self.norm(self.first(x.reshape(len(x), -1)))))


@pytest.mark.all_devices
def test_running_means_are_kept_with_their_statistics(tmp_path):
  """Those of a teacher and of the student that starts from it."""
  net = dict(model=f'{__name__}:Normalised')
  own = {**small()['train'], 'average': 0.75, 'learning_rate': 0.1}
  changes = dict(
    teachers=dict(main=dict(**net, train=dict(steps=6, average=0.5))),
    students=dict(student=dict(**net, init='main')),
  )
  config = small(**changes, train=own)
  row = run(config, tmp_path / 'whole')
  with pytest.raises(pipeline.Stopped, match='after step 3 of 6'):
    run(config, tmp_path / 'broken', stop=After(6 + 3))
  assert found(run(config, tmp_path / 'broken')) == found(row)
  kept = nets(tmp_path / 'whole')
  jax.tree.map(np.testing.assert_array_equal, nets(tmp_path / 'broken'), kept)

  net, variables = jaxkd.load(tmp_path / 'whole', arm='student')
  test = sources.load('synthetic', **config['data']['kw']).splits['test']
  batch = test.fetch(np.arange(len(test)))
  logits = net.apply(variables, batch['inputs'])[0]['logits']
  nll = -jax.nn.log_softmax(logits)[np.arange(len(test)), batch['labels']]
  measured = row['metrics']['student']['nll'][0]
  assert measured == pytest.approx(float(nll.mean()), rel=1e-4)

  spread = {**own, 'members': 'sequence', 'shard_parameters': True}
  run(small(**changes, train=spread), tmp_path / 'spread')
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
    nets(tmp_path / 'spread'),
    kept,
  )


def test_frozen_layers_keep_their_statistics(tmp_path):
  """What a student took over from its teacher gives what it gave there."""
  net = dict(model=f'{__name__}:Normalised')
  config = small(
    teachers=dict(main=dict(**net, train=dict(steps=6))),
    students=dict(student=dict(**net, init='main', freeze='first|norm')),
    arms=dict(student={}, distilled=dict(train=dict(average=0.97))),
  )
  run(config, tmp_path)
  teacher, *arms = (
    jax.tree.map(lambda x: x[0], nets(tmp_path)[f'nets/{name}'])
    for name in ('teachers/main', 'students/student/student',
                 'students/distilled/student')
  )  # fmt: skip
  assert np.abs(teacher['state']['norm']['mean']).max() > 1e-3
  for own in arms:
    for layer in ('first', 'norm'):
      jax.tree.map(
        np.testing.assert_array_equal,
        own['params'][layer],
        teacher['params'][layer],
      )
    jax.tree.map(np.testing.assert_array_equal, own['state'], teacher['state'])
    moved = (
      own['params']['last']['kernel'] - teacher['params']['last']['kernel']
    )
    assert np.abs(moved).max() > 0


def test_quantised_and_pruned_nets_are_what_was_tested(tmp_path):
  """A low-precision teacher; then its student, pruned and trained again."""
  small_net = dict(model='mlp', kw=dict(widths=(4,)))
  quantised = dict(
    quantize='uniform(3)|activations(4, high=4.0)',
    prune='magnitude(0.5, end=4, every=2)',
  )
  config = small(
    teachers=dict(
      main=dict(
        **small_net, quantize='ternary', per_seed=True, train=dict(steps=6)
      )
    ),
    students=dict(student=small_net),
    arms=dict(
      student=dict(students=dict(student=quantised)),
      distilled=dict(students=dict(student=dict(quantize='points(2)'))),
    ),
    rounds=dict(
      r01={},
      r02=dict(
        teachers=dict(main=dict(restore='r01/students/student', quantize='')),
        students=dict(student=dict(init='main', prune='magnitude(0.5)')),
      ),
    ),
    report=dict(compare=dict(better='r02/distilled', than='r01/distilled')),
  )
  row = run(config, tmp_path / 'whole')
  with pytest.raises(pipeline.Stopped):
    run(config, tmp_path / 'broken', stop=After(6 + 6 + 3))
  assert found(run(config, tmp_path / 'broken')) == found(row)
  whole = nets(tmp_path / 'whole')
  jax.tree.map(np.testing.assert_array_equal, nets(tmp_path / 'broken'), whole)
  # What is left of 64 + 12 weights, of 2 bits, and a bit for each that says
  # so; points, scales and biases are whole numbers of bytes of their own.
  left = row['cost']['bytes']['student'] - 2 * (16 + 8) - 4 * 7
  assert left - (8 + 2) in (10, 11)
  assert row['cost']['bytes']['r02/student/student'] < 4 * 83
  operations = row['cost']['bit_operations']
  assert operations['student'] == 76 * 2 * 32
  assert operations['r02/student/student'] == 76 * 3 * 4
  split = sources.load('synthetic', **config['data']['kw']).splits['test']
  data = split.fetch(np.arange(len(split)))
  for arm, values in row['arms'].items():
    stage = arm.replace('/', '/students/', 1) + '/student'
    if arm.endswith('teacher'):
      stage = f'{arm[:3]}/teachers/main'
    folder = tmp_path / 'whole/nets' / stage
    for member, value in enumerate(values['values'] if folder.exists() else ()):
      net, variables = jaxkd.load(folder, member=member)
      logits = net.apply(variables, data['inputs'])[0]['logits']
      right = (logits.argmax(-1) == data['labels']).mean()
      assert float(right) == pytest.approx(value), arm
      kernels = [x for x in jax.tree.leaves(variables['params']) if x.ndim > 1]
      assert len(kernels) == 2
      if arm == 'r02/distilled':
        assert sum(int((k == 0).sum()) for k in kernels) == 38
        assert all(len(np.unique(k)) <= 5 for k in kernels)
      if arm == 'r01/teacher':
        assert all(len(np.unique(k)) <= 3 for k in kernels)


def groups(**changes):
  """Two groups of teachers that need not wait for each other, and one."""
  net = dict(model='mlp', kw=dict(widths=(8,)))
  soft = dict(loss='kl', teacher='one')
  labels = dict(loss='cross_entropy')
  teachers = dict(
    one=dict(**net, count=2, train=dict(steps=6)),
    two=dict(**net, train=dict(steps=6, batch_size=24)),
    later=dict(**net, distill=dict(labels=labels, soft=soft)),
  )
  for name, own in changes.items():
    teachers[name] = {**teachers[name], **own}
  return small(
    teachers=teachers,
    distill=dict(labels=labels, soft=dict(loss='kl', teacher=('two', 'later'))),
    arms={},
    report=dict(compare=dict(better='student', than='student')),
  )


def turns(config, directory):
  """How many devices each group has, in order."""
  (part,) = checks.prepare(config, directory)[1]
  return [
    {name: len(own) for name, own in together.items()}
    for together in part.schedule
  ]


def test_groups_train_side_by_side_where_devices_are_enough(
  tmp_path, monkeypatch
):
  config, alike = groups(), dict(rtol=1e-4, atol=1e-5)
  one = dict(one=1), dict(two=1), dict(later=1)
  assert turns(config, tmp_path) == list(one)
  run(config, tmp_path / 'in turn')
  monkeypatch.setattr(sharding, 'all_devices', jax.devices)
  # Two nets with batches of 8 are less to do than one with batches of 24.
  side_by_side = [dict(one=3, two=5), dict(later=8)]
  assert turns(config, tmp_path) == side_by_side
  used, console = {}, Console(record=True, width=100, file=io.StringIO())
  train = train_job.train

  def watched(session, job, **kw):
    found = train(session, job, **kw)
    used[job.stage] = sharding.devices()
    return found

  monkeypatch.setattr(train_job, 'train', watched)
  row = pipeline.run(config, tmp_path / 'beside', console=console)
  assert 'sharing 8 devices: one on 3, two on 5' in console.export_text()
  assert not {*used['teachers/one']} & {*used['teachers/two']}
  assert used['teachers/later'] == used['students/student'] == jax.devices()
  assert list(row['arms']) == [
    'teacher one', 'teacher one ensemble', 'teacher two', 'teacher later',
    'student',
  ]  # fmt: skip
  want, got = nets(tmp_path / 'in turn'), nets(tmp_path / 'beside')
  assert set(want) == set(got)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **alike), want, got
  )


@pytest.mark.all_devices
def test_groups_take_turns_where_one_asks_for_too_many_devices(tmp_path):
  mesh = dict(steps=6, mesh=dict(member=2, data=4))
  config = groups(one=dict(train=mesh))
  assert turns(config, tmp_path) == [dict(one=8), dict(two=8), dict(later=8)]
  in_parts = dict(steps=6, shard_parameters=True)  # for want of memory
  config = groups(one=dict(train=in_parts))
  assert turns(config, tmp_path) == [dict(one=8), dict(two=8), dict(later=8)]
  mesh['mesh']['data'] = 1
  config = groups(one=dict(train=mesh))
  assert turns(config, tmp_path) == [dict(one=3, two=5), dict(later=8)]


@pytest.mark.all_devices
def test_groups_that_were_stopped_side_by_side_go_on(tmp_path, monkeypatch):
  config = groups()
  run(config, tmp_path / 'unbroken')
  stop, steps = threading.Event(), []
  step = Population.step

  def counted(self, *arguments):
    steps.append(True)
    if len(steps) == 5:  # of both
      stop.set()
    return step(self, *arguments)

  monkeypatch.setattr(Population, 'step', counted)
  with pytest.raises(pipeline.Stopped):
    run(config, tmp_path / 'stopped', stop=stop)
  monkeypatch.undo()
  monkeypatch.setattr(sharding, 'all_devices', jax.devices)
  assert not (tmp_path / 'stopped' / 'nets' / 'teachers' / 'later').exists()
  resumed = run(config, tmp_path / 'stopped')
  assert found(resumed) == found(
    json.loads((tmp_path / 'unbroken' / 'row.json').read_text())
  )
  want, got = nets(tmp_path / 'unbroken'), nets(tmp_path / 'stopped')
  jax.tree.map(np.testing.assert_array_equal, want, got)


@pytest.mark.all_devices
def test_an_error_in_one_group_stops_the_other(tmp_path):
  wild = dict(
    steps=20, learning_rate=1e30, optimizer=dict(name='sgd', kw={}),
    eval_every=1,
  )  # fmt: skip
  long = dict(steps=100_000, batch_size=8, eval_every=100_000)
  config = groups(one=dict(train=wild), two=dict(train=long))
  assert len(turns(config, tmp_path)[0]) == 2
  with pytest.raises(UserError, match=r'^teachers/one: .*not a number'):
    run(config, tmp_path / 'run')
  kept = checkpoint.Checkpoints(tmp_path / 'run' / 'checkpoints/teachers/two')
  assert 0 < kept.latest_step() < 100_000  # it saved and left


def test_a_teacher_that_gives_no_numbers_is_named(finished, tmp_path):
  variables, spec = stored.load(finished[0] / 'nets/teachers/main')
  huge = jax.tree.map(lambda x: 1e30 * x, variables)
  checkpoint.export(tmp_path / 'huge', huge, spec)
  config = configs.put(small(), 'teachers.main.restore', str(tmp_path / 'huge'))
  with pytest.raises(
    UserError,
    match=r'^students/distilled: distill\.soft became .* at step 1 in member '
    r"0, 1, since 'logits' of teachers\.main is, though its weights are",
  ):
    run(config, tmp_path / 'run')


def test_a_correction_is_in_the_net_and_trains_nothing_anew(tmp_path):
  shifted = dict(students=dict(student=dict(logit_shift='missing')))
  given = small(
    arms=dict(distilled={}, corrected=shifted),
    report=dict(compare=dict(better='corrected', than='distilled')),
  )
  given = configs.put(given, 'data.partition.students', 'without:2')
  row = run(given, tmp_path)
  found = row['metrics']['corrected']
  assert len(found['shift']) == len(found['recall_2']) == 2
  assert 'shift' not in row['metrics']['distilled']
  stages = [p.name for p in (tmp_path / 'checkpoints' / 'students').iterdir()]
  assert stages == ['corrected']
  images = np.random.default_rng(0).random((5, 4, 4, 1), np.float32)
  both = {}
  for arm in ('distilled', 'corrected'):
    net, variables = jaxkd.load(tmp_path, arm=arm, member=1)
    both[arm] = net.apply(variables, images)[0]['logits']
  bias = np.array([0, 0, found['shift'][1]])
  np.testing.assert_allclose(
    both['corrected'], both['distilled'] + bias[None], atol=1e-5
  )


def test_generated_examples_take_the_place_of_the_data(tmp_path, monkeypatch):
  def generated(**entry):
    return dict(data=dict(generated=dict(count=10, **entry)))

  teacher = dict(model='mlp', kw=dict(widths=(8,)), per_seed=True)
  given = small(
    teachers=dict(main={**teacher, 'train': dict(steps=6)}),
    arms=dict(
      impressions=generated(name='impressions', kw=dict(steps=2)),
      noise=generated(name='noise'),
    ),
    report=dict(compare=dict(better='impressions', than='noise')),
  )
  seen = {}
  batches_of = train_job.batches_of

  def watched(session, job):
    batches = batches_of(session, job)
    seen[job.stage] = batches.batch(0)
    return batches

  stop, write = threading.Event(), cache.Draft.write

  def written(*rows):
    write(*rows)
    stop.set()

  monkeypatch.setattr(cache.Draft, 'write', written)
  with pytest.raises(pipeline.Stopped, match='examples for impressions'):
    run(given, tmp_path, stop=stop)
  monkeypatch.setattr(train_job, 'batches_of', watched)
  row = run(given, tmp_path)
  assert any('10 examples made by noise' in note for note in row['notes'])
  for arm in ('impressions', 'noise'):
    assert (tmp_path / 'generated' / f'{arm}.png').exists()
    batch = seen[f'students/{arm}']
    own = batch['id'] // 10 == np.arange(2)[:, None]
    assert own.all() and batch['inputs'].dtype == np.float32


@pytest.mark.parametrize(
  ('entry', 'value', 'message'),
  [
    ('data.generated.name', 'nois', "did you mean 'noise'"),
    ('data.generated.teacher', 'man', "no teacher 'man'"),
    ('data.fraction.students', 0.5, r'set data\.fraction\.students=1\.0'),
    ('teachers.main.count', 2, 'examples are made of one'),
    ('teachers.main.cache.outputs', ('logits',), 'leave this empty'),
    ('students.student.logit_shift', 'missing', 'sees generated examples'),
    ('tune', ('distill.soft.weight=0.5,1.0',), 'no data to be tuned on'),
  ],
)
def test_generated_examples_that_cannot_be(entry, value, message, tmp_path):
  given = configs.put(small(), 'data.generated.name', 'noise')
  given = configs.put(given, entry, value)
  with pytest.raises(UserError, match=message):
    tuning.prepare(given, tmp_path, ())


def test_a_row_does_not_depend_on_what_is_shown(tmp_path, monkeypatch):
  seen = []

  def show(folder, batch, nets, classes):
    outputs = {name: apply(batch['inputs']) for name, apply in nets.items()}
    seen.append((folder, {k: v['logits'].shape for k, v in outputs.items()}))
    raise RuntimeError

  task = types.SimpleNamespace(**vars(tasks.find('classification')), show=show)
  monkeypatch.setattr(tasks, 'find', lambda name: task)
  with pytest.raises(RuntimeError):
    run(small(), tmp_path)
  shape = (export.SHOWN, 3)
  names = ('student', 'distilled', 'teacher')
  assert seen == [(tmp_path / 'shown', dict.fromkeys(names, shape))]
  row = rows.load(tmp_path / 'row.json')
  assert run(small(), tmp_path) == row
