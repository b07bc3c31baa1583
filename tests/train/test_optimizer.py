import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import config
from jaxkd.errors import UserError
from jaxkd.train import optimizer


def train(**given):
  return config.plain(config.complete({'train': given}))['train']


def updates(made):
  params = {'w': jnp.ones(3)}
  got, _ = made.update({'w': jnp.full(3, 2.0)}, made.init(params), params)
  return np.asarray(got['w'])


def test_any_optimiser_of_optax_by_name():
  made = optimizer.optimizer(
    train(
      optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
      schedule='constant',
      learning_rate=0.5,
    )
  )
  np.testing.assert_allclose(updates(made), -1.0)


def test_the_gradient_is_clipped():
  made = optimizer.optimizer(
    train(
      optimizer=dict(name='sgd', kw={}),
      schedule='constant',
      learning_rate=1.0,
      clip=1.0,
    )
  )
  np.testing.assert_allclose(np.linalg.norm(updates(made)), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'options', 'want'),
  [
    ('constant', {}, [2.0, 2.0, 2.0]),
    ('cosine', {}, [2.0, 1.0, 0.0]),
    ('linear', dict(end_value=0.0), [2.0, 1.0, 0.0]),
    ('warmup_cosine', dict(warmup_steps=5), [0.0, 2.0, 0.0]),
    (
      'piecewise_constant',
      dict(boundaries_and_scales={4: 0.1}),
      [2.0, 0.2, 0.2],
    ),
  ],
)
def test_any_schedule_of_optax_by_name(name, options, want):
  made = optimizer.schedule(name, 2.0, 10, options, at='train.schedule')
  np.testing.assert_allclose([made(s) for s in (0, 5, 10)], want, atol=1e-6)


def test_a_mapped_learning_rate():
  given = train(optimizer=dict(name='sgd', kw={}), schedule='cosine')

  def update(rate):
    made = optimizer.optimizer({**given, 'learning_rate': rate})
    params = {'w': jnp.ones(3)}
    return made.update(params, made.init(params), params)[0]['w'][0]

  got = jax.vmap(update)(jnp.array([0.1, 0.2]))
  np.testing.assert_allclose(got, [-0.1, -0.2], rtol=1e-6)


def test_an_optimiser_of_ones_own():
  given = train(optimizer=dict(name='optax:adam', kw={}))
  assert isinstance(
    optimizer.optimizer(given), optax.GradientTransformationExtraArgs
  )


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(optimizer=dict(name='adamx')), "train.optimizer.name.*'adamax'"),
    (
      dict(optimizer=dict(name='sgd', kw=dict(momentun=0.9))),
      "train.optimizer.kw.*'momentum'",
    ),
    (dict(schedule='cosin'), "train.schedule: .*'cosin'"),
    (
      dict(schedule='linear'),
      r'train.schedule_kw: optax.linear_schedule: .*end_value',
    ),
  ],
)
def test_names_that_optax_does_not_have(given, message):
  with pytest.raises(UserError, match=message):
    optimizer.optimizer(train(**given))
