import pytest

from jaxkd import losses
from jaxkd.distill.arguments import Arguments, places
from jaxkd.errors import UserError


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


def test_what_inputs_name_follows_no_rule_of_names():
  def loss(key, logits, targets, teacher, labels, *, width):
    return logits

  found = Arguments(loss, {'targets': 'teacher.logits'})
  assert found.student == ['logits'] and found.fields == ['labels']
  assert found.names == ['key', 'logits', 'teacher', 'labels']
  found = Arguments(loss, ('teacher', 'labels', 'width'))
  assert not found.teacher and found.student == ['logits', 'targets']
  assert found.names == ['key', 'logits', 'targets']


@pytest.mark.parametrize(
  ('inputs', 'message'),
  [
    ({'logit': 'batch.a'}, r"^t\.inputs: .*argument of loss 'logit'.*'logits'"),
    (
      {'logits': 'bach.a'},
      r"^t\.inputs\.logits: write batch\.FIELD, .*'bach\.a",
    ),
    ({'logits': 'student'}, r'^t\.inputs\.logits: write batch\.FIELD'),
    ({'logits': ''}, r'^t\.inputs\.logits: write batch\.FIELD'),
  ],
)
def test_places_that_are_none(inputs, message):
  def loss(logits):
    return logits

  with pytest.raises(UserError, match=message):
    places(loss, inputs, 't')
  assert places(loss, {'logits': 'student.stages/1.x'}, 't') == {
    'logits': ('student', 'stages/1.x')
  }
