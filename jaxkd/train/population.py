"""A population: members that train side by side and never talk.

The step is written for one member. How the members of a population run on
one device is a choice that changes nothing but the time it takes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import compilation

MODES = ('vmap', 'unroll', 'sequence')


class Learner(NamedTuple):
  """What one member does, as pure functions.

  Attributes:
    init: ``(seed, hyper, shared) -> carry``.
    step: ``(carry, batch, shared, hyper) -> (carry, measured)``, where
      ``measured`` is a dict of pairs (sum, count).
    evaluate: ``(carry, batch, shared) -> measured``.
  """

  init: Callable[..., dict]
  step: Callable[..., tuple[dict, dict]]
  evaluate: Callable[..., dict]


def stack(trees: list) -> Any:
  """One tree with a leading axis of members."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take(tree: Any, member: int) -> Any:
  """One member's part of a tree with a leading axis of members."""
  return jax.tree.map(lambda x: x[member], tree)


class Population:
  """The members' functions, compiled, under one way of running them.

  Args:
    learner: one member's functions.
    seeds: the seed of each member.
    shared: trees that are no member's own: constants of the training.
    shared_axes: for each entry of `shared`, None where all members get the
      same, 0 where it has a leading axis with one for each member.
    hyper: entry -> each member's own value [M].
    batch_axis: 0 where batches have a leading axis of members, None where
      all members see the same batch.
    mode: 'vmap' stacks the members into one program, 'unroll' writes them
      out one after another in one program, 'sequence' runs a program each.
  """

  def __init__(
    self,
    learner: Learner,
    *,
    seeds: list[int],
    shared: Mapping[str, Any] | None = None,
    shared_axes: Mapping[str, int | None] | None = None,
    hyper: Mapping[str, Any] | None = None,
    batch_axis: int | None = 0,
    mode: str = 'vmap',
  ):
    self.members = len(seeds)
    self.mode = mode
    self.batch_axis = batch_axis
    self._learner = learner
    self._seeds = np.asarray(seeds, np.uint32)
    self._shared = dict(shared or {})
    self._axes = {name: (shared_axes or {}).get(name) for name in self._shared}
    self._placed = self._place(self._shared, self._axes)
    self._hyper = {
      name: np.asarray(value, np.float32)
      for name, value in (hyper or {}).items()
    }
    self._step = self._compiled(
      _accumulating(learner.step),
      (0, 0, batch_axis, self._axes, 0),
      donate=(0, 1),
    )
    self._evaluate = {}

  def shapes(self) -> Any:
    """Shapes and dtypes of the stacked carries; compiles nothing."""
    init = jax.vmap(self._learner.init, (0, 0, self._axes))
    return jax.eval_shape(init, self._seeds, self._hyper, self._shared)

  def init(self) -> Any:
    """The carries of all members before the first step.

    Made one by one, so that they are the same however the members run.
    """
    init = compilation.once(self._learner.init)
    carries = [
      init(
        self._seeds[member],
        take(self._hyper, member),
        _own(self._shared, self._axes, member),
      )
      for member in range(self.members)
    ]
    return carries if self.mode == 'sequence' else stack(carries)

  def step(self, carry: Any, totals: Any, batch: dict) -> tuple[Any, Any]:
    """Takes a step; adds what it measured to the totals. Both are donated."""
    hyper = self.split(self._hyper)
    return self._step(carry, totals, batch, self._placed, hyper)

  def evaluate(
    self,
    carry: Any,
    batches: Iterable[dict],
    shared: Mapping[str, Any] | None = None,
    shared_axes: Mapping[str, int | None] | None = None,
  ) -> dict:
    """Sums and counts of each member, [M, ...], over batches that all see.

    Args:
      carry: the carries.
      batches: without an axis of members.
      shared: trees that the evaluation looks at; by default none.
      shared_axes: as those of the population, for `shared`.
    """
    shared = dict(shared or {})
    axes = {name: (shared_axes or {}).get(name) for name in shared}
    kind = tuple(sorted(axes.items()))
    if kind not in self._evaluate:
      self._evaluate[kind] = self._compiled(
        self._learner.evaluate, (0, None, axes)
      )
    shared = self._place(shared, axes)
    totals = None
    for batch in batches:
      measured = self._evaluate[kind](carry, batch, shared)
      totals = measured if totals is None else add(totals, measured)
    return jax.tree.map(np.asarray, self.stacked(totals))

  def no_totals(self, batch: dict) -> Any:
    """Stacked sums and counts of nothing, shaped as the step measures."""
    axes = (0, self.batch_axis, self._axes, 0)
    shapes = jax.eval_shape(
      jax.vmap(self._learner.step, axes),
      self.shapes(),
      batch,
      self._shared,
      self._hyper,
    )[1]
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

  def stacked(self, tree: Any) -> Any:
    """The members' trees as one tree with a leading axis of members."""
    return stack(tree) if self.mode == 'sequence' else tree

  def split(self, tree: Any) -> Any:
    """The inverse of `stacked`."""
    if self.mode != 'sequence':
      return tree
    return [take(tree, member) for member in range(self.members)]

  def _place(self, shared, axes):
    """What is each member's own, split once rather than at every call."""
    return {
      name: tree if axes[name] is None else self.split(tree)
      for name, tree in shared.items()
    }

  def _compiled(self, function, axes, donate=()):
    """A function of one member as a compiled function of all.

    Arguments of axis 0 have one for each member: a leading axis, or a list
    where members run in sequence.
    """
    if self.mode == 'vmap':
      return jax.jit(jax.vmap(function, axes), donate_argnums=donate)

    def run(call, arguments):
      results = []
      for member in range(self.members):
        pairs = zip(arguments, axes, strict=True)
        results.append(call(*(_own(a, axis, member) for a, axis in pairs)))
      return results

    if self.mode == 'unroll':
      unrolled = lambda *arguments: stack(run(function, arguments))  # noqa: E731
      return jax.jit(unrolled, donate_argnums=donate)

    compiled = jax.jit(function, donate_argnums=donate)

    def in_sequence(*arguments):
      results = run(compiled, arguments)
      if isinstance(results[0], tuple):
        return tuple(list(part) for part in zip(*results, strict=True))
      return results

    return in_sequence


def _own(argument: Any, axis: Any, member: int) -> Any:
  """A member's part of an argument: a slice, an entry of a list, or all."""
  if isinstance(axis, dict):
    return {k: _own(v, axis[k], member) for k, v in argument.items()}
  if axis is None:
    return argument
  if isinstance(argument, list):
    return argument[member]
  return take(argument, member)


def add(first: Any, second: Any) -> Any:
  """The sum of two trees of arrays of the same structure."""
  return jax.tree.map(jnp.add, first, second)


def _accumulating(step):
  def run(carry, totals, batch, shared, hyper):
    carry, measured = step(carry, batch, shared, hyper)
    return carry, add(totals, measured)

  return run
