"""Losses on measured values, against their formulas in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses

random = np.random.default_rng(1)
B, D = 5, 3
STUDENT, TEACHER, LABELS = (random.normal(size=(B, D)) for _ in range(3))
SCALE = (0.5, 1.0, 4.0)


def np_squared_error(z, y, scale=1.0):
  return (((z - y) / np.array(scale)) ** 2).mean(-1)


def np_teacher_bounded(z, v, y, margin=0.0, scale=1.0):
  own, bound = (np_squared_error(x, y, scale) for x in (z, v))
  return np.where(own + margin > bound, own, 0)


CASES = {
  'squared_error': (
    losses.squared_error,
    np_squared_error,
    [STUDENT, LABELS],
    {},
  ),
  'squared_error_scaled': (
    losses.squared_error,
    np_squared_error,
    [STUDENT, LABELS],
    dict(scale=SCALE),
  ),
  'teacher_bounded': (
    losses.teacher_bounded,
    np_teacher_bounded,
    [STUDENT, TEACHER, LABELS],
    dict(margin=0.1, scale=SCALE),
  ),
}
ALL = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


@ALL
def test_is_its_formula(case, agrees):
  agrees(*case)


@ALL
def test_has_the_gradient_of_its_differences(case, slopes):
  loss, _, arrays, options = case
  slopes(loss, arrays, options)


@ALL
def test_under_jit_and_vmap(case, transforms):
  loss, _, arrays, options = case
  transforms(loss, arrays, options)


def test_both_kinds_of_examples_are_there():
  """Else the cases above would say nothing of the bound."""
  counts = np_teacher_bounded(STUDENT, TEACHER, LABELS, 0.1, SCALE) > 0
  assert 0 < counts.sum() < B


def test_a_prediction_of_the_mean_has_the_loss_1():
  labels = jnp.asarray(random.normal(300.0, 20.0, size=(50, 2)), jnp.float32)
  mean = jnp.broadcast_to(labels.mean(0), labels.shape)
  found = losses.squared_error(mean, labels, scale=labels.std(0))
  np.testing.assert_allclose(found.mean(), 1, rtol=1e-4)


def test_a_student_is_not_held_to_a_teacher_that_is_worse():
  student, teacher = jnp.full((1, 1), 1.0), jnp.full((1, 1), 2.0)
  labels = jnp.zeros((1, 1))
  assert losses.teacher_bounded(student, teacher, labels) == 0
  assert losses.teacher_bounded(student, teacher, labels, margin=3.0) == 0
  assert losses.teacher_bounded(student, teacher, labels, margin=3.1) == 1


def test_labels_may_lack_the_axis_of_a_single_output():
  z, y = jnp.ones((4, 1)), jnp.zeros(4)
  np.testing.assert_array_equal(losses.squared_error(z, y), 1)
  found = losses.teacher_bounded(z, z + 1, y, margin=4.0)
  np.testing.assert_array_equal(found, 1)


@pytest.mark.parametrize(
  ('student', 'labels', 'kw', 'message'),
  [
    ((4, 2), (4,), {}, 'labels must be float'),
    ((4,), (4, 1), {}, 'labels must be float'),
    ((4, 1), (4, 4), {}, 'labels must be float'),
    ((4, 2), (4, 2), dict(scale=(1.0,)), 'scale must be 2 numbers above 0'),
    ((4, 2), (4, 2), dict(scale=(1.0, 0.0)), 'above 0'),
  ],
)
def test_bad_input(student, labels, kw, message):
  with pytest.raises(ValueError, match=message):
    losses.squared_error(jnp.ones(student), jnp.ones(labels), **kw)
  with pytest.raises(ValueError, match=message):
    losses.teacher_bounded(
      jnp.ones(student), jnp.ones(student), jnp.ones(labels), **kw
    )


def test_a_negative_margin():
  one = jnp.ones((1, 1))
  with pytest.raises(ValueError, match='margin'):
    losses.teacher_bounded(one, one, one, margin=-1.0)
