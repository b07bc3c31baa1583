"""Everything that is built and checked before anything trains."""

import contextlib
import graphlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxkd import config as configs
from jaxkd import keys, tasks, workdir
from jaxkd.data import generated, partition, sources
from jaxkd.data.examples import Examples
from jaxkd.distill import fusion, roles, terms, training
from jaxkd.distill.step import Role
from jaxkd.distill.terms import AVERAGE
from jaxkd.distill.training import Group, Session
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.known import Known
from jaxkd.models import cost, pytorch
from jaxkd.report import rows, wording
from jaxkd.students import arms, correct
from jaxkd.tasks import fidelity
from jaxkd.tasks.metrics import Metric
from jaxkd.teachers import groups as teachers
from jaxkd.teachers import many, mixture, specialists
from jaxkd.train import sharding


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
  learners: Known

  @property
  def seeds(self) -> list[int]:
    return arms.seeds_of(self.config)

  def first(self, arm: str) -> str:
    """The first arm that trains alike: what they do is done once."""
    own = {name: correct.uncorrected(c) for name, c in self.arms.items()}
    return next(name for name in own if own[name] == own[arm])


def prepare(
  config: dict, directory: Path, grids: Mapping[str, Mapping] | None = None
) -> tuple[sources.Source, list]:
  """Loads the data, builds all nets and traces every kind of step.

  Args:
    config: the run's, complete.
    directory: the workdir.
    grids: arm of the first round -> entry -> the values that it is tuned
      over; the nets show what any of them looks at.

  Returns:
    The source and the rounds.

  Raises:
    UserError: the config asks for something that does not fit together.
  """
  configs.check_numbers(config)
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
  rounds = []
  for prefix, own in configs_of(config).items():
    tuned = {} if rounds else grids or {}
    rounds.append(_round(prefix, own, source, tuned))
  _check_report(config, rounds)
  for part in rounds:
    _check(part, source, directory, rounds)
  return source, rounds


class Made(NamedTuple):
  """Nets that a round leaves to later ones."""

  stage: str
  entry: dict
  role: Role
  members: int


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
    return Path(restore.removeprefix(pytorch.PREFIX))
  made = {}
  for earlier in itertools.takewhile(lambda r: r.prefix != part.prefix, rounds):
    made |= _made(earlier)
  if restore in made:
    return made[restore]
  folder = Path(restore).expanduser()
  if f'{restore.split("/")[0]}/' in [r.prefix for r in rounds] or (
    made and not folder.exists()
  ):
    raise unknown('folder or net of an earlier round', restore, made, at)
  return workdir.find_net(folder, at=f'{at}: ')


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
      if entry['correct']:  # no longer a net of its model alone
        continue
      made[stage] = Made(stage, entry, role, len(part.seeds))
      if arm == better:
        made[f'{part.prefix}students/{name}'] = made[stage]
  return made


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
_OF_THE_RUN = (
  'name',
  'survey',
  'task',
  'report',
  'rounds',
  'tune',
  'data.source',
  'data.dir',
  'data.layout',
  'data.kw',
  'data.classes',
  'train.seed',
  'train.seeds',
)


