"""What a config says of arrays whose meaning cannot be read off them.

Pixels are bytes, or floats from 0 to 1; images are channels-last; classes are
numbered from 0 without gaps. What is plainly otherwise is refused, unless these
options say what is meant.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.errors import UserError

LAYOUTS = ('NHWC', 'NCHW', 'features')


class Told(NamedTuple):
  """What a config says of arrays whose meaning cannot be read off them.

  Attributes:
    num_classes: labels are 0, ..., num_classes - 1, though some of these have
      no example to train on; 0 if that is not told.
    classes: the labels that examples have, in order: they become 0, 1, 2 and so
      on. 'sorted' for those of the training split, sorted; empty if not told.
    range: what pixels go from and to, which is brought to 0 to 1, as
      ``(0, 255)``; 'any' to leave floats as they are; empty for bytes and for
      floats from 0 to 1.
    layout: 'NCHW' for images whose channels come first, which are moved last;
      'NHWC' for those that have them last, against all appearance; 'features'
      for arrays that are no images, which stay as they are.
  """

  num_classes: int = 0
  classes: Sequence[Any] | str = ()
  range: Sequence[float] | str = ()
  layout: str = ''

  @property
  def ends(self) -> tuple[float, ...]:
    """What pixels go from and to and are brought from; empty if not told."""
    return () if self.range == 'any' else tuple(self.range)

  @property
  def limits(self) -> tuple[float, float] | None:
    """What pixels of the examples go from and to; None for anything."""
    free = self.range == 'any' or self.layout == 'features'
    return None if free else (0.0, 1.0)


def of(**options: Any) -> Told:
  """The options, checked.

  Raises:
    UserError: one that makes no sense, or two that contradict each other.
  """
  made = Told(**options)
  if type(made.num_classes) is not int or made.num_classes < 0:
    raise UserError(
      f'data.kw.num_classes: {made.num_classes!r} should be a number of '
      'classes, or 0 for as many as there are labels'
    )
  named = isinstance(made.classes, tuple | list)
  if not named and made.classes != 'sorted':
    raise UserError(
      f'data.kw.classes: {made.classes!r} should be the labels in order, as in '
      "(1, 2, 3), or 'sorted'"
    )
  if named and len(set(made.classes)) != len(made.classes):
    raise UserError(
      f'data.kw.classes: {made.classes!r} has a label twice; name each once'
    )
  if made.classes and made.num_classes:
    raise UserError(
      'data.kw.classes: these say how many classes there are; leave out '
      'data.kw.num_classes'
    )
  pair = isinstance(made.range, tuple | list)
  if pair and made.range:
    numbers = len(made.range) == 2 and all(
      isinstance(n, int | float) for n in made.range
    )
    pair = numbers and made.range[0] < made.range[1] < np.inf
  if not pair and made.range != 'any':
    raise UserError(
      f'data.kw.range: {made.range!r} should be what pixels go from and to, as '
      "in (0, 255), or 'any'"
    )
  if made.layout not in ('', *LAYOUTS):
    raise UserError(
      f'data.kw.layout: {made.layout!r} should be one of '
      f'{", ".join(map(repr, LAYOUTS))}, or empty'
    )
  return made
