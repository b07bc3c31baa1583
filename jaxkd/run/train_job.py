"""Trains one population: the job of a group of teachers, or of an arm.

Teachers and students train by the same code; only their terms differ.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from jaxkd.data import loader
from jaxkd.distill import running_mean
from jaxkd.distill.step import learner
from jaxkd.distill.system import System
from jaxkd.errors import Stopped, within
from jaxkd.report import wording
from jaxkd.run import cached_outputs, fault, fitted, job_groups, recipe
from jaxkd.run.evaluate import measure, mesh_of, with_checks
from jaxkd.run.types import BestSteps, Job, Session, Trained
from jaxkd.students import compression
from jaxkd.train import sharding
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.execution import Execution, Plan
from jaxkd.train.fit import Fault, fit
from jaxkd.train.population import Learner, Population, shapes_of_one, take

SAVES = 4


def train(session: Session, job: Job, *, may_diverge: bool = False) -> Trained:
  """Trains the population, resumes it, or restores it if it is finished.

  Args:
    session: what the stages have in common.
    job: the population.
    may_diverge: see `jaxkd.train.execution.Plan`.
  """
  batches = batches_of(session, job)
  batches.keep(session.progress, session.say, session.stop)
  if fitted.is_fitted(job.students):
    return _fitted(job, batches)
  steps = job.train['steps']
  plan = Plan(
    steps,
    eval_every=recipe.eval_every(job.train),
    save_every=job.train['save_every'] or max(1, steps // SAVES),
    members=job.train['members'],
    steps_per_execution=job.train['steps_per_execution'],
    may_diverge=may_diverge,
    best=recipe.selection_of(session, job),
  )

  def validate(population, carry):
    groups = job_groups.read_groups(job.students, job.groups)
    of = session, population, carry, 'validation', groups, job.students
    return measure(*of, may_be_lost=may_diverge)

  with (
    _stopped_within(job.stage),
    within(f'{job.stage}: '),
    Checkpoints(session.directory / job.stage) as checkpoints,
    session.progress(job.stage, steps, job.over) as on_log,
  ):
    result = fit(
      populations_of(session, job, batches.batch(0)),
      batches,
      validate,
      plan,
      checkpoints,
      on_log=on_log,
      explain=functools.partial(_explained, session, job, batches),
      stop=session.stop,
    )
  best = None
  if plan.best:
    metric, last = job.train['early_stopping']['metric'], result.history['step']
    best = BestSteps(metric, result.best_step, last[-1], steps)
    session.say(f'{job.stage}: {wording.best_steps(*best)}')
    carry = result.best
  else:
    carry = recipe.without_optimizer(result.population.stacked(result.carry))
  carry = sharding.fetch(carry)
  finished = {
    name: compression.finish(
      job.students[name.partition('/')[0]].compression, variables
    )
    for name, variables in running_mean.result(carry).items()
  }
  return Trained(
    finished,
    result.history,
    result.seconds,
    result.execution,
    best,
    batches.notes(),
  )


def _explained(
  session: Session, job: Job, batches: cached_outputs.Batches, found: Fault
) -> str:
  """The error for a diverged loss: which net is the cause, and a remedy."""
  looked_at = job_groups.groups_looked_at(job)
  frozen, axes = job_groups.frozen_of(job_groups.used_groups(job))
  batch = batches.batch(found.step - 1)
  member, axis = found.members[0], axis_of(batch)
  return fault.explained(
    found,
    distill=job.distill,
    students=job.students,
    teachers={name: group.role for name, group in looked_at.items()},
    frozen={
      name: take(tree, member) if axes[name] == 0 else tree
      for name, tree in frozen.items()
      if name in looked_at
    },
    batch=batch if axis is None else take(batch, member),
    seed=job.seeds[member],
    augment=recipe.augment_of(session, job),
    at=job.at,
  )


def _fitted(job: Job, batches: cached_outputs.Batches) -> Trained:
  """The population of models that are fitted to all batches at once."""
  begun = time.perf_counter()
  groups = job_groups.used_groups(job)
  with within(f'{job.stage}: '):
    variables = fitted.fit(
      job.students,
      {name: group.role for name, group in job.groups.items()},
      *job_groups.frozen_of(groups),
      batches.iterate(0, job.train['steps']),
      job.seeds,
    )
  finished = {
    name: compression.apply_once(job.students[name].compression, tree)
    for name, tree in variables.items()
  }
  seconds = time.perf_counter() - begun
  return Trained(finished, {}, seconds, Execution())


@contextlib.contextmanager
def _stopped_within(stage: str) -> Iterator[None]:
  """Adds the name of the stage to a `Stopped` from inside of it."""
  try:
    yield
  except Stopped as stopped:
    raise Stopped(f'{stage} {stopped}') from stopped


def batches_of(session: Session, job: Job) -> cached_outputs.Batches:
  """The batches of the job's steps."""
  train = session.source.splits['train']
  batches = loader.Loader(
    train if job.examples is None else job.examples,
    job.weights,
    job.seeds,
    job.train['batch_size'],
    order=job.order,
    together=job.together,
    at=f'{job.at}train.batch_size',
  )
  outputs = {}
  for name, group in job_groups.groups_looked_at(job).items():
    if group.role.cache:
      chain = job_groups.with_read({name}, job.groups)
      outputs[name] = cached_outputs.CachedOutputs(
        name,
        {n: g.role for n, g in chain.items()},
        *job_groups.frozen_of(chain),
        source=session.source,
        loader=batches,
        seeds=job.seeds,
        weights=job.weights,
        steps=job.train['steps'],
        root=session.outputs,
      )
  return cached_outputs.Batches(batches, outputs, len(job.seeds))


