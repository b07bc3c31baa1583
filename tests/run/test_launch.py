"""What a person types: every mistake is one sentence that names it."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import launch
from jaxkd.train import hosts

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / 'configs' / 'hinton2015_soft_targets.py')


def parse(*arguments, file=f'{DEMO}:tiny'):
  values = flags.FlagValues()
  flags.DEFINE_string('workdir', '', '', flag_values=values)
  flags.DEFINE_boolean('overwrite', False, '', flag_values=values)
  given = [f'--config={file}'] if file else []
  launch.parse(['script', *given, *arguments], values=values)
  return configs.plain(values['config'].value)


def test_every_entry_has_a_name_on_the_command_line():
  got = parse(
    '--config.train.seeds=3',
    '--config.students.student.kw.widths=(16,)',
    '--config.distill.soft.kw.temperature=2',
    '--config.teachers.main.train.learning_rate=0.5',
  )
  assert got['train']['seeds'] == 3
  assert got['students']['student']['kw']['widths'] == (16,)
  assert got['distill']['soft']['kw'] == {'temperature': 2.0}
  assert got['teachers']['main']['train']['learning_rate'] == 0.5


def test_what_takes_options_of_any_name_may_be_given_at_once():
  got = parse('--config.train.optimizer.kw={"b1": 0.5}', '--config.arms={}')
  assert got['train']['optimizer']['kw'] == {'b1': 0.5}
  assert got['arms'] == {}


def test_how_teachers_train_is_said_of_them_alone():
  got = parse('--config.train.batch_size=32')
  assert got['train']['batch_size'] == 32
  assert got['teachers']['main']['train']['batch_size'] == 64


@pytest.mark.parametrize(
  'flag',
  [
    ('--config.all.train.batch_size=32',),
    ('--config.all.train.batch_size', '32'),
  ],
)
def test_one_flag_for_teachers_and_students(flag, capsys):
  got = parse(*flag, '--config.train.seeds=2')
  assert got['train']['batch_size'] == 32
  assert got['teachers']['main']['train']['batch_size'] == 32
  assert got['train']['seeds'] == 2
  assert not capsys.readouterr().err


def test_a_flag_for_students_says_what_teachers_have(capsys):
  parse('--config.train.batch_size=32', '--config.train.seeds=2')
  assert capsys.readouterr().err == (
    'note: --config.train.batch_size is for the students; '
    'teachers.main.train.batch_size is 64 '
    '(--config.all.train.batch_size is for all)\n'
  )


def test_a_config_with_nan_is_the_same_on_its_own_host():
  hosts.same('config', {'distill.labels.kw.label_smoothing': float('nan')})


def test_a_flag_for_students_says_that_teachers_have_none(capsys):
  parse('--config.train.early_stopping.metric=nll')
  assert "early_stopping.metric is '' (" in capsys.readouterr().err


def test_another_model_brings_its_own_options_and_takes_more():
  got = parse(
    '--config.students.student.kw.width=8',
    '--config.students.student.model=vit',
  )['students']['student']
  assert got['model'] == 'vit'
  assert got['kw']['width'] == 8
  assert 'widths' not in got['kw']


def test_another_loss_keeps_the_options_that_both_have():
  got = parse('--config.distill.soft.loss=jensen_shannon')
  assert got['distill']['soft']['kw'] == {'temperature': 4.0, 'beta': 0.5}


WRITTEN = """
def get_config(arg=None):
  return dict(
    task='{task}',
    data=dict(source='{source}', dir='/data', kw=dict(resize=32)),
    teachers=dict(main={{}}),
    students=dict(student=dict(model='{model}', kw=dict({option}))),
    distill=dict(labels=dict(loss='cross_entropy')),
    train=dict(schedule='warmup_cosine', schedule_kw=dict(warmup_steps=5)),
  )
