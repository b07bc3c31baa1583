"""Checks that a term can be accumulated: that parts of a batch add up.

They do if the loss of an example does not depend on the other examples, and the
divisor of the mean is known for the whole batch. A term may break that
anywhere: in its loss, in the weights of examples, in an adapter with BatchNorm,
in a memory, by noise that is drawn for each part, or in a user's code. So the
term is run on a few random examples, whole and in parts. Those of tokens are
short: logits of full rows over a large vocabulary would take tens of gigabytes.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd.keys import fold
from jaxkd.logits import factored
from jaxkd.types import Context, Term

SIZE, PARTS = 8, 2  # of the batch that is tried
POSITIONS = 16  # of a row of tokens that is tried
FEATURES = 16  # of hidden states that are factors of logits
STEPS = (1, 10, 100, 1000, 10_000, 100_000)  # a schedule is not 0 at all
_TOLERANCE = 1e-3  # of the largest element: far above rounding


def adds_up(term: Term, context: Context) -> bool:
  """Whether the parts add up to the value and gradients of the whole batch.

  Args:
    term: not one made inside of a traced function.
    context: its shapes, with a batch of any size.

  Returns:
    False also where the test says nothing: all is 0, or nothing is finite.
  """
  shapes, short = resized(context, SIZE), resized(_shortened(context), SIZE)
  compare = jax.jit(functools.partial(_both, term))
  try:
    jax.eval_shape(compare, short)
    shapes = short
  except Exception:
    pass
  told = False
  for i, step in enumerate(STEPS):
    # What is zero or cut off at normal values may not be at positive ones.
    drawn = _drawn(fold(jax.random.key(0), i), shapes, positive=i % 2 > 0)
    drawn = drawn._replace(step=jnp.int32(step))
    whole, parts = compare(drawn)
    pairs = list(
      zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True)
    )
    if not all(np.isfinite(one).all() for one, _ in pairs):
      continue
    largest = max(np.abs(one).max(initial=0) for one, _ in pairs)
    told |= largest > 0
    for one, other in pairs:
      scale = np.abs(one).max(initial=0) + 1e-2 * largest
      if not np.abs(one - other).max(initial=0) <= _TOLERANCE * scale:
        return False
  return bool(told)


def part_of(context: Context, index: int, parts: int) -> Context:
  """One of the equal parts of a context, with the key that it draws by."""

  def cut(tree, axis):
    def one(x):
      size = x.shape[axis] // parts
      return jax.lax.slice_in_dim(
        x, index * size, (index + 1) * size, axis=axis
      )

    return factored.tree_map(one, tree)

  return context._replace(
    batch=cut(context.batch, 0),
    student=cut(context.student, 0),
    teachers=cut(context.teachers, 1),
    inputs=cut(context.inputs, 0),
    key=fold(context.key, 'part', index),
  )


def _both(term: Term, context: Context) -> tuple[Any, Any]:
  """Value and gradients of the whole batch, and those of its parts together."""
  params, state = term.init(fold(context.key, 'init'), context)
  whole, _ = _measured(term, params, state, context)
  each = [part_of(context, i, PARTS) for i in range(PARTS)]
  counts = [term.count(part) for part in each]
  totals = jax.tree.map(lambda *x: sum(x) / PARTS, *counts)
  found = []
  for part in each:
    measured, state = _measured(
      term, params, state, part._replace(totals=totals)
    )
    found.append(measured)
  value, of_params, of_outputs = zip(*found, strict=True)
  mean = lambda *x: sum(x) / PARTS  # noqa: E731
  join = lambda *x: jnp.concatenate(x) / PARTS  # noqa: E731
  return whole, (
    mean(*value),
    jax.tree.map(mean, *of_params),
    factored.tree_map(join, *of_outputs, head=mean),
  )


def _measured(term, params, state, context):
  """The mean loss and its gradients, and the term's new state."""
  moving = {
    name: x
    for name, x in context.student.items()
    if jnp.issubdtype(x.dtype, jnp.floating)
  }

  def loss(params, moving):
    student = {**context.student, **moving}
    value, after = term.loss(params, state, context._replace(student=student))
    return value.astype(jnp.float32).mean(), after

  (value, after), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(
    params, moving
  )
  return (value, *gradients), after


def _shortened(context: Context) -> Context:
  """The shapes of a context with fewer positions in rows of tokens.

  Of factored logits hidden states have fewer features too. What is no batch of
  rows, with an output and a label for each position, stays as it is.
  """
  labels = context.batch.get('labels')
  outputs = factored.leaves(context.student)
  if getattr(labels, 'ndim', 0) != 2 or not any(
    x.ndim > 2 and x.shape[:2] == labels.shape for x in outputs
  ):
    return context
  length = labels.shape[1]

  def positions(x, axis):
    if x.ndim <= axis or x.shape[axis] != length:
      return jax.ShapeDtypeStruct(x.shape, x.dtype)
    size = (*x.shape[:axis], min(length, POSITIONS), *x.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(size, x.dtype)

  def features(x):
    size = (*x.shape[:-1], min(x.shape[-1], FEATURES))
    return jax.ShapeDtypeStruct(size, x.dtype)

  def cut(tree, axis):
    def one(x):
      if not factored.is_factored(x):
        return positions(x, axis)
      hidden = features(positions(x.hidden, axis))
      return dataclasses.replace(x, hidden=hidden, head=features(x.head))

    return jax.tree.map(one, tree, is_leaf=factored.is_factored)

  return context._replace(
    batch=cut(context.batch, 1),
    student=cut(context.student, 1),
    teachers=cut(context.teachers, 2),
    inputs=cut(context.inputs, 1),
  )


def resized(context: Context, size: int) -> Context:
  """The shapes of a context with a batch of another size."""

  def with_size(tree, axis):
    return factored.tree_map(
      lambda x: jax.ShapeDtypeStruct(
        (*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype
      ),
      tree,
    )

  return context._replace(
    batch=with_size(context.batch, 0),
    student=with_size(context.student, 0),
    teachers=with_size(context.teachers, 1),
    inputs=with_size(context.inputs, 0),
  )


def _drawn(key: Array, shapes: Context, positive: bool) -> Context:
  """A context of these shapes; numbers of examples are those of the first."""
  leaves, tree = jax.tree.flatten(shapes._replace(key=None, step=None))
  drawn = [
    _array(fold(key, i), leaf, positive) for i, leaf in enumerate(leaves)
  ]
  context = jax.tree.unflatten(tree, drawn)
  numbers = {
    name: jnp.arange(SIZE, dtype=context.batch[name].dtype)
    for name in ('id', 'rank')
    if name in context.batch
  }
  return context._replace(
    batch={**context.batch, **numbers},
    key=fold(key, 'context'),
  )


def _array(key, leaf, positive):
  if leaf.dtype == bool:
    return jax.random.bernoulli(key, 0.7, leaf.shape)
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return jax.random.randint(key, leaf.shape, 0, 2).astype(leaf.dtype)
  draw = jax.random.uniform if positive else jax.random.normal
  return draw(key, leaf.shape, jnp.float32).astype(leaf.dtype)
