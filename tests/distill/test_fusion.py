import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses
from jaxkd.distill import fusion, transfer
from jaxkd.distill.roles import Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.models import cost
from jaxkd.run import config, terms
from jaxkd.types import Term

LABELS = dict(loss='cross_entropy')
SOFT = dict(loss='kl', teacher='main', kw=dict(temperature=2.0))


def entries(distill, count=1):
  made = config.complete(
    {'teachers': {'main': {}, 'other': {}},
     'students': {'student': dict(count=count)}, 'distill': distill}
  )  # fmt: skip
  return config.plain(made)['distill']


def value(context, **soft):
  """The term `soft`, with labels beside it for what it may need of them."""
  distill = entries(dict(labels=LABELS | dict(weight=0.0), soft=SOFT | soft))
  term = terms.build(distill, ['student'])['soft']
  params, state = term.init(jax.random.key(0), context)
  return term.loss(params, state, context)[0]


def both(context):
  """The student's and the two teachers' logits, and the losses to these."""
  student = context.student['logits']
  teachers = context.teachers['main']['logits']
  each = [losses.kl(student, one, temperature=2.0) for one in teachers]
  return student, teachers, np.stack(each)


def to_target(student, probabilities):
  return losses.kl(student, 2 * jnp.log(probabilities), temperature=2.0)


def test_each_example_has_weights_of_its_own(context):
  student, teachers, each = both(context)
  weights = losses.confidence_weights(teachers, context.batch['labels'])
  p = losses.mean_probabilities(teachers, temperature=2.0, weights=weights)
  got = value(context, fuse='mean_probabilities', fuse_weights='confidence')
  np.testing.assert_allclose(got, to_target(student, p), rtol=1e-4)
  assert np.abs(got - value(context, fuse='mean_probabilities')).max() > 1e-3
  # Without a fusion, what is weighed are the losses.
  got = value(context, fuse_weights='confidence')
  np.testing.assert_allclose(got, (weights.T * each).sum(0), rtol=1e-4)
  got = value(context, fuse='mean_logits', fuse_weights='confidence')
  want = losses.mean_logits(teachers, weights=weights)
  want = losses.kl(student, want, temperature=2.0)
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_weights_of_validation_come_with_the_teachers(context):
  student, teachers, each = both(context)
  given = {'weight': jnp.tile(jnp.array([[0.9], [0.1]]), (1, 6))}
  them = context.teachers | {'validation of main': given}
  context = context._replace(teachers=them)
  weights = jnp.array([0.9, 0.1])
  p = losses.mean_probabilities(teachers, temperature=2.0, weights=weights)
  got = value(context, fuse='mean_probabilities', fuse_weights='validation')
  np.testing.assert_allclose(got, to_target(student, p), rtol=1e-4)
  got = value(context, fuse_weights='validation')
  np.testing.assert_allclose(got, 0.9 * each[0] + 0.1 * each[1], rtol=1e-4)


def first_alone(teachers):
  return jnp.array([1.0, 0.0])


def too_many(teachers, labels):
  return jnp.ones((3,))


def test_your_own_weights(context):
  _, _, each = both(context)
  got = value(context, fuse_weights=f'{__name__}:first_alone')
  np.testing.assert_allclose(got, each[0], rtol=1e-5)
  with pytest.raises(UserError, match=r'soft\.fuse_weights: .* shape \[3\]'):
    value(context, fuse_weights=f'{__name__}:too_many')


@pytest.mark.parametrize('weights', ['', 'confidence', 'router'])
def test_conditions_look_at_the_fused_teacher(context, weights):
  student, teachers, _ = both(context)
  labels = context.batch['labels']
  options = {}
  if weights == 'confidence':
    options = dict(weights=losses.confidence_weights(teachers, labels))
  p = losses.mean_probabilities(teachers, temperature=2.0, **options)
  right = np.asarray(p).argmax(-1) == labels
  assert 0 < right.sum() < 6
  hard = losses.cross_entropy(student, labels)
  want = np.where(right, to_target(student, p), hard)
  sure = losses.teacher_confidence(2 * jnp.log(p))
  got = value(
    context,
    fuse='mean_probabilities',
    fuse_weights=weights,
    when='teacher_is_correct',
    otherwise='labels',
    example_weight='teacher_confidence',
  )
  np.testing.assert_allclose(got, want * sure, rtol=1e-4)


