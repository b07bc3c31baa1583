"""Transfer methods: `Term -> Term` and `Context -> Context`.

Plain transfer is the term itself. The others wrap it: weighted (by a number,
a schedule or per example), aggregated over groups of teachers, conditional.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.types import Context, Term

Weight = float | Array | Callable[[Context], Array]


def weighted(term: Term, weight: Weight) -> Term:
  """The term times a weight: a number, or a function of the context.

  Args:
    term: gives [B].
    weight: a number, or a function of the context that gives a number (a
      schedule of ``context.step``) or a weight for each example [B].
  """

  def loss(params, state, context):
    value, state = term.loss(params, state, context)
    factor = weight(context) if callable(weight) else weight
    factor = jnp.asarray(factor).astype(value.dtype)
    # A weight of 0 leaves a term out, an infinite one too.
    return jnp.where(factor == 0, 0, value * factor), state

  return term._replace(loss=loss)


def aggregated(
  term: Term,
  fused: Callable[[Context, Array | None], Array],
  name: str,
  groups: tuple[str, ...],
  weigh: Callable[[Context], Array] | None = None,
) -> Term:
  """Shows the term one teacher called `name`: several, fused.

  Args:
    term: looks at the teacher `name`.
    fused: ``(context, weights) -> [B, ..., K] logits``.
    name: what the fused teacher is called.
    groups: what `fused` and `weigh` look at.
    weigh: gives the weights of the teachers, [T] or for each example
      [B, ..., T]; by default all have equal say.
  """

  def within(context):
    weights = weigh(context) if weigh else None
    teacher = {'logits': fused(context, weights)[None]}
    return context._replace(teachers={**context.teachers, name: teacher})

  def init(key, context):
    return term.init(key, jax.eval_shape(within, context))

  def loss(params, state, context):
    return term.loss(params, state, within(context))

  others = tuple(teacher for teacher in term.teachers if teacher != name)
  made = term._replace(
    init=init,
    loss=loss,
    count=lambda context: term.count(within(context)),
    teachers=others,
  )
  return looking_at(made, groups, logits=True)


def looking_at(
  term: Term, teachers: tuple[str, ...] = (), *, logits: bool = False
) -> Term:
  """The term, which looks at these teachers too, or at their logits."""
  student, taught = term.layers
  return term._replace(
    teachers=tuple(dict.fromkeys((*teachers, *term.teachers))),
    layers=(student, taught | ({'logits'} if logits else set())),
  )


def conditional(
  when: Callable[[Context], Array], term: Term, otherwise: Term
) -> Term:
  """One term for the examples that meet a condition, another for the rest.

  Args:
    when: gives a bool for each example [B].
    term: the loss of the examples for which it is true.
    otherwise: the loss of the others.
  """

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
    value = jnp.where(when(context), then, other)
    return value, {'then': first, 'otherwise': second}

  teachers = (*term.teachers, *otherwise.teachers)
  return Term(
    init,
    loss,
    count,
    term.of or otherwise.of,
    tuple(dict.fromkeys(teachers)),
    tuple(dict.fromkeys((*term.draws, *otherwise.draws))),
    tuple(a | b for a, b in zip(term.layers, otherwise.layers, strict=True)),
  )
