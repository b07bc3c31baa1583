"""The populations that the stages of a round train, as `Job`s."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxkd import files, keys, run_files, shapes, tasks
from jaxkd.data import augment, partition, sources
from jaxkd.data import examples as examples_lib
from jaxkd.data.examples import Examples
from jaxkd.distill import fusion
from jaxkd.distill.roles import Group, Role
from jaxkd.errors import UserError, within
from jaxkd.run import (
  arms,
  build,
  class_weights,
  fitted,
  generated,
  job_groups,
  shares,
  terms,
)
from jaxkd.run.plan import Round
from jaxkd.run.types import Job, Session
from jaxkd.teachers import groups as teachers
from jaxkd.teachers import mixture, specialists


def session_of(
  part: Round, source, directory, progress, stop=None, say=lambda text: None
) -> Session:
  """The session of a round: what its stages have in common."""
  return Session(
    source,
    part.metrics,
    files.as_path(directory) / run_files.CHECKPOINTS,
    progress,
    stop,
    say,
    part.learners,
    getattr(tasks.find(part.config['task']), 'decode', None),
    tasks.logits_of(part.config['task']),
  )


def steps_of(rounds: Iterable[Round]) -> dict[str, int]:
  """The stages of a run that train, in order, and the steps of each."""
  found = {}
  for part in rounds:
    for name in itertools.chain.from_iterable(part.schedule):
      entry = part.config['teachers'][name]
      given = entry['restore'] or entry['made_of']
      if not given and not fitted.is_fitted({name: part.teachers[name]}):
        stage = f'{part.prefix}teachers/{name}'
        found[stage] = entry['train']['steps']
    for arm in dict.fromkeys(map(part.first, part.arms)):  # equal ones once
      if not fitted.is_fitted(part.students[arm]):
        stage = f'{part.prefix}students/{arm}'
        found[stage] = part.arms[arm]['train']['steps']
  return found


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
    examples: the generated examples, if it has any; zeros if they are not made
      yet.
  """
  made, generator = None, generated.generator_of(part, arm, source, groups)
  if generator is not None:
    weights = generator.weights(range(len(part.seeds)))
    made = (generator.shapes() if examples is None else examples, weights)
  job = arms.job(
    part.arms[arm],
    part.students[arm],
    groups,
    stage=f'{part.prefix}students/{arm}',
    training=source.splits['train'],
    made=made,
  )
  return class_weights.resolved(job, source)


def of_teachers(
  part: Round,
  name: str,
  source: sources.Source,
  groups: dict[str, Group],
  subsets: np.ndarray | None = None,
) -> Job:
  """The population that trains a group of teachers, given earlier ones.

  Specialists need their subsets, bool [members, K]; without them random ones
  are taken, so that their training can be checked before it starts.
  """
  entry = part.config['teachers'][name]
  if entry['specialize']['of'] and subsets is None:
    nothing = np.zeros((1, source.num_classes))
    seeds = part.seeds if entry['per_seed'] else part.seeds[:1]
    subsets = subsets_of(part, name, [nothing] * len(seeds), by='random')
  wanted = build.needs(entry, entry['distill'])
  job = of_group(
    name,
    entry,
    part.teachers[name],
    stage=f'{part.prefix}teachers/{name}',
    training=source.splits['train'],
    data=part.config['data'],
    seeds=part.seeds,
    groups=job_groups.with_read(wanted, groups),
    subsets=subsets,
  )
  return class_weights.resolved(job, source)


def of_group(
  name: str,
  entry: Mapping[str, Any],
  role: Role,
  *,
  stage: str,
  training: Examples,
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
    training: the training examples.
    data: the section of the config.
    seeds: of the students' members.
    groups: the groups that it reads or learns from.
    subsets: of specialists: the classes of each, bool [members, K].
  """
  own = seeds if entry['per_seed'] else seeds[:1]
  part, share = entry['data'], shares.of_teachers(entry, data)
  its_own = part['fraction'] or part['partition']
  labels = training.index
  at = f'teachers.{name}.data.unit' if part['unit'] else 'data.unit.teachers'
  units = examples_lib.units(training, share.unit, at)
  with within(f'teachers.{name}.' if its_own else ''):
    weights = [
      partition.weights(
        labels,
        fraction=share.fraction,
        partition=share.partition,
        count=entry['count'],
        seed=partition.seed_of(seed, f'teachers/{name}', data['draw']),
        units=units,
        role='' if its_own else 'teachers',
      )
      for seed in own
    ]
  weights, state = np.concatenate(weights), {}
  if subsets is not None:
    own_share = entry['specialize']['own']
    if labels.each:
      raise UserError(
        f'teachers.{name}.specialize.of: specialists need one class for each '
        f'example, and these have {" x ".join(map(str, labels.each))} labels; '
        'leave it empty'
      )
    classes = labels.classes
    weights = weights * specialists.weights(classes, subsets, own=own_share)
    state = {
      'subset': subsets.astype(np.float32),
      'dustbin': specialists.dustbin_bias(classes, subsets, own=own_share),
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
    given={name: {'state': {'specialist': state}}} if state else {},
  )


def _augment(name: str, own: str, common: str) -> augment.Augment:
  """The augmentation of a group's batches: its own, or that of all teachers."""
  if not own:
    return augment.Augment(common, 'data.augment.teachers')
  text = '' if own == augment.NONE else own
  return augment.Augment(text, f'teachers.{name}.data.augment')


def _shared_out(group: Group, entry, at: str, other: str) -> Group:
  """A group, repeated for the members of another, of which a seed has T."""
  if not group.per_member:
    return group
  if not entry['per_seed']:
    raise UserError(
      f'{at}.per_seed: {other} has teachers for each seed, so what learns from '
      f'it must too; set it, or unset teachers.{other}.per_seed'
    )

  repeated = lambda x: jnp.repeat(x, entry['count'], axis=0)  # noqa: E731
  return group._replace(variables=shapes.mapped(repeated, group.variables))


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
  """The sets of groups that are weighed by the validation split."""
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
