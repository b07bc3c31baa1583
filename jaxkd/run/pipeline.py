"""A run: the four stages of a config, round after round, and its row."""

import contextlib
import functools
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxkd import compilation, files, run_files, source_code
from jaxkd.data.sources import Source
from jaxkd.distill.roles import Group
from jaxkd.errors import Stopped
from jaxkd.models import given
from jaxkd.report import made_with, progress
from jaxkd.run import config as configs
from jaxkd.run import (
  earlier,
  ensembles,
  evaluate,
  export,
  finish,
  generated,
  job_groups,
  jobs,
  looked_up,
  overview,
  programs,
  provenance,
  shifted,
  train_job,
  tuning,
  work,
  workdir,
)
from jaxkd.run.plan import Round, called, ensembled
from jaxkd.run.types import Session, Stage
from jaxkd.students import compression, stored
from jaxkd.teachers import groups as teachers
from jaxkd.teachers import mixture
from jaxkd.train import hosts, side_by_side
from jaxkd.train.execution import Execution

__all__ = ['Stage', 'Stopped', 'run', 'run_complete']


def run(
  config: Mapping[str, Any],
  directory: str | Path,
  *,
  overwrite: bool = False,
  tune: tuple[str, ...] = (),
  stop: threading.Event | None = None,
  console: Console | None = None,
  command: str = '',
) -> dict:
  """Trains what a config describes, or resumes a run that was cut short.

  Args:
    config: see docs/config.md; entries that are not set have their defaults.
    directory: the workdir, on a disk or ``gs://BUCKET/FOLDER``; docs/config.md
      lists what a run leaves there.
    overwrite: whether to remove a run there that has finished, or that has
      another config, data or code. Without it, a finished run of the same is
      shown again, and others are refused.
    tune: grids to search on the validation split; see `jaxkd.run.tuning`.
    stop: when set, the run saves its state and raises `Stopped`.
    console: where to print.
    command: the command that started the run, for the row.

  Returns:
    The row: test metrics of every seed, comparisons, costs and notes.

  Raises:
    UserError: a mistake that the user can correct.
    Stopped: `stop` was set.
  """
  return run_complete(
    configs.plain(configs.complete(config)),
    directory,
    overwrite=overwrite,
    tune=tune,
    stop=stop,
    console=console,
    command=command,
  )


def run_complete(
  config: dict,
  directory: str | Path,
  *,
  overwrite: bool = False,
  tune: tuple[str, ...] = (),
  stop: threading.Event | None = None,
  console: Console | None = None,
  command: str = '',
) -> dict:
  """As `run`, of a config that `jaxkd.run.config.complete` has completed."""
  directory = files.path(directory, at='--workdir', remote=True)
  directory = files.absolute(directory)
  console = console or Console()
  begun = time.perf_counter()
  given.forget()
  text = configs.as_json({**config, 'tune': (*config['tune'], *tune)})
  _check_same(text)
  finished, first = directory / run_files.ROW, hosts.is_first()
  if not first:
    console = Console(quiet=True)
  goes_on = workdir.holds(directory, text) and not overwrite
  if hosts.broadcast_from_host0('done', goes_on and finished.exists()):
    return finish.shown_again(config, directory, console)
  # Several hosts ask whether to stop once a step, together.
  alone = stop if hosts.count() == 1 else None
  # Checked before the folder is touched: a mistake leaves no trace.
  shown = progress.shows_passes(console, alone)
  with shown, hosts.raise_everywhere('preflight'):
    source, rounds, grids = tuning.prepare(config, directory, tune)
    origin = provenance.of(config, source, rounds)
    if goes_on:
      provenance.check_imported(config)
  hosts.same('provenance', provenance.checksums(origin))
  for name, file in source_code.outdated(config).items():
    console.print(
      f'{file} has changed since this process imported {name}: what was '
      'imported is what runs'
    )
  with contextlib.ExitStack() as held:
    with hosts.raise_everywhere('the lock'):
      if first:
        check = held.enter_context(workdir.locked(directory))
        began = workdir.enter(directory, text, origin, overwrite=overwrite)
    workdir.check_shared(directory)
    resumed = (directory / run_files.CHECKPOINTS).exists()
    steps = overview.describe(console, source, rounds)
    little = not grids and work.is_little(rounds, steps, source)
    held.enter_context(compilation.quickly(little))
    made = held.enter_context(programs.kept(console))
    writers = progress.writers(config, directory, check) if first else []
    reporter = progress.Reporter(console, config['report']['metric'], writers)
    if not grids:  # how many stages a search has, it finds along the way
      reporter.expect(jobs.steps_of(rounds))
    found = _train_rounds(rounds, source, grids, directory, reporter, stop)
    row = None
    if first:
      check()
      row = finish.write(
        found,
        config,
        source,
        rounds,
        directory,
        steps=steps,
        command=command,
        began=began,
        ended=origin,
        since=None if resumed else begun,
        compiled=made.total,
        quickly=little,
      )
    return hosts.broadcast_from_host0('the row', row)


def _train_rounds(
  rounds: list[Round],
  source: Source,
  grids: Mapping[str, tuning.Grid],
  directory: Path,
  reporter: progress.Reporter,
  stop: threading.Event | None,
) -> finish.Found:
  """Trains and tests all nets of a run, round after round."""
  stages, tuned, weights = [], {}, {}
  for part in rounds:
    session = jobs.session_of(
      part, source, directory, reporter.stage, stop, reporter.say
    )
    groups, taught = _train_teachers(session, part, directory, rounds)
    for name, each in mixture.weights_of(groups).items():
      weights[f'{part.prefix}{name}'] = each
    if grids and part is rounds[0]:
      tuned = tuning.choose(session, part, groups, grids, directory)
      part = tuning.apply(part, tuned)
    stages += taught
    stages += [
      _train_arm(session, part, arm, groups, directory) for arm in part.arms
    ]
  for done in stages:
    if done.job:
      reporter.tested(done.job, done.test)
  return finish.Found(stages, tuned, weights)


