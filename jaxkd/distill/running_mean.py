"""The running mean of a net's parameters (EMA), with a state of its own.

Statistics such as those of BatchNorm fit the parameters that they were gathered
with, and not the mean of the parameters. So the mean gathers its own: in each
step it sees the batch too, in training mode. Nets without such statistics need
no second forward pass. The rest of a state, such as the masks of a pruned net,
is the same for both.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from jaxkd.paths import by_path, changed


def variables(carry: Mapping[str, Any]) -> dict[str, dict]:
  """The variables of each net that trains."""
  params, states = carry['train']['nets'], carry['state']['nets']
  return {n: {'params': params[n], 'state': states[n]} for n in params}


def result(carry: Mapping[str, Any]) -> dict[str, dict]:
  """The variables that are evaluated and exported: the means, or else the nets.

  Args:
    carry: of one member, or of all with a leading axis.
  """
  found = variables(carry)
  if 'average' not in carry:
    return found
  statistics = carry['state']['average']
  return {
    name: {
      'params': carry['average'][name],
      'state': _with(own['state'], statistics.get(name, {})),
    }
    for name, own in found.items()
  }


def share_kept(decay: float, step: Array) -> Array:
  """The share of the old mean in the new one, after a step.

  While it is below the decay it is that of the plain mean of all parameters so
  far, those before the first step included; so what a net began with does not
  weigh for longer than it should (Tarvainen & Valpola, `Mean teachers are
  better role models <https://arxiv.org/abs/1703.01780>`_, 2017).

  Args:
    decay: of the config.
    step: which step it is, 0 for the first, int [].
  """
  return jnp.minimum(decay, 1 - 1 / (step + 2.0))


def updated(
  mean: dict, params: dict, share: float | Array, *, still: Collection[str]
) -> dict:
  """The mean of a net's parameters after one more step.

  Args:
    mean: before.
    params: of the net now.
    share: of the old mean in the new one.
    still: the paths of parameters that do not train, whose mean is what they
      are, without rounding.
  """
  new = optax.incremental_update(params, mean, 1 - share)
  return _with(new, at(still, params))


def at(paths: Iterable[str], tree: dict) -> dict[str, Any]:
  """Path -> leaf of a tree, at some paths."""
  flat = by_path(tree)
  return {path: flat[path] for path in paths}


def _with(tree: dict, leaves: Mapping[str, Any]) -> dict:
  """A tree with other leaves at some paths."""
  return changed(
    tree, {path: lambda _, leaf=leaf: leaf for path, leaf in leaves.items()}
  )
