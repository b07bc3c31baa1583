"""Sweeps: what they run, what they find finished, what they refuse."""

import io
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.report import wording
from jaxkd.run import pipeline, sweep, train_job, workdir

ROOT = Path(__file__).parents[2]
DEMO = f'{ROOT}/configs/hinton2015_soft_targets.py'
FEW = ['train.steps=3', 'teachers.main.train.steps=3']
NAME = 'hinton2015_soft_targets_tiny'


def combinations(*sets, files=(f'{DEMO}:tiny',), **options):
  return sweep.combinations(files, [*sets, *FEW], **options)


def quiet():
  return Console(file=io.StringIO(), width=100)


def shown(outcomes, width=160):
  console = Console(file=io.StringIO(), width=width)
  console.print(sweep.table(outcomes))
  return console.file.getvalue()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A sweep of two temperatures: its folder and its outcomes."""
  directory = tmp_path_factory.mktemp('sweep')
  made = combinations('distill.soft.kw.temperature=1,4')
  return directory, sweep.run(made, directory, console=quiet())


@pytest.fixture
def no_training(monkeypatch):
  def refuse(session, job):
    raise AssertionError(f'{job.stage} was trained')

  monkeypatch.setattr(train_job, 'train', refuse)


def test_each_combination_is_a_run_of_its_own(finished):
  directory, outcomes = finished
  assert [outcome.failure for outcome in outcomes] == ['', '']
  hashes = {outcome.row['config_sha256'] for outcome in outcomes}
  assert len(hashes) == 2
  for outcome, temperature in zip(outcomes, '14', strict=True):
    combination = outcome.combination
    soft = combination.config['distill']['soft']
    assert soft['kw'] == {'temperature': float(temperature)}
    folder = directory / combination.folder
    assert folder.parent == directory / NAME
    assert f'distill.soft.kw.temperature={temperature}' in folder.name
    assert (folder / workdir.ROW).exists()
    command = outcome.row['command']
    assert command.startswith(f'python experiments/distill.py --config={DEMO}')
    assert f'--config.distill.soft.kw.temperature={temperature} ' in command
    assert (
      shlex.split(command)[-1] == f'--workdir={directory / combination.folder}'
    )


def test_what_is_finished_is_not_run_again(finished, no_training):
  directory, outcomes = finished
  made = combinations('distill.soft.kw.temperature=4,1')
  again = sweep.run(made, directory, console=quiet())
  assert [outcome.row for outcome in again] == [
    outcome.row for outcome in reversed(outcomes)
  ]


def test_parts_are_all_of_a_sweep_and_no_run_twice():
  made = combinations('distill.soft.kw.temperature=1,2,3,4,5')
  parts = [sweep.part_of(made, f'{i}/3') for i in (1, 2, 3)]
  taken = [str(combination) for part in parts for combination in part]
  assert sorted(taken) == sorted(map(str, made))
  assert [len(part) for part in parts] == [2, 2, 1]
  assert sweep.part_of(made, '') == made


@pytest.mark.parametrize('part', ['0/3', '4/3', '1', 'a/b', '1/0', '-1/2'])
def test_what_is_no_part(part):
  made = combinations('distill.soft.kw.temperature=1,2')
  with pytest.raises(UserError, match=f'--part {part}: write I/N'):
    sweep.part_of(made, part)
  with pytest.raises(UserError, match='the sweep has 2 runs; take at most'):
    sweep.part_of(made, '3/5')


def test_a_sweep_keeps_a_table_of_all_arms(finished):
  directory, outcomes = finished
  sweep.save(outcomes, directory)
  lines = (directory / 'table.csv').read_text().splitlines()
  arms = sum(len(outcome.row['arms']) for outcome in outcomes)
  assert len(lines) == 1 + arms
  assert (directory / 'table.tex').exists()


def test_one_that_fails_leaves_the_others_be(finished, no_training):
  directory, outcomes = finished
  made = combinations('distill.soft.kw.temperature=3,1')
  folder = directory / made[0].folder
  folder.mkdir(parents=True)
  (folder / workdir.CONFIG).write_text('{"name": "another"}')
  again = sweep.run(made, directory, console=quiet())
  assert 'it holds the run of another config' in again[0].failure
  assert again[0].row is None
  assert again[1].row == outcomes[0].row
  text = shown(again)
  (line,) = [line for line in text.splitlines() if line.startswith(' 3 ')]
  assert line.split() == ['3', *['–'] * 4, 'failed']
  assert 'failed' in text
  assert 'temperature=3' in text

  done = subprocess.run(
    [
      sys.executable,
      str(ROOT / 'experiments' / 'sweep.py'),
      f'--configs={DEMO}:tiny',
      '--set=distill.soft.kw.temperature=3',
      *(f'--set={text}' for text in FEW),
      f'--workdir={directory}',
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'another config' in ' '.join(done.stdout.split())  # lines are wrapped
  assert done.stderr == ''


def test_the_table(finished):
  _, outcomes = finished
  text = shown(outcomes)
  heading = next(line for line in text.splitlines() if 'temperature' in line)
  assert heading.split() == [
    'temperature', 'teacher', 'student', 'distilled', 'paired', 'difference',
    'claim',
  ]  # fmt: skip
  assert f'config: {NAME}' in text
  assert 'train.steps: 3' in text
  assert 'metric: top1 (%)' in text
  assert 'difference: distilled - student' in text
  lines = [line for line in text.splitlines() if 'points' in line]
  assert [line.split()[0] for line in lines] == ['1', '4']
  assert '…' not in shown(outcomes, width=60)
  assert wording.TINY in text
  row = {**outcomes[0].row, 'notes': []}
  assert wording.TINY not in shown([outcomes[0]._replace(row=row)])


def test_asked_to_stop(tmp_path):
  stop = threading.Event()
  stop.set()
  made = combinations()
  with pytest.raises(pipeline.Stopped, match='after 0 of 1'):
    sweep.run(made, tmp_path, stop=stop, console=quiet())
  assert not list(tmp_path.iterdir())


def test_all_combinations_of_all_that_is_set():
  made = combinations(
    'students.student.kw.widths=(16,),(32, 8)',
    'teachers.main.views.train=noise(0.1);shift(1)|noise(0.1)',
    files=[DEMO, f'{DEMO}:tiny'],
  )
  found = [
    (
      combination.config['name'],
      combination.config['students']['student']['kw']['widths'],
      combination.config['teachers']['main']['views']['train'],
    )
    for combination in made
  ]
  views = ('noise(0.1)', 'shift(1)|noise(0.1)')
  assert found == [
    (name, widths, view)
    for name in (NAME.removesuffix('_tiny'), NAME)
    for widths in ((16,), (32, 8))
    for view in views
  ]
  assert len({combination.folder for combination in made}) == 8
  assert all(len(combination.folder.parts) == 2 for combination in made)


def test_folders_do_not_depend_on_the_order_of_flags():
  (first,) = sweep.combinations([f'{DEMO}:tiny'], FEW)
  (second,) = sweep.combinations([f'{DEMO}:tiny'], FEW[::-1])
  assert first.folder == second.folder
  (plain,) = sweep.combinations([f'{DEMO}:tiny'], [])
  assert plain.folder == Path(NAME, 'as_it_is')
  long = '|'.join(['noise(0.1)'] * 40)
  view = f'students.student.views.train={long};{long}|noise(0.2)'
  folders = {made.folder for made in combinations(view)}
  assert len(folders) == 2
  assert max(len(folder.name) for folder in folders) < 255


@pytest.mark.parametrize(
  ('sets', 'message'),
  [
    (['train.step=3'], r"no entry 'step'; did you mean 'steps'"),
    (['train.batch_size=8,many'], r"train\.batch_size: 'many' should be"),
    (['students.student.model=mlp,mpl'], r"no model 'mpl'.*'mlp'"),
    (['students.student.kw.width=8'], r"no option of mlp 'width'"),
    (['distill.soft.loss=kl,klm'], r"no loss 'klm'"),
    (['distill.soft.kw.temperture=2'], r"no option of kl 'temperture'"),
    (['distill.soft.kw.temperature=1,-1'], r'-1\.0 should be above 0'),
    (['train.optimizer.name=adamw,adma'], r"no optimiser 'adma'"),
    (['train.optimizer.kw.b3=1.0'], r"no option of adamw 'b3'"),
    (['train.learning_rate'], r'write ENTRY=VALUE,VALUE'),
    (['train.seeds=3', 'train.seeds=4'], r'train\.seeds is set twice'),
    (['train.seeds=3,3'], r'more than one run is called .*train\.seeds=3'),
  ],
)
def test_mistakes_are_found_before_anything_runs(sets, message):
  with pytest.raises(UserError, match=message) as error:
    combinations(*sets)
  assert '\n' not in str(error.value)


def test_mistakes_in_other_flags():
  with pytest.raises(UserError, match='--configs: name one'):
    combinations(files=[])
  with pytest.raises(UserError, match=r"no config file 'none\.py'"):
    combinations(files=[f'{DEMO}:tiny', 'none.py'])
  with pytest.raises(UserError, match='more than one run is called'):
    combinations(files=[DEMO, DEMO])
  with pytest.raises(UserError, match=r"--tune .*: there is no entry 'weigt'"):
    combinations(tune=['distill.soft.weigt=1,2'])
