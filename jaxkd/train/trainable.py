"""Splits a tree of parameters into trainable and frozen leaves.

Both parts keep the structure of the tree, with `optax.MaskedNode` in place of
the other part's leaves. It holds no array: so gradients, their accumulators and
the state of the optimiser exist only for trainable leaves.
"""

from collections.abc import Collection
from typing import Any

import jax
import optax

from jaxkd import paths


def split(tree: Any, still: Collection[str]) -> tuple[Any, Any]:
  """The trainable and the frozen part of a tree.

  Args:
    tree: any pytree.
    still: the paths of the frozen leaves; see `jaxkd.paths`.
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
  """Whether it is the placeholder of a leaf of the other part."""
  return isinstance(leaf, optax.MaskedNode)


def join(trains: Any, rest: Any) -> Any:
  """The inverse of `split`."""
  return jax.tree.map(
    lambda one, other: other if is_hidden(one) else one,
    trains,
    rest,
    is_leaf=is_hidden,
  )
