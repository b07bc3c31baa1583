import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill import adapters
from jaxkd.distill.arguments import find_loss
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError


def value(term, context):
  params, state = term.init(jax.random.key(0), context)
  return term.loss(params, state, context)[0]


def test_labels_come_from_the_batch(context):
  got = value(make(losses.cross_entropy), context)
  want = losses.cross_entropy(
    context.student['logits'], context.batch['labels']
  )
  np.testing.assert_allclose(got, want)


def test_several_teachers_are_the_mean_of_the_losses(context):
  term = make(losses.kl, teacher=('main',), kw={'temperature': 3.0})
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
  got = value(make(loss, teacher=('main', 'other')), context)
  nets = [*logits, *other]
  assert seen == [[net.shape for net in nets]]
  want = loss(context.student['logits'], nets, None)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  with pytest.raises(UserError, match=r'term.fuse_weights: .* all teachers at'):
    make(loss, teacher=('main',), fuse_weights='confidence')


def test_an_adapter_is_sized_from_both_layers(context):
  term = make(
    losses.hint, at=('map', 'map'), teacher=('main',), adapter='linear'
  )
  params, state = term.init(jax.random.key(0), context)
  assert params['adapter']['kernel'].shape == (2, 5)
  loss, _ = term.loss(params, state, context)
  assert loss.shape == (6,)
  gradient = jax.grad(lambda p: term.loss(p, state, context)[0].sum())(params)
  assert float(jnp.abs(gradient['adapter']['kernel']).sum()) > 0


