"""What of a tree trains, told apart from what only takes part.

A tree keeps its shape on both sides, with `optax.MaskedNode` in the places of
the leaves that are on the other one. These hold no array: gradients, running
sums of them and the state of an optimiser exist only for what trains.
"""

from collections.abc import Collection
from typing import Any

import jax
import optax

from jaxkd import paths


def split(tree: Any, still: Collection[str]) -> tuple[Any, Any]:
  """A tree in two: the leaves that train, and those that do not.

  Args:
    tree: any pytree.
    still: the paths of the leaves that do not train; see `jaxkd.paths`.
  """
  leaves, structure = paths.by_path(tree), jax.tree.structure(tree)

  def side(stays):
    chosen = [
      leaf if (path in still) == stays else optax.MaskedNode()
      for path, leaf in leaves.items()
    ]
    return jax.tree.unflatten(structure, chosen)

  return side(False), side(True)


def is_hidden(leaf: Any) -> bool:
  """Whether it stands for a leaf of the other side."""
  return isinstance(leaf, optax.MaskedNode)


def join(trains: Any, rest: Any) -> Any:
  """The tree that `split` gave these two of."""
  return jax.tree.map(
    lambda one, other: other if is_hidden(one) else one,
    trains,
    rest,
    is_leaf=is_hidden,
  )
