"""A population: independent training runs, batched or looped.

The step is written for one member. How the members of a population are run,
all in one program or one after another, affects speed only.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxkd import compilation
from jaxkd.train import sharding
from jaxkd.train.sharding import DATA, MEMBER

MODES = ('vmap', 'unroll', 'sequence')


class Rows(NamedTuple):
  """Measurements per example, which are concatenated and not summed.

  Attributes:
    fields: arrays [B, ...].
  """

  fields: tuple[Array, ...]


class Learner(NamedTuple):
  """What one member does, as pure functions.

  Attributes:
    init: ``(seed, hyper, shared, given) -> carry``, where ``given`` is what a
      member starts with of its own.
    step: ``(carry, batch, shared, hyper) -> (carry, measured)``, where
      ``measured`` is a dict of pairs (sum, count).
    evaluate: ``(carry, batch, shared) -> measured``, which may hold `Rows`
      beside the pairs.
  """

  init: Callable[..., dict]
  step: Callable[..., tuple[dict, dict]]
  evaluate: Callable[..., dict]


def stack(trees: list) -> Any:
  """One tree with a leading axis of members."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take(tree: Any, member: int, axis: int = 0) -> Any:
  """One member's part of a tree with an axis of members, the leading one."""
  return jax.tree.map(lambda x: x[(slice(None),) * axis + (member,)], tree)


def shapes_of_one(tree: Any, axis: Any = 0) -> Any:
  """The shapes of one member's part of a tree of arrays or shapes.

  Args:
    tree: with an axis of members, or without.
    axis: 0 where there is a leading one, None where all members have the
      same; or a dict with one or the other for each entry of the tree.
  """
  if isinstance(axis, dict):
    return {name: shapes_of_one(x, axis[name]) for name, x in tree.items()}
  lead = 0 if axis is None else 1
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), tree
  )


