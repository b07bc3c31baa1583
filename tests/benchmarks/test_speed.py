"""What is measured of speed, not how fast anything is."""

import io
import itertools
import json
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import speed
from jaxkd.errors import Stopped, UserError
from jaxkd.report import made_with
from jaxkd.report import speed as report
from jaxkd.run import config as configs

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs' / 'hinton2015_soft_targets.py'


@pytest.fixture(scope='module')
def case():
  config = configs.plain(configs.load(f'{DEMO}:tiny'))
  config = configs.put(config, 'train.batch_size', 4)
  return speed.Case('tiny', config, (8, 8, 1), 10, ('layers/0', 'layers/0'))


@pytest.fixture(scope='module')
def measured(case):
  return speed.steps(case, samples=3)


def test_each_program_has_its_row(measured):
  found = {row['program']: row for row in measured['rows']}
  steps = [name for name in found if name.startswith('distillation step')]
  losses = [name for name in found if name.startswith('losses')]
  assert list(found)[:2] == ['plain step', 'teacher forward']
  assert len(steps) == 3
  assert len(losses) == 2
  assert len(found) == 7
  assert measured['device'] == made_with.device()
  for row in found.values():
    assert 0 < row['lower quartile'] <= row['ms'] <= row['upper quartile']
    assert row['MFLOPs'] > 0
  for name in ('plain step', *steps):
    assert found[name]['traces'] == 1
  for name in steps:
    assert 0 < found[name]['ratio'] < np.inf
  assert found['teacher forward']['ratio'] is None
  assert found['teacher forward']['traces'] is None

  student, teacher = 64 * 8 + 8 + 8 * 10 + 10, 64 * 32 + 32 + 32 * 10 + 10
  adapter = 8 * 32 + 32
  parameters = [row['parameters'] for row in measured['rows']]
  assert parameters == [
    student, teacher, 0, student + teacher, adapter,
    student + teacher + adapter, student,
  ]  # fmt: skip
  hint = found['losses: soft targets + hint']
  assert hint['shapes'] == '4×10, 4×32, 4×8'
  # The soft step does what its parts do; the hint's losses do more.
  flops = [row['MFLOPs'] for row in measured['rows']]
  assert sum(flops[:2]) < flops[3] < flops[5]
  # What is looked up is not computed.
  assert flops[0] < flops[6] < flops[3]


def test_traces_are_counted_from_the_first_step_on(case):
  program, traced = speed.plain_step(case, speed.synthetic(case), {})
  assert traced() == 0
  state = program.call(program.state)
  assert traced() == 1
  carry, totals = state
  carry[0]['step'] = jnp.float32(1)  # a new type makes it trace again
  program.call((carry, totals))
  assert traced() == 2


def test_programs_take_turns():
  order = []

  def program(name):
    def call(state):
      order.append((name, state))
      return state + 1

    return speed.Program(call, 0, flops=0)

  made = {name: program(name) for name in 'abc'}
  times = speed.interleaved(made, samples=2)
  assert {name: len(taken) for name, taken in times.items()} == dict(
    a=2, b=2, c=2
  )
  warm = 3 * speed.WARM_UP
  turns = [name for name, _ in itertools.groupby(order[warm:], lambda x: x[0])]
  assert ''.join(turns) == 'abcabc'
  for name in 'abc':  # every call is given what the last one gave
    states = [state for called, state in order if called == name]
    assert states == list(range(len(states)))


def test_asked_to_stop(case):
  stop = threading.Event()
  stop.set()
  with pytest.raises(Stopped, match='nothing was kept'):
    speed.interleaved(
      {'a': speed.Program(lambda state: state, 0, flops=0)}, 2, stop
    )


def test_stored_measurements_are_those_of_the_report(
  measured, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match='--store: there is no folder benchmarks'):
    speed.store([measured], 'steps')
  (tmp_path / 'benchmarks').mkdir()
  path = speed.store([measured], 'steps')
  assert path.parent == Path('benchmarks/speed')
  assert path.name.endswith('_steps.json')
  assert path.name.islower()
  assert path.name.isascii()
  assert report.load('benchmarks/speed') == [measured]
  # Another case is added, the same one replaced.
  other = {**measured, 'name': 'Steps: other'}
  newer = {**measured, 'rows': measured['rows'][:1]}
  assert speed.store([other, newer], 'steps') == path
  assert report.load('benchmarks/speed') == [newer, other]
  page = report.page([measured])
  assert '## Steps: tiny' in page
  assert '| distillation step: soft targets |' in page

  path.write_text('{}')
  with pytest.raises(UserError, match='must be a list'):
    speed.store([measured], 'steps')
  assert path.read_text() == '{}'


def test_a_file_that_cannot_be_written(measured, tmp_path):
  with pytest.raises(UserError, match=r'x\.json cannot be written: No such'):
    speed.save(tmp_path / 'none' / 'x.json', [measured])
  with pytest.raises(UserError, match=r'x\.json cannot be written: No such'):
    speed.check_out(tmp_path / 'none' / 'x.json')
  for folder in ('/', tmp_path):
    with pytest.raises(UserError, match='is a folder; name a file in it'):
      speed.check_out(folder)
  speed.check_out(tmp_path / 'x.json')
  assert not [*tmp_path.iterdir()]
  speed.save(tmp_path / 'x.json', [measured])
  assert json.loads((tmp_path / 'x.json').read_text()) == [measured]


def test_the_table(measured):
  output = io.StringIO()
  Console(file=output, width=80).print(speed.table(measured))
  text = output.getvalue()
  assert 'ms (quartiles)' in text
  assert 'mlp(widths=(8,)),' in text
  assert '4×8×8×1' in text
  assert '…' not in text


def test_cases(monkeypatch):
  cases = speed.cases(configs.load(str(DEMO)))
  assert list(cases) == ['demo', 'resnet20-resnet8']
  demo = cases['demo'].config
  assert demo['teachers']['main']['kw']['widths'] == (256, 256)
  assert demo['train']['batch_size'] == 64
  monkeypatch.setattr(speed.jax, 'default_backend', lambda: 'gpu')
  large = speed.cases(demo)['resnet32x4-resnet8x4']
  assert large.config['train']['batch_size'] == 256
