"""Sweeps: configs × overrides, each a run of its own, and one table of all.

An override is what ``--config.ENTRY=VALUE`` is to a single run, so that names
and types are checked by the same code and any run of a sweep can be run alone.
"""

import itertools
import re
import shlex
import threading
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags
from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jaxkd import files, models
from jaxkd.errors import UserError, unknown, within
from jaxkd.report import compare, wording
from jaxkd.run import arms, config_values, launch, pipeline, terms, tuning
from jaxkd.train import optimizer

_LONGEST = 200  # characters of a folder's name, of 255 that systems take


class Combination(NamedTuple):
  """One run of a sweep.

  Attributes:
    file: of its config, ``FILE`` or ``FILE:SIZE``.
    overrides: entry -> value, as on the command line.
    config: complete, overrides applied.
  """

  file: str
  overrides: dict[str, str]
  config: dict

  @property
  def flags(self) -> list[str]:
    """What `experiments/distill.py` is given to run it alone."""
    changes = [f'--config.{k}={v}' for k, v in self.overrides.items()]
    return [f'--config={self.file}', *changes]

  @property
  def folder(self) -> Path:
    """The name of its folder in the sweep's; the same in every sweep."""
    pairs = [
      f'{entry}={urllib.parse.quote(value, safe="(),")}'
      for entry, value in sorted(self.overrides.items())
    ]
    name = '+'.join(pairs) or 'as_it_is'
    if len(name) > _LONGEST:
      name = f'{name[:_LONGEST]}-{zlib.crc32(name.encode()):08x}'
    return Path(self.config['name'], name)

  def __str__(self) -> str:
    changes = [f'{k}={v}' for k, v in self.overrides.items()]
    return ' '.join([self.config['name'], *changes])


class Outcome(NamedTuple):
  """The outcome of a combination: its row, or why there is none."""

  combination: Combination
  row: dict | None
  failure: str = ''


def combinations(
  files: Sequence[str], sets: Sequence[str], tune: Sequence[str] = ()
) -> list[Combination]:
  """All runs of a sweep, checked as far as can be without any data.

  Args:
    files: the configs, ``FILE`` or ``FILE:SIZE`` each.
    sets: ``ENTRY=VALUE,VALUE,...`` each. Values are separated by ``;`` if
      there is one, else by the commas that stand outside of brackets.
    tune: grids that every run is to search; see `jaxkd.run.tuning`.

  Raises:
    UserError: an entry that does not exist, a value of a wrong type or that
      is not allowed, or two equal runs.
  """
  if not files:
    raise UserError('--configs: name one config file or more')
  grid: dict[str, list[str]] = {}
  for text in sets:
    entry, values = _values(text)
    if entry in grid:
      raise UserError(f'--set {text}: {entry} is set twice; give one --set all')
    grid[entry] = values
  made = []
  for file in files:
    for values in itertools.product(*grid.values()):
      overrides = dict(zip(grid, values, strict=True))
      made.append(_combination(file, overrides, tune))
  folders = [combination.folder for combination in made]
  for folder, combination in zip(folders, made, strict=True):
    if folders.count(folder) > 1:
      raise UserError(
        f'--configs, --set: more than one run is called {combination}; give '
        'every config and every value once, and configs different names'
      )
  return made


def run(
  made: Sequence[Combination],
  directory: str | Path,
  *,
  tune: Sequence[str] = (),
  overwrite: bool = False,
  stop: threading.Event | None = None,
  console: Console | None = None,
) -> list[Outcome]:
  """Runs the combinations one after another, each in a folder of its own.

  Finished runs are not run again, one that was cut short goes on, and one that
  fails does not stop the others.

  Args:
    made: from `combinations`.
    directory: the sweep's.
    tune: grids to search on the validation split; see `jaxkd.run.tuning`.
    overwrite: as `jaxkd.run` has it, for each of them.
    stop: when set, the run at hand saves its state.
    console: where to print.

  Raises:
    Stopped: `stop` was set.
  """
  console = console or Console()
  directory, outcomes = files.path(directory, at='--workdir', remote=True), []
  for number, combination in enumerate(made, 1):
    if stop is not None and stop.is_set():
      raise pipeline.Stopped(f'stopped after {len(outcomes)} of {len(made)}')
    console.print(
      Text.assemble((f'\n{number}/{len(made)} ', 'bold'), str(combination))
    )
    try:
      row = pipeline.run_complete(
        combination.config,
        directory / combination.folder,
        overwrite=overwrite,
        tune=tuple(tune),
        stop=stop,
        console=console,
        command=_command(combination, tune, directory),
      )
      outcomes.append(Outcome(combination, row))
    except (UserError, jax.errors.JaxRuntimeError) as error:
      failure = next(iter(str(error).splitlines()), type(error).__name__)
      console.print(Text(f'failed: {failure}', 'red'))
      outcomes.append(Outcome(combination, None, failure))
  return outcomes


def part_of(made: Sequence[Combination], part: str) -> list[Combination]:
  """One of several parts of a sweep, which may run at the same time.

  Args:
    made: from `combinations`.
    part: ``I/N``: the I-th of N, counted from 1; empty for all. The N-th part
      takes every N-th run, so that parts take about as long.

  Raises:
    UserError: it is no such part, or has no run.
  """
  if not part:
    return list(made)
  matched = re.fullmatch(r'([1-9]\d*)/([1-9]\d*)', part)
  number, count = map(int, matched.groups()) if matched else (0, 0)
  if not 1 <= number <= count:
    raise UserError(
      f'--part {part}: write I/N, the I-th of N parts, as 1/4, 2/4, 3/4, 4/4'
    )
  if number > len(made):
    raise UserError(
      f'--part {part}: the sweep has {len(made)} runs; take at most as many '
      'parts'
    )
  return list(made[number - 1 :: count])


