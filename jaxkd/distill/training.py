"""Trains one population of roles as a section of the config says.

Teachers and students both come here; what differs is what they look at.
"""

import contextlib
import functools
import operator
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxkd import config as configs
from jaxkd import losses
from jaxkd import shapes as shape_lib
from jaxkd.data import augment, loader
from jaxkd.data.augment import Augment
from jaxkd.data.examples import Examples
from jaxkd.data.sources import Source
from jaxkd.distill import (
  accumulation,
  fault,
  fitted,
  fusion,
  running_mean,
  step,
  taught,
  terms,
)
from jaxkd.distill.roles import behind, locations
from jaxkd.distill.step import Role
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.known import Known
from jaxkd.students import compression, inherit
from jaxkd.tasks.metrics import Metric, examples, not_a_number
from jaxkd.teachers import many
from jaxkd.train import hosts, optimizer, sharding
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.fit import Execution, Fault, Plan, Stopped, fit
from jaxkd.train.population import Learner, Population, shapes_of_one, take

EVALUATIONS = 20
SAVES = 4
EVALUATED = 512  # examples at once
_LOST = 'nan of output '  # how many examples; beside the metrics of a net


class Group(NamedTuple):
  """A frozen group of teachers.

  Attributes:
    role: the net and how it sees the examples.
    variables: with a leading axis of the group's T members; [S, T, ...]
      where each of S members of a population has teachers of its own.
    per_member: whether it is the latter.
  """

  role: Role
  variables: dict
  per_member: bool = False

  @property
  def by_seed(self) -> dict:
    """The variables [S, T, ...]; [1, T, ...] where all seeds share them."""
    if self.per_member:
      return self.variables
    return jax.tree.map(lambda x: x[None], self.variables)


class Session(NamedTuple):
  """What all stages of a run have in common.

  Attributes:
    source: the data.
    metrics: what is measured of every net, by name.
    directory: where the checkpoints of each stage go.
    progress: ``(stage, steps, over='') -> context manager`` giving the
      function that is called with the steps taken and the newest values; see
      `jaxkd.report.progress.Reporter.stage`.
    stop: set when the run should save its state and leave.
    say: prints a line.
    learners: those that were made, so that the steps of equal jobs are traced
      once.
    decode: what else nets are measured by; see `jaxkd.tasks`.
  """

  source: Source
  metrics: Mapping[str, Metric]
  directory: Path
  progress: Callable
  stop: threading.Event | None = None
  say: Callable[[str], None] = lambda text: None
  learners: Known | None = None
  decode: Callable[..., dict] | None = None


class Job(NamedTuple):
  """One population to train.

  Attributes:
    stage: its name, e.g. 'students/distilled'.
    students: the roles that train.
    groups: the frozen groups of teachers.
    distill: the complete terms.
    train: the complete section of how to train.
    seeds: of each member.
    weights: sampling weights over the training examples, [members, N].
    order: 'own' or 'shared'.
    together: how many examples of a class follow one another.
    augment: what is done to the examples of a batch before all views.
    hyper: config entry -> the value of each member.
    at: the entry of the config whose `train` this is, e.g. 'teachers.main.'.
    given: net -> what its first state holds for each member, [members, ...].
    examples: what it sees in place of the data; None for the data.
    over: what its members are seeds of, in words, if not of one and the same.
  """

  stage: str
  students: dict[str, Role]
  groups: dict[str, Group]
  distill: dict[str, Any]
  train: dict[str, Any]
  seeds: list[int]
  weights: np.ndarray
  order: str = 'own'
  together: int = 1
  augment: Augment = Augment()
  hyper: dict[str, list[float]] | None = None
  at: str = ''
  given: Mapping[str, dict] = MappingProxyType({})
  examples: Examples | None = None
  over: str = ''


class Trained(NamedTuple):
  """A population that has been trained.

  Attributes:
    stored: net -> variables with a leading axis of members, as they are
      stored; see `jaxkd.students.stored`.
    history: the metrics along the way; see `jaxkd.train.fit.Result`.
    seconds: time spent in steps.
    execution: how it ran.
  """

  stored: dict[str, dict]
  history: dict
  seconds: float
  execution: Execution