class Population:
  """The members' functions, compiled for one mode of execution.

  Args:
    learner: one member's functions.
    seeds: the seed of each member.
    shared: trees that are constant during training.
    shared_axes: for each entry of `shared`, None where all members get the
      same, 0 where it has a leading axis with one for each member.
    start_only: the entries of `shared` that `init` takes and `step` does not,
      so that they leave the devices.
    hyper: entry -> each member's own value [M].
    given: what each member starts with of its own, [M, ...].
    batch_axis: 0 where batches have a leading axis of members, None where
      all members see the same batch.
    mode: 'vmap' stacks the members into one program, 'unroll' writes them
      out one after another in one program, 'sequence' runs a program each.
    mesh: devices that share the members and their batches; see
      `jaxkd.train.sharding`. Members in sequence share all devices for the
      batch of each.
    shard_parameters: whether the carry and ``shared`` are sharded over the
      devices that share a batch, rather than replicated.
  """

  def __init__(
    self,
    learner: Learner,
    *,
    seeds: list[int],
    shared: Mapping[str, Any] | None = None,
    shared_axes: Mapping[str, int | None] | None = None,
    start_only: Collection[str] = (),
    hyper: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    batch_axis: int | None = 0,
    mode: str = 'vmap',
    mesh: Mesh | None = None,
    shard_parameters: bool = False,
  ):
    self.members = len(seeds)
    self.mesh = mesh if mesh is not None and mesh.size > 1 else None
    self._is_sharded = shard_parameters and self.mesh is not None
    self._layout = sharding.sharded if self._is_sharded else sharding.replicated
    self.mode = mode
    self.batch_axis = batch_axis
    self._learner = learner
    self._seeds = np.asarray(seeds, np.uint32)
    self._starts = starts = dict(shared or {})
    self._shared = {k: starts[k] for k in starts if k not in start_only}
    axes = shared_axes or {}
    self._axes = {name: axes.get(name) for name in self._shared}
    self._start_axes = {name: axes.get(name) for name in starts}
    self._hyper = {
      name: np.asarray(value, np.float32)
      for name, value in (hyper or {}).items()
    }
    self._given = dict(given or {})
    self._evaluate = {}

  @functools.cached_property
  def _placed(self):
    return self._place(self._shared, self._axes)

  @functools.cached_property
  def shapes(self) -> Any:
    """Shapes and dtypes of the stacked carries; compiles nothing."""
    return self._of_all(self._carry)

  @functools.cached_property
  def _carry(self):
    """Shapes of the carry of one member, who is traced for all of them."""
    shared = shapes_of_one(self._starts, self._start_axes)
    seed, hyper, given = shapes_of_one((self._seeds, self._hyper, self._given))
    return jax.eval_shape(self._learner.init, seed, hyper, shared, given)

  def _of_all(self, tree):
    """The stacked shapes of what each member has."""
    return jax.tree.map(
      lambda s: jax.ShapeDtypeStruct((self.members, *s.shape), s.dtype), tree
    )

  def init(self, seeds: Sequence[int] | None = None) -> Any:
    """The carries of all members before the first step.

    Their seeds may be others than those that the population was made with. Made
    one by one, so that they are the same however the members run, and in
    parts where they are to be so: none need fit on one device.
    """
    layouts = self._sharded(member=True)
    init = compilation.once(self._learner.init, out_shardings=layouts)
    shared = self._starts
    if self._is_sharded:
      others = {k: v for k, v in shared.items() if k not in self._shared}
      shared = {**self._placed, **self._place(others, self._start_axes)}
    seeds = self._seeds if seeds is None else np.asarray(seeds, np.uint32)
    carries = [
      init(
        seeds[member],
        take(self._hyper, member),
        _own(shared, self._start_axes, member),
        take(self._given, member),
      )
      for member in range(self.members)
    ]
    return self.split(stack(carries))

  def step(self, carry: Any, totals: Any, *batches: dict) -> tuple[Any, Any]:
    """Takes a step for each batch, all in one call of a compiled program.

    What the steps measure is added to the totals. The buffers of the carry and
    of the totals are donated.
    """
    run, arguments = self._call(carry, totals, batches)
    return run(*arguments)

  def program(self, *batches: dict) -> str:
    """The optimised program of the step, or steps, as text."""
    carry, totals = self.init(), self.split(self.no_totals(batches[0]))
    run, arguments = self._call(carry, totals, batches)
    return run.lower(*arguments).compile().as_text()

  @functools.cached_property
  def _one(self):
    """A step of all members."""
    return self._stepping(_accumulating, self.batch_axis)

  @functools.cached_property
  def _several(self):
    """Several steps; in a batch their axis comes first."""
    axis = None if self.batch_axis is None else 1
    return self._stepping(_scanning, axis)

  def _stepping(self, wrap, batch_axis):
    layouts = self._sharded(member=self.mode == 'sequence')
    return self._compiled(
      wrap(self._learner.step),
      (0, 0, batch_axis, self._axes, 0),
      donate_argnums=(0, 1),
      out_shardings=layouts and (layouts, None),
    )

  def _sharded(self, *, member):
    """Shardings of a member's carry, or of all; None if not sharded."""
    if not self._is_sharded:
      return None
    if not member:
      return sharding.sharded(self.shapes, self.mesh, MEMBER)
    return sharding.sharded(self._carry, self.mesh)

  def _call(self, carry, totals, batches):
    """The compiled function for these batches, and its arguments."""
    if len(batches) == 1:
      run, batch = self._one, self._put_batch(batches[0])
    else:
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
      run, batch = self._several, self._put_batch(stacked, None)
    return run, (carry, totals, batch, self._placed, self.split(self._hyper))

  def _put_batch(self, batch, *steps):
    """A batch on the devices; `steps` is None for a leading axis of steps."""
    if self.mesh is None:
      return batch  # the call puts it on the device
    if self.batch_axis is None:
      return sharding.put(batch, self.mesh, *steps, DATA)
    if self.mode != 'sequence':
      return sharding.put(batch, self.mesh, *steps, MEMBER, DATA)
    own = [take(batch, member, len(steps)) for member in range(self.members)]
    return sharding.put(own, self.mesh, *steps, DATA)

  def part(self, batch: dict) -> np.ndarray | None:
    """Which examples of a batch this host needs, bool [M, B] or [B].

    None for all, as on a single host.
    """
    if self.mesh is None or not self.mesh.is_multi_process:
      return None
    axes = (MEMBER, DATA) if self.batch_axis == 0 else (DATA,)
    shape = jax.tree.leaves(batch)[0].shape[: len(axes)]
    if self.mode == 'sequence' and self.batch_axis == 0:
      axes = (None, DATA)
    return sharding.part(shape, self.mesh, *axes)

  def evaluate(
    self,
    carry: Any,
    batches: Iterable[dict],
    shared: Mapping[str, Any] | None = None,
    shared_axes: Mapping[str, int | None] | None = None,
  ) -> dict:
    """Sums and counts of each member, [M, ...], over batches that all see.

    `Rows` of the batches are concatenated: [M, examples, ...].

    Args:
      carry: the members' carries.
      batches: without an axis of members.
      shared: trees that the evaluation needs; by default none.
      shared_axes: as for the population, for this `shared`.
    """
    shared = dict(shared or {})
    axes = {name: (shared_axes or {}).get(name) for name in shared}
    kind = tuple(sorted(axes.items()))
    if kind not in self._evaluate:
      self._evaluate[kind] = self._compiled(
        self._learner.evaluate, (0, None, axes)
      )
    shared = self._place(shared, axes)
    totals, rows = None, []
    for batch in batches:
      size = len(jax.tree.leaves(batch)[0])
      if self.mesh is not None:
        shared_out = size % self.mesh.shape[DATA] == 0
        batch = sharding.put(batch, self.mesh, DATA if shared_out else None)
      measured = self.stacked(self._evaluate[kind](carry, batch, shared))
      each = {k: v for k, v in measured.items() if isinstance(v, Rows)}
      sums = {k: v for k, v in measured.items() if k not in each}
      totals = sums if totals is None else add(totals, sums)
      rows.append(each)
    if totals is None:
      return {}
    totals, rows = sharding.fetch((totals, rows))
    return {**totals, **jax.tree.map(lambda *x: np.concatenate(x, 1), *rows)}

  def no_totals(self, batch: dict) -> Any:
    """Zero totals: stacked sums and counts, shaped as the step measures."""
    _, measured = jax.eval_shape(
      self._learner.step,
      self._carry,
      shapes_of_one(batch, self.batch_axis),
      shapes_of_one(self._shared, self._axes),
      shapes_of_one(self._hyper),
    )
    return jax.tree.map(
      lambda s: np.zeros(s.shape, s.dtype), self._of_all(measured)
    )

  def stacked(self, tree: Any) -> Any:
    """The members' trees as one tree with a leading axis of members."""
    return stack(tree) if self.mode == 'sequence' else tree

  def split(self, tree: Any) -> Any:
    """The inverse of `stacked`: the members' parts, on their devices."""
    if self.mode != 'sequence':
      return sharding.put(tree, self.mesh, MEMBER, layout=self._layout)
    own = [take(tree, member) for member in range(self.members)]
    return sharding.put(own, self.mesh, layout=self._layout)

  def _place(self, shared, axes):
    """`shared` on the devices; members' own parts are split once, here."""
    return {
      name: sharding.put(tree, self.mesh, layout=self._layout)
      if axes[name] is None
      else self.split(tree)
      for name, tree in shared.items()
    }

  def _compiled(self, function, axes, **options):
    """Compiles a function of one member as a function of all.

    Arguments with an axis have one entry for each member there; in the mode
    'sequence' they may be lists. The options are those of `jax.jit`.
    """
    if self.mode == 'vmap':
      return self._on_mesh(jax.vmap(function, axes), axes, options)

    def run(call, arguments):
      results = []
      for member in range(_count(arguments, axes)):
        pairs = zip(arguments, axes, strict=True)
        results.append(call(*(_own(a, axis, member) for a, axis in pairs)))
      return results

    if self.mode == 'unroll':
      unrolled = lambda *arguments: stack(run(function, arguments))  # noqa: E731
      return self._on_mesh(unrolled, axes, options)

    compiled = compilation.jit(function, **options)

    def waited_for(*arguments):
      return jax.block_until_ready(compiled(*arguments))

    # Programs on several simulated devices of one CPU share its threads. Two at
    # once could each get some of them, and deadlock waiting for the rest.
    shared = self.mesh is not None and jax.default_backend() == 'cpu'
    call = waited_for if shared else compiled

    def in_sequence(*arguments):
      results = run(call, arguments)
      if isinstance(results[0], tuple):
        return tuple(list(part) for part in zip(*results, strict=True))
      return results

    return in_sequence

  def _on_mesh(self, function, axes, options):
    """Compiles a function of stacked members for the mesh."""
    if self.mesh is not None:

      def spec(axis):
        return P() if axis is None else P(*[None] * axis, MEMBER)

      function = jax.shard_map(
        function,
        mesh=self.mesh,
        in_specs=jax.tree.map(spec, axes, is_leaf=lambda x: x is None),
        out_specs=P(MEMBER),
        axis_names={MEMBER},
        check_vma=False,
      )
    return compilation.jit(function, **options)


