"""Whether an exported file gives what the net gives."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxkd.errors import UserError

# The largest difference of outputs, relative to their largest value. Sums in
# another order differ by less than a thousandth of it; values that are rounded
# to 8 bits or to bfloat16 may fall to the other side.
TOLERANCE = 1e-3
TOLERANCE_OF_ROUNDED = 0.05
ZERO = 1e-6  # a difference that is none, of outputs of 0


class Compared(NamedTuple):
  """Outputs of a file beside those of the net.

  Attributes:
    examples: on how many.
    of: what these are, in words.
    difference: the largest of all outputs.
    largest: the largest magnitude of an output of the net.
    agree: the examples, tokens or pixels whose first choice of class is the
      same; None where no class is chosen.
    counted: of how many.
  """

  examples: int
  of: str
  difference: float
  largest: float
  agree: int | None
  counted: int

  def said(self, runtime: str) -> str:
    """In a sentence."""
    found = (
      f'{runtime} differs from the net by at most {self.difference:.2g} on '
      f'{self.examples} {self.of} (the largest output is {self.largest:.3g})'
    )
    if self.agree is None:
      return found
    same = f'{self.agree:,} of {self.counted:,}'
    return f'{found}; the class is the same in {same}'


def compare(
  ours: Mapping[str, np.ndarray],
  theirs: Mapping[str, np.ndarray],
  of: str,
  *,
  rounded: bool,
  one_class: bool = True,
  at: str,
) -> Compared:
  """Compares outputs by name, each [N, ...].

  Args:
    ours: of the net.
    theirs: of the file.
    of: what the examples are, in words.
    rounded: whether the net rounds values as it computes.
    one_class: whether the largest logit is the net's choice of class.
    at: the file, for errors.

  Raises:
    UserError: they differ by more than rounding, in their shapes, or in what is
      no number.
  """
  difference, largest = 0.0, 0.0
  for name, x in ours.items():
    y = np.asarray(theirs[name])
    if x.shape != y.shape:
      raise _differs(at, f'{name} is {list(y.shape)} and not {list(x.shape)}')
    if jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
      if not np.array_equal(np.isnan(x), np.isnan(y)):
        raise _differs(at, f'one of them gives NaN in {name}')
      known = np.isfinite(x)
      apart = np.abs(x[known].astype(np.float64) - y[known])
      size = np.abs(x[known].astype(np.float64))
    else:
      apart, size = (x != y).astype(np.float64), np.zeros(1)
    worst, most = apart.max(initial=0.0), size.max(initial=0.0)
    limit = TOLERANCE_OF_ROUNDED if rounded else TOLERANCE
    if not worst <= limit * most + ZERO:
      raise _differs(
        at, f'{name} differs by {worst:.2g}, of {most:.3g} at most'
      )
    difference, largest = max(difference, worst), max(largest, most)
  agree, counted = None, 0
  if one_class and 'logits' in ours:
    choices = [x['logits'].argmax(-1) for x in (ours, theirs)]
    agree, counted = int((choices[0] == choices[1]).sum()), choices[0].size
  count = len(next(iter(ours.values())))
  return Compared(count, of, float(difference), float(largest), agree, counted)


def _differs(at: str, what: str) -> UserError:
  return UserError(
    f'{at}: what was written does not give what the net gives ({what}), and '
    'was removed; export the net in another format, as with --to stablehlo'
  )
