import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill.term import Adversary, Arguments, find_loss, knowledge
from jaxkd.errors import UserError


def value(term, context):
  params, state = term.init(jax.random.key(0), context)
  return term.loss(params, state, context)[0]


def test_where_a_loss_gets_its_arguments_from():
  kl = Arguments(losses.kl)
  assert (kl.draws, kl.teacher, kl.fields, kl.coupled) == (
    False,
    True,
    [],
    False,
  )
  assert Arguments(losses.cross_entropy).fields == ['labels']
  assert not Arguments(losses.cross_entropy).teacher
  assert Arguments(losses.decoupled_kl).fields == ['labels']
  assert Arguments(losses.dist).coupled

  def drawn(key, student, teacher, weights):
    return student

  assert Arguments(drawn).draws
  assert Arguments(drawn).fields == ['weights']


def test_labels_come_from_the_batch(context):
  got = value(knowledge(losses.cross_entropy), context)
  want = losses.cross_entropy(
    context.student['logits'], context.batch['labels']
  )
  np.testing.assert_allclose(got, want)


def test_several_teachers_are_the_mean_of_the_losses(context):
  term = knowledge(losses.kl, teachers=('main',), options={'temperature': 3.0})
  each = [
    losses.kl(context.student['logits'], teacher, temperature=3.0)
    for teacher in context.teachers['main']['logits']
  ]
  np.testing.assert_allclose(
    value(term, context), np.mean(each, axis=0), rtol=1e-5
  )


def test_a_loss_may_look_at_all_teachers_at_once(context):
  seen = []

  def loss(student, teachers, labels):
    seen.append([teacher.shape for teacher in teachers])
    return (student - sum(t.mean(1, keepdims=True) for t in teachers)).mean(1)

  logits = context.teachers['main']['logits']
  other = jnp.arange(12.0).reshape(1, 6, 2)
  context = context._replace(
    teachers={**context.teachers, 'other': {'logits': other}}
  )
  got = value(knowledge(loss, teachers=('main', 'other')), context)
  nets = [*logits, *other]
  assert seen == [[net.shape for net in nets]]
  want = loss(context.student['logits'], nets, None)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  with pytest.raises(UserError, match=r'term.fuse_weights: .* all teachers at'):
    knowledge(loss, teachers=('main',), weigh=lambda context: logits)


def test_an_adapter_is_sized_from_both_layers(context):
  term = knowledge(
    losses.hint, location=('map', 'map'), teachers=('main',), adapter='linear'
  )
  params, state = term.init(jax.random.key(0), context)
  assert params['adapter']['kernel'].shape == (2, 5)
  loss, _ = term.loss(params, state, context)
  assert loss.shape == (6,)
  gradient = jax.grad(lambda p: term.loss(p, state, context)[0].sum())(params)
  assert float(jnp.abs(gradient['adapter']['kernel']).sum()) > 0


def test_unequal_layers_are_refused_with_a_remedy(context):
  term = knowledge(
    losses.hint,
    location=('map', 'map'),
    teachers=('main',),
    at='distill.hint',
  )
  with pytest.raises(UserError) as error:
    value(term, context)
  for part in (
    'distill.hint',
    "'map' of the student is float32[6, 8, 8, 2]",
    'float32[6, 4, 4, 5]',
    "distill.hint.adapter='linear'",
  ):
    assert part in str(error.value)


def test_an_adapter_is_not_proposed_where_the_loss_takes_no_such_layers(
  context,
):
  far = {'main': {'far': jnp.zeros((1, 6, 3, 3, 2))}}
  term = knowledge(
    losses.rkd_distance, location=('map', 'far'), teachers=('main',)
  )
  message = r'cannot compare \(student must be .*\); choose other layers'
  with pytest.raises(UserError, match=message):
    value(term, context._replace(teachers=far))


def test_names_that_are_not_there(context):
  with pytest.raises(UserError, match=r"no output 'mpa'.*'map'"):
    value(
      knowledge(losses.hint, location=('mpa', 'map'), teachers=('main',)),
      context,
    )
  with pytest.raises(UserError, match=r"no teacher 'mian'.*'main'"):
    value(knowledge(losses.kl, teachers=('mian',)), context)
  with pytest.raises(UserError, match=r"no loss 'klm'.*'kl'"):
    find_loss('klm', at='distill.soft.loss')
  with pytest.raises(UserError, match=r"temperatur.*'temperature'"):
    knowledge(losses.kl, teachers=('main',), options={'temperatur': 1.0})
  with pytest.raises(UserError, match='compares with a teacher'):
    knowledge(losses.kl)
  with pytest.raises(UserError, match='looks at no teacher'):
    knowledge(losses.cross_entropy, teachers=('main',))


def test_a_masked_mean_is_over_what_counts_in_the_whole_batch(context):
  mask = np.zeros((6, 8), np.float32)
  mask[0], mask[1, :2] = 1, 1
  context = context._replace(batch={**context.batch, 'tokens': mask})

  def per_token(student):
    return student[..., 0, 0] + 0 * student[..., 0].sum(-1)

  got = value(
    knowledge(per_token, location=('map', ''), mask='tokens'), context
  )
  tokens = np.asarray(context.student['map'])[..., 0, 0]
  want = (tokens * mask).sum() / mask.sum()
  np.testing.assert_allclose(got.mean(), want, rtol=1e-5)


@pytest.mark.parametrize('mask', ['labels', 'id'])
def test_numbers_of_examples_are_no_mask(context, mask):
  with pytest.raises(UserError, match=f'term.mask: {mask!r} numbers the exam'):
    value(knowledge(losses.cross_entropy, mask=mask), context)


def test_a_loss_that_is_reduced_over_the_batch_is_refused(context):
  def reduced(student):
    return student.mean(0)

  with pytest.raises(UserError, match='unreduced over the batch'):
    value(knowledge(reduced), context)


CTKD = Adversary('temperature', low=1.0, high=21.0, ramp=10)


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
  term = knowledge(losses.kl, teachers=('main',), adversary=CTKD)
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


def test_an_adversary_is_an_option_of_the_loss():
  with pytest.raises(
    UserError, match=r"^t\.adversary\.option: .*'temperature'"
  ):
    knowledge(
      losses.kl,
      teachers=('main',),
      adversary=CTKD._replace(option='temperatur'),
      at='t',
    )


def test_labels_that_mean_nothing_are_not_learnt(context):
  labels = np.zeros((6, 8), np.int32)
  valid = labels == 0
  batch = {**context.batch, 'labels': labels, 'valid': valid}
  context = context._replace(batch=batch)

  def per_token(student, labels):
    return student[..., 0, 0] * labels

  def term(mask):
    return knowledge(per_token, location=('map', ''), mask=mask, at='distill.x')

  with pytest.raises(UserError, match=r"^distill\.x\.mask: .* write 'valid'"):
    value(term(''), context)
  assert value(term('valid'), context).shape == (6,)


def test_maps_of_other_sizes_are_no_other_classes(context):
  def pixels(student, teacher):
    return (student - teacher).sum(-1)

  student = {**context.student, 'scores': jnp.zeros((6, 2, 2, 3))}
  teachers = {'main': {'logits': jnp.zeros((1, 6, 4, 4, 3))}}
  context = context._replace(student=student, teachers=teachers)
  where = ('scores', 'logits')
  with pytest.raises(UserError, match='choose outputs of one size'):
    value(knowledge(pixels, location=where, teachers=('main',)), context)
