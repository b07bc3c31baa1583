"""Pages that compare the survey's tables and claims with our results.

`survey.toml` holds the survey's cells and claims, the figures of their sources,
and which comparison of which row decides each claim. Our own cells are read
from the configs, and our verdicts from the rows.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxkd.errors import UserError, unknown
from jaxkd.report import benchmarks, markdown, wording
from jaxkd.report import rows as row_files

FILE = Path(__file__).with_suffix('.toml')
ABSENT = 'not yet here'
VERDICTS = {
  True: 'holds',
  False: 'does not hold',
  None: 'cannot be told',
  ABSENT: ABSENT,
}

_UNCHANGED = ('-', 'none')  # what the survey and our configs call such data
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
      'works': [(int, str)],
      'short': str,
      'survey': str,
      # what the source shows, by how sure that is
      'source': {'read?': str, 'derived?': str, 'memory?': str},
      'needs': [  # all of them must hold
        {
          'row': str,
          'compare?': str,  # a control; by default the row's own comparison
          'asks': str,
          'opposite?': bool,  # of what the comparison claims
          'may_lose?': float,  # in the metric's own units
        }
      ],
    }
  ],
}


class Config(NamedTuple):
  """What the pages need of a config.

  Attributes:
    survey: its entry of that name.
    dataset: the source of its data.
    controls: the names of its comparisons beside its own.
  """

  survey: Mapping[str, Any]
  dataset: str
  controls: Sequence[str]


class Found(NamedTuple):
  """The evidence of a row on one part of a claim.

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
    for number in claim['works']:
      if number not in works:
        raise unknown('work', number, works, at)
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
  from jaxkd.run import config  # needs jax, as nothing else here does

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
  parts = [_SURVEY.format(survey=_cited(survey))]
  tabled = {n for numbers in survey['tables'].values() for n in numbers}
  for title, numbers in {
    **{f'Table {name}': of for name, of in survey['tables'].items()},
    'In neither table': [n for n in works if n not in tabled],
  }.items():
    lines = [line for n in numbers for line in _lines(works[n], configs)]
    parts += [f'## {title}', markdown.table(_HEADER, lines)]
  parts += [
    '## Its words and ours',
    markdown.table(
      ['The survey', 'jaxkd'],
      [[word['survey'], word['ours']] for word in survey['word']],
    ),
    '## Where the survey and the works differ',
    '\n'.join(
      f'- **{_reference(work)}** {note}'
      for work in works.values()
      for note in work.get('notes', ())
    ),
    '## The works',
    '\n'.join(
      f'- **{_reference(work)}** {_cited(work)}'
      for number, work in works.items()
      if isinstance(number, int)
    ),
  ]
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
  works = {work['number']: work for work in survey['work']}
  overview, sections, said = [], [], []
  for claim in survey['claim']:
    found = [look_up(need, by_system) for need in claim['needs']]
    said.append(VERDICTS[verdict(found)])
    of = [works[number] for number in claim['works']]
    references = ', '.join(map(_reference, of))
    overview.append([claim['id'], references, claim['short'], said[-1]])
    sections += [
      f'## {claim["id"]}: {claim["short"]}',
      _claim(claim, of, found, said[-1]),
    ]
  counts = ', '.join(f'{v} {said.count(v)}' for v in VERDICTS.values())
  header = ['Claim', 'Work', 'In short', 'Verdict']
  parts = [
    _CLAIMS.format(survey=_cited(survey)),
    f'{len(said)} claims: {counts}.',
    markdown.table(header, overview),
    *sections,
  ]
  return '\n\n'.join(parts) + '\n'


