"""The leaves of a tree by the names that people call them."""

from typing import Any

import jax


def by_path(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by path, e.g. ``params/dense/kernel``.

  Raises:
    ValueError: two leaves have the same path.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }
  if len(named) != len(leaves):
    raise ValueError('two leaves of the tree have the same path')
  return named
