"""Grids searched on the validation split.

``distill.soft.weight=0.3,1,3`` is for every arm that uses the term,
``student:train.learning_rate=0.001,0.01`` for the arm `student` alone, and
``distill.a.weight,distill.b.weight*=0.1,1,10`` multiplies what the arm has in
both entries by each factor. Several grids make the product of their values.
Arms that are compared get equally many trials, but for what an arm does not
have. Numbers that only enter the step's arithmetic are mapped: their whole grid
trains as one population.
"""

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from rich.console import Console

from jaxkd import files, keys, run_files, shapes
from jaxkd.data.sources import Source
from jaxkd.distill.roles import Group
from jaxkd.errors import UserError, unknown
from jaxkd.report import rows
from jaxkd.run import (
  arms,
  checks,
  class_weights,
  config_values,
  job_checks,
  jobs,
  terms,
  train_job,
)
from jaxkd.run import config as configs
from jaxkd.run.plan import Round, configs_of
from jaxkd.run.types import Session
from jaxkd.train import hosts, optimizer

# entry -> values, or 'entry,entry*' -> factors on what the arm has in them
Grid = dict[str, tuple]

_TUNABLE = (
  r'distill\.[^.]+\.(weight|kw\..+|schedule\..+|fuse|teacher|example_weight)'
  r'|train\.(by_path\.[^.]+\.)?(learning_rate|schedule|schedule_kw\..+'
  r'|optimizer\.(name|kw\..+)|weight_decay|clip)'
  r'|train\.(accumulate|average)'
)
_RATE = r'train\.(by_path\.[^.]+\.)?learning_rate'
_MAPPED = (
  r'distill\.[^.]+\.(weight|kw\..+)'
  r'|train\.(by_path\.[^.]+\.)?optimizer\.kw\..+'
)


def parse(
  texts: Sequence[str], config: Mapping[str, Any], own: Mapping[str, dict]
) -> dict[str, Grid]:
  """The grid of each arm that is to be tuned.

  Args:
    texts: ``[ARM:]ENTRY=VALUE,VALUE,...`` each, or
      ``[ARM:]ENTRY,ENTRY,...*=FACTOR,FACTOR,...``.
    config: the run's.
    own: the config of each arm.

  Raises:
    UserError: no such arm or entry, a value of a wrong type, or arms that are
      compared with different numbers of trials.
  """
  grids: dict[str, Grid] = {}
  spared = set()
  for text in texts:
    at = f'--tune {text}'
    matched = re.fullmatch(r'(?:([^:=]+):)?([\w.,/]+)(\*?)=(.+)', text)
    if not matched:
      raise UserError(
        f'{at}: write [ARM:]ENTRY=VALUE,VALUE,... or '
        '[ARM:]ENTRY,ENTRY*=FACTOR,FACTOR,...'
      )
    arm, entries, factor, given = matched.groups()
    if arm and arm not in own:
      raise unknown('arm', arm, own, at)
    if ',' in entries and not factor:
      raise UserError(
        f'{at}: several entries take factors; write *= instead of ='
      )
    tuned = [arm] if arm else _arms_with(entries.split(','), own, at)
    spared |= set() if arm else own.keys() - set(tuned)
    for name in tuned:
      grid = grids.setdefault(name, {})
      values = [_literal(value) for value in given.split(',')]
      for entry in entries.split(','):
        if entry in _entries(grid):
          raise UserError(
            f'{at}: {entry} of the arm {name} is given twice; put all of its '
            'values into one grid'
          )
        values = _checked(entry, values, own[name], bool(factor), at)
      grid[entries + factor] = tuple(values)
  first = f'{min(config["rounds"])}/' if config['rounds'] else ''
  trials = {f'{first}{name}': _count(grids.get(name, {})) for name in own}
  report = config['report']
  for pair in (report['compare'], *report['controls'].values()):
    of = [arm for n in pair.values() for arm in report['derived'].get(n, [n])]
    compared = {
      name: trials[name]
      for name in of
      if name in trials and name.removeprefix(first) not in spared
    }
    if len(set(compared.values())) > 1:
      raise UserError(
        '--tune: arms that are compared get equally many trials, not '
        f'{compared}; give the arm with fewer a grid of its own '
        '(ARM:ENTRY=...)'
      )
  return grids


