"""What every loss asks of its arguments, before anything can broadcast.

All of it runs at trace time and raises ``ValueError`` with the argument's
name, what it is and what was expected. Shapes and dtypes are always known;
the values of numeric options are looked at only when they are concrete, since
a population maps over temperatures and weights.
"""

import re
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

_KINDS = {'float': jnp.floating, 'int': jnp.integer, 'bool': np.bool_}
_SPEC = re.compile(r'(float|int|bool)\[(.*)\]( or None)?')


def arrays(**named) -> dict:
  """Checks the dtype and shape of arrays, and that their axes agree.

  Args:
    **named: ``name=(array, spec)``. A spec is a kind and its axes, such as
      ``'float[..., K]'``, ``'int[B]'`` or ``'bool[B] or None'``: a number is
      a size, a name stands for the same size wherever it occurs, ``...`` for
      the same axes (any number of them, none included).

  Returns:
    The size of each named axis, and the tuple of sizes under ``'...'``.

  Example:
    >>> logits, labels = jnp.zeros((4, 3)), jnp.zeros(5, int)
    >>> arrays(logits=(logits, 'float[B, K]'), labels=(labels, 'int[B]'))
    Traceback (most recent call last):
      ...
    ValueError: labels must be int[B] with B=4 as in logits, not int32[5]
  """
  sizes, origin = {}, {}
  for name, (array, spec) in named.items():
    kind, axes, optional = _SPEC.fullmatch(spec).groups()
    if array is None and optional:
      continue
    axes = [a.strip() for a in axes.split(',') if a.strip()]
    if not (hasattr(array, 'shape') and hasattr(array, 'dtype')):
      raise ValueError(
        f'{name} must be an array {spec}, not {type(array).__name__}'
      )
    found = _match(axes, array.shape)
    if (
      found is None
      or not jnp.issubdtype(array.dtype, _KINDS[kind])
      or any(sizes.get(a, size) != size for a, size in found.items())
    ):
      known = [a for a in dict.fromkeys(axes) if a in sizes]
      because = ', '.join(f'{a}={sizes[a]} as in {origin[a]}' for a in known)
      shape = ', '.join(map(str, array.shape))
      raise ValueError(
        f'{name} must be {spec}{because and f" with {because}"}, '
        f'not {array.dtype}[{shape}]'
      )
    for a, size in found.items():
      sizes.setdefault(a, size)
      origin.setdefault(a, name)
  return sizes


def _match(axes, shape):
  """Sizes by the name of their axis; None where the shape does not fit."""
  if '...' in axes:
    at = axes.index('...')
    extra = len(shape) - (len(axes) - 1)
    if extra < 0:
      return None
    found = {'...': tuple(shape[at : at + extra])}
    axes = axes[:at] + axes[at + 1 :]
    shape = shape[:at] + shape[at + extra :]
  else:
    found = {}
  if len(axes) != len(shape):
    return None
  for axis, size in zip(axes, shape, strict=True):
    if (int(axis) if axis.isdigit() else found.get(axis, size)) != size:
      return None
    if not axis.isdigit():
      found[axis] = size
  return found


def last_axis(low: int, **named) -> None:
  """Checks that the last axis of arrays has at least ``low`` elements."""
  for name, array in named.items():
    if array.shape[-1] < low:
      raise ValueError(
        f'{name} must have a last axis of at least {low}, '
        f'not shape {tuple(array.shape)}'
      )


def positive(**options) -> None:
  """Checks that scalar options, where their value is known, are above 0."""
  _scalars(options, 'a number above 0', lambda x: x > 0)


def non_negative(**options) -> None:
  """Checks that scalar options, where their value is known, are 0 or more."""
  _scalars(options, 'a number of at least 0', lambda x: x >= 0)


def within(low: float, high: float, **options) -> None:
  """Checks that scalar options, where known, are in [low, high]."""
  _scalars(
    options, f'a number from {low} to {high}', lambda x: low <= x <= high
  )


def numbers(**options) -> None:
  """Checks that options are scalars, and finite where their value is known."""
  _scalars(options, 'a finite number', np.isfinite)


def _scalars(options, expected, holds):
  for name, value in options.items():
    if isinstance(value, (str, bool)) or value is None or np.shape(value):
      shape = np.shape(value)
      found = f'an array of shape {shape}' if shape else repr(value)
      raise ValueError(f'{name} must be {expected}, not {found}')
    if not isinstance(value, jax.core.Tracer) and not holds(float(value)):
      raise ValueError(f'{name} must be {expected}, not {value}')


def weights(count: int, *, above: bool = False, **option) -> jax.Array | None:
  """One option as float32 weights [count]; None where it is None.

  Args:
    count: how many there must be.
    above: whether 0 is refused.
    **option: ``name=value``.

  Raises:
    ValueError: not so many numbers, one below 0, NaN or infinite, or all 0.
  """
  ((name, given),) = option.items()
  if given is None:
    return None
  least = 'above 0' if above else 'from 0 on'
  expected = f'{count} numbers {least}'
  known = not isinstance(given, jax.core.Tracer)
  if known:
    try:
      values = np.asarray(given, float)
    except (TypeError, ValueError) as error:
      raise ValueError(f'{name} must be {expected}, not {given!r}') from error
    fits = values > 0 if above else values >= 0
    if not (np.isfinite(values) & fits).all():
      raise ValueError(f'{name} must be {expected}, not {given!r}')
    if values.size and not values.any():
      raise ValueError(f'{name} must be {expected}, not all of them 0')
  if np.shape(given) != (count,):
    found = f'an array of shape {np.shape(given)}'
    raise ValueError(f'{name} must be {expected}, not {found}')
  return jnp.asarray(given, jnp.float32)


def integer(low: int, high: int | None = None, **options) -> None:
  """Checks that static options are Python integers in [low, high]."""
  expected = f'an int of at least {low}' + (f', at most {high}' if high else '')
  for name, value in options.items():
    if (
      isinstance(value, bool)
      or not isinstance(value, (int, np.integer))
      or value < low
      or (high is not None and value > high)
    ):
      raise ValueError(f'{name} must be {expected}, not {value!r}')


def one_of(known: Iterable, **options) -> None:
  """Checks that static options are among the known values."""
  known = tuple(known)
  for name, value in options.items():
    if value not in known:
      expected = ', '.join(map(repr, known))
      raise ValueError(f'{name} must be one of {expected}, not {value!r}')
