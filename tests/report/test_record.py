"""What a row has beside what was measured."""

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