def populations_of(
  session: Session, job: Job, batch: dict
) -> Callable[..., Population]:
  """Makes the population of the job, given how its members run."""
  frozen, axes = job_groups.frozen_of(job_groups.used_groups(job))
  make = functools.partial(
    Population,
    learner_of(session, job, batch),
    seeds=job.seeds,
    shared=frozen,
    shared_axes=axes,
    start_only=job_groups.start_only(job),
    hyper=recipe.numbers_of(job),
    given=dict(job.given),
    batch_axis=axis_of(batch),
    shard_parameters=job.train['shard_parameters'],
  )

  def on_devices(mode):
    size, sizes = job.train['batch_size'], job.train['mesh']
    at = f'{job.at}train.mesh'
    mesh = mesh_of(mode, len(job.seeds), size, **sizes, at=at)
    return make(mode=mode, mesh=mesh)

  return on_devices


def learner_of(session: Session, job: Job, batch: dict) -> Learner:
  """The learner: the functions of one member, given a batch of all."""
  shapes = shapes_of_one(batch, axis_of(batch))
  roles = {name: group.role for name, group in job.groups.items()}
  description = (
    *(session.metrics, job.students, roles, recipe.without_numbers(job)),
    *(recipe.seen_by(job), shapes, job.augment, job.rollout),
  )
  return session.memo.get(
    description,
    lambda: learner(system_of(session, job, batch)),
  )


def system_of(session: Session, job: Job, batch: dict) -> System:
  """What the steps of a job have in common, given a batch of all."""
  return System(
    job.students,
    {name: group.role for name, group in job.groups.items()},
    recipe.recipe_of(job),
    shapes_of_one(batch, axis_of(batch)),
    with_checks(session, finished=False),
    augment=recipe.augment_of(session, job),
    rollout=recipe.rollout_of(session, job),
    decode=session.decode,
  )


def member_shapes(session: Session, job: Job) -> tuple[Learner, tuple]:
  """A member's functions, and the shapes of its step's arguments."""
  batch = batches_of(session, job).example()
  member = learner_of(session, job, batch)
  seed, hyper, frozen, given = initial_shapes(job)
  carry = jax.eval_shape(member.init, seed, hyper, frozen, given)
  frozen = {name: frozen[name] for name in job_groups.computed_groups(job)}
  batch = shapes_of_one(batch, axis_of(batch))
  return member, (carry, batch, frozen, hyper)


def initial_shapes(job: Job) -> tuple:
  """The shapes that a member's initial state is made from."""
  variables, axes = job_groups.frozen_of(job_groups.used_groups(job))
  frozen = shapes_of_one(variables, axes)
  hyper = {
    name: jax.ShapeDtypeStruct((), jnp.float32)
    for name in recipe.numbers_of(job)
  }
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  return seed, hyper, frozen, shapes_of_one(dict(job.given))


def axis_of(batch: dict) -> int | None:
  """The axis of a batch's members; None where all see the same."""
  return 0 if batch['id'].ndim > 1 else None
