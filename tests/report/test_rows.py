"""Rows are checked when written and when read."""

import copy
import json

import numpy as np
import pytest

from jaxkd.errors import UserError
from jaxkd.report import rows, statistics


@pytest.fixture
def row():
  return {
    'system': 'soft_targets',
    'survey': {'work': 1, 'knowledge': 'soft labels'},
    'dataset': 'digits',
    'metric': 'top1',
    'higher_is_better': True,
    'arms': {
      'teacher': {'values': [0.98]},
      'student': {'values': [0.91, 0.90, 0.905]},
      'distilled': {'values': [0.94, 0.931, 0.938]},
    },
    'comparison': {
      'claim': 'soft targets beat hard labels',
      'better': 'distilled',
      'than': 'student',
      **statistics.paired([0.94, 0.931, 0.938], [0.91, 0.90, 0.905]),
    },
    'params': {'teacher': 100, 'student': 10},
    'cost': {'step_ms': 1.5, 'flops': {'student': 20}},
    'wall_s': 60,
    'device': 'CPU',
    'versions': {'jax': '0.10.2'},
    'commit': None,
    'config_sha256': 'abc',
    'command': 'python experiments/distill.py',
  }


def test_round_trip(tmp_path, row):
  rows.save(tmp_path / 'row.json', row)
  assert rows.load(tmp_path / 'row.json') == row
  assert [p.name for p in tmp_path.iterdir()] == ['row.json']


def test_a_comparison_in_a_metric_of_its_own(tmp_path, row):
  steps = {'distilled': [10, 20, 15], 'student': [30, 41, 36]}
  row['metrics'] = {arm: {'steps_to_0.9': v} for arm, v in steps.items()}
  own = {'metric': 'steps_to_0.9', 'higher_is_better': False}
  pair = {'claim': '', 'better': 'distilled', 'than': 'student', **own}
  pair |= statistics.paired(*steps.values(), higher_is_better=False)
  row['comparisons'] = {'sooner': pair}
  rows.save(tmp_path / 'row.json', row)
  assert pair['mean_difference'] == pytest.approx(-20 - 2 / 3)
  assert rows.metric_of(pair, row) == 'steps_to_0.9'
  assert rows.metric_of(row['comparison'], row) == 'top1'
  row['comparisons']['sooner'] = pair | {'higher_is_better': True}
  with pytest.raises(UserError, match='sooner'):
    rows.save(tmp_path / 'row.json', row)


def test_arrays_become_lists_and_what_is_not_finite_null(tmp_path, row):
  row['arms']['student']['values'] = np.array([0.5, 0.5, np.nan])
  row['comparison'] |= statistics.paired(
    [0.94, 0.931, 0.938], [0.5, 0.5, np.nan]
  )
  row['metrics'] = {'student': {'nll': (np.float32(0.25), -np.inf, 0.5)}}
  row['params'] = {'student': np.int64(7)}
  rows.save(tmp_path / 'row.json', row)
  read = rows.load(tmp_path / 'row.json')
  assert read['arms']['student']['values'] == [0.5, 0.5, None]
  assert read['metrics'] == {'student': {'nll': [0.25, None, 0.5]}}
  assert read['params'] == {'student': 7}
  assert 'NaN' not in (tmp_path / 'row.json').read_text()


def put(row, path, value):
  *parents, last = path.split('.')
  for name in parents:
    row = row[name]
  row[last] = value


CONTROL = {'claim': '', 'better': 'distilled', 'than': 'student', 'seeds': 3,
           'mean_difference': 0.0, 'ci95': [-1, 1], 'holds': None}  # fmt: skip


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    ('metric', 3, r'metric must be text, not 3'),
    ('system', '..', r"system: '\.\.' names files"),
    ('system', 'a/b', r"system: 'a/b' names files; let it have no slash"),
    ('higher_is_better', 1, r'higher_is_better must be true or false, not 1'),
    ('wall_s', '60', r'wall_s must be a number or null, not "60"'),
    ('wall_s', True, r'wall_s must be a number or null, not true'),
    ('arms', [], r'arms must be a mapping, not \[\]'),
    ('arms.student', {}, r'arms.student.values is missing'),
    ('arms.student.values', [], r'arms.student.values is empty'),
    ('arms.student.values', ['a'], r'arms.student.values\[0\] must be a num'),
    ('arms.student.values', [10**400], r'values\[0\] must be a number or null'),
    ('arms.student.values', [0.9], r'has 3 values of distilled and 1 of'),
    ('arms.student.values', [0.9, 0.9, 0.9], r'mean_difference is 0.03.* '
     'where the values of distilled and student say 0.036'),
    ('comparison.mean_difference', None, r'mean_difference is null where'),
    ('comparison.ci95', [0.02, 0.04], r'ci95 is \[0.02, 0.04\] where'),
    ('comparison.seeds', 10**400, r'comparison.seeds must be a whole number'),
    ('comparison.seeds', 4, r'comparison.seeds is 4 where .* say 3; run'),
    ('metrics', {'student': {'nll': [1]}},
     'metrics.student.nll has 1 values for 3 seeds'),
    ('comparison.holds', None, r'comparison.holds is null where ci95'),
    ('comparison.ci95', [0.1], r'comparison.ci95 is \[0.1\]'),
    ('comparison.ci95', [-0.1, 0.1], r'holds is true where .* says null'),
    ('comparison.seeds', 2.0, r'comparison.seeds must be a whole number'),
    ('comparison.than', 'studnet', r"no arm 'studnet'; did you mean 'student'"),
    ('comparisons', {'c': CONTROL | {'better': 'x'}},
     r"comparisons.c.better: there is no arm 'x'"),
    ('comparisons', {'c': CONTROL | {'holds': False}},
     r'comparisons.c.holds is false where'),
    ('comparisons', {'c': CONTROL | {'metric': 'nll'}},
     r'comparisons.c.metric: distilled and student have no nll'),
    ('metrics', {'other': {'nll': [1]}}, r"metrics: there is no arm 'other'"),
    ('metrcis', {}, r"there is no entry 'metrcis'; did you mean 'metrics'"),
    ('cost.flop', {}, r"there is no entry 'cost.flop'; did you mean .*'flops'"),
    ('sweep', [{'t': {}}], r'sweep\[0\].t must be a number or text or'),
    ('notes', 'a', r'notes must be a list, not "a"'),
    ('tuning', {'student': {'grid': {}, 'chosen': {}, 'split': 'validation'}},
     r'tuning.student.trials is missing'),
    ('summary', [{'metric': 'test/top1', 'higher_is_better': True,
                  'step': [1, 2], 'arms': {'a': [1]}}],
     r'summary\[0\].arms.a has 1 values for 2 steps'),
  ],
)  # fmt: skip
def test_the_entry_at_fault_is_named(tmp_path, row, path, value, said):
  put(row, path, value)
  with pytest.raises(UserError, match=said) as error:
    rows.save(tmp_path / 'row.json', row)
  assert str(tmp_path / 'row.json') in str(error.value)
  assert list(tmp_path.iterdir()) == []
  (tmp_path / 'row.json').write_text(json.dumps(row))
  with pytest.raises(UserError, match=said):
    rows.load(tmp_path / 'row.json')


