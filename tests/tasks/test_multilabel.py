"""Metrics of labels of several classes, against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxkd import tasks
from jaxkd.tasks import multilabel
from jaxkd.teachers.many import log_mean_sigmoids

N, K = 40, 5
METRICS = multilabel.metrics(tuple(map(str, range(K))))
random = np.random.default_rng(0)
# Of few values, so that many are equal.
LOGITS = random.integers(-3, 4, (N, K)).astype(np.float32)
LABELS = (random.random((N, K)) < 0.3).astype(np.int32)
VALID = random.random((N, K)) < 0.8
LABELS[:, 3] = 0  # nobody has class 3
BATCH = {'labels': np.where(VALID, LABELS, 0), 'valid': VALID}


def pair(metric, logits=LOGITS, batch=BATCH, teachers=None):
  measure = jax.jit(
    lambda x, b, t: metric.measure({'logits': x}, b, {'main': {'logits': t}})
  )
  teachers = np.zeros((1, *logits.shape)) if teachers is None else teachers
  return [np.asarray(x) for x in measure(logits, batch, teachers)]


def value(name, *args):
  metric = METRICS[name]
  found = pair(metric, *args)
  if metric.whole:
    found = [np.asarray(x) for x in metric.whole(*found)]
  return float(metric.value(*found))


def test_is_a_task_that_masks_what_is_not_known():
  task = tasks.find('multilabel')
  assert (task.GROUND_TRUTH, task.MASK) == ('binary_cross_entropy', 'valid')


def test_mean_average_precision_by_hand():
  """Ranks 1 and 3 of four are right: (1 + 2/3) / 2; the other class, 1/2."""
  logits = np.array([[4, 0], [3, 1], [2, 9], [1, 5.0]], np.float32)
  labels = np.array([[1, 0], [0, 0], [1, 0], [0, 1]])
  batch = {'labels': labels, 'valid': np.ones((4, 2), bool)}
  want = ((1 + 2 / 3) / 2 + 1 / 2) / 2
  assert value('map', logits, batch) == pytest.approx(want)


def test_mean_average_precision_is_that_of_scikit_learn():
  each = [
    reference.average_precision_score(
      LABELS[VALID[:, k], k], LOGITS[VALID[:, k], k]
    )
    for k in (0, 1, 2, 4)
  ]
  assert value('map') == pytest.approx(np.mean(each))


def test_f1_and_likelihood_of_the_labels_known():
  truth, logits = LABELS[VALID], LOGITS[VALID].astype(float)
  want = reference.f1_score(truth, logits > 0)
  assert value('f1') == pytest.approx(want, rel=1e-6)
  want = reference.log_loss(truth, 1 / (1 + np.exp(-logits)))
  assert value('nll') == pytest.approx(want, rel=1e-5)


def test_nothing_known_is_not_a_number():
  batch = {'labels': 0 * LABELS, 'valid': np.zeros_like(VALID)}
  for name in METRICS:
    assert np.isnan(value(name, LOGITS, batch)), name


@pytest.mark.parametrize('name', METRICS)
def test_nan_stays_nan(name):
  logits = np.where(VALID & (np.arange(N)[:, None] == 3), np.nan, LOGITS)
  assert np.isnan(value(name, logits.astype(np.float32)))


@pytest.mark.parametrize('name', ['f1', 'nll'])
def test_examples_that_fill_up_a_batch_count_for_nothing(name):
  padded = {
    'labels': np.concatenate([BATCH['labels'], 1 - BATCH['labels'][:3]]),
    'valid': np.concatenate([VALID, np.ones((3, K), bool)]),
    'where': np.arange(N + 3) < N,
  }
  logits = np.concatenate([LOGITS, -LOGITS[:3]])
  assert value(name, logits, padded) == pytest.approx(value(name), rel=1e-6)


def test_fidelity():
  teachers = random.normal(size=(2, N, K)).astype(np.float32)
  found = multilabel.fidelity('main')
  p = (1 / (1 + np.exp(-teachers))).mean(0)
  q = 1 / (1 + np.exp(-LOGITS))
  total, count = pair(found['agreement'], teachers=teachers)
  want = ((p > 0.5) == (q > 0.5)).mean()
  assert total / count == pytest.approx(want, rel=1e-5)
  total, count = pair(found['teacher_kl'], teachers=teachers)
  want = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  assert total / count == pytest.approx(want.mean(), rel=1e-4)


def test_an_ensemble_averages_the_probabilities_of_each_class():
  logits = random.normal(size=(3, 4, K)).astype(np.float32)
  found = jax.nn.sigmoid(log_mean_sigmoids(jnp.asarray(logits)))
  want = (1 / (1 + np.exp(-logits))).mean(0)
  np.testing.assert_allclose(found, want, rtol=1e-5)
  assert tasks.find('multilabel').ensemble is log_mean_sigmoids
