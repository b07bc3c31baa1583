"""Rounds: passes through the four stages, with all their nets built."""

import contextlib
import graphlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from jaxkd import files, tasks
from jaxkd.data import partition, sources
from jaxkd.distill.roles import AVERAGE, Role
from jaxkd.errors import UnknownName, UserError, unknown, within
from jaxkd.memo import Memo
from jaxkd.models import cost, pytorch
from jaxkd.run import arms, build, terms, workdir
from jaxkd.run import config as configs
from jaxkd.tasks import fidelity
from jaxkd.teachers import many, specialists
from jaxkd.train import sharding
from jaxkd.types import Metric


class Round(NamedTuple):
  """One pass through the stages, with all its nets built.

  Attributes:
    prefix: of the names of its stages, e.g. 'r01/'; empty where there is
      just one round.
    config: what it runs.
    arms: the config of each arm.
    teachers: group -> its net, those that others look at first.
    students: arm -> role -> its net.
    metrics: what is measured of every net.
    predicts: the groups whose outputs can be measured.
    turns: the groups that train at the same time, each with its devices, one
      turn after another.
    learners: what its jobs do, each made and traced once.
  """

  prefix: str
  config: dict
  arms: dict[str, dict]
  teachers: dict[str, Role]
  students: dict[str, dict[str, Role]]
  metrics: dict[str, Metric]
  predicts: tuple[str, ...]
  turns: tuple[dict[str, list], ...]
  learners: Memo

  @property
  def seeds(self) -> list[int]:
    return arms.seeds_of(self.config)

  def first(self, arm: str) -> str:
    """The first arm that trains alike: what they do is done once."""
    own = {name: _unshifted(c) for name, c in self.arms.items()}
    return next(name for name in own if own[name] == own[arm])


def _unshifted(config: Mapping[str, Any]) -> dict:
  """An arm's config without logit shifts, which training does not depend on."""
  for name in config['students']:
    config = configs.put(config, f'students.{name}.logit_shift', '')
  return config


def configs_of(config: dict) -> dict[str, dict]:
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
_OF_THE_RUN = ('survey', *arms.OF_THE_RUN)


