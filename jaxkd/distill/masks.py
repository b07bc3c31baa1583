"""Masks: which examples, tokens or pixels count, and means over these.

A mask is a field of the batch or an output of a net, [B] for examples or
[B, ...] for their tokens or pixels, of bools or of numbers from 0; or a region,
see `jaxkd.distill.regions`. Values that do not count are set to 0 before a loss
sees them, so that even a NaN there reaches neither the value nor the gradient.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.distill import regions
from jaxkd.distill.arguments import Arguments
from jaxkd.distill.location import Location, found_in
from jaxkd.errors import UserError, unknown
from jaxkd.logits import factored
from jaxkd.types import Context

FIELD = 'valid'  # of a batch that says itself what counts
_OF_OBJECTS = frozenset(('boxes', 'points'))  # fields with as many rows
SEGMENTS = 'segments'  # of inputs: which text of a row a token is of
ALL = 'all'  # the mask of a term for which everything does
_NUMBERS = ('id', 'epoch', 'labels', 'rank')

Name = str | tuple[str, str]


def find(
  mask: Name, context: Context, teachers: tuple[str, ...], entry: str
) -> Array | None:
  """The mask of a term, [B, ...]; None where everything counts.

  Args:
    mask: a field of the batch, an output of the student or a region; or a pair,
      of a field or output of the student and one of the teachers: then a
      position counts where it does for the student and for every teacher.
    context: of the term.
    teachers: the groups that it looks at.
    entry: the config entry, for error messages.

  Raises:
    UserError: a mask that is not there, or two of unequal shapes.
  """
  if mask in ('', ALL):
    return None
  here = f'{entry}.mask'
  if regions.named(mask):
    return regions.find(mask, context.batch, context.student, here)
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
    known |= set(regions.__all__)
    raise unknown('field, output or region', name, known - {*_NUMBERS}, here)
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
  """Refuses a term that would ignore the mask of the batch without a word.

  Args:
    mask: of the term; empty if its entry names none.
    context: of the term; its batch may have a mask, the field `FIELD`.
    at: the outputs that the term compares.
    teachers: the groups that it looks at.
    fields: the fields of the batch that its loss takes.
    entry: the config entry, for error messages.
    whole: the name of a term that takes no mask, e.g. 'the term critic'.

  Raises:
    UserError: no mask is named, and the one of the batch is for examples, or
      for positions that the outputs have; or it is of objects, and the outputs
      are maps.
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
  of_objects = FIELD in named and not _OF_OBJECTS.isdisjoint(batch)
  if FIELD not in batch or FIELD in fields or (mask and not of_objects):
    return
  student, groups = found_in(context, at, teachers, entry=entry)
  shapes = [x.shape for x in factored.leaves(student)]
  shapes += [x.shape[1:] for x in factored.leaves(groups)]
  placed = [shape for shape in shapes if len(shape) > 2]
  if mask:
    # As many rows of a map as objects would pass for these.
    if batch[FIELD].ndim == 2 and any(len(shape) > 3 for shape in placed):
      raise UserError(
        f'{entry}.mask: {FIELD!r} says which objects there are, and the layers '
        "are maps; name a region such as 'near_anchors(0.5)', or write 'all'"
      )
    return
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
  """Refuses a mask whose positions are not those of the outputs compared.

  Args:
    counts: the mask; None where everything counts.
    layers: the outputs that the loss is given, [B, ...] each.
    mask: its name.
    entry: the config entry, for error messages.

  Raises:
    UserError: an output has other positions than the mask.
  """
  if counts is None or counts.ndim == 1:
    return
  for x in factored.leaves(layers):
    if x.ndim > 2 and x.shape[: counts.ndim] != counts.shape:
      raise UserError(
        f'{entry}.mask: {mask!r} is {list(counts.shape)}, and a layer has '
        f'other positions, {list(x.shape)}; name a mask of these, or write '
        "'all' to take everything"
      )


def check_fields(
  name: str, fields: Sequence[str], mask: Name, batch: Mapping, entry: str
) -> None:
  """Refuses a function that would read labels which are padding.

  Args:
    name: of a function that weighs examples or teachers, or decides on them.
    fields: of the batch that it looks at.
    mask: of the term.
    batch: may have `FIELD`.
    entry: the config entry, for error messages.

  Raises:
    UserError: some of the labels are padding, and the mask is 'all'.
  """
  if fields and FIELD in batch and mask == ALL:
    raise UserError(
      f'{entry}: {name} looks at {" and ".join(fields)}, some of which are '
      f'padding, as {FIELD!r} of the batch says; '
      "set the term's mask to 'valid', not 'all'"
    )


def keep(counts: Array | None, tree: Any, lead: int = 0) -> Any:
  """Arrays with 0 wherever the mask says that nothing counts.

  Args:
    counts: the mask, [B, ...]; None where everything counts.
    tree: of arrays [..., B, ...]; those without the mask's axes are returned
      as they are.
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

  return factored.tree_map(one, tree)


def shown(
  mask: Name,
  counts: Array | None,
  context: Context,
  at: tuple[Location, Location],
  teachers: tuple[str, ...],
) -> Context:
  """The context with 0 in the outputs at a location where there is padding."""
  if counts is None or regions.named(mask):
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


def as_arguments(
  arguments: Arguments, counts: Array | None, batch: Mapping[str, Any]
) -> dict[str, Array]:
  """The masks that a loss takes as its own arguments `where` and `valid`."""
  found = {}
  if arguments.coupled:
    where = [batch['where']] if 'where' in batch else []
    if counts is not None and counts.ndim == 1:
      where.append(counts > 0)
    if where:
      found['where'] = functools.reduce(jnp.logical_and, where)
  if arguments.masked and counts is not None and counts.ndim > 1:
    found['valid'] = counts > 0
  return found


def totals(counts: Array | None) -> dict[str, Array]:
  """The divisors of means over a batch, each []; empty without a mask."""
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
  """The loss of each example, [B], whose mean is the mean over what counts.

  For a loss l of each position and a mask m it is Σ_positions m l · B / Σ m.
  For a loss of each example, m says whether anything of the example counts. An
  example of which nothing counts gets 0.

  Args:
    value: the loss of each example, [B], or of each position, [B, ...].
    counts: the mask; None where everything counts.
    known: the divisors, if they are not those of this mask: where a batch is
      taken in parts, the mean of `totals` over the parts.
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
  """The examples that count, bool [B]; None where all do.

  Examples that fill up the batch do not count, nor do those without a label.
  """
  masks = [batch['where']] if 'where' in batch else []
  if 'valid' in batch and batch['valid'].ndim == 1:
    masks.append(batch['valid'])
  return functools.reduce(jnp.logical_and, masks) if masks else None


def _amounts(counts: Array, dtype: jnp.dtype) -> Array:
  """The mask as numbers, those below 0 as 0."""
  amounts = counts.astype(dtype)
  return amounts if counts.dtype == bool else jnp.maximum(amounts, 0)


def _rest(x: Array) -> tuple[int, ...]:
  """All axes but that of the batch."""
  return tuple(range(1, x.ndim))
