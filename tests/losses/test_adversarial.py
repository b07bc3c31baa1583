import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses

random = np.random.default_rng(0)
REAL, FAKE = random.normal(size=(2, 4, 2, 3))


def test_reverse_gradient_is_the_identity_forwards(strict_dtypes):
  x = jnp.array(REAL, jnp.bfloat16)
  found = losses.reverse_gradient(x, scale=0.3)
  assert found.dtype == x.dtype
  assert (found == x).all()


def test_reverse_gradient_is_minus_the_gradient_backwards():
  x = jnp.array(REAL[0])
  weights = jnp.array(FAKE[0])

  def total(x, scale):
    return jnp.sum(weights * losses.reverse_gradient(x, scale=scale))

  slope = jax.jit(jax.grad(total))  # the scale is traced: it has a schedule
  for scale in 0.0, 0.5, 1.0:
    np.testing.assert_allclose(slope(x, scale), -scale * weights, rtol=1e-6)
  # Twice reversed is not reversed; forward mode is the same.
  twice = jax.grad(
    lambda x: losses.reverse_gradient(losses.reverse_gradient(x)).sum()
  )(x)
  np.testing.assert_array_equal(twice, 1)
  _, tangent = jax.jvp(losses.reverse_gradient, (x,), (weights,))
  np.testing.assert_array_equal(tangent, -weights)
  mapped = jax.vmap(jax.grad(total), in_axes=(0, 0))(
    jnp.stack([x, x]), jnp.array([1.0, 2.0])
  )
  np.testing.assert_allclose(mapped, jnp.stack([-weights, -2 * weights]))


def test_reverse_gradient_makes_a_game():
  """The temperature of curriculum distillation climbs what z descends."""

  def loss(z, t):
    t = losses.reverse_gradient(t)
    return losses.kl(z, jnp.array([1.0, 0.0]), temperature=t)

  plain = jax.grad(
    lambda t: losses.kl(jnp.zeros(2), jnp.array([1.0, 0.0]), temperature=t)
  )(2.0)
  found = jax.grad(loss, argnums=1)(jnp.zeros(2), 2.0)
  assert found.item() == -plain.item() != 0


def test_wasserstein_critic_by_hand():
  real, fake = jnp.array([3.0, 0.0]), jnp.array([1.0, 5.0])
  found = losses.wasserstein_critic(real, fake)
  np.testing.assert_array_equal(found, [-2, 5])
  assert not losses.wasserstein_critic(real, real).any()
  # The critic raises the real scores and lowers the fake ones.
  slopes = jax.grad(
    lambda *x: losses.wasserstein_critic(*x).sum(), argnums=(0, 1)
  )(real, fake)
  np.testing.assert_array_equal(slopes, [[-1, -1], [1, 1]])
  half = losses.wasserstein_critic(real.astype(jnp.bfloat16), fake)
  assert half.dtype == jnp.float32
  mapped = jax.jit(jax.vmap(losses.wasserstein_critic))(
    jnp.stack([real, fake]), jnp.stack([fake, real])
  )
  np.testing.assert_array_equal(mapped, [[-2, 5], [2, -5]])


def length(x):
  """A critic whose slope is x: half the squared length."""
  return jnp.square(x).sum((1, 2)) / 2


def test_gradient_penalty_by_hand():
  key, real = jax.random.key(0), jnp.array(REAL)
  linear = lambda x: 2.0 * x[:, 0, 0] + 1.5 * x[:, 1, 2]  # noqa: E731
  found = losses.gradient_penalty(key, linear, real, jnp.array(FAKE))
  np.testing.assert_allclose(found, 1.5**2, rtol=1e-6)  # a slope of 2.5
  found = losses.gradient_penalty(
    key, linear, real, jnp.array(FAKE), target=2.5
  )
  np.testing.assert_allclose(found, 0, atol=1e-12)


def test_gradient_penalty_is_its_formula_where_no_point_is_drawn(x64):
  """Between equal ends there is one point, whatever is drawn."""
  real = jnp.array(REAL)
  found = losses.gradient_penalty(jax.random.key(0), length, real, real)
  expected = (np.sqrt((REAL**2).sum((1, 2))) - 1) ** 2
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradient_penalty_draws_a_point_on_each_line():
  real, fake = jnp.zeros((512, 1, 1)), jnp.ones((512, 1, 1))

  @jax.jit
  def share(key):  # the slope is the point, the target 0
    found = losses.gradient_penalty(key, length, real, fake, target=0.0)
    return jnp.sqrt(found)

  points = share(jax.random.key(0))
  assert ((points >= 0) & (points <= 1)).all()
  assert abs(points.mean() - 0.5) < 0.05
  assert len(np.unique(points)) > 500  # one draw an example
  np.testing.assert_array_equal(share(jax.random.key(0)), points)
  assert (share(jax.random.key(1)) != points).any()


