import json

import pytest
from ml_collections import ConfigDict

from jaxkd.errors import UserError
from jaxkd.run import config as configs

SMALL = dict(
  teachers=dict(main=dict(train=dict(steps=7))),
  students=dict(student=dict(kw=dict(widths=[4]))),
  distill=dict(
    labels=dict(loss='cross_entropy', weight=1),
    soft=dict(loss='kl', teacher='main'),
  ),
  train=dict(batch_size=32),
)


@pytest.fixture(scope='module')
def complete():
  return configs.plain(configs.complete(SMALL))


def test_completes_what_is_not_said(complete):
  assert complete['distill']['labels']['weight'] == 1.0
  assert complete['distill']['soft']['kw'] == {'temperature': 1.0}
  assert complete['students']['student']['kw'] == dict(widths=(4,), dropout=0.0)
  teacher = complete['teachers']['main']
  assert teacher['train']['steps'] == 7
  assert teacher['train']['batch_size'] == 32
  assert teacher['distill']['labels']['loss'] == 'cross_entropy'


def test_completing_twice_changes_nothing(complete):
  assert configs.plain(configs.complete(complete)) == complete


def test_the_order_of_entries_does_not_matter(complete):
  backwards = dict(reversed(list(complete.items())))
  assert configs.as_json(backwards) == configs.as_json(complete)
  assert json.loads(configs.as_json(complete))['train']['batch_size'] == 32


def test_the_order_of_what_is_given_changes_nothing():
  given = {**SMALL, 'arms': {'b': {}, 'a': {}}}
  made = configs.plain(configs.complete(given))
  assert list(made['arms']) == ['a', 'b']
  again = configs.plain(configs.complete(dict(reversed(list(given.items())))))
  assert list(again) == list(made) == sorted(made)


def test_is_a_locked_config_dict():
  made = configs.complete(SMALL)
  assert isinstance(made, ConfigDict)
  with pytest.raises(AttributeError):
    made.trian = {}


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(trian={}), "config: there is no entry 'trian'; did you mean 'train'"),
    (dict(train=dict(step=1)), "train: there is no entry 'step'.*'steps'"),
    (dict(train=dict(steps=1.5)), r'train.steps: 1.5 should be a whole number'),
    (dict(train=3), 'train: 3 should be a dict'),
    (dict(students=dict(a=3)), 'students.a: 3 should be a dict'),
    (dict(distill=dict(a=dict(loss=3))), 'distill.a.loss: 3 should be a text'),
    (
      dict(distill=dict(a=dict(loss='kl', teacher=3))),
      'distill.a.teacher: 3 should be a text or a list',
    ),
    (
      dict(distill=dict(a=dict(loss='kl', weight='1'))),
      "distill.a.weight: '1' should be a number",
    ),
    (
      dict(students=dict(a=dict(kw=[1]))),
      r'students.a.kw: \(1,\) should be a dict',
    ),
  ],
)
def test_names_the_entry_at_fault(given, message):
  with pytest.raises(UserError, match=message):
    configs.complete(given)


def test_overrides_keep_the_rest(complete):
  made = configs.override(
    complete, dict(distill=dict(soft=dict(weight=2))), 'arms.a'
  )
  assert made['distill']['soft']['weight'] == 2.0
  assert made['distill']['soft']['kw'] == {'temperature': 1.0}
  assert complete['distill']['soft']['weight'] == 1.0
  with pytest.raises(UserError, match=r"arms.a.distill: .*'sotf'.*'soft'"):
    configs.override(complete, dict(distill=dict(sotf={})), 'arms.a')


def test_naming_anew_brings_its_own_options(complete):
  entry = configs.override(
    complete, dict(students=dict(student=dict(model='vit'))), 'arms.a'
  )['students']['student']
  assert 'widths' not in entry['kw']
  train = configs.override(
    configs.put(complete, 'train.optimizer.kw', dict(weight_decay=0.1)),
    dict(train=dict(optimizer=dict(name='sgd', kw=dict(momentum=0.9)))),
    'arms.a',
  )['train']
  assert train['optimizer'] == dict(name='sgd', kw=dict(momentum=0.9))


def test_entries_by_their_name(complete):
  made = configs.put(complete, 'distill.soft.kw.temperature', 3.0)
  assert configs.get(made, 'distill.soft.kw.temperature') == 3.0
  assert configs.get(complete, 'distill.soft.kw.temperature') == 1.0
  with pytest.raises(UserError, match="no entry 'sotf'"):
    configs.get(complete, 'distill.sotf.weight')


