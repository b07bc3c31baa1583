"""Two momenta, one for each part of the loss, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.distill.dot import dot
from jaxkd.errors import UserError
from jaxkd.run import config
from jaxkd.train import optimizer

RATE, MOMENTUM, DELTA, DECAY = 0.1, 0.8, 0.05, 0.01
NAME = dict(name='jaxkd.distill.dot:dot', kw=dict(momentum=0.8, delta=0.05))


def from_config(**train):
  given = dict(
    optimizer=NAME,
    learning_rate=RATE,
    schedule='constant',
    parts=dict(task=('a',), distill=('b',)),
  )
  made = config.complete(dict(train=given | train))
  return optimizer.optimizer(config.plain(made)['train'])


@pytest.mark.parametrize('decay', [0.0, DECAY])
def test_three_steps_and_decay_counts_as_the_tasks(decay):
  random = np.random.default_rng(0)
  made = from_config(weight_decay=decay)
  params = {'w': jnp.asarray(random.normal(size=(3, 2)), jnp.float32)}
  state = made.init(params)
  w = np.asarray(params['w'], np.float64)
  slow, fast = np.zeros((3, 2)), np.zeros((3, 2))
  update = jax.jit(optax.with_extra_args_support(made).update)
  for _ in range(3):
    task, distill = random.normal(size=(2, 3, 2)).astype(np.float32)
    parts = {'task': {'w': task}, 'distill': {'w': distill}}
    updates, state = update({'w': task + distill}, state, params, parts=parts)
    params = optax.apply_updates(params, updates)
    fast = (MOMENTUM - DELTA) * fast + task + decay * w
    slow = (MOMENTUM + DELTA) * slow + distill
    w = w - RATE * (fast + slow)
    np.testing.assert_allclose(params['w'], w, rtol=1e-4, atol=1e-6)


def test_without_a_difference_it_is_sgd_with_momentum():
  random = np.random.default_rng(1)
  ours, theirs = dot(RATE, momentum=0.9, delta=0.0), optax.sgd(RATE, 0.9)
  params = {'w': jnp.ones((4,), jnp.float32)}
  state, other = ours.init(params), theirs.init(params)
  for _ in range(3):
    task, distill = random.normal(size=(2, 4)).astype(np.float32)
    parts = {'task': {'w': task}, 'distill': {'w': distill}}
    got, state = ours.update({'w': task + distill}, state, params, parts=parts)
    want, other = theirs.update({'w': task + distill}, other, params)
    np.testing.assert_allclose(got['w'], want['w'], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('names', [None, ('task',), ('task', 'soft')])
def test_it_says_which_parts_it_takes(names):
  params = {'w': jnp.ones((2,))}
  made = dot(RATE)
  extra = {} if names is None else {'parts': dict.fromkeys(names, params)}
  with pytest.raises(UserError, match=r'^train\.parts: dot takes the parts ta'):
    made.update(params, made.init(params), params, **extra)
