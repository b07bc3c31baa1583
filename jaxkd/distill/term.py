"""Makes a `Term` of a loss: its outputs, teachers, adapters and mask."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import fusion, masks, sparse
from jaxkd.distill.arguments import (
  Arguments,
  field_of,
  find_loss,
  name_of,
  places,
)
from jaxkd.distill.location import (
  Adapting,
  Location,
  Sides,
  both_of,
  groups_of,
  pick,
  shown,
  sides,
)
from jaxkd.distill.returned import Checks
from jaxkd.distill.seen import looking_at
from jaxkd.distill.transfer import Weight, weighted
from jaxkd.errors import UserError, within
from jaxkd.types import Context, Term


def term(
  loss: str | Callable[..., Array],
  *,
  teacher: str | tuple[str, ...] = '',
  at: Location = ('logits', 'logits'),
  weight: Weight = 1.0,
  of: str = '',
  adapter: Adapting = '',
  adapter_kw: Mapping[str, Any] | None = None,
  teacher_adapter: Adapting = '',
  teacher_adapter_kw: Mapping[str, Any] | None = None,
  mask: masks.Name = '',
  inputs: Mapping[str, str] | None = None,
  fuse_weights: str | Callable[..., Array] = '',
  example_weight: str | Callable[..., Array] = '',
  top: int = 0,
  tail: str = '',
  entry: str = 'term',
  kw: Mapping[str, Any] | None = None,
  **options: Any,
) -> Term:
  """Makes a term from a loss between the student and its teachers.

  With several teachers the term is the mean of the losses to each of their
  nets, unless the loss itself takes all `teachers` at once.

  Args:
    loss: a function, or the name of one of `jaxkd.losses`. Its arguments are
      found by their names; see docs/terms.md.
    teacher: the group of teachers, or several; empty for a loss without.
    at: the output of the student and that of the teachers; one name stands for
      both. In place of a name, a tuple names several outputs.
    weight: what `jaxkd.distill.weighted` takes.
    of: the student that it trains; the only one if empty.
    adapter: a function of `jaxkd.distill.adapters`, or its name, applied to the
      student's output. Its sizes follow from the shapes of both sides.
    adapter_kw: its options.
    teacher_adapter: an adapter of the teachers' output.
    teacher_adapter_kw: its options.
    mask: the field of the batch, the output or the region that says what
      counts; see `masks.find`. The mean is then over what counts in the whole
      batch. The mask has the shape of the loss's value, or the loss takes
      `valid`. A batch with a field `valid` needs a mask; 'all' for everything.
    inputs: where arguments of the loss come from if their names do not say so:
      argument -> 'batch.FIELD', 'student.OUTPUT' or 'teacher.OUTPUT'.
    fuse_weights: how much the loss to each teacher counts; see `weights` of
      `jaxkd.distill.fused`. By default they count equally.
    example_weight: a function of the teacher's output, such as
      'teacher_confidence', or 'batch.FIELD'; multiplies the loss of each
      example.
    top: compares only the teacher's `top` most likely classes, and all others
      as one; 0 for all classes. For losses in `losses.OF_SPARSE`.
    tail: how the other classes are treated, also in logits that are sparse
      already, as from a cache: 'bucket' by default, or another tail of
      `jaxkd.logits.sparse`. Required for your own losses.
    entry: the config entry, for error messages.
    kw: options of the loss, as a dict.
    options: options of the loss, as keywords.

  Raises:
    UserError: an unknown name, or shapes that do not match.
  """
  function = find_loss(loss, at=f'{entry}.loss')
  groups, kw = groups_of(teacher), {**(kw or {}), **options}
  if tail and 'tail' in inspect.signature(function).parameters:
    kw, tail = {'tail': tail, **kw}, ''  # as of top_k_kl
  # Some terms need a teacher only for the weights of the examples.
  looks = not example_weight or compares(function, inputs, entry=entry)
  if fuse_weights and not groups:
    raise UserError(f'{entry}.fuse_weights: name the groups in {entry}.teacher')
  if fuse_weights == fusion.ROUTER:
    raise UserError(
      f'{entry}.fuse_weights: the router learns what all predict together; set '
      f"{entry}.fuse, e.g. to 'mean_probabilities'"
    )
  if inputs:  # a side whose arguments are all in `inputs` needs no `at`
    told = Arguments(function, inputs)
    student, taught = both_of(at)
    at = student if told.student else (), taught if told.teacher else ()
  looked_at, weigh = fusion.weights_of(fuse_weights, groups, mask, entry)
  both = sides(
    at,
    groups if looks else (),
    adapter=adapter,
    adapter_kw=adapter_kw,
    teacher_adapter=teacher_adapter,
    teacher_adapter_kw=teacher_adapter_kw,
    masked=mask not in ('', masks.ALL),
    entry=entry,
  )
  made = knowledge(
    function,
    both,
    mask=mask,
    inputs=inputs,
    weigh=weigh,
    options=kw,
    tail=sparse.Tail(top, tail),
    entry=entry,
  )
  if weigh:
    fusion.check_sigmoid(made, None, fuse_weights, entry)
    made = looking_at(made, looked_at, ('logits',))
  for factor in (weight, example_weight or 1):
    made = weighted(made, factor, teacher=groups, entry=entry)
  return made._replace(of=of)


def compares(
  loss: Callable[..., Array],
  inputs: Mapping[str, str] | None = None,
  *,
  entry: str = 'term',
) -> bool:
  """Whether a loss looks at a teacher, by its arguments or by `inputs`."""
  found = places(loss, inputs or {}, entry)
  return Arguments(loss, found).teacher or _taught(found)


def knowledge(
  loss: Callable[..., Array],
  both: Sides,
  *,
  mask: masks.Name = '',
  inputs: Mapping[str, str] | None = None,
  weigh: Callable[[Context], Array] | None = None,
  options: Mapping[str, Any] | None = None,
  tail: sparse.Tail = sparse.DEFAULT,
  entry: str = 'term',
) -> Term:
  """The term of a loss of both sides; see `term` for the arguments.

  Args:
    loss: the function.
    both: the outputs that it compares.
    mask: what counts.
    inputs: where arguments come from if their names do not say so.
    weigh: how much each teacher counts in the mean over them, [T] or for each
      example [B, T], of sum 1; by default they are equal.
    options: keyword options of the loss.
    tail: how it compares with sparse logits.
    entry: the config entry, for error messages.
  """
  teachers, name = both.teachers, name_of(loss)
  options, found = dict(options or {}), places(loss, inputs or {}, entry)
  arguments = Arguments(loss, found)
  fields = *arguments.fields, *_names(found, 'batch')
  # All outputs that it is shown, those that `inputs` names too.
  seen = tuple(
    (part, *sorted(_names(found, place)))
    for part, place in zip(both.at, ('student', 'teacher'), strict=True)
  )
  lookup.check_options(loss, options, name=name, at=f'{entry}.kw')
  sparse.check(tail, loss, entry=entry)
  looks = arguments.teacher or _taught(found)
  if looks and not teachers:
    raise UserError(
      f'{entry}.teacher: the loss {name} compares with a teacher; name a group'
    )
  if teachers and not looks:
    raise UserError(
      f'{entry}.teacher: the loss {name} looks at no teacher: none of its '
      'arguments after the first is called teacher; leave it empty, or say in '
      f"{entry}.inputs which argument is a 'teacher.OUTPUT'"
    )
  if arguments.together and weigh:
    raise UserError(
      f'{entry}.fuse_weights: the loss {name} looks at all teachers at once; '
      'leave it empty'
    )
  if arguments.together and _taught(found):
    raise UserError(
      f'{entry}.inputs: the loss {name} looks at all teachers at once, and '
      'other arguments are of one teacher each; name the argument `teacher`'
    )

  checks = Checks(
    entry,
    name,
    both,
    mask,
    takes_mask=arguments.masked or mask in fields,
    named=bool(found),
  )

  def value(context, counts, student, teacher=(), named=MappingProxyType({})):
    first, rest = [context.key] if arguments.draws else [], []
    # Further outputs of a teacher's adapter take the place of fields.
    for field in arguments.fields[max(0, len(teacher) - 1) :]:
      mixtures = loss in losses.OF_PROBABILITIES
      with within(f'{entry}: '):
        given = field_of(context, field, name, mixtures=mixtures)
      rest.append(masks.keep(counts, given))
    extra = {
      **options,
      **named,
      **masks.as_arguments(arguments, counts, context.batch),
    }
    layers = student, [named[k] for k in named if found[k][0] == 'student']
    if arguments.masked:
      checks.positions(counts, layers)
    own = student if arguments.student else ()
    taught = teacher if arguments.teacher else ()
    sparse.refuse(named, entry=f'{entry}.inputs', by=f'the loss {name}')
    function, own, taught = sparse.compared(
      loss,
      own,
      taught,
      tail,
      temperature=_temperature(loss, options),
      teachers=teachers,
      entry=entry,
    )

    def of(student):
      values = (*first, *student, *taught, *rest)
      if found:  # a place may be left out in the middle
        by_name = dict(zip(arguments.names, values, strict=True))
        return jnp.asarray(function(**by_name, **extra))
      return jnp.asarray(function(*values, **extra))

    try:
      with within(f'{entry}: '):
        result = of(own)
    except UserError:
      raise
    except Exception as error:
      raise UserError(checks.mismatch(error, student, teacher, of)) from error
    size = _size(context)
    checks.result(result, counts, size, layers)
    checks.packed(result, context.inputs)
    if result.ndim == 0:  # one for the whole batch, as of a set distance
      result = jnp.full((size,), 1, result.dtype) * result
    return masks.per_example(result, counts, context.totals)

  def compared(params, state, context):
    """Both sides, with 0 for what does not count, and the mask."""
    masks.check_named(mask, context, seen, teachers, fields, entry=entry)
    counts = masks.find(mask, context, teachers, entry)
    context = masks.shown(mask, counts, context, seen, teachers)
    student, groups, state = both.apply(params, state, context)
    student = masks.keep(counts, student)
    groups = masks.keep(counts, groups, lead=1)
    own, taught = named_in(context, counts)
    of_student = [own[k] for k in own if found[k][0] == 'student']
    masks.check_fits(counts, (student, of_student), mask, entry)
    return student, groups, own, taught, state, counts

  def named_in(context, counts):
    """What `inputs` names: of the batch and the student, and of each group."""
    groups = shown(context, teachers, entry=entry).values()
    own, taught = {}, [{} for _ in groups]
    for argument, (place, output) in found.items():
      here = f'{entry}.inputs.{argument}'
      if place == 'teacher':
        for given, outputs in zip(taught, groups, strict=True):
          given[argument] = pick(outputs, output, entry=here)
      elif place == 'student':
        own[argument] = pick(context.student, output, entry=here)
      elif output == 'inputs':
        own[argument] = masks.keep(counts, context.inputs)
      else:
        with within(f'{here}: '):
          field = field_of(context, output, name)
        own[argument] = masks.keep(counts, field)
    return own, taught

  def count(context):
    return masks.totals(masks.find(mask, context, teachers, entry))

  def apply(params, state, context):
    student, groups, own, taught, state, counts = compared(
      params, state, context
    )
    if not groups:
      return value(context, counts, student, named=own), state
    if arguments.together:
      sparse.refuse(groups, entry=f'{entry}.loss', by=f'the loss {name}')
      nets = tuple(net for (group,) in groups for net in group)
      return value(context, counts, student, (nets,), own), state

    def to_one(teacher, named):
      return value(context, counts, student, teacher, {**own, **named})

    each = [
      jax.vmap(to_one)(group, named)
      for group, named in zip(groups, taught, strict=True)
    ]
    each = jnp.concatenate(each)
    if weigh is None:
      return each.mean(0), state
    weights = weigh(context)
    if weights.ndim > 2:
      raise UserError(
        f'{entry}.fuse_weights: the weights are per token or pixel, but '
        f'the loss {name} is per example; leave it empty'
      )
    weights = jnp.broadcast_to(weights, each.shape[::-1]).T
    return (weights.astype(each.dtype) * each).sum(0), state

  student, taught = both.layers
  layers = (
    student | _names(found, 'student'),
    taught | _names(found, 'teacher'),
  )
  return Term(
    both.init,
    apply,
    count,
    teachers=teachers,
    layers=layers,
    mask=mask,
    temperature=_temperature(loss, options),
    sigmoid=loss in losses.OF_SIGMOIDS,
  )


def _taught(found: Mapping[str, tuple[str, str]]) -> bool:
  """Whether an argument comes from a teacher, by `places`."""
  return bool(_names(found, 'teacher'))


def _names(found: Mapping[str, tuple[str, str]], place: str) -> frozenset[str]:
  """What arguments are called in a place, by `places`."""
  return frozenset(name for where, name in found.values() if where == place)


def _temperature(loss: Callable, options: Mapping[str, Any]) -> Any:
  """The temperature of a loss, 1 of one without."""
  parameter = inspect.signature(loss).parameters.get('temperature')
  default = parameter.default if parameter else 1.0
  return options.get('temperature', default)


def _size(context: Context) -> int:
  """How many examples a batch has."""
  return jax.tree.leaves(context.student)[0].shape[0]