def test_unequal_layers_are_refused_with_a_remedy(context):
  term = make(
    losses.hint,
    at=('map', 'map'),
    teacher=('main',),
    entry='distill.hint',
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
  term = make(losses.rkd_distance, at=('map', 'far'), teacher=('main',))
  message = r'cannot compare \(student must be .*\); choose other layers'
  with pytest.raises(UserError, match=message):
    value(term, context._replace(teachers=far))


def test_names_that_are_not_there(context):
  with pytest.raises(UserError, match=r"no output 'mpa'.*'map'"):
    value(
      make(losses.hint, at=('mpa', 'map'), teacher=('main',)),
      context,
    )
  with pytest.raises(UserError, match=r"no teacher 'mian'.*'main'"):
    value(make(losses.kl, teacher=('mian',)), context)
  with pytest.raises(UserError, match=r"no loss 'klm'.*'kl'"):
    find_loss('klm', at='distill.soft.loss')
  with pytest.raises(UserError, match=r"temperatur.*'temperature'"):
    make(losses.kl, teacher=('main',), kw={'temperatur': 1.0})
  with pytest.raises(UserError, match='compares with a teacher'):
    make(losses.kl)
  with pytest.raises(UserError, match='looks at no teacher'):
    make(losses.cross_entropy, teacher=('main',))


def test_a_masked_mean_is_over_what_counts_in_the_whole_batch(context):
  mask = np.zeros((6, 8), np.float32)
  mask[0], mask[1, :2] = 1, 1
  context = context._replace(batch={**context.batch, 'tokens': mask})

  def per_token(student):
    return student[..., 0, 0] + 0 * student[..., 0].sum(-1)

  got = value(make(per_token, at=('map', ''), mask='tokens'), context)
  tokens = np.asarray(context.student['map'])[..., 0, 0]
  want = (tokens * mask).sum() / mask.sum()
  np.testing.assert_allclose(got.mean(), want, rtol=1e-5)


@pytest.mark.parametrize('mask', ['labels', 'id'])
def test_numbers_of_examples_are_no_mask(context, mask):
  with pytest.raises(UserError, match=f'term.mask: {mask!r} numbers the exam'):
    value(make(losses.cross_entropy, mask=mask), context)


def test_a_loss_that_is_reduced_over_the_batch_is_refused(context):
  def reduced(student):
    return student.mean(0)

  with pytest.raises(UserError, match='return one value per example'):
    value(make(reduced), context)


def test_labels_that_mean_nothing_are_not_learnt(context):
  labels = np.zeros((6, 8), np.int32)
  valid = labels == 0
  batch = {**context.batch, 'labels': labels, 'valid': valid}
  context = context._replace(batch=batch)

  def per_token(student, labels):
    return student[..., 0, 0] * labels

  def term(mask):
    return make(per_token, at=('map', ''), mask=mask, entry='distill.x')

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
    value(make(pixels, at=where, teacher=('main',)), context)


def test_functions_and_their_names_are_the_same(context):
  by_name = make(
    'hint', teacher='main', at='map', adapter='linear', weight=0.5, of='small'
  )
  ours = make(
    losses.hint, teacher=('main',), at=('map', 'map'), adapter=adapters.linear,
    weight=0.5,
  )  # fmt: skip
  np.testing.assert_array_equal(value(by_name, context), value(ours, context))
  assert (by_name.of, by_name.teachers) == ('small', ('main',))
  assert by_name.layers == ({'map'}, {'map'})
  given = make(losses.kl, teacher='main', temperature=3.0)
  told = make(losses.kl, teacher='main', kw=dict(temperature=3.0))
  np.testing.assert_array_equal(value(given, context), value(told, context))
  assert given.temperature == 3.0 and by_name.temperature == 1.0


def test_arguments_whose_names_tell_nothing(context):
  """In the middle, by keyword, of the student, the batch and each teacher."""

  def loss(key, logits, soft, weight, labels, *, maps, scale=1.0):
    assert maps.shape == (6, 4, 4, 5) and key.shape == ()
    picked = jnp.take_along_axis(logits - soft, labels[:, None], 1)[:, 0]
    return scale * weight * picked + maps.mean((1, 2, 3))

  inputs = dict(
    soft='teacher.logits', maps='teacher.map', weight='batch.amount',
    labels='batch.labels',
  )  # fmt: skip
  amount = jnp.arange(6.0)
  context = context._replace(batch={**context.batch, 'amount': amount})
  term = make(loss, teacher='main', inputs=inputs, scale=2.0)
  main = context.teachers['main']
  student, rows = context.student['logits'], np.arange(6)
  labels = context.batch['labels']
  want = [
    2 * amount * (student - soft)[rows, labels] + maps.mean((1, 2, 3))
    for soft, maps in zip(main['logits'], main['map'], strict=True)
  ]
  np.testing.assert_allclose(
    value(term, context), np.mean(want, axis=0), rtol=1e-4
  )
  assert term.layers == ({'logits'}, {'logits', 'map'})


@pytest.mark.parametrize(
  ('inputs', 'message'),
  [
    (dict(student='student.mpa'), r"^t\.inputs\.student: .*'mpa'.*'map'"),
    (dict(teacher='teacher.mpa'), r"^t\.inputs\.teacher: .*'mpa'.*'map'"),
    (dict(teacher='batch.lables'), r"^t\.inputs\.teacher: .*'labels'"),
  ],
)
def test_places_that_are_not_there(context, inputs, message):
  teacher = '' if 'batch' in str(inputs) else 'main'
  term = make(losses.kl, teacher=teacher, inputs=inputs, entry='t')
  with pytest.raises(UserError, match=message):
    value(term, context)


def test_what_counts_is_all_that_named_inputs_show(context):
  def loss(logits, soft):
    return jnp.square(logits - soft).sum(-1)

  counts = np.arange(6) < 4
  main = context.teachers['main']['logits'].at[:, 4:].set(jnp.nan)
  context = context._replace(
    batch={**context.batch, 'seen': counts}, teachers={'main': {'soft': main}}
  )
  term = make(
    loss, teacher='main', inputs=dict(soft='teacher.soft'), mask='seen'
  )
  params, state = {}, {}

  def mean(logits):
    own = context._replace(student={'logits': logits})
    return term.loss(params, state, own)[0].mean()

  found, slope = jax.value_and_grad(mean)(context.student['logits'])
  each = [loss(context.student['logits'], one)[:4] for one in main]
  np.testing.assert_allclose(found, np.mean(each), rtol=1e-5)
  assert np.isfinite(slope).all() and not slope[4:].any()
