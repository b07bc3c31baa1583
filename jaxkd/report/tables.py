"""A row on the terminal, and all rows as BENCHMARKS.md."""

import json
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

from jaxkd.report import rows as row_files
from jaxkd.report import statistics, wording

PEERS = 'Peers: '  # what measurements beside other projects are called first
SPEED_SCHEMA = [
  {
    'name': str,
    'device': str,
    'versions?': {'*': str},
    'commit?': str,
    'notes?': [str],  # what a reader must know of the figures
    'picture?': str,  # a file, from where the page is
    'rows': [{'*': (float, str, bool, None)}],
  }
]


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
      ``variables``, if there is one; see `jaxkd.run.workdir.prediction`.

  Returns:
    A rich renderable: the arms with their intervals, the verdict in words,
    where the files are, and what to run next.
  """
  # Of several teachers, what is measured against each is left to the row.
  shown = [name for name in wording.metrics(row) if ':' not in name]
  header, lines = _results(row, '', shown)
  if len(header) - 2 > len(lines):  # more metrics than arms: arms side by side
    header, *lines = map(list, zip(header, *lines, strict=True))
  matters = {row['comparison']['better'], wording.heading(row['metric'])}
  title = f'{row["system"]} on {row["dataset"]}'
  table = _Fitting(title, header, lines, matters)
  said = [Text(wording.cells([row]), style='dim')]
  colours = {True: 'green', False: 'red', None: 'yellow'}
  for name, pair in _comparisons(row).items():
    if pair['better'] == pair['than']:
      continue  # of a config with a single arm
    words = Text(f'control, {name}: ' if name else '')
    words.append(wording.verdict(pair, row), f'bold {colours[pair["holds"]]}')
    said.append(words)
  said += map(Text, _chosen(row))
  notes = (f'- {wording.brief(note)}' for note in row.get('notes', ()))
  said += [Text(note, style='yellow') for note in notes]
  if directory is not None:
    said += map(Text, ['', *_directions(row, directory, predicts)])
  return Group(table, *said)


def benchmarks_md(
  rows: Iterable[Mapping[str, Any]], speed: Iterable[Mapping[str, Any]] = ()
) -> str:
  """BENCHMARKS.md, the same text for the same rows.

  Args:
    rows: valid rows, in the order of `jaxkd.report.rows.load_all`.
    speed: measurements of speed, each of `SPEED_SCHEMA`'s form.
  """
  rows, speed = list(rows), list(speed)
  works = [row for row in rows if _work(row)]
  methods = [row for row in rows if not _work(row)]
  parts = [_PROTOCOL]
  if not rows:
    parts.append('There are no rows yet.')
  else:
    parts += ['## The systems', _systems(rows), '## The claims', _claims(rows)]
  for title, group in (
    ('## The works of the survey', works),
    ('## Further methods', methods),
  ):
    if group:
      parts.append(title)
      parts += [_section(row) for row in group]
  if speed:
    parts += ['## Speed', _SPEED]
    first = lambda measured: not measured['name'].startswith(PEERS)  # noqa: E731
    parts += [_speed(measured) for measured in sorted(speed, key=first)]
  return '\n\n'.join(parts) + '\n'


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


def load_speed(directory: str | Path) -> list[dict]:
  """All measurements of speed in a directory, by file and in their order.

  Raises:
    UserError: a file is not a list of measurements.
  """
  measured = []
  for path in sorted(Path(directory).glob('*.json')):
    held = row_files.load_json(path)
    row_files.check_shape(held, SPEED_SCHEMA, str(path))
    measured += held
  return measured


_PROTOCOL = f"""\
# Benchmarks

Made by `python -m jaxkd.report` from the rows in `benchmarks/rows/`; every
number comes from a run, none is typed. `python -m jaxkd.report --check` fails
when this page and the rows disagree.

## How to read it

- **Paired seeds.** A seed gives every arm the same initialisation, the same
  order of examples and the same views, so arms are compared seed by seed. What
  the seeds of a row share, e.g. one teacher, is said in its notes.
- **Intervals.** A mean ± half the width of its {wording.CONFIDENCE} interval,
  Student's t over the seeds. A difference is the mean of the paired
  differences with their own interval, which tends to be narrower than the
  arms' intervals suggest.
