"""The recipe of a job: terms, optimiser, augmentation, choice of a step."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxkd import lookup, options
from jaxkd.data import augment
from jaxkd.distill.system import Recipe
from jaxkd.errors import UserError, blamed, within
from jaxkd.run import config as configs
from jaxkd.run import terms
from jaxkd.run.types import Job, Session
from jaxkd.tasks import on_policy
from jaxkd.train import optimizer
from jaxkd.train.best import Selection
from jaxkd.types import Term

EVALUATIONS = 20  # of a job, if nothing is said


def recipe_of(job: Job) -> Callable[[dict], Recipe]:
  """The recipe of each member, given its own values."""
  seen = seen_by(job)

  def recipe(hyper):
    own = _with(job, hyper)
    return Recipe(
      terms.build(own['distill'], list(job.students), seen),
      optimizer.optimizer(_present(own['train'], own['distill'])),
      own['train']['accumulate'],
      own['train']['average'],
      own['train']['parts'],
    )

  return recipe


def entries_of(
  job: Job, choose: Callable[[list], float] = operator.itemgetter(0)
) -> dict[str, Term]:
  """The terms by name, with one of the values that members have apart."""
  values = {k: jnp.asarray(choose(v)) for k, v in (job.hyper or {}).items()}
  with blamed(job.stage), within(job.at):
    own = _with(job, values)
    return terms.build(own['distill'], list(job.students), seen_by(job))


def numbers_of(job: Job) -> dict[str, list[float]]:
  """The numbers that a job's program is given with every call.

  Beside those in which its members differ, these are the weights of its terms
  and its learning rate: jobs that differ in nothing else, be they arms of a run
  or runs with an edited config, have one program.

  Returns:
    Config entry -> the value of each member.
  """
  found = {
    f'distill.{name}.weight': entry['weight']
    for name, entry in terms.in_use(job.distill).items()
  }
  if optimizer.takes_traced_rate(job.train):
    found['train.learning_rate'] = job.train['learning_rate']
  everyone = {entry: [value] * len(job.seeds) for entry, value in found.items()}
  return {**everyone, **(job.hyper or {})}


def without_numbers(job: Job) -> dict[str, Any]:
  """The sections of a job that make its program, but for its numbers."""
  return _with(job, dict.fromkeys(numbers_of(job), 'given'))


def _with(job: Job, hyper: Mapping[str, Any]) -> dict[str, Any]:
  """The sections of a job that hold a member's own values, with these."""
  own = {'distill': job.distill, 'train': job.train}
  for entry, value in hyper.items():
    own = configs.put(own, entry, value)
  return own


def eval_every(train: Mapping[str, Any]) -> int:
  """Steps between evaluations, by the complete section `train`."""
  return train['eval_every'] or max(1, train['steps'] // EVALUATIONS)


def augment_of(session: Session, job: Job) -> Callable[..., dict] | None:
  """What augments the examples of a batch, if anything does."""
  if not job.augment.text:
    return None
  return functools.partial(
    augment.apply,
    job.augment,
    num_classes=session.source.num_classes,
    declared=session.source.fields,
  )


def rollout_of(session: Session, job: Job) -> Callable[..., dict] | None:
  """What the students write of a batch, if they do.

  Raises:
    UserError: a function that is not there, or an option that it lacks.
  """
  if not job.rollout:
    return None
  at, kw = 'data.rollout', dict(job.rollout['kw'])
  function = lookup.find(
    job.rollout['name'], [on_policy], kind='rollout', at=f'{at}.name'
  )
  name = job.rollout['name'].rpartition(':')[2]
  lookup.check_options(function, kw, name=name, at=f'{at}.kw')
  if function is on_policy.on_policy:
    kw = {**on_policy.tokens_of(session.source), **kw}
  rollout = functools.partial(function, **kw)

  def checked(student, batch, key):
    try:
      with blamed(at):
        found = rollout(student, batch, key)
    except UserError as error:
      of_option = error.entry in options.parameters_of(function)
      with within(f'{at}.kw.' if of_option else f'{at}.name: '):
        raise
    if not isinstance(found, Mapping) or 'inputs' not in found:
      raise UserError(
        f'{at}.name: {name} should give a batch, a dict with inputs'
      )
    return dict(found)

  return checked


def selection_of(session: Session, job: Job) -> Selection | None:
  """How the best step of each member is chosen; None for the last one."""
  entry = job.train['early_stopping']
  if not entry['metric']:
    return None
  return Selection(
    f'validation/{entry["metric"]}',
    session.metrics[entry['metric']].higher_is_better,
    entry['patience'],
    without_optimizer,
  )


def without_optimizer(carry: Mapping[str, Any]) -> dict[str, Any]:
  """What of a carry, or of its shapes, makes the nets."""
  return {name: tree for name, tree in carry.items() if name != 'opt'}


def seen_by(job: Job) -> int:
  """The largest number of examples that a member may see."""
  return int((job.weights > 0).sum(1).max())


def _present(train: dict, distill: dict) -> dict:
  """The section `train`, without the paths of terms of weight 0."""
  absent = {f'terms/{name}' for name in distill.keys() - terms.in_use(distill)}
  paths = {
    path: entry
    for path, entry in train['by_path'].items()
    if '/'.join(path.split('/')[:2]) not in absent
  }
  return {**train, 'by_path': paths}
