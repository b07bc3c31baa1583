"""What a row has beside what was measured."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxkd.report import record, row_notes


@pytest.mark.parametrize(
  ('value', 'higher_is_better', 'expected'),
  [
    (0.8, True, [10, 30, np.nan]),
    (0.5, True, [10, 10, 20]),
    (0.6, False, [np.nan, 10, 10]),
  ],
)
def test_steps_to_a_value(value, higher_is_better, expected):
  measured = [[0.8, 0.5, 0.4], [0.7, 0.7, 0.5], [0.9, 0.8, 0.6]]
  found = record.steps_to(
    value, [10, 20, 30], measured, higher_is_better=higher_is_better
  )
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('higher_is_better', 'expected'),
  [(True, [0.0, 0.2, np.nan]), (False, [0.2, 0, np.nan])],
)
def test_what_early_stopping_would_gain(higher_is_better, expected):
  measured = [[0.7, 0.7, 0.5], [0.8, 0.8, np.nan], [0.9, 0.6, 0.4]]
  found = record.early_stopping(measured, higher_is_better=higher_is_better)
  np.testing.assert_allclose(found, expected)


def test_arms_in_order():
  values = {'a': [0.5, 0.7], 'b': [0.9, 0.8], 'c': [0.1, 0.1]}
  said = row_notes.ranked(values, 'top1', higher_is_better=True)
  assert said == 'by their mean top1 (%): b 85.00, a 60.00, c 10.00'
  said = row_notes.ranked(
    {'a': [2.0], 'b': [1.0]}, 'nll', higher_is_better=False
  )
  assert said == 'by their mean nll: b 1.000, a 2.000'


def test_who_learns_from_a_part():
  def seen(fraction, partition='none', unit=''):
    return {'fraction': fraction, 'partition': partition, 'unit': unit}

  def part(prefix, arms, **teachers):
    entry = dict(made_of=(), restore='', freeze='', count=1)
    entry['data'] = seen(0.0, '')
    everything = {k: {'teachers': x} for k, x in seen(1.0).items()}
    return SimpleNamespace(
      prefix=prefix,
      config={
        'data': everything,
        'teachers': {name: {**entry, **own} for name, own in teachers.items()},
      },
      arms={
        name: {'data': {k: {'students': x} for k, x in seen(*own).items()}}
        for name, own in arms.items()
      },
    )

  few, folds = 0.025, seen(0.0, 'disjoint')
  rest = dict(all_of_it={}, given=dict(restore='x', data=seen(few)))
  some = part(
    '',
    dict(
      a=(few,),
      b=(few, 'none', 'speaker'),
      c=(1.0,),
      d=(1.0, 'without:3,7', 'speaker'),
      e=(1.0, 'first:9', 'speaker'),
    ),
    folds=dict(count=2, data=folds),
    one_fold=dict(data=folds),
    **rest,
  )
  said = 'trained on 2.5 % of the training examples'
  assert row_notes.parts_seen([some]) == [
    'teachers folds: trained on disjoint parts of the training examples',
    f'a: {said}',
    f'b: {said}, each speaker whole or not at all',
    'd: trained on the training examples without classes 3, 7',
    'e: trained on the training examples, the first 9 units of speaker alone, '
    'each speaker whole or not at all',
  ]
  parts = [
    part('r01/', dict(a=(few,)), one=dict(data=seen(few, '')), **rest),
    part('r02/', dict(a=(few,), b=(few,))),
  ]
  assert row_notes.parts_seen(parts) == [
    f'teachers r01/one, all students: {said}'
  ]
