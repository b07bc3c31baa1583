"""The best state of each member so far, by a metric of its evaluations.

Members are independent: one that has waited for longer than the patience keeps
what it has, however long the others go on, so that it ends as it would alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import compilation
from jaxkd.errors import UserError


class Selection(NamedTuple):
  """How the best state is chosen.

  Attributes:
    metric: its name among those of an evaluation, e.g. 'validation/nll'.
    higher_is_better: which way is up.
    patience: evaluations without a better value after which a member is done;
      0 to go on to the last step.
    keep: ``(carries) -> what is kept of them``, a tree of the same leaves.
  """

  metric: str
  higher_is_better: bool
  patience: int = 0
  keep: Callable[[Any], Any] = lambda carry: carry


class Best(NamedTuple):
  """What each of M members had at its best evaluation.

  Attributes:
    tree: what is kept of the carries, with a leading axis of members.
    step: at which that was, int [M]; 0 before the first evaluation that gave a
      number.
    value: of the metric then, [M].
    waited: evaluations since then, int [M].
  """

  tree: Any
  step: np.ndarray
  value: np.ndarray
  waited: np.ndarray

  def as_json(self) -> dict[str, list]:
    """All but the tree, of JSON's types."""
    return {k: x.tolist() for k, x in self._asdict().items() if k != 'tree'}


def start(tree: Any, members: int) -> Best:
  """No best yet; the tree, which is copied, stands for its shapes."""
  none = np.zeros(members, int)
  copied = chosen(none == 0, tree, tree)
  return Best(copied, none, np.full(members, np.nan), none)


def tree_of(best: Best | None) -> dict:
  """What a checkpoint has beside the carry; nothing without a choice."""
  return {'best': best.tree} if best else {}


def record_of(best: Best | None, ended: bool) -> dict:
  """What the record of a checkpoint has; nothing without a choice.

  Args:
    best: so far.
    ended: whether no member can still find a better state.
  """
  return {'best': best.as_json(), 'ended': ended} if best else {}


def restored(tree: Any, found: Mapping[str, list]) -> Best:
  """What `Best.as_json` wrote, with its tree."""
  return Best(tree, **{name: np.asarray(x) for name, x in found.items()})


def updated(
  best: Best, selection: Selection, tree: Any, step: int, value: np.ndarray
) -> Best:
  """The best after one more evaluation; equal values are not better.

  Args:
    best: so far.
    selection: how it is chosen.
    tree: what is kept of the carries now.
    step: the number of steps so far.
    value: of the metric now, [M]; NaN for a member that has diverged.
  """
  going = ~_done(best, selection)
  ahead = (
    value > best.value if selection.higher_is_better else (value < best.value)
  )
  better = going & np.isfinite(value) & (ahead | (best.step == 0))
  if not better.any():
    return best._replace(waited=best.waited + going)
  return Best(
    chosen(better, tree, best.tree),
    np.where(better, step, best.step),
    np.where(better, value, best.value),
    np.where(better, 0, best.waited + going),
  )


def finished(
  best: Best, selection: Selection, tree: Any, step: int, diverged: np.ndarray
) -> tuple[Any, tuple[int, ...]]:
  """The best states, the last ones of members that have diverged.

  Args:
    best: after the last evaluation.
    selection: how it was chosen.
    tree: what is kept of the carries after the last step.
    step: the last step.
    diverged: which members have, bool [M].

  Returns:
    A tree with a leading axis of members, and of which step each is.

  Raises:
    UserError: the metric of a member that has not diverged never was a number.
  """
  for member in np.flatnonzero((best.step == 0) & ~diverged):
    raise UserError(
      f'train.early_stopping.metric: {selection.metric} of member {member} was '
      'not a number in any evaluation, so it has no best step; choose another'
    )
  steps = np.where(diverged, step, best.step)
  return chosen(~diverged, best.tree, tree), tuple(steps.tolist())


def all_done(best: Best, selection: Selection, diverged: np.ndarray) -> bool:
  """Whether no member can still find a better state."""
  return bool((_done(best, selection) | diverged).all())


def chosen(which: np.ndarray, one: Any, other: Any) -> Any:
  """For each member, bool [M], one tree or the other, in new arrays."""
  return compilation.once(_chosen)(which, one, other)


def _chosen(which, one, other):
  def leaf(a, b):
    return jnp.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

  return jax.tree.map(leaf, one, other)


def _done(best, selection):
  if not selection.patience:
    return np.zeros(len(best.step), bool)
  return best.waited >= selection.patience
