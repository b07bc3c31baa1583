"""The same config on other data, from other nets or with other code."""

import importlib
import io
import json
import shutil
import sys
import threading

import numpy as np
import pytest
from rich.console import Console

import jaxkd
from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.report import rows
from jaxkd.run import config as configs
from jaxkd.run import pipeline, provenance, sweep, train_job, tuning, workdir

LABELS = np.arange(60) % 3
INPUTS = np.random.default_rng(0).random((60, 4, 4, 1), np.float32)


def arrays(folder, test_labels=LABELS[:15], train_labels=LABELS):
  np.savez(
    folder / 'data.npz',
    x_train=INPUTS,
    y_train=train_labels,
    x_test=INPUTS[:15],
    y_test=test_labels,
  )


def small(folder, **changes):
  given = dict(
    name='small',
    data=dict(source='npz:data.npz', dir=str(folder)),
    teachers=dict(main=dict(kw=dict(widths=(4,)), train=dict(steps=2))),
    students=dict(student=dict(kw=dict(widths=(4,)))),
    distill=dict(soft=dict(loss='kl', teacher='main')),
    report=dict(compare=dict(better='student', than='teacher')),
    train=dict(steps=2, seeds=1, batch_size=8, members='vmap', save_every=1),
  )
  config = configs.plain(configs.complete(given))
  for entry, value in changes.items():
    config = configs.put(config, entry.replace('__', '.'), value)
  return configs.plain(configs.complete(config))


def run(config, directory, **kw):
  """The row, and what is printed."""
  console = Console(file=io.StringIO(), width=300)
  row = pipeline.run(config, directory, console=console, **kw)
  return row, console.file.getvalue()


def stopped(config, directory):
  """A run that was stopped after the first step of the teacher."""
  stop = threading.Event()
  stop.set()
  with pytest.raises(pipeline.Stopped):
    run(config, directory, stop=stop)
  assert (directory / 'checkpoints').exists()


@pytest.fixture(scope='module')
def once(tmp_path_factory):
  """A finished run, and one that was cut short."""
  folder = tmp_path_factory.mktemp('once')
  arrays(folder)
  run(small(folder), folder / 'done')
  stopped(small(folder), folder / 'half')
  return folder


@pytest.fixture
def folder(once, tmp_path):
  """A copy of them, in which things may be changed."""
  there = tmp_path / 'there'
  shutil.copytree(once, there)
  for name in ('done', 'half'):
    file = there / name / workdir.CONFIG
    file.write_text(configs.as_json(small(there)))
  return there


@pytest.fixture
def no_training(monkeypatch):
  monkeypatch.setattr(train_job, 'train', pytest.fail)


@pytest.mark.parametrize('name', ['done', 'half'])
@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    (
      dict(test_labels=LABELS[14::-1]),
      r'data\.source \(labels of test\) has changed since',
    ),
    (
      dict(train_labels=(LABELS + 1) % 3),
      r'data\.source \(labels of train, labels of validation\) has changed',
    ),
  ],
)
def test_other_labels_are_refused(name, changed, message, folder, no_training):
  before = sorted(folder.rglob('*'))
  arrays(folder, **changed)
  with pytest.raises(UserError, match=message):
    run(small(folder), folder / name)
  assert sorted(folder.rglob('*')) == before


def test_overwrite_removes_what_is_of_other_data(folder):
  arrays(folder, train_labels=(LABELS + 1) % 3)
  fresh, _ = run(small(folder), folder / 'fresh')
  for name in ('done', 'half'):
    row, _ = run(small(folder), folder / name, overwrite=True)
    assert row['arms'] == fresh['arms']
    assert row['provenance'] == fresh['provenance']
    assert row['wall_s'] is not None


def test_what_was_cut_short_goes_on_with_overwrite_too(folder):
  row, _ = run(small(folder), folder / 'half', overwrite=True)
  assert row['wall_s'] is None


