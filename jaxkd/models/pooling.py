"""Max pooling whose gradient is fast on a CPU as well.

XLA looks for the largest value of each window once more when it computes the
gradient, and on a CPU it does so one value at a time. Here the largest value is
that of shifted images, along the width and then along the height, as which it
is found at the speed of memory. The results are the same, and so are gradients:
of equal values in a window the first one has it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxkd.models import convolution


def max_pool(
  x: Array,
  window_shape: tuple[int, int],
  strides: tuple[int, int],
  padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> Array:
  """The largest value of each window of an image, as `nnx.max_pool` has it.

  Args:
    x: [..., H, W, C].
    window_shape: height and width of a window.
    strides: of windows, along height and width.
    padding: before and after, along height and width; less than the window.

  Returns:
    [..., H', W', C], where H' and W' are the numbers of whole windows.
  """
  if convolution.is_plain() or jax.default_backend() != 'cpu':
    return nnx.max_pool(x, window_shape, strides, tuple(padding))
  for axis in (1, 0):
    at = x.ndim - 3 + axis
    x = _along(x, at, window_shape[axis], strides[axis], padding[axis])
  return x


def _along(x, axis, window, stride, padding):
  """The largest of each window along one axis."""
  if any(padding):
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (*padding, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
  span = x.shape[axis] - window + 1
  shifted = [
    lax.slice_in_dim(x, first, first + span, stride, axis)
    for first in range(window)
  ]
  return functools.reduce(_larger, shifted)


def _larger(x, y):
  """The larger of two, the first of equal ones; nan if one of them is."""
  return jnp.where((x >= y) | jnp.isnan(x), x, y)
