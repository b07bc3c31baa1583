"""The largest probabilities of a teacher, and what is left for the others.

A distribution over a large vocabulary is kept as its k largest
log-probabilities, their classes and the logarithm of the rest. A divergence
from it is taken over k + 1 classes: the student's other classes are put
together as the teacher's are, so no side is filled up to the whole vocabulary.
What goes for a class of the rest is the `tail`:

- 'bucket': all others are one class, whose probability both sides have. By the
  log-sum inequality such a divergence is never above that of all classes.
- 'renormalize': they are left out, and both sides are divided by their sums
  over the k.
- 'uniform': each has an equal part of the teacher's rest. For `kl` alone.
- 'drop': they are left out of the sum and nothing is divided. For `kl` alone;
  it can be below 0, and is not least where both sides are equal.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.logits.factored import chunk_size, is_factored

TAILS = ('bucket', 'renormalize', 'uniform', 'drop')
OF_ANY = ('bucket', 'renormalize')  # not of `kl` alone


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseLogits:
  """The k largest log-probabilities of each distribution, and the others' mass.

  A pytree, all of whose leaves have the leading axes of the logits.

  Attributes:
    log_probs: [..., k], largest first. Entries of -inf are no class of the k,
      whatever their id is: a nucleus fills them up, and their mass is in the
      rest.
    ids: of their classes, integers [..., k].
    rest: the logarithm of the probability of all other classes, [...]; -inf
      if there are none.
    classes: how many classes there are.
    temperature: of the softmax. The rest is of this one alone.
  """

  log_probs: Array
  ids: Array
  rest: Array
  classes: int = dataclasses.field(metadata={'static': True})
  temperature: float = dataclasses.field(default=1.0, metadata={'static': True})

  @classmethod
  def of(
    cls,
    logits: Array,
    k: int,
    *,
    temperature: float | Array = 1.0,
    top_p: float = 1.0,
  ) -> Self:
    """Keeps the largest of some logits.

    Args:
      logits: [..., K]; -inf for classes that there are not.
      k: how many, from 1 to K.
      temperature: T > 0.
      top_p: keeps only the fewest of the k whose probabilities sum to this, a
        nucleus; 1 for all k.

    Raises:
      ValueError: k or top_p is not in its range.
    """
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
      raise ValueError(f'k must be from 1 to the {classes} classes, not {k}')
    if not 0 < top_p <= 1:
      raise ValueError(f'top_p must be above 0 and at most 1, not {top_p}')
    logits = _upcast(logits)
    _, ids = jax.lax.top_k(logits, k)
    chosen, others = split(logits, ids, temperature=temperature)
    found = _log_softmax(_joined(chosen, others), temperature)
    log_probs, rest = found[..., :k], found[..., k]
    if top_p < 1:
      probs = jnp.exp(log_probs)
      # Not `<`, which would leave out what is not a number.
      beyond = jnp.cumsum(probs, axis=-1) - probs >= top_p
      mass = jnp.sum(jnp.where(beyond, probs, 0), axis=-1)
      rest = jnp.where(mass > 0, jnp.logaddexp(rest, jnp.log(mass)), rest)
      log_probs = jnp.where(beyond, -jnp.inf, log_probs)
    return cls(log_probs, ids, rest, classes, temperature)

  @property
  def k(self) -> int:
    """How many classes are kept at most."""
    return self.log_probs.shape[-1]

  @property
  def shape(self) -> tuple[int, ...]:
    """Of all logits."""
    return (*self.log_probs.shape[:-1], self.classes)

  @property
  def ndim(self) -> int:
    """Axes of the logits."""
    return self.log_probs.ndim

  @property
  def dtype(self) -> jnp.dtype:
    """What is computed in; they may be stored in fewer bits."""
    return jnp.promote_types(self.log_probs.dtype, jnp.float32)

  def __len__(self) -> int:
    return self.shape[0]

  @property
  def kept(self) -> Array:
    """Which of the k are classes, bool [..., k]."""
    return ~jnp.isneginf(self.log_probs)

  def fits(self, temperature: float | Array, tail: str) -> bool:
    """Whether it tells what a tail is at a temperature.

    The mass of several classes at one temperature says nothing of that at
    another. Where all classes are kept, or only these matter, or each has the
    same part of the rest, it does not take part.
    """
    whole = self.k == self.classes or tail in ('renormalize', 'uniform')
    own = self.temperature
    if whole or own is temperature:
      return True
    traced = any(isinstance(x, jax.core.Tracer) for x in (own, temperature))
    return not traced and float(own) == float(temperature)

  def dense(self) -> Array:
    """Log-probabilities of all classes; the others share the rest equally.

    For a look at them, and for tests: it is what all else here avoids.
    """
    log_probs, rest = _upcast(self.log_probs), _upcast(self.rest)
    others = self.classes - jnp.sum(self.kept, axis=-1, dtype=rest.dtype)
    share = rest - jnp.log(jnp.maximum(others, 1))
    whole = jnp.broadcast_to(share[..., None], self.shape)
    return _put(whole, self.ids, log_probs, self.kept)


def split(
  logits: Array,
  ids: Array,
  kept: Array | None = None,
  *,
  temperature: float | Array = 1.0,
) -> tuple[Array, Array]:
  """Logits of some classes, and one logit that stands for all others.

  Its share of a softmax at the temperature is the sum of theirs, without the
  cancellation of 1 - Σ. All that a bucket asks of a student's logits is here,
  so those that are factors are formed a chunk of the classes at a time.

  Args:
    logits: [..., K], or the factors of logits.
    ids: the classes, no two equal, integers [..., k].
    kept: which of them count, bool [..., k]; all by default.
    temperature: T > 0.

  Returns:
    [..., k], -inf where not kept, and [...].
  """
  if is_factored(logits):
    chosen, mass = _split_factors(logits, ids, kept, temperature)
    return (chosen if kept is None else jnp.where(kept, chosen, -jnp.inf)), mass
  chosen = jnp.take_along_axis(logits, ids.astype(jnp.int32), axis=-1)
  if kept is not None:
    chosen = jnp.where(kept, chosen, -jnp.inf)
  elif ids.shape[-1] == logits.shape[-1]:
    return chosen, jnp.full(logits.shape[:-1], -jnp.inf, logits.dtype)
  return chosen, _mass(_put(logits, ids, -jnp.inf, kept), temperature)


def both(
  student: Array,
  teacher: SparseLogits,
  *,
  temperature: float | Array = 1.0,
  tail: str = 'bucket',
) -> tuple[Array, Array]:
  """Logits of both sides over the classes that a tail compares.

  Their softmax at the temperature is the distribution over these, so a loss
  that looks at nothing but softmaxes takes them in place of whole logits.

  Args:
    student: logits, [..., K].
    teacher: of the same shape.
    temperature: T > 0.
    tail: 'bucket' or 'renormalize'.

  Returns:
    [..., k + 1], or [..., k] where there are no others, for each side.
  """
  _check(student, teacher, temperature, tail, OF_ANY)
  student = student if is_factored(student) else _upcast(student)
  log_probs = _scaled(_upcast(teacher.log_probs), teacher.temperature)
  kept = teacher.kept
  chosen, others = split(student, teacher.ids, kept, temperature=temperature)
  if tail == 'renormalize':
    return chosen, log_probs
  rest = _scaled(_upcast(teacher.rest), teacher.temperature)
  return _joined(chosen, others), _joined(log_probs, rest)


def log_probs(
  student: Array,
  teacher: SparseLogits,
  *,
  temperature: float | Array = 1.0,
  tail: str = 'bucket',
) -> tuple[Array, Array]:
  """Log-probabilities log q, log p whose Σ p (log p - log q) is that of `kl`.

  Args:
    student: logits, [..., K].
    teacher: of the same shape.
    temperature: T > 0.
    tail: one of `TAILS`. Under 'drop' neither side sums to 1. Under 'uniform'
      the student's last one is n times the geometric mean of the n others,
      since Σ (r / n) (log (r / n) - log q_j) = r (log r - mean_j log n q_j).

  Returns:
    [..., k + 1], or [..., k] where the others are left out, for each side.
  """
  _check(student, teacher, temperature, tail, TAILS)
  if tail in OF_ANY:
    pair = both(student, teacher, temperature=temperature, tail=tail)
    return tuple(_log_softmax(x, temperature) for x in pair)
  if tail == 'drop':
    pair = both(student, teacher, temperature=temperature)
    log_q, log_p = (_log_softmax(x, temperature) for x in pair)
    return log_q[..., : teacher.k], log_p[..., : teacher.k]
  ids, kept = teacher.ids, teacher.kept
  if is_factored(student):
    raise ValueError(f'tail {tail!r} needs whole logits; choose {OF_ANY[0]!r}')
  log_q = _log_softmax(_upcast(student), temperature)
  chosen = jnp.take_along_axis(log_q, ids.astype(jnp.int32), axis=-1)
  # What the student rules out is no class that could have a part of the rest.
  others = _put(log_q, ids, -jnp.inf, kept)
  there = ~jnp.isneginf(others)
  count = jnp.maximum(jnp.sum(there, axis=-1, dtype=log_q.dtype), 1)
  mean = jnp.sum(jnp.where(there, others, 0), axis=-1) / count
  some = jnp.any(there, axis=-1)
  log_q = _joined(
    jnp.where(kept, chosen, -jnp.inf),
    jnp.where(some, jnp.log(count) + mean, -jnp.inf),
  )
  scale = teacher.temperature / temperature
  share = _scaled(_upcast(teacher.rest) - jnp.log(count), scale)
  chosen = _scaled(_upcast(teacher.log_probs), scale)
  log_p = jax.nn.log_softmax(_joined(chosen, share + jnp.log(count)))
  return log_q, log_p


def _check(student, teacher, temperature, tail, tails):
  """Refuses what does not go together."""
  if tail not in tails:
    raise ValueError(f'tail must be one of {", ".join(tails)}, not {tail!r}')
  if student.shape != teacher.shape:
    raise ValueError(
      f'student must be {list(teacher.shape)} as the sparse logits of the '
      f'teacher, not {list(student.shape)}'
    )
  if not teacher.fits(temperature, tail):
    raise ValueError(
      'temperature must be that of the sparse logits, '
      f'{teacher.temperature}, not {temperature}: the mass of the other '
      'classes cannot be had at another'
    )


def _split_factors(
  logits: Any, ids: Array, kept: Array | None, temperature: float | Array
) -> tuple[Array, Array]:
  """`split` of factors; the backward pass forms each chunk again."""
  hidden, head, bias = logits.hidden, logits.head, logits.bias
  classes = len(head)
  size = logits.chunk or chunk_size(logits.shape)
  size = min(size, classes)
  if bias is None:
    bias = jnp.zeros(classes, head.dtype)
  filled = -classes % size  # what the last chunk lacks are no classes
  head = jnp.pad(head, ((0, filled), (0, 0))).reshape(-1, size, head.shape[-1])
  bias = jnp.pad(_upcast(bias), (0, filled), constant_values=-jnp.inf)
  starts = jnp.arange(0, classes, size)
  ids = ids.astype(jnp.int32)

  @jax.checkpoint
  def part(hidden, head, bias, start):
    # The same sums as those of a dense head, whatever the types are.
    z = jnp.einsum('...d,kd->...k', _upcast(hidden), _upcast(head))
    z += jnp.expand_dims(bias, range(z.ndim - 1))
    here = (ids >= start) & (ids < start + size)
    own = jnp.clip(ids - start, 0, size - 1)
    at = jnp.where(here, jnp.take_along_axis(z, own, axis=-1), 0)
    counted = here if kept is None else here & kept
    return at, _mass(_put(z, own, -jnp.inf, counted), temperature)

  def step(total, chunk):
    at, mass = part(hidden, *chunk)
    return total + at, mass

  zeros = jnp.zeros(ids.shape, jnp.promote_types(hidden.dtype, jnp.float32))
  chunks = head, bias.reshape(-1, size), starts
  chosen, masses = jax.lax.scan(step, zeros, chunks)
  return chosen, _mass(jnp.moveaxis(masses, 0, -1), temperature)


def _mass(logits: Array, temperature: float | Array) -> Array:
  """The logit that stands for all; -inf, with a gradient of 0, for none."""
  some = jnp.any(~jnp.isneginf(logits), axis=-1)
  logits = jnp.where(some[..., None], logits, 0)
  mass = jax.nn.logsumexp(_scaled(logits, 1 / temperature), axis=-1)
  return jnp.where(some, mass * temperature, -jnp.inf)


def _upcast(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _scaled(logits: Array, factor: float | Array) -> Array:
  """Logits times a number above 0, of whose gradient -inf is no part."""
  absent = jnp.isneginf(logits)
  return jnp.where(absent, logits, jnp.where(absent, 0, logits) * factor)


def _log_softmax(logits: Array, temperature: float | Array) -> Array:
  return jax.nn.log_softmax(_scaled(logits, 1 / temperature))


def _joined(chosen: Array, others: Array) -> Array:
  return jnp.concatenate([chosen, others[..., None]], axis=-1)


def _put(x: Array, ids: Array, value, kept: Array | None = None) -> Array:
  """An array with a value at some ids, those that are kept."""
  ids = ids.astype(jnp.int32)
  if kept is not None:  # what is beyond the axis is dropped
    ids = jnp.where(kept, ids, x.shape[-1])
  return jnp.put_along_axis(x, ids, value, axis=-1, inplace=False, mode='drop')
