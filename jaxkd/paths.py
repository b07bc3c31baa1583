"""The leaves of a tree by the names that people call them."""

import fnmatch
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

_SLASH = re.compile(r'(?<!\\)/')  # between names, and not in one


def by_path(
  tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> dict[str, Any]:
  """The leaves of a tree by path, e.g. ``params/dense/kernel``.

  Args:
    tree: any pytree.
    is_leaf: what else counts as a leaf.

  Raises:
    ValueError: two leaves have the same path.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }
  if len(named) != len(leaves):
    raise ValueError('two leaves of the tree have the same path')
  return named


def flattened(
  tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> dict[str, Any]:
  r"""As `by_path`, of nested dicts, so that `nested` gives them back.

  A slash in a name, as Linen's WeightNorm has them, becomes ``\/``.
  """
  names = functools.partial(jax.tree_util.keystr, simple=True)
  return {
    '/'.join(names((key,)).replace('/', r'\/') for key in path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf)
  }


def nested(leaves: Mapping[str, Any]) -> dict:
  """The nested dicts that `flattened` was given."""
  made: dict = {}
  for path, leaf in leaves.items():
    *parents, last = (name.replace(r'\/', '/') for name in _SLASH.split(path))
    node = functools.reduce(lambda n, k: n.setdefault(k, {}), parents, made)
    node[last] = leaf
  return made


def changed(
  tree: Any,
  changes: Mapping[str, Callable[[Any], Any]],
  is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
  """A tree in which some leaves, by path, are what a function makes of them."""
  flat = by_path(tree, is_leaf)
  leaves = [
    changes[path](leaf) if path in changes else leaf
    for path, leaf in flat.items()
  ]
  return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=is_leaf), leaves)


def replaced(before: Any, after: Any) -> dict[str, Any]:
  """The leaves that are other objects in a new tree than in the old, by path.

  Under a trace these are what a function may have changed.
  """
  old = by_path(before)
  return {p: x for p, x in by_path(after).items() if x is not old.get(p)}


def matches(path: str, pattern: str) -> bool:
  """Whether a glob, or one of several joined by ``|``, matches a path.

  Globs are as shells write them, and ``head`` stands for all below it.
  """
  return any(
    fnmatch.fnmatchcase(path, one) or fnmatch.fnmatchcase(path, f'{one}/*')
    for one in pattern.split('|')
  )
