"""Entries by the names that they had."""

import pytest

from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import old_names

TABLE = {
  'students.*.correct': 'students.*.logit_shift',
  'distill.*.critic': 'distill.*.kw.critic',
}


@pytest.mark.parametrize(
  ('entry', 'now'),
  [
    ('students.s.correct', 'students.s.logit_shift'),
    ('arms.a.students.s.correct', 'arms.a.students.s.logit_shift'),
    (
      'rounds.r.arms.a.students.s.correct',
      'rounds.r.arms.a.students.s.logit_shift',
    ),
    ('distill.d.critic.penalty', 'distill.d.kw.critic.penalty'),
  ],
)
def test_an_old_name_is_the_new_one_and_says_so(entry, now):
  with pytest.warns(FutureWarning, match=f'{entry} is now called {now};'):
    assert old_names.current(entry, TABLE) == now


@pytest.mark.parametrize(
  'entry', ['students.correct', 'teachers.s.correct', 'students.s.correct_it']
)
def test_other_names_are_left_as_they_are(entry):
  assert old_names.current(entry, TABLE) == entry


def test_a_config_keeps_its_order_and_its_other_entries():
  given = {
    'students': {'a': {'correct': 'missing'}, 'b': {'model': 'mlp'}},
    'distill': {'d': {'critic': {'model': 'mlp', 'kw': {}}, 'kw': {'p': 1}}},
  }
  with pytest.warns(FutureWarning):
    made = old_names.renamed(given, TABLE)
  critic = {'model': 'mlp', 'kw': {}}
  assert made == {
    'students': {'a': {'logit_shift': 'missing'}, 'b': {'model': 'mlp'}},
    'distill': {'d': {'kw': {'p': 1, 'critic': critic}}},
  }
  assert list(made['students']) == ['a', 'b']
  assert old_names.renamed(made, TABLE) == made


def test_an_entry_by_both_names_is_refused():
  given = {'students': {'s': {'correct': '3', 'logit_shift': '4'}}}
  with (
    pytest.warns(FutureWarning),
    pytest.raises(UserError, match=r'students.s.logit_shift: .*students.s.cor'),
  ):
    old_names.renamed(given, TABLE)


def test_a_complete_config_has_the_names_of_today():
  students = dict(student=dict(correct='3'))
  with pytest.warns(FutureWarning, match='students.student.logit_shift'):
    made = configs.complete(
      dict(students=students, arms=dict(a=dict(students=students)))
    )
  made = configs.plain(made)
  assert made['students']['student']['logit_shift'] == '3'
  assert made['arms'] == {'a': {'students': {'student': {'logit_shift': '3'}}}}
