"""Grids searched on the validation split, every arm with as many trials.

``distill.soft.weight=0.3,1,3`` is for every arm, ``student:train.
learning_rate=0.001,0.01`` for the arm `student` alone; several entries make
the product of their values. Numbers that only enter the step's arithmetic
are mapped: their whole grid trains as one population.
"""

import ast
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from jaxkd import config as configs
from jaxkd import keys
from jaxkd.data.sources import Source
from jaxkd.distill import training
from jaxkd.distill.training import Group, Session
from jaxkd.errors import UserError, unknown
from jaxkd.preflight import Round
from jaxkd.students import arms

Grid = dict[str, tuple]  # entry -> values

SEEDS = 3  # of each trial; none is a seed of the run
_TUNABLE = (
  r'distill\.[^.]+\.(weight|kw\..+|schedule\..+|fuse|example_weight)'
  r'|train\.(learning_rate|schedule|schedule_kw\..+|optimizer\.(name|kw\..+)'
  r'|clip|accumulate|average)'
)
_MAPPED = (
  r'distill\.[^.]+\.(weight|kw\..+)'
  r'|train\.(learning_rate|optimizer\.kw\..+)'
)


def parse(
  texts: Sequence[str], config: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Grid]:
  """The grid of each arm; empty where nothing is to be tuned.

  Args:
    texts: ``[ARM:]ENTRY=VALUE,VALUE,...`` each.
    config: the run's.
    names: of the arms.

  Raises:
    UserError: no such arm or entry, a value of a wrong type, or arms with
      different numbers of trials.
  """
  if not texts:
    return {}
  grids: dict[str, Grid] = {name: {} for name in names}
  for text in texts:
    matched = re.fullmatch(r'(?:([^:=]+):)?([\w.]+)=(.+)', text)
    if not matched:
      raise UserError(f'--tune {text!r}: write [ARM:]ENTRY=VALUE,VALUE,...')
    arm, entry, values = matched.groups()
    if arm and arm not in names:
      raise unknown('arm', arm, names, f'--tune {text}')
    default = configs.get(config, entry, f'--tune {entry}')
    if not re.fullmatch(_TUNABLE, entry):
      raise UserError(
        f'--tune {entry}: what can be tuned are the weight, the kw, the '
        'schedule and the fusion of a term, and the optimiser, not the budget'
      )
    typed = tuple(
      configs.typed(_literal(value), default, f'--tune {entry}')
      for value in values.split(',')
    )
    for name in [arm] if arm else names:
      grids[name][entry] = typed
  trials = {name: len(_points(grid)) for name, grid in grids.items()}
  if len(set(trials.values())) > 1:
    raise UserError(
      f'--tune: every arm gets as many trials as the others, not {trials}; '
      'give the arms with fewer a grid of their own (ARM:ENTRY=...)'
    )
  return grids


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
    for _, own, job in _jobs(session, part, arm, grid, groups):
      configs.check_numbers(own)
      training.check(session, job)
    for point in _points(grid):
      own = part.arms[arm]
      for entry, value in point.items():
        own = configs.put(own, entry, value)
      configs.check_numbers(own)


def choose(
  session: Session,
  part: Round,
  groups: Mapping[str, Group],
  grids: Mapping[str, Grid],
  directory: Path,
) -> dict[str, dict]:
  """Trains every point of each arm's grid and takes the best on validation.

  Args:
    session: what the stages have in common.
    part: the round whose arms are tuned.
    groups: the trained teachers.
    grids: from `parse`.
    directory: the workdir; what is found is kept there in tuning.json.

  Returns:
    arm -> ``{'grid', 'trials', 'values', 'chosen', 'split'}``.
  """
  file = directory / 'tuning.json'
  try:
    found = json.loads(file.read_text()) if file.exists() else {}
  except ValueError:
    logging.warning('%s is damaged; its trials are looked up again', file)
    found = {}
  for arm, grid in grids.items():
    if arm not in found:
      found[arm] = _search(session, part, arm, grid, groups)
      draft = file.with_suffix('.draft')
      draft.write_text(json.dumps(found, indent=2))
      draft.replace(file)
  return found


def apply(part: Round, tuned: Mapping[str, dict]) -> Round:
  """The round with each arm's best point in its config."""
  chosen = dict(part.arms)
  for arm, result in tuned.items():
    for entry, value in result['chosen'].items():
      chosen[arm] = configs.put(chosen[arm], entry, configs.plain(value))
  return part._replace(arms=chosen)


def _search(session, part, arm, grid, groups) -> dict:
  """Values on the validation split of every point of one arm's grid."""
  metric = part.config['report']['metric']
  points = _points(grid)
  values = [0.0] * len(points)
  for members, _, job in _jobs(session, part, arm, grid, groups):
    trained = training.train(session, job)
    reached = trained.history['metrics'][f'validation/{metric}'][-1]
    means = np.reshape(reached, (len(members), SEEDS)).mean(1)
    for i, mean in zip(members, means, strict=True):
      values[i] = float(mean)
  higher = part.metrics[metric].higher_is_better
  best = (np.argmax if higher else np.argmin)(values)
  return {
    'grid': {entry: list(given) for entry, given in grid.items()},
    'trials': len(points),
    'chosen': points[int(best)],
    'split': 'validation',
  }


def _jobs(session, part, arm, grid, groups):
  """The populations of a grid: (which points, their config, the job)."""
  config = part.arms[arm]
  mapped = {e for e in grid if _is_mapped(e, config)}
  points = _points(grid)
  fixed = sorted({_key(point, mapped) for point in points})
  for index, key in enumerate(fixed):
    members = [i for i, p in enumerate(points) if _key(p, mapped) == key]
    own = config
    for entry, value in points[members[0]].items():
      own = configs.put(own, entry, value)
    stage = f'{part.prefix}tuning/{arm}/{index}'
    trials = [points[i] for i in members]
    job = _job(own, part, arm, groups, session.source, trials, mapped, stage)
    yield members, own, job


def _job(config, part, arm, groups, source: Source, points, mapped, stage):
  """A population with SEEDS members for each point."""
  base = part.config['train']['seed']
  seeds = [keys.seed(base, f'tuning/{i}') for i in range(SEEDS)]
  hyper = {
    entry: [point[entry] for point in points for _ in range(SEEDS)]
    for entry in sorted(mapped)
  }
  teaching = {}
  for name, group in groups.items():
    if group.per_member:
      turn = np.arange(len(points) * SEEDS) % SEEDS % len(part.seeds)
      group = group._replace(variables=_taken(group.variables, turn))
    teaching[name] = group
  return arms.job(
    config,
    part.students[arm],
    teaching,
    stage=stage,
    labels=source.splits['train'].labels,
    seeds=seeds * len(points),
    hyper=hyper,
  )


def _taken(tree, index):
  """Rows of arrays, or the shapes of them."""

  def take(x):
    if isinstance(x, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct((len(index), *x.shape[1:]), x.dtype)
    return x[index]

  return jax.tree.map(take, tree)


def _points(grid: Grid) -> list[dict[str, Any]]:
  return [
    dict(zip(grid, values, strict=True))
    for values in itertools.product(*grid.values())
  ]


def _is_mapped(entry: str, config: Mapping[str, Any]) -> bool:
  number = isinstance(configs.get(config, entry), float)
  return number and bool(re.fullmatch(_MAPPED, entry))


def _key(point: Mapping[str, Any], mapped: set[str]) -> str:
  """What a point fixes of the program: all that is not mapped."""
  return json.dumps({e: v for e, v in point.items() if e not in mapped})


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text.strip())
  except (ValueError, SyntaxError):
    return text.strip()
