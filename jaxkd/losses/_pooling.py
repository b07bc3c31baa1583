"""Adaptive pooling of maps [B, ..., C], also to sizes that do not divide.

Bin i of n over an axis of length L covers the positions from floor(i L / n)
up to, not including, ceil((i + 1) L / n): bins overlap where n does not
divide L, and each holds at least one position.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax


def average(x: Array, size: tuple[int, ...]) -> Array:
  """[B, ..., C] averaged to ``size`` positions, a number for each axis."""
  return _pool(x, size, jnp.mean)


def max(x: Array, size: tuple[int, ...]) -> Array:
  """[B, ..., C] max-pooled to ``size`` positions, a number for each axis."""
  return _pool(x, size, jnp.max)


def to_smaller(x: Array, y: Array, names: tuple[str, str]) -> tuple:
  """Two maps at the size of the smaller one; the larger is averaged.

  Args:
    x: [B, ..., C].
    y: [B, ..., C], of the same rank.
    names: what to call them in an error.

  Raises:
    ValueError: neither is at least as large along every axis.
  """
  sizes = x.shape[1:-1], y.shape[1:-1]
  smaller = tuple(map(min, *sizes))
  if len(sizes[0]) != len(sizes[1]) or smaller not in sizes:
    raise ValueError(
      f'{names[0]} and {names[1]} must be maps of which one is the smaller, '
      f'not {sizes[0]} and {sizes[1]} positions'
    )
  return average(x, smaller), average(y, smaller)


def _pool(x: Array, size: tuple[int, ...], reduce: Callable) -> Array:
  for axis, bins in enumerate(size, start=1):
    length = x.shape[axis]
    if length == bins:
      continue
    if length % bins == 0:
      split = (*x.shape[:axis], bins, length // bins, *x.shape[axis + 1 :])
      x = reduce(x.reshape(split), axis=axis + 1)
    else:
      edges = [
        (i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)
      ]
      x = jnp.stack(
        [
          reduce(lax.slice_in_dim(x, low, high, axis=axis), axis=axis)
          for low, high in edges
        ],
        axis=axis,
      )
  return x
