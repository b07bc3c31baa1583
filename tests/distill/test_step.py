import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import config, losses
from jaxkd.distill import step, terms
from jaxkd.distill.step import Recipe, Role
from jaxkd.tasks import classification, fidelity
from jaxkd.types import Term

SGD = optax.sgd(0.1)


def build(make_net, batch, distill, *, students=None, optimizer=SGD, **recipe):
  students = students or {'student': Role(make_net())}
  complete = config.plain(
    config.complete(
      {'teachers': {'main': {}}, 'students': {n: {} for n in students},
       'distill': distill}
    )
  )['distill']  # fmt: skip
  made = step.learner(
    students,
    {'main': Role(make_net())},
    lambda hyper: Recipe(
      terms.build(complete, list(students)), optimizer, **recipe
    ),
    classification.metrics(3) | fidelity.metrics('main'),
    example=jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch
    ),
  )
  one = make_net().init(jax.random.key(9))
  frozen = {'main': jax.tree.map(lambda x: x[None], one)}
  return made, made.init(jnp.uint32(0), {}, frozen), frozen


BOTH = {
  'labels': dict(loss='cross_entropy', weight=0.5),
  'soft': dict(loss='kl', teacher='main', kw=dict(temperature=2.0)),
}


def test_the_update_is_the_gradient_of_the_sum_of_the_terms(make_net, batch):
  made, carry, frozen = build(make_net, batch, BOTH)
  new, measured = made.step(carry, batch, frozen, {})
  teacher = batch['inputs'] @ frozen['main']['params']['w'][0]

  def loss(w):
    logits = batch['inputs'] @ w
    soft = losses.kl(logits, teacher, temperature=2.0)
    return (0.5 * losses.cross_entropy(logits, batch['labels']) + soft).mean()

  w = carry['train']['nets']['student']['w']
  value, gradient = jax.value_and_grad(loss)(w)
  np.testing.assert_allclose(
    new['train']['nets']['student']['w'], w - 0.1 * gradient, rtol=1e-5
  )
  np.testing.assert_allclose(measured['loss'][0], value, rtol=1e-5)
  assert set(measured) == {'loss', 'loss/labels', 'loss/soft', 'gradient_norm'}
  assert int(new['step']) == 1
  assert int(new['state']['nets']['student']['calls']) == 1


def test_no_gradient_reaches_a_teacher_and_none_is_trained(make_net, batch):
  made, carry, frozen = build(make_net, batch, BOTH)

  def loss(frozen):
    return made.step(carry, batch, frozen, {})[1]['loss'][0]

  gradient = jax.grad(loss, allow_int=True)(frozen)
  assert not np.any(gradient['main']['params']['w'])
  assert 'main' not in carry['train']['nets']


def test_parts_of_a_batch_add_up_to_it(make_net, batch):
  whole, carry, frozen = build(make_net, batch, BOTH)
  parts, _, _ = build(make_net, batch, BOTH, accumulate=3)
  want, in_one = whole.step(carry, batch, frozen, {})
  got, in_three = parts.step(carry, batch, frozen, {})
  chex.assert_trees_all_close(got['train'], want['train'], rtol=1e-5)
  np.testing.assert_allclose(in_three['loss'][0], in_one['loss'][0], rtol=1e-5)


def test_the_running_mean_is_what_is_evaluated(make_net, batch):
  made, carry, frozen = build(make_net, batch, BOTH, average=0.9)
  first = carry['average']['student']['w']
  carry, _ = made.step(carry, batch, frozen, {})
  now = carry['train']['nets']['student']['w']
  np.testing.assert_allclose(
    carry['average']['student']['w'], 0.9 * first + 0.1 * now, rtol=1e-5
  )
  nll = made.evaluate(carry, batch, {})['nll']
  logits = batch['inputs'] @ carry['average']['student']['w']
  want = losses.cross_entropy(logits, batch['labels']).sum()
  np.testing.assert_allclose(nll[0], want, rtol=1e-5)


