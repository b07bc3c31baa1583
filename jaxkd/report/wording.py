"""How the reports word numbers, arms and comparisons."""

import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxkd.report import rows as row_files
from jaxkd.report import statistics

CONFIDENCE = f'{100 * statistics.CONFIDENCE:.0f} %'
ENOUGH_SEEDS = 5
TINY = (  # a note of rows
  'this is a :tiny run, to see that all of it works; its numbers mean nothing'
)
STEPS_TO = 'steps_to_'  # a value of the row's metric on the validation split
EARLY_STOPPING = 'early_stopping_'  # what it would gain of a metric
# Metrics that are fractions, and read better in percent.
_NUMBER = re.compile(r'\d+')
_FRACTION = re.compile(
  r'(top\d+(_.*)?|accuracy|agreement|error|ece|f1|auc|nmi|m?iou|m?ap\d*|recall.*'
  r'|precision.*|covered|(generalist_)?top1_covered|(in|at)_\d+|improvement.*)'
)


def verdict(pair: Mapping[str, Any], row: Mapping[str, Any]) -> str:
  r"""A comparison in plain words.

  >>> row = {'metric': 'top1', 'higher_is_better': True}
  >>> pair = {
  ...   'better': 'distilled',
  ...   'than': 'student',
  ...   'seeds': 10,
  ...   'mean_difference': 0.04,
  ...   'ci95': [0.034, 0.046],
  ...   'holds': True,
  ... }
  >>> print(verdict(pair, row).replace(' (', '\n('))
  distilled beats student by 4.00 ± 0.60 points
  (95 % interval, 10 paired seeds)
  """
  better, than = pair['better'], pair['than']
  signed = difference(pair, row)
  how = f'({CONFIDENCE} interval, {pair["seeds"]} paired seeds)'
  if pair['mean_difference'] is None:
    return f'{better} and {than} cannot be compared: a value is not finite'
  if pair['ci95'] is None:
    return f'too few seeds ({pair["seeds"]}): {better} - {than} is {signed}'
  if pair['holds'] is None:
    return f'{better} and {than} cannot be told apart: {signed} {how}'
  does = 'beats' if pair['holds'] else 'loses to'
  return f'{better} {does} {than} by {signed.lstrip("+-")} {how}'


def judgement(pair: Mapping[str, Any]) -> str:
  """Whether a claim holds, and whether there are too few seeds to trust it."""
  words = {True: 'holds', False: 'does not hold', None: 'undecided'}
  said = words[pair['holds']]
  if pair['seeds'] < statistics.FEWEST:
    return f'too few seeds ({pair["seeds"]})'
  if pair['seeds'] < ENOUGH_SEEDS:
    said += f' (seeds: {pair["seeds"]})'
  return said


def difference(pair: Mapping[str, Any], row: Mapping[str, Any]) -> str:
  """The paired difference, signed, with its interval and unit."""
  metric = row_files.metric_of(pair, row)
  if pair['mean_difference'] is None:
    return '–'
  said = number(pair['mean_difference'], metric, sign=True)
  if pair['ci95'] is not None:
    low, high = pair['ci95']
    said += f' ± {number((high - low) / 2, metric)}'
  return f'{said} {unit(metric)}'


def steps_to(value: float) -> str:
  """The name of the metric that counts the steps until a value is reached."""
  return f'{STEPS_TO}{value:g}'


def early_stopping(metric: str) -> str:
  """The metric that tells how much better another was before the last step."""
  return f'{EARLY_STOPPING}{metric}'


def best_steps(metric: str, steps: Sequence[int], ended: int, of: int) -> str:
  """A clause that says of which steps nets are that were chosen.

  >>> best_steps('nll', (1200,), 3000, 3000)
  'best step 1,200 of 3,000 on validation (nll), restored'

  Args:
    metric: by which.
    steps: of each member, at which step.
    ended: the last step that was taken.
    of: how many were to be.
  """
  said = ', '.join(f'{step:,}' for step in steps)
  first = 'best steps' if len(steps) > 1 else 'best step'
  early = f'; training ended at step {ended:,}' if ended < of else ''
  return f'{first} {said} of {of:,} on validation ({metric}), restored{early}'


