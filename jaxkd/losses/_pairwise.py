"""Relations between all pairs, in bounded memory.

What compares B vectors of D numbers with each other is easily written with a
[B, B, D] temporary, or with an inner-product identity that cancels: |x - y|²
as |x|² + |y|² - 2 x·y has lost all digits for close neighbours far from the
origin. Here differences are exact and are made a few at a time, in the
backward pass again.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

# What one temporary of a chunk may take. A handful of them are live at once,
# forward and backward, so peaks are several times this.
CHUNK_BYTES = 4 * 2**20

# Some accelerators multiply float32 matrices in fewer bits by default.
einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def chunked(function: Callable, items, *, temporary: int):
  """``function`` of each item, as many at a time as memory allows.

  Args:
    function: of one item.
    items: pytree of arrays with a leading axis of items.
    temporary: the bytes of the largest temporary for one item.

  Returns:
    Its values, stacked. Temporaries are not kept for the backward pass.
  """
  size = max(1, CHUNK_BYTES // max(1, temporary))
  if size >= len(jax.tree.leaves(items)[0]):
    return jax.vmap(function)(items)
  return lax.map(jax.checkpoint(function), items, batch_size=size)


def squared_distances(x: Array) -> Array:
  """|x_i - x_j|² between the rows of [B, D], as [B, B]; exactly 0 for i = j."""
  return chunked(
    lambda point: jnp.sum(jnp.square(x - point[None]), axis=-1),
    x,
    temporary=x.size * x.dtype.itemsize,
  )