def test_evaluation_moves_nothing_and_compares_when_asked(make_net, batch):
  made, carry, frozen = build(make_net, batch, BOTH)
  alone = made.evaluate(carry, batch, {})
  assert set(alone) == {'top1', 'nll', 'ece'}
  assert set(made.evaluate(carry, batch, frozen)) == {
    *alone, 'agreement', 'teacher_kl', 'cka',
  }  # fmt: skip


def test_copies_see_their_peers_and_train_on_their_own(make_net, batch):
  students = {'student': Role(make_net(), copies=3)}
  peers = {'peers': dict(loss='logit_mse', teacher='student')}
  made, carry, _ = build(make_net, batch, peers, students=students)
  new, _ = made.step(carry, batch, {}, {})
  before = [carry['train']['nets'][f'student/{i}']['w'] for i in range(3)]
  logits = [batch['inputs'] @ w for w in before]

  def loss(w, others):
    own = batch['inputs'] @ w
    return sum(losses.logit_mse(own, other).mean() for other in others) / 2

  for i in range(3):
    others = [logits[j] for j in range(3) if j != i]
    want = before[i] - 0.1 * jax.grad(loss)(before[i], others)
    got = new['train']['nets'][f'student/{i}']['w']
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_a_term_keeps_state_and_trains_its_own_parameters(make_net, batch):
  """As a memory bank or an adapter does."""

  def init(key, context):
    assert context.student['logits'].shape == (6, 3)
    assert isinstance(context.student['logits'], jax.ShapeDtypeStruct)
    return {'scale': jnp.ones(())}, {'mean': jnp.zeros((3,))}

  def loss(params, state, context):
    logits = context.student['logits']
    kept = {'mean': 0.5 * state['mean'] + 0.5 * logits.mean(0)}
    return (params['scale'] * logits**2).sum(-1), kept

  entry = terms.Entry(Term(init, loss), 'student', ())
  made = step.learner(
    {'student': Role(make_net())},
    {},
    lambda hyper: Recipe({'bank': entry}, SGD),
    {},
    example=batch,
  )
  carry = made.init(jnp.uint32(0), {}, {})
  new, _ = jax.jit(made.step)(carry, batch, {}, {})
  assert float(new['train']['terms']['bank']['scale']) < 1
  logits = batch['inputs'] @ carry['train']['nets']['student']['w']
  np.testing.assert_allclose(
    new['state']['terms']['bank']['mean'], logits.mean(0) / 2, rtol=1e-5
  )


def test_no_draw_depends_on_the_other_entries(make_net, batch):
  noisy = {'student': Role(make_net(noise=0.5), view='noise(0.1)')}
  few, carry, frozen = build(
    make_net, batch, {'soft': BOTH['soft']}, students=noisy
  )
  more = {'soft': BOTH['soft'], 'aa': dict(loss='logit_mse', teacher='main')}
  many, other, _ = build(make_net, batch, more, students=noisy)
  chex.assert_trees_all_equal(carry['train']['nets'], other['train']['nets'])
  one = few.step(carry, batch, frozen, {})[1]['loss/soft'][0]
  two = many.step(other, batch, frozen, {})[1]['loss/soft'][0]
  np.testing.assert_array_equal(one, two)


@pytest.mark.usefixtures('strict_dtypes')
def test_our_own_arithmetic_promotes_nothing(make_net, batch):
  made, carry, frozen = build(make_net, batch, BOTH, optimizer=SGD)
  jax.eval_shape(made.step, carry, batch, frozen, {})


def test_one_trace_serves_all_steps(make_net, batch):
  made, carry, frozen = build(
    make_net, batch, BOTH, optimizer=optax.adamw(1e-3)
  )
  run = jax.jit(chex.assert_max_traces(made.step, n=1))
  for _ in range(3):
    carry, _ = run(carry, batch, frozen, {})
