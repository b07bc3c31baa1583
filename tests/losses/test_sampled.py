"""Losses on tokens that were drawn, whose mean over all draws is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses

K = 5
random = np.random.default_rng(0)
STUDENT = 2 * random.normal(size=(3, K))
TEACHER = 2 * random.normal(size=(3, K))
OF_STUDENT = np.asarray(jax.nn.log_softmax(jnp.asarray(STUDENT)))
OTHER = np.asarray(jax.nn.log_softmax(jnp.asarray(STUDENT / 3)))


def mean_over_draws(student, log_mu):
  """Σ_y μ(y) times the loss of y, for each example."""
  drawn = jnp.broadcast_to(jnp.arange(K), (3, K))
  every = lambda x: jnp.broadcast_to(x[:, None], (3, K, K))  # noqa: E731
  each = losses.sampled_reverse_kl(
    every(student), every(jnp.asarray(TEACHER)), drawn, jnp.asarray(log_mu)
  )
  return (np.exp(log_mu) * each).sum(-1)


@pytest.mark.parametrize('log_mu', [OF_STUDENT, OTHER])
def test_its_mean_and_that_of_its_gradient_are_the_reverse_kl(x64, log_mu):
  student, weights = jnp.asarray(STUDENT), jnp.array([1.0, -2.0, 0.5])
  whole = lambda z: losses.reverse_kl(z, jnp.asarray(TEACHER))  # noqa: E731
  np.testing.assert_allclose(
    mean_over_draws(student, log_mu), whole(student), rtol=1e-6
  )
  found, want = (
    jax.grad(lambda z, f=f: (weights * f(z)).sum())(student)
    for f in (lambda z: mean_over_draws(z, log_mu), whole)
  )
  np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-8)


def test_on_policy_its_value_is_the_difference_of_the_logarithms():
  labels = np.array([4, 0, 2])
  q, p = (
    np.take_along_axis(np.asarray(jax.nn.log_softmax(x)), labels[:, None], 1)
    for x in (jnp.asarray(STUDENT), jnp.asarray(TEACHER))
  )
  found = losses.sampled_reverse_kl(
    jnp.asarray(STUDENT), jnp.asarray(TEACHER), labels, jnp.asarray(q[:, 0])
  )
  np.testing.assert_allclose(found, (q - p)[:, 0], rtol=1e-5)


def test_what_is_no_number_or_no_class_is_none():
  student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
  labels = jnp.array([0, 1, K])
  found = losses.sampled_reverse_kl(
    student.at[0, 3].set(jnp.nan), teacher, labels, jnp.zeros(3)
  )
  np.testing.assert_array_equal(np.isnan(found), [True, False, True])
  ruled_out = teacher.at[1, 1].set(-jnp.inf)
  found = losses.sampled_reverse_kl(student, ruled_out, labels, jnp.zeros(3))
  assert found[1] == jnp.inf
