import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses
from jaxkd.distill import transfer
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError
from jaxkd.run import config, terms


def entries(**terms_given):
  made = config.complete(
    {'teachers': {'main': {}}, 'students': {'student': {}},
     'distill': terms_given}
  )  # fmt: skip
  return config.plain(made)['distill']


def value(term, context):
  params, state = term.init(jax.random.key(0), context)
  return term.loss(params, state, context)[0]


def test_weights_multiply(context):
  plain = make(losses.cross_entropy)
  half = transfer.weighted(plain, 0.5)
  np.testing.assert_allclose(value(half, context), value(plain, context) / 2)
  ramp = transfer.weighted(plain, lambda context: context.step + 1.0)
  later = context._replace(step=jnp.asarray(3, jnp.int32))
  np.testing.assert_allclose(value(ramp, later), 4 * value(plain, context))


def test_a_weight_of_0_leaves_out_what_is_infinite(context):
  student = context.student['logits'].at[0, 0].set(-jnp.inf)
  context = context._replace(student={'logits': student})
  plain = make(losses.kl, teacher=('main',))
  assert np.isposinf(value(plain, context)[0])
  for weight in 0.0, jnp.float32(0), lambda context: 0.0 * context.step:
    assert not value(transfer.weighted(plain, weight), context).any()
  some = jnp.arange(6.0)  # of examples
  found = value(transfer.weighted(plain, lambda context: some), context)
  assert found[0] == 0 and (found[1:] > 0).all()


def test_a_condition_leaves_out_what_is_not_a_number(context):
  """Of the other branch; which of them counts is told by a teacher."""
  nothing = make(lambda student: student[:, 0] * jnp.nan)
  plain = make(losses.cross_entropy)
  picked = transfer.conditional(
    lambda context: context.batch['labels'] == 7, nothing, plain
  )
  np.testing.assert_array_equal(value(picked, context), value(plain, context))


def test_fused_teachers_are_one(context):
  built = terms.build(
    entries(
      soft=dict(
        loss='kl', teacher='main', fuse='mean_probabilities',
        kw=dict(temperature=2.0),
      )
    ),
    ['student'],
  )  # fmt: skip
  got = value(built['soft'], context)
  p = np.mean(jax.nn.softmax(context.teachers['main']['logits'] / 2), axis=0)
  log_q = jax.nn.log_softmax(context.student['logits'] / 2)
  want = 4 * (p * (np.log(p) - log_q)).sum(-1)
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_conditional_takes_the_labels_where_the_teacher_is_wrong(context):
  one = {'main': jax.tree.map(lambda x: x[:1], context.teachers['main'])}
  context = context._replace(teachers=one)
  built = terms.build(
    entries(
      labels=dict(loss='cross_entropy', weight=0.0),
      soft=dict(
        loss='kl', teacher='main', when='teacher_is_correct',
        otherwise='labels',
      ),
    ),
    ['student'],
  )  # fmt: skip
  assert list(built) == ['soft']
  got = value(built['soft'], context)
  teacher, labels = one['main']['logits'][0], context.batch['labels']
  right = np.asarray(teacher).argmax(-1) == labels
  assert 0 < right.sum() < 6
  student = context.student['logits']
  want = np.where(
    right, losses.kl(student, teacher), losses.cross_entropy(student, labels)
  )
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_schedule_multiplies_the_weight(context):
  built = terms.build(
    entries(
      labels=dict(
        loss='cross_entropy',
        weight=2.0,
        schedule=dict(
          name='linear_schedule',
          kw=dict(init_value=1.0, end_value=0.0, transition_steps=10),
        ),
      )
    ),
    ['student'],
  )
  term = built['labels']
  later = context._replace(step=jnp.asarray(5, jnp.int32))
  np.testing.assert_allclose(
    value(term, later), value(term, context) / 2, rtol=1e-5
  )


@pytest.mark.parametrize('name', ['linear', 'optax:linear_schedule'])
def test_a_schedule_by_a_short_name_or_of_ones_own(context, name):
  kw = dict(init_value=1.0, end_value=0.0, transition_steps=10)
  entry = dict(loss='cross_entropy', schedule=dict(name=name, kw=kw))
  term = terms.build(entries(labels=entry), ['student'])['labels']
  later = context._replace(step=jnp.asarray(5, jnp.int32))
  np.testing.assert_allclose(
    value(term, later), value(term, context) / 2, rtol=1e-5
  )


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    (dict(when='teacher_is_corect', otherwise='labels'), 'teacher_is_correct'),
    (dict(when='teacher_is_correct', otherwise='lables'), "'labels'"),
    (dict(otherwise='labels'), 'set distill.soft.when'),
    (dict(schedule=dict(name='liner')), "'linear_schedule'"),
    (dict(schedule=dict(name='linear')), r'schedule\.kw: .*init_value'),
    (dict(fuse='mean_probability'), "'mean_probabilities'"),
    (dict(adapter='liner'), "'linear'"),
    (dict(of='studnet'), "'student'"),
  ],
)
def test_entries_that_name_nothing(entry, message):
  with pytest.raises(UserError, match=message):
    terms.build(
      entries(
        labels=dict(loss='cross_entropy'),
        soft=dict(loss='kl', teacher='main', **entry),
      ),
      ['student'],
    )


