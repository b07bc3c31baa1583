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
from typing import Self

import jax
import jax.numpy as jnp
from jax import Array

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
  cancellation of 1 - Σ. All that is asked of a student's logits is here, so
  logits that are never formed need no more than this.

  Args:
    logits: [..., K].
    ids: the classes, no two equal, integers [..., k].
    kept: which of them count, bool [..., k]; all by default.
    temperature: T > 0.

  Returns:
    [..., k], -inf where not kept, and [...].
  """
  chosen = jnp.take_along_axis(logits, ids.astype(jnp.int32), axis=-1)
  if kept is not None:
    chosen = jnp.where(kept, chosen, -jnp.inf)
  elif ids.shape[-1] == logits.shape[-1]:
    return chosen, jnp.full(logits.shape[:-1], -jnp.inf, logits.dtype)
  hidden = _put(logits, ids, -jnp.inf, kept)
  # A softmax of nothing has no gradient, rather than one of NaN.
  some = jnp.any(~jnp.isneginf(hidden), axis=-1)
  hidden = jnp.where(some[..., None], hidden, 0)
  mass = temperature * jax.nn.logsumexp(
    _scaled(hidden, 1 / temperature), axis=-1
  )
  return chosen, jnp.where(some, mass, -jnp.inf)


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
  student = _upcast(student)
  log_probs = _scaled(_upcast(teacher.log_probs), teacher.temperature)
  if tail == 'renormalize':
    chosen = jnp.take_along_axis(
      student, teacher.ids.astype(jnp.int32), axis=-1
    )
    return jnp.where(teacher.kept, chosen, -jnp.inf), log_probs
  kept = teacher.kept
  chosen, others = split(student, teacher.ids, kept, temperature=temperature)
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
  student, ids, kept = _upcast(student), teacher.ids, teacher.kept
  if tail == 'drop':
    pair = both(student, teacher, temperature=temperature)
    log_q, log_p = (_log_softmax(x, temperature) for x in pair)
    return log_q[..., : teacher.k], log_p[..., : teacher.k]
  log_q = _log_softmax(student, temperature)
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
