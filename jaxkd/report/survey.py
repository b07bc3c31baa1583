"""The survey's tables and claims, beside what is here.

`survey.toml` has the survey's own cells, its claims, what their sources show,
and which comparison of which row decides each. Our cells are those of the
configs, our verdicts those of the rows: none is written down.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxkd.errors import UserError, unknown
from jaxkd.report import rows as row_files
from jaxkd.report import tables, wording

FILE = Path(__file__).with_suffix('.toml')
ABSENT = 'not yet here'
VERDICTS = {
  True: 'holds',
  False: 'does not hold',
  None: 'cannot be told',
  ABSENT: ABSENT,
}

_CELLS = ('objective', 'data', 'teacher', 'knowledge', 'method', 'student')
SCHEMA = {
  'cite': str,
  'title': str,
  'url': str,
  'tables': {'*': [int]},  # the works in the survey's order
  'word': [{'survey': str, 'ours': str}],
  'work': [
    {
      'number': (int, str),  # text for what the survey says by itself
      'cite': str,
      'title?': str,
      'url?': str,
      'configs': [str],  # those that are to be
      'notes?': [str],  # where the survey and the work differ
      'cells?': [  # in the survey's words
        {'experiment?': str, 'dataset': str} | dict.fromkeys(_CELLS, str)
      ],
    }
  ],
  'claim': [
    {
      'id': str,
      'work': (int, str),
      'short': str,
      'survey': str,
      # what the source shows, by how sure that is
      'source': {'read?': str, 'derived?': str, 'memory?': str},
      'needs': [  # all of them must hold
        {
          'row': str,
          'compare?': str,  # a control; by default the row's own comparison
          'asks': str,
          'opposite?': object,  # true: of what the comparison claims
          'may_lose?': float,  # in the metric's own units
        }
      ],
    }
  ],
}
_KNOWN = {
  'read': 'read in the work, its code or an account of it',
  'derived': 'derived from what was read',
  'memory': 'not checked',
}


class Config(NamedTuple):
  """What the pages say of a config.

  Attributes:
    survey: its entry of that name.
    dataset: the source of its data.
    controls: the names of its comparisons beside its own.
  """

  survey: Mapping[str, Any]
  dataset: str
  controls: Sequence[str]


class Found(NamedTuple):
  """What a row says to one need of a claim.

  Attributes:
    holds: a key of `VERDICTS`.
    row: None if it is not here.
    pair: the comparison, in the claim's direction; None if it is not here.
  """

  holds: bool | str | None
  row: Mapping[str, Any] | None = None
  pair: Mapping[str, Any] | None = None


def load(path: str | Path = FILE) -> dict:
  """Reads the survey.

  Raises:
    UserError: the file is not as `SCHEMA` has it, names a work or config that
      it does not list, or gives a figure that nobody has checked.
  """
  try:
    held = tomllib.loads(Path(path).read_text('utf-8'))
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'{path} is not TOML ({error}); correct it') from error
  row_files.check_shape(held, SCHEMA, str(path))
  held = _one_line(held)
  works = [work['number'] for work in held['work']]
  configs = [name for work in held['work'] for name in work['configs']]
  for kind, names in (
    ('work', works),
    ('config', configs),
    ('claim', [claim['id'] for claim in held['claim']]),
  ):
    twice = [name for name in names if names.count(name) > 1]
    if twice:
      raise UserError(f'{path}: the {kind} {twice[0]} is there twice')
  for name, numbers in held['tables'].items():
    for number in numbers:
      if number not in works:
        raise unknown('work', number, works, f'{path}: tables.{name}')
  for claim in held['claim']:
    at = f'{path}: claim {claim["id"]}'
    if claim['work'] not in works:
      raise unknown('work', claim['work'], works, at)
    if not claim['needs']:
      raise UserError(f'{at} needs nothing; say which row decides it')
    if re.search(r'\d', claim['source'].get('memory', '')):
      raise UserError(
        f'{at}: source.memory has a figure; check it and move it to '
        'source.read, or leave it out'
      )
    for need in claim['needs']:
      if need['row'] not in configs:
        raise unknown('config', need['row'], configs, at)
  return held


def read_configs(folder: str | Path) -> dict[str, Config]:
  """What there is of configs in a folder, by name.

  Raises:
    UserError: there is no such folder, or a file in it is not a config.
  """
  from jaxkd import config  # needs jax, as nothing else here does

  folder = Path(folder)
  if not folder.is_dir():
    raise UserError(
      f'there is no directory {folder}; run this where the repository is'
    )
  found = {}
  for path in sorted(folder.glob('*.py')):
    held = config.load(str(path)).to_dict()
    found[path.stem] = Config(
      held['survey'], held['data']['source'], tuple(held['report']['controls'])
    )
  return found


def check(survey: Mapping[str, Any], configs: Mapping[str, Config]) -> None:
  """Checks that the survey and the configs know each other.

  Raises:
    UserError: a claim needs a comparison that its config does not make, or a
      config says that it is of a work that is not there.
  """
  for claim in survey['claim']:
    for need in claim['needs']:
      config, name = configs.get(need['row']), need.get('compare')
      if config and name and name not in config.controls:
        at = f'{FILE.name}: claim {claim["id"]}: {need["row"]}'
        raise unknown('control', name, config.controls, at)
  works = [work['number'] for work in survey['work']]
  for name, config in configs.items():
    work = config.survey.get('work')
    if work and work not in works:
      raise unknown('work', work, works, f'configs/{name}.py: survey.work')


def survey_md(survey: Mapping[str, Any], configs: Mapping[str, Config]) -> str:
  """The page of the survey's tables, in its words and in ours."""
  works = {work['number']: work for work in survey['work']}
  parts = [_INTRODUCTION.format(survey=_cited(survey))]
  for name, numbers in survey['tables'].items():
    lines = [line for n in numbers for line in _lines(works[n], configs)]
    header = ['Work', 'Objective', 'Data', 'Teacher', 'Knowledge', 'Student']
    parts += [f'## Table {name}', tables.markdown_table(header, lines)]
  tabled = {n for numbers in survey['tables'].values() for n in numbers}
  lines = [
    line
    for number, work in works.items()
    if number not in tabled
    for line in _lines(work, configs)
  ]
  if lines:
    parts += [
      '## In neither table',
      'A work that the survey cites in its text alone, and what it says by '
      'itself.',
      tables.markdown_table(header, lines),
    ]
  parts += ['## Its words and ours', _words(survey)]
  parts += ['## Where the survey and the works differ', _notes(survey)]
  parts += ['## The works', _bibliography(survey)]
  return '\n\n'.join(parts) + '\n'


