"""Locations: the outputs that a term compares, and the adapters on them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup
from jaxkd.distill import adapters, sparse
from jaxkd.distill.arguments import name_of
from jaxkd.errors import UserError, unknown, within
from jaxkd.keys import fold
from jaxkd.logits import factored
from jaxkd.types import Context

Location = str | tuple
Adapting = str | Callable[..., adapters.Adapter]


class Sides(NamedTuple):
  """The two sides that a loss compares, taken from a context.

  Attributes:
    init: ``(key, context) -> (params, state)``, from a context of shapes.
    apply: ``(params, state, context) -> (student, groups, state)``: the
      loss's arguments of the student's side, a tuple, and those of each
      group's side, tuples of arrays with a leading axis T.
    at: names of the student's and of the teachers' outputs.
    teachers: the groups of teachers.
    adapted: whether the student's and the teachers' side have an adapter.
  """

  init: Callable[..., tuple[dict, dict]]
  apply: Callable[..., tuple[tuple, list, dict]]
  at: tuple[Location, Location] = ('logits', 'logits')
  teachers: tuple[str, ...] = ()
  adapted: tuple[bool, bool] = (False, False)

  @property
  def layers(self) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the outputs, of the student and of the groups."""
    return names_at(self.at[0]), names_at(self.at[1] if self.teachers else ())


def names_at(at: Location) -> frozenset[str]:
  """The names of all outputs at a location."""
  return frozenset(jax.tree.leaves(at))


def groups_of(teacher: str | tuple[str, ...]) -> tuple[str, ...]:
  """The groups that are named: one, several, or none."""
  names = (teacher,) if isinstance(teacher, str) else teacher
  if not isinstance(names, Sequence) or not all(
    isinstance(name, str) for name in names
  ):
    raise UserError(
      f'teacher: {teacher!r:.40} should be the name of a group, or a tuple of '
      'names'
    )
  return tuple(name for name in names if name)


def both_of(at: Location) -> tuple[Location, Location]:
  """Outputs of the student and of the teachers; one name is for both."""
  both = (at, at) if isinstance(at, str) else at
  if not isinstance(both, Sequence) or len(both) != 2:
    raise UserError(
      f'at: {at!r} should be the output of the student and that of the '
      "teacher, e.g. ('logits', 'logits')"
    )
  return tuple(both)


def pick(
  outputs: Mapping[str, Array], location: Location, *, entry: str
) -> Any:
  """The outputs at a location, which is a name or a tuple of locations."""
  if not isinstance(location, str):
    return tuple(pick(outputs, part, entry=entry) for part in location)
  if location not in outputs:
    raise unknown('output', location, outputs, entry)
  return outputs[location]


def shown(
  context: Context, teachers: tuple[str, ...], *, entry: str
) -> dict[str, dict[str, Array]]:
  """The outputs of some groups, but for those that a fusion has replaced.

  Raises:
    UserError: a group that is not there.
  """
  for group in teachers:
    if group not in context.teachers:
      raise unknown('teacher', group, context.teachers, f'{entry}.teacher')
  found = {group: context.teachers[group] for group in teachers}
  return {group: outputs for group, outputs in found.items() if outputs}


def found_in(
  context: Context,
  at: tuple[Location, Location],
  teachers: tuple[str, ...],
  *,
  entry: str,
) -> tuple[Any, list]:
  """The outputs at a location: those of the student, then of each group.

  Args:
    context: of a term.
    at: names of the student's and of the teachers' outputs.
    teachers: groups of teachers.
    entry: the config entry, for error messages.

  Raises:
    UserError: a name that is not there.
  """
  student = pick(context.student, at[0], entry=f'{entry}.at')
  groups = shown(context, teachers, entry=entry).values()
  return student, [
    pick(outputs, at[1], entry=f'{entry}.at') for outputs in groups
  ]


def nets_of(
  teachers: Mapping[str, dict], groups: tuple[str, ...], at: str, entry: str
) -> Array:
  """One output of all nets of some groups, [T, B, ...].

  Args:
    teachers: the outputs of each group, [T, B, ...].
    groups: the names of these.
    at: the name of the output.
    entry: the config entry, for error messages.

  Raises:
    UserError: a group has no such output, or the shapes differ.
  """
  each = {}
  for group in groups:
    if group not in teachers:
      raise unknown('teacher', group, teachers, f'{entry}.teacher')
    outputs = teachers[group]
    if outputs and at not in outputs:
      raise unknown('output', at, outputs, f'{entry}.teacher: {group}')
    if outputs:
      by = 'what fuses, weighs or judges teachers'
      sparse.refuse(outputs[at], entry=entry, by=by)
      each[group] = outputs[at]
  what = f'what fuses, weighs or judges {"+".join(groups)}'
  factored.check_dense(each, what, entry=f'{entry}.teacher')
  first = next(iter(each.values())).shape[1:]
  for group, x in each.items():
    if x.shape[1:] != first:
      same = 'the same classes' if at == 'logits' else 'one shape'
      raise UserError(
        f'{entry}.teacher: {next(iter(each))} gives {at} {list(first)} and '
        f'{group} {list(x.shape[1:])}; what is put together has {same}'
      )
  return jnp.concatenate(list(each.values()))