def test_a_term_of_several_roles_must_say_which():
  with pytest.raises(UserError, match=r'distill.labels.of: several nets'):
    terms.build(entries(labels=dict(loss='cross_entropy')), ['a', 'b'])


def test_a_traced_weight_is_never_dropped():
  given = entries(labels=dict(loss='cross_entropy', weight=0.0))
  assert terms.build(given, ['student']) == {}
  mapped = config.put(given, 'labels.weight', jnp.zeros(()))
  assert list(terms.build(mapped, ['student'])) == ['labels']


def test_what_wraps_terms_looks_at_what_they_do(context):
  """So that a step knows of each term what to run and to tap."""
  hint = make(
    losses.hint,
    teacher=('main',),
    at=('map', ('map', 'embedding')),
    adapter='linear',
  )._replace(of='student')
  labels = make(losses.cross_entropy)
  assert labels.layers == ({'logits'}, set())
  both = transfer.conditional(lambda context: True, labels, hint)
  both = transfer.weighted(both, 0.5)
  assert (both.of, both.teachers) == ('student', ('main',))
  assert both.layers == ({'logits', 'map'}, {'map', 'embedding'})
  built = terms.build(
    entries(
      soft=dict(loss='kl', teacher=('main', 'b'), fuse='mean_logits'),
      one=dict(loss='kl', teacher='main', fuse='sampled'),
      sure=dict(
        loss='kl', teacher='main', fuse_weights='validation', of='student'
      ),
    ),
    ['student'],
  )
  assert built['soft'].teachers == ('main', 'b')
  assert (built['one'].teachers, built['one'].groups) == ((), {'main'})
  assert built['sure'].groups == {'main', 'validation of main'}
  for term in built.values():
    assert (term.of, term.layers) == ('student', ({'logits'}, {'logits'}))


def test_a_weight_is_a_schedule_or_looks_at_the_context_or_the_teacher(context):
  one = {'main': jax.tree.map(lambda x: x[:1], context.teachers['main'])}
  context = context._replace(teachers=one, step=jnp.asarray(5, jnp.int32))
  plain = make(losses.kl, teacher='main')
  each = value(plain, context)
  sure = losses.teacher_confidence(one['main']['logits'][0])
  for weight, factor in (
    (optax.linear_schedule(1.0, 0.0, 10), 0.5),
    (lambda context: context.batch['id'] + 1.0, np.arange(6) + 1.0),
    (losses.teacher_confidence, sure),
    ('teacher_confidence', sure),
  ):
    got = value(transfer.weighted(plain, weight), context)
    np.testing.assert_allclose(got, factor * each, rtol=1e-5)
    within = value(make('kl', teacher='main', weight=weight), context)
    np.testing.assert_array_equal(within, got)
  with pytest.raises(
    UserError, match=r"^soft\.example_weight: .*'teacher_conf"
  ):
    transfer.weighted(plain, 'teacher_confidnce', entry='soft')
  with pytest.raises(UserError, match=r'name its group in soft\.teacher'):
    transfer.weighted(
      make(losses.cross_entropy), 'teacher_confidence', entry='soft'
    )


def test_a_condition_looks_at_the_context_or_at_the_teacher(context):
  def sure(teacher, labels):
    return jax.nn.softmax(teacher).max(-1) + 0 * labels > 0.5

  one = {'main': jax.tree.map(lambda x: x[:1], context.teachers['main'])}
  context = context._replace(teachers={**context.teachers, 'one': one['main']})
  soft, labels = make('kl', teacher='one'), make('cross_entropy')
  teacher = one['main']['logits'][0]
  for when, chosen in (
    (sure, sure(teacher, context.batch['labels'])),
    ('teacher_is_correct', teacher.argmax(-1) == context.batch['labels']),
    (lambda context: context.batch['id'] < 2, np.arange(6) < 2),
  ):
    got = value(transfer.conditional(when, soft, labels), context)
    want = np.where(chosen, value(soft, context), value(labels, context))
    np.testing.assert_array_equal(got, want)
  several = transfer.conditional(sure, make('kl', teacher='main'), labels)
  with pytest.raises(
    UserError, match=r'term\.when: sure .* main has 2; fuse them'
  ):
    value(several, context)
  told = transfer.conditional(sure, labels, soft, teacher='one')
  assert told.teachers == ('one',)
  value(told, context)


def test_a_batch_needs_no_numbers_of_examples(context):
  """Inputs and labels are what a loop of one's own has."""
  batch = {name: context.batch[name] for name in ('inputs', 'labels')}
  context = context._replace(batch=batch)
  reduced = make(lambda student: jnp.square(student).sum())
  for term in (make('cross_entropy'), make('kl', teacher='main'), reduced):
    assert value(term, context).shape == (6,)
