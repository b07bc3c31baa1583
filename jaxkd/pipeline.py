"""A run: the four stages of a config, round after round, and its row."""

import contextlib
import functools
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxkd import config as configs
from jaxkd import (
  files,
  jobs,
  overview,
  preflight,
  provenance,
  shapes,
  source_code,
  tasks,
  tuning,
  workdir,
)
from jaxkd.data import generated, inputs, passes
from jaxkd.data.examples import Examples
from jaxkd.data.sources import Source
from jaxkd.distill import fusion, roles, training
from jaxkd.distill.step import Role, copies_of
from jaxkd.distill.training import Group, Session
from jaxkd.errors import UserError
from jaxkd.report import plots, progress, record, rows
from jaxkd.rounds import Made, Round, called, ensembled, restored_from
from jaxkd.students import compression, correct, stored
from jaxkd.teachers import groups as teachers
from jaxkd.teachers import many, mixture
from jaxkd.train import hosts, side_by_side
from jaxkd.train.fit import Execution, Stopped

__all__ = ['Stage', 'Stopped', 'run']

SHOWN = 8  # examples


class Stage(NamedTuple):
  """A finished population and what it reached.

  Attributes:
    name: of the arm, or of the teachers, in the row.
    history: metrics along the way.
    seconds: time spent in its steps.
    execution: how it ran.
    test: metric -> the value of each member.
    bytes: of each of its nets that is quantised or pruned.
    job: what it is called among what trains; empty for what did not train.
  """

  name: str
  history: dict
  seconds: float
  execution: Execution
  test: dict[str, np.ndarray]
  bytes: Mapping[str, int] = MappingProxyType({})
  job: str = ''


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
  """Runs a config, or goes on with a run of it that was cut short.

  Args:
    config: see docs/config.md; what it does not say is as by default.
    directory: the workdir; it is left with config.json, checkpoints/, nets/,
      events/, curves.png, row.json and, where the task has something to show,
      shown/.
    overwrite: whether to remove a finished run there, or one of another config,
      other data or other code; without it a finished run is shown again, and
      the others are refused.
    tune: grids to search on the validation split; see `jaxkd.tuning`.
    stop: when set, the run saves its state and raises `Stopped`.
    console: where to print.
    command: what starts the run, for the row.

  Returns:
    The row.

  Raises:
    UserError: something that the user can put right.
    Stopped: `stop` was set.
  """
  console = console or Console()
  if not hosts.is_first():
    console = Console(quiet=True)
  with passes.shown_by(progress.Reporter(console, '').stage):
    return _run(config, directory, overwrite, tune, stop, console, command)


def _run(config, directory, overwrite, tune, stop, console, command) -> dict:
  """As `run`, whose passes over the data are shown."""
  config = configs.plain(configs.complete(config))
  directory = files.path(directory, at='--workdir').absolute()
  begun = time.perf_counter()
  text = configs.as_json({**config, 'tune': (*config['tune'], *tune)})
  _check_same(text)
  finished, first = directory / workdir.ROW, hosts.is_first()
  goes_on = workdir.holds(directory, text) and not overwrite
  if hosts.told('done', goes_on and finished.exists()):
    return _shown(config, directory, console)
  # Checked before the folder is touched: a mistake leaves no trace.
  with hosts.together('preflight'):
    source, rounds, grids = tuning.prepare(config, directory, tune)
    origin = provenance.of(config, source)
    if goes_on:
      provenance.check_imported(config)
  hosts.same('provenance', provenance.checksums(origin))
  for name, file in source_code.outdated(config).items():
    console.print(
      f'{file} has changed since this process imported {name}: what was '
      'imported is what runs'
    )
  with contextlib.ExitStack() as held:
    with hosts.together('the lock'):
      if first:
        held.enter_context(workdir.locked(directory))
        began = workdir.enter(directory, text, origin, overwrite=overwrite)
    workdir.check_shared(directory)
    resumed = (directory / 'checkpoints').exists()
    shares = overview.describe(console, source, rounds)
    writers = _writers(config, directory) if first else []
    reporter = progress.Reporter(console, config['report']['metric'], writers)
    stages, tuned, weights = [], {}, {}
    for part in rounds:
      session = jobs.session_of(
        part, source, directory, reporter.stage, stop, reporter.say
      )
      groups, taught = _teach(session, part, directory, rounds)
      for name, each in mixture.weights_of(groups).items():
        weights[f'{part.prefix}{name}'] = each
      if grids and part is rounds[0]:
        tuned = tuning.choose(session, part, groups, grids, directory)
        part = tuning.apply(part, tuned)
      stages += taught
      stages += [
        _distil(session, part, arm, groups, directory) for arm in part.arms
      ]
    for done in stages:
      if done.job:
        reporter.tested(done.job, done.test)
    row = None
    if first:
      row = record.row(config, source, rounds, stages, tuned, shares, command)
      row['commit'], row['finished'] = origin[workdir.COMMIT], record.now()
      row['provenance'] = provenance.checksums(origin)
      if workdir.jaxkd_of(began) != workdir.jaxkd_of(origin):
        row['notes'].append(
          f'it began with {workdir.jaxkd_of(began)} and ended with '
          f'{workdir.jaxkd_of(origin)}'
        )
      if weights:
        row['weights'] = weights
      row['wall_s'] = None if resumed else time.perf_counter() - begun
      histories = {s.name: s.history for s in stages if s.history}
      plots.curves(histories, directory / 'curves.png')
      row = rows.plain(row)
      rows.save(finished, row)
      _show(config, source, rounds, directory)
    return hosts.told('the row', row)


