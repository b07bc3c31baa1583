"""One table of several runs: as text, CSV and LaTeX."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxkd import files
from jaxkd.errors import unknown
from jaxkd.report import rows as row_files
from jaxkd.report import statistics, wording

ALL = 'all'  # in place of the name of a metric
_ANY_WIDTH = 10_000  # characters, more than a table needs


class Compared(NamedTuple):
  """Runs in one table, with a line for each arm of each.

  Attributes:
    metrics: the columns.
    lines: run, dataset, arm, the values of each metric, one a seed, and the
      milliseconds of a step of one seed, None where they are not known.
  """

  metrics: tuple[str, ...]
  lines: tuple[tuple, ...]


def compared(
  rows: Mapping[str, Mapping[str, Any]], metrics: Sequence[str] = ()
) -> Compared:
  """The table of some runs.

  Args:
    rows: valid ones, by what each run is called.
    metrics: which to show; by default the one of each row, with `ALL` all.

  Raises:
    UserError: a metric that no run has.
  """
  known = {name for row in rows.values() for name in wording.metrics(row)}
  for name in metrics:
    if name not in (*known, ALL):
      raise unknown('metric', name, known, '--metric')
  shown = dict.fromkeys(
    name
    for row in rows.values()
    for name in ([row['metric']] if not metrics else wording.metrics(row))
    if not metrics or ALL in metrics or name in metrics
  )
  lines = []
  for run, row in rows.items():
    for arm in wording.arms(row):
      values = [row_files.values_of(row, arm, name) for name in shown]
      cost = row_files.step_ms(row, arm)
      lines.append((run, row['dataset'], arm, *values, cost))
  return Compared(tuple(shown), tuple(lines))


def text(found: Compared) -> Table:
  """For a terminal."""
  made = Table(box=None, pad_edge=False, header_style='bold')
  for heading in _header(found):
    left = heading in ('run', 'dataset', 'arm')
    made.add_column(heading, justify='left' if left else 'right')
  for run, dataset, arm, *values, cost in found.lines:
    cells = map(wording.mean, values, found.metrics)
    names = map(Text, (run, dataset, arm))  # no markup, whatever is in them
    made.add_row(*names, *cells, wording.plain(cost))
  return made


def as_csv(found: Compared) -> str:
  """Comma-separated values: the mean of each metric and half its interval.

  They are in the metric's own units, as in the rows, and empty where a value is
  not finite or there are too few seeds for an interval.
  """
  written = io.StringIO()
  writer = csv.writer(written, lineterminator='\n')
  columns = [f'{m}{end}' for m in found.metrics for end in ('', '_half_width')]
  writer.writerow(['run', 'dataset', 'arm', 'seeds', *columns, 'step_ms'])
  for run, dataset, arm, *values, cost in found.lines:
    cells = []
    for own in values:
      numbers = statistics.interval(own) if own else (math.nan, math.nan)
      cells += [repr(x) if math.isfinite(x) else '' for x in numbers]
    seeds = max(map(len, values), default=0)
    given = '' if cost is None else cost
    writer.writerow([run, dataset, arm, seeds, *cells, given])
  return written.getvalue()


def latex(found: Compared) -> str:
  """A table for LaTeX's package booktabs."""
  header = [_escaped(heading) for heading in _header(found)]
  body = [
    [
      *map(_escaped, (run, dataset, arm)),
      *(
        _escaped(wording.mean(own, metric)).replace(' ± ', r' $\pm$ ')
        for own, metric in zip(values, found.metrics, strict=True)
      ),
      wording.plain(cost),
    ]
    for run, dataset, arm, *values, cost in found.lines
  ]
  lines = [f'{" & ".join(cells)} \\\\' for cells in [header, *body]]
  return '\n'.join(
    [
      rf'\begin{{tabular}}{{lll{"r" * (len(header) - 3)}}}',
      r'\toprule',
      lines[0],
      r'\midrule',
      *lines[1:],
      r'\bottomrule',
      r'\end{tabular}',
      '',
    ]
  )


def save(found: Compared, directory: str | Path) -> None:
  """Writes ``table.csv`` and ``table.tex``.

  Raises:
    UserError: they cannot be written.
  """
  for name, made in {'csv': as_csv(found), 'tex': latex(found)}.items():
    files.write_text(files.as_path(directory) / f'table.{name}', made)


def show(found: Compared, form: str, console: Console) -> None:
  """Prints the table as 'text', 'csv' or 'latex'."""
  if form == 'text':
    table = text(found)
    if not console.is_terminal:  # a file is as wide as need be
      options = console.options.update(max_width=_ANY_WIDTH)
      needed = console.measure(table, options=options).maximum
      console.width = max(console.width, needed)
    console.print(table)
  else:
    made = {'csv': as_csv, 'latex': latex}[form](found)
    console.file.write(made)


def _header(found: Compared) -> list[str]:
  metrics = map(wording.heading, found.metrics)
  return ['run', 'dataset', 'arm', *metrics, 'step, ms']


def _escaped(cell: str) -> str:
  """A text as LaTeX takes it."""
  cell = re.sub(r'([&%$#_{}])', r'\\\1', cell.replace('\\', '/'))
  return cell.replace('~', r'\textasciitilde{}').replace('^', r'\^{}')
