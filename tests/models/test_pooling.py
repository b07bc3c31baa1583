"""Max pooling and its gradient are XLA's, ties and nan among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxkd.models import convolution, pooling

NONE = ((0, 0), (0, 0))
CASES = (
  ((2, 8, 6, 3), (2, 2), (2, 2), NONE),
  ((2, 7, 9, 3), (2, 2), (2, 2), NONE),  # the last row and column are left out
  ((2, 9, 7, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
  ((2, 9, 7, 2), (3, 2), (2, 1), ((0, 1), (1, 0))),
)


@pytest.mark.parametrize(('shape', 'window', 'strides', 'padding'), CASES)
def test_values_and_gradients_are_those_of_xla(shape, window, strides, padding):
  draw = np.random.default_rng(0)
  # With many equal values, of which the first one counts.
  x = jnp.asarray(draw.integers(0, 3, shape), jnp.float32)
  y, back = jax.vjp(lambda x: pooling.max_pool(x, window, strides, padding), x)
  same, and_back = jax.vjp(
    lambda x: nnx.max_pool(x, window, strides, padding), x
  )
  np.testing.assert_array_equal(y, same)
  d = jnp.asarray(draw.normal(size=y.shape), jnp.float32)
  np.testing.assert_allclose(*back(d), *and_back(d), atol=1e-6)


def test_nan_stays_nan():
  for place in np.ndindex(2, 2):
    x = jnp.zeros((1, 2, 2, 1)).at[0, *place, 0].set(jnp.nan)
    assert jnp.isnan(pooling.max_pool(x, (2, 2), (2, 2))).all()


def test_members_of_a_population_and_single_images():
  x = jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 1))
  every = jax.vmap(lambda x: pooling.max_pool(x, (2, 2), (2, 2)))(x)
  one = pooling.max_pool(x[1, 0], (2, 2), (2, 2))
  np.testing.assert_array_equal(every[1, 0], one)


def test_other_tools_see_the_operation_that_they_know():
  def program(x):
    return pooling.max_pool(x, (2, 2), (2, 2))

  x = jnp.zeros((1, 4, 4, 1))
  with convolution.plain():
    assert 'reduce_window_max' in str(jax.make_jaxpr(program)(x))
