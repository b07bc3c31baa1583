"""Weights of several teachers, found on the validation split.

The weights of the mixture of the teachers' probabilities, the linear opinion
pool, under which the labels are most likely. They are a group of their own,
whose output is each teacher's weight for every example, so that they enter the
step as teachers do: shared by all seeds, or each seed's own.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.distill import fusion
from jaxkd.distill.roles import Group, Role
from jaxkd.types import Net


def proportions(
  log_likelihoods: np.ndarray, *, tolerance: float = 1e-6, steps: int = 10_000
) -> np.ndarray:
  """The weights of a mixture that maximise the likelihood of the labels.

  Expectation-maximisation for the proportions alone (Redner & Walker, 1984).
  The likelihood is concave in them, so there is one best value.

  Args:
    log_likelihoods: log p_t(label | example), [T, N].
    tolerance: the change of a weight below which they have converged.
    steps: the maximum number of steps.

  Returns:
    float32 [T], of sum 1.
  """
  logs = np.asarray(log_likelihoods, np.float64)
  p = np.exp(logs - logs.max(0))  # an example's scale cancels
  weights = np.full(len(p), 1 / len(p))
  for _ in range(steps):
    new = weights * (p / (weights @ p)).mean(1)
    done = np.abs(new - weights).max() < tolerance
    weights = new / new.sum()
    if done:
      break
  return weights.astype(np.float32)


def shapes(parts: Sequence[Group]) -> Group:
  """The weights before they are found."""
  by_seed = [
    (jax.tree.leaves(part.variables)[0].shape, part.per_member)
    for part in parts
  ]
  count = sum(shape[int(own)] for shape, own in by_seed)
  seeds = [shape[:1] for shape, own in by_seed if own] or [()]
  weights = jax.ShapeDtypeStruct((*seeds[0], count), jnp.float32)
  return _group(weights, any(own for _, own in by_seed))


def found(each: Sequence[np.ndarray], parts: Sequence[Group]) -> Group:
  """The weights of the nets of trained groups.

  Args:
    each: of each group, log p(label) of the examples that the weights are found
      on, [members, T, N]; of one member where all seeds share the group.
    parts: the groups.
  """
  seeds = max(map(len, each))
  logs = np.concatenate(
    [np.broadcast_to(x, (seeds, *x.shape[1:])) for x in each], axis=1
  )
  weights = jnp.asarray([proportions(own) for own in logs])
  per_member = any(part.per_member for part in parts)
  return _group(weights if per_member else weights[0], per_member)


def weights_of(groups: Mapping[str, Group]) -> dict[str, list]:
  """The weights among some groups, for each seed, by the teachers' names."""
  start = fusion.validated(())
  return {
    name.removeprefix(start): group.by_seed['params']['weight'].tolist()
    for name, group in groups.items()
    if name.startswith(start)
  }


def _group(weights, per_member: bool) -> Group:
  """A group of nets of which each gives its weight, whatever it sees."""

  def apply(variables, inputs, *, key=None, train=False):
    size = len(jax.tree.leaves(inputs)[0])
    weight = jnp.broadcast_to(variables['params']['weight'], (size,))
    return {'weight': weight}, {}

  def init(key):
    return {'params': {'weight': jnp.ones(())}, 'state': {}}

  variables = {'params': {'weight': weights}, 'state': {}}
  return Group(Role(Net(init, apply)), variables, per_member)
