"""Adapters on both sides of a comparison, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill.location import sides
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError

LOGITS, MAPS = ('logits', 'logits'), ('map', 'map')


def value(term, context):
  params, state = term.init(jax.random.key(0), context)
  return term.loss(params, state, context)[0]


@pytest.fixture
def alike(context):
  """Maps of one shape on both sides."""
  student = {**context.student, 'map': context.student['map'][:, :4, :4]}
  teacher = context.teachers['main']
  teacher = {**teacher, 'map': 2 * teacher['map'][..., :2] - 1}
  return context._replace(student=student, teachers={'main': teacher})


def test_all_nets_of_all_groups_share_the_teachers_adapter(context):
  groups = context.teachers | {
    'other': jax.tree.map(lambda x: x[:1] + 1, context.teachers['main'])
  }
  context = context._replace(teachers=groups)
  both = sides(
    LOGITS, ('main', 'other'), teacher_adapter='embed',
    teacher_adapter_kw=dict(width=4),
  )  # fmt: skip
  params, state = both.init(jax.random.key(0), context)
  assert list(params) == ['teacher_adapter']
  assert params['teacher_adapter']['kernel'].shape == (3, 4)
  (student,), compared, _ = both.apply(params, state, context)
  np.testing.assert_array_equal(student, context.student['logits'])
  part = jax.tree.map(np.asarray, params['teacher_adapter'])
  for name, (got,) in zip(('main', 'other'), compared, strict=True):
    y = np.asarray(groups[name]['logits']) @ part['kernel'] + part['bias']
    want = y / np.linalg.norm(y, axis=-1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_the_students_adapter_meets_what_the_teachers_gives(context):
  """The teacher's 80 features become 4, and so do the student's 3."""
  both = sides(
    ('logits', 'map'), ('main',), adapter='linear', teacher_adapter='embed',
    teacher_adapter_kw=dict(width=4),
  )  # fmt: skip
  shapes = jax.eval_shape(lambda: context)
  params, state = both.init(jax.random.key(0), shapes)
  assert params['teacher_adapter']['kernel'].shape == (80, 4)
  assert params['adapter']['kernel'].shape == (3, 4)
  (student,), ((teacher,),), _ = both.apply(params, state, context)
  assert student.shape == (6, 4)
  assert teacher.shape == (2, 6, 4)
  part = jax.tree.map(np.asarray, params['adapter'])
  want = np.asarray(context.student['logits']) @ part['kernel'] + part['bias']
  np.testing.assert_allclose(student, want, rtol=1e-5)


def test_an_adapters_draw_does_not_depend_on_the_other_side(context):
  names = ('adapter', 'teacher_adapter')
  alone = sides(LOGITS, ('main',), adapter='linear')
  both = sides(
    LOGITS, ('main',), adapter='linear', teacher_adapter='standardize_logits'
  )
  one, two = (s.init(jax.random.key(3), context)[0] for s in (alone, both))
  jax.tree.map(np.testing.assert_array_equal, one['adapter'], two['adapter'])
  equal = sides(LOGITS, ('main',), **dict.fromkeys(names, 'linear'))
  drawn, _ = equal.init(jax.random.key(3), context)
  first, second = (drawn[name]['kernel'] for name in names)
  assert first.shape == second.shape
  assert np.abs(first - second).min() > 0


def test_both_adapters_are_trained(context):
  term = make(
    losses.hint, at=('logits', 'map'), teacher=('main',),
    adapter='embed', teacher_adapter='embed',
    teacher_adapter_kw=dict(width=4),
  )  # fmt: skip
  params, state = term.init(jax.random.key(0), context)

  def loss(params):
    return term.loss(params, state, context)[0].mean()

  for leaf in jax.tree.leaves(jax.grad(loss)(params)):
    assert np.abs(leaf).max() > 1e-4


def test_the_margin_is_the_mean_of_what_is_negative(alike):
  """As the paper defines it, of a normal's batch mean and deviation."""
  term = make(
    losses.overhaul, at=MAPS, teacher=('main',), teacher_adapter='margin'
  )
  student = np.asarray(alike.student['map'])
  random = np.random.default_rng(0)
  each = []
  for teacher in np.asarray(alike.teachers['main']['map']):
    mean, deviation = teacher.mean((0, 1, 2)), teacher.std((0, 1, 2))
    drawn = mean + deviation * random.normal(size=(400_000, 2))
    margin = [np.mean(x[x < 0]) for x in drawn.T]
    target = np.maximum(teacher, margin)
    counts = (student > target) | (target > 0)
    each.append((counts * np.square(student - target)).sum((1, 2, 3)))
  assert np.abs(each[0] - each[1]).max() > 1
  np.testing.assert_allclose(value(term, alike), np.mean(each, 0), rtol=2e-3)