def _round(prefix: str, config: dict, source: sources.Source, grids) -> Round:
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
      roles.locations(distill, name, teacher=True)
      for distill in [*used.values(), *(e['distill'] for e in entries.values())]
    ]
    read = [pair for _, e in readers for pair in roles.pairs(e['reads'])]
    wanted.append({location for group, location in read if group == name})
    if entry['cache']['outputs'] and not any(wanted):
      raise UserError(
        f'teachers.{name}.cache.outputs: nothing that trains looks at {name}, '
        'so none would be kept; leave it empty'
      )
    wanted.append(roles.locations(entry['distill'], name, teacher=False))
    wanted.append(entry['cache']['outputs'])
    if entry['made_of']:
      at = f'teachers.{name}'
      role = roles.joined(entry, entries, taught, source, at=at)
    else:
      with _blaming(looking):
        role = roles.role(
          entry,
          source,
          taught,
          at=f'teachers.{name}',
          dtype=entry['train']['dtype'],
          locations=set().union(*wanted),
          steps=0 if entry['restore'] else entry['train']['steps'],
        )
    kept = roles.kept(name, entries, f'{prefix}{name}')
    taught[name] = role._replace(kept=kept)
  nets = Known()  # arms whose students are equal have the same net

  def student(name, entry, arm):
    asked = dict(
      at=f'students.{name}',
      dtype=own_arms[arm]['train']['dtype'],
      locations=roles.locations(used[arm], name, teacher=False),
      steps=own_arms[arm]['train']['steps'],
    )
    return nets.get(
      (entry, asked), lambda: roles.role(entry, source, taught, **asked)
    )

  for arm, own in own_arms.items():
    with _blaming(looking):
      students[arm] = {
        name: student(name, entry, arm)
        for name, entry in own['students'].items()
      }
  task = tasks.find(config['task'])
  metrics = dict(task.metrics(source.num_classes))
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
  classify = [name for name in predicts if 'logits' in gives[name]]
  for name in classify:
    suffix = '' if len(classify) == 1 else f':{name}'
    metrics |= {
      f'{metric}{suffix}': measure
      for metric, measure in fidelity.metrics(name).items()
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
    learners=Known(),
  )


def _gives(role: Role) -> set[str]:
  """The outputs of a net."""
  return set(roles.output_shapes(role.net, role.shape))


@contextlib.contextmanager
def _blaming(looking: list[tuple[str, tuple]]) -> Iterator[None]:
  """A layer that is not there is put down to the term that looks at it."""
  try:
    yield
  except UserError as error:
    missing = re.search(r"no layer ('.*?')", str(error))
    for at, location in looking if missing else ():
      if missing[1] in repr(location):
        raise UserError(f'{at}: {error}') from error
    raise


def _in_order(entries: Mapping[str, dict]) -> list[str]:
  """Groups of teachers, those that others look at before these."""
  return list(itertools.chain(*_generations(entries)))