def claims_md(
  survey: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> str:
  """The page of the survey's claims, each with its verdict.

  Args:
    survey: as `load` gives it.
    rows: valid rows.
  """
  by_system = {row['system']: row for row in rows}
  found = {
    claim['id']: [look_up(need, by_system) for need in claim['needs']]
    for claim in survey['claim']
  }
  verdicts = {name: VERDICTS[verdict(all_)] for name, all_ in found.items()}
  counts = ', '.join(
    f'{list(verdicts.values()).count(said)} {said}'
    for said in VERDICTS.values()
  )
  overview = tables.markdown_table(
    ['Claim', 'Work', 'In short', 'Verdict'],
    [
      [claim['id'], f'[{claim["work"]}]', claim['short'], verdicts[claim['id']]]
      for claim in survey['claim']
    ],
  )
  parts = [
    _CLAIMS.format(survey=_cited(survey), known=_known()),
    f'Of {len(verdicts)} claims: {counts}.',
    overview,
  ]
  works = {work['number']: work for work in survey['work']}
  for claim in survey['claim']:
    name = claim['id']
    parts += [
      f'## {name}: {claim["short"]}',
      _claim(claim, works[claim['work']], found[name], verdicts[name]),
    ]
  return '\n\n'.join(parts) + '\n'


def look_up(
  need: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> Found:
  """What the rows say to one need of a claim.

  Args:
    need: see `SCHEMA`.
    rows: by system.
  """
  row = rows.get(need['row'])
  if row is None:
    return Found(ABSENT)
  pairs = {None: row['comparison']} | row.get('comparisons', {})
  pair = pairs.get(need.get('compare'))
  if pair is None:
    return Found(ABSENT, row)
  if need.get('opposite'):
    pair = _opposite(pair)
  if pair['ci95'] is None:
    return Found(None, row, pair)
  low, high = pair['ci95'] if row['higher_is_better'] else _negated(pair)
  least = -need.get('may_lose', 0.0)
  holds = True if low > least else False if high < least else None
  return Found(holds, row, pair)


def verdict(found: Sequence[Found]) -> bool | str | None:
  """Whether a claim holds: a key of `VERDICTS`.

  All that it needs must hold; one that does not decides it, even where others
  are not yet here.
  """
  said = [one.holds for one in found]
  for decides in (False, ABSENT, None):
    if decides in said:
      return decides
  return True


def _opposite(pair: Mapping[str, Any]) -> dict:
  """A comparison the other way round."""
  mean = pair['mean_difference']
  return {
    **pair,
    'better': pair['than'],
    'than': pair['better'],
    'mean_difference': None if mean is None else -mean,
    'ci95': None if pair['ci95'] is None else _negated(pair),
  }


def _negated(pair: Mapping[str, Any]) -> list[float]:
  low, high = pair['ci95']
  return [-high, -low]


def _lines(
  work: Mapping[str, Any], configs: Mapping[str, Config]
) -> list[list[str]]:
  """The lines of a work in a table: the survey's, then ours."""
  number = work['number']
  lines = []
  for cells in work.get('cells', [{}]):
    experiment = cells.get('experiment', '')
    title = ' '.join(
      filter(None, [f'**[{number}]**', work['cite'], experiment])
    )
    lines.append([title, *_six(cells, cells.get('dataset', ''))])
  names = dict.fromkeys(work['configs'])
  names |= dict.fromkeys(
    name for name, c in configs.items() if c.survey.get('work') == number
  )
  for name in filter(configs.get, names):
    config = configs[name]
    link = f'[{name}](../configs/{name}.py)'
    lines.append([link, *_six(config.survey, config.dataset)])
  absent = [name for name in names if name not in configs]
  if absent:
    lines.append([', '.join(absent), ABSENT, '', '', '', ''])
  return lines


def _six(cells: Mapping[str, Any], dataset: str) -> list[str]:
  """The cells of one line beside its title."""
  objective, data, teacher, knowledge, method, student = (
    str(cells.get(name) or '') for name in _CELLS
  )

  def both(one, other):
    return '; '.join(filter(None, [one, other]))

  return [
    objective,
    both(data, dataset),
    teacher,
    both(knowledge, method),
    student,
  ]


def _words(survey: Mapping[str, Any]) -> str:
  return tables.markdown_table(
    ['The survey', 'jaxkd'],
    [[word['survey'], word['ours']] for word in survey['word']],
  )


def _notes(survey: Mapping[str, Any]) -> str:
  return '\n'.join(
    f'- **[{work["number"]}]** {note}'
    for work in survey['work']
    for note in work.get('notes', ())
  )


def _bibliography(survey: Mapping[str, Any]) -> str:
  return '\n'.join(
    f'- **[{work["number"]}]** {_cited(work)}'
    for work in survey['work']
    if isinstance(work['number'], int)
  )


def _cited(work: Mapping[str, Any]) -> str:
  """Author, year and title, linked where there is a link."""
  title = work.get('title', '')
  if work.get('url'):
    title = f'[{title}]({work["url"]})'
  return ', '.join(filter(None, [work['cite'], title]))


def _claim(
  claim: Mapping[str, Any],
  work: Mapping[str, Any],
  found: Sequence[Found],
  said: str,
) -> str:
  """One claim: the survey, its source, and our rows."""
  shows = ' '.join(
    f'{claim["source"][known]} *({known})*'
    for known in _KNOWN
    if known in claim['source']
  )
  where = f'[{work["number"]}] {work["cite"]}'
  lines = [
    f'- The survey: {claim["survey"]}',
    f'- The source, {where}: {shows}',
    f'- Here: **{said}**.',
  ]
  for need, one in zip(claim['needs'], found, strict=True):
    lines.append(f'  - {need["asks"]}: {_evidence(need, one)}')
  return '\n'.join(lines)


def _evidence(need: Mapping[str, Any], found: Found) -> str:
  said = VERDICTS[found.holds]
  if found.row is None:
    return f'{said} ({_comparison(need, need["row"])})'
  where = _comparison(need, tables.link(found.row, '../BENCHMARKS.md'))
  if found.pair is None:
    return f'{said} ({where})'
  pair, row = found.pair, found.row
  seeds = pair['seeds']
  few = 'only ' if seeds < wording.ENOUGH_SEEDS else ''
  on = f'{few}{seeds} paired seed{"" if seeds == 1 else "s"}'
  gap = wording.difference(pair, row)
  if need.get('may_lose'):
    unit = 'points' if wording.is_fraction(row['metric']) else row['metric']
    lost = wording.number(need['may_lose'], row['metric'])
    gap += f', where {lost} {unit} may be lost'
  return (
    f'**{said}**: {pair["better"]} - {pair["than"]} is {gap}, {on} ({where})'
  )


def _comparison(need: Mapping[str, Any], row: str) -> str:
  return ', '.join(filter(None, [row, need.get('compare')]))


def _known() -> str:
  return ', '.join(f'*{name}* is {said}' for name, said in _KNOWN.items())


def _one_line(held: Any) -> Any:
  """What was read, with one space for white space in all texts."""
  if isinstance(held, dict):
    return {name: _one_line(entry) for name, entry in held.items()}
  if isinstance(held, list):
    return [_one_line(entry) for entry in held]
  return ' '.join(held.split()) if isinstance(held, str) else held


_INTRODUCTION = """\
# The survey

Made by `python -m jaxkd.report` from `jaxkd/report/survey.toml` and the
configs; `python -m jaxkd.report --survey` prints it.

{survey}, puts eighteen works into two tables. Here they are in its own words,
each with our configs below it in ours. [claims.md](claims.md) has what it
claims, and whether that holds here.

*Data* is how the data is modified, then the dataset; *knowledge* is its type,
then how it is transferred."""

_CLAIMS = """\
# The survey's claims

Made by `python -m jaxkd.report` from `jaxkd/report/survey.toml` and the rows;
`python -m jaxkd.report --claims` prints it.

What is claimed by {survey}, what the source of each claim shows, and what our
rows say. Sources: {known}. A claim holds if the intervals of all comparisons
that it needs are on its side, does not hold if one is on the other side, and
cannot be told if one spans zero. Our data and nets are far smaller than those
of the works, so it is the direction that can be repeated, not the figures.
[survey.md](survey.md) has the works, [BENCHMARKS.md](../BENCHMARKS.md) the
rows."""