def test_standardised_on_both_sides_only_the_shape_of_logits_counts(context):
  term = make(
    losses.kl,
    teacher=('main',),
    adapter='standardize_logits',
    teacher_adapter='standardize_logits',
    kw=dict(temperature=2.0),
  )

  def log_softened(logits):
    z = np.asarray(logits, np.float64)
    z = (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True, ddof=1) / 2
    return z - np.log(np.exp(z).sum(-1, keepdims=True))

  p = log_softened(context.teachers['main']['logits'])
  q = log_softened(context.student['logits'])
  want = 4 * (np.exp(p) * (p - q)).sum(-1).mean(0)
  got = value(term, context)
  np.testing.assert_allclose(got, want, rtol=1e-4)
  logits = 5 * context.student['logits'] - 3
  moved = context._replace(student={**context.student, 'logits': logits})
  np.testing.assert_allclose(value(term, moved), got, rtol=1e-4)


def test_features_are_standardised_for_each_net_over_its_batch(context):
  both = sides(MAPS, ('main',), teacher_adapter='standardize_features')
  params, state = both.init(jax.random.key(0), context)
  assert params == state == {} or not jax.tree.leaves((params, state))
  _, ((got,),), _ = both.apply(params, state, context)
  x = np.asarray(context.teachers['main']['map'])
  axes = (1, 2, 3)
  mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
  want = (x - mean) / np.sqrt(variance + 1e-4)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(adapter_kw=dict(width=3)), 'adapter_kw: name the adapter in t.adap'),
    (
      dict(teacher_adapter_kw=dict(width=3)),
      'teacher_adapter_kw: name the adapter in t.teacher_adapter',
    ),
    (
      dict(teacher_adapter='embed', teacher_adapter_kw=dict(widht=3)),
      "teacher_adapter_kw: .*'widht'.*'width'",
    ),
    (
      dict(adapter='linear', adapter_kw=dict(width=3)),
      "adapter_kw: there is no option of linear 'width'",
    ),
    (dict(teacher_adapter='embd'), "teacher_adapter: .*'embd'.*'embed'"),
  ],
)
def test_options_of_adapters_that_are_refused(given, message):
  with pytest.raises(UserError, match=rf'^t\.{message}'):
    sides(LOGITS, ('main',), **given, entry='t')


@pytest.mark.parametrize('side', ['adapter', 'teacher_adapter'])
def test_without_a_teacher_nothing_is_adapted(side):
  with pytest.raises(UserError, match=rf'^t\.{side}: there is no teacher'):
    sides(LOGITS, (), **{side: 'linear'}, entry='t')


def test_shapes_that_cannot_be_adapted_are_put_down_to_their_side(context):
  both = sides(('logits', 'map'), ('main',), adapter='linear', entry='t')
  with pytest.raises(UserError, match=r'^t\.adapter: .*\[B, 4, 4, 5\]'):
    both.init(jax.random.key(0), context)
  both = sides(LOGITS, ('main',), teacher_adapter='conv3x3', entry='t')
  with pytest.raises(UserError, match=r'^t\.teacher_adapter: .*\[B, 3\]'):
    both.init(jax.random.key(0), jax.eval_shape(lambda: context))


def test_what_an_adapter_gives_besides_stands_for_fields_of_the_batch(alike):
  """Without the margin the loss would look for it in the batch."""
  term = make(losses.overhaul, at=MAPS, teacher=('main',))
  with pytest.raises(UserError, match="no field of the batch 'margin'"):
    value(term, alike)
  margin = jnp.full((2,), -0.5)
  batch = {**alike.batch, 'margin': margin}
  got = value(term, alike._replace(batch=batch))
  assert np.isfinite(got).all()
