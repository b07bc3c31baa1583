"""Where knowledge is: layers of both sides, and the adapters between them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxkd import lookup
from jaxkd.distill import adapters
from jaxkd.errors import UserError, unknown, within
from jaxkd.keys import fold
from jaxkd.types import Context

Location = str | tuple


class Sides(NamedTuple):
  """What a loss compares, out of a context.

  Attributes:
    init: ``(key, context) -> (params, state)``, from a context of shapes.
    apply: ``(params, state, context) -> (student, groups, state)``: the
      loss's arguments of the student's side, a tuple, and those of each
      group's side, tuples of arrays with a leading axis T.
    teachers: the groups.
    layers: the names of the outputs, of the student and of the groups.
  """

  init: Callable[..., tuple[dict, dict]]
  apply: Callable[..., tuple[tuple, list, dict]]
  teachers: tuple[str, ...] = ()
  layers: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())


def pick(outputs: Mapping[str, Array], location: Location, *, at: str) -> Any:
  """The outputs at a location, which is a name or a tuple of locations."""
  if not isinstance(location, str):
    return tuple(pick(outputs, part, at=at) for part in location)
  if location not in outputs:
    raise unknown('output', location, outputs, at)
  return outputs[location]


def found_in(
  context: Context, location: Location, teachers: tuple[str, ...], *, at: str
) -> tuple[Any, list]:
  """What is at a location: of the student, the first, and of each group.

  Args:
    context: of a term.
    location: names of the student's and of the teachers' outputs.
    teachers: groups of teachers.
    at: the config entry, for error messages.

  Raises:
    UserError: a name that is not there.
  """
  student = pick(context.student, location[0], at=f'{at}.at')
  groups = []
  for group in teachers:
    if group not in context.teachers:
      raise unknown('teacher', group, context.teachers, f'{at}.teacher')
    groups.append(pick(context.teachers[group], location[1], at=f'{at}.at'))
  return student, groups


def sides(
  location: tuple[Location, Location],
  teachers: tuple[str, ...] = (),
  *,
  adapter: str = '',
  adapter_kw: Mapping[str, Any] | None = None,
  teacher_adapter: str = '',
  teacher_adapter_kw: Mapping[str, Any] | None = None,
  masked: bool = False,
  at: str = 'term',
) -> Sides:
  """Both sides of a comparison.

  An adapter is sized from the layers' shapes: the teacher's side's from the
  teacher's own, the student's from that and from what the teacher's side
  gives. One that has an argument `image` gets the shape of what the student
  sees too. All nets of all groups share the teacher's adapter.

  Args:
    location: names of the student's and of the teachers' outputs.
    teachers: groups of teachers.
    adapter: a function of `jaxkd.distill.adapters` for the student's side.
    adapter_kw: its options.
    teacher_adapter: one for the teachers' side.
    teacher_adapter_kw: its options.
    masked: whether something does not count, which an adapter that takes
      statistics of the batch would take them of.
    at: the config entry, for error messages.

  Raises:
    UserError: a name that is not there, or shapes that cannot be adapted.
  """
  entries = {
    'adapter': (adapter, dict(adapter_kw or {})),
    'teacher_adapter': (teacher_adapter, dict(teacher_adapter_kw or {})),
  }
  found = {}
  for entry, (name, options) in entries.items():
    if not name and options:
      raise UserError(f'{at}.{entry}_kw: name the adapter in {at}.{entry}')
    if not name:
      continue
    if not teachers:
      raise UserError(
        f'{at}.{entry}: there is no teacher to adapt to; name a group in '
        f'{at}.teacher, or leave the adapter out'
      )
    found[entry] = lookup.find(
      name, [adapters], kind='adapter', at=f'{at}.{entry}'
    )
    lookup.check_options(
      found[entry], options, name=name, at=f'{at}.{entry}_kw'
    )

  def make(entry, student, teacher, context):
    name, options = entries[entry]
    if 'image' in inspect.signature(found[entry]).parameters:
      image = getattr(context.inputs, 'shape', ())
      options = {**options, 'image': image}
    with within(f'{at}.{entry}: '):
      made = found[entry](
        jax.tree.map(lambda x: tuple(x.shape), student),
        jax.tree.map(lambda x: tuple(x.shape), teacher),
        **options,
      )
    if masked and made.statistics:
      raise UserError(
        f'{at}.mask: {entry}={name!r} takes statistics of the whole batch, '
        'what does not count included; choose another adapter, or write '
        "mask='all' to take everything"
      )
    return made

  def taught(made, params, group):
    """A group's side, [T, ...], behind the teacher's adapter."""
    if made is None:
      return (group,)
    return _tuple(jax.vmap(lambda x: made.apply(params, {}, x)[0])(group))

  def of_teacher(groups, context):
    if 'teacher_adapter' not in found:
      return None
    one = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], x), groups[0])
    return make('teacher_adapter', one, one, context)

  def target(made, params, groups):
    """Shapes of what one net of the first group is compared by."""
    return jax.eval_shape(
      lambda p, g: jax.tree.map(lambda x: x[0], taught(made, p, g)[0]),
      params,
      groups[0],
    )

  def init(key, context: Context):
    student, groups = found_in(context, location, teachers, at=at)
    params, state = {}, {}
    teacher = of_teacher(groups, context)
    if teacher:
      params['teacher_adapter'], _ = teacher.init(fold(key, 'teacher_adapter'))
    if 'adapter' in found:
      shape = target(teacher, params.get('teacher_adapter', {}), groups)
      made = make('adapter', student, shape, context)
      params['adapter'], state['adapter'] = made.init(key)
    return params, state

  def apply(params, state, context: Context):
    student, groups = found_in(context, location, teachers, at=at)
    teacher = of_teacher(groups, context)
    own = params.get('teacher_adapter', {})
    compared = [taught(teacher, own, group) for group in groups]
    if 'adapter' not in found:
      return (student,), compared, state
    shape = target(teacher, own, groups)
    made = make('adapter', student, shape, context)
    adapted, kept = made.apply(params['adapter'], state['adapter'], student)
    return _tuple(adapted), compared, {**state, 'adapter': kept}

  used = location if teachers else (location[0], ())
  layers = tuple(frozenset(jax.tree.leaves(part)) for part in used)
  return Sides(init, apply, teachers, layers)


def _tuple(value: Any) -> tuple:
  """Several values are several arguments of the loss."""
  return value if isinstance(value, tuple) else (value,)
