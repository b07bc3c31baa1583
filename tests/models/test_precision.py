"""Parameters are used in bfloat16, and an optimiser moves float32 masters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxkd import models
from jaxkd.models import net as nets
from jaxkd.models import precision
from jaxkd.types import Net

KEY = jax.random.key(0)
X = np.linspace(-1.0, 1.0, 48, dtype=np.float32).reshape(3, 4, 4, 1)


class Own(linen.Module):
  """It draws its parameters in a type of its own."""

  param_dtype: str

  @linen.compact
  def __call__(self, x):
    bias = self.param(
      'bias', lambda key: jnp.full((1, 3), 0.1, self.param_dtype)
    )
    count = self.param('count', lambda key: jnp.arange(3))
    return {'logits': linen.Dense(3, param_dtype=self.param_dtype)(x) + bias,
            'count': count[None]}  # fmt: skip


def built(name, dtype, **kw):
  net = models.build(name, num_classes=3, dtype=dtype, **kw)
  return net, precision.rounding(net, 'bfloat16')


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_masters_and_what_is_held_give_the_same(dtype):
  """Where a layer computes in float32, too, which undoes a mere cast."""
  plain, net = built('wrn', dtype, input_shape=(4, 4, 1), depth=10, width=1)
  masters = jax.jit(net.init)(KEY)
  chex.assert_trees_all_equal(masters, jax.jit(plain.init)(KEY))
  held = precision.held(jax.device_get(masters), 'bfloat16')
  chex.assert_type(jax.tree.leaves(held['params']), jnp.bfloat16)
  chex.assert_trees_all_equal(held['state'], masters['state'])
  apply = jax.jit(net.apply)
  got, same = (apply(v, X)[0] for v in (masters, held))
  chex.assert_trees_all_equal(got, same)
  chex.assert_type(jax.tree.leaves(got), jnp.float32)
  full = jax.jit(plain.apply)(masters, X)[0]
  assert (full['logits'] != got['logits']).any()
  np.testing.assert_allclose(full['logits'], got['logits'], atol=0.1)
  by_hand = jax.tree.map(lambda x: x.astype(jnp.float32), held['params'])
  by_hand = plain.apply({**held, 'params': by_hand}, X)[0]
  np.testing.assert_allclose(got['logits'], by_hand['logits'], atol=0.02)


@pytest.mark.parametrize('own', ['bfloat16', 'float32', 'float16'])
def test_masters_are_float32_whatever_a_module_draws(own):
  plain = models.build(
    f'{__name__}:Own', num_classes=3, input_shape=(4,), param_dtype=own
  )
  net = precision.rounding(plain, 'bfloat16')
  params = net.init(KEY)['params']
  kinds = {str(x.dtype) for x in jax.tree.leaves(params)}
  assert kinds == {'float32', 'int32'}
  held = precision.held({'params': params}, 'bfloat16')['params']
  assert held['count'].dtype == jnp.int32
  assert held['bias'].dtype == jnp.bfloat16


def test_float32_changes_nothing():
  net = models.build('mlp', num_classes=3, input_shape=(4,))
  assert precision.rounding(net, 'float32') is net
  variables = net.init(KEY)
  assert precision.held(variables, 'float32') is variables


def test_updates_that_bfloat16_cannot_tell_apart_add_up():
  """Of the weight 1, where its numbers are 1/128 or 1/256 apart."""
  plain = Net(
    lambda key: {'params': {'w': jnp.ones(2)}, 'state': {}},
    lambda v, x, *, key=None, train=False: ({'y': x * v['params']['w']}, {}),
  )
  net = precision.rounding(plain, 'bfloat16')
  optimizer = optax.adam(5e-4)  # each of its first steps is that long

  def trained(params, steps):
    state = optimizer.init(params)
    chex.assert_trees_all_equal_dtypes(state[0].mu, params)
    loss = lambda p: net.apply({'params': p}, jnp.ones(2))[0]['y'].sum()  # noqa: E731
    for _ in range(steps):
      gradients = jax.grad(loss)(params)
      chex.assert_trees_all_equal_dtypes(gradients, params)
      updates, state = optimizer.update(gradients, state)
      params = optax.apply_updates(params, updates)
    return params, loss(params)

  start = net.init(KEY)['params']
  few, same = trained(start, 3)
  assert few['w'].dtype == jnp.float32
  np.testing.assert_allclose(few['w'], 1 - 3 * 5e-4, rtol=1e-5)
  assert same == 2.0  # what is used has not moved yet
  many, less = trained(start, 12)
  np.testing.assert_allclose(many['w'], 1 - 12 * 5e-4, rtol=1e-5)
  assert less == 2 * (1 - 2**-7)
  lost, _ = trained(precision.held({'params': start}, 'bfloat16')['params'], 12)
  assert (lost['w'] == 1).all()


def test_statistics_stay_in_float32():
  class Normed(nnx.Module):
    def __init__(self, rngs):
      self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
      return self.norm(x)

  plain = nets.from_nnx(Normed, jax.ShapeDtypeStruct((3, 4), jnp.float32))
  net = precision.rounding(plain, 'bfloat16')
  variables = precision.held(net.init(KEY), 'bfloat16')
  _, state = net.apply(variables, X.reshape(12, 4), train=True)
  chex.assert_type(jax.tree.leaves(state), jnp.float32)
  assert net.idle() == plain.idle()