def reported(roles: Mapping[str, Any]) -> str:
  """The role of several that a row tells of: `student`, or the first."""
  return 'student' if 'student' in roles else min(roles)


def recipe_of(job: Job) -> Callable[[dict], step.Recipe]:
  """What each member trains with, given its own values."""
  seen = _seen(job)

  def recipe(hyper):
    own = {'distill': job.distill, 'train': job.train}
    for entry, value in hyper.items():
      own = configs.put(own, entry, value)
    return step.Recipe(
      terms.build(own['distill'], list(job.students), seen),
      optimizer.optimizer(_present(own['train'], own['distill'])),
      own['train']['accumulate'],
      own['train']['average'],
      own['train']['parts'],
    )

  return recipe


def _present(train: dict, distill: dict) -> dict:
  """How to train, without the paths of terms that are left out."""
  absent = {f'terms/{name}' for name in distill.keys() - terms.in_use(distill)}
  paths = {
    path: entry
    for path, entry in train['by_path'].items()
    if '/'.join(path.split('/')[:2]) not in absent
  }
  return {**train, 'by_path': paths}


def _seen(job: Job) -> int:
  """The most examples that a member may see."""
  return int((job.weights > 0).sum(1).max())


def used_groups(job: Job) -> dict[str, Group]:
  """The groups whose nets a step takes.

  The job's nets start from them, or learn from them or read them where what
  they give is not looked up.
  """
  looked_at = _looked_at(job)
  starts = {inherit.source(role.init) for role in job.students.values()}
  started = with_read(starts, job.groups)
  return {
    name: group
    for name, group in job.groups.items()
    if name in started or (name in looked_at and not group.role.kept)
  }


def _looked_at(job: Job) -> dict[str, Group]:
  """The groups whose outputs a step needs."""
  names = {name for entry in _entries(job).values() for name in entry.groups}
  return with_read(names, job.groups, job.students, behind_kept=False)


def drawn_groups(job: Job) -> set[str]:
  """The groups of which a step runs one net."""
  whole = {name for entry in _entries(job).values() for name in entry.teachers}
  draws = [draw for entry in _entries(job).values() for draw in entry.draws]
  return set(fusion.alone(whole, draws))


def _entries(
  job: Job, choose: Callable[[list], float] = operator.itemgetter(0)
) -> dict[str, terms.Entry]:
  """The terms by name, with one of the values that members have apart."""
  values = {k: jnp.asarray(choose(v)) for k, v in (job.hyper or {}).items()}
  with blamed(job.stage), within(job.at):
    return recipe_of(job)(values).terms


def read_groups(
  students: Mapping[str, Role], groups: Mapping[str, Group]
) -> dict[str, Group]:
  """The groups without which the nets have no input."""
  return with_read(set(), groups, students)


def with_read(
  names: set[str],
  groups: Mapping[str, Group],
  roles: Mapping[str, Role] = MappingProxyType({}),
  *,
  behind_kept: bool = True,
) -> dict[str, Group]:
  """The groups of these names, and all that they and the roles read.

  Args:
    names: of groups.
    groups: all of them.
    roles: nets that may read some.
    behind_kept: whether groups whose outputs are kept count as readers.
  """
  nets = {
    name: group.role._replace(reads=())
    if group.role.kept and not behind_kept
    else group.role
    for name, group in groups.items()
  }
  read = {group for role in roles.values() for group, _ in role.reads}
  return {name: groups[name] for name in behind(names | read, nets)}


def frozen_of(groups: Mapping[str, Group]) -> tuple[dict, dict]:
  """The groups' variables, and the axis of members that each has."""
  variables = {name: group.variables for name, group in groups.items()}
  axes = {name: 0 if g.per_member else None for name, g in groups.items()}
  return variables, axes