@pytest.mark.parametrize(
  ('entry', 'said'),
  [
    (dict(fuse='mean_probabilities'), r'fuse: mean_probabilities takes a soft'),
    (dict(fuse='geometric_mean'), r"fuse: .*; set fuse='mean_logits'"),
    (dict(fuse='majority_vote'), r'fuse: majority_vote takes a softmax'),
    (dict(fuse='jaxkd.losses:mean_probabilities'), r'fuse: mean_probabilities'),
    (dict(fuse_weights='confidence'), r'fuse_weights: confidence takes a soft'),
    (dict(fuse='mean', fuse_weights='router'), r'fuse_weights: router takes a'),
  ],
)
def test_classes_with_a_sigmoid_each_are_not_fused_by_a_softmax(
  context, entry, said
):
  with pytest.raises(UserError, match=rf'^distill\.soft\.{said}'):
    value(context, loss='binary_kl', **entry)


def test_logits_of_sigmoids_may_be_averaged(context):
  student, teachers, _ = both(context)
  got = value(context, loss='binary_kl', fuse='mean_logits')
  want = losses.binary_kl(student, teachers.mean(0), temperature=2.0)
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
  ('entry', 'said'),
  [
    (dict(fuse_weights='confidnce'), r"soft\.fuse_weights: .*'confidence'.*"
     r'known: confidence, router, validation'),
    (dict(fuse='sampeld'), r"soft\.fuse: .*'sampled'.*round_robin, sampled"),
    (dict(teacher='', loss='cross_entropy', fuse_weights='confidence'),
     r'soft\.fuse_weights: name the groups in distill\.soft\.teacher'),
    (dict(teacher='student', fuse_weights='validation'),
     r'soft\.fuse_weights: student trains'),
    (dict(teacher='average', fuse_weights='validation'),
     r'soft\.fuse_weights: average trains'),
    (dict(fuse='majority_vote', fuse_weights='confidence'),
     r'soft\.fuse_weights: majority_vote takes no weights'),
    (dict(fuse='sampled', fuse_weights='confidence'),
     r'soft\.fuse_weights: sampled draws one teacher'),
    (dict(fuse_weights='router'), r'soft\.fuse_weights: .* set distill\.soft'),
    (dict(teacher='one', fuse_weights='confidence'),
     r'soft\.fuse_weights: one is one teacher'),
    (dict(teacher='one', fuse='mean_logits', fuse_weights='router'),
     r'soft\.fuse_weights: one is one teacher'),
    (dict(teacher='one', fuse_weights='validation'),
     r'soft\.fuse_weights: one is one teacher'),
    (dict(fuse_weights='validation'), r'soft\.fuse_weights: .*read no other'),
    (dict(teacher=('main', 'wide'), fuse='mean_logits'),
     r'soft\.teacher: main gives logits \[6, 3\] and wide \[6, 5\]'),
    (dict(teacher=('main', 'blind'), fuse='mean_logits'),
     r"soft\.teacher: blind: there is no output 'logits'"),
  ],
)  # fmt: skip
def test_what_does_not_go_together(context, entry, said):
  main = context.teachers['main']
  more = {
    'one': jax.tree.map(lambda x: x[:1], main),
    'wide': {'logits': jnp.zeros((1, 6, 5))},
    'blind': {'map': main['map']},
  }
  context = context._replace(teachers=context.teachers | more)
  with pytest.raises(UserError, match=rf'^distill\.{said}'):
    value(context, **entry)


