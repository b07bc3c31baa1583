"""What each stage of a round is to train, as a population."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxkd import config as configs
from jaxkd import keys, tasks
from jaxkd.data import generated, sources
from jaxkd.data.examples import Examples
from jaxkd.distill import fusion, roles, training
from jaxkd.distill.step import Role
from jaxkd.distill.training import Group, Session
from jaxkd.errors import UserError, unknown
from jaxkd.rounds import Round
from jaxkd.students import arms, correct
from jaxkd.teachers import groups as teachers
from jaxkd.teachers import mixture, specialists


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
    labels=source.splits['train'].index,
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
  if source.splits['train'].index.each:
    raise UserError(
      f'{at}: it is about the classes of examples, and in {source.name} an '
      'example has many; leave it empty'
    )
  if part.arms[arm]['data']['generated']['name']:
    raise UserError(
      f'{at}: the arm {arm} sees examples that are generated, of which no '
      'class is known to be missing; leave it empty'
    )
  return correct.classes(
    entry['correct'],
    source.splits['train'].index.classes,
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
    labels=source.splits['train'].index,
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