def batches_of(session: Session, job: Job) -> taught.Batches:
  """What the job's steps see."""
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
  for name, group in _looked_at(job).items():
    if group.role.kept:
      chain = with_read({name}, job.groups)
      outputs[name] = taught.Outputs(
        name,
        {n: g.role for n, g in chain.items()},
        *frozen_of(chain),
        source=session.source,
        loader=batches,
        seeds=job.seeds,
        weights=job.weights,
        steps=job.train['steps'],
        root=session.directory.parent / 'outputs',
      )
  return taught.Batches(batches, outputs, len(job.seeds))


def _axis(batch: dict) -> int | None:
  """The axis of a batch's members; None where all see the same."""
  return 0 if batch['id'].ndim > 1 else None


def learner_of(session: Session, job: Job, batch: dict) -> Learner:
  """The functions of one member, given a batch of all."""
  shapes = shapes_of_one(batch, _axis(batch))
  roles = {name: group.role for name, group in job.groups.items()}
  return _learner(
    session,
    (
      *(job.students, roles, job.distill, job.train, _seen(job), shapes),
      job.augment,
    ),
    lambda: step.learner(
      job.students,
      roles,
      recipe_of(job),
      _with_lost({k: m for k, m in session.metrics.items() if not m.finished}),
      example=shapes,
      decode=session.decode,
      mix=_mix(session, job),
    ),
  )


def _mix(session: Session, job: Job) -> Callable[..., dict] | None:
  """What augments the examples of a batch, if anything does."""
  if not job.augment.text:
    return None
  return functools.partial(
    augment.apply,
    job.augment,
    num_classes=session.source.num_classes,
    declared=session.source.fields,
  )


def _learner(session: Session, description, make) -> Learner:
  """A learner, made or known to the session."""
  known = Known() if session.learners is None else session.learners
  return known.get((session.metrics, description), make)


def populations_of(
  session: Session, job: Job, batch: dict
) -> Callable[..., Population]:
  """The job's members, given the way that they run."""
  frozen, axes = frozen_of(used_groups(job))
  make = functools.partial(
    Population,
    learner_of(session, job, batch),
    seeds=job.seeds,
    shared=frozen,
    shared_axes=axes,
    hyper=job.hyper,
    given=dict(job.given),
    batch_axis=_axis(batch),
    shard_parameters=job.train['shard_parameters'],
  )

  def on_devices(mode):
    size, sizes = job.train['batch_size'], job.train['mesh']
    at = f'{job.at}train.mesh'
    mesh = _mesh(mode, len(job.seeds), size, **sizes, at=at)
    return make(mode=mode, mesh=mesh)

  return on_devices


def _mesh(mode: str, members: int, batch_size: int, **options):
  """The devices: in sequence, each member has them all."""
  members = 1 if mode == 'sequence' else members
  return sharding.mesh(members, batch_size, **options)


def check(session: Session, job: Job) -> None:
  """Traces a step on shapes alone: whatever cannot work is found here.

  Raises:
    UserError: what the config names does not fit together.
  """
  with within(job.at):
    _check_terms(job)
    if fitted.is_fitted(job.students):
      fitted.check(terms.in_use(job.distill), job.students)
  _check_kept(job)
  batches = batches_of(session, job)
  batches.check()
  batch = batches.example()
  _check_augment(session, job, batch)
  _check_mesh(job)
  with blamed(job.stage), within(job.at):
    populations_of(session, job, batch)(mode='vmap').no_totals(batch)
    _check_accumulate(session, job, batch)


def _check_mesh(job: Job) -> None:
  """Refuses devices that members in sequence, if they may be, cannot share."""
  mode, sizes = job.train['members'], job.train['mesh']
  if mode == 'sequence' or (mode == 'auto' and hosts.count() > 1):
    at = f'{job.at}train.mesh'
    size = job.train['batch_size']
    _mesh('sequence', len(job.seeds), size, **sizes, at=at)