def learned(make_net, batch, distill, count=4, copies=1, optimizer=None):
  """A learner with a frozen group `main` of some nets, and its first carry."""
  students = {'student': Role(make_net(), copies=copies)}
  complete = entries(distill)
  made = learner(
    System(
      students,
      {'main': Role(make_net())},
      lambda hyper: Recipe(
        terms.build(complete, ['student']), optimizer or optax.sgd(0.1)
      ),
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
    )
  )
  keys = jax.random.split(jax.random.key(9), count)
  frozen = {'main': jax.vmap(make_net().init)(keys)}
  return made, made.init(jnp.uint32(3), {}, frozen), frozen


def to_each(carry, frozen, batch, **kw):
  """The student's loss to each teacher of the group."""
  x = batch['inputs']
  student = x @ carry['train']['nets']['student']['w']
  return [
    losses.kl(student, x @ w, **kw).mean()
    for w in frozen['main']['params']['w']
  ]


@pytest.mark.parametrize('shared', [False, True])
def test_one_teacher_is_drawn_for_each_step(make_net, batch, shared):
  """Also where another term makes the step run all of them."""
  soft = dict(loss='kl', teacher='main')
  distill = dict(soft=dict(**soft, fuse='sampled'), more=LABELS)
  if shared:
    distill['more'] = dict(**soft, fuse='mean_probabilities')
  made, carry, frozen = learned(make_net, batch, distill)
  run, taken = jax.jit(made.step), []
  for number in range(12):
    each = to_each(carry, frozen, batch)
    key = fold(jax.random.key(3), 'step', number, 'draw', 'sampled of main')
    index = int(jax.random.randint(key, (), 0, 4))
    carry, measured = run(carry, batch, frozen, {})
    np.testing.assert_allclose(measured['loss/soft'][0], each[index], rtol=1e-3)
    taken.append(index)
  assert set(taken) == {0, 1, 2, 3}


def test_one_teacher_after_another(make_net, batch):
  distill = dict(soft=dict(loss='kl', teacher='main', fuse='round_robin'))
  made, carry, frozen = learned(make_net, batch, distill, count=3)
  run = jax.jit(made.step)
  for number in range(4):
    each = to_each(carry, frozen, batch)
    carry, measured = run(carry, batch, frozen, {})
    np.testing.assert_allclose(
      measured['loss/soft'][0], each[number % 3], rtol=1e-3
    )


def flops(make_net, batch, count, fuse):
  distill = dict(soft=dict(loss='kl', teacher='main', fuse=fuse))
  wide = lambda: make_net(200)  # noqa: E731
  made, carry, frozen = learned(wide, batch, distill, count=count)
  return cost.flops(made.step, carry, batch, frozen, {})


def test_who_is_drawn_costs_one_teacher(make_net, batch):
  one = flops(make_net, batch, 1, '')
  per_teacher = 2 * 6 * 4 * 200
  for how in fusion.DRAWS:
    assert flops(make_net, batch, 8, how) < one + 0.5 * per_teacher
  assert flops(make_net, batch, 8, 'mean_logits') > one + 6.5 * per_teacher


def test_of_several_groups_one_net_is_drawn(context):
  """Layers that all have alike come with it, and others do not."""
  main = context.teachers['main']
  other = {'logits': 2 * main['logits'][:1], 'map': main['map'][:1, :, :2]}
  them = {'main': main, 'other': other}
  draw = fusion.Draw('round_robin', ('main', 'other'), 'distill.soft')
  for number, want in enumerate((*main['logits'], *other['logits'])):
    found = draw.pick(them, jnp.uint32(0), jnp.asarray(number, jnp.int32))
    assert set(found) == {'logits'}
    np.testing.assert_array_equal(found['logits'][0], want)


