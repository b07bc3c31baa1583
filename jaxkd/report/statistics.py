"""Means with intervals, over seeds and over pairs of seeds."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from jaxkd.errors import UserError

CONFIDENCE = 0.95
# Fewer seeds have no interval: Student's t of two is so wide (12.7 times the
# error of the mean) that it says nothing, or holds by luck.
FEWEST = 3
RESAMPLES = 10_000  # at most this many; all there are of few seeds


def interval(values: Sequence[float | None]) -> tuple[float, float]:
  """The mean and half the width of its 95 % interval (Student's t).

  Args:
    values: one a seed, [N]; None counts as not a number.

  Returns:
    ``(mean, half_width)``. The half width of fewer than `FEWEST` values is
    nan; where a value is not finite both are.
  """
  array = np.array([math.nan if v is None else v for v in values], float)
  if not array.size:
    raise ValueError('there are no values to take the mean of')
  if not np.isfinite(array).all():
    return math.nan, math.nan
  mean = float(array.mean())
  if array.size < FEWEST:
    return mean, math.nan
  error = array.std(ddof=1) / math.sqrt(array.size)
  quantile = special.stdtrit(array.size - 1, (1 + CONFIDENCE) / 2)
  return mean, float(quantile * error)


def combination(
  factors: Mapping[str, float], values: Mapping[str, Sequence[float | None]]
) -> list[float]:
  """A sum of arms, seed by seed: how much accuracy an arm loses, say.

  >>> combination({'full': 1.0, 'few': -1.0}, {'full': [3.0], 'few': [1.0]})
  [2.0]

  Args:
    factors: of each arm.
    values: of each arm, one a seed, [N]; None counts as not a number.
  """
  arms = (values[name] for name in factors)
  return [
    sum(
      factor * (math.nan if value is None else value)
      for factor, value in zip(factors.values(), seed, strict=True)
    )
    for seed in zip(*arms, strict=True)
  ]


def paired(
  better: Sequence[float | None],
  than: Sequence[float | None],
  *,
  higher_is_better: bool = True,
) -> dict:
  """Whether one arm beats another, seed by seed.

  The i-th values share their seed (initialisation, order of examples, views),
  and the interval is that of their differences.

  Args:
    better: values of the arm that is claimed to be better, [N].
    than: values of the other arm, [N].
    higher_is_better: which way is up.

  Returns:
    ``mean_difference`` (better - than), ``ci95`` (``[low, high]``), ``seeds``,
    and ``holds``: True if the whole interval is on the better side of zero,
    False if on the other, None if it spans or touches zero. With fewer than
    `FEWEST` seeds, or a value that is not finite, there is no interval and
    ``holds`` is None.

  Raises:
    UserError: there are not as many values of the one as of the other.
  """
  if len(better) != len(than):
    raise UserError(
      f'report.compare: {len(better)} values cannot be paired with '
      f'{len(than)}; compare arms that ran with the same seeds'
    )
  difference = [
    math.nan if b is None or t is None else b - t
    for b, t in zip(better, than, strict=True)
  ]
  mean, half = interval(difference)
  low, high = mean - half, mean + half
  holds = None
  if low > 0 or high < 0:
    holds = (low > 0) == higher_is_better
  return {
    'mean_difference': mean if math.isfinite(mean) else None,
    'ci95': [low, high] if math.isfinite(half) else None,
    'seeds': len(difference),
    'holds': holds,
  }


class Rank(NamedTuple):
  """The place of an arm among others, and how sure it is.

  Attributes:
    place: by its mean, 1 for the best; arms that tie share their mean place.
    low: the best place of its 95 % interval; nan where there is none.
    high: the worst place of it.
    first: the share of resamples in which it is among the first.
  """

  place: float
  low: float
  high: float
  first: float


def ranks(
  values: Mapping[str, Sequence[float | None]],
  *,
  first: int = 3,
  higher_is_better: bool = True,
) -> dict[str, Rank]:
  """The order of arms by their means, and how sure it is: a paired bootstrap.

  Seeds are drawn with replacement, the same ones for all arms, and the arms
  are put in order by the means of what was drawn: all draws that there are of
  up to five seeds, otherwise 10,000. So few seeds understate how much another
  set of seeds would differ, so the intervals are narrow rather than wide.

  Args:
    values: of each arm, one a seed, [N]; None or nan counts as the worst.
    first: how many places count as among the first.
    higher_is_better: which way is up.

  Raises:
    UserError: arms with different numbers of seeds.
  """
  counts = {name: len(each) for name, each in values.items()}
  if len(set(counts.values())) > 1:
    raise UserError(
      f'report.rank: the arms have {counts} values; rank arms that ran with '
      'the same seeds'
    )
  array = np.array(list(values.values()), float)  # [A, N]
  array = np.where(
    np.isnan(array), -math.inf, array * (2 * higher_is_better - 1)
  )
  seeds = array.shape[1]
  if seeds**seeds <= RESAMPLES:
    drawn = np.array(list(itertools.product(range(seeds), repeat=seeds)))
  else:
    drawn = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
  places = stats.rankdata(-array.mean(1))
  resampled = stats.rankdata(-array[:, drawn].mean(2), axis=0)
  tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
  ends = np.quantile(resampled, tails, axis=1, method='inverted_cdf')
  if seeds < FEWEST:
    ends = np.full_like(ends, math.nan)
  among = (resampled <= first).mean(1)
  found = zip(places, *ends, among, strict=True)
  return {
    name: Rank(*map(float, rank))
    for name, rank in zip(values, found, strict=True)
  }
