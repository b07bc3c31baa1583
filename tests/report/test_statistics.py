"""Means with intervals, against values by hand and SciPy's t test."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxkd.errors import UserError
from jaxkd.report.statistics import (
  Rank,
  combination,
  interval,
  paired,
  ranks,
)


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


def test_ranks_by_hand():
  """Of three seeds, all 27 draws; two arms differ by one seed alone."""
  values = {'a': [5.0, 5.0, 5.0], 'b': [3.0, 3.0, 7.5], 'c': [1.0] * 3}
  found = ranks(values, first=1)
  assert [found[arm].place for arm in 'abc'] == [1, 2, 3]
  # b has a mean above 5 where the last seed is drawn twice or more: 7 of 27.
  assert found['a'].first == pytest.approx(20 / 27)
  assert found['b'].first == pytest.approx(7 / 27)
  assert found['c'] == Rank(3, 3, 3, 0)
  assert [(found[arm].low, found[arm].high) for arm in 'ab'] == [(1, 2), (1, 2)]
  lower = ranks(values, first=1, higher_is_better=False)
  assert [lower[arm].place for arm in 'abc'] == [3, 2, 1]


def test_ranks_of_many_seeds_against_a_loop():
  random = np.random.default_rng(3)
  array = random.normal(size=(4, 7)) + 0.4 * np.arange(4)[:, None]
  found = ranks(dict(zip('abcd', array.tolist(), strict=True)))
  counts = np.zeros((4, 4))
  for _ in range(4000):
    means = array[:, random.integers(7, size=7)].mean(1)
    for place, arm in enumerate(np.argsort(-means)):
      counts[arm, place] += 1 / 4000
  for arm, name in enumerate('abcd'):
    assert found[name].first == pytest.approx(counts[arm, :3].sum(), abs=0.03)
    share = counts[arm, int(found[name].low) - 1 : int(found[name].high)].sum()
    assert share > 0.93


def test_ranks_of_ties_of_what_is_lost_and_of_too_few_seeds():
  found = ranks({'a': [1.0, 1.0], 'b': [1.0, 1.0], 'c': [2.0, None]})
  assert [found[arm].place for arm in 'abc'] == [1.5, 1.5, 3]
  assert np.isnan([found['a'].low, found['a'].high]).all()
  with pytest.raises(UserError, match=r'^report\.rank: the arms have .*seeds'):
    ranks({'a': [1.0], 'b': [1.0, 2.0]})
