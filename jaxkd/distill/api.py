"""Distillation in your own loop: nets, and the step that trains them.

Examples::

  from jaxkd import distill, losses

  teacher = distill.net(teacher_module, images)
  student = distill.net(student_module, images)
  terms = {
    'labels': distill.term(losses.cross_entropy, weight=0.1),
    'soft': distill.term(losses.kl, teacher='main', temperature=4.0),
  }
  step = distill.step(student, {'main': teacher}, terms, optax.adamw(1e-3))
  state = step.init(seed=0)
  for batch in loader:
    state, metrics = step(state, batch)
  student.update(student_module, state)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxkd.distill.measured import Measured
from jaxkd.distill.model import (
  STUDENT,
  Model,
  PyTree,
  State,
  dtype_of,
  members_of,
)
from jaxkd.distill.prepare import (
  as_metric,
  layers_of,
  named,
  role_of,
  stacked,
  traced,
  warn_of_bytes,
  warn_of_idle,
  written,
)
from jaxkd.distill.roles import AVERAGE
from jaxkd.distill.step import learner
from jaxkd.distill.step_checks import (
  cached_in,
  check_adds_up,
  check_kinds,
  check_names,
  check_numbers,
  check_parts,
  check_weights,
  checked_batch,
  numbered,
  seeds_of,
)
from jaxkd.distill.system import Recipe, System
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.train import sharding
from jaxkd.train.population import (
  MODES,
  Learner,
  Population,
  Rows,
  shapes_of_one,
)
from jaxkd.types import Metric, Term


class Step:
  """A compiled training step, made by `step`.

  Attributes:
    system: students, teachers, terms and optimiser, see `jaxkd.distill.system`.
    learner: the pure functions of one member, for your own transformations.
      Their batches need ``id`` and ``epoch``; the teachers' variables are
      `frozen`. Nets that were given weights start from them.
    frozen: group -> the variables of its nets, [T, ...].
    members: how many train side by side.
    mesh: the devices that they share; None for the default device.
  """

  def __init__(
    self,
    system: System,
    frozen: dict[str, dict],
    given: dict[str, dict],
    *,
    members: int,
    mode: str,
    mesh: Mesh | None,
    own_batches: bool,
    accumulate: int,
  ):
    self.system, self.frozen, self.members = system, frozen, members
    self.mesh = mesh
    made = learner(system)
    self.learner = made._replace(
      init=lambda seed, hyper, frozen, start=MappingProxyType({}): made.init(
        seed, hyper, frozen, {**given, **start}
      )
    )
    self._own_batches, self._accumulate = own_batches, accumulate
    self._population = Population(
      Learner(
        self.learner.init,
        lambda carry, batch, *rest: self.learner.step(
          carry, numbered(batch, carry['step']), *rest
        ),
        lambda carry, batch, *rest: self.learner.evaluate(
          carry, numbered(batch, 0), *rest
        ),
      ),
      seeds=list(range(members)),
      shared=frozen,
      given=jax.tree.map(
        lambda x: np.broadcast_to(x, (members, *np.shape(x))), given
      ),
      batch_axis=0 if own_batches else None,
      mode=mode,
      mesh=mesh,
    )
    self._nothing: dict = {}

  def init(self, seed: int | Sequence[int] = 0) -> State:
    """The state before the first step.

    Args:
      seed: of the first member; the others have the seeds that follow. Or a
        list with the seed of each, all different if all see the same batches.

    Returns:
      A pytree of arrays with a leading axis of members, which any checkpointer
      can save. With ``mode='sequence'`` a list, one pytree for each member.
    """
    seeds = seeds_of(seed, self.members, alike=self._own_batches)
    with blamed('step.init'):
      return self._population.init(seeds)

  def __call__(
    self, state: State, batch: Mapping[str, PyTree]
  ) -> tuple[State, Measured]:
    """Trains on a batch.

    Args:
      state: it is donated: use the returned state from now on.
      batch: ``inputs`` [B, ...] and what terms take by name, such as
        ``labels`` [B]; with ``own_batches`` each [M, B, ...]. Views draw by
        (seed, epoch, ``id`` [B]), or without ``id`` by place and step.

    Returns:
      The new state, and the metrics ``loss``, ``loss/TERM`` and
      ``gradient_norm``, fetched from the device when first read.

    Raises:
      UserError: a batch or state that does not fit, a state that was already
        given to a step, or a call inside ``jax.jit``.
    """
    axes = 1 + self._own_batches
    batch = checked_batch(
      batch, axes, self.members, self.mesh, parts=self._accumulate
    )
    self._check(state, batch)
    kind = str(jax.tree.map(lambda x: (np.shape(x), x.dtype), batch))
    if kind not in self._nothing:
      self._check_structure(state)
      one = shapes_of_one(batch, 0 if self._own_batches else None)
      with traced('step', one['inputs'], self.system.example['inputs']):
        if self._accumulate > 1 and not self._nothing:
          check_adds_up(self.system, self.frozen, one)
        self._nothing[kind] = self._population.no_totals(batch)
    totals = self._population.split(self._nothing[kind])
    state, found = self._population.step(state, totals, batch)
    value = lambda name, pair: pair[0] / pair[1]  # noqa: E731
    return state, Measured(self._population.stacked(found), value)

  def evaluate(
    self,
    state: State,
    batches: Mapping[str, PyTree] | Iterable[Mapping[str, PyTree]],
  ) -> Measured:
    """The metrics over all examples of some batches.

    Args:
      state: not donated; if it has a running mean, that is evaluated.
      batches: one, or several, which all members see. ``where`` [B], bool, says
        which examples count, if some only pad a batch.

    Raises:
      UserError: the step has no metrics, or no example counts.
    """
    if not self.system.metrics:
      raise UserError(
        'step.evaluate: name what to measure in distill.step(metrics=...)'
      )
    batches = [batches] if isinstance(batches, Mapping) else batches

    def checked():
      for batch in batches:
        found = checked_batch(batch, 1, self.members, None)
        self._check(state, found)
        yield found

    with blamed('step.evaluate'):
      found = self._population.evaluate(state, checked(), self.frozen)
    if not found:
      raise UserError('step.evaluate: there is no batch')
    if not any(map(_counted, found.values())):
      raise UserError(
        "step.evaluate: no example counts; look at 'where' of the batches"
      )
    return Measured(found, self._metric)

  def _check(self, state: State, batch: PyTree) -> None:
    """Refuses a state of another step, and traced arrays."""
    members = members_of(state)
    parts = state if isinstance(state, list) else [state]
    leaves = jax.tree.leaves((batch, [part['seed'] for part in parts]))
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
      raise UserError(
        'a step is compiled already; inside a transformation of JAX, use the '
        'functions of step.learner'
      )
    if members != self.members:
      raise UserError(
        f'the state has {members} members, and this step {self.members}; pass '
        'a state of this step'
      )
    mode = self._population.mode
    if isinstance(state, list) != (mode == 'sequence'):
      raise UserError(
        f'the state is of a step with another mode than {mode!r}; pass a state '
        'of this step'
      )
    warn_of_bytes(batch['inputs'])

  def _check_structure(self, state: State) -> None:
    """Refuses the state of a step of other nets, terms or optimiser."""
    own, lead = self._population.shapes, self._population.mode != 'sequence'
    like = jax.tree.map(lambda x: x.shape[not lead :], own)
    for part in [state] if lead else state:
      if jax.tree.map(np.shape, part) != like:
        raise UserError(
          'the state is of a step with other nets, terms or another optimiser; '
          'pass a state of this step, restored to the shapes of step.init()'
        )

  def _metric(self, name: str, found: Any) -> np.ndarray:
    """The value of each member [M] from sums and counts, or from rows."""
    alone = len(self.system.nets) == 1
    metric = self.system.metrics[name if alone else name.partition('/')[2]]
    if isinstance(found, Rows):
      each = [
        metric.whole(*(x[counts] for x in own))
        for counts, *own in zip(*found.fields, strict=True)
      ]
      found = tuple(np.array(x) for x in zip(*each, strict=True))
    return np.asarray(metric.value(*found))


def step(
  student: Model | Mapping[str, Model],
  teachers: Mapping[str, Model | Sequence[Model]],
  terms: Mapping[str, Term],
  optimizer: optax.GradientTransformation,
  *,
  members: int = 1,
  own_batches: bool = False,
  same_start: bool = False,
  metrics: Mapping[str, Metric | Callable] = MappingProxyType({}),
  accumulate: int = 1,
  average: float = 0.0,
  parts: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
  rollout: Callable[..., dict] | None = None,
  example: Mapping[str, PyTree] | None = None,
  mode: str = 'vmap',
  mesh: Mesh | None = None,
) -> Step:
  """Makes the training step of students, with frozen teachers.

  Args:
    student: the net that trains; or several by name, which terms choose by
      ``of`` and can name as each other's ``teacher`` (mutual learning).
    teachers: group -> a net with weights, or several of one architecture. A
      group can be left out if its outputs come with the batch, as
      ``cached_outputs[group][output]`` [B, T, ...].
    terms: name -> term of the loss; see `jaxkd.distill.term`.
    optimizer: any optax transformation, of the parameters
      ``{'nets': ..., 'terms': ...}``.
    members: how many independent training runs, one seed each, side by side.
    own_batches: whether batches have a leading axis with one batch for each
      member; otherwise all members see the same batch.
    same_start: allows several members to start from the same given weights.
    metrics: for `Step.evaluate`, name -> `Metric`, or a function ``(outputs,
      batch) -> [B]``, of which the mean is taken.
    accumulate: into how many parts a batch is divided. Terms that look at the
      whole batch are refused then, and BatchNorm sees one part at a time.
    average: decay of a running mean of the parameters, which is then evaluated
      and written back, and is a teacher called ``average``.
    parts: part of the loss -> its terms, for optimisers that take the gradient
      of each, such as `jaxkd.distill.dot.dot`.
    rollout: ``(student, batch, key) -> batch``, the batch that is trained on,
      such as what the student generates; ``student(inputs)`` gives its outputs.
      No gradient flows through it.
    example: a batch of arrays or shapes; needed if terms look at more of the
      batch than the inputs before the first step, as with cached outputs.
    mode: how members run: 'vmap', 'unroll' or 'sequence'; affects speed only.
    mesh: devices, from `mesh`. By default members are divided over all devices,
      and remaining devices share batches of the size of the example.

  Raises:
    UserError: names, layers, weights or numbers that do not fit together.
  """
  check_kinds(student, teachers, terms, optimizer, metrics)
  check_numbers(members, accumulate, average, mesh)
  students = {STUDENT: student} if isinstance(student, Model) else dict(student)
  groups = {
    name: (group,) if isinstance(group, Model) else tuple(group)
    for name, group in teachers.items()
  }
  check_names(students, groups, terms)
  check_parts(parts, terms)
  check_weights(students, groups, members, same_start)
  first = next(iter(students.values()))
  cached = cached_in(example or {})
  for name, term in terms.items():
    known = {*groups, *students, *cached, *([AVERAGE] if average else [])}
    for group in term.groups:
      if group not in known:
        raise unknown('teacher', group, known, f'terms[{name!r}]')
  if mode not in MODES:
    raise unknown('mode', mode, MODES, 'distill.step')
  roles = {
    name: role_of(model, name, layers_of(name, terms, students, average))
    for name, model in students.items()
  }
  taught = {
    name: role_of(models[0], name, layers_of(name, terms, students, average))
    for name, models in groups.items()
  }
  shapes = {'inputs': first.example, **(example or {})}
  size = len(jax.tree.leaves(shapes['inputs'])[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), dtype_of(x)), shapes
  )
  called = {name: named(name, term) for name, term in terms.items()}
  system = System(
    roles,
    taught,
    lambda hyper: Recipe(called, optimizer, accumulate, average, dict(parts)),
    numbered(shapes, 0),
    {name: as_metric(name, metric) for name, metric in metrics.items()},
    rollout=rollout and written(rollout),
  )
  warn_of_idle(roles)
  if mesh is None and len(sharding.devices()) > 1:
    mesh = sharding.mesh(members if mode != 'sequence' else 1, size)
  frozen = {name: stacked(name, models) for name, models in groups.items()}
  given = {
    name: model.variables
    for name, model in students.items()
    if model.variables is not None
  }
  return Step(
    system,
    frozen,
    given,
    members=members,
    mode=mode,
    mesh=mesh,
    own_batches=own_batches,
    accumulate=accumulate,
  )


def mesh(members: int, batch_size: int, **sizes: int) -> Mesh:
  """Devices for `step`, as a mesh with the axes ``member`` and ``data``.

  Args:
    members: how many members train.
    batch_size: examples in a member's batch.
    **sizes: ``member`` and ``data``, the number of devices along each axis; by
      default as many as divide the members and the batch.
  """
  return sharding.mesh(members, batch_size, **sizes, at='distill.mesh')


def _counted(found: Any) -> bool:
  """Whether what was measured is of any example."""
  count = found.fields[0] if isinstance(found, Rows) else found[1]
  return bool(np.any(count))
