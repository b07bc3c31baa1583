"""Evaluation of whole splits."""

import jax
import numpy as np
import pytest

from jaxkd import config as configs
from jaxkd import jobs, preflight
from jaxkd.distill import training
from jaxkd.tasks import diagnosis
from jaxkd.tasks.metrics import Metric


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
  source, (part,) = preflight.prepare(config, directory)
  session = jobs.session_of(part, source, directory, progress=None)
  roles = next(iter(part.students.values()))
  keys = jax.vmap(jax.random.key)(np.arange(3))
  return session, roles, {'student': jax.vmap(roles['student'].net.init)(keys)}


@pytest.mark.parametrize('mode', ['vmap', 'sequence'])
@pytest.mark.all_devices
def test_a_metric_of_a_whole_split(run, mode):
  session, roles, variables = run
  found = training.evaluate(session, roles, variables, 'test', mode=mode)
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
  found = training.evaluate(session, roles, variables, 'test')
  assert len(seen) == 3  # one for each member
  np.testing.assert_array_equal(found['test/size'], [900] * 3)
  np.testing.assert_array_equal(found['test/seven'], [7] * 3)
  np.testing.assert_array_equal(seen[2], session.source.splits['test'].labels)
