"""Everything that is built and checked before anything trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from jaxkd import config as configs
from jaxkd import tasks, workdir
from jaxkd.data import sources
from jaxkd.distill import roles, terms, training
from jaxkd.distill.knowledge import Arguments, find_loss
from jaxkd.distill.step import Role
from jaxkd.distill.training import Group, Session
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.models import cost
from jaxkd.report import rows
from jaxkd.students import arms
from jaxkd.tasks import fidelity
from jaxkd.tasks.metrics import Metric
from jaxkd.teachers import groups as teachers


class Round(NamedTuple):
  """One pass through the stages, with all its nets built.

  Attributes:
    prefix: of the names of its stages, e.g. 'r01/'; empty where there is
      just one round.
    config: what it runs.
    arms: the config of each arm.
    teachers: group -> its net.
    students: arm -> role -> its net.
    metrics: what is measured of every net.
  """

  prefix: str
  config: dict
  arms: dict[str, dict]
  teachers: dict[str, Role]
  students: dict[str, dict[str, Role]]
  metrics: dict[str, Metric]

  @property
  def seeds(self) -> list[int]:
    return arms.seeds_of(self.config)


def prepare(config: dict, directory: Path) -> tuple[sources.Source, list]:
  """Loads the data, builds all nets and traces every kind of step.

  Args:
    config: the run's, complete.
    directory: the workdir.

  Returns:
    The source and the rounds.

  Raises:
    UserError: the config asks for something that does not fit together.
  """
  configs.check_numbers(config)
  data = config['data']
  with blamed('data.source'):
    source = sources.load(data['source'], dir=data['dir'], **data['kw'])
  for split in ('train', 'validation', 'test'):
    if split not in source.splits:
      raise UserError(
        f'data.source: {source.name} has no {split} split, which every run '
        'needs; see data.kw.validation'
      )
  rounds = [
    _round(prefix, own, source) for prefix, own in _configs_of(config).items()
  ]
  _check_report(config, rounds)
  for part in rounds:
    _check(part, source, directory, [r.prefix for r in rounds])
  return source, rounds


def restored_from(
  restore: str, directory: Path, prefixes: list[str]
) -> Path | None:
  """Where a net is restored from, None where an earlier round will make it.

  ``r01/students/student`` is the role `student` of that round's better arm,
  ``r01/students/ARM/student`` that of another arm.
  """
  name = f'{restore.split("/")[0]}/'
  if name in prefixes:
    return None
  return workdir.find_net(restore)


def _configs_of(config: dict) -> dict[str, dict]:
  """The config of each round, by the prefix of its stages."""
  if not config['rounds']:
    return {'': config}
  made = {}
  for name, partial in sorted(config['rounds'].items()):
    own = configs.override(config, partial, f'rounds.{name}')
    for entry in _OF_THE_RUN:
      if configs.get(own, entry) != configs.get(config, entry):
        raise UserError(
          f'rounds.{name}.{entry}: all rounds share this; change it for all'
        )
    made[f'{name}/'] = own
  return made


# What is the run's own, not a round's: all rounds are reported in one row.
_OF_THE_RUN = (
  'name',
  'survey',
  'task',
  'report',
  'rounds',
  'data.source',
  'data.dir',
  'data.kw',
  'train.seed',
  'train.seeds',
)


def _round(prefix: str, config: dict, source: sources.Source) -> Round:
  own_arms = arms.configs_of(config)
  for name in config['students']:
    if name in config['teachers']:
      raise UserError(
        f'students.{name}: a group of teachers has this name too; rename one'
      )
  for own in own_arms.values():
    configs.check_numbers(own)
  taught, students = {}, {}
  for name, entry in config['teachers'].items():
    wanted = [
      roles.locations(arm['distill'], name, teacher=True)
      for arm in own_arms.values()
    ]
    wanted.append(roles.locations(entry['distill'], name, teacher=False))
    taught[name] = roles.role(
      entry,
      source,
      at=f'teachers.{name}',
      dtype=entry['train']['dtype'],
      locations=set().union(*wanted),
    )
  for arm, own in own_arms.items():
    if not own['students']:
      raise UserError('students: name at least one student')
    students[arm] = {
      name: roles.role(
        entry,
        source,
        at=f'students.{name}',
        dtype=own['train']['dtype'],
        locations=roles.locations(own['distill'], name, teacher=False),
      )
      for name, entry in own['students'].items()
    }
  metrics = dict(tasks.find(config['task']).metrics(source.num_classes))
  for name in taught:
    suffix = '' if len(taught) == 1 else f':{name}'
    metrics |= {
      f'{metric}{suffix}': measure
      for metric, measure in fidelity.metrics(name).items()
    }
  return Round(prefix, config, own_arms, taught, students, metrics)


def _check_report(config, parts):
  """The report's metric and arms exist."""
  report = config['report']
  metrics = {k: m for k, m in parts[0].metrics.items() if not m.teacher}
  if report['metric'] not in metrics:
    raise unknown('metric', report['metric'], metrics, 'report.metric')
  names = {
    f'{part.prefix}{name}'
    for part in parts
    for name in [*part.arms, *(called(g, part) for g in part.teachers)]
  }
  pairs = {'report.compare': report['compare']}
  for name, pair in report['controls'].items():
    pairs[f'report.controls.{name}'] = pair
  rows.check_shape(config['survey'], rows.SCHEMA['survey'], 'survey')
  rows.check_shape(list(report['notes']), [str], 'report.notes')
  counts = {
    f'{part.prefix}{called(g, part)}': entry['count']
    * (len(part.seeds) if entry['per_seed'] else 1)
    for part in parts
    for g, entry in part.config['teachers'].items()
  }
  for at, pair in pairs.items():
    if not isinstance(pair, dict) or set(pair) != {'better', 'than'}:
      raise UserError(f'{at}: it needs the entries better and than')
    for side, name in pair.items():
      if name not in names:
        raise unknown('arm', name, names, f'{at}.{side}')
    nets = {
      name: counts.get(name, len(parts[0].seeds)) for name in pair.values()
    }
    if len(set(nets.values())) > 1:
      raise UserError(
        f'{at}: {nets} nets cannot be compared seed by seed; set per_seed and '
        'count=1 for the teachers, or compare other arms'
      )


