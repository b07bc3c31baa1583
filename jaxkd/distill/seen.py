"""What a term sees: one teacher in place of several, or all of them again."""

from collections.abc import Callable

import jax
from jax import Array

from jaxkd.types import Context, Term


def aggregated(
  term: Term,
  fused: Callable[[Context, Array | None], dict[str, Array]],
  groups: tuple[str, ...],
  weigh: Callable[[Context], Array] | None = None,
) -> Term:
  """A term that sees one teacher, fused from several, in place of them.

  Args:
    term: looks at some of the groups.
    fused: ``(context, weights) -> outputs`` of that teacher, [B, ...] each,
      whose shapes do not depend on the weights.
    groups: whose nets they are.
    weigh: gives the weights of the nets, [T] or for each example [B, ..., T];
      equal ones by default.
  """

  def seen(context, weights=None):
    outputs = fused(context, weights)
    one = {name: x[None] for name, x in outputs.items()}
    return standing_in(context, groups, one)

  def weighed(context):
    return seen(context, weigh(context) if weigh else None)

  # The batch that initialises a term may lack the fields that weights need.
  return seen_as(term, weighed, at_first=seen)


def seen_as(
  term: Term,
  see: Callable[[Context], Context],
  at_first: Callable[[Context], Context] | None = None,
) -> Term:
  """A term that sees another context than the one of its step.

  Args:
    term: the term.
    see: makes the context that the term sees of the one of the step.
    at_first: makes one of the same shapes for the term's `init`.
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
  """A term that sees all teachers, even inside of a fusion."""

  def see(context):
    teachers = context.unfused or context.teachers
    return context._replace(teachers=teachers, unfused=None)

  return seen_as(term, see)


def looking_at(
  term: Term, teachers: tuple[str, ...] = (), at: tuple[str, ...] = ()
) -> Term:
  """The term, with these teachers and outputs added to what it needs."""
  student, taught = term.layers
  return term._replace(
    teachers=tuple(dict.fromkeys((*teachers, *term.teachers))),
    layers=(student, taught | {*at}),
  )