def _arms_with(
  entries: Sequence[str], own: Mapping[str, dict], at: str
) -> list[str]:
  """The arms that a grid for all arms is for: those that use its terms.

  An arm without the term would train the same net in every trial, or gain the
  term and be another arm. If no arm has the term, its weight is tuned in all.

  Raises:
    UserError: an entry that is not there, or that no arm uses.
  """
  found = []
  for name, config in own.items():
    used = terms.in_use(config['distill'])
    used |= {term['otherwise']: {} for term in used.values()}
    for entry in entries:
      configs.get(config, entry, at)
    named = {e.split('.')[1] for e in entries if e.startswith('distill.')}
    if named <= used.keys():
      found.append(name)
  if not found and all(entry.endswith('.weight') for entry in entries):
    return list(own)
  if not found:
    raise UserError(
      f'{at}: no arm uses the term, whose weight is 0 in all of them; name an '
      'arm, as in ARM:ENTRY=VALUE,VALUE'
    )
  return found


def _checked(entry, values, config, factors, at) -> list:
  """The values of a tunable entry, checked for their type."""
  default = configs.get(config, entry, at)
  if not re.fullmatch(_TUNABLE, entry):
    raise UserError(
      f'{at}: what can be tuned are the weight, the kw, the schedule, the '
      'teacher and the fusion of a term, and the optimiser, not the budget'
    )
  typed = [configs.typed(value, default, at) for value in values]
  if factors and not isinstance(default, int | float):
    raise UserError(f'{at}: {entry} is no number; write = instead of *=')
  if any(typed.count(value) > 1 for value in typed):
    raise UserError(f'{at}: give every value once')
  return typed


def _entries(grid: Grid) -> set[str]:
  """All entries that a grid sets."""
  return {entry for key in grid for entry in key.rstrip('*').split(',')}


def prepare(
  config: dict, directory: Path, texts: Sequence[str]
) -> tuple[Source, list[Round], dict[str, Grid]]:
  """`checks.prepare`, and the grids of the arms of the first round.

  Raises:
    UserError: something does not fit together, or a trial cannot work.
  """
  first = next(iter(configs_of(config).values()))
  texts = (*config['tune'], *texts)
  grids = parse(texts, first, arms.configs_of(first))
  for arm in grids:
    if arms.configs_of(first)[arm]['data']['generated']['name']:
      raise UserError(
        f'--tune: the arm {arm} sees examples that are generated and no data '
        'to be tuned on; leave it out'
      )
  source, rounds = checks.prepare(config, directory, grids)
  if config['tuned']:
    check_earlier(config['tuned'], grids)
  if grids:
    part = rounds[0]
    session = jobs.session_of(part, source, directory, progress=None)
    check(session, part, jobs.shapes_of(part), grids)
  return source, rounds, grids


def check(
  session: Session,
  part: Round,
  groups: Mapping[str, Group],
  grids: Mapping[str, Grid],
) -> None:
  """Traces a step of every kind of trial, with groups of shapes.

  Raises:
    UserError: a trial that cannot work.
  """
  for arm, grid in grids.items():
    own = part.arms[arm]
    for trial in _trials(grid, own):
      config_values.check(_with(own, trial))
    for _, _, job in _jobs(session, part, arm, grid, groups):
      job_checks.check(session, job)