def test_data_that_are_gone(folder):
  (folder / 'data.npz').unlink()
  with pytest.raises(UserError, match=r'no file .*; what the run found is in'):
    run(small(folder), folder / 'done')


def test_where_nothing_was_computed_there_is_nothing_to_mix(folder):
  shutil.rmtree(folder / 'half' / 'checkpoints')
  arrays(folder, train_labels=(LABELS + 1) % 3)
  row, _ = run(small(folder), folder / 'half')
  assert row['provenance'] == provenance.checksums(
    json.loads((folder / 'half' / workdir.PROVENANCE).read_text())
  )


def test_runs_that_do_not_say_where_they_come_from(folder, no_training):
  for name in ('done', 'half'):
    (folder / name / workdir.PROVENANCE).unlink()
  row = rows.load(folder / 'done' / 'row.json')
  del row['finished']
  rows.save(folder / 'done' / 'row.json', row)
  again, said = run(small(folder), folder / 'done')
  assert again == row
  assert said == (
    'finished earlier, of which data and code is not known, not run again '
    '(--overwrite does)\n'
  )
  with pytest.raises(UserError, match='not known which data and code it began'):
    run(small(folder), folder / 'half')


def test_another_version_of_jaxkd(folder, monkeypatch):
  monkeypatch.setattr(jaxkd, '__version__', '9.0')
  assert ' with jaxkd 0.' in run(small(folder), folder / 'done')[1]
  with pytest.raises(UserError, match=r'began with jaxkd 0.* and this is jaxk'):
    run(small(folder), folder / 'half')
  monkeypatch.undo()
  monkeypatch.setattr(provenance.made_with, 'commit', lambda: 'abc')
  row, _ = run(small(folder), folder / 'half')
  (note,) = [note for note in row['notes'] if 'it began with' in note]
  ended = f'and ended with jaxkd {jaxkd.__version__} at commit abc'
  assert note.endswith(ended)


def test_a_teacher_that_has_trained_anew(folder, no_training):
  there = str(folder / 'done' / 'nets' / 'teachers' / 'main')
  config = small(folder, teachers__main__restore=there)
  source = sources.load('npz:data.npz', dir=str(folder))
  first = provenance.of(config, source)
  assert len(first['teachers.main.restore']) == 64
  moved = folder / 'moved'
  shutil.copytree(there, moved)
  elsewhere = small(folder, teachers__main__restore=str(moved))
  assert provenance.of(elsewhere, source) == first
  shutil.rmtree(there)
  with pytest.raises(UserError, match=r'^teachers\.main\.restore: .*no export'):
    provenance.of(config, source)


def test_a_file_of_weights_and_one_that_an_option_names(folder):
  (folder / 'weights.safetensors').write_bytes(b'1')
  config = small(
    folder,
    teachers__main__restore=f'pytorch:{folder}/weights.safetensors',
    distill__soft__kw=dict(temperature=1.0, table=f'{folder}/table.txt'),
  )
  source = sources.load('npz:data.npz', dir=str(folder))
  first = provenance.of(config, source)
  assert 'distill.soft.kw.table' not in first
  (folder / 'weights.safetensors').write_bytes(b'2')
  (folder / 'table.txt').write_text('1')
  second = provenance.of(config, source)
  assert {x for x in second if second[x] != first.get(x)} == {
    'teachers.main.restore', 'distill.soft.kw.table',
  }  # fmt: skip
  with pytest.raises(UserError, match=r'^teachers\.main\.restore: .* cannot'):
    provenance.of(
      configs.put(config, 'teachers.main.restore', 'pytorch:/none'), source
    )


