"""Every loss has a case in the benchmark; how fast it is is not tested."""

import inspect
import io
import re
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import loss_speed, speed
from jaxkd import losses
from jaxkd.errors import Stopped, UserError
from jaxkd.report import speed as report
from jaxkd.report.progress import Reporter
from jaxkd.run import config as configs

LOSSES = [name for name in losses.__all__ if loss_speed.is_loss(name)]


@pytest.fixture(scope='module')
def case():
  """Two small residual nets on small images, in batches of 4."""
  usual = loss_speed.usual()
  config = configs.put(usual.config, 'train.batch_size', 4)
  for role in ('teachers.main', 'students.student'):
    config = configs.put(config, f'{role}.model', 'resnet')
    kw = {'depth': 8, 'widths': (2, 2, 4, 8)}
    config = configs.put(config, f'{role}.kw', kw)
  return usual._replace(config=config, input_shape=(8, 8, 3))


@pytest.fixture(scope='module')
def inputs(case):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loss_speed, 'NEGATIVES', 5)
    return loss_speed.inputs(case)


@pytest.fixture(scope='module')
def measured(case, inputs):
  """Some of the losses, and what is none."""
  names = ['cross_entropy', 'hierarchical_context', 'kl', 'majority_vote']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loss_speed, 'inputs', lambda case: inputs)
    patch.setattr(losses, '__all__', names)
    return loss_speed.measure(case, 2)


@pytest.mark.parametrize('name', LOSSES)
def test_every_loss_has_a_case(name, inputs):
  given = loss_speed.arguments(name, inputs)
  function, own, others = loss_speed.differentiated(name, given)
  value, slope = jax.eval_shape(function, own, others)
  assert value.shape == ()
  assert jax.tree.structure(slope) == jax.tree.structure(own)
  assert not set(own) & set(others)
  # Two nets, not one: at equality a loss may be cheaper than it is.
  if 'teacher' in others:
    assert not np.array_equal(given['teacher'], given.get('student'))


def test_what_is_left_out_is_no_loss():
  left_out = set(losses.__all__) - set(LOSSES)
  assert set(loss_speed._PARTS) < left_out, 'a name that is gone'
  # majority_vote and its like; a loss of a student must not slip in here.
  for name in left_out:
    given = inspect.signature(getattr(losses, name)).parameters
    assert not {'student', 'student_pair', 'student_maps'} & set(given), name


def test_a_new_loss_without_inputs(monkeypatch, inputs):
  def graph(student, adjacency, *, temperature=1.0):
    return student

  graph.__module__ = 'jaxkd.losses.relations'
  monkeypatch.setattr(losses, 'graph', graph, raising=False)
  with pytest.raises(
    UserError,
    match=r"^jaxkd\.losses\.graph: .* argument 'adjacency'; add it to inputs",
  ):
    loss_speed.arguments('graph', inputs)
  graph.__module__ = 'jaxkd.losses.graphs'
  with pytest.raises(UserError, match='the module graphs look at; add it to'):
    loss_speed.arguments('graph', inputs)
  monkeypatch.setattr(losses, 'graph', lambda real: real)
  with pytest.raises(UserError, match=r'real is the student.s; add the one'):
    loss_speed.arguments('graph', inputs)


def test_where_losses_look(inputs):
  shapes = {
    name: {
      argument: [x.shape for x in jax.tree.leaves(value)]
      for argument, value in loss_speed.arguments(name, inputs).items()
      if argument in ('student', 'teacher_maps', 'student_pair', 'mean')
    }
    for name in LOSSES
  }
  maps = [(4, 8, 8, 2), (4, 4, 4, 4), (4, 2, 2, 8)]
  assert shapes['kl'] == {'student': [(4, 100)]}
  assert shapes['hint'] == {'student': maps[-1:]}
  assert shapes['rkd_angle'] == {'student': [(4, 8)]}
  assert shapes['hierarchical_context'] == {'teacher_maps': maps}
  assert shapes['flow_of_solution'] == {'student_pair': maps[1:]}
  assert shapes['variational_information'] == {'mean': maps[-1:]}


