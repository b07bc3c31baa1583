"""Small pieces of arithmetic that the losses share.

Each is here because the obvious line of code has a wrong value in low
precision, or a gradient that is not finite, at inputs that do occur: features
that are all zero, examples that are equal, rows that only pad the batch.
"""

import jax
import jax.numpy as jnp
from jax import Array


def upcast(*arrays: Array) -> Array | tuple[Array, ...]:
  """The arrays in float32, or in float64 where one of them is."""
  double = any(x.dtype == jnp.float64 for x in arrays)
  dtype = jax.dtypes.canonicalize_dtype(jnp.float64 if double else jnp.float32)
  arrays = tuple(jnp.asarray(x, dtype) for x in arrays)
  return arrays if len(arrays) > 1 else arrays[0]


def safe_sqrt(x: Array) -> Array:
  """Square root whose gradient at 0 is 0 and not infinite."""
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def l2_normalize(x: Array, axis=-1, eps: float = 1e-12) -> Array:
  """Vectors along ``axis`` (one or several) scaled to length 1.

  Vectors of length ``eps`` or less, where x / max(|x|, eps) has a slope of
  1 / eps, become 0 with a gradient of 0.
  """
  square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
  long = square > eps**2
  return jnp.where(long, x / jnp.sqrt(jnp.where(long, square, 1)), 0)


def center(x: Array, axis=-1, where: Array | None = None) -> Array:
  """``x`` less its mean; 0, gradient too, where nothing but rounding is left.

  Without that, equal elements whose mean is rounded would be noise for
  whatever divides by their deviation. Elements that do not count become 0.

  Args:
    x: any shape.
    axis: one axis or several.
    where: bool that broadcasts to ``x``, true for the elements that count.
  """
  if where is not None:
    x = jnp.where(where, x, 0)
  gap = x - jnp.mean(x, axis=axis, keepdims=True, where=where)
  if where is not None:
    gap = jnp.where(where, gap, 0)
  rounding = 16 * jnp.finfo(x.dtype).eps
  varies = jnp.sum(jnp.square(gap), axis=axis, keepdims=True) > (
    rounding**2 * jnp.sum(jnp.square(x), axis=axis, keepdims=True)
  )
  return jnp.where(varies, gap, 0)


def pearson(x: Array, y: Array, axis=-1, where: Array | None = None) -> Array:
  """Pearson's correlation along ``axis``; 0, gradient too, with a constant.

  Args:
    x: any shape.
    y: the same shape.
    axis: one axis or several.
    where: bool that broadcasts to ``x``, true for the elements that count.
  """
  x, y = center(x, axis, where), center(y, axis, where)
  return jnp.sum(l2_normalize(x, axis) * l2_normalize(y, axis), axis=axis)


def at_valid(valid: Array | None, *arrays: Array):
  """Arrays with 0 at the positions that do not count.

  Args:
    valid: bool, true at the positions that count; None for all of them.
    *arrays: [*valid.shape, ...].

  Returns:
    The array, or a tuple of several.
  """
  if valid is not None:
    arrays = tuple(
      jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - valid.ndim)), x, 0)
      for x in arrays
    )
  return arrays if len(arrays) > 1 else arrays[0]


def keep(where: Array | None, x: Array, fill=0) -> Array:
  """``x`` with ``fill`` in place of the examples that only pad the batch.

  Args:
    where: [B] bool, true for the examples that count; None for all of them.
    x: [B, ...].
    fill: what padding becomes. Applied to the inputs, it keeps whatever the
      padding holds (NaN too) out of values and gradients.
  """
  if where is None:
    return x
  return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 1)), x, fill)


def count(where: Array | None, x: Array) -> Array:
  """How many examples of [B, ...] count, at least 1, as a scalar like x."""
  if where is None:
    return jnp.asarray(max(len(x), 1), x.dtype)
  return jnp.maximum(jnp.sum(where, dtype=x.dtype), 1)
