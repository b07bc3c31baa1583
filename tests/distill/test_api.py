"""Distillation in a loop of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxkd import distill, losses, models
from jaxkd.errors import UserError
from jaxkd.types import Term

B, D, K = 12, 6, 3


class Mlp(nnx.Module):
  def __init__(self, width, *, rngs, activation=nnx.relu):
    self.stages = nnx.List(
      [nnx.Linear(D, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)]
    )
    self.activation = activation
    self.drop = nnx.Dropout(0.2, rngs=rngs)
    self.norm = nnx.BatchNorm(width, rngs=rngs)
    self.head = nnx.Linear(width, K, rngs=rngs)

  def __call__(self, x):
    for stage in self.stages:
      x = self.activation(stage(x))
    return self.head(self.drop(self.norm(x)))


class Small(linen.Module):
  width: int = 4

  @linen.compact
  def __call__(self, x, train=False):
    x = linen.relu(linen.Dense(self.width, name='first')(x))
    x = linen.BatchNorm(use_running_average=not train, name='norm')(x)
    return linen.Dense(K, name='head')(x)


def loader(steps, seed=0):
  random = np.random.default_rng(seed)
  for _ in range(steps):
    x = random.normal(size=(B, D)).astype(np.float32)
    yield {'inputs': x, 'labels': (x[:, :K].argmax(1)).astype(np.int64)}


EXAMPLE = jnp.zeros((B, D))


def teacher():
  return Mlp(8, rngs=nnx.Rngs(1))


def terms():
  return {
    'labels': distill.term(losses.cross_entropy, weight=0.1),
    'soft': distill.term(
      losses.kl, teacher='main', weight=0.9, temperature=4.0
    ),
    'hint': distill.term(
      losses.hint,
      teacher='main',
      at=('stages/0', 'stages/1'),
      adapter='linear',
    ),
  }


def accuracy(outputs, batch):
  return outputs['logits'].argmax(-1) == batch['labels']


def test_twenty_lines():
  module, taught = Mlp(4, rngs=nnx.Rngs(0)), teacher()
  before = jax.tree.map(jnp.copy, nnx.state(taught, nnx.Param))
  student = distill.net(module, EXAMPLE, taps=('stages/*',))
  step = distill.step(
    student,
    {'main': distill.net(taught, EXAMPLE)},
    terms(),
    optax.adamw(1e-2),
    metrics={'top1': accuracy},
  )
  state, losses_seen = step.init(seed=0), []
  first = step.evaluate(state, loader(4, seed=9))['top1']
  for batch in loader(60):
    state, metrics = step(state, batch)
    losses_seen.append(metrics['loss/labels'])
  assert type(metrics['loss']) is float
  assert set(metrics) == {
    'loss', 'loss/labels', 'loss/soft', 'loss/hint', 'gradient_norm',
  }  # fmt: skip
  assert losses_seen[-1] < losses_seen[0]
  assert step.evaluate(state, list(loader(4, seed=9)))['top1'] >= first
  old = np.asarray(module.head.kernel)
  assert student.update(module, state) is module
  assert not np.array_equal(module.head.kernel, old)
  module.eval()
  want = step.evaluate(state, loader(1, seed=9))['top1']
  (batch,) = loader(1, seed=9)
  found = np.mean(module(batch['inputs']).argmax(-1) == batch['labels'])
  assert want == pytest.approx(found)
  jax.tree.map(
    np.testing.assert_array_equal, nnx.state(taught, nnx.Param), before
  )


def test_a_given_module_starts_from_its_own_weights():
  module = Mlp(4, rngs=nnx.Rngs(3))
  step = distill.step(
    distill.net(module, EXAMPLE),
    {},
    {'labels': distill.term(losses.cross_entropy)},
    optax.sgd(0.1),
  )
  found = distill.variables_of(step.init(seed=7))
  np.testing.assert_array_equal(
    found['params']['head']['kernel'], module.head.kernel[...]
  )


@pytest.mark.parametrize('mode', ['vmap', 'sequence'])
def test_five_seeds_are_five_runs(mode):
  # Smooth: a unit at the edge of ReLU may be dead in one program alone.
  student = distill.net(
    lambda rngs: Mlp(4, rngs=rngs, activation=nnx.gelu), EXAMPLE
  )
  taught = {'main': distill.net(teacher(), EXAMPLE)}

  def trained(members, seed):
    step = distill.step(
      student, taught, terms(), optax.sgd(0.1), members=members, mode=mode
    )
    state = step.init(seed)
    for batch in loader(3):
      state, metrics = step(state, batch)
    return state, metrics['loss']

  state, loss = trained(5, 0)
  alone, own = trained(1, 2)
  assert loss.shape == (5,) and len(set(loss.tolist())) == 5
  np.testing.assert_allclose(loss[2], own, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    distill.variables_of(state, member=2),
    distill.variables_of(alone),
  )
  made = student.update(Mlp(4, rngs=nnx.Rngs(0)), state, member=2)
  assert isinstance(made, Mlp)
  with pytest.raises(UserError, match='there are 5 members; choose one'):
    student.update(Mlp(4, rngs=nnx.Rngs(0)), state)


@pytest.mark.all_devices
def test_members_are_shared_out_over_the_devices():
  student = distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE)
  step = distill.step(
    student,
    {'main': distill.net(teacher(), EXAMPLE)},
    terms(),
    optax.sgd(0.1),
    members=4,
  )
  assert dict(step.mesh.shape) == {'member': 4, 'data': 2}
  state = step.init(0)
  for batch in loader(1):
    state, metrics = step(state, batch)
  assert metrics['loss'].shape == (4,)
  with pytest.raises(UserError, match='batch of 11 cannot be shared by 2'):
    step(state, jax.tree.map(lambda x: x[:11], batch))


def test_linen_gets_its_variables_back():
  module = Small()
  variables = module.init(jax.random.key(0), EXAMPLE)
  student = distill.net((module, variables), EXAMPLE, taps=('first',))
  wide = Small(8)
  given = (wide, wide.init(jax.random.key(1), EXAMPLE))
  hint = distill.term(
    losses.hint, teacher='main', at=('first', 'first'), adapter='linear'
  )
  step = distill.step(
    student,
    {'main': distill.net(given, EXAMPLE)},
    {'labels': distill.term(losses.cross_entropy), 'hint': hint},
    optax.sgd(0.1),
  )
  state = step.init()
  for batch in loader(2):
    state, _ = step(state, batch)
  after = student.update(module, state)
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, variables)
  means = [v['batch_stats']['norm']['mean'] for v in (after, variables)]
  assert not np.array_equal(*means)
  assert module.apply(after, EXAMPLE).shape == (B, K)


def test_a_net_of_ours():
  net = models.build('mlp', num_classes=K, input_shape=(D,), widths=(5,))
  student = distill.net(net, EXAMPLE)
  taught = distill.net((net, net.init(jax.random.key(3))), EXAMPLE)
  step = distill.step(
    student,
    {'main': (taught, taught)},
    {'soft': distill.term(losses.kl, teacher='main')},
    optax.sgd(0.1),
  )
  state, metrics = step(step.init(), next(loader(1)))
  assert metrics['loss'] > 0
  assert set(student.update(net, state)) == {'params', 'state'}
  with pytest.raises(UserError, match='gives no outputs of the layers'):
    distill.net(net, EXAMPLE, taps=('dense',))


def test_outputs_that_come_in_the_batch():
  net = models.build('mlp', num_classes=K, input_shape=(D,), widths=(5,))
  given = net.init(jax.random.key(3))
  soft = {'soft': distill.term(losses.kl, teacher='main')}
  student = distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE)
  (batch,) = loader(1)
  logits = net.apply(given, batch['inputs'])[0]['logits']
  cached = {**batch, 'cached_outputs': {'main': {'logits': logits[:, None]}}}
  taught = {'main': distill.net((net, given), EXAMPLE)}
  whole = distill.step(student, taught, soft, optax.sgd(0.1))
  lookup = distill.step(student, {}, soft, optax.sgd(0.1), example=cached)
  runs = (whole, batch), (lookup, cached)
  found = [step(step.init(), b)[1]['loss'] for step, b in runs]
  assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_term_of_ones_own_has_parameters_and_state():
  def init(key, context):
    assert context.student['logits'].shape == (B, K)
    return {'scale': jnp.ones(())}, {'count': jnp.zeros((), jnp.int32)}

  def loss(params, state, context):
    cross = losses.cross_entropy(
      params['scale'] * context.student['logits'], context.batch['labels']
    )
    return cross, {'count': state['count'] + 1}

  student = distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE)
  step = distill.step(student, {}, {'mine': Term(init, loss)}, optax.sgd(0.1))
  state = step.init()
  for batch in loader(3):
    state, _ = step(state, batch)
  assert int(state['state']['terms']['mine']['count'][0]) == 3
  assert state['train']['terms']['mine']['scale'][0] != 1


def test_two_students_teach_each_other():
  students = {
    name: distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE) for name in 'ab'
  }
  step = distill.step(
    students,
    {},
    {
      'labels_a': distill.term(losses.cross_entropy, of='a'),
      'labels_b': distill.term(losses.cross_entropy, of='b'),
      'mutual': distill.term(losses.kl, of='a', teacher='b'),
    },
    optax.sgd(0.1),
    metrics={'top1': accuracy},
  )
  state, metrics = step(step.init(), next(loader(1)))
  assert metrics['loss/mutual'] > 0
  assert set(step.evaluate(state, loader(1))) == {'a/top1', 'b/top1'}
  students['b'].update(Mlp(4, rngs=nnx.Rngs(0)), state, name='b')


def test_what_a_student_writes_is_what_it_learns_from():
  seen = []

  def rollout(student, batch, key):
    seen.append(student(batch['inputs'])['logits'].shape)
    noise = jax.random.normal(key, batch['inputs'].shape)
    return {**batch, 'inputs': noise}

  student = distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE)
  step = distill.step(
    student,
    {'main': distill.net(teacher(), EXAMPLE)},
    {'soft': distill.term(losses.kl, teacher='main')},
    optax.sgd(0.0),
    rollout=rollout,
  )
  (batch,) = loader(1)
  zeros = {**batch, 'inputs': np.zeros_like(batch['inputs'])}
  found = [step(step.init(), b)[1]['loss'] for b in (batch, zeros, batch)]
  assert found[0] == found[1] == found[2] != 0
  assert seen[0] == (B, K)
  state, _ = step(step.init(), batch)
  assert step(state, batch)[1]['loss'] != found[0]  # another key


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(terms={}), 'at least one of terms'),
    (dict(terms={'x': losses.kl}), r"terms\['x'\].* is no Term"),
    (dict(teachers={'mian': 'T'}), r"no teacher 'main'.*did you mean 'mian'"),
    (dict(teachers={'main': 'S'}), 'main has no weights'),
    (dict(teachers={'student': 'T'}), 'both called student'),
    (dict(members=3, student='T'), 'would start from the weights of one'),
    (dict(mode='vamp'), "no mode 'vamp'; did you mean 'vmap'"),
    (dict(members=0), 'members=0 should be a number, 1 or more'),
    (dict(members=True), 'members=True should be'),
    (dict(accumulate=0), 'accumulate=0 should be a number'),
    (dict(average=1.0), 'average=1.0 should be 0, or a decay below 1'),
    (dict(parts={'a': ('soft',)}), 'the term labels is in 0 of the parts a'),
    (
      dict(parts={'a': 'soft'}),
      r"a should be a tuple of terms, as \('soft',\)",
    ),
    (dict(parts={'a': ('sfot',)}), "no term 'sfot'; did you mean 'soft'"),
    (dict(terms=[]), 'terms should be a dict'),
    (
      dict(terms={'a/b': terms()['soft']}),
      "'a/b' cannot be the name of a term",
    ),
    (dict(metrics={'x': 3}), r"metrics\['x'\]: 3 should be a function"),
    (dict(optimizer=0.1), '0.1 is no optimiser; give one of optax'),
    (
      dict(terms={'x': distill.term(losses.kl, teacher='student')}),
      'student would be compared with itself',
    ),
    (
      dict(
        terms={
          'x': distill.term(
            losses.hint, teacher='main', at=('stages/0', 'nope')
          )
        }
      ),
      r"terms\['x'\].at: main: there is no layer 'nope'",
    ),
    (
      dict(mesh=jax.sharding.Mesh(np.array(jax.devices()[:1]), ('x',))),
      'make it with distill.mesh',
    ),
  ],
)
def test_mistakes_are_said(change, message):
  nets = {
    'T': distill.net(teacher(), EXAMPLE),
    'S': distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE),
  }
  options = {'student': 'S', 'teachers': {'main': 'T'}, 'terms': terms()}
  options |= {'optimizer': optax.sgd(0.1)} | change
  student = nets[options.pop('student')]
  taught = {name: nets[net] for name, net in options.pop('teachers').items()}
  with pytest.raises(UserError, match=message):
    distill.step(student, taught, **options)


@pytest.mark.parametrize(
  ('model', 'message'),
  [
    (3, '3 is no model'),
    (Mlp, 'is no model; give an nnx.Module, a function'),
    ((1, 2, 3), 'a tuple of 3'),
    ((Small(), {'batch_stats': {}}), "no collection of variables 'params'"),
    (lambda rngs: 3, 'gives 3; let it return an nnx.Module'),
    (lambda: 3, 'distill.net: TypeError'),
    (Small().bind(Small().init(jax.random.key(0), EXAMPLE)), 'Small is bound'),
  ],
)
def test_what_is_no_model_is_refused(model, message):
  with pytest.raises(UserError, match=message):
    distill.net(model, EXAMPLE)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(inputs=None), "no field of the batch 'inputs'"),
    (dict(labels=np.zeros(5, np.int32)),
     'labels of the batch is of 5 examples'),
    (dict(labels=[1, 2]), 'labels of the batch holds 1; give arrays'),
    (dict(id=np.arange(B) + 2**40), 'id of the batch .* beyond int32'),
    (dict(name=np.array(['a'] * B)), 'name of the batch holds array'),
    (dict(inputs=np.zeros((B, D + 1), np.float32)),
     r'inputs of the batch are float32\[B, 7\], and the example'),
    (dict(id=np.zeros(B)), 'id of the batch is float..; give whole numbers'),
    (dict(inputs=np.zeros((0, D)), labels=np.zeros(0)), 'has no examples'),
    (dict(labels=np.zeros(B)), r"terms\['labels'\]: the loss cross_entropy"),
    (dict(where=np.arange(B) < 5), r"terms\['labels'\].mask: it is ''"),
    (dict(cached_outputs={'main': np.zeros((B, 1, K))}), 'dict of dicts'),
  ],
)  # fmt: skip
def test_batches_that_do_not_fit(change, message):
  step = distill.step(
    distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE),
    {},
    {'labels': distill.term(losses.cross_entropy)},
    optax.sgd(0.1),
  )
  batch = {
    k: x for k, x in {**next(loader(1)), **change}.items() if x is not None
  }
  with pytest.raises(UserError, match=message):
    step(step.init(), batch)


def fresh():
  return distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE)


def labelled(**options):
  cross = {'labels': distill.term(losses.cross_entropy)}
  return distill.step(fresh(), {}, cross, optax.sgd(0.1), **options)


def test_no_member_stands_in_for_one_that_is_not_there():
  state = labelled(members=2).init()
  for member in (2, -1, True):
    with pytest.raises(UserError, match='there is no member'):
      distill.variables_of(state, member=member)


def test_a_state_is_used_once():
  step = labelled(metrics={'top1': accuracy})
  (batch,) = loader(1)
  used = step.init()
  step(used, batch)
  for use in (
    lambda: step(used, batch),
    lambda: step.evaluate(used, batch),
    lambda: distill.variables_of(used),
  ):
    with pytest.raises(UserError, match='this state was donated'):
      use()
  with pytest.raises(UserError, match='has 2 members, and this step 1'):
    step(labelled(members=2).init(), batch)
  with pytest.raises(UserError, match='NoneType is no state'):
    step(None, batch)
  with pytest.raises(UserError, match='use the functions of step'):
    jax.jit(step)(step.init(), batch)


@pytest.mark.parametrize(
  ('seed', 'message'),
  [
    (-1, 'the seed -1 should be from 0'),
    (2**32 - 1, 'the seed 4294967296 should be'),
    ([3, 3], 'several members have the seed 3'),
    ([3], 'one for each of the 2 members'),
    (1.0, '1.0 should be a seed'),
    (None, 'None should be a seed'),
  ],
)
def test_what_is_no_seed_is_refused(seed, message):
  with pytest.raises(UserError, match=message):
    labelled(members=2).init(seed)


def test_a_pattern_of_frozen_parameters_matches_some():
  net = distill.net(teacher(), EXAMPLE, freeze='nope')
  soft = {'soft': distill.term(losses.kl, teacher='main')}
  with pytest.raises(UserError, match=r"main: freeze: .* no parameter 'nope'"):
    distill.step(fresh(), {'main': net}, soft, optax.sgd(0.1))


def test_seeds_may_be_arrays():
  seeds = labelled(members=2).init(jnp.array([4, 2]))['seed']
  assert seeds.tolist() == [4, 2]
  assert labelled(members=2).init(np.int64(4))['seed'].tolist() == [4, 5]


def test_where_is_a_mask_in_training():
  def value(mask, batch):
    cross = distill.term(losses.cross_entropy, mask=mask)
    step = distill.step(
      distill.net(lambda rngs: nnx.Linear(D, K, rngs=rngs), EXAMPLE),
      {},
      {'labels': cross},
      optax.sgd(0.1),
    )
    return step(step.init(), batch)[1]['loss']

  (batch,) = loader(1)
  padded = {**batch, 'where': np.arange(B) < 5}
  short = jax.tree.map(lambda x: x[:5], batch)
  assert value('where', padded) == pytest.approx(value('', short), rel=1e-6)
  assert value('all', padded) == pytest.approx(value('', batch), rel=1e-6)


def test_metrics_are_of_examples():
  (batch,) = loader(1)
  step = labelled(metrics={'a/top1': accuracy})
  assert set(step.evaluate(step.init(), batch)) == {'a/top1'}
  assert 0 <= step.evaluate(step.init(), batch)['a/top1'] <= 1
  with pytest.raises(UserError, match='no example counts'):
    step.evaluate(step.init(), {**batch, 'where': np.zeros(B, bool)})
  with pytest.raises(UserError, match='there is no batch'):
    step.evaluate(step.init(), [])
  step = labelled(metrics={'x': lambda outputs, batch: outputs['nope']})
  with pytest.raises(UserError, match=r"metrics\['x'\]: KeyError: 'nope'"):
    step.evaluate(step.init(), batch)


def test_parts_of_a_batch_add_up_or_are_refused():
  def run(loss, accumulate):
    linear = distill.net(lambda rngs: nnx.Linear(D, K, rngs=rngs), EXAMPLE)
    given = distill.net(nnx.Linear(D, K, rngs=nnx.Rngs(1)), EXAMPLE)
    step = distill.step(
      linear,
      {'main': given},
      {'x': distill.term(loss, teacher='main')},
      optax.sgd(0.1),
      accumulate=accumulate,
    )
    return step(step.init(), next(loader(1)))[1]['loss']

  assert run('kl', 3) == pytest.approx(run('kl', 1), rel=1e-5)
  with pytest.raises(UserError, match=r"terms\['x'\]: it looks at the whole"):
    run('rkd_distance', 3)
  with pytest.raises(UserError, match='12 cannot be taken in 5 parts'):
    run('kl', 5)


@pytest.mark.parametrize(
  ('made', 'message'),
  [
    (Term(lambda k, c: {}, None), 'its init gives a dict'),
    (Term(lambda k, c: ({}, {}), lambda p, s, c: c.student['logits'][:, 0]),
     'its loss gives a'),
    (Term(lambda k, c: ({}, {}), lambda p, s, c: (c.student['logits'], s)),
     r'its loss gives the shape \[12, 3\]'),
    (Term(lambda k, c: ({}, {'a': jnp.zeros(())}),
          lambda p, s, c: (c.student['logits'][:, 0], {'a': jnp.zeros(3)})),
     'its state becomes'),
    (Term(lambda k, c: ({}, {}), lambda p, s, c: (c.student['nope'], s)),
     "KeyError: 'nope'"),
    (distill.weighted(
       distill.term(losses.cross_entropy), lambda context: jnp.ones((B, 1))),
     r'weight: it gives the shape \[12, 1\]'),
    (distill.conditional(
       lambda context: jnp.ones(B),
       distill.term(losses.cross_entropy), distill.term(losses.cross_entropy)),
     r'when: it gives float32\[12\]; give true or false'),
  ],
)  # fmt: skip
def test_a_term_that_is_wrong_is_named(made, message):
  step = distill.step(fresh(), {}, {'x': made}, optax.sgd(0.1))
  with pytest.raises(UserError, match=r"terms\['x'\].*" + message):
    step(step.init(), next(loader(1)))


@pytest.mark.parametrize('weight', [-1.0, float('nan'), float('inf'), None])
def test_numbers_that_are_no_weight(weight):
  with pytest.raises(UserError, match='should be a finite number'):
    distill.term(losses.cross_entropy, weight=weight)


@pytest.mark.parametrize(
  ('rollout', 'message'),
  [
    (lambda student, batch, key: None, 'it gives None'),
    (lambda student, batch, key: {'inputs': batch['inputs']}, "drops 'id'"),
    (lambda student, batch, key: {**batch, 'inputs': batch['inputs'][:5]},
     'of 12 examples and its inputs of 5'),
    (lambda student, batch: batch, 'rollout: TypeError'),
  ],
)  # fmt: skip
def test_rollouts_that_give_no_batch(rollout, message):
  with pytest.raises(UserError, match=message):
    labelled(rollout=rollout).init()


def test_pure_functions_start_from_given_weights():
  module = Mlp(4, rngs=nnx.Rngs(3))
  step = distill.step(
    distill.net(module, EXAMPLE),
    {},
    {'labels': distill.term(losses.cross_entropy)},
    optax.sgd(0.1),
  )
  carry = step.learner.init(np.uint32(0), {}, step.frozen)
  np.testing.assert_array_equal(
    carry['train']['nets']['student']['head']['kernel'], module.head.kernel
  )


def test_every_student_is_trained():
  with pytest.raises(UserError, match='no term trains b'):
    distill.step(
      {'a': fresh(), 'b': fresh()},
      {},
      {'a': distill.term(losses.cross_entropy, of='a')},
      optax.sgd(0.1),
    )


def test_a_loss_may_look_at_the_inputs():
  def far(logits, inputs):
    assert inputs.shape == (B, D)
    return jnp.square(logits - inputs[:, :K]).sum(-1)

  step = distill.step(
    distill.net(lambda rngs: Mlp(4, rngs=rngs), EXAMPLE),
    {},
    {'far': distill.term(far)},
    optax.sgd(0.1),
  )
  assert step(step.init(), next(loader(1)))[1]['loss'] > 0


class Tanh(Mlp):
  def __call__(self, x):
    return jnp.tanh(super().__call__(x))


@pytest.mark.parametrize(
  'other', [Tanh(8, rngs=nnx.Rngs(2)), (teacher(), 'noise(0.1)')]
)
def test_a_group_is_of_one_function(other):
  module, view = other if isinstance(other, tuple) else (other, '')
  soft = {'soft': distill.term(losses.kl, teacher='main')}

  def made(second):
    group = [distill.net(teacher(), EXAMPLE), second]
    return distill.step(fresh(), {'main': group}, soft, optax.sgd(0.1))

  with pytest.raises(UserError, match='the nets of main compute different'):
    made(distill.net(module, EXAMPLE, view=view))
  made(distill.net(Mlp(8, rngs=nnx.Rngs(2)), jnp.zeros((B, D))))


def test_terms_that_cannot_be_put_together():
  cross = distill.term(losses.cross_entropy, of='a')
  with pytest.raises(UserError, match='one term trains a and the other b'):
    distill.conditional(lambda context: True, cross, cross._replace(of='b'))
  with pytest.raises(UserError, match='is no Term; make one'):
    distill.weighted(losses.cross_entropy, 2.0)
  with pytest.raises(UserError, match=r'at: .* should be the output'):
    distill.term(losses.hint, teacher='main', at=('a', 'b', 'c'))
  with pytest.raises(UserError, match='should be the name of a group'):
    distill.term(losses.kl, teacher=distill.net(teacher(), EXAMPLE))


def test_a_student_that_is_not_told_that_it_trains_is_told_of():
  class Forgetful(linen.Module):
    @linen.compact
    def __call__(self, x, mode: str = 'eval'):
      x = linen.Dense(3)(x.reshape(len(x), -1))
      return linen.BatchNorm(use_running_average=mode == 'eval', name='norm')(x)

  inputs = jnp.zeros((4, 6))
  terms = {'labels': distill.term('cross_entropy')}
  student = distill.net(Forgetful(), inputs)
  with pytest.warns(UserWarning, match='student: the statistics of norm do'):
    distill.step(student, {}, terms, optax.sgd(0.1))


def test_what_fails_in_training_alone_is_said_to_be_of_the_net():
  class Keyless(nnx.Module):
    def __init__(self, rngs):
      self.drop, self.head = nnx.Dropout(0.5), nnx.Linear(D, K, rngs=rngs)

    def __call__(self, x):
      return self.head(self.drop(x))

  student = distill.net(Keyless(nnx.Rngs(0)), EXAMPLE)
  labels = {'labels': distill.term('cross_entropy')}
  with pytest.raises(UserError, match=r'^student: ValueError: .*no `rngs`'):
    distill.step(student, {}, labels, optax.sgd(0.1))


def test_bytes_are_shown_as_floats_which_is_told_of():
  labels = {'labels': distill.term('cross_entropy')}

  def right(outputs, batch):
    return outputs['logits'].argmax(-1) == batch['labels']

  step = distill.step(
    distill.net(Small(), EXAMPLE),
    {},
    labels,
    optax.sgd(0.0),
    metrics={'top1': right},
  )
  images = np.arange(B * D, dtype=np.uint8).reshape(B, D)
  batch = {'inputs': images, 'labels': np.zeros(B, np.int32)}
  floats = {**batch, 'inputs': images.astype(np.float32) / 255}
  state, expected = step(step.init(seed=0), floats)
  with pytest.warns(
    UserWarning, match=r'hold bytes \(uint8\), .* from 0 to 1;'
  ):
    state, found = step(state, batch)
  np.testing.assert_allclose(found['loss'], expected['loss'], rtol=1e-6)
  with pytest.warns(UserWarning, match='hold bytes'):
    step.evaluate(state, batch)
