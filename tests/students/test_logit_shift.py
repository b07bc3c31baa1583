"""The shift of classes that a student has never seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.run import plan
from jaxkd.students import logit_shift

AT = 'students.s.logit_shift'
UNSEEN = np.array([False, False, True])


def right(logits, labels, shift, classes=UNSEEN):
  return ((logits + shift * classes).argmax(1) == labels).sum()


def test_the_shift_is_the_middle_of_the_best_interval():
  # Class 2 is behind by 3, 5 and 1 on its own examples and by 9 on another's.
  logits = np.array([[3.0, 0, 0], [0, 5, 0], [1, 0, 0], [9, 0, 0]])
  labels = np.array([2, 2, 2, 0])
  assert logit_shift.shift(logits, labels, UNSEEN) == pytest.approx(7)
  # Three of another's at 2 count for more than two of its own beyond.
  logits = np.array([*logits[:3], *np.tile([2.0, 0, 0], (3, 1))])
  labels = np.array([2, 2, 2, 0, 0, 0])
  assert logit_shift.shift(logits, labels, UNSEEN) == pytest.approx(1.5)


def test_where_one_side_is_open_it_ends_one_beyond_the_last():
  logits, labels = np.array([[2.0, 0, 0]]), np.array([2])
  assert logit_shift.shift(logits, labels, UNSEEN) == pytest.approx(2.5)
  assert logit_shift.shift(logits, np.array([0]), UNSEEN) == pytest.approx(1.5)


@pytest.mark.parametrize('seed', range(4))
def test_no_shift_on_a_fine_grid_is_better(seed):
  random = np.random.default_rng(seed)
  logits = random.normal(size=(60, 6)) * 3
  labels = random.integers(0, 6, 60)
  classes = np.arange(6) < 1 + seed
  logits[:, classes] -= 2
  best = max(
    right(logits, labels, s, classes) for s in np.linspace(-20, 20, 4001)
  )
  found = logit_shift.shift(logits, labels, classes)
  assert right(logits, labels, found, classes) == best


def test_thresholds_that_coincide_are_passed_at_once():
  logits = np.array([[4.0, 0, 0], [4, 0, 0], [4, 0, 0]])
  labels = np.array([2, 0, 0])
  assert right(logits, labels, logit_shift.shift(logits, labels, UNSEEN)) == 2


def test_which_classes_are_missing():
  labels = np.array([0, 1, 2, 1])
  weights = np.array([[1.0, 2, 0, 0], [1, 0, 1, 0]])
  found = logit_shift.classes('missing', labels, weights, 4, at=AT)
  np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 1, 0, 1]])
  found = logit_shift.classes('3, 1', labels, weights, 4, at=AT)
  np.testing.assert_array_equal(found, [[0, 1, 0, 1]] * 2)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('missing', 'logit_shift: .*none is missing'),
    ('mising', "no class 'mising'; did you mean 'missing'"),
    ('3', "no class '3'"),
    ('0,1,2', 'all classes'),
  ],
)
def test_classes_that_cannot_be_shifted(text, message):
  labels = np.arange(3)
  with pytest.raises(UserError, match=message):
    logit_shift.classes(text, labels, np.ones((1, 3)), 3, at=AT)


def test_a_shifted_net_is_the_net_and_a_bias():
  plain = models.build('mlp', num_classes=3, input_shape=(2,), widths=(4,))
  net = logit_shift.shifted(plain, 3)
  own = plain.init(jax.random.key(0))
  started = net.init(jax.random.key(0))
  np.testing.assert_array_equal(started['state']['shift']['bias'], np.zeros(3))
  x = jnp.ones((5, 2))
  bias = np.array([[0.0, 0, 3], [1, 0, 0]])
  both = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), own)
  both = logit_shift.with_shift(both, bias)
  run = jax.jit(jax.vmap(lambda v: net.apply(v, x)))
  outputs, state = run(both)
  want = [plain.apply(own, x)[0]['logits'] + bias[:1]]
  double = jax.tree.map(lambda x: 2 * x, own)
  want.append(plain.apply(double, x)[0]['logits'] + bias[1:])
  np.testing.assert_allclose(outputs['logits'], want, rtol=1e-5)
  np.testing.assert_array_equal(state['shift']['bias'], bias)
  np.testing.assert_array_equal(outputs['embedding'].shape, (2, 5, 4))


def test_arms_that_differ_in_it_train_alike():
  config = {'students': {'s': {'logit_shift': 'missing', 'model': 'mlp'}}}
  made = plan._unshifted(config)
  assert made == {'students': {'s': {'logit_shift': '', 'model': 'mlp'}}}
  assert config['students']['s']['logit_shift'] == 'missing'
