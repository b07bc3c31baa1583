"""What results depend on, read off traced programs."""

import jax
import jax.numpy as jnp
import pytest

from jaxkd.models.dependence import dependent


def depends(function):
  """Which results depend on the first of two arguments."""
  program = jax.make_jaxpr(function)(jnp.ones(3), jnp.ones(3)).jaxpr
  return dependent(program, [True, False])


def kept(x, y):
  return 2 * x, y


@pytest.mark.parametrize(
  ('function', 'found'),
  [
    (lambda x, y: (x + y, y, 1.0), [True, False, False]),
    (lambda x, y: (y.at[0].set(x[0]), y * 2), [True, False]),
    (lambda x, y: (x, jnp.zeros_like(x)), [True, False]),
    (jax.jit(kept), [True, False]),
    (jax.checkpoint(kept), [True, False]),
    (jax.vmap(kept), [True, False]),
    # The first carry reaches the second in the second step, and what comes
    # out of the loop with it in the third.
    (
      lambda x, y: jax.lax.scan(
        lambda carry, t: ((carry[0], carry[0], t[0]), (carry[1], t[0])),
        (x[0], y[0], y[0]),
        (y, x),
      ),
      [True, True, False, True, False],
    ),
    # Only the running program knows which branch is taken.
    (
      lambda x, y: jax.lax.cond(x[0] > 0, lambda: y, lambda: y + 1),
      [True],
    ),
  ],
)
def test_what_depends_on_the_first_argument(function, found):
  assert depends(function) == found