def test_files_that_ops_and_options_name_in_other_ways(folder, monkeypatch):
  """In the text of a view, by a bare name, in a list, or in a folder."""
  monkeypatch.chdir(folder)
  (folder / 'table').write_text('1')
  (folder / 'tables').mkdir()
  (folder / 'tables' / 'a.txt').write_text('1')
  (folder / 'kl').mkdir()  # a word that is a folder's name by chance
  names = {
    'students.student.views.train': "mine:table('table')|mine:other(0.1)",
    'distill.soft.kw': dict(
      one='table', few=('table',), all='./tables', w='kl'
    ),
  }
  config = small(folder)
  for entry, value in names.items():
    config = configs.put(config, entry, value)
  source = sources.load('npz:data.npz', dir=str(folder))
  first = provenance.of(config, source)
  files = {
    'students.student.views.train (table)', 'distill.soft.kw.one',
    'distill.soft.kw.few (table)',
  }  # fmt: skip
  named = {x for x in first if x.startswith(('students', 'distill'))}
  assert named == {*files, 'distill.soft.kw.all'}
  (folder / 'table').write_text('2')
  second = provenance.of(config, source)
  assert {x for x in second if second[x] != first[x]} == files
  (folder / 'tables' / 'a.txt').rename(folder / 'tables' / 'b.txt')
  third = provenance.of(config, source)
  assert third['distill.soft.kw.all'] != second['distill.soft.kw.all']


LOSS = """
import jax.numpy as jnp

def squares(student, teacher):
  return jnp.square(student - teacher).sum(-1) * {factor}
"""


def test_code_of_ones_own(folder, monkeypatch):
  monkeypatch.syspath_prepend(folder)
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  file = folder / 'losses_of_mine.py'
  file.write_text(LOSS.format(factor=1))
  monkeypatch.delitem(sys.modules, 'losses_of_mine', raising=False)
  config = small(
    folder, distill__soft__loss='losses_of_mine:squares', distill__soft__kw={}
  )
  row, _ = run(config, folder / 'own')
  assert 'code of losses_of_mine' in row['provenance']
  assert 'not run again' in run(config, folder / 'own')[1]
  stopped(config, folder / 'own half')
  file.write_text(LOSS.format(factor=2))
  for name in ('own', 'own half'):
    with pytest.raises(UserError, match='since this process imported losses_o'):
      run(config, folder / name)
  _, said = run(config, folder / 'third')
  assert 'what was imported is what runs' in said
  importlib.reload(sys.modules['losses_of_mine'])
  for name in ('own', 'own half', 'third'):
    with pytest.raises(UserError, match='code of losses_of_mine has changed'):
      run(config, folder / name)
  assert (
    run(config, folder / 'own', overwrite=True)[0]['provenance']
    != (row['provenance'])
  )


def test_a_sweep_does_not_show_rows_of_other_data(folder, no_training):
  made = [sweep.Combination('FILE', {}, small(folder))]
  (folder / 'small').mkdir()
  shutil.copytree(folder / 'done', folder / made[0].folder)
  (outcome,) = sweep.run(made, folder, console=Console(file=io.StringIO()))
  assert outcome.row
  arrays(folder, test_labels=LABELS[14::-1])
  (outcome,) = sweep.run(made, folder, console=Console(file=io.StringIO()))
  assert outcome.row is None
  assert 'labels of test) has changed' in outcome.failure


def test_trials_of_other_labels_are_not_taken(folder, monkeypatch):
  grids = ('train.learning_rate=0.001,0.1',)
  choose = tuning.choose

  def stop_then(*args):
    choose(*args)
    raise pipeline.Stopped

  monkeypatch.setattr(tuning, 'choose', stop_then)
  config = small(folder)
  config['report']['compare'] = dict(better='student', than='student')
  with pytest.raises(pipeline.Stopped):
    run(config, folder / 'tuned', tune=grids)
  monkeypatch.undo()
  assert (
    'student was tuned before' in run(config, folder / 'tuned', tune=grids)[1]
  )
  (folder / 'tuned' / 'row.json').unlink()
  arrays(folder, train_labels=(LABELS + 1) % 3)
  with pytest.raises(UserError, match='has changed'):
    run(config, folder / 'tuned', tune=grids)
