"""The memory that a program needs, estimated from its equations.

Nothing is compiled or computed, so that nets of any size can be planned for on
a small machine. A value is held from the equation that makes it to the last
that takes it; one that is another value's in a new shape, or spread over more
axes, takes no room. XLA fuses operations, which takes less, and copies some
values to lay them out anew, which takes more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, Literal, Var, jaxprs_in_params

# Calls whose equations are as if they stood in the program itself.
_CALLS = {
  *('jit', 'pjit', 'closed_call', 'core_call', 'remat', 'remat2', 'checkpoint'),
  *('custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr'),
}
_VIEWS = {'broadcast_in_dim', 'reshape', 'squeeze', 'expand_dims', 'iota'}


class _Equation(NamedTuple):
  """An equation of a program in which all calls are inlined.

  Attributes:
    is_view: whether what it makes takes no room of its own.
    takes: numbers of the values that it takes.
    gives: those of the values that it makes.
    inside: bytes that are held within it, as in the body of a loop.
  """

  is_view: bool
  takes: tuple[int, ...]
  gives: tuple[int, ...]
  inside: int


class _Program(NamedTuple):
  """A program in which values are numbers.

  Attributes:
    equations: in order.
    sizes: the bytes of each value.
    given: arguments and constants.
    results: what it gives.
  """

  equations: list[_Equation]
  sizes: list[int]
  given: list[int]
  results: list[int]


def peak(function: Callable, *arguments: Any) -> int:
  """The most bytes that a function holds at once, beside its arguments.

  Args:
    function: of arrays. What it makes of its first argument takes the place of
      that, as the carry of a step does; the others stay as they are.
    *arguments: arrays or their shapes.
  """
  replaced = len(jax.tree.leaves(arguments[0]))
  return _peak(jax.make_jaxpr(function)(*arguments).jaxpr, replaced)


def _peak(jaxpr: Jaxpr, replaced: int = 0) -> int:
  program = _inlined(jaxpr)
  stays = set(program.given[replaced:])
  behind = {value: {value} for value in program.given}  # what a value is of
  last = dict.fromkeys(program.given[:replaced], -1)
  for i, equation in enumerate(program.equations):
    taken = set().union(*(behind[value] for value in equation.takes))
    last |= dict.fromkeys(taken, i)
    for value in equation.gives:
      behind[value] = taken if equation.is_view else {value}
      last.setdefault(value, i)
  for value in program.results:
    last |= dict.fromkeys(behind[value], len(program.equations))
  ends: dict[int, int] = {}
  for value, i in last.items():
    if value not in stays:
      ends[i] = ends.get(i, 0) + program.sizes[value]
  now = most = 0
  for i, equation in enumerate(program.equations):
    now += sum(program.sizes[value] for value in equation.gives)
    most = max(most, now + equation.inside)
    now -= ends.get(i, 0)
  return most


def _inlined(jaxpr: Jaxpr) -> _Program:
  """The equations of a program and of all that it calls, in order."""
  equations: list[_Equation] = []
  sizes: list[int] = []

  def new(var, *, view=False):
    sizes.append(0 if view else var.aval.size * var.aval.dtype.itemsize)
    return len(sizes) - 1

  def add(jaxpr, known):
    for equation in jaxpr.eqns:
      kind, bodies = equation.primitive.name, []
      for inner in jaxprs_in_params(equation.params):
        bodies.append(getattr(inner, 'jaxpr', inner))
      if kind in _CALLS and bodies:
        body, *_ = bodies
        given = equation.invars[len(equation.invars) - len(body.invars) :]
        own = {
          theirs: known[ours] if isinstance(ours, Var) else new(theirs)
          for theirs, ours in zip(body.invars, given, strict=True)
        }
        own |= {constant: new(constant) for constant in body.constvars}
        found = add(body, own)
      else:
        view = kind in _VIEWS
        found = [new(var, view=view) for var in equation.outvars]
        takes = [known[v] for v in equation.invars if isinstance(v, Var)]
        inside = max(map(_peak, bodies), default=0)
        equations.append(_Equation(view, tuple(takes), tuple(found), inside))
      known |= dict(zip(equation.outvars, found, strict=True))
    return [
      new(v) if isinstance(v, Literal) else known[v] for v in jaxpr.outvars
    ]

  given = {var: new(var) for var in (*jaxpr.invars, *jaxpr.constvars)}
  results = add(jaxpr, dict(given))
  # What no equation gave are literals, as arguments of calls and as results.
  known = {value for e in equations for value in e.gives} | {*given.values()}
  others = [value for value in range(len(sizes)) if value not in known]
  return _Program(equations, sizes, [*given.values(), *others], results)
