"""Transfer methods: what wraps a `Term`, `Term -> Term`.

Plain transfer is the term itself. The others wrap it: weighted (by a number,
a schedule or per example), conditional, or shown one teacher in place of
several. A function that weighs or decides says by the name of its first
argument what it looks at: `context` for the `Context`, `teacher` for what one
teacher gives, with fields of the batch behind it; any other for the step, as
schedules of optax do.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import masks
from jaxkd.distill.arguments import (
  Arguments,
  field_of,
  first_argument,
  looks_at_context,
  name_of,
)
from jaxkd.distill.location import groups_of, nets_of
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.types import Context, Term

Weight = float | Array | str | Callable
Teacher = str | tuple[str, ...]


def weighted(
  term: Term,
  weight: Weight,
  *,
  at: str = 'logits',
  teacher: Teacher = (),
  entry: str = 'term',
) -> Term:
  """The term times a weight.

  Args:
    term: gives [B].
    weight: a number, a schedule or a function. A function whose first argument
      is called `context` is given the `Context` and returns a number or a
      weight for each example, [B]. One whose first argument is called
      `teacher`, such as ``losses.teacher_confidence`` or its name, is given
      what the term's one teacher gives, [B, ...], with fields of the batch
      behind it, and returns [B]. Any other is given the number of the step, as
      the schedules of optax are.
    at: the teacher's output that such a function looks at.
    teacher: the group of that teacher; that of the term if empty.
    entry: the config entry, for error messages.

  Raises:
    UserError: a name that is not there, or a number that is no weight.
  """
  check_terms(entry, term)
  if not isinstance(weight, jax.Array | str) and not callable(weight):
    number = isinstance(weight, int | float | np.number)
    if not (number and 0 <= weight < math.inf):
      raise UserError(
        f'{entry}.weight: {weight!r:.60} should be a finite number, 0 or more, '
        'or a function that gives the weight'
      )
    if weight == 1:
      return term
  if isinstance(weight, str) or (
    callable(weight) and first_argument(weight) == 'teacher'
  ):
    here = f'{entry}.example_weight'
    weight = _of_teacher(
      weight, (term.mask,), teacher or term.teachers, at, 'weight', here
    )
    term = looking_at(term, groups_of(teacher), (at,))
  elif callable(weight) and not looks_at_context(weight):
    schedule = weight
    weight = lambda context: schedule(context.step)  # noqa: E731

  def loss(params, state, context):
    value, state = term.loss(params, state, context)
    with blamed(f'{entry}.weight'):
      factor = weight(context) if callable(weight) else weight
      factor = jnp.asarray(factor).astype(value.dtype)
    if factor.shape not in ((), value.shape):
      raise UserError(
        f'{entry}.weight: it gives the shape {list(factor.shape)}; give a '
        f'number, or one for each example, {list(value.shape)}'
      )
    # A weight of 0 leaves a term out, an infinite one too.
    return jnp.where(factor == 0, 0, value * factor), state

  return term._replace(loss=loss)


def conditional(
  when: str | Callable[..., Array],
  term: Term,
  otherwise: Term,
  *,
  at: str = 'logits',
  teacher: Teacher = (),
  entry: str = 'term',
) -> Term:
  """One term for the examples that meet a condition, another for the rest.

  Args:
    when: gives a bool for each example, [B]. It is
      ``losses.teacher_is_correct``, or its name, or another function of what
      the first term's one teacher gives, called `teacher`, and of fields of
      the batch; or a function of the `Context`, called `context`.
    term: the loss of the examples for which it is true.
    otherwise: the loss of the others.
    at: the teacher's output that the condition looks at.
    teacher: the group of that teacher; that of the first term if empty.
    entry: the config entry, for error messages.

  Raises:
    UserError: a name that is not there.
  """
  check_terms(entry, term, otherwise)
  if term.of and otherwise.of and term.of != otherwise.of:
    raise UserError(
      f'{entry}.of: one term trains {term.of} and the other {otherwise.of}; '
      'give both the same'
    )
  if isinstance(when, str) or not looks_at_context(when):
    taken = term.mask, otherwise.mask
    here = f'{entry}.when'
    when = _of_teacher(
      when, taken, teacher or term.teachers, at, 'condition', here
    )
    term = looking_at(term, groups_of(teacher), (at,))

  def init(key, context):
    params, state = {}, {}
    for name, branch in (('then', term), ('otherwise', otherwise)):
      params[name], state[name] = branch.init(key, context)
    return params, state

  def count(context):
    return {'then': term.count(context), 'otherwise': otherwise.count(context)}

  def loss(params, state, context):
    totals = context.totals or {'then': None, 'otherwise': None}
    then, first = term.loss(
      params['then'], state['then'], context._replace(totals=totals['then'])
    )
    other, second = otherwise.loss(
      params['otherwise'],
      state['otherwise'],
      context._replace(totals=totals['otherwise']),
    )
    with blamed(f'{entry}.when'):
      chosen = jnp.asarray(when(context))
    if chosen.dtype != bool or chosen.shape not in ((), then.shape):
      raise UserError(
        f'{entry}.when: it gives {chosen.dtype}{list(chosen.shape)}; give true '
        f'or false for each example, bool{list(then.shape)}'
      )
    value = jnp.where(chosen, then, other)
    return value, {'then': first, 'otherwise': second}

  return term._replace(
    init=init,
    loss=loss,
    count=count,
    of=term.of or otherwise.of,
    teachers=tuple(dict.fromkeys((*term.teachers, *otherwise.teachers))),
    draws=tuple(dict.fromkeys((*term.draws, *otherwise.draws))),
    layers=tuple(
      a | b for a, b in zip(term.layers, otherwise.layers, strict=True)
    ),
  )


def check_terms(entry: str, *terms: Term) -> None:
  """Refuses a loss in place of a term."""
  for term in terms:
    if not isinstance(term, Term):
      raise UserError(
        f'{entry}: {term!r:.60} is no Term; make one with distill.term'
      )


def aggregated(
  term: Term,
  fused: Callable[[Context, Array | None], dict[str, Array]],
  groups: tuple[str, ...],
  weigh: Callable[[Context], Array] | None = None,
) -> Term:
  """Shows the term one teacher in place of several, which are fused.

  Args:
    term: looks at some of the groups.
    fused: ``(context, weights) -> outputs`` of that teacher, [B, ...] each,
      whose shapes do not depend on the weights.
    groups: whose nets they are.
    weigh: gives the weights of the nets, [T] or for each example [B, ..., T];
      by default all have equal say.
  """

  def seen(context, weights=None):
    outputs = fused(context, weights)
    one = {name: x[None] for name, x in outputs.items()}
    return standing_in(context, groups, one)

  def weighed(context):
    return seen(context, weigh(context) if weigh else None)

  # Before the first step there may be no fields of the batch to weigh by.
  return seen_as(term, weighed, at_first=seen)


def seen_as(
  term: Term,
  see: Callable[[Context], Context],
  at_first: Callable[[Context], Context] | None = None,
) -> Term:
  """A term that is shown another context than it is given.

  Args:
    term: the term.
    see: what makes it of the one that is given.
    at_first: what makes one of the same shapes for the term's `init`.
  """

  def init(key, context):
    return term.init(key, jax.eval_shape(at_first or see, context))

  def loss(params, state, context):
    return term.loss(params, state, see(context))

  return term._replace(
    init=init, loss=loss, count=lambda context: term.count(see(context))
  )


def standing_in(
  context: Context, groups: tuple[str, ...], outputs: dict[str, Array]
) -> Context:
  """A context in which one net stands in for all nets of some groups.

  Args:
    context: of a term.
    groups: the first is given its outputs, the others none.
    outputs: of that net, [1, B, ...] each.
  """
  first, *others = groups
  seen = {first: outputs, **{group: {} for group in others}}
  unfused = context.unfused or context.teachers
  return context._replace(
    teachers={**context.teachers, **seen}, unfused=unfused
  )


def unfused(term: Term) -> Term:
  """A term that sees all teachers, whatever fusion it is within."""

  def see(context):
    teachers = context.unfused or context.teachers
    return context._replace(teachers=teachers, unfused=None)

  return seen_as(term, see)


def looking_at(
  term: Term, teachers: tuple[str, ...] = (), at: tuple[str, ...] = ()
) -> Term:
  """The term, which looks at these teachers and outputs of theirs too."""
  student, taught = term.layers
  return term._replace(
    teachers=tuple(dict.fromkeys((*teachers, *term.teachers))),
    layers=(student, taught | {*at}),
  )


def _of_teacher(
  function: str | Callable,
  taken: tuple[masks.Name, ...],
  teacher: Teacher,
  at: str,
  kind: str,
  here: str,
) -> Callable[[Context], Array]:
  """A function of the one teacher's output and of fields of the batch.

  Args:
    function: it, or its name.
    taken: the masks of the terms that it decides on.
    teacher: the groups that it looks at, of which there is one net.
    at: the teacher's output.
    kind: what it is.
    here: the config entry, for error messages.
  """
  name, entry = name_of(function), here.rpartition('.')[0]
  function = _found(function, kind=kind, entry=here)
  teachers, arguments = groups_of(teacher), Arguments(function)
  if not teachers:
    raise UserError(
      f'{here}: {name} looks at one teacher; name its group in '
      f'{entry}.teacher, or put fused around the whole'
    )

  def judged(context: Context):
    outputs = nets_of(context.teachers, teachers, at, entry)
    if len(outputs) != 1:
      raise UserError(
        f'{here}: {name} looks at one teacher and {"+".join(teachers)} has '
        f'{len(outputs)}; set fuse'
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
        masks.keep(counts, field_of(context.batch, field, name))
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


def _found(function: str | Callable, *, kind: str, entry: str) -> Callable:
  """A function of what one teacher gives, which is first in ours."""

  def fits(ours):
    return first_argument(getattr(losses, ours)) == 'teacher'

  is_ours = isinstance(function, str) and ':' not in function
  if is_ours and not (function in losses.__all__ and fits(function)):
    raise unknown(kind, function, filter(fits, losses.__all__), entry)
  return lookup.find(function, [losses], kind=kind, at=entry)