def test_a_layer_of_the_drawn_teacher_can_be_looked_at(make_net, batch):
  hint = dict(
    loss='hint', at=('features', 'features'), teacher='main', fuse='sampled'
  )
  made, carry, frozen = learned(make_net, batch, dict(hint=hint))
  assert np.isfinite(made.step(carry, batch, frozen, {})[1]['loss'][0])


@pytest.mark.parametrize('fuse', ['mean_probabilities', 'sampled'])
def test_peers_are_fused_or_drawn(make_net, batch, fuse):
  peers = dict(loss='kl', teacher='student', fuse=fuse)
  made, carry, _ = learned(make_net, batch, dict(peers=peers), copies=3)
  _, measured = made.step(carry, batch, {}, {})
  logits = [
    batch['inputs'] @ carry['train']['nets'][f'student/{i}']['w']
    for i in range(3)
  ]
  for i in range(3):
    others = jnp.stack([logits[j] for j in range(3) if j != i])
    if fuse == 'sampled':
      key = fold(jax.random.key(3), 'step', 0, 'draw', 'sampled of student')
      target = others[jax.random.randint(key, (), 0, 2)]
    else:
      target = jnp.log(losses.mean_probabilities(others))
    want = losses.kl(logits[i], target).mean()
    np.testing.assert_allclose(
      measured[f'loss/peers/student/{i}'][0], want, rtol=1e-4
    )


@pytest.mark.parametrize('teacher', ['main', 'student'])
def test_of_one_teacher_none_is_drawn(make_net, batch, teacher):
  soft = dict(loss='kl', teacher=teacher, fuse='sampled')
  with pytest.raises(UserError, match=rf'soft\.fuse: {teacher} has a single'):
    learned(make_net, batch, dict(soft=soft), count=1, copies=2)


def test_parts_of_a_batch_have_the_same_teacher(make_net, batch):
  distill = entries(dict(soft=dict(loss='kl', teacher='main', fuse='sampled')))
  found = []
  for parts in (1, 3):
    made = learner(
      System(
        {'student': Role(make_net())},
        {'main': Role(make_net())},
        lambda hyper, parts=parts: Recipe(
          terms.build(distill, ['student']), optax.sgd(0.1), parts
        ),
        batch,
      )
    )
    keys = jax.random.split(jax.random.key(9), 4)
    frozen = {'main': jax.vmap(make_net().init)(keys)}
    carry = made.init(jnp.uint32(3), {}, frozen)
    found.append(made.step(carry, batch, frozen, {})[1]['loss'][0])
  np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize('fuse', ['majority_vote', 'mean_probabilities'])
def test_no_fusion_makes_numbers_of_what_is_none(fuse):
  """And a class that no teacher has is one that the fusion does not have."""
  fused = fusion._as_logits(
    getattr(losses, fuse), fuse != 'majority_vote', 'distill.soft'
  )
  logits = np.zeros((3, 4, 5), np.float32)
  logits[0, 1] = np.nan
  logits[..., 2] = -np.inf
  found = np.asarray(fused(jnp.asarray(logits), None, 2.0))
  assert np.isnan(np.delete(found[1], 2)).all()
  assert np.isneginf(found[[0, 2, 3], 2]).all()
  assert np.isfinite(np.delete(found[[0, 2, 3]], 2, axis=1)).all()


def hint(**options):
  return make(losses.hint, teacher='main', at='map', **options)


def of(term, context):
  return term.loss(*term.init(jax.random.key(0), context), context)[0]


def test_any_output_can_be_fused(context):
  """By the plain mean, or by a function; with weights of each example."""
  teachers = context.teachers['main']
  maps = teachers['map']
  context = context._replace(student={**context.student, 'map': maps[0] / 2})
  weights = losses.confidence_weights(
    teachers['logits'], context.batch['labels']
  )
  by_hand = jnp.einsum('bt,tbhwc->bhwc', weights, maps)
  for how, options, target in (
    ('mean', {}, maps.mean(0)),
    ('mean', dict(weights='confidence'), by_hand),
    (lambda teachers: teachers.max(0), {}, maps.max(0)),
  ):
    one = fusion.fused(hint(), how, **options)
    want = losses.hint(maps[0] / 2, target)
    np.testing.assert_allclose(of(one, context), want, rtol=1e-5)
    assert one.teachers == ('main',)
  assert one.layers == ({'map'}, {'map'})
  got = of(fusion.fused(hint(), 'mean', weights='router'), context)
  np.testing.assert_allclose(
    got, losses.hint(maps[0] / 2, maps.mean(0)), rtol=1e-4
  )


