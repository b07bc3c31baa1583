"""A contrastive term with a memory of all examples' embeddings (CRD)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill.arguments import find_loss, name_of
from jaxkd.distill.location import Sides
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.types import Term


def memory(
  *,
  sides: Sides,
  num_data: int,
  loss: str | Callable[..., Array] = 'contrastive',
  negatives: int = 4096,
  momentum: float = 0.5,
  temperature: float | Array = 0.07,
  entry: str = 'term',
  **options: Any,
) -> Term:
  """A contrastive loss in both directions, with a memory of negatives (CRD).

  The term's state is a memory of each side's embedding of every example, a
  running mean of length 1, which examples were seen, and the normaliser Z of
  each direction, which the first batch sets. Of an example that a batch holds
  twice the last is kept. Positives are this step's embeddings, as in the paper;
  the authors' code takes them from the memory too.

  Args:
    sides: give one embedding each, [B, D] and [1, B, D].
    num_data: how many examples the net sees; ``batch['rank']`` numbers them.
    loss: ``contrastive`` of `jaxkd.losses`, or one with its arguments.
    negatives: how many are drawn for each example, from all examples alike
      that were seen before; the first batch's from what the memory starts as.
    momentum: what is kept of an embedding when its example comes again.
    temperature: of the loss.
    entry: the config entry, for error messages.
    options: further options of the loss, by keyword.

  References:
    Tian et al., `Contrastive Representation Distillation
    <https://arxiv.org/abs/1910.10699>`_, 2020
  """
  function, name = find_loss(loss, at=f'{entry}.kw.loss'), name_of(loss)
  options = {**options, 'temperature': temperature}
  lookup.check_options(function, options, name=name, at=f'{entry}.kw')
  known = not isinstance(momentum, jax.Array)
  if negatives < 1 or (known and not 0 <= momentum < 1):
    raise UserError(
      f'{entry}.kw: negatives should be 1 or more and momentum from 0 to below '
      f'1, not {negatives} and {momentum}'
    )

  def embeddings(params, state, context):
    student, groups, state = sides.apply(params, state, context)
    values = [*student, *(value for group in groups for value in group)]
    shapes = [list(value.shape) for value in values]
    if (
      len(values) != 2
      or values[0].ndim != 2
      or values[1].shape != (1, *values[0].shape)
    ):
      raise UserError(
        f'{entry}: the loss {name} contrasts one embedding of the student with '
        f"one of one teacher, not {shapes}; set {entry}.adapter='embed', "
        f"{entry}.teacher_adapter='embed' and "
        f'{entry}.teacher_adapter_kw=dict(width=...)'
      )
    return values[0], values[1][0], state

  def init(key, context):
    params, state = sides.init(key, context)
    one, _, _ = jax.eval_shape(embeddings, params, state, context)
    width = one.shape[1]
    bound = jnp.sqrt(3 / width)
    memory = {
      side: jax.random.uniform(
        fold(key, 'memory', side),
        (num_data, width),
        jnp.float32,
        -bound,
        bound,
      )
      for side in ('student', 'teacher')
    }
    zero = jnp.zeros((), jnp.float32)
    normalizer = {'student': zero, 'teacher': zero}
    seen = jnp.zeros((num_data,), bool)
    kept = {'memory': memory, 'normalizer': normalizer, 'seen': seen}
    return params, {**state, **kept}

  def apply(params, state, context):
    if 'rank' not in context.batch:
      raise UserError(
        f'{entry}: the loss {name} remembers single examples, and the batch '
        "has no field 'rank' that numbers them, as where data.augment mixes "
        'two; give it that field, or leave data.augment empty'
      )
    student, teacher, kept = embeddings(params, state, context)
    now = {'student': student, 'teacher': teacher}
    memory, ids = state['memory'], context.batch['rank']
    drawn = _drawn(context.key, (len(ids), negatives), state['seen'])
    total, normalizer = 0.0, {}
    for side, other in (('student', 'teacher'), ('teacher', 'student')):
      three = (now[side], now[other], memory[other][drawn])
      first = losses.contrastive_normalizer(
        *three, num_data=num_data, temperature=temperature
      )
      known = state['normalizer'][side]
      normalizer[side] = jax.lax.stop_gradient(
        jnp.where(known == 0, first, known)
      )
      total += function(
        *three, normalizer=normalizer[side], num_data=num_data, **options
      )
    rows = _last(ids, num_data)
    memory = {
      side: memory[side]
      .at[rows]
      .set(_mean(memory[side][ids], now[side], momentum), mode='drop')
      for side in memory
    }
    seen = state['seen'].at[ids].set(True)
    kept = {**kept, 'memory': memory, 'normalizer': normalizer, 'seen': seen}
    return total, kept

  return Term(init, apply, teachers=sides.teachers, layers=sides.layers)


def _drawn(key, shape, seen):
  """Examples drawn from those that were seen; from all before there are any.

  In the first epoch the memory holds but noise of the others.
  """
  upto = jnp.cumsum(jnp.where(seen.any(), seen, True), dtype=jnp.int32)
  number = jax.random.randint(key, shape, 0, upto[-1])
  return jnp.searchsorted(upto, number, side='right')


def _last(ids, size):
  """Numbers of examples, out of range for all but the last of equal ones.

  A batch may hold an example twice, at the end of an epoch or where examples
  have weights, and which of two values a row gets is else up to the device.
  """
  place = jnp.arange(len(ids))
  last = jnp.zeros((size,), place.dtype).at[ids].max(place)
  return jnp.where(last[ids] == place, ids, size)


def _mean(old, new, momentum):
  """The running mean of embeddings, at length 1 again."""
  mixed = momentum * old + (1 - momentum) * new.astype(old.dtype)
  length = jnp.linalg.norm(mixed, axis=-1, keepdims=True)
  return mixed / jnp.maximum(length, 1e-12)
