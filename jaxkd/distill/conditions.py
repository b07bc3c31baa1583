"""Functions that decide on each example, or weigh it, by one teacher's output.

A condition such as ``losses.teacher_is_correct`` returns a bool for each
example; a weight such as ``losses.teacher_confidence`` returns a number.
"""

from collections.abc import Callable

from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import masks
from jaxkd.distill.arguments import (
  Arguments,
  field_of,
  first_argument,
  name_of,
)
from jaxkd.distill.location import groups_of, nets_of
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.types import Context

Teacher = str | tuple[str, ...]
_BATCH = 'batch.'  # before the name of a field


def of_teacher(
  function: str | Callable,
  taken: tuple[masks.Name, ...],
  teacher: Teacher,
  at: str,
  kind: str,
  here: str,
) -> Callable[[Context], Array]:
  """Makes ``context -> [B]`` of a function of a teacher's output and of labels.

  Args:
    function: of the output of one teacher, [B, ...], and of fields of the
      batch, or its name in `jaxkd.losses`; or 'batch.FIELD', for the field
      itself, which needs no teacher.
    taken: the masks of the terms that it chooses between, or weighs.
    teacher: the group of that teacher; several groups are one if fused.
    at: the name of that output.
    kind: 'condition' or 'weight', for error messages.
    here: the config entry, for error messages.
  """
  name, entry = name_of(function), here.rpartition('.')[0]
  if name.startswith(_BATCH):
    return _of_batch(name, kind, here)
  function = _found(function, kind=kind, entry=here)
  teachers, arguments = groups_of(teacher), Arguments(function)
  if not teachers:
    raise UserError(
      f'{here}: {name} looks at the output of one teacher and none is named; '
      f'name its group in {entry}.teacher'
    )

  def judged(context: Context):
    outputs = nets_of(context.teachers, teachers, at, entry)
    if len(outputs) != 1:
      raise UserError(
        f'{here}: {name} looks at one teacher and {"+".join(teachers)} has '
        f'{len(outputs)}; fuse them to one with {entry}.fuse (distill.fused in '
        'code)'
      )
    for mask in taken:
      masks.check_fields(name, arguments.fields, mask, context.batch, here)
    mask = taken[0] if len(set(taken)) == 1 else ''
    counts = masks.find(mask, context, (), entry)
    outputs, given = masks.keep(counts, outputs, lead=1), {}
    if arguments.coupled and counts is not None and counts.ndim == 1:
      given['where'] = counts > 0
    with within(f'{here}: '):
      fields = [
        masks.keep(counts, field_of(context, field, name))
        for field in arguments.fields
      ]
    with blamed(here):
      found = function(outputs[0], *fields, **given)
      if found.shape != outputs.shape[1:2]:
        raise UserError(
          f'{here}: {name} gives the shape {list(found.shape)}, not one value '
          'for each example'
        )
      if kind == 'condition' and found.dtype != bool:
        raise UserError(
          f'{here}: {name} gives {found.dtype}, not true or false'
        )
      return found

  return judged


def _of_batch(name: str, kind: str, here: str):
  """``context -> [B]``, a field of the batch that has a value by example."""

  def field(context: Context):
    with within(f'{here}: '):
      found = field_of(context, name.removeprefix(_BATCH), here)
    if found.ndim != 1 or (found.dtype == bool) != (kind == 'condition'):
      want = 'true or false' if kind == 'condition' else 'a number'
      raise UserError(
        f'{here}: {name} is {found.dtype}{list(found.shape)}, not {want} for '
        'each example'
      )
    return found

  return field


def _found(function: str | Callable, *, kind: str, entry: str) -> Callable:
  """The function; those of `jaxkd.losses` take the teacher's output first."""

  def fits(ours):
    return first_argument(getattr(losses, ours)) == 'teacher'

  is_ours = isinstance(function, str) and ':' not in function
  if is_ours and not (function in losses.__all__ and fits(function)):
    raise unknown(kind, function, filter(fits, losses.__all__), entry)
  return lookup.find(function, [losses], kind=kind, at=entry)
