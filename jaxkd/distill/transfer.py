"""Transfer methods: functions that wrap a `Term`, `Term -> Term`.

Plain transfer is the term itself. `weighted` multiplies its loss by a number,
a schedule or a weight per example; `conditional` takes one of two terms for
each example. What a term is shown instead of all teachers is in `seen`.

The function that weighs or decides says by the name of its first argument what
it is given: `context` is the `Context`; `teacher` is what the term's one
teacher gives, with fields of the batch behind it; under any other name it is
given the number of the step, as schedules of optax are.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd.distill.arguments import first_argument, looks_at_context
from jaxkd.distill.conditions import Teacher, of_teacher
from jaxkd.distill.location import groups_of
from jaxkd.distill.seen import looking_at
from jaxkd.errors import UserError, blamed
from jaxkd.types import Term

Weight = float | Array | str | Callable


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
    weight: a number, a schedule or a function. The name of its first argument
      says what a function is given. `context` is the `Context`; the function
      returns a number or a weight for each example, [B]. `teacher` is the
      output of the term's one teacher, [B, ...], and fields of the batch follow
      by name; the function, such as ``losses.teacher_confidence`` or its name,
      returns [B]. Any other is the number of the step, as for the schedules of
      optax.
    at: the output that a function of `teacher` is given.
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
    weight = of_teacher(
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
    when: a function that returns a bool for each example, [B]:
      ``losses.teacher_is_correct``, or its name, or another function of
      `teacher`, the output of the first term's one teacher, and of fields of
      the batch; or a function of `context`, the `Context`.
    term: the loss of the examples for which it is true.
    otherwise: the loss of the others.
    at: the output that a function of `teacher` is given.
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
    when = of_teacher(
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
