"""Which results of a function depend on which of its arguments.

This is read off the traced program; nothing is computed. A result that is
reported as independent of an argument is so; a dependence that only values at
run time decide counts as one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Jaxpr, Literal, jaxprs_in_params


def dependent(program: Jaxpr, chosen: Sequence[bool]) -> list[bool]:
  """Which results of a program depend on the chosen of its arguments.

  Args:
    program: as `jax.make_jaxpr` gives it.
    chosen: of each argument, whether it is one of those asked about.

  Returns:
    One bool for each result.
  """
  found = {
    variable
    for variable, is_chosen in zip(program.invars, chosen, strict=True)
    if is_chosen
  }

  def among(variables):
    return [not isinstance(v, Literal) and v in found for v in variables]

  for equation in program.eqns:
    given = among(equation.invars)
    if any(given):
      results = zip(equation.outvars, _results(equation, given), strict=True)
      found |= {variable for variable, is_dependent in results if is_dependent}
  return among(program.outvars)


def _results(equation, given: list[bool]) -> list[bool]:
  """Which results of one equation depend on those of its arguments."""
  inner = list(jaxprs_in_params(equation.params))
  sizes = len(equation.invars), len(equation.outvars)
  if len(inner) != 1 or sizes != (len(inner[0].invars), len(inner[0].outvars)):
    return [True] * len(equation.outvars)
  found = dependent(inner[0], given)
  if equation.primitive.name == 'scan':
    # What a step leaves to the next is an argument of that one.
    first, carried = _carried(equation.params)
    after = list(given)
    for i, is_dependent in enumerate(found[:carried], first):
      after[i] |= is_dependent
    if after != given:
      return _results(equation, after)
  return found


def _carried(scan: Mapping[str, Any]) -> tuple[int, int]:
  """Which arguments of a scan its steps leave to the next: first and count."""
  if 'num_carry' in scan:
    return scan['num_consts'], scan['num_carry']
  constants, carried, _ = scan['ft_in'].unpack()  # from jax 0.12 on
  return len(list(constants)), len(list(carried))
