"""What metrics make of logits that are not numbers, and of missing classes."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.tasks import classification, diagnosis, fidelity, segmentation
from jaxkd.teachers import specialists

K = 12
CLASSES = tuple(map(str, range(K)))
random = np.random.default_rng(0)


def draw(*shape):
  return random.normal(size=shape).astype(np.float32)


# Of each: its metrics, the shape of the logits, and the batch.
LABELS = random.integers(0, K, 10).astype(np.int32)
ROWS = {'labels': LABELS}
MAPS = {
  'labels': random.integers(0, K, (3, 4, 5)).astype(np.int32),
  'valid': np.ones((3, 4, 5), bool),
}
CASES = {
  'classification': (classification.metrics(CLASSES), (10, K), ROWS),
  'recall': ({'recall': classification.recall(range(K))}, (10, K), ROWS),
  'diagnosis': (diagnosis.metrics(CLASSES), (10, K), ROWS),
  'fidelity': (fidelity.metrics('main'), (10, K), ROWS),
  'segmentation': (segmentation.metrics(CLASSES), (3, 4, 5, K), MAPS),
  'maps': (segmentation.fidelity('main'), (3, 4, 5, K), MAPS),
}
EACH = [
  pytest.param(case, name, id=f'{case}-{name}')
  for case, (metrics, *_) in CASES.items()
  for name in metrics
]


def measured(case, name, logits, teacher, batch=None):
  metric = CASES[case][0][name]
  given = {'logits': jnp.asarray(logits)}
  teachers = {'main': {'logits': jnp.asarray(teacher)[None]}}
  found = metric.measure(given, batch or CASES[case][2], teachers)
  found = [np.asarray(x) for x in found]
  return float(metric.value(*(metric.whole(*found) if metric.whole else found)))


@pytest.mark.parametrize(('case', 'name'), EACH)
def test_no_number_comes_of_logits_that_are_none(case, name):
  _, shape, batch = CASES[case]
  logits, teacher = draw(*shape), draw(*shape)
  assert np.isfinite(measured(case, name, logits, teacher))
  bad = logits.copy()
  bad[0] = np.nan
  for ruined in (bad, np.full_like(logits, np.nan)):
    assert np.isnan(measured(case, name, ruined, teacher))
  if CASES[case][0][name].teacher:
    assert np.isnan(measured(case, name, logits, np.full_like(bad, np.nan)))
  if 'where' not in batch and case != 'diagnosis':
    padding = batch | {'where': np.arange(len(bad)) > 0}
    assert np.isfinite(measured(case, name, bad, teacher, padding))


@pytest.mark.parametrize(('case', 'name'), EACH)
def test_a_class_that_does_not_exist(case, name):
  """Is what no example is of, and at -inf in all logits."""
  _, shape, batch = CASES[case]
  logits, teacher = draw(*shape), draw(*shape)
  wide = [np.insert(x, 3, -np.inf, axis=-1) for x in (logits, teacher)]
  labels = batch['labels'] + (batch['labels'] >= 3)
  if name in ('recall', 'miou'):  # these are told how many there are
    logits, teacher = logits[..., :-1], teacher[..., :-1]
    wide = [x[..., :-1] for x in wide]
    batch = {**batch, 'labels': np.minimum(batch['labels'], K - 2)}
    labels = batch['labels'] + (batch['labels'] >= 3)
  expected = measured(case, name, logits, teacher, batch)
  found = measured(case, name, *wide, {**batch, 'labels': labels})
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_of_specialists():
  outputs = {
    'logits': jnp.asarray(draw(10, K)),
    'generalist': jnp.full((10, K), jnp.nan),
    'cover': jnp.ones((10, K), jnp.int32),
    'covered': jnp.ones(10, jnp.int32),
  }
  for name, metric in specialists.metrics().items():
    found = metric.value(*map(np.asarray, metric.measure(outputs, ROWS, {})))
    numbers = ('top1_covered', 'in_0', 'in_1')
    assert np.isfinite(found) == (name in numbers), name