def _check_terms(job: Job) -> None:
  """Refuses terms without effect, and parts that are not all of the loss."""
  used = terms.in_use(job.distill)
  for name, entry in used.items():
    groups = terms.groups_of(entry)
    if terms.AVERAGE in groups and not job.train['average']:
      raise UserError(
        f'distill.{name}.teacher: there is no running mean of the parameters; '
        'set train.average, e.g. to 0.99'
      )
    of = entry['of'] or next(iter(job.students))
    alone = of in job.students and job.students[of].copies == 1
    if of in groups and alone and entry['at'][0] == entry['at'][1]:
      raise UserError(
        f'distill.{name}.teacher: {of} has no peers and would be compared with '
        f'itself; set students.{of}.count=2 or compare two of its layers'
      )
  parts = job.train['parts']
  if not parts:
    return
  clips = {'train': job.train['clip']}
  for path, own in job.train['by_path'].items():
    clips[f'train.by_path.{path}'] = own.get('clip', 0)
  for at, clip in clips.items():
    if clip:
      raise UserError(
        f'{at}.clip: it would clip the sum and not its parts; set it to 0 or '
        'leave train.parts empty'
      )
  named = [name for names in parts.values() for name in names]
  for name in used:
    if named.count(name) != 1:
      raise UserError(
        f'train.parts: the term {name} is in {named.count(name)} of the parts '
        f'{", ".join(parts)}; put it into one'
      )
  for name in named:
    if name not in job.distill:
      raise unknown('term', name, job.distill, 'train.parts')


def _check_kept(job: Job) -> None:
  """Refuses terms and nets that look at what is not kept of a group."""
  looked_at = _looked_at(job)
  for group, (role, *_) in looked_at.items():
    if not role.kept:
      continue
    wanted = {}
    for name, entry in terms.in_use(job.distill).items():
      other = entry['otherwise']
      own = {name: entry, **({other: job.distill[other]} if other else {})}
      found = locations(own, group, teacher=True)
      wholes = ('fuse', 'fuse_weights', 'when', 'example_weight')
      if group in terms.groups_of(entry) and any(entry[w] for w in wholes):
        found = {*found, 'logits'}
      wanted |= dict.fromkeys(sorted(found), f'{job.at}distill.{name}')
    readers = [*job.students.values(), *(g.role for g in looked_at.values())]
    wanted |= {
      location: role.at
      for role in readers
      for read, location in role.reads
      if read == group
    }
    for location, at in wanted.items():
      if location not in role.kept.outputs:
        raise UserError(
          f'teachers.{group}.cache.outputs: {at} looks at {location!r} of '
          f'{group}, which is not kept; add it'
        )


def _check_augment(session: Session, job: Job, batch: dict) -> None:
  """Refuses it where what is taken is of the examples as they are."""
  at = job.augment.at
  if not job.augment.text:
    return
  for name, group in _looked_at(job).items():
    if group.role.kept:
      raise UserError(
        f'{at}: what is kept of {name} is of the examples as they are, and not '
        f'as augmented; leave it empty, or teachers.{name}.cache.outputs'
      )
  if fitted.is_fitted(job.students):
    role = next(iter(job.students.values()))
    raise UserError(
      f'{at}: {role.at}.model is fitted to the examples as they are; leave it '
      'empty'
    )
  one = shapes_of_one(batch, _axis(batch))
  source = session.source
  made = augment.check(job.augment, one, source.num_classes, source.fields)
  _check_sizes(job, made, source)


def _check_sizes(job: Job, batch: dict, source: Source) -> None:
  """Refuses examples of a size that nets which are built for another have not.

  Args:
    job: the population.
    batch: shapes of an augmented batch.
    source: the data.
  """
  shape = shape_lib.example(batch['inputs'])
  if shape == source.input_shape:
    return
  groups = {name: group.role for name, group in _looked_at(job).items()}
  for role in {**groups, **job.students}.values():
    if role.reads:
      continue

    def run(batch, role=role):
      variables = role.net.init(jax.random.key(0))
      return role.net.apply(variables, step.shown(role.view, batch, 0))

    try:
      jax.eval_shape(run, batch)
    except Exception as error:
      raise UserError(
        f'{job.augment.at}: it gives examples of {shape_lib.said(shape)}, and '
        f'{role.at}.model takes those of {shape_lib.said(source.input_shape)} '
        f'alone ({str(error).splitlines()[0]}); keep their size'
      ) from error