def unit(metric: str) -> str:
  """The unit of differences of a metric."""
  if metric.startswith(STEPS_TO):
    return 'steps'
  return (
    'points' if is_fraction(metric) else metric.removeprefix(EARLY_STOPPING)
  )


def arms(row: Mapping) -> list[str]:
  """Teachers first, then what the claim compares with, then the others.

  The others stand in the order of their names, t2 before t10.
  """
  first = row['comparison']['than']

  def place(arm):
    parts = re.split(r'(\d+)', arm)
    parts[1::2] = map(int, parts[1::2])
    return (not arm.startswith('teacher'), arm != first, parts)

  return sorted(row['arms'], key=place)


def metrics(row: Mapping) -> list[str]:
  """The row's own metric, then all others that some arm has.

  Those that differ in a number alone are in its order.

  >>> metrics({'metric': 'auc', 'metrics': {'a': {'at_100': [], 'at_20': []}}})
  ['auc', 'at_20', 'at_100']
  """
  others = (name for arm in row.get('metrics', {}).values() for name in arm)
  found = list(dict.fromkeys([row['metric'], *others]))
  kinds = [_NUMBER.sub('0', name) for name in found]

  def place(name):
    numbers = [int(number) for number in _NUMBER.findall(name)]
    return kinds.index(_NUMBER.sub('0', name)), numbers

  return [found[0], *sorted(found[1:], key=place)]


def is_fraction(metric: str) -> bool:
  """Whether a metric is shown in percent."""
  name = metric.rpartition('/')[2].removeprefix(EARLY_STOPPING)
  return bool(_FRACTION.fullmatch(name))


def heading(metric: str) -> str:
  """A metric's name with its unit."""
  return f'{metric} (%)' if is_fraction(metric) else metric


def number(value: float, metric: str, *, sign: bool = False) -> str:
  """A value of a metric, without its unit."""
  text = f'{value:+.3f}'
  if is_fraction(metric):
    text = f'{100 * value:+.2f}'
  elif metric.startswith(STEPS_TO):
    text = f'{value:+.0f}'
  if float(text) == 0:
    text = text.replace('-', '+')
  return text if sign or text[0] == '-' else text[1:]


def mean(values: Sequence[float | None], metric: str) -> str:
  """The mean of the seeds with its interval; of too few, each value."""
  if not values:
    return '–'
  centre, half = statistics.interval(values)
  if math.isnan(centre):
    return 'not finite'
  if math.isnan(half):
    return ', '.join(number(value, metric) for value in values)
  return f'{number(centre, metric)} ± {number(half, metric)}'


def brief(note: str, most: int = 240) -> str:
  """A note on the terminal: a few lines of it, where it goes on for long."""
  return textwrap.shorten(note, most, placeholder=' ... (the row has it all)')


def cells(rows: Iterable[Mapping[str, Any]]) -> str:
  """What a table of the arms of some rows has in its cells; see `mean`."""
  counts = {len(arm['values']) for row in rows for arm in row['arms'].values()}
  few = f'with fewer than {statistics.FEWEST} seeds, the value of each is shown'
  said = [f'mean ± half the width of its {CONFIDENCE} interval', few]
  if min(counts) >= statistics.FEWEST:
    return said[0]
  return '; '.join(said) if max(counts) >= statistics.FEWEST else few


def plain(value: Any) -> str:
  """A number of no particular metric, or a text."""
  if value is None:
    return '–'
  if isinstance(value, bool) or not isinstance(value, int | float):
    return value if isinstance(value, str) else json.dumps(value)
  if value == int(value) and abs(value) < 1e15:
    return f'{int(value):,}'
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
