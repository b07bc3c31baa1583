"""What a run prints at its end, and pages on the terminal."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.markdown import Markdown, TableElement
from rich.table import Table
from rich.text import Text

from jaxkd import files, run_files
from jaxkd.report import arms, wording


def console(
  row: Mapping[str, Any],
  directory: str | Path | None = None,
  predicts: str = '',
) -> Group:
  """The report that is printed at the end of a run.

  Args:
    row: a valid row.
    directory: where the run has left its files, to be named.
    predicts: the line of Python that predicts for a file with ``net`` and
      ``variables``, if there is one; see `jaxkd.run.stored_nets.prediction`.

  Returns:
    A rich renderable: the arms with their intervals, the verdict in words,
    where the files are, and what to run next.
  """
  # Of several teachers, what is measured against each is left to the row.
  shown = [name for name in wording.metrics(row) if ':' not in name]
  header, lines = arms.table(row, '', shown)
  if len(header) - 2 > len(lines):  # more metrics than arms: arms side by side
    header, *lines = map(list, zip(header, *lines, strict=True))
  matters = {row['comparison']['better'], wording.heading(row['metric'])}
  title = f'{row["system"]} on {row["dataset"]}'
  table = _Fitting(title, header, lines, matters)
  said = [Text(wording.cells([row]), style='dim')]
  colours = {True: 'green', False: 'red', None: 'yellow'}
  for name, pair in arms.comparisons(row).items():
    if pair['better'] == pair['than']:
      continue  # of a config with a single arm
    words = Text(f'control, {name}: ' if name else '')
    words.append(wording.verdict(pair, row), f'bold {colours[pair["holds"]]}')
    said.append(words)
  said += map(Text, _chosen(row))
  notes = (f'- {wording.brief(note)}' for note in row.get('notes', ()))
  said += [Text(note, style='yellow') for note in notes]
  if directory is not None:
    said += map(Text, ['', *directions(row, directory, predicts)])
  return Group(table, *said)


class _Fitting:
  """A table, in as many parts below each other as the terminal is too narrow.

  Each has the first column. So no heading or number is cut off.
  """

  def __init__(self, title, header, lines, bold):
    self.title, self.bold = title, bold
    self.columns = [*zip(header, *lines, strict=True)]

  def __rich_console__(self, console, options):
    names, *rest = self.columns
    for i, part in enumerate(_side_by_side(names, rest, options.max_width)):
      table = Table(title=self.title if i == 0 else None, title_style='bold')
      for j, column in enumerate(part):
        table.add_column(column[0], justify='right' if j else 'left')
      for name, *cells in zip(*(column[1:] for column in part), strict=True):
        table.add_row(name, *cells, style='bold' if name in self.bold else '')
      yield table


def _side_by_side(
  names: Sequence[str], columns: Iterable[Sequence[str]], width: int
) -> list[list[Sequence[str]]]:
  """Columns that fit beside their names in a width, one or more each time."""
  takes = lambda column: 3 + max(map(cell_len, column))  # noqa: E731
  parts, left = [], 0
  for column in columns:
    if not parts or takes(column) > left:
      parts.append([names])
      left = width - 1 - takes(names)
    parts[-1].append(column)
    left -= takes(column)
  return parts


class _Folded(TableElement):
  """A table that breaks long words and rules off what starts in bold."""

  def __rich_console__(self, console, options):
    for table in super().__rich_console__(console, options):
      table.box = box.HORIZONTALS
      for column in table.columns:
        column.overflow = 'fold'
      following = [row.cells[0].content for row in self.body.rows[1:]]
      for row, name in zip(table.rows, following, strict=False):
        row.end_section = any('bold' in str(s.style) for s in name.spans)
      yield table


class Page(Markdown):
  """A page of Markdown for the terminal."""

  elements: ClassVar = {**Markdown.elements, 'table_open': _Folded}

  def __init__(self, text: str):
    # Links from page to page lead nowhere in a terminal.
    text = re.sub(r'\[([^\]]+)\]\((?!http)[^)]*\)', r'\1', text)
    super().__init__(text, hyperlinks=False)


def _chosen(row: Mapping) -> list[str]:
  """What tuning chose for each arm, and by how much over the other points."""
  metric, said = row['metric'], []
  for arm, entry in row.get('tuning', {}).items():
    text = f'{arm} was tuned: {arms.pairs(entry["chosen"])} is best'
    values = entry.get('values') or []
    known = [value for value in values if value is not None]
    if known:
      ordered = sorted(known, reverse=row['higher_is_better'])
      best, *others = (wording.number(value, metric) for value in ordered)
      text += f', with {wording.heading(metric)} {best} on {entry["split"]}'
      if others:
        text += f'; next {others[0]}'
      if len(others) > 1:
        text += f'; worst of {len(values)} points {others[-1]}'
    if len(known) < len(values):
      text += f'; {len(values) - len(known)} diverged'
    said.append(text)
  return said


def directions(
  row: Mapping[str, Any], directory: str | Path, predicts: str
) -> list[str]:
  """Where the files are, and what to run next, in lines; see `console`."""
  place, directory = str(directory), files.as_path(directory)
  if isinstance(directory, Path):
    place = min(place, os.path.relpath(directory), key=len)
  examples = run_files.EXAMPLES
  shown = f'{examples}/, ' if (directory / examples).is_dir() else ''
  publish = (
    'Or put the row and its pictures into the benchmarks:',
    f'  python -m jaxkd.report --add {shlex.quote(place)}',
  )
  next_ = 'predict for an image of your own' if predicts else 'use the student'
  return [
    f'Files: {place}/ with {run_files.REPORT}, {run_files.ROW}, '
    f'{run_files.CURVES}, {shown}{run_files.EVENTS}/ for TensorBoard and '
    f'{run_files.NETS}/.',
    f'Next, {next_} in Python:',
    'import jaxkd',  # at the margin, where Python wants it
    f'net, variables = jaxkd.load({place!r})',
    *([predicts] if predicts else []),
    *([] if wording.TINY in row.get('notes', ()) else publish),
  ]
