"""Errors of predictions of measured values, against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxkd import tasks
from jaxkd.tasks import regression

N, D = 40, 2
NAMES = 'height', 'weight'
METRICS = regression.metrics(NAMES)
random = np.random.default_rng(0)
SCALE = np.array([0.1, 20.0])
LABELS = random.normal(0.3, 1.0, size=(N, D)).astype(np.float32)
PREDICTED = (LABELS + random.normal(size=(N, D))).astype(np.float32)
BATCH = {
  'labels': LABELS,
  'label_scale': np.broadcast_to(SCALE, (N, D)).astype(np.float32),
}


def value(name, predicted=PREDICTED, batch=BATCH, metrics=METRICS):
  measure = jax.jit(lambda x, b: metrics[name].measure({'logits': x}, b, {}))
  total, count = (np.asarray(x) for x in measure(predicted, batch))
  found = metrics[name].value(total, count)
  members = metrics[name].value(np.stack([total] * 3), np.stack([count] * 3))
  np.testing.assert_allclose(members, [found] * 3)
  return float(found)


WANTED = {
  'rmse': reference.root_mean_squared_error(LABELS * SCALE, PREDICTED * SCALE),
  'mae': reference.mean_absolute_error(LABELS * SCALE, PREDICTED * SCALE),
  'r2': reference.r2_score(LABELS, PREDICTED),
  'mse': reference.mean_squared_error(LABELS, PREDICTED),
  'rmse_weight': reference.root_mean_squared_error(
    LABELS[:, 1] * 20, PREDICTED[:, 1] * 20
  ),
}


@pytest.mark.parametrize('name', WANTED)
def test_is_that_of_scikit_learn(name):
  assert value(name) == pytest.approx(WANTED[name], rel=1e-5, abs=1e-6)


def test_labels_without_a_unit_are_taken_as_they_are():
  found = value('rmse', batch={'labels': LABELS})
  want = reference.root_mean_squared_error(LABELS, PREDICTED)
  assert found == pytest.approx(want, rel=1e-5)


def test_which_way_is_up():
  ways = {name: m.higher_is_better for name, m in METRICS.items()}
  assert [name for name, up in ways.items() if up] == ['r2']


def test_one_value_has_no_names():
  assert set(regression.metrics(('kelvin',))) == {'rmse', 'mae', 'r2', 'mse'}
  odd = regression.metrics(('in m/s', 'in kg'))
  assert {'rmse_0', 'rmse_1'} < set(odd)


@pytest.mark.parametrize('name', METRICS)
def test_examples_that_fill_up_count_for_nothing_and_nan_is_nan(name):
  padded = {k: np.concatenate([x, 9 * x[:3]]) for k, x in BATCH.items()}
  padded['where'] = np.arange(N + 3) < N
  predicted = np.concatenate([PREDICTED, np.full((3, D), np.nan, np.float32)])
  same = pytest.approx(value(name), 1e-6, 1e-6)
  assert value(name, predicted, padded) == same
  assert np.isnan(
    value(name, np.where(np.arange(N)[:, None], PREDICTED, np.nan))
  )


def test_nothing_is_explained_of_labels_that_are_alike():
  batch = {**BATCH, 'labels': np.full_like(LABELS, 0.3)}
  assert np.isnan(value('r2', batch=batch))


def test_fidelity_and_ensembles_take_the_mean_of_the_predictions():
  teachers = random.normal(size=(3, N, D)).astype(np.float32)
  found = regression.fidelity('main')['teacher_rmse']
  total, count = found.measure(
    {'logits': PREDICTED}, BATCH, {'main': {'logits': teachers}}
  )
  want = reference.root_mean_squared_error(
    teachers.mean(0) * SCALE, PREDICTED * SCALE
  )
  got = found.value(np.asarray(total), np.asarray(count))
  assert float(got) == pytest.approx(want, rel=1e-5)
  task = tasks.find('regression')
  np.testing.assert_allclose(
    task.ensemble(teachers), teachers.mean(0), rtol=1e-5, atol=1e-6
  )
