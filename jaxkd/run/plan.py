"""The plan of a round: a pass through the four stages, all its nets built."""

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxkd import tasks
from jaxkd.data import partition, sources
from jaxkd.distill import location
from jaxkd.distill.roles import Role
from jaxkd.errors import UnknownName, UserError, unknown, within
from jaxkd.memo import Memo
from jaxkd.models.external import is_external
from jaxkd.run import (
  anchors,
  arms,
  build,
  config_values,
  external,
  joined,
  names,
  schedule,
  softmax,
  terms,
)
from jaxkd.run import config as configs
from jaxkd.students import inherit
from jaxkd.tasks import fidelity
from jaxkd.teachers import many, specialists, vocabularies
from jaxkd.types import Metric

# What is the run's own, not a round's: all rounds are reported in one row.
_OF_THE_RUN = ('survey', *arms.OF_THE_RUN)


class Round(NamedTuple):
  """One pass through the stages, with all its nets built.

  Attributes:
    prefix: of the names of its stages, e.g. 'r01/'; empty where there is
      just one round.
    config: what it runs.
    arms: the config of each arm.
    teachers: group -> its net; groups come before those that depend on them.
    students: arm -> role -> its net.
    metrics: the metrics of every net, by name.
    predicts: the groups whose outputs can be measured.
    schedule: the groups of teachers that train at the same time, each with its
      devices, in order.
    learners: the steps of its jobs, each made and traced once.
  """

  prefix: str
  config: dict
  arms: dict[str, dict]
  teachers: dict[str, Role]
  students: dict[str, dict[str, Role]]
  metrics: dict[str, Metric]
  predicts: tuple[str, ...]
  schedule: tuple[dict[str, list], ...]
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
    grids: arm -> entry -> the values that it is tuned over; the nets have the
      outputs that any of them needs.

  Raises:
    UserError: the config asks for something that does not fit together.
  """
  own_arms = arms.configs_of(config)
  for arm, own in own_arms.items():
    with within(f'arms.{arm}: ' if config['arms'] else ''):
      config_values.check(own)
  tuned = {
    arm: {**own, 'distill': _with_tuned(own['distill'], grids.get(arm, {}))}
    for arm, own in own_arms.items()
  }
  names.check(config, tuned)
  external.check_references(config, tuned)
  softmax.check(config, tuned)
  taught = _teachers(prefix, config, tuned, source)
  students = _students(tuned, source, taught)
  anchors.check(config, tuned, taught, students)
  metrics, predicts = _measured(config, tuned, source, taught, students)
  metrics |= _of_outputs(config['report'], metrics, students)
  return Round(
    prefix,
    config,
    own_arms,
    taught,
    students,
    metrics,
    predicts,
    schedule.schedule_of(config['teachers'], taught, config['train']['seeds']),
    learners=Memo(),
  )


def _teachers(
  prefix: str,
  config: dict,
  own_arms: Mapping[str, dict],
  source: sources.Source,
) -> dict[str, Role]:
  """The net of each group of teachers, with all outputs that others need."""
  entries = config['teachers']
  built = {}
  for name in schedule.in_order(entries):
    entry, at = entries[name], f'teachers.{name}'
    looked_at = _looked_at(name, config, own_arms)
    kept = entry['cache']['outputs']
    if kept and not looked_at and not _is_named(name, own_arms):
      raise UserError(
        f'{at}.cache.outputs: nothing that trains looks at {name}, so nothing '
        'would be cached; leave it empty'
      )
    cached = dict.fromkeys(kept, f'{at}.cache.outputs')
    asked = {**cached, **looked_at}
    own = build.locations(entry['distill'], name, teacher=False)
    learns = {output: f'{at}.{term}' for output, term in own.items()}
    vocabularies.check_own_tokens(at, entry, source)
    if is_external(entry['restore']):  # which does not learn by its terms
      kind = tasks.logits_of(config['task'])
      with _blaming(asked, config['task'], at):
        role = external.role(entry, source, {*asked}, at=at, kind=kind)
    elif entry['made_of']:
      role = joined.joined(entry, entries, built, source, at=at)
    else:
      asked = {**learns, **asked}
      with _blaming(asked, config['task'], at):
        role = build.role(
          entry,
          source,
          built,
          at=at,
          dtype=entry['train']['dtype'],
          param_dtype=entry['train']['param_dtype'],
          locations={*asked},
          steps=0 if entry['restore'] else entry['train']['steps'],
        )
    # What has no net is looked up whether it is to be cached or not; logits
    # too, as weights of teachers may look at them.
    wanted = ()
    if role.external:
      wanted = tuple(sorted(role.external.shapes.keys() & {*asked, *learns}))
    cache = build.cache_spec(name, entries, f'{prefix}{name}', wanted)
    # The arms whose terms look at it may be left out, and then none needs it.
    if kept and not looked_at:
      cache = None
    built[name] = role._replace(cache=cache)
  return built


def _looked_at(
  name: str, config: dict, own_arms: Mapping[str, dict]
) -> dict[str, str]:
  """The outputs of a group that terms compare with or nets read.

  Returns:
    Output -> an entry that asks for it.
  """
  found = {}
  for at, entry in _nets(config, own_arms):
    for group, output in build.pairs(entry['reads']):
      if group == name:
        found[output] = f'{at}.reads'
  distills = [
    (f'teachers.{other}.', entry['distill'])
    for other, entry in config['teachers'].items()
  ]
  distills += [('', own['distill']) for own in own_arms.values()]
  for at, distill in distills:
    asked = build.locations(distill, name, teacher=True)
    found |= {output: f'{at}{entry}' for output, entry in asked.items()}
  return found


def _is_named(name: str, own_arms: Mapping[str, dict]) -> bool:
  """Whether a term names a group, be its weight 0 in all arms that run."""
  return any(
    name in terms.groups_of(term)
    for own in own_arms.values()
    for term in own['distill'].values()
  )


def _students(
  own_arms: Mapping[str, dict],
  source: sources.Source,
  groups: Mapping[str, Role],
) -> dict[str, dict[str, Role]]:
  """The nets of each arm; arms whose students are equal share them."""
  nets = Memo()

  def student(name, entry, own):
    looked_at = build.locations(own['distill'], name, teacher=False)
    asked = dict(
      at=f'students.{name}',
      dtype=own['train']['dtype'],
      param_dtype=own['train']['param_dtype'],
      locations={*looked_at},
      steps=own['train']['steps'],
    )
    make = functools.partial(build.role, entry, source, groups, **asked)
    with _blaming(looked_at, own['task'], f'students.{name}'):
      return nets.get((entry, asked), make)

  return {
    arm: {
      name: student(name, entry, own) for name, entry in own['students'].items()
    }
    for arm, own in own_arms.items()
  }


def _measured(
  config: dict,
  own_arms: Mapping[str, dict],
  source: sources.Source,
  groups: Mapping[str, Role],
  students: Mapping[str, dict[str, Role]],
) -> tuple[dict[str, Metric], tuple[str, ...]]:
  """The metrics of a round, and the groups whose outputs have them."""
  task, entries = tasks.find(config['task']), config['teachers']
  metrics = dict(task.metrics(source.classes))
  outputs = {metric.output for metric in metrics.values()}
  gives = {name: _gives(role) for name, role in groups.items()}
  predicts = tuple(
    name
    for name in groups
    if outputs & gives[name]
    and entries[name]['classes'] in (0, source.num_classes)
    and (not (own := groups[name].external) or 'test' in own.splits)
  )
  if any(entry['fuse'] == many.SPECIALISTS for entry in entries.values()):
    most = max(entry['specialize']['overlap'] for entry in entries.values())
    metrics |= specialists.metrics(most)
  compared = getattr(task, 'fidelity', fidelity.metrics)
  classify = [name for name in predicts if 'logits' in gives[name]]
  starts = _start_alone(config, own_arms)
  classify = [name for name in classify if name not in starts] or classify
  # A group that a net cannot be compared with row by row has no fidelity.
  measured = [groups[name] for name in predicts]
  measured += [role for roles in students.values() for role in roles.values()]
  classify = [
    name
    for name in classify
    if anchors.OUTPUT not in gives[name]
    or all(anchors.alike(groups[name], role) for role in measured)
  ]
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
  return metrics, predicts


def _start_alone(config: dict, own_arms: Mapping[str, dict]) -> set[str]:
  """Groups that students start from, and that nothing learns from or reads."""
  students = [
    entry for own in own_arms.values() for entry in own['students'].values()
  ]
  starts = {inherit.source(entry['init']) for entry in students}
  return {
    name for name in starts - {''} if not _looked_at(name, config, own_arms)
  }


def _of_outputs(
  report: Mapping[str, Any],
  metrics: Mapping[str, Metric],
  students: Mapping[str, dict[str, Role]],
) -> dict[str, Metric]:
  """The row's metric of further outputs than the logits (`report.outputs`).

  Raises:
    UserError: a metric that is not of the logits, or an output of no student
      that has the shape of its logits.
  """
  own, found, like = report['metric'], {}, set()
  for roles in students.values() if report['outputs'] else ():
    for role in roles.values():
      shapes = build.output_shapes(role.net, role.shape)
      wanted = shapes.get('logits')
      like |= {x for x in shapes if wanted and shapes[x].shape == wanted.shape}
  for output in report['outputs']:
    if own in metrics and metrics[own].output != 'logits':
      raise UserError(
        f'report.outputs: {own} is not measured of logits, and so of no other '
        'output; leave it empty, or choose another report.metric'
      )
    if output not in like:
      kind = 'output of a student with the shape of its logits'
      raise unknown(kind, output, like, 'report.outputs')

    def measure(outputs, batch, teachers, output=output):
      seen = {**outputs, 'logits': outputs[output]}
      return metrics[own].measure(seen, batch, teachers)

    if own in metrics:
      found[f'{own}_{output}'] = metrics[own]._replace(
        measure=measure, output=output
      )
  return found


def _nets(
  config: dict, own_arms: Mapping[str, dict]
) -> Iterator[tuple[str, dict]]:
  """The entries of all nets, by name."""
  for name, entry in config['teachers'].items():
    yield f'teachers.{name}', entry
  for own in own_arms.values():
    for name, entry in own['students'].items():
      yield f'students.{name}', entry


@contextlib.contextmanager
def _blaming(asked: Mapping[str, str], task: str, at: str) -> Iterator[None]:
  """Errors about a missing layer name the entry that asks for it.

  Or the net, where it lacks an output of the task.

  Args:
    asked: output of a net -> an entry that asks for it.
    task: the name of the task.
    at: the entry of the net.
  """
  try:
    yield
  except UnknownName as error:
    if error.kind != 'layer' or error.name not in asked:
      raise
    judged = tasks.find(task)
    names = location.names_at(getattr(judged, 'OUTPUT', ()))
    if error.name in names and hasattr(judged, 'NET'):
      raise UserError(
        f'it has no output {error.name!r}, and the task {task} needs a net '
        f'with {", ".join(sorted(names))}, such as {judged.NET!r}',
        entry=f'{at}.model',
      ) from error
    raise UserError(str(error), entry=asked[error.name]) from error


def _with_tuned(distill: dict, grid: Mapping[str, tuple]) -> dict:
  """The terms of an arm, with those whose weight is tuned."""
  for entry in grid:
    if matched := re.fullmatch(r'distill\.([^.]+\.weight)', entry):
      distill = configs.put(distill, matched[1], 1.0)
  return distill


def called(group: str, part: Round) -> str:
  """The name of a group of teachers in the row."""
  return 'teacher' if part.predicts == (group,) else f'teacher {group}'


def ensembled(part: Round, group: str) -> bool:
  """Whether the nets of a group are measured together too, as one."""
  several = part.config['teachers'][group]['count'] > 1
  task = tasks.find(part.config['task'])
  # What decodes asks one net again and again.
  mixed = 'logits' in _gives(part.teachers[group]) and not hasattr(
    task, 'decode'
  )
  # What they give together is logits alone.
  metric = part.metrics.get(part.config['report']['metric'])
  measured = not metric or metric.output in ('', 'logits')
  return several and mixed and measured


def per_seed(part: Round, group: str) -> bool:
  """Whether each seed has a group of its own, or one made of such."""
  entry = part.config['teachers'][group]
  return entry['per_seed'] or any(per_seed(part, n) for n in entry['made_of'])


def _gives(role: Role) -> set[str]:
  """The outputs of a net."""
  return set(build.output_shapes(role.net, role.shape))