def test_every_entry_that_must_be_there(row):
  optional = {k.rstrip('?') for k in rows.SCHEMA if k.endswith('?')}
  assert optional.isdisjoint(row)
  for name in row:
    lacking = copy.deepcopy(row)
    del lacking[name]
    with pytest.raises(UserError, match=f'row: {name} is missing; add it'):
      rows.check(lacking, 'row')


def test_what_a_comparison_derives_of_arms(tmp_path, row):
  row['arms']['few'] = {'values': [0.80, 0.85, 0.90]}
  row['derived'] = {
    'gained': {'distilled': 1.0, 'student': -1.0},
    'half': {'student': 0.5, 'few': -0.5},
  }
  pair = {'claim': '', 'better': 'half', 'than': 'gained'}
  found = statistics.paired([0.055, 0.025, 0.0025], [0.03, 0.031, 0.033])
  row['comparisons'] = {'more': {**pair, **found}}
  rows.save(tmp_path / 'row.json', row)
  row['derived']['half']['few'] = -1.0
  with pytest.raises(UserError, match=r'more.mean_difference is'):
    rows.check(row, 'row')
  row['derived']['half'] = {'fwe': 1.0}
  with pytest.raises(UserError, match=r"derived.half: .* no arm 'fwe'.*'few'"):
    rows.check(row, 'row')


def test_lower_can_be_better(row):
  row['higher_is_better'] = False
  with pytest.raises(UserError, match='holds is true where'):
    rows.check(row, 'row')
  arms = row['arms']
  arms['student'], arms['distilled'] = arms['distilled'], arms['student']
  row['comparison'] |= statistics.paired(
    [0.91, 0.90, 0.905], [0.94, 0.931, 0.938]
  )
  row['comparison']['holds'] = True
  rows.check(row, 'row')


def test_files_that_are_not_rows(tmp_path):
  with pytest.raises(UserError, match=r'none.json cannot be read: No such'):
    rows.load(tmp_path / 'none.json')
  (tmp_path / 'row.json').write_text('{"system": ')
  with pytest.raises(UserError, match=r'row.json is not JSON'):
    rows.load(tmp_path / 'row.json')
  for text, said in (
    ('[' * 10**5 + ']' * 10**5, 'is nested too deeply'),
    ('[NaN]', r'is not JSON \(Out of range float'),
    ('[1e999]', r'is not JSON \(Out of range float'),
    (r'["\ud800"]', r'is not JSON \(.*surrogates'),
    (f'[{"1" * 10**4}]', r'is not JSON \(.*integer'),
  ):
    (tmp_path / 'row.json').write_text(text)
    with pytest.raises(UserError, match=f'row.json {said}'):
      rows.load(tmp_path / 'row.json')
  (tmp_path / 'row.json').write_text('[]')
  with pytest.raises(UserError, match=r'the file must be a mapping, not \[\]'):
    rows.load(tmp_path / 'row.json')


def test_a_row_that_cannot_be_written_leaves_the_old_one(tmp_path, row):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot be written: Not a directory'):
    rows.save(tmp_path / 'file' / 'row.json', row)


def test_works_of_the_survey_come_first(tmp_path, row):
  for i, (system, work) in enumerate(
    [('at', None), ('vid', 9), ('b', 2), ('rkd', 17), ('a', 2), ('fsp', 0)]
  ):
    held = row | {'system': system, 'survey': {'work': work}}
    rows.save(tmp_path / f'{i}.json', held)
  (tmp_path / 'README.md').write_text('not a row')
  found = [r['system'] for r in rows.load_all(tmp_path)]
  assert found == ['a', 'b', 'vid', 'rkd', 'at', 'fsp']
  rows.save(tmp_path / 'x.json', row | {'system': 'rkd'})
  with pytest.raises(UserError, match=r"x.json: 3.json has .* 'rkd' too"):
    rows.load_all(tmp_path)
  with pytest.raises(UserError, match=r'no directory .*elsewhere; run this'):
    rows.load_all(tmp_path / 'elsewhere')
