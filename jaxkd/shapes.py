"""Shapes of one example: what nets and views are built for; and of variables.

The shape of an array of float32, which images become, is a tuple; that of any
other is a ``jax.ShapeDtypeStruct``. Inputs of several arrays are a pytree.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_shape(node: Any) -> bool:
  """Whether a node of a pytree is a shape; for `jax.tree.map` and its like."""
  return isinstance(node, Sequence) and all(isinstance(n, int) for n in node)


def batch(shapes: Any, size: int = 1) -> Any:
  """The shapes of a batch, as ``jax.ShapeDtypeStruct``, from one example's."""

  def of(x):
    shape, dtype = (x, jnp.float32) if is_shape(x) else (x.shape, x.dtype)
    return jax.ShapeDtypeStruct((size, *shape), dtype)

  return jax.tree.map(of, shapes, is_leaf=is_shape)


def example(batch: Any) -> Any:
  """The shapes of one example, from arrays of a batch or their shapes.

  Bytes are pixels, which views turn into float32.
  """

  def of(x):
    if x.dtype.kind == 'f' or x.dtype == np.uint8:
      return tuple(x.shape[1:])
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)

  return jax.tree.map(of, batch)


def zeros(shapes: Any, size: int = 1) -> Any:
  """A batch of zeros, from the shapes of one example."""
  return jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype), batch(shapes, size)
  )


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
  """What a function makes of each array of a tree, or of each shape.

  Args:
    function: ``array -> array``, whose shape does not depend on values.
    tree: of arrays, or of ``jax.ShapeDtypeStruct``, as variables are before
      there are any.
  """
  run = lambda tree: jax.tree.map(function, tree)  # noqa: E731
  leaves = jax.tree.leaves(tree)
  if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
    return jax.eval_shape(run, tree)
  return run(tree)


def said(shapes: Any) -> str:
  """Shapes in words: ``28 × 28 × 1``, or ``source 24, prefix 24``."""
  leaves, _ = jax.tree.flatten_with_path(shapes, is_leaf=is_shape)
  named = []
  for path, x in leaves:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    sizes = ' × '.join(map(str, x if is_shape(x) else x.shape))
    named.append(f'{name} {sizes}'.strip())
  return ', '.join(named)


def as_json(shapes: Any) -> Any:
  """Shapes of JSON's types."""

  def of(x):
    if is_shape(x):
      return list(x)
    return {'shape': list(x.shape), 'dtype': np.dtype(x.dtype).name}

  return jax.tree.map(of, shapes, is_leaf=is_shape)


def from_json(found: Any) -> Any:
  """The inverse of `as_json`."""
  if is_shape(found):
    return tuple(found)
  if isinstance(found, list):
    return tuple(map(from_json, found))
  if found.keys() == {'shape', 'dtype'}:
    return jax.ShapeDtypeStruct(tuple(found['shape']), found['dtype'])
  return {name: from_json(value) for name, value in found.items()}


def flat(shapes: Any) -> list[tuple[int, ...]]:
  """The sizes of all arrays of one example."""
  return [x.shape[1:] for x in jax.tree.leaves(batch(shapes))]