def choose(
  session: Session,
  part: Round,
  groups: Mapping[str, Group],
  grids: Mapping[str, Grid],
  directory: Path,
) -> dict[str, dict]:
  """Trains every trial of each arm's grid and takes the best on validation.

  Args:
    session: what the stages have in common.
    part: the round whose arms are tuned.
    groups: the trained teachers.
    grids: from `parse`.
    directory: the workdir; the results are kept there in tuning.json.

  Returns:
    arm -> ``{'grid', 'trials', 'values', 'chosen', 'split'}``. The value of
    a trial that became infinite or not a number is None.

  Raises:
    UserError: every trial of an arm did.
  """
  file = directory / run_files.TUNING
  found = _found(file, grids, part.arms) if hosts.is_first() else {}
  found = hosts.broadcast_from_host0('what was tuned', found)
  earlier = configs.plain(part.config['tuned'])
  for arm, grid in grids.items():
    if arm in earlier:
      session.say(f'{arm} was tuned by an earlier run (see the entry tuned)')
      values = np.array(earlier[arm]['values'], float)
      found[arm] = _result(part, arm, grid, values)
    elif arm in found:
      session.say(f'{arm} was tuned before, and is not tuned again')
    else:
      found[arm] = _search(session, part, arm, grid, groups)
      if hosts.is_first():
        files.write_text(file, json.dumps(found, indent=2))
  return found


def explain(console: Console, grids: Mapping[str, Grid]) -> None:
  """Prints what is searched for each arm."""
  for arm, grid in grids.items():
    console.print(f'\n[bold]{arm}[/] is tuned in {_count(grid)} trials')
    for entry, values in grid.items():
      console.print(
        f'  {entry} = {", ".join(map(str, values))}', highlight=False
      )


def apply(part: Round, tuned: Mapping[str, dict]) -> Round:
  """The round with each arm's best trial in its config."""
  chosen = dict(part.arms)
  for arm, result in tuned.items():
    chosen[arm] = _with(chosen[arm], configs.plain(result['chosen']))
  return part._replace(arms=chosen)


def _found(file: Path, grids: Mapping[str, Grid], own: Mapping) -> dict:
  """The results so far, from tuning.json; empty if the file is damaged."""
  if not file.exists():
    return {}
  try:
    found = json.loads(file.read_text())
    rows.check_shape(found, rows.SCHEMA['tuning?'], str(file))
    for arm, result in found.items():
      if configs.plain(result['chosen']) not in _trials(grids[arm], own[arm]):
        raise ValueError(f'{arm} has chosen what its grid does not hold')
  except (ValueError, KeyError) as error:
    logging.warning(
      '%s is damaged (%s); its trials are looked up again', file, error
    )
    return {}
  return found


def check_earlier(
  earlier: Mapping[str, Any], grids: Mapping[str, Grid]
) -> None:
  """Refuses what an earlier run found if it searched something else.

  Raises:
    UserError: arms without a grid, other grids than theirs, or values that are
      not those of the trials.
  """
  for arm, found in earlier.items():
    at = f'tuned.{arm}'
    if arm not in grids:
      raise unknown('arm with a grid', arm, grids, at)
    if set(found) != {'grid', 'values'}:
      raise UserError(
        f'{at}: it should have grid and values, as '
        'jaxkd.run.config.tuned gives them'
      )
    if {entry: tuple(v) for entry, v in found['grid']} != grids[arm]:
      raise UserError(
        f'{at}: it is of another grid than tune has for the arm; search again '
        'without this entry'
      )
    values, count = found['values'], _count(grids[arm])
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(values) != count or not numbers:
      raise UserError(
        f'{at}: it has {len(numbers)} values of {count} trials; there must be '
        'one of each, or None'
      )


def _search(session, part, arm, grid, groups) -> dict:
  """Values on the validation split of every trial of one arm's grid.

  A trial in which a seed diverges ranks last.
  """
  metric = part.config['report']['metric']
  trials = _trials(grid, part.arms[arm])
  values = np.empty(len(trials))
  for members, _, job in _jobs(session, part, arm, grid, groups):
    trained = train_job.train(session, job, may_diverge=True)
    measured = np.array(trained.history['metrics'][f'validation/{metric}'])
    reached = measured[-1]
    if trained.best:  # of the nets that the run itself would keep
      looks = np.searchsorted(trained.history['step'], trained.best.steps)
      reached = measured[looks, np.arange(len(looks))]
    values[members] = np.reshape(reached, (len(members), -1)).mean(1)
  return _result(part, arm, grid, values)