- **Verdicts.** A claim *holds* if the whole interval of its difference is on
  the better side of zero, *does not hold* if it is on the other side, and is
  *undecided* if the interval spans zero. Claims that do not hold stay here,
  with what was tried. Fewer than {wording.ENOUGH_SEEDS} seeds are pointed out;
  fewer than {statistics.FEWEST} have no verdict: their values are shown.
- **Controls.** The teacher and the student trained alone stand beside every
  distilled student; controls leave out or replace the part of the method that
  is said to matter.
- **Tuning** is done on a validation split, with the same number of trials for
  every arm. The test split is used once, at the last step: the best step on
  the test split is never reported.
- **Units.** Accuracies, agreement and calibration error are in percent and
  their differences in percentage points; `nll` and `teacher_kl` are in nats.
- **Costs** are those of the device named in the row. FLOPs are what the
  compiler counts for the forward pass of one example."""

_SPEED = """\
Steady-state times, compilation and warm-up excluded: medians over many steps,
from `python experiments/benchmark.py`, with `--losses` for each loss by itself,
`--population` for many members, devices and seeds, `--growth` for cost as work
grows, and `--peers` for steps of other projects beside ours, which come first.
Compare numbers of one device only."""

_UNTUNED = 'Not tuned: the values of the config.'

_TUNED = '_tuned'  # what an arm is called beside the one that was not tuned
_MANY = 12  # comparisons, of which the overview shows the first alone


def _systems(rows: Sequence[Mapping]) -> str:
  """The survey's columns for every row."""
  fields = {
    'objective': 'Objective',
    'data': 'Data modification',
    'teacher': 'Teacher model',
    'knowledge': 'Knowledge type',
    'method': 'KD method',
    'student': 'Student model',
  }
  return markdown_table(
    ['Work', 'System', *fields.values(), 'Dataset'],
    [
      [
        _work(row),
        link(row),
        *(row['survey'].get(field, '') for field in fields),
        row['dataset'],
      ]
      for row in rows
    ],
  )


def _claims(rows: Sequence[Mapping]) -> str:
  """The claim of every row and its controls, where these are not many."""

  def shown(row):
    pairs = list(_comparisons(row).items())
    return pairs if len(pairs) <= _MANY else pairs[:1]

  lines = [
    [
      '' if name else _work(row),
      '' if name else link(row),
      _claim(name, pair),
      f'{pair["better"]} - {pair["than"]}',
      wording.difference(pair, row),
      str(pair['seeds']),
      wording.judgement(pair),
    ]
    for row in rows
    for name, pair in shown(row)
  ]
  header = ['Work', 'System', 'Claim', 'Arms', 'Difference', 'Seeds', 'Verdict']
  return markdown_table(header, lines)


def _section(row: Mapping) -> str:
  """The section of one row."""
  survey = row['survey']
  parts = [f'### {_title(row)}']
  cite = survey.get('cite', '')
  if cite:
    url = survey.get('url', '')
    parts.append(f'[{cite}]({url})' if url else cite)
  parts.append(markdown_table(*_results(row, f'Arm on {row["dataset"]}')))
  twice, once = _twice(row)
  parts.append(
    '\n'.join(_compared(name, pair, row) for name, pair in once.items())
  )
  if twice:
    parts += [_TWICE, _with_and_without_tuning(row, twice)]
    parts += [_ORDER, _in_order(row, twice)]
  if row.get('sweep'):
    parts += ['Sweep:', _points(row['sweep'], row['metric'])]
  if row.get('summary'):
    parts.append(
      'Along the way, means over the seeds (no step was chosen by them):'
    )
    parts += map(_along_the_way, row['summary'])
  notes = [*row.get('notes', ()), *_weights(row)]
  if notes:
    parts.append(_bullets(notes))
  parts.append(_tuning(row.get('tuning', {})))
  parts.append(_costs(row))
  parts.append(
    f'{_spoken(row["wall_s"])} on {row["device"]}; '
    f'{_versions(row["versions"])}; commit '
    f'{(row["commit"] or "unknown")[:12]}, config '
    f'{row["config_sha256"][:12]}. To run it again:'
  )
  parts.append(f'```\n{row["command"]}\n```')
  return '\n\n'.join(parts)


