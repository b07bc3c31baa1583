"""What counts: masks of the batch or of a net, and means over what they leave.

A mask is [B, ...], of bools or of zeros and ones: of examples, [B], or of their
tokens or pixels. What does not count is 0 before a loss sees it, so that
whatever it holds, NaN too, is in no value and in no gradient.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.distill.location import Location, found_in
from jaxkd.errors import UserError, unknown
from jaxkd.types import Context

FIELD = 'valid'  # of a batch that says itself what counts
ALL = 'all'  # the mask of a term for which everything does
_NUMBERS = ('id', 'epoch', 'labels', 'rank')

Name = str | tuple[str, str]


def find(
  mask: Name, context: Context, teachers: tuple[str, ...], entry: str
) -> Array | None:
  """What counts for a term, [B, ...]; None where everything does.

  Args:
    mask: a field of the batch or an output of the student; or a pair of them,
      the second a field or an output of the teachers: then a position counts
      where it does for the student and for every teacher.
    context: of the term.
    teachers: the groups that it looks at.
    entry: the config entry, for error messages.

  Raises:
    UserError: a mask that is not there, or two of unequal shapes.
  """
  if mask in ('', ALL):
    return None
  here = f'{entry}.mask'
  if isinstance(mask, str):
    return _array(mask, context.batch, context.student, here)
  if len(mask) != 2:
    raise UserError(
      f'{here}: {mask!r} should be one name, or two: of the student and of the '
      'teacher'
    )
  counts = _array(mask[0], context.batch, context.student, here)
  for group in teachers:
    outputs = context.teachers.get(group, {})
    if not outputs and group in context.teachers:
      continue  # another stands in for it
    other = _array(mask[1], context.batch, outputs, here)
    if mask[1] not in context.batch:
      other = (other > 0).all(0)
    if other.shape != counts.shape:
      raise UserError(
        f'{here}: {mask[0]!r} of the student is {list(counts.shape)} and '
        f'{mask[1]!r} of {group} {list(other.shape)}; choose layers with as '
        'many positions'
      )
    counts = jnp.where(other > 0, counts, jnp.zeros((), counts.dtype))
  return counts


def _array(name: str, batch: Mapping, outputs: Mapping, here: str) -> Array:
  if name in _NUMBERS:
    raise UserError(
      f'{here}: {name!r} numbers the examples and is no mask; name a field of '
      'zeros and ones'
    )
  found = batch[name] if name in batch else outputs.get(name)
  if not hasattr(found, 'shape'):
    known = {k for k, x in batch.items() if hasattr(x, 'shape')} | set(outputs)
    raise unknown(
      'field of the batch or output', name, known - {*_NUMBERS}, here
    )
  return jax.lax.stop_gradient(jnp.asarray(found))


def check_named(
  mask: Name,
  context: Context,
  at: tuple[Location, Location],
  teachers: tuple[str, ...],
  fields: Sequence[str] = (),
  *,
  entry: str,
  whole: str = '',
) -> None:
  """Refuses to take everything in silence where the batch says what counts.

  Args:
    mask: of a term; empty if its entry says nothing.
    context: of the term, whose batch may have `FIELD`.
    at: what it compares.
    teachers: with these groups.
    fields: of the batch that the loss looks at besides.
    entry: the config entry, for error messages.
    whole: what has no place for a mask, e.g. 'the term critic'.

  Raises:
    UserError: the mask is empty, and what is compared has positions, or what
      counts are examples.
  """
  batch = context.batch
  named = {mask} if isinstance(mask, str) else {*mask}
  counted = 'where' in fields or 'where' not in batch
  if not counted and named.isdisjoint(('where', ALL)):
    raise UserError(
      f"{entry}.mask: it is {mask!r}, and 'where' of the batch says that not "
      "all examples count; write 'where' to leave out the rest, or 'all' to "
      'take everything'
    )
  if mask or FIELD not in batch or FIELD in fields:
    return
  student, groups = found_in(context, at, teachers, entry=entry)
  shapes = [x.shape for x in jax.tree.leaves(student)]
  shapes += [x.shape[1:] for x in jax.tree.leaves(groups)]
  placed = [shape for shape in shapes if len(shape) > 2]
  read = [batch[field] for field in fields if field in batch]
  labelled = any(x.ndim > 1 for x in jax.tree.leaves(read))
  counts = batch[FIELD].shape
  if not placed and not labelled and len(counts) > 1:
    return
  say = (
    f'{entry}.mask: it is empty, and {FIELD!r} of the batch, {list(counts)}, '
    'says that not everything counts'
  )
  if whole:
    raise UserError(
      f"{say}, of which {whole} can leave out nothing; write 'all' to "
      'take everything'
    )
  if placed and all(shape[: len(counts)] != counts for shape in placed):
    raise UserError(
      f'{say}, but the layers have other positions, {list(placed[0])}; name a '
      "mask of these, or write 'all' to take everything"
    )
  raise UserError(
    f"{say}; write 'valid' to leave out the rest, or 'all' to take everything"
  )


def check_fits(
  counts: Array | None, layers: Any, mask: Name, entry: str
) -> None:
  """Refuses a mask of other positions than those that are compared.

  Args:
    counts: the mask; None where everything counts.
    layers: what a loss is given, [B, ...] each.
    mask: its name.
    entry: the config entry, for error messages.

  Raises:
    UserError: what has positions has others.
  """
  if counts is None or counts.ndim == 1:
    return
  for x in jax.tree.leaves(layers):
    if x.ndim > 2 and x.shape[: counts.ndim] != counts.shape:
      raise UserError(
        f'{entry}.mask: {mask!r} is {list(counts.shape)}, and a layer has '
        f'other positions, {list(x.shape)}; name a mask of these, or write '
        "'all' to take everything"
      )


def check_fields(
  name: str, fields: Sequence[str], mask: Name, batch: Mapping, entry: str
) -> None:
  """Refuses what reads labels where a term takes all, labelled or not.

  Args:
    name: of a function that weighs examples or teachers, or decides on them.
    fields: of the batch that it looks at.
    mask: of the term.
    batch: may have `FIELD`.
    entry: the config entry, for error messages.

  Raises:
    UserError: not all of these fields mean something.
  """
  if fields and FIELD in batch and mask == ALL:
    raise UserError(
      f'{entry}: {name} looks at {" and ".join(fields)}, which mean something '
      f"where {FIELD!r} of the batch says so; set the term's mask to 'valid', "
      "not 'all'"
    )


def keep(counts: Array | None, tree: Any, lead: int = 0) -> Any:
  """Arrays with 0 in place of what does not count.

  Args:
    counts: the mask, [B, ...]; None where everything does.
    tree: of arrays [..., B, ...]; those without the mask's axes stay.
    lead: how many axes come before that of the batch.
  """
  if counts is None:
    return tree
  end = lead + counts.ndim

  def one(x):
    if x.shape[lead:end] != counts.shape:
      return x
    rest = (*range(lead), *range(end, x.ndim))
    return jnp.where(
      jnp.expand_dims(counts > 0, rest), x, jnp.zeros((), x.dtype)
    )

  return jax.tree.map(one, tree)


def shown(
  counts: Array | None,
  context: Context,
  at: tuple[Location, Location],
  teachers: tuple[str, ...],
) -> Context:
  """The context with 0 for what does not count of the layers at a location."""
  if counts is None:
    return context

  def kept(outputs, part, lead):
    names = jax.tree.leaves(part)
    return {
      name: keep(counts, x, lead) if name in names else x
      for name, x in outputs.items()
    }

  groups = {
    name: kept(outputs, at[1], 1) if name in teachers else outputs
    for name, outputs in context.teachers.items()
  }
  student = kept(context.student, at[0], 0)
  return context._replace(student=student, teachers=groups)


def totals(counts: Array | None) -> dict[str, Array]:
  """What means over a batch divide by, each []; nothing without a mask."""
  if counts is None:
    return {}
  some = (counts > 0).any(_rest(counts))
  found = {'positions': counts, 'examples': some}
  return {name: _amounts(x, jnp.float32).sum() for name, x in found.items()}


def per_example(
  value: Array,
  counts: Array | None,
  known: Mapping[str, Array] | None = None,
) -> Array:
  """The loss of each example, [B], whose mean is that over what counts.

  It is Σ_positions m l · B / Σ m for losses of each position l and a mask m,
  and of examples that have something that counts for losses of an example. It
  is 0 where nothing of an example counts, and everywhere where nothing does.

  Args:
    value: the loss of each example, [B], or of each position, [B, ...].
    counts: the mask; None where everything counts.
    known: `totals`, if not those of this mask: where a batch is taken in parts,
      their mean over the parts.
  """
  size = value.shape[0]
  if counts is None:
    return value.mean(_rest(value))
  if counts.ndim == 1:
    value = value.mean(_rest(value))
  by_example = value.ndim < counts.ndim
  if by_example:
    counts = (counts > 0).any(_rest(counts))
  counts = _amounts(counts, value.dtype)
  total = counts.sum()
  if known:
    total = known['examples' if by_example else 'positions']
    total = total.astype(value.dtype)
  total = jnp.where(total > 0, total, 1)
  kept = jnp.where(counts > 0, value, 0) * counts
  return kept.sum(_rest(value)) * size / total


def examples(batch: dict) -> Array | None:
  """Which examples count, bool [B]; None where all do.

  Those that only pad the batch do not, nor those whose one label is none.
  """
  masks = [batch['where']] if 'where' in batch else []
  if 'valid' in batch and batch['valid'].ndim == 1:
    masks.append(batch['valid'])
  return functools.reduce(jnp.logical_and, masks) if masks else None


def _amounts(counts: Array, dtype: jnp.dtype) -> Array:
  """The mask as numbers; what is below 0 counts as 0 does."""
  amounts = counts.astype(dtype)
  return amounts if counts.dtype == bool else jnp.maximum(amounts, 0)


def _rest(x: Array) -> tuple[int, ...]:
  """All axes but that of the batch."""
  return tuple(range(1, x.ndim))