def _result(part, arm, grid, values) -> dict:
  """What a search found, given the value of each trial, NaN of a lost one."""
  metric = part.config['report']['metric']
  trials = _trials(grid, part.arms[arm])
  lost = [trials[i] for i in np.flatnonzero(np.isnan(values))]
  if len(lost) == len(trials):
    raise UserError(
      f'--tune: every trial of the grid of the arm {arm} became infinite or '
      'not a number; give it a lower train.learning_rate'
    )
  for trial in lost:
    logging.warning('%s: %s became infinite or not a number', arm, trial)
  higher = part.metrics[metric].higher_is_better
  best = (np.nanargmax if higher else np.nanargmin)(values)
  return {
    'grid': {entry: list(given) for entry, given in grid.items()},
    'trials': len(trials),
    'values': [None if np.isnan(value) else value for value in values.tolist()],
    'chosen': trials[int(best)],
    'split': 'validation',
  }


def _jobs(session, part, arm, grid, groups):
  """The populations of a grid: (which trials, their config, the job)."""
  config = part.arms[arm]
  trials = _trials(grid, config)
  mapped = {entry for entry in trials[0] if _is_mapped(entry, config)}
  fixed = sorted({_key(trial, mapped) for trial in trials})
  for index, key in enumerate(fixed):
    members = [i for i, p in enumerate(trials) if _key(p, mapped) == key]
    own = _with(config, trials[members[0]])
    stage = f'{part.prefix}tuning/{arm}/{index}'
    chosen = [trials[i] for i in members]
    job = _job(own, part, arm, groups, session.source, chosen, mapped, stage)
    yield members, own, job


def _job(config, part, arm, groups, source: Source, trials, mapped, stage):
  """A population with some members for each trial, of seeds of their own."""
  base, count = part.config['train']['seed'], part.config['tune_seeds']
  seeds = [keys.seed(base, f'tuning/{i}') for i in range(count)]
  hyper = {
    entry: [trial[entry] for trial in trials for _ in seeds]
    for entry in sorted(mapped)
  }
  teaching = {}
  for name, group in groups.items():
    if group.per_member:
      seed = np.arange(len(trials) * count) % count % len(part.seeds)
      own = shapes.mapped(lambda x, seed=seed: x[seed], group.variables)
      group = group._replace(variables=own)
    teaching[name] = group
  job = arms.job(
    config,
    part.students[arm],
    teaching,
    stage=stage,
    training=source.splits['train'],
    seeds=seeds * len(trials),
    hyper=hyper,
  )
  job = class_weights.resolved(job, source)
  return job._replace(over=f'{len(trials)} trial{"s" * (len(trials) > 1)}')


def _trials(grid: Grid, config: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The values of each trial of an arm."""
  axes = [
    [_setting(key, value, config) for value in values]
    for key, values in grid.items()
  ]
  return [
    {entry: value for setting in trial for entry, value in setting.items()}
    for trial in itertools.product(*axes)
  ]


def _setting(key: str, value: Any, config: Mapping[str, Any]) -> dict[str, Any]:
  if not key.endswith('*'):
    return {key: value}
  entries = _entries({key: ()})
  return {entry: value * configs.get(config, entry) for entry in entries}


def _with(config: dict, trial: Mapping[str, Any]) -> dict:
  """A config with the values of a trial."""
  for entry, value in trial.items():
    config = configs.put(config, entry, value)
  return config


def _count(grid: Grid) -> int:
  """The number of trials of a grid; 0 without one."""
  return math.prod(map(len, grid.values())) if grid else 0


def _is_mapped(entry: str, config: Mapping[str, Any]) -> bool:
  """Whether the values of an entry train as one population."""
  if not isinstance(configs.get(config, entry), float):
    return False
  if re.fullmatch(_RATE, entry):
    return optimizer.takes_traced_rate(config['train'])
  return bool(re.fullmatch(_MAPPED, entry))


def _key(trial: Mapping[str, Any], mapped: set[str]) -> str:
  """The values of a trial that are fixed in its program, i.e. not mapped."""
  return json.dumps({e: v for e, v in trial.items() if e not in mapped})


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text.strip())
  except (ValueError, SyntaxError):
    return text.strip()
