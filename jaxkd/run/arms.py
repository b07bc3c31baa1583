"""Arms of a comparison: students that differ in what the arm changes.

All arms share the teachers, the seeds and the budget.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.data import examples as examples_lib
from jaxkd.data import partition
from jaxkd.data.augment import Augment
from jaxkd.data.examples import Examples
from jaxkd.distill.roles import Group, Role
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import shares
from jaxkd.run.types import Job

# What a whole run has: neither its rounds nor its arms change it.
OF_THE_RUN = (
  'name',
  'task',
  'rounds',
  'report',
  'tune',
  'tuned',
  'data.source',
  'data.dir',
  'data.layout',
  'data.kw',
  'data.classes',
  'train.seeds',
  'train.seed',
)
# What an arm must not change, so that a difference is the method's own.
SHARED = (
  *OF_THE_RUN,
  'teachers',
  'arms',
  'data.fraction.teachers',
  'data.partition.teachers',
  'data.unit.teachers',
  'data.augment.teachers',
  'train.steps',
  'train.batch_size',
  'train.eval_every',
  'train.early_stopping',
)


def configs_of(config: dict) -> dict[str, dict]:
  """The config of each arm; without arms there is one, called 'student'.

  Raises:
    UserError: an arm that changes an entry that does not exist, or one that
      all arms share.
  """
  found = {}
  for arm, partial in (config['arms'] or {'student': {}}).items():
    if arm == 'teacher':
      raise UserError(
        'arms.teacher: a row keeps this name for the teachers; choose another'
      )
    made = configs.override(config, partial, f'arms.{arm}')
    for entry in SHARED:
      if configs.get(made, entry) != configs.get(config, entry):
        raise UserError(
          f'arms.{arm}.{entry}: all arms share this; change it for all, or '
          'use rounds'
        )
    found[arm] = made
  return found


def seeds_of(config: Mapping[str, Any]) -> list[int]:
  """The seeds of the members, the same in every arm."""
  return [config['train']['seed'] + i for i in range(config['train']['seeds'])]


def job(
  config: Mapping[str, Any],
  roles: dict[str, Role],
  groups: dict[str, Group],
  *,
  stage: str,
  training: Examples,
  made: tuple[Examples, np.ndarray] | None = None,
  seeds: list[int] | None = None,
  hyper: dict[str, list[float]] | None = None,
) -> Job:
  """The population that trains an arm: a member for each seed.

  Args:
    config: the arm's.
    roles: the nets that train.
    groups: the teachers.
    stage: where its checkpoints go.
    training: the training examples.
    made: generated examples that it sees instead, and their sampling weights
      for each member.
    seeds: of the members, if not those of the config.
    hyper: config entry -> the value of each member.
  """
  data = config['data']
  share = shares.of_students(data)
  if share.partition == 'disjoint':
    raise UserError(
      'data.partition.students: the seeds of an arm repeat the same '
      "experiment and do not share the data; 'disjoint' is for teachers"
    )
  seeds = seeds_of(config) if seeds is None else seeds
  units = examples_lib.units(training, share.unit, 'data.unit.students')
  weights = [
    partition.weights(
      training.index,
      fraction=share.fraction,
      partition=share.partition,
      seed=partition.seed_of(seed, 'students', data['draw']),
      units=units,
      role='students',
    )
    for seed in seeds
  ]
  examples, weights = made or (None, np.concatenate(weights))
  return Job(
    stage=stage,
    students=roles,
    groups=groups,
    distill=config['distill'],
    train={
      k: v for k, v in config['train'].items() if k not in ('seeds', 'seed')
    },
    seeds=seeds,
    weights=weights,
    order=data['order'],
    together=data['together'],
    augment=Augment(data['augment']['students']),
    rollout=data['rollout'] if data['rollout']['name'] else {},
    hyper=hyper,
    examples=examples,
  )