def session_of(part: Round, source, directory, progress, stop=None) -> Session:
  """What the stages of a round have in common."""
  return Session(
    source, part.metrics, Path(directory) / 'checkpoints', progress, stop
  )


def jobs(
  part: Round, source: sources.Source, groups: dict[str, Group]
) -> dict[str, training.Job]:
  """The populations of students that a round trains, by arm."""
  return {
    arm: arms.job(
      own,
      part.students[arm],
      groups,
      stage=f'{part.prefix}students/{arm}',
      labels=source.splits['train'].labels,
    )
    for arm, own in part.arms.items()
  }


def teacher_job(part: Round, name: str, source: sources.Source) -> training.Job:
  """The population that trains a group of teachers."""
  return teachers.job(
    name,
    part.config['teachers'][name],
    part.teachers[name],
    stage=f'{part.prefix}teachers/{name}',
    labels=source.splits['train'].labels,
    data=part.config['data'],
    seeds=part.seeds,
  )


def shapes_of(part: Round) -> dict[str, Group]:
  """The groups of a round before they are trained."""
  return {
    name: teachers.shapes(part.config['teachers'][name], role, len(part.seeds))
    for name, role in part.teachers.items()
  }


def _check(part: Round, source, directory, prefixes):
  """Traces a step of every stage, and reads what is to be restored."""
  session = session_of(part, source, directory, progress=None)
  for name, role in part.teachers.items():
    entry = part.config['teachers'][name]
    if not entry['restore']:
      training.check(session, teacher_job(part, name, source))
    elif folder := restored_from(entry['restore'], directory, prefixes):
      teachers.restore(name, entry, role, len(part.seeds), folder)
  for job in jobs(part, source, shapes_of(part)).values():
    training.check(session, job)


# What is printed before training.


def describe(console: Console, source: sources.Source, rounds: list) -> dict:
  """Prints what is going to train and what it costs; gives `shares`."""
  sizes = ', '.join(
    f'{len(examples):,} {split}' for split, examples in source.splits.items()
  )
  console.print(
    f'[bold]{source.name}[/]: {sizes}; {source.num_classes} classes of '
    f'{" × ".join(map(str, jax.tree.leaves(source.input_shape)))}'
  )
  table = Table(box=None, pad_edge=False)
  for column in ('', 'model', 'nets', 'parameters', 'memory', 'FLOPs'):
    table.add_column(column, justify='left' if column < 'n' else 'right')
  part = rounds[-1]
  for name, entry, net, shape in nets(part, source):
    found = cost.cost(net, shape)
    table.add_row(
      name,
      entry['model'],
      str(entry['count']),
      f'{found.params:,}',
      f'{found.bytes / 2**20:.2f} MiB',
      f'{found.flops:,}',
    )
  console.print(table)
  found = shares(part, source)
  for arm, share in found.items():
    if share:
      console.print(
        f'[dim]{arm}: the teachers take {share:.0%} of the FLOPs of a step[/]'
      )
  return found


