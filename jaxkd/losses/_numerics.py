"""Small pieces of arithmetic that the losses share.

Each is here because the obvious line of code has a wrong value in low
precision, or a gradient that is not finite, at inputs that do occur: features
that are all zero, examples that are equal, rows that only pad the batch,
classes that do not exist.

None of them makes a number of what is none: a value that depends on NaN is
NaN, so that a run sees it. ``x > 0`` is false for NaN, and so is every other
comparison; where one selects, use `above`, or multiply by `one_or_nan`.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.logits.chunks import soften as soften


def upcast(*arrays: Array) -> Array | tuple[Array, ...]:
  """The arrays in float32, or in float64 where one of them is."""
  double = any(x.dtype == jnp.float64 for x in arrays)
  dtype = jax.dtypes.canonicalize_dtype(jnp.float64 if double else jnp.float32)
  arrays = tuple(jnp.asarray(x, dtype) for x in arrays)
  return arrays if len(arrays) > 1 else arrays[0]


def above(x: Array, low: Array | float) -> Array:
  """Whether x > low, bool; true for NaN, which is not to be left out."""
  return ~(x <= low)


def one_or_nan(known: Array) -> Array:
  """A factor for values of any dtype: 1, or NaN where they are not known.

  As a factor it makes NaN of the gradient too, which a ``where`` would not.
  """
  return jnp.where(known, 1.0, jnp.nan)


def relu(x: Array) -> Array:
  """max(x, 0), whose gradient at NaN is not 0 as that of `jax.nn.relu` is."""
  return jnp.where(x <= 0, 0, x)


def safe_sqrt(x: Array) -> Array:
  """Square root whose gradient at 0 is 0 and not infinite."""
  positive = above(x, 0)
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def mean_factor(where: Array, axis=-1, dtype=jnp.float32) -> Array:
  """What makes a mean over N elements, of which all but n are 0, one over n.

  N / n, which is exactly 1 where all count, so that nothing changes by a bit
  then; infinite where none does. ``axis`` stays as an axis of 1.
  """
  axes = (axis,) if isinstance(axis, int) else axis
  every = math.prod(where.shape[a] for a in axes)
  return every / jnp.sum(where, axis=axes, keepdims=True, dtype=dtype)


def l2_normalize(x: Array, axis=-1, eps: float = 1e-12) -> Array:
  """Vectors along ``axis`` (one or several) scaled to length 1.

  Vectors of length ``eps`` or less, where x / max(|x|, eps) has a slope of
  1 / eps, become 0 with a gradient of 0.
  """
  square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
  long = above(square, eps**2)
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
  mean = jnp.mean(x, axis=axis, keepdims=True)
  if where is not None:
    mean *= mean_factor(where, axis, x.dtype)
  gap = x - mean
  if where is not None:
    gap = jnp.where(where, gap, 0)
  rounding = 16 * jnp.finfo(x.dtype).eps
  varies = above(
    jnp.sum(jnp.square(gap), axis=axis, keepdims=True),
    rounding**2 * jnp.sum(jnp.square(x), axis=axis, keepdims=True),
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


def classes(*logits: Array) -> Array:
  """Which classes there are, bool [..., K]: not those at -inf on all sides."""
  absent = jnp.isneginf(logits[0])
  for other in logits[1:]:
    absent &= jnp.isneginf(other)
  return ~absent


def is_distribution(logits: Array) -> Array:
  """Whether a softmax of [..., K] is one: no NaN, no inf, not all -inf."""
  return jnp.isfinite(logits.max(axis=-1))


def divergence(log_p: Array, log_q: Array, axis=-1) -> Array:
  """KL(p ‖ q) along ``axis``; what p rules out (-inf) adds 0."""
  return jnp.sum(divergence_terms(log_p, log_q), axis=axis)


def divergence_terms(log_p: Array, log_q: Array) -> Array:
  """What each class adds to KL(p ‖ q)."""
  ruled_out = jnp.isneginf(log_p)
  log_p, log_q = jnp.where(ruled_out, 0, log_p), jnp.where(ruled_out, 0, log_q)
  return jnp.exp(log_p) * (log_p - log_q)


def log_mass(logs: Array, axis: int = -1, where: Array | None = None) -> Array:
  """The logarithm of Σ exp along ``axis``, which stays as an axis of 1.

  Where nothing that counts has any mass it is -inf, with a gradient of 0.
  """
  counts = ~jnp.isneginf(logs)
  if where is not None:
    counts &= where
  some = jnp.any(counts, axis=axis, keepdims=True)
  mass = jax.nn.logsumexp(
    jnp.where(some, logs, 0), axis=axis, keepdims=True, where=counts | ~some
  )
  return jnp.where(some, mass, -jnp.inf)


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
