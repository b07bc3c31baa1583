"""What each stage of a round is to train, as a population."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import keys, tasks
from jaxkd.data import augment, partition, sources
from jaxkd.data.examples import Examples
from jaxkd.distill import fusion
from jaxkd.distill.roles import Group, Role
from jaxkd.errors import UserError, within
from jaxkd.run import arms, build, evaluate, job_groups, names, terms
from jaxkd.run import config as configs
from jaxkd.run.plan import Round
from jaxkd.run.types import Job, Session
from jaxkd.students import logit_shift
from jaxkd.teachers import generated, mixture, specialists
from jaxkd.teachers import groups as teachers


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
    getattr(tasks.find(part.config['task']), 'decode', None),
  )


def of_arm(
  part: Round,
  arm: str,
  source: sources.Source,
  groups: dict[str, Group],
  examples: Examples | None = None,
) -> Job:
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
  names.known(name, part.teachers, f'{at}.teacher')
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
    evaluate.predicted_by(group.role),
    group.role.net.apply,
    _first(group),
    source.splits['train'],
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
    UserError: its logits cannot be shifted.
  """
  entry = part.arms[arm]['students'][name]
  at = f'students.{name}.logit_shift'
  if not entry['logit_shift']:
    return None
  if role.reads or 'logits' not in build.output_shapes(role.net, role.shape):
    raise UserError(
      f'{at}: it is about the logits of a net that sees the examples itself, '
      f'which {name} is not; leave it empty'
    )
  if source.splits['train'].labels.ndim > 1:
    raise UserError(
      f'{at}: it is about the classes of examples, and in {source.name} an '
      'example has many; leave it empty'
    )
  if part.arms[arm]['data']['generated']['name']:
    raise UserError(
      f'{at}: the arm {arm} sees examples that are generated, of which no '
      'class is known to be missing; leave it empty'
    )
  return logit_shift.classes(
    entry['logit_shift'],
    source.splits['train'].labels,
    of_arm(part, arm, source, {}).weights,
    source.num_classes,
    at=at,
  )


def of_teachers(
  part: Round,
  name: str,
  source: sources.Source,
  groups: dict[str, Group],
  subsets: np.ndarray | None = None,
) -> Job:
  """The population that trains a group of teachers, given earlier ones.

  Specialists need their subsets, bool [members, K]; without them theirs are
  random ones, to see whether they can be trained.
  """
  entry = part.config['teachers'][name]
  if entry['specialize']['of'] and subsets is None:
    nothing = np.zeros((1, source.num_classes))
    seeds = part.seeds if entry['per_seed'] else part.seeds[:1]
    subsets = subsets_of(part, name, [nothing] * len(seeds), by='random')
  wanted = build.needs(entry, entry['distill'])
  return of_group(
    name,
    entry,
    part.teachers[name],
    stage=f'{part.prefix}teachers/{name}',
    labels=source.splits['train'].labels,
    data=part.config['data'],
    seeds=part.seeds,
    groups=job_groups.with_read(wanted, groups),
    subsets=subsets,
  )


def of_group(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  *,
  stage: str,
  labels: np.ndarray,
  data: Mapping[str, Any],
  seeds: list[int],
  groups: Mapping[str, Group] | None = None,
  subsets: np.ndarray | None = None,
) -> Job:
  """The population that trains a group.

  Its members are the group's T teachers, or T for each of the seeds of the
  students; each has a seed and a part of the data of its own.

  Args:
    name: the group's.
    entry: its complete entry in the config.
    role: its net.
    stage: where its checkpoints go.
    labels: of the training examples.
    data: the section of the config.
    seeds: of the students' members.
    groups: the groups that it reads or learns from.
    subsets: of specialists: the classes of each, bool [members, K].
  """
  own = seeds if entry['per_seed'] else seeds[:1]
  part = entry['data']
  its_own = part['fraction'] or part['partition']
  with within(f'teachers.{name}.' if its_own else ''):
    weights = [
      partition.weights(
        labels,
        fraction=part['fraction'] or data['fraction']['teachers'],
        partition=part['partition'] or data['partition']['teachers'],
        count=entry['count'],
        seed=partition.seed_of(seed, f'teachers/{name}', data['draw']),
        role='' if its_own else 'teachers',
      )
      for seed in own
    ]
  weights, state = np.concatenate(weights), {}
  if subsets is not None:
    share = entry['specialize']['own']
    weights = weights * specialists.weights(labels, subsets, own=share)
    state = {
      'subset': subsets.astype(np.float32),
      'dustbin': specialists.dustbin_bias(labels, subsets, own=share),
    }
  return Job(
    stage=stage,
    students={name: role._replace(copies=1)},
    groups={
      other: _shared_out(group, entry, f'teachers.{name}', other)
      for other, group in (groups or {}).items()
    },
    distill=entry['distill'],
    train=entry['train'],
    seeds=[
      keys.seed(seed, f'teachers/{name}/{index}')
      for seed in own
      for index in range(entry['count'])
    ],
    weights=weights,
    order=data['order'],
    together=data['together'],
    augment=_augment(name, part['augment'], data['augment']['teachers']),
    at=f'teachers.{name}.',
    given={name: {'specialist': state}} if state else {},
  )


def _augment(name: str, own: str, common: str) -> augment.Augment:
  """How a group's batches are mixed: as it says, or as for all teachers."""
  if not own:
    return augment.Augment(common, 'data.augment.teachers')
  text = '' if own == augment.NONE else own
  return augment.Augment(text, f'teachers.{name}.data.augment')


def _shared_out(group: Group, entry, at: str, other: str) -> Group:
  """A group as the members of another, T for each seed, look at it."""
  if not group.per_member:
    return group
  if not entry['per_seed']:
    raise UserError(
      f'{at}.per_seed: {other} has teachers for each seed, so what learns from '
      f'it must too; set it, or unset teachers.{other}.per_seed'
    )

  def repeated(x):
    if isinstance(x, jax.ShapeDtypeStruct):
      members = x.shape[0] * entry['count']
      return jax.ShapeDtypeStruct((members, *x.shape[1:]), x.dtype)
    return jnp.repeat(x, entry['count'], axis=0)

  return group._replace(variables=jax.tree.map(repeated, group.variables))


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
      parts = job_groups.with_read(set(entry['made_of']), found)
      found[name] = teachers.join(role, parts, seeds)
    else:
      found[name] = teachers.shapes(entry, role, seeds)
  for weighed_together in weighed(part, found):
    parts = [found[name] for name in weighed_together]
    found[fusion.validated(weighed_together)] = mixture.shapes(parts)
  return found


def weighed(part: Round, groups: Mapping[str, Group]) -> list[tuple[str, ...]]:
  """The sets of these groups whose weights are found on validation."""
  looking = [*part.config['teachers'].values(), *part.arms.values()]
  sets = [_weighed_by_validation(own['distill'], groups) for own in looking]
  return list(dict.fromkeys(itertools.chain(*sets)))


def _weighed_by_validation(
  distill: Mapping[str, Any], groups: Mapping[str, Any]
) -> list[tuple[str, ...]]:
  """The groups that terms weigh by the validation split.

  Args:
    distill: the complete terms.
    groups: of those that there are, with their roles by name.

  Returns:
    The names of each set of groups, but for groups that read another.
  """
  named = [
    terms.groups_of(entry)
    for entry in distill.values()
    if entry['fuse_weights'] == fusion.VALIDATION
  ]
  return [
    names
    for names in dict.fromkeys(named)
    if names and all(n in groups and not groups[n].role.reads for n in names)
  ]
