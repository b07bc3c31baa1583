"""Evaluation of whole splits, and of nets that have no result."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxkd.data.examples import ArrayExamples
from jaxkd.distill.roles import Group
from jaxkd.errors import UserError
from jaxkd.run import checks, evaluate, jobs, train_job
from jaxkd.run import config as configs
from jaxkd.tasks import diagnosis
from jaxkd.tasks.metrics import not_a_number
from jaxkd.types import Metric


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A session with splits of 900 examples, and three nets."""
  given = dict(
    task='diagnosis',
    data=dict(
      source='synthetic', kw=dict(shape=(3,), num_classes=4, size=4500)
    ),
    students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
    distill=dict(labels=dict(loss='cross_entropy')),
    report=dict(compare=dict(better='student', than='student')),
  )  # fmt: skip
  directory = tmp_path_factory.mktemp('run')
  config = configs.plain(configs.complete(given))
  source, (part,) = checks.prepare(config, directory)
  session = jobs.session_of(part, source, directory, progress=None)
  roles = next(iter(part.students.values()))
  keys = jax.vmap(jax.random.key)(np.arange(3))
  return session, roles, {'student': jax.vmap(roles['student'].net.init)(keys)}


@pytest.mark.parametrize('mode', ['vmap', 'sequence'])
@pytest.mark.all_devices
def test_a_metric_of_a_whole_split(run, mode):
  session, roles, variables = run
  found = evaluate.evaluate(session, roles, variables, 'test', mode=mode)
  test = session.source.splits['test']
  batch = test.fetch(np.arange(len(test)))
  for member in range(3):
    one = jax.tree.map(lambda x, m=member: x[m], variables['student'])
    logits = roles['student'].net.apply(one, batch['inputs'])[0]['logits']
    want = diagnosis.auc(np.asarray(jax.nn.softmax(logits)), batch['labels'])
    assert found['test/auc'][member] == pytest.approx(want, abs=1e-5)
    top1 = (logits.argmax(-1) == batch['labels']).mean()
    assert found['test/top1'][member] == pytest.approx(top1)


def test_metrics_share_what_a_whole_split_gives(run):
  session, roles, variables = run
  seen = []

  def labels(outputs, batch, teachers):
    return (batch['labels'],)

  def whole(labels):
    seen.append(labels)
    return np.array([len(labels), 7]), 1

  metrics = {
    name: Metric(labels, lambda x, n, i=i: x[..., i] / n, whole=whole)
    for i, name in enumerate(('size', 'seven'))
  }
  session = session._replace(metrics=metrics)
  found = evaluate.evaluate(session, roles, variables, 'test')
  assert len(seen) == 3  # one for each member
  np.testing.assert_array_equal(found['test/size'], [900] * 3)
  np.testing.assert_array_equal(found['test/seven'], [7] * 3)
  np.testing.assert_array_equal(seen[2], session.source.splits['test'].labels)


def test_what_does_not_count_is_in_nothing_that_is_measured(run):
  session, roles, variables = run
  splits, random = session.source.splits, np.random.default_rng(0)
  test, valid = splits['test'], random.random(900) < 0.7
  fields = test.fetch(np.arange(900))
  wrong = np.where(valid, fields['labels'], random.integers(0, 4, 900))
  marked = ArrayExamples(fields['inputs'], wrong, valid=valid)
  alone = ArrayExamples(fields['inputs'][valid], fields['labels'][valid])

  def found(test):
    source = session.source._replace(splits={**splits, 'test': test})
    own = session._replace(source=source)
    group = Group(roles['student'], variables['student'])
    return (
      evaluate.evaluate(own, roles, variables, 'test'),
      evaluate.predict(own, group, 'test'),
      evaluate.log_likelihoods(own, group, 'test'),
      evaluate.logits(own, roles['student'], variables['student'], 'test'),
    )

  compare = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5)  # noqa: E731
  jax.tree.map(compare, found(marked), found(alone))