def _count(arguments, axes) -> int:
  """The number of members in the arguments, or in a device's part of them."""
  own = next(a for a, axis in zip(arguments, axes, strict=True) if axis == 0)
  return len(own) if isinstance(own, list) else len(jax.tree.leaves(own)[0])


def _own(argument: Any, axis: Any, member: int) -> Any:
  """A member's part of an argument: a slice, an entry of a list, or all."""
  if isinstance(axis, dict):
    return {k: _own(v, axis[k], member) for k, v in argument.items()}
  if axis is None:
    return argument
  if isinstance(argument, list):
    return argument[member]
  return take(argument, member, axis)


def add(first: Any, second: Any) -> Any:
  """The sum of two trees of arrays of the same structure."""
  return jax.tree.map(jnp.add, first, second)


def _accumulating(step):
  """A step that adds what it measured to the totals.

  Once a sum is infinite or NaN its count stops: it tells how many steps were
  finite before.
  """

  def added(total, count, value, number):
    total += value
    return total, count + jnp.where(jnp.isfinite(total), number, 0)

  def run(carry, totals, batch, shared, hyper):
    carry, measured = step(carry, batch, shared, hyper)
    totals = {name: added(*totals[name], *measured[name]) for name in measured}
    return carry, totals

  return run


def _scanning(step):
  """As many steps as the batches have along their first axis."""
  one = _accumulating(step)

  def run(carry, totals, batches, shared, hyper):
    def body(carried, batch):
      return one(*carried, batch, shared, hyper), None

    return jax.lax.scan(body, (carry, totals), batches)[0]

  return run