def test_an_arm_may_bring_a_term_of_its_own(complete):
  own = dict(loss='decoupled_kl', teacher='main', weight=2)
  made = configs.override(complete, dict(distill=dict(dkd=own)), 'arms.a')
  term = made['distill']['dkd']
  assert term['weight'] == 2.0
  assert term['at'] == ('logits', 'logits')
  assert term['kw'] == configs.loss_options('decoupled_kl', at='') != {}
  assert set(term) == set(made['distill']['soft'])
  assert set(complete['distill']) == {'labels', 'soft'}
  # So may a round, and what it changes of a teacher.
  made = configs.override(
    complete,
    dict(teachers=dict(main=dict(distill=dict(dkd=own)))),
    'rounds.r01',
  )
  assert made['teachers']['main']['distill']['dkd'] == term


def test_an_arm_may_bring_a_role_of_its_own(complete):
  own = dict(model='mlp', kw=dict(widths=(5,)), quantize='ternary')
  made = configs.override(complete, dict(students=dict(other=own)), 'arms.a')
  role = made['students']['other']
  assert role['kw'] == dict(widths=(5,), dropout=0.0)
  assert role['quantize'] == 'ternary'
  assert set(role) == set(made['students']['student'])
  assert set(complete['students']) == {'student'}
  own = dict(model='mlp', widht=3)
  with pytest.raises(UserError, match=r"arms.a.students.other: .*'widht'"):
    configs.override(complete, dict(students=dict(other=own)), 'arms.a')
  with pytest.raises(UserError, match=r"arms.a.students: .*'other'"):
    configs.override(complete, dict(students=dict(other={})), 'arms.a')


def test_a_round_may_bring_teachers_that_train_as_its_students(complete):
  own = dict(model='mlp', per_seed=True, restore='r01/students/student')
  partial = dict(
    teachers=dict(started=own, main=dict(count=2)), train=dict(steps=7)
  )
  made = configs.override(complete, partial, 'rounds.r02')
  group = made['teachers']['started']
  assert set(group) == set(complete['teachers']['main'])
  assert group['per_seed'] and group['train']['steps'] == 7
  assert set(group['distill']) == {'labels'}
  assert made['teachers']['main']['count'] == 2
  assert set(complete['teachers']) == {'main'}
  own = dict(model='mlp', restroe='')
  with pytest.raises(UserError, match=r"r02.teachers.started: .*'restore'"):
    configs.override(complete, dict(teachers=dict(started=own)), 'rounds.r02')
  with pytest.raises(UserError, match=r"r02.teachers: .*'started'"):
    configs.override(complete, dict(teachers=dict(started={})), 'rounds.r02')


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(sotf=dict(weight=2.0)), r"^arms\.a\.distill: .*'sotf'.*'soft'"),
    (dict(sotf=3), r"^arms\.a\.distill: .*'sotf'.*'soft'"),
    (dict(b=dict(loss='klm')), r"^arms\.a\.distill\.b\.loss: .*'klm'.*'kl'"),
    (
      dict(b=dict(loss='kl', wieght=1.0)),
      r"^arms\.a\.distill\.b: .*'wieght'.*'weight'",
    ),
    (
      dict(b=dict(loss='kl', weight='1')),
      r"^arms\.a\.distill\.b\.weight: '1' should be a number",
    ),
  ],
)
def test_a_term_that_an_arm_cannot_bring(complete, given, message):
  with pytest.raises(UserError, match=message):
    configs.override(complete, dict(distill=given), 'arms.a')


def test_only_terms_can_be_brought(complete):
  """A group or an optimiser with an entry `loss` is a slip of the pen."""
  net = dict(loss='kl')
  with pytest.raises(UserError, match=r"^arms\.a\.students: .*'studnet'"):
    configs.override(complete, dict(students=dict(studnet=net)), 'arms.a')


def test_what_only_teachers_see_may_change_from_round_to_round():
  """An entry called teachers is no section of groups everywhere."""
  given = configs.plain(configs.complete({}))
  changed = dict(
    data=dict(fraction=dict(teachers=0.5), augment=dict(teachers='mixup(1)'))
  )
  made = configs.override(given, changed, 'rounds.r01')['data']
  assert made['fraction'] == {'teachers': 0.5, 'students': 1.0}
  assert made['augment'] == {'teachers': 'mixup(1)', 'students': ''}
