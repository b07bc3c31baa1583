"""How much of a gradient is left of the k largest probabilities of a teacher.

The gradient of `kl` in the student's logits, with what goes for the other
classes one way or another (`jaxkd.logits.sparse`), beside that of all classes:
the cosine between the two, over all tokens as one vector. Log-probabilities are
rounded as a cache rounds them.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.logits import SparseLogits, packed, sparse

SIZES = (4, 16, 64)
UNTRAINED, TRAINED = 'untrained', 'trained'  # students
BATCH = 8  # examples that nets see together


def tokens(
  nets: Mapping[str, Callable[[Any], Array]], examples: Any, count: int
) -> Iterable[dict[str, Array]]:
  """Logits of every net, [N, K], until there are so many tokens.

  Args:
    nets: name -> function of inputs, [B, ...], that gives logits [B, ..., K].
    examples: of a split.
    count: of tokens; positions that `valid` leaves out are none.

  Raises:
    UserError: nets of unequal vocabularies.
  """
  left = count
  for start in range(0, len(examples), BATCH):
    ids = np.arange(start, min(start + BATCH, len(examples)))
    batch = examples.fetch(ids)
    given = {name: net(batch['inputs']) for name, net in nets.items()}
    shapes = {name: x.shape for name, x in given.items()}
    if len(set(shapes.values())) > 1:
      said = ', '.join(f'{n} {list(s)}' for n, s in shapes.items())
      raise UserError(f'--student: the logits are {said}; choose equal ones')
    shape = next(iter(shapes.values()))[:-1]
    valid = np.broadcast_to(batch.get('valid', True), shape)
    yield {name: x[valid][:left] for name, x in given.items()}
    left -= int(valid.sum())
    if left <= 0:
      return


def measure(
  batches: Iterable[Mapping[str, Array]],
  teacher: str,
  ks: Sequence[int] = SIZES,
) -> dict[str, Any]:
  """Cosines by student, k and tail.

  Args:
    batches: logits by net, [N, K]; beside the nets there is a student that has
      not trained, whose logits are equal.
    teacher: the name of the teacher.
    ks: how many classes are kept.

  Returns:
    ``tokens``, ``classes``, and a ``rows`` of dicts: ``student``, ``k``,
    ``bytes`` of a token, ``mass`` of the k on average, and the cosine of each
    tail, and of the bucket where it is kept in bfloat16.

  Raises:
    UserError: k above the number of classes.
  """
  sums, count, classes = {}, 0, 0
  for given in batches:
    target = given[teacher]
    count, classes = count + len(target), target.shape[-1]
    if max(ks) > classes:
      raise UserError(
        f'--k: there are {classes} classes and not {max(ks)}; use {classes} or '
        'fewer'
      )
    students = {UNTRAINED: jnp.zeros_like(target)}
    students |= {name: x for name, x in given.items() if name != teacher}
    for name, student in students.items():
      for k in ks:
        found = jax.device_get(_products(student, target, k))
        before = sums.get((name, k))
        both = (before, found) if before else (found,)
        sums[name, k] = jax.tree.map(lambda *x: np.sum(x, axis=0), *both)
  rows = []
  for (name, k), (mass, products) in sums.items():
    cosines = {
      column: float(dot / math.sqrt(one * other))
      for column, (dot, one, other) in products.items()
    }
    rows.append(
      {
        'student': name,
        'k': k,
        'bytes': packed.bytes_of(k, classes),
        'mass': float(mass / count),
        **cosines,
      }
    )
  return {'tokens': count, 'classes': classes, 'rows': rows}


def table(found: Mapping[str, Any]) -> str:
  """The measurement as a table in Markdown."""
  columns = [*sparse.TAILS, 'bfloat16']
  lines = [
    f'{found["tokens"]:,} tokens of {found["classes"]:,} classes, which take '
    f'{4 * found["classes"]:,} bytes each whole; the cosine with the gradient '
    'of all classes',
    '',
    f'| student | k | bytes a token | mass of the k | {" | ".join(columns)} |',
    f'|---|{"---:|" * (3 + len(columns))}',
  ]
  for row in found['rows']:
    cosines = ' | '.join(f'{row[column]:.3f}' for column in columns)
    lines.append(
      f'| {row["student"]} | {row["k"]} | {row["bytes"]} | {row["mass"]:.3f} | '
      f'{cosines} |'
    )
  return '\n'.join(lines)


@functools.partial(jax.jit, static_argnums=2)
def _products(student, teacher, k):
  """The mass of the k, and what the cosine of each column is made of."""
  whole = jax.grad(lambda z: losses.kl(z, teacher).sum())(student)
  kept = SparseLogits.of(teacher, k)
  float16 = packed.dtype_of(k, teacher.shape[-1])
  columns = {tail: (tail, float16) for tail in sparse.TAILS}
  columns['bfloat16'] = sparse.TAILS[0], 'bfloat16'
  found = {}
  for column, (tail, dtype) in columns.items():
    held = SparseLogits(
      kept.log_probs.astype(dtype), kept.ids, kept.rest, kept.classes
    )
    slope = jax.grad(
      lambda z, held=held, tail=tail: losses.top_k_kl(z, held, tail=tail).sum()
    )(student)
    found[column] = tuple(
      jnp.vdot(x, y)
      for x, y in ((slope, whole), (slope, slope), (whole, whole))
    )
  return jnp.exp(kept.log_probs).sum(), found
