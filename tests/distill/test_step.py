import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses
from jaxkd.data import views
from jaxkd.distill.dot import dot
from jaxkd.distill.roles import Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.errors import UserError
from jaxkd.run import config, terms
from jaxkd.students import compression, inherit
from jaxkd.tasks import classification, fidelity
from jaxkd.train import optimizer as optimizers
from jaxkd.types import Metric, Net, Term

SGD = optax.sgd(0.1)


def build(make_net, batch, distill, *, students=None, optimizer=SGD, **recipe):
  students = students or {'student': Role(make_net())}
  complete = config.plain(
    config.complete(
      {'teachers': {'main': {}}, 'students': {n: {} for n in students},
       'distill': distill}
    )
  )['distill']  # fmt: skip
  made = learner(
    System(
      students,
      {'main': Role(make_net())},
      lambda hyper: Recipe(
        terms.build(complete, list(students)), optimizer, **recipe
      ),
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
      classification.metrics('abc') | fidelity.metrics('main'),
    )
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
    carry['average']['student']['w'], (first + now) / 2, rtol=1e-5
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


def test_what_metrics_ask_for_is_decoded(make_net, batch):
  asked = []

  def decode(apply, inputs, wanted, teachers):
    asked.append((wanted, set(teachers)))
    if not teachers:
      return {}
    both = apply(2 * inputs)['logits'] + teachers['main'](inputs)['logits']
    return {'both': both}

  measure = lambda outputs, batch, _: (outputs['both'].sum(), jnp.float32(1))  # noqa: E731
  metrics = classification.metrics('abc')
  metrics |= {'both': Metric(measure, output='both')}
  made = learner(
    System(
      {'student': Role(make_net())},
      {'main': Role(make_net())},
      lambda hyper: Recipe({}, SGD),
      {},
      metrics,
      decode=decode,
    )
  )
  w, v = (make_net().init(jax.random.key(i))['params']['w'] for i in (1, 2))
  carry = {
    'train': {'nets': {'student': {'w': w}}},
    'state': {'nets': {'student': {'calls': jnp.int32(0)}}},
    'seed': jnp.uint32(0),
  }
  frozen = {'main': {'params': {'w': v[None]}, 'state': {'calls': np.zeros(1)}}}
  found = made.evaluate(carry, batch, frozen)
  x = batch['inputs']
  want = (2 * x @ w + x @ v).sum()
  np.testing.assert_allclose(found['both'][0], want, rtol=1e-5)
  assert asked == [({'both'}, {'main'})]
  # What is not given is not measured.
  assert set(made.evaluate(carry, batch, {})) == {'top1', 'nll', 'ece'}


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

  entry = Term(init, loss, of='student')
  made = learner(
    System(
      {'student': Role(make_net())},
      {},
      lambda hyper: Recipe({'bank': entry}, SGD),
      batch,
    )
  )
  carry = made.init(jnp.uint32(0), {}, {})
  new, _ = jax.jit(made.step)(carry, batch, {}, {})
  assert float(new['train']['terms']['bank']['scale']) < 1
  logits = batch['inputs'] @ carry['train']['nets']['student']['w']
  np.testing.assert_allclose(
    new['state']['terms']['bank']['mean'], logits.mean(0) / 2, rtol=1e-5
  )


def test_a_term_sees_what_its_net_does(make_net, batch):
  """Each role its own view, or what it reads in place of the examples."""

  def init(key, context):
    return {}, {'inputs': jnp.zeros(context.inputs.shape)}

  def loss(params, state, context):
    inputs = context.inputs
    return context.student['logits'].mean(-1), {'inputs': inputs}

  roles = {
    'plain': Role(make_net(), copies=2),
    'noisy': Role(make_net(), view=NOISY),
    'reader': Role(make_net(3), reads=(('main', 'features'),), view=NOISY),
  }
  made = learner(
    System(
      roles,
      {'main': Role(make_net())},
      lambda hyper: Recipe(
        {n: Term(init, loss, of=n, teachers=('main',)) for n in roles}, SGD
      ),
      batch,
    )
  )
  one = make_net().init(jax.random.key(9))
  frozen = {'main': jax.tree.map(lambda x: x[None], one)}
  carry = made.init(jnp.uint32(0), {}, frozen)
  new, _ = made.step(carry, batch, frozen, {})
  found = {n: kept['inputs'] for n, kept in new['state']['terms'].items()}
  for name in ('plain/plain/0', 'plain/plain/1', 'reader'):
    np.testing.assert_array_equal(found[name], batch['inputs'])
  np.testing.assert_allclose(found['noisy'], seen(NOISY, batch), rtol=1e-5)


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
  run = jax.jit(chex.assert_max_traces(lambda *of: made.step(*of), n=1))
  for _ in range(3):
    carry, _ = run(carry, batch, frozen, {})


def deep_net(width=3):
  """Two linear maps, the first of which can be seen."""

  def init(key):
    first, second = jax.random.split(key)
    return {
      'params': {
        'a': {'kernel': jax.random.normal(first, (4, width)) / 2},
        'b': {'kernel': jax.random.normal(second, (width, width)) / 2},
      },
      'state': {},
    }

  def apply(variables, inputs, *, key=None, train=False):
    params = variables['params']
    hidden = inputs @ params['a']['kernel']
    return {'logits': hidden @ params['b']['kernel'], 'hidden': hidden}, {}

  return Net(init, apply)


def learned(students, teachers, distill, batch, optimizer=SGD, **recipe):
  """A learner, its first carry and frozen groups of one net each."""
  complete = config.plain(
    config.complete({'distill': distill, 'students': {'student': {}}})
  )['distill']
  made = learner(
    System(
      students,
      teachers,
      lambda hyper: Recipe(
        terms.build(complete, list(students)), optimizer, **recipe
      ),
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
    )
  )
  frozen = {
    name: jax.tree.map(lambda x: x[None], role.net.init(jax.random.key(20 + i)))
    for i, (name, role) in enumerate(sorted(teachers.items()))
  }
  return made, made.init(jnp.uint32(0), {}, frozen), frozen


LABELS = dict(loss='cross_entropy')
SELF = dict(loss='logit_mse', teacher='average')
NOISY, APART = 'noise(0.3)', 'redraw|noise(0.3)'


def seen(text, batch):
  """The inputs in a view of the run of seed 0."""
  return views.apply(
    views.parse(text),
    batch['inputs'],
    seed=0,
    epoch=batch['epoch'],
    id=batch['id'],
  )


@pytest.mark.parametrize('average_view', ['', APART])
def test_a_nets_running_mean_teaches_it(make_net, batch, average_view):
  role = Role(make_net(), view=NOISY, average_view=average_view)
  distill = dict(labels=LABELS, consistency=SELF)
  made, carry, _ = learned({'student': role}, {}, distill, batch, average=0.75)
  own, theirs = seen(NOISY, batch), seen(average_view or NOISY, batch)
  assert average_view == '' or np.abs(own - theirs).min() > 0
  run = jax.jit(made.step)
  w = carry['train']['nets']['student']['w']
  mean = w
  for number, share in enumerate((1 / 2, 2 / 3, 0.75, 0.75)):
    logits = theirs @ mean

    def loss(w, logits=logits):
      mse = losses.logit_mse(own @ w, logits).mean()
      return losses.cross_entropy(own @ w, batch['labels']).mean() + mse, mse

    (_, mse), gradient = jax.value_and_grad(loss, has_aux=True)(w)
    carry, measured = run(carry, batch, {}, {})
    got = measured['loss/consistency'][0]
    np.testing.assert_allclose(got, mse, rtol=1e-3, atol=1e-7)
    # At first the mean is the net itself, and differs by what it sees.
    assert (got > 1e-4) == bool(number or average_view)
    w = w - 0.1 * gradient
    mean = share * mean + (1 - share) * w
    np.testing.assert_allclose(
      carry['train']['nets']['student']['w'], w, rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(
      carry['average']['student']['w'], mean, rtol=1e-3, atol=1e-6
    )


def test_each_copy_has_a_running_mean_of_its_own(make_net, batch):
  role = Role(make_net(), copies=2, view=NOISY, average_view=APART)
  made, carry, _ = learned(
    {'student': role}, {}, dict(consistency=SELF), batch, average=0.9
  )
  _, measured = made.step(carry, batch, {}, {})
  for name in ('student/0', 'student/1'):
    w = carry['average'][name]['w']
    want = losses.logit_mse(seen(NOISY, batch) @ w, seen(APART, batch) @ w)
    got = measured[f'loss/consistency/{name}'][0]
    np.testing.assert_allclose(got, want.mean(), rtol=1e-4)


def test_one_layer_of_a_net_teaches_another(batch):
  """Without peers a role is its own teacher, its gradient stopped there."""
  inner = dict(loss='logit_mse', at=('logits', 'hidden'), teacher='student')
  made, carry, _ = learned(
    {'student': Role(deep_net())}, {}, dict(inner=inner), batch
  )
  params = carry['train']['nets']['student']
  hidden = batch['inputs'] @ params['a']['kernel']

  def loss(params):
    logits = batch['inputs'] @ params['a']['kernel'] @ params['b']['kernel']
    return losses.logit_mse(logits, hidden).mean()

  value, gradient = jax.value_and_grad(loss)(params)
  new, measured = made.step(carry, batch, {}, {})
  np.testing.assert_allclose(measured['loss'][0], value, rtol=1e-5)
  want = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
  chex.assert_trees_all_close(
    new['train']['nets']['student'], want, rtol=1e-4, atol=1e-6
  )


def test_nets_read_what_a_group_gives(make_net, batch):
  """A trained one, and a frozen group that reads another."""
  reads = (('main', 'logits'),)
  made, carry, frozen = learned(
    {'student': Role(make_net(), reads=reads)},
    {
      'main': Role(make_net(4)),
      'reader': Role(make_net(), reads=reads),
      'third': Role(make_net(), reads=(('reader', 'features'),)),
    },
    dict(
      soft=dict(loss='logit_mse', teacher='reader'),
      third=dict(loss='logit_mse', teacher='third'),
    ),
    batch,
  )
  new, measured = made.step(carry, batch, frozen, {})
  kernels = {name: v['params']['w'][0] for name, v in frozen.items()}
  read = batch['inputs'] @ kernels['main']
  for term, name in (('soft', 'reader'), ('third', 'third')):

    def loss(w, name=name):
      return losses.logit_mse(read @ w, read @ kernels[name]).mean()

    w = carry['train']['nets']['student']['w']
    np.testing.assert_allclose(
      measured[f'loss/{term}'][0], loss(w), rtol=1e-4, atol=1e-7
    )
  gradient = sum(
    jax.grad(
      lambda w, k=kernels[n]: losses.logit_mse(read @ w, read @ k).mean()
    )(w)
    for n in ('reader', 'third')
  )
  np.testing.assert_allclose(
    new['train']['nets']['student']['w'], w - 0.1 * gradient, rtol=1e-3
  )


@pytest.mark.parametrize(
  ('reads', 'copies', 'message'),
  [
    (('mian', 'logits'), 1, r"r\.reads: there is no teacher 'mian'.*'main'"),
    (('main', 'logit'), 1, r"r\.reads: there is no output 'logit'.*'logits'"),
    (
      ('main', 'logits'),
      2,
      r'r\.reads: main has 2 nets.*teachers\.main\.count=1',
    ),
  ],
)
def test_what_cannot_be_read(make_net, batch, reads, copies, message):
  made = learner(
    System(
      {'student': Role(make_net(), reads=(reads,), at='r')},
      {'main': Role(make_net(4))},
      lambda hyper: Recipe(terms.build({}, ['student']), SGD),
      batch,
    )
  )
  one = make_net(4).init(jax.random.key(9))
  frozen = {'main': jax.tree.map(lambda x: jnp.stack([x] * copies), one)}
  with pytest.raises(UserError, match=f'^{message}'):
    made.init(jnp.uint32(0), {}, frozen)


def test_a_net_starts_from_a_group_and_keeps_what_is_frozen(batch):
  """As a classifier that is the teacher's own does (SimKD)."""
  role = Role(deep_net(), **inherit.of_role('main/b', 'b', at='role'))
  hint = dict(loss='hint', at=('hidden', 'hidden'), teacher='main')
  decaying = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
  made, first, frozen = learned(
    {'student': role},
    {'main': Role(deep_net())},
    dict(labels=LABELS, hint={**hint, 'adapter': 'linear'}),
    batch,
    optimizer=decaying,
    average=0.5,
  )
  _, other, _ = learned(
    {'student': Role(deep_net())}, {}, dict(labels=LABELS), batch
  )
  start = first['train']['nets']['student']
  theirs = frozen['main']['params']['b']['kernel'][0]
  np.testing.assert_array_equal(start['b']['kernel'], theirs)
  alone = other['train']['nets']['student']
  np.testing.assert_array_equal(start['a']['kernel'], alone['a']['kernel'])
  assert np.abs(alone['b']['kernel'] - theirs).min() > 0
  carry, run = first, jax.jit(made.step)
  for _ in range(3):
    carry, _ = run(carry, batch, frozen, {})
  now = carry['train']['nets']['student']
  np.testing.assert_array_equal(now['b']['kernel'], theirs)
  assert np.abs(now['a']['kernel'] - start['a']['kernel']).min() > 0
  adapters = (t['train']['terms']['hint']['adapter'] for t in (first, carry))
  before, after = (adapter['kernel'] for adapter in adapters)
  assert np.abs(after - before).min() > 0


@pytest.mark.parametrize('accumulate', [1, 2])
def test_an_optimiser_has_state_for_what_trains_alone(accumulate, batch):
  """Also in a step whose optimiser has rules for paths."""
  train = config.plain(config.complete({}))['train']
  rules = {
    'nets/student/a': {'learning_rate': 0.5, 'weight_decay': 0.1},
    'nets/student/b': {'clip': 2.0},  # which does not train
  }
  train |= {'by_path': rules, 'clip': 1.0, 'weight_decay': 0.1}
  role = Role(deep_net(), **inherit.of_role('random', 'b', at='role'))
  made, carry, _ = learned(
    {'student': role, 'other': Role(deep_net())},
    {},
    {'labels': {**LABELS, 'of': 'student'}, 'own': {**LABELS, 'of': 'other'}},
    batch,
    optimizer=optimizers.optimizer(train),
    accumulate=accumulate,
  )
  nets = carry['train']['nets']
  trained = [nets['student']['a'], nets['other']]
  size = sum(x.size for x in jax.tree.leaves(trained))
  moments = jax.tree.leaves(carry['opt'])
  assert sum(x.size for x in moments if x.ndim > 1) == 2 * size
  new, _ = jax.jit(made.step)(carry, batch, {}, {})
  chex.assert_trees_all_equal_shapes_and_dtypes(new, carry)
  moved = jax.tree.map(
    lambda x, y: bool((x != y).all()), nets, new['train']['nets']
  )
  assert moved['student'] == {'a': {'kernel': True}, 'b': {'kernel': False}}
  assert moved['other'] == {'a': {'kernel': True}, 'b': {'kernel': True}}


def test_points_are_learnt_where_the_weights_are_frozen(batch):
  """They start at the quantiles of the weights that are taken over."""
  net = deep_net()
  smaller = compression.compression(
    net, 'points(2, bucket=None)', 'magnitude(0.4, end=2)', steps=9, at='s'
  )
  role = Role(
    net, compression=smaller, **inherit.of_role('main', '*', at='role')
  )
  made, carry, frozen = learned(
    {'student': role}, {'main': Role(net)}, dict(labels=LABELS), batch,
    accumulate=2,
  )  # fmt: skip
  first = carry['train']['nets']['student']
  for name in ('a', 'b'):
    w = np.asarray(frozen['main']['params'][name]['kernel'][0])
    np.testing.assert_array_equal(first[name]['kernel'], w)
    np.testing.assert_allclose(
      first['quantize'][f'{name}/kernel'],
      np.percentile((w - w.min()) / np.ptp(w), [0, 100 / 3, 200 / 3, 100]),
      atol=1e-5,
    )
  run, gone = jax.jit(made.step), []
  for _ in range(4):
    carry, _ = run(carry, batch, frozen, {})
    masks = carry['state']['nets']['student']['prune'].values()
    gone.append(sum(int((~mask).sum()) for mask in masks))
  size = sum(mask.size for mask in masks)
  # Before step 2, whatever the parts of a batch.
  assert gone == [0, 0, round(0.4 * size), round(0.4 * size)]
  now = carry['train']['nets']['student']
  for name in ('a', 'b'):
    np.testing.assert_array_equal(now[name]['kernel'], first[name]['kernel'])
    learnt = [n['quantize'][f'{name}/kernel'] for n in (first, now)]
    assert np.abs(learnt[0] - learnt[1]).max() > 1e-4


def test_a_quantised_net_starts_as_the_other_does(batch):
  net = deep_net()
  smaller = compression.compression(net, 'ternary', '', steps=9, at='s')
  plain, quantised = (
    learned({'student': role}, {}, dict(labels=LABELS), batch)[1]
    for role in (Role(net), Role(net, compression=smaller))
  )
  chex.assert_trees_all_equal(plain['train'], quantised['train'])
  chex.assert_trees_all_equal(plain['state'], quantised['state'])


def test_a_net_that_starts_as_another_gives_the_same(batch):
  made, carry, frozen = learned(
    {'student': Role(deep_net(), **inherit.of_role('main', '', at='role'))},
    {'main': Role(deep_net())},
    dict(soft=dict(loss='kl', teacher='main')),
    batch,
  )
  want = jax.tree.map(lambda x: x[0], frozen['main']['params'])
  chex.assert_trees_all_equal(carry['train']['nets']['student'], want)
  _, measured = made.step(carry, batch, frozen, {})
  np.testing.assert_allclose(measured['loss'][0], 0, atol=1e-6)


def keeping():
  """SGD that keeps the gradient of each part in its state."""

  def init(params):
    zeros = optax.tree.zeros_like(params)
    return {'task': zeros, 'distill': zeros, 'sum': zeros}

  def update(updates, state, params=None, *, parts):
    del state, params
    return updates, {**parts, 'sum': updates}

  made = optax.GradientTransformationExtraArgs(init, update)
  return optax.chain(made, optax.scale_by_learning_rate(0.1))


@pytest.mark.parametrize('accumulate', [1, 2])
def test_each_part_of_the_loss_has_its_gradient(make_net, batch, accumulate):
  hint = dict(
    loss='hint', at=('logits', 'features'), teacher='main', adapter='linear'
  )
  made, carry, frozen = build(
    make_net,
    batch,
    {**BOTH, 'hint': hint},
    optimizer=keeping(),
    accumulate=accumulate,
    parts={'task': ('labels',), 'distill': ('soft', 'hint')},
  )
  new, measured = jax.jit(made.step)(carry, batch, frozen, {})
  main = frozen['main']['params']['w'][0]
  train, x = carry['train'], batch['inputs']

  def task(w, adapter):
    return 0.5 * losses.cross_entropy(x @ w, batch['labels']).mean()

  def distill(w, adapter):
    y = x @ w @ adapter['kernel'] + adapter['bias'][None]
    soft = losses.kl(x @ w, x @ main, temperature=2.0)
    return soft.mean() + jnp.square(y - x).mean()

  given = train['nets']['student']['w'], train['terms']['hint']['adapter']
  kept = new['opt'][0]
  whole = 0
  for name, by_hand in (('task', task), ('distill', distill)):
    w, adapter = jax.grad(by_hand, (0, 1))(*given)
    got = kept[name]
    np.testing.assert_allclose(
      got['nets']['student']['w'], w, rtol=1e-3, atol=1e-6
    )
    chex.assert_trees_all_close(
      got['terms']['hint']['adapter'], adapter, rtol=1e-3, atol=1e-6
    )
    whole = whole + w
  np.testing.assert_allclose(
    kept['sum']['nets']['student']['w'], whole, rtol=1e-3, atol=1e-6
  )
  moved = new['train']['nets']['student']['w']
  np.testing.assert_allclose(
    moved, given[0] - 0.1 * whole, rtol=1e-3, atol=1e-6
  )
  value = task(*given) + distill(*given)
  np.testing.assert_allclose(measured['loss'][0], value, rtol=1e-4)


def test_copies_of_a_term_are_in_the_same_part(make_net, batch):
  students = {'student': Role(make_net(), copies=2)}
  distill = {'labels': LABELS, 'peer': dict(loss='kl', teacher='student')}
  made, carry, _ = learned(
    students,
    {},
    distill,
    batch,
    optimizer=keeping(),
    parts={'task': ('labels',), 'distill': ('peer',)},
  )
  new, _ = made.step(carry, batch, {}, {})
  plain, same, _ = learned(students, {}, distill, batch)
  want, _ = plain.step(same, batch, {}, {})
  chex.assert_trees_all_close(new['train'], want['train'], rtol=1e-4, atol=1e-6)
  for name in ('student/0', 'student/1'):
    for part in ('task', 'distill'):
      assert np.abs(new['opt'][0][part]['nets'][name]['w']).max() > 1e-3


def test_parts_and_what_is_frozen_stay_apart(batch):
  """Three steps of DOT with weight decay and a classifier that stays."""
  role = Role(deep_net(), **inherit.of_role('random', 'b', at='role'))
  distill = {
    'labels': LABELS,
    'soft': dict(loss='kl', teacher='main'),
  }
  decaying = optax.chain(optax.add_decayed_weights(0.1), dot(0.1))
  made, carry, frozen = learned(
    {'student': role},
    {'main': Role(deep_net())},
    distill,
    batch,
    optimizer=decaying,
    parts={'task': ('labels',), 'distill': ('soft',)},
    accumulate=2,
  )
  start = carry['train']['nets']['student']
  x, y = batch['inputs'], batch['labels']
  theirs = jax.tree.map(lambda p: p[0], frozen['main']['params'])
  target = x @ theirs['a']['kernel'] @ theirs['b']['kernel']
  b = start['b']['kernel']
  slope = {
    'task': jax.grad(lambda a: losses.cross_entropy(x @ a @ b, y).mean()),
    'distill': jax.grad(lambda a: losses.kl(x @ a @ b, target).mean()),
  }
  a, task, soft = start['a']['kernel'], 0.0, 0.0
  run = jax.jit(made.step)
  for _ in range(3):
    hard, easy = slope['task'](a), slope['distill'](a)
    task = (0.9 - 0.075) * task + hard + 0.1 * a
    soft = (0.9 + 0.075) * soft + easy
    a = a - 0.1 * (task + soft)
    carry, measured = run(carry, batch, frozen, {})
    # What is frozen takes no part of the gradient either, as of its clipping.
    norm = measured['gradient_norm'][0]
    np.testing.assert_allclose(norm, jnp.linalg.norm(hard + easy), rtol=1e-3)
    now = carry['train']['nets']['student']
    np.testing.assert_allclose(now['a']['kernel'], a, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(now['b']['kernel'], b)