def _results(
  row: Mapping, title: str, metrics: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
  """The header and lines of the table of arms; `title` heads the first."""
  metrics = metrics or wording.metrics(row)
  lines = []
  for arm in wording.arms(row):
    cells = [
      wording.mean(row_files.values_of(row, arm, metric), metric)
      for metric in metrics
    ]
    lines.append([arm, *cells, str(len(row['arms'][arm]['values']))])
  return [title, *map(wording.heading, metrics), 'seeds'], lines


_TWICE = """\
Each with its published weights, and with the best factor on them that the
validation split has chosen, against a rival that had as many trials:"""


def _twice(row: Mapping) -> tuple[dict, dict]:
  """Comparisons made without tuning and with it, and the rest."""
  pairs = _comparisons(row)
  twice = {
    name: (pair, pairs[name + _TUNED])
    for name, pair in pairs.items()
    if name and name + _TUNED in pairs
  }
  known = {*twice, *(name + _TUNED for name in twice)}
  return twice, {n: pair for n, pair in pairs.items() if n not in known}


def _with_and_without_tuning(row: Mapping, twice: Mapping) -> str:
  """Two columns of differences, the largest tuned one first."""
  metric, sign = row['metric'], 1 if row['higher_is_better'] else -1

  def order(item):
    gain = item[1][1]['mean_difference']
    return (gain is None, -sign * (gain or 0))

  lines = []
  for name, pairs in sorted(twice.items(), key=order):
    line = [name]
    for pair in pairs:
      values = row_files.values_of(row, pair['better'], metric)
      line += [
        wording.mean(values, metric),
        wording.difference(pair, row),
        wording.judgement(pair),
      ]
    line.insert(4, _factor(row, pairs[1]['better']))
    lines.append(line)
  than, tuned = (pair['than'] for pair in next(iter(twice.values())))
  heading = wording.heading(metric)
  header = ['Arm', heading, f'- {than}', 'beats it']
  header += ['factor', f'tuned, {heading}', f'- {tuned}', 'beats it']
  return markdown_table(header, lines)


_ORDER = f"""\
In order, all of them tuned: the place by the mean, its {wording.CONFIDENCE}
interval, and how often it is among the first three if the seeds are drawn anew
with replacement, the same for all; and what a step of one seed costs (memory:
what is kept between steps, without activations)."""


def _in_order(row: Mapping, twice: Mapping) -> str:
  """The tuned arms and their rival, with the cost of their steps."""
  metric = row['metric']
  arms = [pair['better'] for _, pair in twice.values()]
  arms += dict.fromkeys(pair['than'] for _, pair in twice.values())
  values = {arm: row_files.values_of(row, arm, metric) for arm in arms}
  ranks = statistics.ranks(values, higher_is_better=row['higher_is_better'])
  flops, kept = (row['cost'].get(f'step_{k}', {}) for k in ('flops', 'bytes'))

  def number(value, form):
    return '–' if value is None else format(value, form)

  lines = []
  for arm, rank in sorted(ranks.items(), key=lambda item: item[1].place):
    interval = '–' if rank.low != rank.low else f'{rank.low:g} to {rank.high:g}'
    held = kept.get(arm)
    lines.append(
      [
        f'{rank.place:g}',
        arm,
        wording.mean(values[arm], metric),
        interval,
        f'{rank.first:.0%}',
        number(row_files.step_ms(row, arm), '.3g'),
        number(flops.get(arm) and flops[arm] / 1e6, ',.0f'),
        number(held and held / 2**20, '.2f'),
      ]
    )
  header = ['Place', 'Arm', wording.heading(metric), 'interval', 'first three']
  header += ['step, ms', 'step, MFLOPs', 'memory, MiB']
  return markdown_table(header, lines)


def _factor(row: Mapping, arm: str) -> str:
  """The factor on an arm's weights that its tuning has chosen.

  It says so where that is the least or the largest of the grid.
  """
  found = row.get('tuning', {}).get(arm, {})
  for key, values in found.get('grid', {}).items():
    reached = found.get('values') or []
    if key.endswith('*') and len(reached) == len(values):
      choose = max if row['higher_is_better'] else min
      best = choose(value for value in reached if value is not None)
      index = reached.index(best)
      edge = ' (edge)' if index in (0, len(values) - 1) else ''
      return f'{wording.plain(values[index])}{edge}'
  return '–'


def _comparisons(row: Mapping) -> dict[str, Mapping]:
  """The claim itself under '', then the controls by name."""
  return {'': row['comparison'], **row.get('comparisons', {})}


def _claim(name: str, pair: Mapping) -> str:
  """The claim in words; empty if the config does not state it."""
  if not name:
    return f'**{pair["claim"]}**' if pair['claim'] else ''
  more = f': {pair["claim"]}' if pair['claim'] not in ('', name) else ''
  return f'control, {name}{more}'


def _compared(name: str, pair: Mapping, row: Mapping) -> str:
  """A claim, or a control, and its verdict."""
  claim = _claim(name, pair)
  said = f'{wording.verdict(pair, row)}; {wording.judgement(pair)}.'
  return f'- {claim}: {said}' if claim else f'- {said}'


def _points(points: Sequence[Mapping], metric: str) -> str:
  """A sweep: its numbers as they are, its lists as means with intervals."""
  columns = list(dict.fromkeys(name for point in points for name in point))

  measured = {
    name for point in points for name in point if isinstance(point[name], list)
  }
  heading = wording.heading(metric)

  def cell(value: Any) -> str:
    if isinstance(value, list):
      return wording.mean(value, metric)
    return wording.plain(value)

  return markdown_table(
    [f'{name}, {heading}' if name in measured else name for name in columns],
    [[cell(point.get(name, '')) for name in columns] for point in points],
  )


def _along_the_way(summary: Mapping) -> str:
  """Whether early stopping would have helped: the best step and the last."""
  metric = summary['metric']
  choose = max if summary['higher_is_better'] else min
  lines = []
  for arm, values in summary['arms'].items():
    known = [
      (value, step)
      for value, step in zip(values, summary['step'], strict=True)
      if value is not None
    ]
    if known:
      best, step = choose(known, key=lambda point: point[0])
      last = known[-1][0]
      lines.append(
        [
          arm,
          wording.number(best, metric),
          wording.plain(step),
          wording.number(last, metric),
          wording.number(last - best, metric, sign=True),
        ]
      )
  heading = wording.heading(metric)
  header = ['Arm', f'best {heading}', 'at step', 'at the last', 'last - best']
  return markdown_table(header, lines)


def _weights(row: Mapping) -> list[str]:
  """How unequal the weights of teachers are that validation has found."""
  said = []
  for name, seeds in row.get('weights', {}).items():
    least, most = (f(map(f, seeds)) for f in (min, max))
    said.append(
      f'the weights of the teachers {name}, found on validation, go from '
      f'{least:.3f} to {most:.3f}'
    )
  return said


def _tuning(tuning: Mapping) -> str:
  if not tuning:
    return _UNTUNED
  table = markdown_table(
    ['Tuned arm', 'Grid', 'Trials', 'Chosen', 'Split'],
    [
      [
        arm,
        _pairs(entry['grid']),
        str(entry['trials']),
        _pairs(entry['chosen']),
        entry['split'],
      ]
      for arm, entry in tuning.items()
    ],
  )
  if len({entry['trials'] for entry in tuning.values()}) > 1:
    table += '\n\nThe arms did not have the same number of trials.'
  return table


def _chosen(row: Mapping) -> list[str]:
  """What tuning chose for each arm, and by how much over the other points."""
  metric, said = row['metric'], []
  for arm, entry in row.get('tuning', {}).items():
    text = f'{arm} was tuned: {_pairs(entry["chosen"])} is best'
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


def _costs(row: Mapping) -> str:
  """The costs of the nets and of a step."""
  cost = row['cost']
  kinds = {
    'Parameters': row['params'],
    'FLOPs': cost.get('flops', {}),
    'Bytes': cost.get('bytes', {}),
    'Bit operations': cost.get('bit_operations', {}),
    'Latency, ms': cost.get('latency_ms', {}),
    **{
      f'{output}, per second': found
      for output, found in cost.get('decoded_per_s', {}).items()
    },
    'Training, s': cost.get('train_s', {}),
  }
  kinds = {title: found for title, found in kinds.items() if found}
  names = list(
    dict.fromkeys(name for found in kinds.values() for name in found)
  )
  table = markdown_table(
    ['Cost', *kinds],
    [
      [name, *(wording.plain(found.get(name, '')) for found in kinds.values())]
      for name in names
    ],
  )
  said = []
  if cost.get('step_ms') is not None:
    said.append(f'A step of all seeds takes {cost["step_ms"]:.3g} ms.')
  if cost.get('teacher_share') is not None:
    share = f'{100 * cost["teacher_share"]:.0f} %'
    said.append(f'The teachers take {share} of its FLOPs.')
  return '\n\n'.join(filter(None, [table, ' '.join(said)]))


def _speed(measured: Mapping) -> str:
  rows = measured['rows']
  columns = list(dict.fromkeys(name for row in rows for name in row))
  table = markdown_table(
    columns,
    [[wording.plain(row.get(name, '')) for name in columns] for row in rows],
  )
  where = [f'On {measured["device"]}']
  if measured.get('versions'):
    where.append(_versions(measured['versions']))
  if measured.get('commit'):
    where.append(f'commit {measured["commit"]}')
  parts = [f'### {measured["name"]}', f'{"; ".join(where)}.']
  if measured.get('picture'):
    parts.append(f'![{measured["name"]}]({measured["picture"]})')
  parts.append(table)
  if measured.get('notes'):
    parts.append(_bullets(measured['notes']))
  return '\n\n'.join(parts)


def _directions(
  row: Mapping, directory: str | Path, predicts: str
) -> list[str]:
  """Where the files are, and what to run next."""
  near = os.path.relpath(directory)
  place = near if len(near) < len(str(directory)) else str(directory)
  kept = f'benchmarks/rows/{row["system"]}.json'
  shown = 'shown/, ' if Path(directory, 'shown').is_dir() else ''
  publish = (
    'Or put the row into BENCHMARKS.md:',
    f'  cp {shlex.quote(f"{place}/row.json")} {kept} && python -m jaxkd.report',
  )
  next_ = 'predict for an image of your own' if predicts else 'use the student'
  return [
    f'Files: {place}/ with row.json, curves.png, {shown}events/ for '
    'TensorBoard and nets/.',
    f'Next, {next_} in Python:',
    'import jaxkd',  # at the margin, where Python wants it
    f'net, variables = jaxkd.load({place!r})',
    *([predicts] if predicts else []),
    *([] if wording.TINY in row.get('notes', ()) else publish),
  ]


def _work(row: Mapping) -> str:
  return str(row['survey'].get('work') or '')


def link(row: Mapping, page: str = '') -> str:
  """A system's name, linked to its section of BENCHMARKS.md.

  Args:
    row: of the system.
    page: where BENCHMARKS.md is, from the page that has the link.
  """
  kept = re.sub(r'[^\w\- ]', '', _title(row).lower())  # as GitHub does it
  return f'[{row["system"]}]({page}#{kept.replace(" ", "-")})'


def _title(row: Mapping) -> str:
  return f'[{_work(row)}] {row["system"]}' if _work(row) else row['system']


def _pairs(values: Mapping) -> str:
  return ', '.join(f'{k}={json.dumps(v)}' for k, v in sorted(values.items()))


def _spoken(seconds: float | None) -> str:
  if seconds is None:
    return 'Ran'
  if seconds < 120:
    return f'{seconds:.0f} seconds'
  return f'{seconds / 60:.0f} minutes'


def _versions(versions: Mapping[str, str]) -> str:
  return ', '.join(f'{name} {v}' for name, v in sorted(versions.items()))


def _bullets(notes: Iterable[str]) -> str:
  return '\n'.join(f'- {_line(note)}' for note in notes)


def _line(text: str) -> str:
  return ' '.join(text.split())


def markdown_table(
  header: Sequence[str], lines: Sequence[Sequence[str]]
) -> str:
  """A Markdown table; bars inside a cell are escaped."""
  cells = [
    [_line(cell).replace('|', r'\|') for cell in line]
    for line in [header, *lines]
  ]
  ruled = [cells[0], ['---'] * len(header), *cells[1:]]
  return '\n'.join(f'| {" | ".join(line)} |' for line in ruled)
