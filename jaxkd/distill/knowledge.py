"""Knowledge: a loss at a location, as a `Term`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import adapters
from jaxkd.errors import UserError, unknown
from jaxkd.types import Term

Location = str | tuple


class Arguments:
  """Which of a loss's arguments come from where, read off its signature.

  `key`, when first, is drawn; the arguments up to the one whose name begins
  with `teacher` are the student's, that one is the teacher's, and the rest
  are fields of the batch by name. Without a `teacher` only the first is the
  student's.

  Attributes:
    draws: whether the loss takes a key.
    teacher: whether it looks at a teacher.
    fields: names of the batch's fields that it wants.
    coupled: whether its value couples the examples of a batch; such losses
      take a mask `where`.
  """

  def __init__(self, function: Callable):
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    self.draws = names[:1] == ['key']
    names = names[self.draws :]
    at = [i for i, name in enumerate(names) if name.startswith('teacher')]
    # The prediction itself comes first, whatever it is called.
    at = [i for i in at if i > 0]
    self.teacher = bool(at)
    self.fields = names[at[0] + 1 if at else 1 :]
    self.coupled = any(p.name == 'where' for p in parameters)


def find_loss(name: str, *, at: str) -> Callable:
  """A loss of `jaxkd.losses`, or a user's own, by name."""
  return lookup.find(name, [losses], kind='loss', at=at)


def pick(outputs: Mapping[str, Array], location: Location, *, at: str) -> Any:
  """The outputs at a location, which is a name or a tuple of locations."""
  if not isinstance(location, str):
    return tuple(pick(outputs, part, at=at) for part in location)
  if location not in outputs:
    raise unknown('output', location, outputs, at)
  return outputs[location]


def knowledge(
  loss: Callable,
  *,
  location: tuple[Location, Location] = ('logits', 'logits'),
  teachers: tuple[str, ...] = (),
  adapter: str = '',
  mask: str = '',
  options: Mapping[str, Any] | None = None,
  at: str = 'term',
) -> Term:
  """A loss between the student and its teachers at a location.

  With several teachers the term is the mean of the loss over all of them.

  Args:
    loss: the function; see `Arguments` for how its arguments are found.
    location: names of the student's and of the teachers' outputs.
    teachers: groups of teachers; empty for a loss that looks at none.
    adapter: a function of `jaxkd.distill.adapters` applied to the student's
      side, sized from both shapes.
    mask: a field of the batch, of the shape of the loss's value, that says
      what counts; the mean is then over what counts in the whole batch.
    options: keyword options of the loss.
    at: the config entry, for error messages.

  Raises:
    UserError: a name that is not there, or shapes that do not match.
  """
  arguments = Arguments(loss)
  options = dict(options or {})
  name = getattr(loss, '__name__', str(loss))
  lookup.check_options(loss, options, name=name, at=f'{at}.kw')
  if arguments.teacher and not teachers:
    raise UserError(
      f'{at}.teacher: the loss {name} compares with a teacher; name a group'
    )
  if teachers and not arguments.teacher:
    raise UserError(
      f'{at}.teacher: the loss {name} looks at no teacher; leave it empty'
    )
  build = adapter and lookup.find(
    adapter, [adapters], kind='adapter', at=f'{at}.adapter'
  )
  if build and not teachers:
    raise UserError(
      f'{at}.adapter: there is no teacher to adapt to; name a group in '
      f'{at}.teacher, or leave the adapter out'
    )

  def adapt(student, group):
    """The adapter from the shapes of the student's and a teacher's layer."""
    try:
      return build(
        jax.tree.map(lambda x: tuple(x.shape), student),
        jax.tree.map(lambda x: tuple(x.shape[1:]), group),
      )
    except UserError as error:
      raise UserError(f'{at}.adapter: {error}') from error

  def sides(context):
    student = pick(context.student, location[0], at=f'{at}.at')
    groups = []
    for group in teachers:
      if group not in context.teachers:
        raise unknown('teacher', group, context.teachers, f'{at}.teacher')
      groups.append(pick(context.teachers[group], location[1], at=f'{at}.at'))
    return student, groups

  def init(key, context):
    student, groups = sides(context)
    if not build:
      return {}, {}
    return adapt(student, groups[0]).init(key)

  def value(context, student, teacher=None):
    positional = [context.key] if arguments.draws else []
    # An adapter that gives several values gives the leading arguments.
    several = isinstance(student, tuple) and build
    positional += list(student) if several else [student]
    positional += [teacher] if arguments.teacher else []
    for field in arguments.fields:
      if field not in context.batch:
        raise unknown('field of the batch', field, context.batch, at)
      positional.append(context.batch[field])
    extra = dict(options)
    if arguments.coupled and 'where' in context.batch:
      extra['where'] = context.batch['where']
    try:
      result = jnp.asarray(loss(*positional, **extra))
    except UserError:
      raise
    except Exception as error:
      raise UserError(_mismatch(error, student, teacher)) from error
    return _per_example(result, context.batch, mask, at)

  def apply(params, state, context):
    student, groups = sides(context)
    if build:
      made = adapt(student, groups[0])
      student, state = made.apply(params, state, student)
    if not groups:
      return value(context, student), state
    each = [
      jax.vmap(lambda teacher: value(context, student, teacher))(group)
      for group in groups
    ]
    return jnp.concatenate(each).mean(0), state

  def _mismatch(error, student, teacher):
    if teacher is None or _shapes(student) == _shapes(teacher):
      return f'{at}: the loss {name}: {error}'
    sentence = (
      f'{at}: {location[0]!r} of the student is {_shapes(student)} and '
      f'{location[1]!r} of teacher {" and ".join(teachers)} is '
      f'{_shapes(teacher)}, which the loss {name} cannot compare'
    )
    if 'logits' in location:
      return f'{sentence}; give both the same number of classes'
    if not build:
      return f"{sentence}; set {at}.adapter='linear' or choose other layers"
    return f'{sentence}: {error}'

  return Term(init, apply)


def _shapes(tree) -> str:
  leaves = [f'{x.dtype}{list(x.shape)}' for x in jax.tree.leaves(tree)]
  return ', '.join(leaves)


def _per_example(value: Array, batch: Mapping, mask: str, at: str) -> Array:
  """The loss of each example [B], whatever axes the loss has left."""
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise UserError(
      f'{at}: the loss gives {value.dtype}, which has no gradient'
    )
  size = jax.tree.leaves(batch['id'])[0].shape[0]
  if value.ndim == 0:  # one value for the whole batch, as of a set distance
    return jnp.full((size,), 1, value.dtype) * value
  if value.shape[0] != size:
    raise UserError(
      f'{at}: the loss gave the shape {list(value.shape)}, which does not '
      f'begin with the batch of {size}; a loss is unreduced over the batch'
    )
  rest = tuple(range(1, value.ndim))
  if not mask:
    return value.mean(rest)
  if mask not in batch:
    raise unknown('field of the batch', mask, batch, f'{at}.mask')
  count = batch[mask].astype(value.dtype)
  if count.shape != value.shape:
    raise UserError(
      f'{at}.mask: {mask!r} is {list(count.shape)} and the loss '
      f'{list(value.shape)}; they must be equal'
    )
  total = jnp.maximum(count.sum(), 1)
  return (jnp.where(count > 0, value, 0) * count).sum(rest) * size / total
