"""Sums over the classes of softmaxes, in chunks where logits are `Factored`.

Most divergences are Σ_j g(log q_j, log p_j), with a function g of one class.
Of factored logits no more than a chunk of classes is ever held. Each of these
passes over the vocabulary forms the logits anew:

1. the normaliser of each side;
2. the sum and, where there is to be a gradient, for each side the sum S of the
   slopes g' by its log-probabilities;
3. the gradient by a logit, c (g'_k - q_k S), which is multiplied at once by the
   head and by the hidden states.

c is the gradient by the loss of a position. It holds masks, weights and means,
which come behind the loss and differ between positions, and the gradient of the
head is a sum over positions: so the third pass is that of the backward pass. To
make the gradient in the forward pass would form the logits as often, since S
has to be known first.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxkd.logits.factored import (
  Factored,
  chunk_size,
  each_chunk,
  full_precision,
  is_factored,
)

Logits = Array | Factored


def sum_over_classes(
  g: Callable[..., Array],
  *logits: Logits,
  temperature: float | Array = 1.0,
  options: Sequence[float | Array] = (),
) -> Array:
  """Σ_j g(log q_j, log p_j, ...) over the classes j of softmaxes, [...].

  The gradient is that of autodiff, by each of the arguments.

  Args:
    g: elementwise, of as many log-probabilities as there are `logits`, and of
      the options. A function of a module: programs are kept by it.
    *logits: [..., V] each, of equal shapes.
    temperature: divides them.
    options: further numbers that ``g`` takes.
  """
  if any(map(is_factored, logits)):
    rule, traced = _rule(logits, temperature, g)
    return _sum(rule, logits, traced, tuple(options))
  dtype = full_precision(*logits)
  logs = (
    jax.nn.log_softmax(soften(x.astype(dtype), temperature)) for x in logits
  )
  return jnp.sum(g(*logs, *options), axis=-1)


def log_probabilities(
  logits: Factored, ids: Array, *, temperature: float | Array = 1.0
) -> Array:
  """Log-probabilities of some classes of each position, [..., k].

  Args:
    logits: [..., V].
    ids: the classes, integers [..., k], from 0 to V - 1.
    temperature: divides the logits.
  """
  rule, traced = _rule([logits], temperature)
  return _pick(rule, (logits,), traced, ids.astype(jnp.int32))


def soften(logits: Array, temperature: Array | float) -> Array:
  """Logits over a temperature; those of -inf have no part in its gradient."""
  if not isinstance(temperature, jax.core.Tracer):
    return logits / temperature
  absent = jnp.isneginf(logits)
  return jnp.where(absent, logits, jnp.where(absent, 0, logits) / temperature)


def _upcast(x):
  """In float32 at least."""
  return x.astype(full_precision(x))


class _Rule(NamedTuple):
  """What of a sum is known when it is compiled.

  Attributes:
    g: the function of a class.
    chunk: how many classes are formed at once.
    temperature: None where it is an array.
  """

  g: Callable[..., Array] | None
  chunk: int
  temperature: float | None


def chunk_of(logits: Sequence[Logits]) -> int:
  """How many classes are formed at once: what a side asks for, or the rule."""
  asked = [x.chunk for x in logits if is_factored(x) and x.chunk]
  shape = logits[0].shape
  return min(asked[0] if asked else chunk_size(shape), shape[-1])


def _rule(logits, temperature, g=None):
  """The rule, and the temperature where it is an array."""
  chunk = chunk_of(logits)
  if isinstance(temperature, jax.Array):
    return _Rule(g, chunk, None), temperature
  return _Rule(g, chunk, float(temperature)), None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(rule, logits, temperature, options):
  sides = _Sides(rule, logits, temperature)
  known = sides.normalizers()

  def step(total, parts, start):
    del start
    logs = map(_log, sides.formed(parts), known)
    return total + jnp.sum(rule.g(*logs, *options), axis=-1)

  return sides.over_chunks(step, jnp.zeros_like(known[0][0]))


def _sum_forward(rule, *arguments):
  moving, arguments = _moving(arguments[:2]), _values(arguments)
  logits, temperature, options = arguments
  sides = _Sides(rule, logits, temperature)
  known = sides.normalizers()

  def step(carry, parts, start):
    del start
    total, slopes = carry
    logs = list(map(_log, sides.formed(parts), known))
    value, pull = jax.vjp(lambda *logs: rule.g(*logs, *options), *logs)
    own = [jnp.sum(x, axis=-1) for x in pull(jnp.ones_like(value))]
    return total + jnp.sum(value, axis=-1), jax.tree.map(jnp.add, slopes, own)

  zeros = [jnp.zeros_like(top) for top, _ in known]
  total, slopes = sides.over_chunks(step, (zeros[0], zeros))
  return total, (arguments, known, slopes, moving)


def _sum_backward(rule, kept, c):
  (logits, temperature, options), known, slopes, moving = kept

  def by_logits(z, start):
    del start
    logs = list(map(_log, z, known))
    value, pull = jax.vjp(rule.g, *logs, *options)
    own = pull(jnp.broadcast_to(c[..., None], value.shape))
    by_logit = [
      slope - jnp.exp(log) * (c * s)[..., None]
      for slope, log, s in zip(own, logs, slopes, strict=False)
    ]
    return by_logit, own[len(logs) :]

  sides = _Sides(rule, logits, temperature)
  if isinstance(c, SymbolicZero):
    c = jnp.zeros(c.shape, c.dtype)
  return sides.gradient(by_logits, moving, options)


_sum.defvjp(_sum_forward, _sum_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pick(rule, logits, temperature, ids):
  return _picked(_Sides(rule, logits, temperature), ids)[0]


def _picked(sides, ids):
  """Log-probabilities of some classes, and the normaliser; one pass."""

  def step(carry, parts, start):
    found, largest = carry
    (z,) = sides.formed(parts)
    own = _at(z, ids - start)
    inside = (ids >= start) & (ids < start + z.shape[-1])
    return jnp.where(inside, own, found), _gather(largest, z)

  (nothing,) = map(_nothing, sides.logits)
  found = jnp.full(ids.shape, -jnp.inf, nothing[0].dtype)
  found, (top, mass) = sides.over_chunks(step, (found, nothing))
  known = top, jnp.log(mass)
  return _log(found, known), known


def _at(z, ids):
  """What of a chunk has these numbers in it, [..., k]; others are near it."""
  ids = jnp.clip(ids, 0, z.shape[-1] - 1)
  return jnp.take_along_axis(z, ids, axis=-1)


def _pick_forward(rule, *arguments):
  moving, arguments = _moving(arguments[:2]), _values(arguments)
  logits, temperature, ids = arguments
  value, known = _picked(_Sides(rule, logits, temperature), ids)
  return value, (arguments, known, moving)


def _pick_backward(rule, kept, c):
  (logits, temperature, ids), known, moving = kept

  def by_logits(z, start):
    (z,) = z
    inside = (ids >= start) & (ids < start + z.shape[-1])
    _, pull = jax.vjp(lambda z: _at(z, ids - start), z)
    (own,) = pull(jnp.where(inside, c, 0))
    total = jnp.sum(c, axis=-1, keepdims=True)
    return [own - jnp.exp(_log(z, known)) * total], ()

  if isinstance(c, SymbolicZero):
    c = jnp.zeros(c.shape, c.dtype)
  sides = _Sides(rule, logits, temperature)
  *found, _ = sides.gradient(by_logits, moving, ())
  return *found, None


_pick.defvjp(_pick_forward, _pick_backward, symbolic_zeros=True)


class _Sides:
  """Logits, as the arrays that they are made of, cut into chunks of classes.

  Args:
    rule: has the chunk, and the temperature unless that is an array.
    logits: of each side.
    temperature: divides them.
  """

  def __init__(self, rule: _Rule, logits: Sequence[Logits], temperature: Any):
    self.logits, self.rule, self.traced = logits, rule, temperature
    self.arrays, self.tree = jax.tree.flatten(logits)
    self.axes = []  # that of the classes, of each array; None of hidden states
    for side in logits:
      own = len(jax.tree.leaves(side))
      factors = [None, 0, 0][:own]
      self.axes += factors if is_factored(side) else [side.ndim - 1]

  def over_chunks(self, step: Callable, carry: Any) -> Any:
    """``carry = step(carry, parts, start)`` for the parts of each chunk."""

    def cut(carry, start, size):
      parts = [
        x if axis is None
        else jax.lax.dynamic_slice_in_dim(x, start, size, axis)
        for x, axis in zip(self.arrays, self.axes, strict=True)
      ]  # fmt: skip
      return step(carry, parts, start)

    return each_chunk(cut, carry, self.logits[0].shape[-1], self.rule.chunk)

  def formed(self, parts: Sequence[Array], traced: Any = None) -> list[Array]:
    """The softened logits of each side, of a chunk's parts.

    Args:
      parts: of the arrays.
      traced: what the temperature is, if another than this one's.
    """
    traced = self.traced if traced is None else traced
    known = self.rule.temperature
    sides = jax.tree.unflatten(self.tree, parts)
    by = traced if known is None else known
    each = (x.dense() if is_factored(x) else _upcast(x) for x in sides)
    return [soften(x, by) for x in each]

  def normalizers(self) -> list[tuple[Array, Array]]:
    """The first pass: of each side the largest logit, and what `_log` needs."""

    def step(carry, parts, start):
      del start
      return list(map(_gather, carry, self.formed(parts)))

    found = self.over_chunks(step, [*map(_nothing, self.logits)])
    return [(top, jnp.log(mass)) for top, mass in found]

  def gradient(
    self, by_logits: Callable, moving: '_Moving', options: Any
  ) -> tuple[Any, Any, Any]:
    """The third pass.

    Args:
      by_logits: ``(logits of a chunk, its start) -> (gradients by them, those
        by options)``.
      moving: what the gradient is asked of; by all else it is None.
      options: of the sum.

    Returns:
      The gradients by the logits, the temperature and the options.
    """
    own = [i for i, moves in enumerate(moving.arrays) if moves]

    def step(carry, parts, start):
      totals, *sums = carry
      parts = [*map(_upcast, parts)]

      def formed(moved, traced):
        full = dict(enumerate(parts)) | dict(zip(own, moved, strict=True))
        return self.formed([*full.values()], traced)

      chosen = [parts[i] for i in own]
      if moving.temperature:
        z, pull = jax.vjp(formed, chosen, self.traced)
      else:
        z, pull = jax.vjp(lambda moved: formed(moved, None), chosen)
      slopes, of_options = by_logits(z, start)
      found, *of_temperature = pull(slopes)
      totals = [
        total + new if self.axes[i] is None
        else jax.lax.dynamic_update_slice_in_dim(
          total, new, start, self.axes[i]
        )
        for i, total, new in zip(own, totals, found, strict=True)
      ]  # fmt: skip
      new = of_temperature, list(of_options)
      return totals, *jax.tree.map(jnp.add, sums, [*new])

    arrays = [jnp.zeros_like(_upcast(self.arrays[i])) for i in own]
    zero = [jnp.zeros_like(self.traced)] if moving.temperature else []
    start = arrays, zero, [*map(jnp.zeros_like, options)]
    arrays, of_temperature, of_options = self.over_chunks(step, start)
    found = dict.fromkeys(range(len(self.arrays)))
    for i, x in zip(own, arrays, strict=True):
      found[i] = x.astype(self.arrays[i].dtype)
    by_side = jax.tree.unflatten(self.tree, [*found.values()])
    return by_side, (of_temperature or [None])[0], tuple(of_options)


def _nothing(side):
  """What `_gather` begins with."""
  shape, dtype = side.shape[:-1], full_precision(side)
  return jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype)


def _gather(carry, z):
  """The largest logit and Σ exp(z - largest), with those of a chunk."""
  top, mass = carry
  new = jnp.maximum(top, jnp.max(z, axis=-1))
  shift = jnp.where(jnp.isneginf(new), 0, new)
  mass = mass * jnp.exp(top - shift)
  return new, mass + jnp.sum(jnp.exp(z - shift[..., None]), axis=-1)


def _log(z, normalizer):
  """Log-probabilities, with the rounding of `jax.nn.log_softmax`."""
  top, log_mass = normalizer
  return (z - top[..., None]) - log_mass[..., None]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Moving:
  """Which arrays a gradient is asked of, and whether of the temperature."""

  arrays: tuple[bool, ...]
  temperature: bool


def _moving(arguments):
  """From `jax.custom_derivatives.CustomVJPPrimal` in place of arrays."""
  logits, temperature = arguments
  flags = tuple(x.perturbed for x in jax.tree.leaves(logits))
  return _Moving(flags, temperature is not None and temperature.perturbed)


def _values(arguments):
  """The arrays in place of `jax.custom_derivatives.CustomVJPPrimal`."""
  return jax.tree.map(lambda x: x.value, arguments)
