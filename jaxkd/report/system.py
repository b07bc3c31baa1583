"""The page of a system: all that its row tells, and pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxkd import files, run_files
from jaxkd.report import arms, markdown, speed, statistics, wording
from jaxkd.report import rows as row_files
from jaxkd.report.intervals import Panel

_UNTUNED = 'Not tuned: the values of the config.'
ARMS = 'arms'  # the picture of these and of their comparisons
_PICTURES = {  # of runs, by the names of their files, and what they show
  run_files.CURVES: 'Training loss and metrics on the validation split, step '
  'by step',
  run_files.COSTS: 'Each arm against the time of its step',
  run_files.SERIES: 'Along a series of the same metric',
}
_COLUMNS = {  # of the survey's tables
  'objective': 'Objective',
  'data': 'Data modification',
  'teacher': 'Teacher model',
  'knowledge': 'Knowledge type',
  'method': 'KD method',
  'student': 'Student model',
}


def page(
  row: Mapping[str, Any], pictures: Iterable[str] = (), drawing: str = ''
) -> str:
  """The page of one system.

  Args:
    row: a valid row.
    pictures: what its run drew, as paths of files from the page.
    drawing: what stands for the picture of the arms; by default the one beside
      the page.
  """
  survey = row['survey']
  parts = [f'# {title(row)}']
  cite = survey.get('cite', '')
  if cite:
    url = survey.get('url', '')
    parts.append(f'[{cite}]({url})' if url else cite)
  placed = {
    column: str(survey[field])
    for field, column in _COLUMNS.items()
    if survey.get(field)
  }
  if placed:
    placed['Dataset'] = row['dataset']
    parts.append(markdown.table([*placed], [[*placed.values()]]))
  twice, once = _twice(row)
  parts.append(
    '\n'.join(_compared(name, pair, row) for name, pair in once.items())
  )
  parts.append(
    drawing
    or markdown.picture(
      'The arms, and the differences that are claimed',
      f'{row["system"]}/{ARMS}',
    )
  )
  parts.append(markdown.table(*arms.table(row, f'Arm on {row["dataset"]}')))
  if twice:
    parts += [_TWICE, _with_and_without_tuning(row, twice)]
    parts += [_ORDER, _in_order(row, twice)]
  if row.get('sweep'):
    parts += ['## Sweep', _points(row['sweep'], row['metric'])]
  shown = [_shown(path) for path in pictures]
  if row.get('summary') or shown:
    parts.append('## Along the way')
  if row.get('summary'):
    chose = (
      'each net is from the step that the notes name'
      if row.get('best_steps')
      else 'no step was chosen by them'
    )
    parts.append(f'Means over the seeds; {chose}.')
    parts += map(_along_the_way, row['summary'])
  parts += shown
  notes = [*row.get('notes', ()), *_weights(row)]
  if notes:
    parts += ['## Notes', markdown.bullets(notes)]
  parts += ['## Tuning', _tuning(row.get('tuning', {}))]
  parts += ['## Costs', _costs(row)]
  parts.append(
    f'{_spoken(row["wall_s"])} on {row["device"]}; '
    f'{speed.versions(row["versions"])}; commit '
    f'{(row["commit"] or "unknown")[:12]}, config '
    f'{row["config_sha256"][:12]}. To run it again:'
  )
  parts.append(f'```\n{row["command"]}\n```')
  return '\n\n'.join(parts) + '\n'


def panels(row: Mapping[str, Any]) -> list[Panel]:
  """The row's metric of each arm, and its comparisons, to be drawn."""
  compared = [
    (name or 'the claim', pair, row)
    for name, pair in arms.comparisons(row).items()
    if pair['better'] != pair['than']
  ]
  own = Panel(wording.heading(row['metric']), arms.lines(row))
  return [own, *arms.differences(compared)]


def pictures(run: str | Path) -> Iterator[str]:
  """What a run drew, by paths in its workdir; examples come last."""
  run = files.as_path(run)
  yield from (name for name in _PICTURES if (run / name).is_file())
  for file in sorted((run / run_files.EXAMPLES).glob('*.png')):
    yield file.relative_to(run).as_posix()


def title(row: Mapping[str, Any]) -> str:
  """The system's name, behind the number of its work in the survey."""
  work = row['survey'].get('work')
  return f'[{work}] {row["system"]}' if work else row['system']


def _shown(path: str) -> str:
  """A picture of a run, with what it shows."""
  name = path.rpartition('/')[2]
  examples = name.removesuffix('.png').replace('_', ' ')
  said = _PICTURES.get(name, f'Examples: {examples}')
  return f'{said}:\n\n![{said}]({path})'


_TWICE = """\
Each method with its published weights, and with these weights times a factor
that was chosen on the validation split. It is compared with a rival that had
equally many trials:"""


def _twice(row: Mapping) -> tuple[dict, dict]:
  """Comparisons made without tuning and with it, and the rest."""
  pairs = arms.comparisons(row)
  twice = {
    name: (pair, pairs[name + arms.TUNED])
    for name, pair in pairs.items()
    if name and name + arms.TUNED in pairs
  }
  known = {*twice, *(name + arms.TUNED for name in twice)}
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
  return markdown.table(header, lines)


_ORDER = f"""\
The tuned methods in order: the rank by the mean, its {wording.CONFIDENCE}
interval, and how often the method is among the first three, by a bootstrap over
the seeds; and what a step of one seed costs (memory: what is kept between
steps, without activations)."""


def _in_order(row: Mapping, twice: Mapping) -> str:
  """The tuned arms and their rival, with the cost of their steps."""
  metric = row['metric']
  tuned = [pair['better'] for _, pair in twice.values()]
  tuned += dict.fromkeys(pair['than'] for _, pair in twice.values())
  values = {arm: row_files.values_of(row, arm, metric) for arm in tuned}
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
  return markdown.table(header, lines)


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


def _compared(name: str, pair: Mapping, row: Mapping) -> str:
  """A claim, or a control, and its verdict."""
  claim = arms.claim(name, pair)
  said, judged = wording.verdict(pair, row), wording.judgement(pair)
  said = f'{said}.' if said.startswith(judged) else f'{said}; {judged}.'
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

  return markdown.table(
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
  return markdown.table(header, lines)


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
  table = markdown.table(
    ['Tuned arm', 'Grid', 'Trials', 'Chosen', 'Split'],
    [
      [
        arm,
        arms.pairs(entry['grid']),
        str(entry['trials']),
        arms.pairs(entry['chosen']),
        entry['split'],
      ]
      for arm, entry in tuning.items()
    ],
  )
  if len({entry['trials'] for entry in tuning.values()}) > 1:
    table += '\n\nThe arms did not have the same number of trials.'
  return table


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
  table = markdown.table(
    ['Cost', *kinds],
    [
      [name, *(wording.plain(found.get(name, '')) for found in kinds.values())]
      for name in names
    ],
  )
  said, step = [], 'the FLOPs of a step'
  if cost.get('step_ms') is not None:
    said.append(f'A step of all seeds takes {cost["step_ms"]:.3g} ms.')
    step = 'its FLOPs'
  if cost.get('teacher_share') is not None:
    share = f'{100 * cost["teacher_share"]:.0f} %'
    said.append(f'The teachers take {share} of {step}.')
  return '\n\n'.join(filter(None, [table, ' '.join(said)]))


def _spoken(seconds: float | None) -> str:
  if seconds is None:
    return 'Ran'
  if seconds < 120:
    return f'{seconds:.0f} seconds'
  return f'{seconds / 60:.0f} minutes'