"""


@pytest.fixture
def written(tmp_path):
  def write(task='classification', source='folder:/data/a', model='mlp'):
    option = 'widths=(4,)' if model == 'mlp' else 'no_such=1'
    file = tmp_path / 'written.py'
    file.write_text(
      WRITTEN.format(task=task, source=source, model=model, option=option)
    )
    return str(file)

  return write


def test_another_source_leaves_behind_what_belonged_to_the_first(written):
  got = parse('--config.data.source=digits', file=written())['data']
  assert (got['source'], got['dir'], got['kw']) == ('digits', '', {})


def test_options_given_with_another_source_are_its_own(written):
  got = parse(
    '--config.data.kw.noise=0.5',
    '--config.data.source=synthetic',
    file=written(),
  )['data']
  assert got['kw'] == {'noise': 0.5}


def test_the_same_source_in_another_place_keeps_its_options(written):
  got = parse('--config.data.source=folder:/data/b', file=written())['data']
  assert (got['dir'], got['kw']) == ('/data', {'resize': 32})


def test_functions_of_one_module_are_different_sources(written):
  file = written(source='mine:one')
  assert parse('--config.data.source=mine:two', file=file)['data']['kw'] == {}


def test_another_schedule_leaves_its_options_behind(written):
  got = parse('--config.train.schedule=constant', file=written())['train']
  assert (got['schedule'], got['schedule_kw']) == ('constant', {})


def test_teachers_with_a_schedule_of_their_own_take_no_options_of_another():
  made = configs.complete(
    dict(
      teachers=dict(main=dict(train=dict(schedule='constant'))),
      train=dict(schedule='warmup_cosine', schedule_kw=dict(warmup_steps=5)),
    )
  )
  assert made.teachers.main.train.schedule_kw.to_dict() == {}


def test_an_arm_with_another_adapter_takes_no_options_of_the_first():
  term = dict(loss='hint', adapter='projector', adapter_kw=dict(hidden=8))
  config = configs.plain(configs.complete(dict(distill=dict(hint=term))))
  arm = dict(distill=dict(hint=dict(adapter='linear')))
  made = configs.override(config, arm, 'arms.a')['distill']['hint']
  assert (made['adapter'], made['adapter_kw']) == ('linear', {})


@pytest.mark.parametrize(
  ('file', 'flag', 'entry'),
  [
    (dict(task='clasification'), '--config.task=classification', 'task'),
    (
      dict(model='mpl'),
      '--config.students.student.model=mlp',
      'students.student.model',
    ),
  ],
)
def test_a_wrong_name_in_the_file_can_be_replaced(written, file, flag, entry):
  with pytest.raises(UserError, match=entry):
    parse(file=written(**file))
  got = parse(flag, file=written(**file))
  assert configs.get(got, entry) == flag.partition('=')[2]
  assert 'no_such' not in got['students']['student']['kw']


def test_an_option_that_kw_does_not_name_yet():
  got = parse(
    '--config.train.optimizer.name=sgd',
    '--config.train.optimizer.kw.momentum=0.9',
  )
  assert got['train']['optimizer'] == dict(name='sgd', kw=dict(momentum=0.9))


@pytest.mark.parametrize(
  'arguments',
  [
    ['--config.train.seed', '3', '--config.report.rank'],
    ['-config.train.seed=3', '--config.report.rank=true'],
    ['--config.report.rank', '--config.train.seed=3'],
  ],
)
def test_flags_of_the_config_may_be_spelled_in_several_ways(arguments):
  got = parse(*arguments)
  assert (got['train']['seed'], got['report']['rank']) == (3, True)


def test_an_entry_may_be_given_by_its_old_name():
  with pytest.warns(FutureWarning, match=r'students\.student\.logit_shift'):
    got = parse('--config.students.student.correct', 'missing')
  assert got['students']['student']['logit_shift'] == 'missing'


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('students.student.kw=', "kw: '' should be a dict, e.g. "),
    ('students.student.kw=7', 'kw: 7 should be a dict, e.g. '),
    ('train.steps=', "train.steps: '' should be a whole number$"),
    ('train.clip=x', "train.clip: 'x' should be a number$"),
    ('train.steps', "train.steps: 'true' should be a whole number$"),
  ],
)
def test_values_of_another_type(argument, message):
  with pytest.raises(UserError, match=rf'^--config\.[\w.]*{message}'):
    parse(f'--config.{argument}')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.train.step=3'], r"no entry 'step'; did you mean 'steps'"),
    (['--config.trian.steps=3'], r"no entry 'trian'; did you mean 'train'"),
    (['--config.train.steps=many'], r'train\.steps'),
    (['--config.train=3'], r'train: it has entries of its own'),
    (['--config.train={"steps": 3}'], r'one by one, e\.g\. --config\.train\.'),
    (['--config.train.optimizer=adam'], r'e\.g\. .*\.optimizer\.name'),
    (
      ['--config.teachers.main={"count": 2}'],
      r'main: it has entries',
    ),
    ([f'--config={DEMO}'], r'--config: it is given twice'),
    (['--config', DEMO], r'--config: it is given twice'),
    (['--config.train.seeds.more=1'], r'train.seeds is 2 and has no entries'),
    (['--config.train.steps='], r'train\.steps'),
    (['--config.students.student.model=mpl'], r"no model 'mpl'.*'mlp'"),
    (['--config.distill.soft.loss=klm'], r"no loss 'klm'.*'kl'"),
    (['--wrokdir=x'], r"no flag '--wrokdir'.*'--workdir'"),
    (['--overwrite=perhaps'], r'overwrite'),
  ],
)
def test_mistakes_on_the_command_line(arguments, message):
  with pytest.raises(UserError, match=message) as error:
    parse(*arguments)
  assert '\n' not in str(error.value)


def test_config_files_that_are_none(tmp_path):
  with pytest.raises(UserError, match=r"no config file 'hinton.py'"):
    parse(file=str(ROOT / 'configs' / 'hinton.py'))
  with pytest.raises(UserError, match="no size 'tny'; did you mean 'tiny'"):
    parse(file=f'{DEMO}:tny')
  for flag in ((), ('--config=',), ('--config', '')):
    with pytest.raises(UserError, match='name a config file'):
      parse(*flag, file='')
  for text, message in (
    ('x = 1', 'define get_config'),
    ('def get_config(arg=None', 'was never closed'),
    ('import nonsense_package', 'nonsense_package'),
    ('1 / 0', 'ZeroDivisionError: division by zero .mine.py, line 1'),
    ('raise SystemExit(3)', 'SystemExit'),
    ('def get_config():\n  return {}', 'TypeError'),
    ('def get_config(arg=None):\n  return None', 'should give a ConfigDict'),
    (
      "def get_config(arg=None):\n  return dict(arms={'a.b': {}})",
      "arms: 'a.b' cannot be a name",
    ),
    (
      'def get_config(arg=None):\n  return dict(tarin=dict(steps=1))',
      "no entry 'tarin'; did you mean 'train'",
    ),
  ):
    file = tmp_path / 'mine.py'
    file.write_text(text)
    with pytest.raises(UserError, match=message):
      parse(file=str(file))


def test_the_script_says_one_sentence_and_exits_with_2(tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, str(ROOT / 'experiments' / 'distill.py'), *arguments],
      capture_output=True,
      text=True,
      cwd=tmp_path,
    )

  done = run(f'--config={DEMO}:tiny', '--config.train.step=3', '--workdir=w')
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1
  assert "'steps'" in done.stderr
  done = run(f'--config={DEMO}:tiny')
  assert done.returncode == 2
  assert done.stderr == 'error: --workdir: name a folder for the run\n'
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('start', [['-X', 'utf8', 'it.py'], ['-m', 'it']])
def test_the_recorded_command_is_the_one_that_was_given(start, tmp_path):
  code = 'from jaxkd.run import launch\nprint(launch.command())'
  (tmp_path / 'it.py').write_text(code)
  given = [
    *(sys.executable, *start, '--config', 'a b.py:tiny', '--overwrite'),
    *("--config.students.student.kw.widths=(16,)", '--workdir=~/runs/$X'),
  ]  # fmt: skip
  several = ['--hosts=2', '--host', '0', '-coordinator', '10.0.0.1:99']
  done = subprocess.run(
    [*given, *several],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  assert shlex.split(done.stdout) == given, done.stderr


def test_the_command_of_a_script_that_another_one_runs(monkeypatch):
  arguments = ['distill.py', '--config=x.py', '--workdir=runs/it']
  monkeypatch.setattr(sys, 'argv', arguments)
  assert launch.command() == 'python distill.py --config=x.py --workdir=runs/it'


@pytest.mark.parametrize(
  ('script', 'told'),
  [
    ('distill', ['--config:', '--workdir:', '--hosts:', '--tune:']),
    ('sweep', ['--configs:', '--set:']),
  ],
)
def test_help_has_all_flags_of_a_script(script, told):
  path = str(ROOT / 'experiments' / f'{script}.py')
  asked = ['-h'] if script == 'sweep' else [f'--config={DEMO}', '--help']
  done = subprocess.run(
    [sys.executable, path, *asked], capture_output=True, text=True
  )
  assert done.stderr == ''
  assert all(f'\n  {flag} ' in done.stdout for flag in told), done.stdout


def test_a_terminal_of_ascii_is_printed_to_all_the_same():
  code = (
    'from jaxkd.run import launch\n'
    "launch.main(lambda stop: print('1 ± 2'), config=False)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
  )
  assert (done.stdout, done.stderr) == ('1 ? 2\n', '')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--hosts=2'], '--host: say which one this is, 0 to 1'),
    (['--hosts=2', '--host=2'], '--host: say which one'),
    (['--hosts=2', '--host=1'], '--coordinator: write HOST:PORT'),
    (['--hosts=many'], "--hosts=many: write how many there are, or 'auto'"),
    (['--host=1'], '--hosts=: write how many'),
    (['--hosts=auto', '--host=1'], '--hosts=auto: it finds --host'),
  ],
)
def test_mistakes_in_naming_hosts(arguments, message):
  values = flags.FLAGS
  saved = flagsaver.save_flag_values()
  try:
    values(['script', *arguments])
    with pytest.raises(UserError, match=message):
      launch._join(several=True)
    with pytest.raises(UserError, match='this script uses one host'):
      launch._join(several=False)
  finally:
    flagsaver.restore_flag_values(saved)


def test_a_port_of_the_first_host_that_is_taken():
  with (
    socket.create_server(('', 0)) as taken,
    pytest.raises(UserError, match='cannot listen there'),
  ):
    hosts.join(2, 0, f'127.0.0.1:{taken.getsockname()[1]}', 1)
