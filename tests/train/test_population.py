import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.train.population import MODES, Learner, Population, Rows, take


def sgd_learner(rate=0.1):
  """A linear regression: enough to tell members and modes apart."""

  def init(seed, hyper, shared, given):
    key = jax.random.key(seed)
    return {'w': jax.random.normal(key, (3,)), 'step': jnp.zeros((), jnp.int32)}

  def loss(w, batch, shared, scale):
    error = batch['x'] @ w - batch['y'] - shared['offset']
    return (scale * error**2).mean()

  def step(carry, batch, shared, hyper):
    scale = hyper.get('scale', jnp.float32(1))
    value, grad = jax.value_and_grad(loss)(carry['w'], batch, shared, scale)
    new = {'w': carry['w'] - rate * grad, 'step': carry['step'] + 1}
    return new, {'loss': (value, jnp.ones(()))}

  def evaluate(carry, batch, shared):
    offset = shared.get('offset', jnp.zeros(()))
    error = batch['x'] @ carry['w'] - batch['y'] - offset
    return {
      'error': ((error**2).sum(), jnp.float32(len(error))),
      'errors': Rows((error, batch['y'])),
    }

  return Learner(init, step, evaluate)


@pytest.fixture(scope='module')
def data():
  random = np.random.default_rng(0)
  return {
    'x': random.normal(size=(4, 5, 3)).astype(np.float32),
    'y': random.normal(size=(4, 5)).astype(np.float32),
  }


def trained(mode, data, *, own_batch=True, own_offset=False, steps=3):
  offset = np.arange(4, dtype=np.float32) if own_offset else np.float32(1)
  population = Population(
    sgd_learner(),
    seeds=[3, 4, 5, 6],
    shared={'offset': jnp.asarray(offset)},
    shared_axes={'offset': 0 if own_offset else None},
    hyper={'scale': [1.0, 1.0, 2.0, 0.5]},
    batch_axis=0 if own_batch else None,
    mode=mode,
  )
  batch = data if own_batch else take(data, 0)
  carry = population.init()
  totals = population.split(population.no_totals(batch))
  for _ in range(steps):
    carry, totals = population.step(carry, totals, batch)
  return population, carry, totals


@pytest.mark.parametrize('own_offset', [True, False])
@pytest.mark.parametrize('own_batch', [True, False])
def test_all_ways_of_running_give_the_same(data, own_batch, own_offset):
  results = {}
  for mode in MODES:
    population, carry, totals = trained(
      mode, data, own_batch=own_batch, own_offset=own_offset
    )
    results[mode] = population.stacked(carry), population.stacked(totals)
  for mode in ('unroll', 'sequence'):
    chex.assert_trees_all_close(results['vmap'], results[mode], rtol=1e-5)
  totals = results['vmap'][1]
  np.testing.assert_array_equal(totals['loss'][1], 3)


@pytest.mark.parametrize('mode', MODES)
def test_what_members_only_start_from_leaves_the_device(data, mode):
  learner, batch = sgd_learner(), take(data, 0)

  def init(seed, hyper, shared, given):
    own = learner.init(seed, hyper, shared, given)
    return {**own, 'w': shared['start'].sum(0)}

  def step(carry, batch, shared, hyper):
    assert shared.keys() == {'offset'}
    return learner.step(carry, batch, shared, hyper)

  population = Population(
    learner._replace(init=init, step=step),
    seeds=[3, 4],
    shared={'offset': np.float32(1), 'start': np.ones((7, 3), np.float32)},
    start_only={'start'},
    batch_axis=None,
    mode=mode,
  )
  carry = population.init()
  np.testing.assert_array_equal(population.stacked(carry)['w'], 7)
  totals = population.split(population.no_totals(batch))
  population.step(carry, totals, batch)
  assert not [x for x in jax.live_arrays() if x.shape[-2:] == (7, 3)]


def test_members_start_the_same_in_every_mode(data):
  populations = [trained(mode, data, steps=0) for mode in MODES]
  starts = [p.stacked(carry) for p, carry, _ in populations]
  chex.assert_trees_all_equal(*starts)
  assert len(np.unique(starts[0]['w'][:, 0])) == 4
  shapes = populations[0][0].shapes
  chex.assert_trees_all_equal_shapes_and_dtypes(shapes, starts[0])


def test_each_member_has_its_own_hyper_parameters(data):
  population, carry, _ = trained('vmap', data, own_batch=False)
  same = jax.tree.map(lambda x: jnp.stack([x[0]] * 4), population.init())
  totals = population.no_totals(take(data, 0))
  carry, _ = population.step(same, totals, take(data, 0))
  w = np.asarray(carry['w'])
  np.testing.assert_array_equal(w[0], w[1])
  assert not np.allclose(w[0], w[2])
  assert not np.allclose(w[0], w[3])


@pytest.mark.parametrize('mode', ['vmap', 'sequence'])
def test_evaluation_adds_up_and_puts_rows_together(data, mode):
  population, carry, _ = trained(mode, data)
  batches = [take(data, 0), take(data, 1)]
  measured = population.evaluate(carry, batches)
  got, rows = measured['error'], measured['errors']
  w = np.asarray(population.stacked(carry)['w'])
  errors = [
    [(batch['x'] @ one - batch['y']) ** 2 for batch in batches] for one in w
  ]
  np.testing.assert_allclose(got[0], np.sum(errors, axis=(1, 2)), rtol=1e-5)
  np.testing.assert_array_equal(got[1], 10)
  each, y = rows.fields
  np.testing.assert_allclose(each**2, np.reshape(errors, (4, 10)), rtol=1e-5)
  np.testing.assert_array_equal(y, [data['y'][:2].ravel()] * 4)
  offset = {'offset': jnp.arange(4.0)}
  with_own = population.evaluate(carry, batches, offset, {'offset': 0})
  assert not np.allclose(with_own['error'][0], got[0])
  np.testing.assert_allclose(with_own['error'][0][0], got[0][0], rtol=1e-5)


def test_the_step_is_traced_once(data):
  learner = sgd_learner()
  step = chex.assert_max_traces(learner.step, n=1)
  population = Population(
    learner._replace(step=step),
    seeds=[1, 2, 3, 4],
    shared={'offset': jnp.zeros(())},
    mode='vmap',
  )
  carry = population.init()
  totals = {'loss': (jnp.zeros((4,)), jnp.zeros((4,)))}
  for _ in range(3):
    carry, totals = population.step(carry, totals, data)