def _check_accumulate(session: Session, job: Job, batch: dict) -> None:
  """Refuses terms of which parts of a batch give another gradient."""
  parts = job.train['accumulate']
  if parts == 1:
    return
  contexts = {}  # of each term; those of the copies of a net are alike
  learner = step.learner(
    job.students,
    {name: group.role for name, group in job.groups.items()},
    recipe_of(job),
    {},
    example=shapes_of_one(batch, _axis(batch)),
    mix=_mix(session, job),
    look=lambda name, found: contexts.update({name.partition('/')[0]: found}),
  )
  jax.eval_shape(learner.init, *_initial(job))
  known = Known() if session.learners is None else session.learners
  for name, entry in _entries(job, max).items():
    # Arms have many terms in common.
    others = [
      job.distill.get(n) for n in (name, job.distill[name]['otherwise'])
    ]
    if not known.get(
      ('parts', others, contexts[name]),
      functools.partial(accumulation.adds_up, entry.term, contexts[name]),
    ):
      raise UserError(
        f'train.accumulate: the term {name} looks at the whole batch, or draws '
        f'for it, so {parts} parts of it are not the same; set '
        f'train.accumulate to 1 or distill.{name}.weight to 0'
      )


def train(session: Session, job: Job, *, may_diverge: bool = False) -> Trained:
  """Trains the population, or goes on with it, or finds it trained.

  Args:
    session: what the stages have in common.
    job: the population.
    may_diverge: see `jaxkd.train.fit.Plan`.
  """
  batches = batches_of(session, job)
  batches.keep(session.progress, session.say, session.stop)
  if fitted.is_fitted(job.students):
    return _fitted(job, batches)
  steps = job.train['steps']
  plan = Plan(
    steps,
    eval_every=job.train['eval_every'] or max(1, steps // EVALUATIONS),
    save_every=job.train['save_every'] or max(1, steps // SAVES),
    members=job.train['members'],
    steps_per_execution=job.train['steps_per_execution'],
    may_diverge=may_diverge,
  )

  def validate(population, carry):
    groups = read_groups(job.students, job.groups)
    of = session, population, carry, 'validation', groups, job.students
    return _measure(*of, may_be_lost=may_diverge)

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
  carry = result.population.stacked(result.carry)
  carry = sharding.fetch({k: v for k, v in carry.items() if k != 'opt'})
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
  )


def _explained(
  session: Session, job: Job, batches: taught.Batches, found: Fault
) -> str:
  """What became infinite or not a number, through which net, and a remedy."""
  looked_at = _looked_at(job)
  frozen, axes = frozen_of(used_groups(job))
  batch = batches.batch(found.step - 1)
  member, axis = found.members[0], _axis(batch)
  batch = batch if axis is None else take(batch, member)
  seed, mix = job.seeds[member], _mix(session, job)
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
    batch=jax.jit(mix)(batch, seed=np.uint32(seed)) if mix else batch,
    seed=seed,
    at=job.at,
  )


