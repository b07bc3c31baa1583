"""The running mean of a net's parameters, and the state that belongs to it.

Statistics that a net gathers of what flows through it, as BatchNorm does, fit
its own parameters and not their mean. So the mean gathers its own: in each step
it sees the batch too, in training mode. Nets without such statistics need no
second forward pass. The rest of a state, such as the masks of a pruned net, is
the same for both.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxkd.paths import by_path, changed


def trained(carry: Mapping[str, Any]) -> dict[str, dict]:
  """The variables of each net that trains."""
  params, states = carry['train']['nets'], carry['state']['nets']
  return {n: {'params': params[n], 'state': states[n]} for n in params}


def result(carry: Mapping[str, Any]) -> dict[str, dict]:
  """What is evaluated, and kept after training: the means, or else the nets.

  Args:
    carry: of one member, or of all with a leading axis.
  """
  variables = trained(carry)
  if 'average' not in carry:
    return variables
  statistics = carry['state']['average']
  return {
    name: {
      'params': carry['average'][name],
      'state': _with(own['state'], statistics.get(name, {})),
    }
    for name, own in variables.items()
  }


def moved(before: dict, after: dict) -> dict[str, Any]:
  """Path -> leaf of what a forward pass changes in a state.

  Args:
    before: the state, as a trace sees it.
    after: the state that the pass gives in the same trace.
  """
  old = by_path(before)
  return {p: leaf for p, leaf in by_path(after).items() if leaf is not old[p]}


def at(paths: Iterable[str], state: dict) -> dict[str, Any]:
  """Path -> leaf of a state, at some paths."""
  flat = by_path(state)
  return {path: flat[path] for path in paths}


def _with(state: dict, leaves: Mapping[str, Any]) -> dict:
  """A state with other leaves at some paths."""
  return changed(
    state, {path: lambda _, leaf=leaf: leaf for path, leaf in leaves.items()}
  )