def nets(part: Round, source: sources.Source) -> list[tuple]:
  """(name, entry, net, input shape) of each group, then of each student.

  Students are those of the arm that the report claims to be better.
  """
  better = part.config['report']['compare']['better'].removeprefix(part.prefix)
  arm = better if better in part.arms else next(iter(part.arms))
  found = []
  for section, entries, built in (
    ('teachers', part.config['teachers'], part.teachers),
    ('students', part.arms[arm]['students'], part.students[arm]),
  ):
    for name, role in built.items():
      shape = roles.input_shape(entries[name], source, f'{section}.{name}')
      found.append(
        (
          called(name, part) if section == 'teachers' else name,
          entries[name],
          role.net,
          shape,
        )
      )
  return found


def called(group: str, part: Round) -> str:
  """What a group of teachers is called in a row."""
  return 'teacher' if len(part.teachers) == 1 else f'teacher {group}'


def shares(part: Round, source: sources.Source) -> dict[str, float]:
  """The teachers' share of the FLOPs of a step, by arm."""
  session = session_of(part, source, Path(), progress=None)
  found = {}
  for arm, job in jobs(part, source, shapes_of(part)).items():
    learner, arguments = training.member_shapes(session, job)
    total = cost.flops(learner.step, *arguments)
    teaching = 0
    for name in training.used_groups(job):
      entry = part.config['teachers'][name]
      shape = roles.input_shape(entry, source, f'teachers.{name}')
      one = cost.cost(part.teachers[name].net, shape)
      teaching += one.flops * entry['count'] * job.train['batch_size']
    found[arm] = teaching / total if total else 0.0
  return found


def explain(console: Console, source: sources.Source, rounds: list) -> None:
  """Prints the loss of each arm with its numbers, and every tap."""
  for part in rounds:
    for arm, own in part.arms.items():
      console.print(f'\n[bold]{part.prefix}{arm}[/] minimises the sum of')
      for name, term in sorted(own['distill'].items()):
        if not terms.is_zero(term['weight']):
          console.print(f'  {_sentence(name, term)}', highlight=False)
    for section, entries in (
      ('teachers', part.config['teachers']),
      ('students', part.config['students']),
    ):
      for name, entry in entries.items():
        at = f'{section}.{name}'
        console.print(
          f'\n[bold]{part.prefix}{at}[/]: layers of {entry["model"]}'
        )
        for layer, leaf in roles.layers(entry, source, at).items():
          shape = ', '.join(map(str, ('B', *leaf.shape[1:])))
          console.print(
            f'  {layer:<32} [{shape}]', highlight=False, markup=False
          )


def _sentence(name: str, term: Mapping[str, Any]) -> str:
  """A term as a formula: weight · loss(student, teacher; options)."""
  groups = term['teacher']
  groups = (groups,) if isinstance(groups, str) else groups
  sides = [str(term['at'][0])]
  if any(groups):
    group = ' + '.join(groups)
    fused = f'{term["fuse"]} of {group}' if term['fuse'] else group
    sides.append(f'{term["at"][1]} of {fused}')
  if term['adapter']:
    sides[0] = f'{term["adapter"]}({sides[0]})'
  fields = Arguments(find_loss(term['loss'], at=name)).fields
  options = [f'{k}={v}' for k, v in sorted(term['kw'].items())]
  factors = [f'{term["weight"]:g}']
  if term['schedule']['name']:
    factors.append(f'{term["schedule"]["name"]}(step)')
  if term['example_weight']:
    factors.append(f'{term["example_weight"]}(example)')
  arguments = ', '.join([*sides, *fields, *options])
  text = f'{name} = {" · ".join(factors)} · {term["loss"]}({arguments})'
  if term['when']:
    text += f' where {term["when"]}, {term["otherwise"]} elsewhere'
  return text
