import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.distill.adversary import Adversary, adversary
from jaxkd.distill.location import sides
from jaxkd.errors import UserError

CTKD = Adversary(low=1.0, high=21.0, ramp=10)


@pytest.mark.parametrize('step', [0, 5, 1000])
def test_an_adversary_starts_between_its_bounds_and_keeps_to_them(step):
  def value(theta):
    return float(CTKD.value(jnp.float32(theta), jnp.int32(step)))

  np.testing.assert_allclose(value(1.0), 1 + 20 / (1 + np.exp(-1)), rtol=1e-6)
  np.testing.assert_allclose([value(-60.0), value(60.0)], [1, 21], rtol=1e-6)


@pytest.mark.parametrize(
  ('step', 'factor'),
  [(0, 0.0), (2, (1 - np.cos(0.2 * np.pi)) / 2), (5, 0.5), (10, 1), (99, 1)],
)
def test_an_adversary_climbs_the_loss_slowly_at_first(context, step, factor):
  term = adversary(sides=sides('logits', 'main'), ramp=10)
  params, state = term.init(jax.random.key(0), context)
  context = context._replace(step=jnp.asarray(step, jnp.int32))
  teachers = context.teachers['main']['logits']

  def by_hand(theta, student):
    temperature = 1 + 20 / (1 + jnp.exp(-theta))
    p, q = (jax.nn.log_softmax(x / temperature) for x in (teachers, student))
    q = jnp.broadcast_to(q, p.shape)
    return (temperature**2 * (jnp.exp(p) * (p - q)).sum(-1)).mean()

  def ours(params, student):
    seen = context._replace(student={**context.student, 'logits': student})
    return term.loss(params, state, seen)[0].mean()

  student = context.student['logits']
  want, (theta, logits) = jax.value_and_grad(by_hand, (0, 1))(1.0, student)
  got, (own, same) = jax.value_and_grad(ours, (0, 1))(params, student)
  np.testing.assert_allclose(got, want, rtol=1e-4)
  np.testing.assert_allclose(same, logits, rtol=1e-3, atol=1e-6)
  assert abs(theta) > 1e-3
  np.testing.assert_allclose(own['adversary'], -factor * theta, rtol=1e-3)


def test_without_a_ramp_the_whole_gradient_counts_from_the_start():
  sudden = CTKD._replace(ramp=0)
  slope = jax.grad(lambda theta: sudden.value(theta, jnp.int32(0)))(1.0)
  share = 1 / (1 + np.exp(-1))
  np.testing.assert_allclose(slope, -20 * share * (1 - share), rtol=1e-5)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(option='temperatur'), r"^t\.kw\.option: .*'temperature'"),
    (dict(low=3.0, high=3.0), r'^t\.kw: low, 3, should be below high, 3'),
    (dict(temperature=2.0), r'^t\.kw\.temperature: it is learnt'),
    (dict(loss='klm'), r"^t\.kw\.loss: .*'kl'"),
    (dict(temperatur=2.0), r"^t\.kw: .*'temperature'"),
  ],
)
def test_what_is_no_adversary(changes, message):
  both = sides('logits', 'main')
  with pytest.raises(UserError, match=message):
    adversary(sides=both, entry='t', **changes)
