"""Preflight: all that is built and checked before anything trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxkd import tasks
from jaxkd.data import sources
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.report import progress, rows, wording
from jaxkd.run import (
  class_weights,
  config_values,
  earlier,
  job_checks,
  jobs,
  looked_up,
  shifted,
  terms,
)
from jaxkd.run.plan import (
  Round,
  build_round,
  called,
  configs_of,
  ensembled,
  per_seed,
)
from jaxkd.teachers import groups as teachers
from jaxkd.teachers import vocabularies
from jaxkd.train import sharding


def prepare(
  config: dict, directory: Path, grids: Mapping[str, Mapping] | None = None
) -> tuple[sources.Source, list]:
  """Loads the data, builds all nets and traces every kind of step.

  Args:
    config: the run's, complete.
    directory: the workdir.
    grids: arm of the first round -> entry -> the values that it is tuned
      over; the nets have the outputs that any of them needs.

  Returns:
    The source and the rounds.

  Raises:
    UserError: the config asks for something that does not fit together.
  """
  config_values.check(config)
  rows.check_name(config['name'], 'name')
  progress.check_wandb(config['report']['wandb'])
  source = load(config)
  rounds = []
  for prefix, own in configs_of(config).items():
    tuned = {} if rounds else grids or {}
    rounds.append(build_round(prefix, own, source, tuned))
  _check_report(config, rounds)
  notes = list(source.notes)
  for part in rounds:
    notes += _check(part, source, directory, rounds)
  return source._replace(notes=tuple(dict.fromkeys(notes))), rounds


def load(config: Mapping[str, Any]) -> sources.Source:
  """The data of a config.

  Raises:
    UserError: there is no such data, or it is not for the config's task.
  """
  data = config['data']
  try:
    with blamed('data.source'):
      source = sources.load(data['source'], dir=data['dir'], **data['kw'])
  except UserError as error:
    if data['layout']:
      raise UserError(f'{error}; {data["layout"]}') from error
    raise
  for split in ('train', 'validation', 'test'):
    if split not in source.splits:
      raise UserError(
        f'data.source: {source.name} has no {split} split, which every run '
        'needs; see data.kw.validation'
      )
  source = sources.of_classes(source, data['classes'])
  tasks.check(config['task'], source)
  return source


def _check(part: Round, source, directory, rounds) -> list[str]:
  """Traces a step of every stage, and reads the nets that are restored.

  Returns:
    Notes for the row.
  """
  notes = []
  session = jobs.session_of(part, source, directory, progress=None)
  shapes = jobs.shapes_of(part)
  devices = {
    name: own for together in part.schedule for name, own in together.items()
  }
  for name, role in part.teachers.items():
    entry, at = part.config['teachers'][name], f'teachers.{name}.restore'
    if role.external:
      notes += looked_up.check(part, name)
    if entry['made_of'] or role.external:
      continue
    notes += vocabularies.padding(f'teachers.{name}', entry, source)
    if not entry['restore']:
      with sharding.on(devices[name]):
        job = jobs.of_teachers(part, name, source, shapes)
        job_checks.check(session, job)
      shown = f'{part.prefix}{called(name, part)}'
      notes += class_weights.notes(entry['distill'], job, source, shown)
      continue
    found = earlier.restored_from(name, part, rounds)
    if isinstance(found, earlier.Made):
      earlier.check_made(found, name, part)
    else:
      with within(f'{at}: '):
        pieces = vocabularies.pieces_of(entry['restore'], found)
      notes += vocabularies.check_restored(name, entry, pieces, source)
      teachers.restore(name, entry, role, len(part.seeds), found)
      notes += earlier.choice(name, part, found)
      notes += teachers.differences(
        name, entry, role, found, source, session.logits
      )
  for arm in part.arms:
    is_first = arm == part.first(arm)
    distill = terms.in_use(part.arms[arm]['distill'])
    if is_first or class_weights.asked(distill):
      job = jobs.of_arm(part, arm, source, shapes)
      if is_first:
        job_checks.check(session, job)
      shown = f'{part.prefix}{arm}'
      notes += class_weights.notes(distill, job, source, shown)
    for name, role in part.students[arm].items():
      shifted.classes_of(part, arm, name, role, source)
      entry = part.arms[arm]['students'][name]
      notes += vocabularies.padding(f'students.{name}', entry, source)
  return notes


def _check_report(config, parts):
  """Checks that the report's metric and arms exist."""
  report = config['report']
  metrics = {k: m for k, m in parts[0].metrics.items() if not m.teacher}
  if report['metric'] not in metrics:
    raise unknown('metric', report['metric'], metrics, 'report.metric')
  known = [*metrics]
  if report['reach']:
    known.append(wording.steps_to(report['reach']))
  for metric in report['early_stopping']:
    if metric not in metrics:
      raise unknown('metric', metric, metrics, 'report.early_stopping')
    known.append(wording.early_stopping(metric))
  counts = {
    f'{part.prefix}{name}': count
    for part in parts
    for name, count in _values_of(part).items()
  }
  derived = {
    name: _derived(factors, counts, f'report.derived.{name}')
    for name, factors in report['derived'].items()
  }
  for name in derived:
    if name in counts:
      raise UserError(f'report.derived.{name}: an arm has that name')
  pairs = {'report.compare': report['compare']}
  for name, pair in report['controls'].items():
    pairs[f'report.controls.{name}'] = pair
  rows.check_shape(config['survey'], rows.SCHEMA['survey'], 'survey')
  rows.check_shape(list(report['notes']), [str], 'report.notes')
  for at, pair in pairs.items():
    named = set(pair) if isinstance(pair, dict) else set()
    if named - {'metric'} != {'better', 'than'}:
      raise UserError(
        f'{at}: it needs the entries better and than, and may have a metric'
      )
    arms_of = {side: pair[side] for side in ('better', 'than')}
    # The claim itself is about arms; what it is compared by may be derived.
    there = counts if at == 'report.compare' else {**counts, **derived}
    for side, name in arms_of.items():
      if name not in there:
        raise unknown('arm', name, there, f'{at}.{side}')
    if pair.get('metric', report['metric']) not in known:
      raise unknown('metric', pair['metric'], known, f'{at}.metric')
    nets = {name: there[name] for name in arms_of.values()}
    # A round of one arm has no other to name.
    if len(nets) == 1 and any(len(part.arms) > 1 for part in parts):
      raise UserError(
        f'{at}: {pair["better"]} would be compared with itself; name two arms '
        f'of {", ".join(sorted(there))}'
      )
    if len(set(nets.values())) > 1:
      raise UserError(
        f'{at}: {nets} nets cannot be compared seed by seed; set per_seed and '
        'count=1 for the teachers, or compare other arms'
      )


def _derived(factors: object, counts: Mapping[str, int], at: str) -> int:
  """The number of values of a derived arm, a weighted sum of arms."""
  rows.check_shape(factors, rows.SCHEMA['derived?']['*'], at)
  if not factors:
    raise UserError(f'{at}: it needs arms, each with its factor')
  for arm in factors:
    if arm not in counts:
      raise unknown('arm', arm, counts, at)
  nets = {arm: counts[arm] for arm in factors}
  if len(set(nets.values())) > 1:
    raise UserError(f'{at}: {nets} nets cannot be added seed by seed')
  return counts[next(iter(factors))]


def _values_of(part: Round) -> dict[str, int]:
  """The number of values of each arm in the row: one per seed, mostly."""
  seeds = len(part.seeds)
  found = dict.fromkeys(part.arms, seeds)
  for group in part.predicts:
    entry = part.config['teachers'][group]
    name, own = called(group, part), per_seed(part, group)
    found[name] = seeds if own else entry['count']
    if ensembled(part, group):
      found[f'{name} ensemble'] = seeds if own else 1
  return found