def test_the_gradient_is_the_students(inputs):
  given = loss_speed.arguments('variational_information', inputs)
  _, own, others = loss_speed.differentiated('variational_information', given)
  assert list(own) == ['mean', 'raw_scale']
  assert list(others) == ['teacher']
  given = loss_speed.arguments('gradient_penalty', inputs)
  _, own, others = loss_speed.differentiated('gradient_penalty', given)
  assert list(own) == ['fake']
  assert list(others) == ['key', 'real']  # the critic is no array


def test_each_loss_has_its_row(measured):
  assert measured['name'] == 'Losses: resnet32x4-resnet8x4'
  assert set(measured['versions']) > {'jax', 'flax'}
  step, *rows = measured['rows']
  assert step['loss'] == 'plain step of resnet'
  assert step['shapes'] == '4×8×8×3'
  assert step['% of a step'] == 100
  assert [(row['loss'], row['kind'], row['shapes']) for row in rows] == [
    ('cross_entropy', 'responses', '4×100'),
    ('kl', 'responses', '4×100'),
    ('hierarchical_context', 'features', '4×8×8×2, 4×4×4×4, 4×2×2×8'),
  ]
  for row in rows:
    assert 0 < row['lower quartile'] <= row['ms'] <= row['upper quartile']
    assert row['% of a step'] > 0
    assert row['temporary MiB'] >= 0
  assert measured['notes'][0].endswith('medians of 2 rounds.')
  assert measured['notes'][-1].endswith('not measured: majority_vote.')


def test_the_memory_is_that_of_the_temporaries():
  x = jnp.ones((64, 64))
  assert loss_speed.temporaries(lambda x: jnp.tanh(x @ x) @ x, x) == 0.0156
  assert loss_speed.temporaries(lambda x: x + 1, x) == 0


def test_shown_and_stored(measured, tmp_path, monkeypatch):
  output = io.StringIO()
  Console(file=output, width=80).print(loss_speed.table(measured))
  text = output.getvalue()
  assert '…' not in text
  assert re.search(r'^cross_entropy +4×100 .* \(.*–.*\) ', text, re.MULTILINE)
  assert '- Not losses, and not measured: majority_vote.' in text

  monkeypatch.chdir(tmp_path)
  (tmp_path / 'benchmarks').mkdir()
  path = speed.store([measured], 'losses')
  assert path.name.endswith('_losses.json')
  page = report.page(report.load('benchmarks/speed'))
  assert '| kl | responses | 4×100 |' in page
  assert f'; commit {measured["commit"]}.' in page
  assert '\n- Not losses, and not measured: majority_vote.\n' in page


def test_time_bounds_the_samples():
  calls = []

  def call(state):
    calls.append(state)
    time.sleep(0.01)
    return state

  programs = {'a': speed.Program(call, 0, flops=0)}
  found = speed.interleaved(programs, 100, seconds=0.0)
  assert found['a'].shape == (speed.FEWEST,)
  assert len(calls) == speed.WARM_UP + speed.FEWEST
  assert speed.interleaved(programs, 2, seconds=0.0)['a'].shape == (2,)
  assert speed.interleaved(programs, 2, seconds=9.0)['a'].shape == (2,)


def test_progress():
  output = io.StringIO()
  stage = Reporter(Console(file=output, width=80), '').stage
  programs = {
    name: speed.Program(lambda state: state, 0, flops=0) for name in 'abcd'
  }
  speed.interleaved(programs, 4, stage=stage)
  lines = output.getvalue().split('\n')
  for stage in ('warming up', 'measuring'):  # the first and the last line
    assert sum(line.startswith(stage) for line in lines) == 2


def test_progress_on_a_terminal():
  output = io.StringIO()
  console = Console(file=output, width=100, force_terminal=True)
  with Reporter(console, '').stage('compiling', 2) as show:
    show(1, {})
    show(2, {})
  assert '2/2' in output.getvalue()
  assert 'done before' not in output.getvalue()


def test_asked_to_stop(case, inputs, monkeypatch):
  monkeypatch.setattr(loss_speed, 'inputs', lambda case: inputs)
  stop = threading.Event()
  stop.set()
  with pytest.raises(Stopped, match='nothing was kept'):
    loss_speed.measure(case, 2, stop)