def save(outcomes: Sequence[Outcome], directory: str | Path) -> None:
  """Writes all arms of all runs as ``table.csv`` and ``table.tex``."""
  found = {str(o.combination): o.row for o in outcomes if o.row}
  if found:
    compare.save(compare.compared(found), directory)


def table(outcomes: Sequence[Outcome]) -> Group:
  """The table at the end of a sweep, with a line for each run.

  Whatever is the same in all runs is in the title. Controls are only in the
  rows.
  """
  asked, reached, judged = (
    [part(outcome) for outcome in outcomes]
    for part in (_asked, _reached, _judged)
  )
  title, varied = [], []
  for name in _names(asked):
    values = {cells[name] for cells in asked if name in cells}
    if len(values) > 1:
      varied.append(name)
    else:
      title.append(f'{name}: {values.pop()}')
  drawn = Table(
    title='\n'.join(title),
    title_justify='left',
    title_style='bold',
    box=box.SIMPLE_HEAD,
    pad_edge=False,
  )
  names = [*varied, *_names(reached), 'paired difference', 'claim']
  for name in names:
    justify = 'left' if name in varied else 'right'
    heading = _short(name, varied)
    drawn.add_column(Text(heading), justify=justify, overflow='fold')
  for parts in zip(asked, reached, judged, strict=True):
    cells = {k: v for part in parts for k, v in part.items()}
    drawn.add_row(*(Text(cells.get(name, '–')) for name in names))
  rows = [outcome.row for outcome in outcomes if outcome.row]
  said = [Text(wording.cells(rows), style='dim')] if rows else []
  if any(wording.TINY in row.get('notes', ()) for row in rows):
    said.append(Text(wording.TINY, style='yellow'))
  said += [
    Text.assemble(('failed ', 'red'), f'{o.combination}: {o.failure}')
    for o in outcomes
    if not o.row
  ]
  return Group(drawn, *(Padding(line, (0, 1)) for line in said))


def _combination(
  file: str, overrides: dict[str, str], tune: Sequence[str]
) -> Combination:
  """A combination whose config has been checked."""
  values = flags.FlagValues()
  made = Combination(file, overrides, {})
  launch.parse(['sweep', *made.flags], values=values)
  config = launch.config(values)
  _check(config)
  tuning.parse((*config['tune'], *tune), config, arms.configs_of(config))
  return made._replace(config=config)


def _check(config: dict) -> None:
  """Refuses errors that can be found without loading data or building nets."""
  config_values.check(config)
  for own in arms.configs_of(config).values():
    terms.build(own['distill'], list(own['students']))
    optimizer.optimizer(own['train'])
    for name, entry in own['teachers'].items():
      with within(f'teachers.{name}.'):
        optimizer.optimizer(entry['train'])
    for section in ('teachers', 'students'):
      for name, entry in own[section].items():
        model, known = entry['model'], models.defaults(entry['model'])
        for option in entry['kw']:
          if option not in known and ':' not in model:  # one's own takes any
            raise unknown(
              f'option of {model}', option, known, f'{section}.{name}.kw'
            )


def _values(text: str) -> tuple[str, list[str]]:
  """The entry and the values of ``ENTRY=VALUE,VALUE,...``."""
  matched = re.fullmatch(r'([\w.]+)=(.*)', text, re.DOTALL)
  if not matched:
    raise UserError(f'--set {text!r}: write ENTRY=VALUE,VALUE,...')
  entry, listed = matched.groups()
  separator = ';' if ';' in listed else ','
  values, depth = [''], 0
  for letter in listed:
    depth += (letter in '([{') - (letter in ')]}')
    if letter == separator and not depth:
      values.append('')
    else:
      values[-1] += letter
  return entry, [value.strip() for value in values]


def _command(
  combination: Combination, tune: Sequence[str], directory: str | Path
) -> str:
  """The command that runs a combination alone, where the sweep has run it."""
  return shlex.join(
    [
      'python',
      'experiments/distill.py',
      *combination.flags,
      *(f'--tune={grid}' for grid in tune),
      f'--workdir={directory / combination.folder}',
    ]
  )


def _asked(outcome: Outcome) -> dict[str, str]:
  """The settings of a run, by column."""
  cells = {'config': outcome.combination.config['name']}
  cells |= outcome.combination.overrides
  if outcome.row:
    pair = outcome.row['comparison']
    cells['metric'] = wording.heading(outcome.row['metric'])
    cells['difference'] = f'{pair["better"]} - {pair["than"]}'
  return cells


def _reached(outcome: Outcome) -> dict[str, str]:
  """The results of its arms, by column."""
  row = outcome.row
  return {
    arm: wording.mean(row['arms'][arm]['values'], row['metric'])
    for arm in (wording.arms(row) if row else ())
  }


def _judged(outcome: Outcome) -> dict[str, str]:
  """The verdict on its claim, by column."""
  if not outcome.row:
    return {'claim': 'failed'}
  pair = outcome.row['comparison']
  return {
    'paired difference': wording.difference(pair, outcome.row),
    'claim': wording.judgement(pair),
  }


def _short(name: str, others: Sequence[str]) -> str:
  """The last words of an entry's name that tell it from the others."""
  words = name.split('.')
  for count in range(1, len(words)):
    last = '.'.join(words[-count:])
    if sum(f'.{other}'.endswith(f'.{last}') for other in others) == 1:
      return last
  return name


def _names(lines: Sequence[Mapping[str, str]]) -> list[str]:
  """All columns that some line has, in order."""
  return list(dict.fromkeys(name for cells in lines for name in cells))
