import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.run import config, terms

FUSIONS = ('mean_probabilities', 'mean_logits', 'geometric_mean')


def term(fuse='mean_probabilities', weights='router', **entry):
  soft = dict(
    loss='kl', teacher='main', kw=dict(temperature=2.0), fuse=fuse,
    fuse_weights=weights, **entry,
  )  # fmt: skip
  made = config.complete(
    {'teachers': {'main': {}}, 'students': {'student': {}},
     'distill': {'soft': soft}}
  )  # fmt: skip
  return terms.build(config.plain(made)['distill'], ['student'])['soft']


@pytest.mark.parametrize('fuse', FUSIONS)
def test_it_begins_as_the_plain_mean(context, fuse):
  """For the student: the loss and its gradient."""

  def loss(logits, one):
    params, state = one.init(jax.random.key(0), context)
    own = context._replace(student={**context.student, 'logits': logits})
    return one.loss(params, state, own)[0].mean()

  got, want = (
    jax.value_and_grad(loss)(context.student['logits'], term(fuse, weights))
    for weights in ('router', '')
  )
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('weight', [1.0, 0.1])
def test_it_learns_from_the_labels_alone(context, weight):
  """Whatever the student predicts, and however much the term counts."""
  one = term(weight=weight)
  params, state = one.init(jax.random.key(0), context)
  teachers, labels = context.teachers['main']['logits'], context.batch['labels']

  def loss(params, factor):
    logits = factor * context.student['logits']
    own = context._replace(student={**context.student, 'logits': logits})
    return one.loss(params, state, own)[0].mean()

  def by_hand(bias):
    weights = jnp.broadcast_to(jax.nn.softmax(bias), (6, 2))
    p = losses.mean_probabilities(teachers, weights=weights)
    return losses.cross_entropy(jnp.log(p), labels).mean()

  first, second = (jax.grad(loss)(params, factor) for factor in (1.0, 5.0))
  want = jax.grad(by_hand)(jnp.zeros(2))
  for found in (first, second):
    np.testing.assert_allclose(found['router']['bias'], want, rtol=1e-4)
  np.testing.assert_allclose(
    first['router']['kernel'], second['router']['kernel'], rtol=1e-4, atol=1e-8
  )


def test_it_finds_who_is_right_about_what(context):
  """Each of two teachers knows the labels of half of what it can see."""
  labels = context.batch['labels']
  right = 3.0 * jax.nn.one_hot(labels, 3)
  wrong = 1.5 * jax.nn.one_hot((labels + 1) % 3, 3)
  knows = (jnp.arange(6) < 3)[:, None]
  logits = jnp.stack([
    jnp.where(knows, right, wrong), jnp.where(knows, wrong, right)
  ])  # fmt: skip
  context = context._replace(teachers={'main': {'logits': logits}})
  one, optimizer = term(), optax.adam(0.05)
  params, state = one.init(jax.random.key(0), context)
  opt = optimizer.init(params)

  @jax.jit
  def step(params, opt):
    loss = lambda params: one.loss(params, state, context)[0].mean()  # noqa: E731
    updates, opt = optimizer.update(jax.grad(loss)(params), opt)
    return optax.apply_updates(params, updates), opt

  for _ in range(100):
    params, opt = step(params, opt)
  got = one.loss(params, state, context)[0]
  want = losses.kl(context.student['logits'], right, temperature=2.0)
  np.testing.assert_allclose(got, want, rtol=0.1)


def test_teachers_that_are_surer_than_numbers_go(context):
  logits = jnp.stack([1e9 * jnp.eye(3)[jnp.arange(6) % 3], jnp.zeros((6, 3))])
  context = context._replace(teachers={'main': {'logits': logits}})
  one = term()
  params, state = one.init(jax.random.key(0), context)
  loss = lambda params: one.loss(params, state, context)[0].mean()  # noqa: E731
  value, gradient = jax.value_and_grad(loss)(params)
  for leaf in (value, *jax.tree.leaves(gradient)):
    assert np.isfinite(leaf).all()


def test_without_labels_there_is_nothing_to_learn_from(context):
  batch = {k: v for k, v in context.batch.items() if k != 'labels'}
  context = context._replace(batch=batch)
  params, state = term().init(jax.random.key(0), context)
  with pytest.raises(UserError, match=r"fuse_weights: .*field .*'labels'"):
    term().loss(params, state, context)