def _generations(entries: Mapping[str, dict]) -> list[tuple[str, ...]]:
  """Groups of teachers that do not look at each other, those before these."""
  graph = {
    name: roles.needs(entry, entry['distill']) & set(entries)
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


def _check_report(config, parts):
  """The report's metric and arms exist."""
  report = config['report']
  metrics = {k: m for k, m in parts[0].metrics.items() if not m.teacher}
  if report['metric'] not in metrics:
    raise unknown('metric', report['metric'], metrics, 'report.metric')
  known = [*metrics]
  if report['reach']:
    known.append(wording.steps_to(report['reach']))
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
    if len(set(nets.values())) > 1:
      raise UserError(
        f'{at}: {nets} nets cannot be compared seed by seed; set per_seed and '
        'count=1 for the teachers, or compare other arms'
      )


def _derived(factors: object, counts: Mapping[str, int], at: str) -> int:
  """How many values a sum of arms has."""
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
  """How many values each arm of the row has: one a seed, mostly."""
  seeds = len(part.seeds)
  found = dict.fromkeys(part.arms, seeds)
  for group in part.predicts:
    entry = part.config['teachers'][group]
    name, own = called(group, part), per_seed(part, group)
    found[name] = seeds if own else entry['count']
    if ensembled(part, group):
      found[f'{name} ensemble'] = seeds if own else 1
  return found


def ensembled(part: Round, group: str) -> bool:
  """Whether the nets of a group are measured together too, as one."""
  several = part.config['teachers'][group]['count'] > 1
  return several and 'logits' in _gives(part.teachers[group])


def per_seed(part: Round, group: str) -> bool:
  """Whether each seed has a group of its own, or one made of such."""
  entry = part.config['teachers'][group]
  return entry['per_seed'] or any(per_seed(part, n) for n in entry['made_of'])


def session_of(
  part: Round, source, directory, progress, stop=None, say=lambda text: None
) -> Session:
  """What the stages of a round have in common."""
  return Session(
    source,
    part.metrics,
    Path(directory) / 'checkpoints',
    progress,
    stop,
    say,
    part.learners,
  )


def job(
  part: Round,
  arm: str,
  source: sources.Source,
  groups: dict[str, Group],
  examples: Examples | None = None,
) -> training.Job:
  """The population of students that an arm of a round trains.

  Args:
    part: the round.
    arm: its name.
    source: the data.
    groups: the teachers.
    examples: what was generated for it; zeros stand for that if it is not
      given.
  """
  made, generator = None, generator_of(part, arm, source, groups)
  if generator is not None:
    weights = generator.weights(range(len(part.seeds)))
    made = (generator.shapes() if examples is None else examples, weights)
  return arms.job(
    part.arms[arm],
    part.students[arm],
    groups,
    stage=f'{part.prefix}students/{arm}',
    labels=source.splits['train'].labels,
    made=made,
  )


def generator_of(
  part: Round, arm: str, source: sources.Source, groups: dict[str, Group]
) -> generated.Generator | None:
  """What makes the examples of an arm; None where it sees the data.

  Raises:
    UserError: something about the data that does not go with it, or a teacher
      of which nothing can be made.
  """
  data, at = part.arms[arm]['data'], 'data.generated'
  entry = data['generated']
  if not entry['name']:
    return None
  alone = next(iter(part.teachers)) if len(part.teachers) == 1 else ''
  name = entry['teacher'] or alone
  if name not in part.teachers:
    raise unknown('teacher', name, part.teachers, f'{at}.teacher')
  if data['fraction']['students'] != 1 or (
    data['partition']['students'] != 'none'
  ):
    raise UserError(
      f'{at}: it is seen whole; set data.fraction.students=1.0 and '
      "data.partition.students='none', and its size by data.generated.count"
    )
  for other, teacher in part.config['teachers'].items():
    if teacher['cache']['outputs']:
      raise UserError(
        f'teachers.{other}.cache.outputs: what is kept is of the data, and the '
        f'arm {arm} sees examples that are generated; leave it empty'
      )
  if jax.process_count() > 1:
    raise UserError(
      f'{at}: one host alone can make examples so far; run on one'
    )
  group, teacher = groups[name], part.config['teachers'][name]
  if teacher['count'] > 1:
    raise UserError(
      f'{at}.teacher: {name} has several nets, and examples are made of one; '
      f'set teachers.{name}.count=1'
    )
  if group.role.reads or name not in part.predicts:
    raise UserError(
      f'{at}.teacher: {name} should see examples and give logits; name another'
    )
  return generated.Generator(
    entry,
    training.predicted_by(group.role),
    _first(group),
    input_shape=source.input_shape,
    num_classes=source.num_classes,
    seeds=part.seeds,
    of=configs.as_json({k: teacher[k] for k in ('model', 'kw', 'views')}),
  )


def _first(group: Group) -> dict:
  """The variables of the first of the T nets of each seed, or their shapes."""
  own = group.per_member

  def first(x):
    if isinstance(x, jax.ShapeDtypeStruct):
      lead, rest = (x.shape[0], x.shape[2:]) if own else (1, x.shape[1:])
      return jax.ShapeDtypeStruct((lead, *rest), x.dtype)
    return x[:, 0] if own else x[:1]

  return jax.tree.map(first, group.variables)


def shifted(
  part: Round, arm: str, name: str, role: Role, source: sources.Source
) -> np.ndarray | None:
  """The classes whose logits are shifted for each seed, bool [S, K].

  None where a student is left as it is.

  Raises:
    UserError: it cannot be corrected.
  """
  entry = part.arms[arm]['students'][name]
  at = f'students.{name}.correct'
  if not entry['correct']:
    return None
  if role.reads or 'logits' not in roles.output_shapes(role.net, role.shape):
    raise UserError(
      f'{at}: it is about the logits of a net that sees the examples itself, '
      f'which {name} is not; leave it empty'
    )
  if part.arms[arm]['data']['generated']['name']:
    raise UserError(
      f'{at}: the arm {arm} sees examples that are generated, of which no '
      'class is known to be missing; leave it empty'
    )
  return correct.classes(
    entry['correct'],
    source.splits['train'].labels,
    job(part, arm, source, {}).weights,
    source.num_classes,
    at=at,
  )


def teacher_job(
  part: Round,
  name: str,
  source: sources.Source,
  groups: dict[str, Group],
  subsets: np.ndarray | None = None,
) -> training.Job:
  """The population that trains a group of teachers, given earlier ones.

  Specialists need their subsets, bool [members, K]; without them theirs are
  random ones, to see whether they can be trained.
  """
  entry = part.config['teachers'][name]
  if entry['specialize']['of'] and subsets is None:
    nothing = np.zeros((1, source.num_classes))
    seeds = part.seeds if entry['per_seed'] else part.seeds[:1]
    subsets = subsets_of(part, name, [nothing] * len(seeds), by='random')
  wanted = roles.needs(entry, entry['distill'])
  return teachers.job(
    name,
    entry,
    part.teachers[name],
    stage=f'{part.prefix}teachers/{name}',
    labels=source.splits['train'].labels,
    data=part.config['data'],
    seeds=part.seeds,
    groups=training.with_read(wanted, groups),
    subsets=subsets,
  )


def subsets_of(
  part: Round, name: str, probabilities: Sequence[np.ndarray], by: str = ''
) -> np.ndarray:
  """The classes of each specialist of a group, bool [members, K].

  Args:
    part: the round.
    name: the group's.
    probabilities: what the generalist of each seed predicts, [N, K].
    by: how they are chosen; by default as the config says.
  """
  entry = part.config['teachers'][name]
  special = entry['specialize']
  return np.concatenate(
    [
      specialists.clusters(
        each,
        entry['count'],
        special['size'],
        by=by or special['by'],
        overlap=special['overlap'],
        cover=special['cover'],
        seed=keys.seed(seed, f'teachers/{name}/subsets'),
        at=f'teachers.{name}.specialize',
      )
      for each, seed in zip(probabilities, part.seeds, strict=False)
    ]
  )


def shapes_of(part: Round) -> dict[str, Group]:
  """The groups of a round before they are trained."""
  found, seeds = {}, len(part.seeds)
  for name, role in part.teachers.items():
    entry = part.config['teachers'][name]
    if entry['made_of']:
      parts = training.with_read(set(entry['made_of']), found)
      found[name] = teachers.join(role, parts, seeds)
    else:
      found[name] = teachers.shapes(entry, role, seeds)
  for names in weighed(part, found):
    parts = [found[name] for name in names]
    found[fusion.validated(names)] = mixture.shapes(parts)
  return found


def weighed(part: Round, groups: Mapping[str, Group]) -> list[tuple[str, ...]]:
  """The sets of these groups whose weights are found on validation."""
  looking = [*part.config['teachers'].values(), *part.arms.values()]
  sets = [mixture.wanted(own['distill'], groups) for own in looking]
  return list(dict.fromkeys(itertools.chain(*sets)))


def _check(part: Round, source, directory, rounds):
  """Traces a step of every stage, and reads what is to be restored."""
  session = session_of(part, source, directory, progress=None)
  shapes = shapes_of(part)
  devices = {name: own for turn in part.turns for name, own in turn.items()}
  for name, role in part.teachers.items():
    entry, at = part.config['teachers'][name], f'teachers.{name}.restore'
    if entry['made_of']:
      continue
    if not entry['restore']:
      with sharding.on(devices[name]):
        training.check(session, teacher_job(part, name, source, shapes))
      continue
    found = restored_from(entry['restore'], part, rounds, at)
    if isinstance(found, Made):
      _check_made(found, entry, role, len(part.seeds), at)
    else:
      teachers.restore(name, entry, role, len(part.seeds), found)
  for arm in part.arms:
    if arm == part.first(arm):
      training.check(session, job(part, arm, source, shapes))
    for name, role in part.students[arm].items():
      shifted(part, arm, name, role, source)


def _check_made(made: Made, entry, role, seeds, at):
  """Refuses nets of an earlier round that will not be what is wanted."""
  count = entry['count'] * (seeds if entry['per_seed'] else 1)
  short = made.members < count
  if short or (entry['per_seed'] and made.members != count):
    raise UserError(
      f'{at}: {made.stage} makes {made.members} nets and {count} are wanted '
      '(count × seeds where per_seed is set); change the count'
    )
  shapes = teachers.shapes({'per_seed': False, 'count': 1}, made.role, 0)
  teachers.check_same(shapes.variables, role, made.entry, at)


def called(group: str, part: Round) -> str:
  """What a group of teachers is called in a row."""
  return 'teacher' if part.predicts == (group,) else f'teacher {group}'