def look_up(
  need: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> Found:
  """The evidence of the rows on one part of a claim.

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
  is_up = row_files.is_up(pair, row)
  low, high = pair['ci95'] if is_up else _negated(pair)
  least = -need.get('may_lose', 0.0)
  holds = True if low > least else False if high < least else None
  return Found(holds, row, pair)


def verdict(found: Sequence[Found]) -> bool | str | None:
  """Whether a claim holds: a key of `VERDICTS`.

  All of its parts must hold; one that does not decides the claim, even if the
  rows of other parts are missing.
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
  lines = []
  for cells in work.get('cells', [{}]):
    title = f'**{_reference(work)}** {work["cite"]}'
    if 'experiment' in cells:
      title += f' ({cells["experiment"]})'
    lines.append([title, *_line(cells, cells.get('dataset', ''))])
  ours = (
    name
    for name, config in configs.items()
    if config.survey.get('work') == work['number']
  )
  absent = []
  for name in dict.fromkeys([*work['configs'], *ours]):
    if name in configs:
      link = f'[{name}](../configs/{name}.py)'
      config = configs[name]
      lines.append([link, *_line(config.survey, config.dataset)])
    else:
      absent.append(name)
  if absent:
    lines.append([', '.join(absent), ABSENT, '', '', '', ''])
  return lines


def _line(cells: Mapping[str, Any], dataset: str) -> list[str]:
  """The cells of a line beside its title."""
  objective, data, teacher, knowledge, method, student = (
    str(cells.get(name) or '') for name in _CELLS
  )
  data = '' if data in _UNCHANGED else data

  def both(*words):
    return '; '.join(filter(None, words))

  return [
    objective, both(data, dataset), teacher, both(knowledge, method), student
  ]  # fmt: skip


def _reference(work: Mapping[str, Any]) -> str:
  number = work['number']
  return f'[{number}]' if isinstance(number, int) else number


def _cited(work: Mapping[str, Any]) -> str:
  """Author, year and title, linked where there is a link."""
  title = work.get('title', '')
  if 'url' in work:
    title = f'[{title}]({work["url"]})'
  return ', '.join(filter(None, [work['cite'], title]))


def _claim(
  claim: Mapping[str, Any],
  works: Sequence[Mapping[str, Any]],
  found: Sequence[Found],
  said: str,
) -> str:
  """One claim: the survey, its source, and our rows."""
  shows = ' '.join(
    f'{text} *({known})*' for known, text in claim['source'].items()
  )
  cited = '; '.join(
    f'{_reference(work)} {work["cite"]}'
    if 'cells' in work
    else _reference(work)
    for work in works
  )
  lines = [
    f'- The survey: {claim["survey"]}',
    f'- The source ({cited}): {shows}',
    f'- Here: **{said}**.',
  ]
  for need, one in zip(claim['needs'], found, strict=True):
    lines.append(f'  - {need["asks"]}: {_evidence(need, one)}')
  return '\n'.join(lines)


def _evidence(need: Mapping[str, Any], found: Found) -> str:
  """The evidence of one comparison, with its figures."""
  row, pair = found.row, found.pair
  where = benchmarks.link(row, benchmarks.FOLDER.name) if row else need['row']
  where = ', '.join(filter(None, [where, need.get('compare')]))
  if pair is None:
    return f'{ABSENT} ({where})'
  difference = wording.difference(pair, row)
  if 'may_lose' in need:
    metric = row_files.metric_of(pair, row)
    least = wording.number(need['may_lose'], metric)
    difference += f', where {least} {wording.unit(metric)} may be lost'
  seeds = pair['seeds']
  on = 'only ' if seeds < wording.ENOUGH_SEEDS else ''
  on += f'{seeds} paired seed{"s" if seeds > 1 else ""}'
  return (
    f'**{VERDICTS[found.holds]}**, {pair["better"]} - {pair["than"]} is '
    f'{difference} on {on} ({where})'
  )


def _one_line(held: Any) -> Any:
  """What was read, with one space for white space in all texts."""
  if isinstance(held, dict):
    return {name: _one_line(entry) for name, entry in held.items()}
  if isinstance(held, list):
    return [_one_line(entry) for entry in held]
  return ' '.join(held.split()) if isinstance(held, str) else held


_HEADER = ['Work', 'Objective', 'Data', 'Teacher', 'Knowledge', 'Student']

_SURVEY = """\
# The survey

{survey},
models published works in two tables. Here are its entries in its own words, and
below each work the configs of jaxkd that reproduce it. [claims.md](claims.md)
lists the claims of the survey and whether they hold here.

*Data* is the modification of the data, if any, and the data set; *knowledge* is
its type and how it is transferred.

This page is made by `python -m jaxkd.report` from `jaxkd/report/survey.toml`
and the configs; `python -m jaxkd.report --survey` prints it."""

_CLAIMS = """\
# The survey's claims

These are the claims of
{survey},
with what their sources show and what our rows show. *(read)* marks what was
read in the work itself, its code or an account of it, *(derived)* what follows
from that, and *(memory)* what was not checked; the last has no figures.

A claim holds if the intervals of all comparisons that it needs lie on its side
of zero. It does not hold if one interval lies on the other side. Otherwise, if
one spans zero, it cannot be told. Our data and nets are far smaller than those
of the works, so we can reproduce the direction of a difference, not its size.
[survey.md](survey.md) lists the works; [BENCHMARKS.md](../BENCHMARKS.md) has
the rows and explains how to read them.

This page is made by `python -m jaxkd.report` from `jaxkd/report/survey.toml`
and the rows; `python -m jaxkd.report --claims` prints it."""