def test_probabilities_are_of_what_has_classes(context):
  one = fusion.fused(hint(), 'mean_probabilities', entry='distill.hint')
  with pytest.raises(
    UserError, match=r"^distill\.hint\.fuse: .*map \[4, 4, 5\] .*fuse='mean'"
  ):
    of(one, context)
  scores = jax.random.normal(jax.random.key(5), (2, 6, 4, 4, 3))
  main = {**context.teachers['main'], 'map': scores}
  context = context._replace(
    teachers={'main': main}, student={'map': scores[0] / 2}
  )
  weights = losses.confidence_weights(main['logits'], context.batch['labels'])
  p = jnp.einsum('bt,tbhwc->bhwc', weights, jax.nn.softmax(scores))
  one = make(losses.kl, teacher='main', at='map', mask='all')
  one = fusion.fused(one, 'mean_probabilities', weights='confidence')
  want = losses.kl(scores[0] / 2, jnp.log(p)).mean((1, 2))
  np.testing.assert_allclose(of(one, context), want, rtol=1e-4)


def test_of_several_groups_one_stands_in_for_all(context):
  """For a loss, a condition, and for a term of one's own that sees both."""
  logits = context.teachers['main']['logits']
  them = {'a': {'logits': logits[:1]}, 'b': {'logits': logits[1:]}}
  context = context._replace(teachers=them)
  soft = make('kl', teacher=('a', 'b'), temperature=2.0)
  labels = make('cross_entropy')
  p = losses.mean_probabilities(logits, temperature=2.0)
  want = to_target(context.student['logits'], p)
  one = fusion.fused(soft, losses.mean_probabilities)
  np.testing.assert_allclose(of(one, context), want, rtol=1e-4)
  both = transfer.conditional('teacher_is_correct', soft, labels)
  both = fusion.fused(both, 'mean_probabilities')
  right = np.asarray(p).argmax(-1) == context.batch['labels']
  want = np.where(right, want, of(labels, context))
  np.testing.assert_allclose(of(both, context), want, rtol=1e-4)
  seen = []

  def own(params, state, context):
    seen.append(jax.tree.map(jnp.shape, context.teachers))
    return context.student['logits'].sum(-1), state

  term = Term(lambda key, context: ({}, {}), own, teachers=('a', 'b'))
  of(fusion.fused(term, 'mean_logits'), context)
  assert seen == [{'a': {'logits': (1, 6, 3)}, 'b': {}}]


def test_losses_to_several_teachers_are_weighed_without_a_fusion(context):
  _, teachers, each = both(context)
  weights = losses.confidence_weights(teachers, context.batch['labels'])
  one = make('kl', teacher='main', temperature=2.0, fuse_weights='confidence')
  want = (weights.T * each).sum(0)
  np.testing.assert_allclose(of(one, context), want, rtol=1e-4)


@pytest.mark.parametrize('weights', ['', 'confidence', 'router'])
def test_parameters_begin_before_any_labels_are_seen(context, weights):
  """A loop of one's own has no batch yet when its state begins."""
  made = fusion.fused(hint(adapter='linear'), 'mean', weights=weights)
  shapes = jax.eval_shape(lambda: context._replace(batch={}))
  params, _ = made.init(jax.random.key(0), shapes)
  found = params['term'] if weights == 'router' else params
  assert found['adapter']['kernel'].shape == (2, 5)