@pytest.mark.parametrize(
  ('lost', 'batch', 'count'),
  [
    ([], {}, 0),
    ([(0, 1, 2), (0, 0, 1), (3, 1, 0)], {}, 2),
    ([(0, 0, 0), (3, 1, 0)], {'where': [False, True, True, True]}, 1),
    ([(0, 0, 0), (3, 1, 0)], {'valid': [False, True, True, True]}, 1),
    ([(0, 0, 0), (3, 1, 0)], {'valid': [[True, False]] * 4}, 1),
    ([(0, 0, 0), (3, 1, 0)], {'valid': [[True] * 5] * 4}, 2),  # of no place
  ],
)
def test_examples_with_a_nan_where_it_counts(lost, batch, count):
  output = np.zeros((4, 2, 3), np.float32)
  output[0, 0, 0] = output[1, 1, 1] = -np.inf  # is a number
  for place in lost:
    output[place] = np.nan
  batch = {name: jnp.array(x) for name, x in batch.items()}
  metric = not_a_number('maps')
  found, _ = metric.measure({'maps': output}, batch, {})
  assert found == count


def test_whole_numbers_are_numbers():
  tokens = jnp.zeros((4, 7), jnp.int32)
  assert not_a_number('beam').measure({'beam': tokens}, {}, {})[0] == 0


def test_a_net_that_gives_nan_has_no_result(run):
  session, roles, variables = run
  bad = jax.tree.map(lambda x: x.at[1].set(jnp.nan), variables)
  message = 'student: .* of member 1 are not a number for 900 examples of test'
  with pytest.raises(UserError, match=message):
    evaluate.evaluate(session, roles, bad, 'test')
  found = evaluate.evaluate(session, roles, bad, 'test', may_be_lost=True)
  for values in found.values():
    np.testing.assert_array_equal(np.isnan(values), [False, True, False])


class Evaluates(nnx.Module):
  """Something else in evaluation than in training."""

  def __init__(self, rngs, input_shape, num_classes):
    self.layer = nnx.Linear(*input_shape, num_classes, rngs=rngs)
    self.training = True

  def __call__(self, x):
    return self.layer(x) if self.training else self.layer(x) * jnp.nan


def test_nan_in_evaluation_alone_is_found_while_a_net_trains(tmp_path):
  given = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(3,), num_classes=2, size=60)
    ),
    students=dict(student=dict(model=f'{__name__}:Evaluates')),
    distill=dict(labels=dict(loss='cross_entropy')),
    train=dict(steps=2, seeds=2, batch_size=4, eval_every=1, members='vmap'),
    report=dict(compare=dict(better='student', than='student')),
  )  # fmt: skip
  config = configs.plain(configs.complete(given))
  source, (part,) = checks.prepare(config, tmp_path)

  def trained(**options):
    directory = tmp_path / str(len(options))
    quiet = lambda *stage: contextlib.nullcontext(lambda *_: None)  # noqa: E731
    session = jobs.session_of(part, source, directory, progress=quiet)
    job = jobs.of_arm(part, 'student', source, {}, None)
    return train_job.train(session, job, **options)

  with pytest.raises(UserError, match=r'member 0 .* for 12 examples'):
    trained()
  # In tuning it counts as a point that has diverged, not as one that is right.
  found = trained(may_diverge=True).history['metrics']
  assert np.isnan(found['validation/top1']).all()
  assert np.isfinite(found['train/loss']).all()


def test_fewer_examples_at_once_where_each_has_many_logits(run, monkeypatch):
  session, roles, variables = run
  assert evaluate._at_once(session, 'test') == evaluate.EVALUATED
  once = evaluate.evaluate(session, roles, variables, 'test')
  monkeypatch.setattr(evaluate, 'LOGITS', 4 * 100)
  assert evaluate._at_once(session, 'test') == 100
  parts = evaluate.evaluate(session, roles, variables, 'test')
  for name, value in once.items():
    np.testing.assert_allclose(parts[name], value, atol=1e-5)
  monkeypatch.setattr(evaluate, 'LOGITS', 1)
  assert evaluate._at_once(session, 'test') == 1


def test_a_net_that_gives_probabilities_has_no_result(run):
  session, roles, variables = run

  def probabilities(path, x):
    if 'head' not in jax.tree_util.keystr(path):
      return x
    return jnp.full_like(x, 0.25 if x.ndim == 2 else 0.0)  # of four classes

  bad = jax.tree_util.tree_map_with_path(probabilities, variables)
  with pytest.raises(UserError, match=r'student: .* are probabilities'):
    evaluate.evaluate(session, roles, bad, 'test')