def sides(
  at: Location = ('logits', 'logits'),
  teacher: str | tuple[str, ...] = (),
  *,
  adapter: Adapting = '',
  adapter_kw: Mapping[str, Any] | None = None,
  teacher_adapter: Adapting = '',
  teacher_adapter_kw: Mapping[str, Any] | None = None,
  masked: bool = False,
  entry: str = 'term',
) -> Sides:
  """Both sides of a comparison.

  Adapters are sized from the shapes of the outputs: the teacher's adapter from
  the teacher's output, the student's from the student's output and from what
  it is compared with. An adapter with an argument `image` is given the shape of
  the student's input too. All nets of all groups share the teacher's adapter.

  Args:
    at: names of the student's and of the teachers' outputs.
    teacher: groups of teachers.
    adapter: the student's: a function of `jaxkd.distill.adapters`, by its name,
      or one's own.
    adapter_kw: its options.
    teacher_adapter: the teachers'.
    teacher_adapter_kw: its options.
    masked: whether there is a mask; an adapter that takes statistics of the
      batch is then refused, since it would take them of everything.
    entry: the config entry, for error messages.

  Raises:
    UserError: a name that is not there, or shapes that cannot be adapted.
  """
  location, teachers = both_of(at), groups_of(teacher)
  entries = {
    'adapter': (adapter, dict(adapter_kw or {})),
    'teacher_adapter': (teacher_adapter, dict(teacher_adapter_kw or {})),
  }
  found = {}
  for side, (name, options) in entries.items():
    if not name and options:
      raise UserError(f'{entry}.{side}_kw: name the adapter in {entry}.{side}')
    if not name:
      continue
    if not teachers:
      raise UserError(
        f'{entry}.{side}: there is no teacher to adapt to; name a group in '
        f'{entry}.teacher, or leave the adapter out'
      )
    found[side] = lookup.find(
      name, [adapters], kind='adapter', at=f'{entry}.{side}'
    )
    lookup.check_options(
      found[side], options, name=name_of(name), at=f'{entry}.{side}_kw'
    )

  def make(side, student, teacher, context):
    name, options = entries[side]
    what = f'the adapter {name_of(name)}'
    factored.check_dense((student, teacher), what, entry=f'{entry}.{side}')
    sparse.refuse((student, teacher), entry=f'{entry}.{side}', by='an adapter')
    if 'image' in inspect.signature(found[side]).parameters:
      image = getattr(context.inputs, 'shape', ())
      options = {**options, 'image': image}
    with within(f'{entry}.{side}: '):
      made = found[side](
        jax.tree.map(lambda x: tuple(x.shape), student),
        jax.tree.map(lambda x: tuple(x.shape), teacher),
        **options,
      )
    if masked and made.statistics:
      raise UserError(
        f'{entry}.mask: {side}={name_of(name)!r} takes statistics of the whole '
        'batch, what does not count included; choose another adapter, or write '
        "mask='all' to take everything"
      )
    return made

  def taught(made, params, group):
    """The outputs of a group, [T, ...], behind the teacher's adapter."""
    if made is None:
      return (group,)
    return _tuple(jax.vmap(lambda x: made.apply(params, {}, x)[0])(group))

  def of_teacher(groups, context):
    if 'teacher_adapter' not in found:
      return None
    one = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], x), groups[0])
    return make('teacher_adapter', one, one, context)

  def target(made, params, groups):
    """The shapes of one teacher's side, of the first group."""
    return jax.eval_shape(
      lambda p, g: jax.tree.map(lambda x: x[0], taught(made, p, g)[0]),
      params,
      groups[0],
    )

  def init(key, context: Context):
    student, groups = found_in(context, location, teachers, entry=entry)
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
    student, groups = found_in(context, location, teachers, entry=entry)
    teacher = of_teacher(groups, context)
    own = params.get('teacher_adapter', {})
    compared = [taught(teacher, own, group) for group in groups]
    if 'adapter' not in found:
      return (student,), compared, state
    shape = target(teacher, own, groups)
    made = make('adapter', student, shape, context)
    adapted, kept = made.apply(params['adapter'], state['adapter'], student)
    return _tuple(adapted), compared, {**state, 'adapter': kept}

  adapted = 'adapter' in found, 'teacher_adapter' in found
  return Sides(init, apply, location, teachers, adapted)


def _tuple(value: Any) -> tuple:
  """A tuple of values, which are arguments of the loss one by one."""
  return value if isinstance(value, tuple) else (value,)