def _check_same(text: str) -> None:
  """Refuses hosts that have another config or other packages."""
  versions = {f'the version of {k}': v for k, v in record.versions().items()}
  hosts.same('config', {**workdir.flat(json.loads(text)), **versions})


def _shown(config: dict[str, Any], directory: Path, console: Console) -> dict:
  """The row of a run that has finished, if it would be the same again.

  Raises:
    UserError: data or code have changed since, or cannot be read.
  """
  file, first = directory / workdir.ROW, hosts.is_first()
  row, how = None, ''
  with hosts.together('what was finished'):
    try:
      origin = provenance.of(config, preflight.load(config))
      provenance.check_imported(config)
    except UserError as error:
      raise UserError(f'{error}; what the run found is in {file}') from error
    if first:
      row = rows.load(file)
      how = workdir.check_finished(directory, origin)
  hosts.same('provenance', provenance.checksums(origin))
  if first:
    when = f'on {row["finished"]}' if 'finished' in row else 'earlier'
    console.print(
      f'finished {when}{how}, not run again (--overwrite does)', highlight=False
    )
  return hosts.told('the row', row)


def _teach(
  session: Session, part: Round, directory: Path, rounds: list[Round]
) -> tuple[dict[str, Group], list[Stage]]:
  """Stage 2: the groups of teachers, trained or restored, and tested."""
  groups, stages = {}, {}
  for turn in part.turns:
    _weigh(session, part, groups)
    works = {
      name: functools.partial(
        _taught, session, part, name, dict(groups), directory, rounds
      )
      for name in turn
    }
    for name, found in side_by_side.run(works, turn, session.stop).items():
      groups[name], stages[name] = found
  _weigh(session, part, groups)
  groups = {**{name: groups[name] for name in part.teachers}, **groups}
  return groups, [stage for name in part.teachers for stage in stages[name]]