def build_round(
  prefix: str,
  config: dict,
  source: sources.Source,
  grids: Mapping[str, Mapping] = MappingProxyType({}),
) -> Round:
  """A round with all its nets built.

  Args:
    prefix: of the names of its stages.
    config: what it runs.
    source: the data.
    grids: arm -> entry -> the values that it is tuned over; the nets show
      what any of them looks at.

  Raises:
    UserError: the config asks for something that does not fit together.
  """
  own_arms = arms.configs_of(config)
  trained = {name for own in own_arms.values() for name in own['students']}
  for name in sorted(trained):
    if name in config['teachers']:
      raise UserError(
        f'students.{name}: a group of teachers has this name too; rename one'
      )
  for name in (*trained, *config['teachers']):
    if name == AVERAGE:
      raise UserError(
        f'{name}: this is what terms call the running mean of a net; rename it'
      )
  for own in own_arms.values():
    configs.check_numbers(own)
    if not own['students']:
      raise UserError('students: name at least one student')
  used = {
    arm: _in_use(own['distill'], grids.get(arm, {}))
    for arm, own in own_arms.items()
  }
  for arm, distill in used.items():
    with within(f'arms.{arm}: ' if config['arms'] else ''):
      _check_terms(distill, [*config['teachers'], *own_arms[arm]['students']])
  for name, entry in config['teachers'].items():
    with within(f'teachers.{name}.'):
      _check_terms(entry['distill'], config['teachers'])
  taught, students = {}, {}
  entries = config['teachers']
  for name, entry in entries.items():
    of = entry['specialize']['of']
    if of and of not in entries:
      raise unknown('teacher', of, entries, f'teachers.{name}.specialize.of')
  looking = [
    (f'{at}distill.{name}.at', term['at'])
    for at, distill in [
      *(('', distill) for distill in used.values()),
      *((f'teachers.{n}.', e['distill']) for n, e in entries.items()),
    ]
    for name, term in distill.items()
  ]
  readers = [(f'teachers.{n}', e) for n, e in entries.items()]
  for own in own_arms.values():
    readers += [(f'students.{n}', e) for n, e in own['students'].items()]
  looking += [(f'{at}.reads', e['reads'][1::2]) for at, e in readers]
  looking += [
    (f'teachers.{n}.cache.outputs', e['cache']['outputs'])
    for n, e in entries.items()
  ]
  for name in _in_order(entries):
    entry = entries[name]
    wanted = [
      build.locations(distill, name, teacher=True)
      for distill in [*used.values(), *(e['distill'] for e in entries.values())]
    ]
    read = [pair for _, e in readers for pair in build.pairs(e['reads'])]
    wanted.append({location for group, location in read if group == name})
    if entry['cache']['outputs'] and not any(wanted):
      raise UserError(
        f'teachers.{name}.cache.outputs: nothing that trains looks at {name}, '
        'so none would be kept; leave it empty'
      )
    wanted.append(build.locations(entry['distill'], name, teacher=False))
    wanted.append(entry['cache']['outputs'])
    if entry['made_of']:
      at = f'teachers.{name}'
      role = build.joined(entry, entries, taught, source, at=at)
    else:
      with _blaming(looking):
        role = build.role(
          entry,
          source,
          taught,
          at=f'teachers.{name}',
          dtype=entry['train']['dtype'],
          locations=set().union(*wanted),
          steps=0 if entry['restore'] else entry['train']['steps'],
        )
    kept = build.cache_spec(name, entries, f'{prefix}{name}')
    taught[name] = role._replace(cache=kept)
  nets = Memo()  # arms whose students are equal have the same net

  def student(name, entry, arm):
    asked = dict(
      at=f'students.{name}',
      dtype=own_arms[arm]['train']['dtype'],
      locations=build.locations(used[arm], name, teacher=False),
      steps=own_arms[arm]['train']['steps'],
    )
    return nets.get(
      (entry, asked), lambda: build.role(entry, source, taught, **asked)
    )

  for arm, own in own_arms.items():
    with _blaming(looking):
      students[arm] = {
        name: student(name, entry, arm)
        for name, entry in own['students'].items()
      }
  task = tasks.find(config['task'])
  metrics = dict(task.metrics(source.classes))
  outputs = {metric.output for metric in metrics.values()}
  gives = {name: _gives(role) for name, role in taught.items()}
  predicts = tuple(
    name
    for name in taught
    if outputs & gives[name]
    and entries[name]['classes'] in (0, source.num_classes)
  )
  if any(entry['fuse'] == many.SPECIALISTS for entry in entries.values()):
    most = max(entry['specialize']['overlap'] for entry in entries.values())
    metrics |= specialists.metrics(most)
  compared = getattr(task, 'fidelity', fidelity.metrics)
  classify = [name for name in predicts if 'logits' in gives[name]]
  for name in classify:
    suffix = '' if len(classify) == 1 else f':{name}'
    metrics |= {
      f'{metric}{suffix}': measure for metric, measure in compared(name).items()
    }
  if hasattr(task, 'recall'):
    parts = [own['data']['partition']['students'] for own in own_arms.values()]
    for classes in dict.fromkeys(map(partition.left_out, parts)):
      name = '_'.join(('recall', *map(str, classes)))
      metrics |= {name: task.recall(classes)} if classes else {}
  turns = _turns(entries, taught, config['train']['seeds'])
  return Round(
    prefix,
    config,
    own_arms,
    taught,
    students,
    metrics,
    predicts,
    turns,
    learners=Memo(),
  )


def _in_use(distill: dict, grid: Mapping[str, tuple]) -> dict:
  """The terms of an arm, those whose weight is tuned never left out."""
  for entry in grid:
    if matched := re.fullmatch(r'distill\.([^.]+\.weight)', entry):
      distill = configs.put(distill, matched[1], 1.0)
  return distill


def _check_terms(distill: dict, nets: Iterable[str]) -> None:
  """Some term counts, and those that do name teachers that there are."""
  used = terms.in_use(distill)
  if not used:
    raise UserError(
      'distill: no term has a weight above 0, so nothing would train'
    )
  for name, term in used.items():
    for group in terms.groups_of(term):
      if group not in (*nets, AVERAGE):
        raise unknown('teacher', group, nets, f'distill.{name}.teacher')


@contextlib.contextmanager
def _blaming(looking: list[tuple[str, tuple]]) -> Iterator[None]:
  """Blames the term that looks at a layer for a layer that is not there."""
  try:
    yield
  except UnknownName as error:
    for at, location in looking if error.kind == 'layer' else ():
      if error.name in build.flat(location):
        raise UserError(str(error), entry=at) from error
    raise


def _in_order(entries: Mapping[str, dict]) -> list[str]:
  """Groups of teachers, those that others look at before these."""
  return list(itertools.chain(*_generations(entries)))


def _generations(entries: Mapping[str, dict]) -> list[tuple[str, ...]]:
  """Groups of teachers that do not look at each other, those before these."""
  graph = {
    name: build.needs(entry, entry['distill']) & set(entries)
    for name, entry in sorted(entries.items())
  }
  sorter, found = graphlib.TopologicalSorter(graph), []
  try:
    sorter.prepare()
  except graphlib.CycleError as error:
    raise UserError(
      f'teachers: {" and ".join(error.args[1])} look at each other in a '
      'circle, so none can be trained first'
    ) from error
  while sorter.is_active():
    found.append(sorter.get_ready())
    sorter.done(*found[-1])
  return found


