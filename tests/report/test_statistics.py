"""Means with intervals, against values by hand and SciPy's t test."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxkd.errors import UserError
from jaxkd.report.statistics import combination, interval, paired


def test_interval_by_hand():
  # The 0.975 quantile of Student's t with 4 degrees of freedom is 2.776445.
  mean, half = interval([1, 2, 3, 4, 5])
  assert mean == 3
  assert half == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)


def test_interval_agrees_with_scipy():
  values = np.random.default_rng(0).normal(size=7)
  mean, half = interval(values)
  low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
  assert (mean - half, mean + half) == pytest.approx((low, high))


def test_interval_at_its_edges():
  assert interval([0.5, 0.5, 0.5]) == (0.5, 0)
  mean, half = interval([0.5])
  assert mean == 0.5
  assert math.isnan(half)
  for bad in (math.inf, math.nan, None):
    assert all(map(math.isnan, interval([0.5, bad])))
  with pytest.raises(ValueError, match='no values'):
    interval([])


def test_paired_agrees_with_scipy():
  rng = np.random.default_rng(1)
  than = rng.normal(0.9, 0.05, size=10)
  better = than + rng.normal(0.04, 0.01, size=10)
  found = paired(better, than)
  low, high = stats.ttest_rel(better, than).confidence_interval(0.95)
  assert found['ci95'] == pytest.approx([low, high])
  assert found['mean_difference'] == pytest.approx((better - than).mean())
  assert found['seeds'] == 10
  assert found['holds'] is True


@pytest.mark.parametrize(
  ('better', 'than', 'holds'),
  [
    ([2.0, 3.1, 4.0], [1.0, 2.0, 3.0], True),
    ([1.0, 2.0, 3.0], [2.0, 3.1, 4.0], False),
    ([1.0, 3.0, 2.0], [2.0, 2.0, 2.0], None),
    ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None),  # touches zero
    ([2.0, 3.0, 4.0], [1.0, 2.0, 3.0], True),  # no variance
  ],
)
def test_which_way_is_up(better, than, holds):
  assert paired(better, than)['holds'] is holds
  opposite = None if holds is None else not holds
  assert paired(better, than, higher_is_better=False)['holds'] is opposite


@pytest.mark.parametrize('seeds', [1, 2])
def test_few_seeds_prove_nothing(seeds):
  assert paired([0.9] * seeds, [0.8] * seeds) == {
    'mean_difference': pytest.approx(0.1),
    'ci95': None,
    'seeds': seeds,
    'holds': None,
  }


@pytest.mark.parametrize('bad', [math.nan, math.inf, None])
def test_what_is_not_finite_proves_nothing(bad):
  found = paired([0.9, bad], [0.8, 0.8])
  assert found == {
    'mean_difference': None,
    'ci95': None,
    'seeds': 2,
    'holds': None,
  }


def test_unequal_lengths_are_refused():
  with pytest.raises(UserError, match='1 values cannot be paired with 3'):
    paired([0.9], [0.8, 0.8, 0.8])


def test_a_sum_of_arms():
  values = {'a': [1.0, 2.0], 'b': [0.5, None], 'c': [9.0, 9.0]}
  found = combination({'a': 2.0, 'b': -1.0}, values)
  assert found[0] == 1.5
  assert math.isnan(found[1])
