import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.distill.conditions import of_teacher
from jaxkd.errors import UserError


def asked(context, function, kind='condition', teacher='one'):
  one = jax.tree.map(lambda x: x[:1], context.teachers['main'])
  context = context._replace(teachers={**context.teachers, 'one': one})
  return of_teacher(function, ('',), teacher, 'logits', kind, 'term.when')(
    context
  )


def test_a_condition_is_of_one_teacher_and_of_fields_of_the_batch(context):
  logits = context.teachers['main']['logits'][0]
  right = logits.argmax(-1) == context.batch['labels']
  np.testing.assert_array_equal(asked(context, 'teacher_is_correct'), right)

  def first(teacher, id):
    return (teacher.argmax(-1) == 0) & (id < 3)

  want = (logits.argmax(-1) == 0) & (context.batch['id'] < 3)
  np.testing.assert_array_equal(asked(context, first), want)


@pytest.mark.parametrize(
  ('function', 'changes', 'message'),
  [
    (lambda teacher: teacher.max(-1), {}, 'float32, not true or false'),
    (lambda teacher: teacher > 0, {}, r'the shape \[6, 3\], not one value'),
    (lambda teacher: teacher, dict(kind='weight'), r'the shape \[6, 3\]'),
    (lambda teacher, nothing: teacher, {}, 'nothing'),
    ('teacher_is_corect', {}, 'teacher_is_correct'),
    ('kl', {}, 'teacher_is_correct'),
    ('teacher_is_correct', dict(teacher='main'), r'main has 2; fuse them to'),
    ('teacher_is_correct', dict(teacher=()), r'its group in term\.teacher'),
  ],
)
def test_what_is_no_condition(context, function, changes, message):
  with pytest.raises(UserError, match=rf'^term\.when: .*{message}'):
    asked(context, function, **changes)


def test_a_field_of_the_batch_needs_no_teacher(context):
  batch = {**context.batch, 'amount': jnp.arange(6.0)}
  context = context._replace(batch={**batch, 'sure': jnp.arange(6) < 2})
  of = dict(teacher=())
  found = asked(context, 'batch.amount', kind='weight', **of)
  np.testing.assert_array_equal(found, np.arange(6.0))
  found = asked(context, 'batch.sure', **of)
  np.testing.assert_array_equal(found, np.arange(6) < 2)
  for name, kind, message in (
    ('amount', 'condition', r'float32\[6\], not true or false'),
    ('sure', 'weight', r'bool\[6\], not a number'),
    ('amont', 'weight', "did you mean 'amount'"),
  ):
    with pytest.raises(UserError, match=rf'^term\.when: .*{message}'):
      asked(context, f'batch.{name}', kind=kind, **of)


def test_a_weight_is_a_number_for_each_example(context):
  found = asked(context, 'teacher_confidence', kind='weight')
  assert found.shape == (6,)
  assert jnp.issubdtype(found.dtype, jnp.floating)