def test_gradient_penalty_draws_once_for_all_elements_of_an_example():
  ends = jnp.zeros((4, 2, 3)), jnp.ones((4, 2, 3))
  found = losses.gradient_penalty(jax.random.key(0), length, *ends, target=0.0)
  spread = lambda x: jnp.sum((x - x.mean((1, 2), keepdims=True)) ** 2, (1, 2))  # noqa: E731
  flat = losses.gradient_penalty(jax.random.key(0), spread, *ends, target=0.0)
  assert (found > 0).all()
  np.testing.assert_allclose(flat, 0, atol=1e-10)


def test_gradient_penalty_trains_the_critic(x64):
  """Its gradient by the critic's weights, against finite differences."""
  key = jax.random.key(1)
  real, fake = jnp.array(REAL), jnp.array(FAKE)

  @jax.jit
  def total(w):
    critic = lambda x: jnp.sum(w[None] * x**3, (1, 2))  # noqa: E731
    return jnp.sum(losses.gradient_penalty(key, critic, real, fake))

  w, along = jnp.array(REAL[0]), jnp.array(FAKE[0])
  expected = (total(w + 1e-5 * along) - total(w - 1e-5 * along)) / 2e-5
  found = jnp.sum(jax.grad(total)(w) * along)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradient_penalty_of_a_flat_critic_is_finite():
  def total(w, real):
    critic = lambda x: w * x.sum((1, 2))  # noqa: E731
    found = losses.gradient_penalty(
      jax.random.key(0), critic, real, jnp.array(FAKE)
    )
    return found.sum(), found

  slopes, found = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(
    0.0, jnp.array(REAL)
  )
  np.testing.assert_array_equal(found, 1)
  for slope in slopes:
    assert np.isfinite(slope).all()


def test_gradient_penalty_under_jit_vmap_and_in_bfloat16():
  keys = jax.random.split(jax.random.key(0), 2)
  real = jnp.stack([REAL, FAKE])
  fake = real[::-1]

  def one(key, real, fake):
    return losses.gradient_penalty(key, length, real, fake)

  found = jax.jit(jax.vmap(one))(keys, real, fake)
  expected = [one(*x) for x in zip(keys, real, fake, strict=True)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  half = one(keys[0], *(x[0].astype(jnp.bfloat16) for x in (real, fake)))
  assert half.dtype == jnp.float32
  np.testing.assert_allclose(half, expected[0], rtol=0.1, atol=0.02)


BAD = {
  'integers': (
    lambda: losses.reverse_gradient(jnp.arange(3)),
    r'x must be float\[...\], not int32\[3\]',
  ),
  'scale': (
    lambda: losses.reverse_gradient(jnp.ones(3), scale=jnp.ones(3)),
    r'scale must be a finite number, not an array of shape \(3,\)',
  ),
  'scores': (
    lambda: losses.wasserstein_critic(jnp.ones(3), jnp.ones(1)),
    r'fake_scores must be float\[...\] with ...=\(3,\) as in real_scores',
  ),
  'fake': (
    lambda: losses.gradient_penalty(
      jax.random.key(0), length, jnp.ones((2, 3, 4)), jnp.ones((2, 3, 1))
    ),
    r'fake must be float\[B, ...\] with .*, not float32\[2, 3, 1\]',
  ),
  'critic': (
    lambda: losses.gradient_penalty(
      jax.random.key(0), jnp.sum, jnp.ones((2, 3)), jnp.ones((2, 3))
    ),
    r'critic must return the shape \(2,\), not \(\)',
  ),
  'target': (
    lambda: losses.gradient_penalty(
      jax.random.key(0),
      length,
      jnp.ones((2, 3, 4)),
      jnp.ones((2, 3, 4)),
      target=-1.0,
    ),
    'target must be a number of at least 0, not -1.0',
  ),
}


@pytest.mark.parametrize('case', BAD.values(), ids=BAD)
def test_bad_input(case):
  call, message = case
  with pytest.raises(ValueError, match=message):
    call()