def _taught(
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
  history, seconds, ran, sizes = {}, 0.0, Execution(), {}
  shown = f'{part.prefix}{called(name, part)}'
  if entry['made_of']:
    parts = training.with_read(set(entry['made_of']), groups)
    group = teachers.join(role, parts, seeds)
    test = _joined(session, name, group)
    return group, [Stage(shown, {}, 0.0, ran, test)]
  subsets = None
  if entry['specialize']['of'] and not entry['restore']:
    generalist = groups[entry['specialize']['of']]
    predicted = training.predict(session, generalist, 'train')
    found = jobs.subsets_of(part, name, predicted)
    subsets = np.array(hosts.told('the subsets', found.tolist()))
  job = jobs.of_teachers(part, name, session.source, groups, subsets)
  if entry['restore']:
    at = f'teachers.{name}.restore'
    folder = restored_from(entry['restore'], part, rounds, at)
    if isinstance(folder, Made):
      folder = workdir.net_folder(directory, folder.stage)
    found = teachers.restore(name, entry, role, seeds, folder)
    found = compression.apply_once(role.compression, found)
  else:
    trained = training.train(session, job)
    found, (history, seconds, ran) = trained.stored[name], trained[1:]
    _export(session, directory, stage, entry, role, found, job.train)
  variables = stored.dense(found)
  if role.compression:
    sizes = {shown: stored.size(found)}
  test = {}
  if name in part.predicts:
    test = training.evaluate(
      session,
      job.students,
      {name: variables},
      'test',
      groups=training.read_groups(job.students, job.groups),
      mode=ran.mode,
      shard_parameters=job.train['shard_parameters'],
      may_be_lost=bool(entry['restore']),  # the term that it teaches tells
    )
  group = teachers.group(entry, role, variables, seeds)
  if entry['per_seed']:  # a value for each seed: the mean of its teachers
    test = {k: v.reshape(seeds, -1).mean(1) for k, v in test.items()}
  job_name = '' if entry['restore'] else stage
  stages = [Stage(shown, history, seconds, ran, test, sizes, job_name)]
  if name in part.predicts and ensembled(part, name):
    together = _together(session, name, {**groups, name: group})
    stages.append(Stage(f'{shown} ensemble', {}, 0.0, Execution(), together))
  return group, stages


def _weigh(session: Session, part: Round, groups: dict[str, Group]) -> None:
  """Adds the weights of teachers that are there, where terms ask for them."""
  for names in jobs.weighed(part, groups):
    called = fusion.validated(names)
    if called not in groups:
      parts = [groups[name] for name in names]
      groups[called] = mixture.found(session, parts)


def _joined(session: Session, name: str, group: Group) -> dict:
  """What groups of teachers reach together on the test split."""
  variables = jax.tree.map(lambda x: x[:, 0], group.by_seed)
  return training.evaluate(
    session, {name: group.role}, {name: variables}, 'test'
  )


def _together(
  session: Session, name: str, groups: dict[str, Group]
) -> dict[str, np.ndarray]:
  """What the teachers of a group reach together on the test split."""
  group = groups[name]
  role = group.role._replace(net=many.ensemble(group.role.net), copies=1)
  read = training.read_groups({name: role}, groups)
  return training.evaluate(
    session, {name: role}, {name: group.by_seed}, 'test', groups=read
  )


def _distil(
  session: Session,
  part: Round,
  arm: str,
  groups: dict[str, Group],
  directory: Path,
) -> Stage:
  """Stages 3 and 4: the students of one arm, trained and tested."""
  own = part.arms[arm]
  examples = _generated(session, part, arm, groups, directory)
  # An arm that tuning left equal to an earlier one is found trained.
  first = part.first(arm)
  job = jobs.of_arm(part, first, session.source, groups, examples)
  trained = training.train(session, job)
  students, found, shifts = _corrected(session, part, arm, trained.stored)
  sizes = {}
  for name, role in students.items():
    first = name if role.copies == 1 else f'{name}/0'
    if role.compression:
      sizes[name] = stored.size(found[first])
    stage = f'{part.prefix}students/{arm}/{name}'
    _export(
      session,
      directory,
      stage,
      own['students'][name],
      role,
      found[first],
      job.train,
    )
  test = training.evaluate(
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
  return Stage(f'{part.prefix}{arm}', *trained[1:], test, sizes, name)


def _generated(
  session: Session,
  part: Round,
  arm: str,
  groups: dict[str, Group],
  directory: Path,
) -> Examples | None:
  """What an arm's students see in place of the data, made and drawn."""
  generator = jobs.generator_of(part, arm, session.source, groups)
  if generator is None:
    return None
  stage = f'{part.prefix}{arm}'

  def leave():
    if session.stop is not None and session.stop.is_set():
      raise Stopped(f'stopped while examples for {stage} were made')

  progress = functools.partial(session.progress, f'generated/{stage}')
  root = directory / 'generated'
  examples = generator.make(root, progress, session.say, leave)
  generated.picture(examples, generator.layout.rows, root / f'{stage}.png')
  return examples


def _corrected(
  session: Session, part: Round, arm: str, variables: dict[str, dict]
) -> tuple[dict[str, Role], dict[str, dict], dict[str, np.ndarray]]:
  """The students of an arm with their logits shifted, where it says so.

  How far is found for each seed on the validation split; it is told with what
  they reach on the test split. Variables are as they are stored.
  """
  students, variables = dict(part.students[arm]), dict(variables)
  source, shifts = session.source, {}
  for name, role in part.students[arm].items():
    classes = jobs.shifted(part, arm, name, role, source)
    if classes is None:
      continue
    found = []
    for copy in copies_of(name, role.copies):
      dense = stored.dense(variables[copy])
      given = training.logits(session, role, dense, 'validation')
      seeds = zip(*given, classes, strict=True)
      found.append([correct.shift(*own) for own in seeds])
      bias = np.array(found[-1])[:, None] * classes
      variables[copy] = correct.with_shift(variables[copy], bias)
    net = correct.shifted(role.net, source.num_classes)
    students[name] = role._replace(net=net)
    if name == training.reported(students):
      shifts['test/shift'] = np.mean(found, 0)
  return students, variables, shifts


def _export(
  session: Session,
  directory: Path,
  stage: str,
  entry: Mapping[str, Any],
  role: Role,
  variables: dict,
  train: Mapping[str, Any],
) -> None:
  """Keeps a population of nets where `jaxkd.load` finds it."""
  source = session.source
  with hosts.together('the nets'):
    if hosts.is_first():
      stored.export(
        workdir.net_folder(directory, stage),
        variables,
        {
          'model': entry['model'],
          'kw': entry['kw'],
          'num_classes': roles.classes_of(entry, source),
          'classes': list(source.classes),
          'inputs': inputs.as_json(_inputs_of(role, source)),
          'input_shape': shapes.as_json(role.shape),
          'dtype': train['dtype'],
          'view': role.eval_view,
          'specialist': bool(entry.get('specialize', {}).get('of')),
          'quantize': entry['quantize'],
          'corrected': bool(entry.get('correct')),
          'members': len(jax.tree.leaves(variables)[0]),
        },
      )


def _inputs_of(role: Role, source: Source) -> inputs.Inputs:
  """What a net takes: examples, or what others give of them."""
  if role.reads:
    return inputs.unknown(role.shape, 'float32')
  return inputs.of(source)


def _show(
  config: Mapping[str, Any],
  source: Source,
  rounds: list[Round],
  directory: Path,
) -> None:
  """Shows what nets of the first seed make of the first test examples.

  They are the students of compared arms, from the baseline to what is claimed
  to be better, and the teachers that were trained, but for those that read what
  others give.
  """
  task = tasks.find(config['task'])
  if not hasattr(task, 'show'):
    return
  claim = config['report']['compare']
  pairs = (claim, *config['report']['controls'].values())
  compared = {pair[side] for pair in pairs for side in ('better', 'than')}
  students, taught = {}, {}
  for part in rounds:
    for arm, own in part.students.items():
      name = f'{part.prefix}{arm}'
      role = training.reported(own)
      if name in compared and not own[role].reads:
        students[name] = f'{part.prefix}students/{arm}/{role}'
    for group in part.predicts:
      entry = part.config['teachers'][group]
      if not any(entry[how] for how in ('restore', 'made_of', 'reads')):
        name = f'{part.prefix}{called(group, part)}'
        taught[name] = f'{part.prefix}teachers/{group}'
  places = {claim['than']: 0, claim['better']: 2}
  order = sorted(students, key=lambda name: places.get(name, 1))
  stages = {**{name: students[name] for name in order}, **taught}
  test = source.splits['test']

  def applied(stage):
    net, variables = workdir.load(workdir.net_folder(directory, stage))
    return jax.jit(lambda inputs: net.apply(variables, inputs)[0])

  task.show(
    directory / 'shown',
    test.fetch(np.arange(min(SHOWN, len(test)))),
    {name: applied(stage) for name, stage in stages.items()},
    source.classes,
  )


def _writers(config: Mapping[str, Any], directory: Path) -> list:
  events, project = directory / 'events', config['report']['wandb']
  writers = [progress.tensorboard(events)]
  if project:
    writers.append(progress.wandb(project, events, dict(config)))
  return writers
