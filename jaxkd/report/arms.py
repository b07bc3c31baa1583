"""The arms of a row, and what of them is compared."""

import json
import math
from collections.abc import Mapping, Sequence

from jaxkd.report import rows as row_files
from jaxkd.report import statistics, wording
from jaxkd.report.intervals import Line, Panel

TUNED = '_tuned'  # how an arm's name ends beside the one that is not tuned
# Of panels of differences, by whether more of the metric is better.
_TITLES = {
  True: 'difference in {}, what is better to the right',
  False: 'decrease in {}, better to the right; the figures have the opposite '
  'sign',
}


def table(
  row: Mapping, title: str, metrics: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
  """The header and the lines of the table of arms.

  Args:
    row: a valid row.
    title: heads the first column.
    metrics: those to show; all by default.
  """
  metrics = metrics or wording.metrics(row)
  lines = []
  for arm in wording.arms(row):
    cells = [
      wording.mean(row_files.values_of(row, arm, metric), metric)
      for metric in metrics
    ]
    lines.append([arm, *cells, str(len(row['arms'][arm]['values']))])
  return [title, *map(wording.heading, metrics), 'seeds'], lines


def lines(row: Mapping) -> list[Line]:
  """The row's metric of each arm as an interval to draw."""
  metric, drawn = row['metric'], []
  scale = 100 if wording.is_fraction(metric) else 1
  for arm in wording.arms(row):
    values = row_files.values_of(row, arm, metric)
    mean, half = (scale * x for x in statistics.interval(values))
    words = wording.mean(values, metric)
    drawn.append(Line(arm, mean, mean - half, mean + half, None, words))
  return drawn


def comparisons(row: Mapping) -> dict[str, Mapping]:
  """The claim itself under '', then the controls by name."""
  return {'': row['comparison'], **row.get('comparisons', {})}


def difference(pair: Mapping, row: Mapping, label: str) -> Line:
  """A comparison as an interval to draw, what is better to the right.

  Where less of a metric is better, that is the decrease; the words behind it
  have the difference with its own sign.
  """
  metric = row_files.metric_of(pair, row)
  sign = 1 if row_files.is_up(pair, row) else -1
  sign *= 100 if wording.is_fraction(metric) else 1
  mean = pair['mean_difference']
  ends = sorted(sign * x for x in pair['ci95'] or (math.nan, math.nan))
  return Line(
    label,
    math.nan if mean is None else sign * mean,
    *ends,
    pair['holds'],
    wording.difference(pair, row),
  )


def differences(
  compared: Sequence[tuple[str, Mapping, Mapping]],
) -> list[Panel]:
  """Comparisons to be drawn, a panel for each unit and way up.

  Args:
    compared: what each is called, the comparison, and its row.
  """
  found = {}
  for label, pair, row in compared:
    unit = wording.unit(row_files.metric_of(pair, row))
    kind = unit, row_files.is_up(pair, row)
    found.setdefault(kind, []).append(difference(pair, row, label))
  return [
    Panel(_TITLES[is_up].format(unit), drawn, True)
    for (unit, is_up), drawn in found.items()
  ]


def claim(name: str, pair: Mapping) -> str:
  """A claim in words; empty if the config does not state it."""
  if not name:
    return f'**{pair["claim"]}**' if pair['claim'] else ''
  more = f': {pair["claim"]}' if pair['claim'] not in ('', name) else ''
  return f'control, {name}{more}'


def pairs(values: Mapping) -> str:
  """Names and values in one line."""
  return ', '.join(f'{k}={json.dumps(v)}' for k, v in sorted(values.items()))