def _fitted(job: Job, batches: taught.Batches) -> Trained:
  """The population, its models fitted to all that they would have met."""
  begun = time.perf_counter()
  groups = used_groups(job)
  with within(f'{job.stage}: '):
    variables = fitted.fit(
      job.students,
      {name: group.role for name, group in job.groups.items()},
      *frozen_of(groups),
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
  """What is stopped inside says of which stage it is."""
  try:
    yield
  except Stopped as stopped:
    raise Stopped(f'{stage} {stopped}') from stopped


def evaluate(
  session: Session,
  roles: Mapping[str, Role],
  variables: Mapping[str, dict],
  split: str,
  *,
  groups: Mapping[str, Group] | None = None,
  mode: str = 'sequence',
  shard_parameters: bool = False,
  may_be_lost: bool = False,
) -> dict[str, np.ndarray]:
  """What finished nets reach on a split.

  Args:
    session: what the stages have in common.
    roles: the nets.
    variables: net -> variables with a leading axis of members.
    split: the part of the data.
    groups: teachers to compare them with.
    mode: how the members run.
    shard_parameters: see `jaxkd.train.population`.
    may_be_lost: whether metrics of a net that gives nan are nan, and no error.

  Returns:
    ``{'split/metric': [members]}``.

  Raises:
    UserError: a net gives nan.
  """
  groups = dict(groups or {})
  members = len(jax.tree.leaves(dict(variables))[0])
  finished = {
    name: role._replace(compression=None) for name, role in roles.items()
  }
  compared = {name: group.role for name, group in groups.items()}
  made = _learner(
    session,
    (finished, compared),
    lambda: step.learner(
      finished,
      compared,
      recipe=lambda hyper: step.Recipe({}, optax.identity()),
      metrics=_with_lost(session.metrics),
      example={},
      decode=session.decode,
    ),
  )
  mesh = _mesh(mode, members, _at_once(session, split))
  population = Population(
    made,
    seeds=[0] * members,
    mode=mode,
    mesh=mesh,
    shard_parameters=shard_parameters,
  )
  carry = {
    'train': {'nets': {name: v['params'] for name, v in variables.items()}},
    'state': {'nets': {name: v['state'] for name, v in variables.items()}},
    'seed': jnp.zeros((members,), jnp.uint32),
  }
  carry = population.split(carry)
  of = session, population, carry, split, groups, roles
  return _measure(*of, may_be_lost=may_be_lost)


def predict(session: Session, group: Group, split: str) -> np.ndarray:
  """What a group's nets predict together on a split.

  Returns:
    Probabilities [members, N, K] of the N examples that count; of one member
    where all seeds share the group.
  """
  net = many.ensemble(group.role.net)

  def probabilities(variables, batch):
    return jax.nn.softmax(net.apply(variables, batch['inputs'])[0]['logits'])

  return _over(session, group, split, probabilities, axis=1)


def predicted_by(role: Role) -> Callable[[dict, Any], jax.Array]:
  """``(variables, inputs) -> logits`` of a net, of inputs as the data has them.

  In evaluation, and without a draw.
  """

  def logits(variables, inputs):
    id = jnp.arange(len(jax.tree.leaves(inputs)[0]))
    batch = {'inputs': inputs, 'epoch': 0 * id, 'id': id}
    seen = step.shown(role.eval_view, batch, seed=0)
    return role.net.apply(variables, seen)[0]['logits']

  return logits


def log_likelihoods(session: Session, group: Group, split: str) -> np.ndarray:
  """What each of a group's nets makes of the labels of a split.

  Returns:
    log p(label), [members, T, N], of the N examples that count; of one member
    where all seeds share the group.
  """

  def of_labels(variables, batch):
    outputs = lambda v: group.role.net.apply(v, batch['inputs'])[0]  # noqa: E731
    logits = jax.lax.map(lambda v: outputs(v)['logits'], variables)
    cross = jax.vmap(losses.cross_entropy, (0, None))
    return -cross(logits, batch['labels'])

  return _over(session, group, split, of_labels, axis=2)


def logits(
  session: Session, role: Role, variables: dict, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """What the net of each member gives on a split.

  Args:
    session: what the stages have in common.
    role: the net; it reads no group.
    variables: with a leading axis of members.
    split: the part of the data.

  Returns:
    Logits [members, N, K] and labels [members, N], of the N examples that
    count.
  """

  def of_member(variables, batch):
    outputs, _ = role.net.apply(variables, batch['inputs'])
    return outputs['logits'], batch['labels']

  members = Group(role, variables, per_member=True)
  return _over(session, members, split, of_member, axis=1)


def _over(session, group, split, measure, axis):
  """A measure of each member's nets, over examples that count along an axis."""

  @jax.jit
  def run(variables, batch):
    inputs = step.shown(group.role.eval_view, batch, seed=0)
    seen = {**batch, 'inputs': inputs}
    return jax.lax.map(lambda own: measure(own, seen), variables)

  each, counted = [], []
  for batch in _batches(session, split):
    each.append(run(group.by_seed, batch))
    counted.append(examples(batch))
  where = np.concatenate(counted)
  return jax.tree.map(
    lambda *x: np.compress(where, np.concatenate(x, axis), axis),
    *sharding.fetch(each),
  )


def _at_once(session: Session, split: str) -> int:
  """How many examples of a split are evaluated at once, all devices alike."""
  devices = len(sharding.devices())
  examples = -(-len(session.source.splits[split]) // devices)
  return devices * min(max(1, EVALUATED // devices), examples)


def _batches(session: Session, split: str):
  """All of a split, for evaluation."""
  size = _at_once(session, split)
  return loader.evaluation_batches(session.source.splits[split], size)


def _with_lost(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
  """Metrics, and for each output that they look at what of it is lost."""
  outputs = dict.fromkeys(metric.output for metric in metrics.values())
  lost = {f'{_LOST}{i}': not_a_number(out) for i, out in enumerate(outputs)}
  return {**metrics, **lost}


def _measure(
  session, population, carry, split, groups, roles, *, may_be_lost=False
):
  """Metrics on a split; with several nets, first the reported role's mean.

  Those of a net that gives nan there are nan, or an error.
  """
  batches = _batches(session, split)
  totals = population.evaluate(carry, batches, *frozen_of(groups))
  lost = _taken_lost(totals)
  if not may_be_lost:
    _check_lost(lost, roles, split)
  role = reported(roles)
  found, of_role, shared = {}, {}, {}
  for name, measured in totals.items():
    net, _, metric = name.rpartition('/')
    how = session.metrics[metric]
    if how.whole:
      key = net, how.measure, how.whole
      if key not in shared:
        shared[key] = _whole(how.whole, measured.fields)
      measured = shared[key]
    found[name] = np.where(lost[net] > 0, np.nan, how.value(*measured))
    if net.split('/')[0] == role:
      of_role.setdefault(metric, []).append(found[name])
  means = {metric: np.mean(values, 0) for metric, values in of_role.items()}
  return {f'{split}/{name}': v for name, v in {**means, **found}.items()}


def _taken_lost(totals: dict) -> dict[str, np.ndarray]:
  """How many examples each net gives nan for, [M], taken out of the totals."""
  found = {}
  for name in [name for name in totals if _LOST in name]:
    count, _ = totals.pop(name)
    net = name.rpartition('/')[0]
    found[net] = np.maximum(found.get(net, 0), count)
  return found


def _check_lost(lost, roles, split):
  """Refuses nets that give nan for examples of a split."""
  for net, count in lost.items():
    role = roles[net.partition('/')[0]] if net else next(iter(roles.values()))
    for member in np.flatnonzero(count):
      raise UserError(
        f'{role.at}: in evaluation the outputs of member {member} are not a '
        f'number for {int(count[member])} examples of {split}, so it has no '
        'result; lower its train.learning_rate, or look at what it does in '
        'evaluation alone, as BatchNorm does with its running statistics'
      )


def _whole(measure, fields):
  """Sums and counts [M, ...] of a metric that takes a split at once.

  The first host's: a clustering, say, may end elsewhere on another processor.
  """
  pairs = [
    [np.asarray(x).tolist() for x in measure(*(x[counted] for x in own))]
    for counted, *own in zip(*fields, strict=True)
  ]
  told = hosts.told('a metric of a whole split', pairs)
  return tuple(np.array(x) for x in zip(*told, strict=True))


def member_shapes(session: Session, job: Job) -> tuple[Learner, tuple]:
  """A member's functions, and the shapes of its step's arguments."""
  batch = batches_of(session, job).example()
  learner = learner_of(session, job, batch)
  seed, hyper, frozen, given = _initial(job)
  carry = jax.eval_shape(learner.init, seed, hyper, frozen, given)
  batch = shapes_of_one(batch, _axis(batch))
  return learner, (carry, batch, frozen, hyper)


def _initial(job: Job) -> tuple:
  """The shapes of what a member starts from."""
  variables, axes = frozen_of(used_groups(job))
  frozen = shapes_of_one(variables, axes)
  hyper = {
    name: jax.ShapeDtypeStruct((), jnp.float32) for name in job.hyper or {}
  }
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  return seed, hyper, frozen, shapes_of_one(dict(job.given))
