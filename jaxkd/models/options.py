"""What options of models may be, by their annotations."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from jaxkd.errors import UserError

# Of these a net has some.
SIZES = frozenset(
  (
    *('width', 'widths', 'depth', 'heads', 'patch', 'stride'),
    *('pyramid', 'bins', 'mlp_ratio', 'init'),
  )
)
KINDS = {int: Integral, float: Real, bool: bool, str: str}
WORDS = {
  int: 'a whole number',
  float: 'a number',
  bool: 'True or False',
  str: 'a text',
}


def check(name: str, value: Any, annotation: Any, *, at: str) -> None:
  """Refuses a value that is not of the type an option is annotated with.

  Numbers must be finite, and those of `SIZES` above 0. Other annotations than
  int, float, bool, str and sequences of int are passed over.

  Raises:
    UserError: the value is of another type or too small.
  """
  several = annotation == Sequence[int]
  kind = int if several else annotation
  if kind not in KINDS:
    return
  if not several:
    values = [value]
  elif isinstance(value, Sequence) and not isinstance(value, str):
    values = value
  else:
    raise UserError(f'{at}: {value!r} should be a list of whole numbers')
  least = ' above 0' if name in SIZES else ''
  for each in values:
    if not _is(each, kind) or (least and each <= 0):
      raise UserError(
        f'{at}: {value!r} should be {"a list, each " * several}{WORDS[kind]}'
        f'{least}'
      )


def _is(value: Any, kind: type) -> bool:
  if kind is not bool and isinstance(value, bool):
    return False
  if not isinstance(value, KINDS[kind]):
    return False
  return not isinstance(value, Real) or math.isfinite(value)