def _turns(
  entries: Mapping[str, dict], built: Mapping[str, Role], seeds: int
) -> tuple[dict[str, list], ...]:
  """See `Round`. Groups train at the same time where devices are enough.

  That is, where there is one for each of them, on one host, and no group asks
  for a larger mesh than its share, or for the memory of all of them.
  """
  there, turns = sharding.devices(), []
  alone = jax.process_count() > 1

  def work(name):
    """The FLOPs of the forward passes of its training."""
    entry, role = entries[name], built[name]
    members = entry['count'] * (seeds if entry['per_seed'] else 1)
    examples = entry['train']['steps'] * entry['train']['batch_size']
    return members * examples * cost.cost(role.net, role.shape).flops

  def least(name):
    """The fewest devices that it can have."""
    train = entries[name]['train']
    if train['shard_parameters']:
      return len(there)
    return math.prod(max(size, 1) for size in train['mesh'].values())

  for names in _generations(entries):
    training = [
      name
      for name in names
      if not entries[name]['restore'] and not entries[name]['made_of']
    ]
    shared = {}
    if 1 < len(training) <= len(there) and not alone:
      shared = sharding.slices({name: work(name) for name in training})
    if any(least(name) > len(own) for name, own in shared.items()):
      shared = {}
    turns += [{name: there} for name in names if name not in shared]
    turns += [shared] if shared else []
  return tuple(turns)


def called(group: str, part: Round) -> str:
  """What a group of teachers is called in a row."""
  return 'teacher' if part.predicts == (group,) else f'teacher {group}'


def ensembled(part: Round, group: str) -> bool:
  """Whether the nets of a group are measured together too, as one."""
  several = part.config['teachers'][group]['count'] > 1
  task = tasks.find(part.config['task'])
  # What decodes asks one net again and again.
  mixed = 'logits' in _gives(part.teachers[group]) and not hasattr(
    task, 'decode'
  )
  return several and mixed


def per_seed(part: Round, group: str) -> bool:
  """Whether each seed has a group of its own, or one made of such."""
  entry = part.config['teachers'][group]
  return entry['per_seed'] or any(per_seed(part, n) for n in entry['made_of'])


def _gives(role: Role) -> set[str]:
  """The outputs of a net."""
  return set(build.output_shapes(role.net, role.shape))


class Made(NamedTuple):
  """Nets that a round leaves to later ones."""

  stage: str
  entry: dict
  role: Role
  members: int


def _made(part: Round) -> dict[str, Made]:
  """What a round leaves to later ones, by the name that they call it."""
  made = {}
  for name, role in part.teachers.items():
    entry = part.config['teachers'][name]
    if not entry['restore'] and not entry['made_of']:
      stage = f'{part.prefix}teachers/{name}'
      each = len(part.seeds) if entry['per_seed'] else 1
      made[stage] = Made(stage, entry, role, entry['count'] * each)
  better = part.config['report']['compare']['better'].split('/')[-1]
  for arm, own in part.students.items():
    for name, role in own.items():
      stage = f'{part.prefix}students/{arm}/{name}'
      entry = part.arms[arm]['students'][name]
      if entry['logit_shift']:  # no longer a net of its model alone
        continue
      made[stage] = Made(stage, entry, role, len(part.seeds))
      if arm == better:
        made[f'{part.prefix}students/{name}'] = made[stage]
  return made


def restored_from(
  restore: str, part: Round, rounds: list[Round], at: str
) -> Path | Made:
  """Where nets are restored from: a path, or a stage of an earlier round.

  ``pytorch:PATH`` is a file of weights, see `jaxkd.models.pytorch`;
  ``r01/teachers/main`` is a group of teachers, ``r01/students/student`` the
  role `student` of that round's better arm, ``r01/students/ARM/student`` that
  of another arm.
  """
  if restore.startswith(pytorch.PREFIX):
    return files.path(restore.removeprefix(pytorch.PREFIX), at=at)
  made = {}
  for earlier in itertools.takewhile(lambda r: r.prefix != part.prefix, rounds):
    made |= _made(earlier)
  if restore in made:
    return made[restore]
  folder = files.path(restore, at=at)
  if f'{restore.split("/")[0]}/' in [r.prefix for r in rounds] or (
    made and not folder.exists()
  ):
    raise unknown('folder or net of an earlier round', restore, made, at)
  return workdir.find_net(folder, at=f'{at}: ')