def _check_same(text: str) -> None:
  """Refuses hosts that have another config or other packages."""
  versions = {f'the version of {k}': v for k, v in made_with.versions().items()}
  hosts.same('config', {**workdir.flat(json.loads(text)), **versions})


def _train_teachers(
  session: Session, part: Round, directory: Path, rounds: list[Round]
) -> tuple[dict[str, Group], list[Stage]]:
  """Stage 2: the groups of teachers, trained or restored, and tested."""
  groups, stages = {}, {}
  for together in part.schedule:
    ensembles.add_validated_weights(session, part, groups)
    works = {
      name: functools.partial(
        _train_group, session, part, name, dict(groups), directory, rounds
      )
      for name in together
    }
    for name, found in side_by_side.run(works, together, session.stop).items():
      groups[name], stages[name] = found
  ensembles.add_validated_weights(session, part, groups)
  groups = {**{name: groups[name] for name in part.teachers}, **groups}
  return groups, [stage for name in part.teachers for stage in stages[name]]


def _train_group(
  session: Session,
  part: Round,
  name: str,
  groups: dict[str, Group],
  directory: Path,
  rounds: list[Round],
  stop: side_by_side.Flag | None,
) -> tuple[Group, list[Stage]]:
  """A group of teachers, given those that it may look at, and its stages."""
  session = session._replace(stop=stop)
  role, entry = part.teachers[name], part.config['teachers'][name]
  seeds = len(part.seeds)
  stage = f'{part.prefix}teachers/{name}'
  history, seconds, ran, sizes, best = {}, 0.0, Execution(), {}, None
  shown = f'{part.prefix}{called(name, part)}'
  if entry['made_of']:
    parts = job_groups.with_read(set(entry['made_of']), groups)
    group = teachers.join(role, parts, seeds)
    test = ensembles.tested_joined(session, name, group)
    return group, [Stage(shown, {}, 0.0, ran, test)]
  if role.external:
    group = looked_up.group(role)
    test = looked_up.prepared(session, part, name, group)
    return group, [Stage(shown, {}, 0.0, ran, test)]
  subsets = None
  if entry['specialize']['of'] and not entry['restore']:
    generalist = groups[entry['specialize']['of']]
    predicted = evaluate.predict(session, generalist, 'train')
    found = jobs.subsets_of(part, name, predicted)
    subsets = np.array(
      hosts.broadcast_from_host0('the subsets', found.tolist())
    )
  job = jobs.of_teachers(part, name, session.source, groups, subsets)
  if entry['restore']:
    nets = earlier.nets_of(name, part, rounds, directory)
    found = teachers.restore(name, entry, role, seeds, nets)
    found = compression.apply_once(role.compression, found)
  else:
    trained = train_job.train(session, job)
    found, (history, seconds, ran, best) = trained.stored[name], trained[1:5]
    export.export(session, directory, stage, entry, role, found, job.train)
  variables = teachers.held(entry, stored.dense(found))
  if role.compression:
    sizes = {shown: stored.size(found)}
  test = {}
  if name in part.predicts:
    test = evaluate.evaluate(
      session,
      job.students,
      {name: variables},
      'test',
      groups=job_groups.read_groups(job.students, job.groups),
      mode=ran.mode,
      shard_parameters=job.train['shard_parameters'],
      may_be_lost=bool(entry['restore']),  # the term that it teaches tells
    )
  group = teachers.group(entry, role, variables, seeds)
  if entry['per_seed']:  # a value for each seed: the mean of its teachers
    test = {k: v.reshape(seeds, -1).mean(1) for k, v in test.items()}
  job_name = '' if entry['restore'] else stage
  stages = [Stage(shown, history, seconds, ran, test, sizes, job_name, best)]
  if name in part.predicts and ensembled(part, name):
    groups = {**groups, name: group}
    together = ensembles.tested_ensemble(session, part, name, groups)
    stages.append(Stage(f'{shown} ensemble', {}, 0.0, Execution(), together))
  return group, stages


def _train_arm(
  session: Session,
  part: Round,
  arm: str,
  groups: dict[str, Group],
  directory: Path,
) -> Stage:
  """Stages 3 and 4: the students of one arm, trained and tested."""
  own = part.arms[arm]
  examples = generated.make(session, part, arm, groups, directory)
  # An arm that tuning left equal to an earlier one is found trained.
  first = part.first(arm)
  job = jobs.of_arm(part, first, session.source, groups, examples)
  trained = train_job.train(session, job)
  students, found, shifts = shifted.shifted(session, part, arm, trained.stored)
  sizes = {}
  for name, role in students.items():
    first = name if role.copies == 1 else f'{name}/0'
    if role.compression:
      sizes[name] = stored.size(found[first])
    stage = f'{part.prefix}students/{arm}/{name}'
    export.export(
      session,
      directory,
      stage,
      own['students'][name],
      role,
      found[first],
      job.train,
    )
  test = evaluate.evaluate(
    session,
    students,
    {name: stored.dense(tree) for name, tree in found.items()},
    'test',
    groups=groups,
    mode=trained.execution.mode,
    shard_parameters=job.train['shard_parameters'],
  )
  test |= shifts
  name = f'{part.prefix}students/{arm}'
  *ran, best, notes = trained[1:]
  return Stage(f'{part.prefix}{arm}', *ran, test, sizes, name, best, notes)
