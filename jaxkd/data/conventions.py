"""Conventions of arrays: the classes, the range of pixels, the order of axes.

By default pixels are bytes, or floats from 0 to 1; images are channels-last;
classes are numbered from 0 without gaps. Arrays that plainly differ are refused
unless these options of the config describe them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.errors import UserError

LAYOUTS = ('NHWC', 'NCHW', 'features')
LABELS = ('multilabel', 'values')


class Conventions(NamedTuple):
  """How the arrays of a source are to be read.

  Attributes:
    num_classes: labels are 0, ..., num_classes - 1, even if some classes have
      no training example; 0 if the config does not say.
    classes: the labels, in the order in which they become classes 0, 1, 2 and
      so on. 'sorted' for the sorted labels of the training split; empty if the
      config does not say.
    range: (least, largest) value of pixels, such as ``(0, 255)``, which is
      rescaled to 0 to 1; 'any' to leave floats as they are; empty for bytes and
      for floats from 0 to 1.
    layout: 'NCHW' for images with channels first, which are moved last; 'NHWC'
      for images with channels last whose shape suggests otherwise; 'features'
      for arrays that are not images, which stay as they are.
    labels: 'multilabel' for labels [N, K] of 0 and 1, several classes for an
      example; 'values' for measured values [N] or [N, D]; empty for one class
      for each example.
  """

  num_classes: int = 0
  classes: Sequence[Any] | str = ()
  range: Sequence[float] | str = ()
  layout: str = ''
  labels: str = ''

  @property
  def ends(self) -> tuple[float, ...]:
    """The range that pixels are rescaled from; empty for no rescaling."""
    return () if self.range == 'any' else tuple(self.range)

  @property
  def limits(self) -> tuple[float, float] | None:
    """The range that pixels of the examples must be in; None for any."""
    free = self.range == 'any' or self.layout == 'features'
    return None if free else (0.0, 1.0)


def of(**options: Any) -> Conventions:
  """The options, checked.

  Raises:
    UserError: an invalid option, or two that contradict each other.
  """
  made = Conventions(**options)
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
      f'data.kw.classes: {made.classes!r} lists a label twice; list each once'
    )
  if made.classes and made.num_classes:
    raise UserError(
      'data.kw.classes: it already sets the number of classes; remove '
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
      f'data.kw.range: {made.range!r} should be the least and the largest '
      "value of pixels, as in (0, 255), or 'any'"
    )
  if made.layout not in ('', *LAYOUTS):
    raise UserError(
      f'data.kw.layout: {made.layout!r} should be one of '
      f'{", ".join(map(repr, LAYOUTS))}, or empty'
    )
  if made.labels not in ('', *LABELS):
    raise UserError(
      f'data.kw.labels: {made.labels!r} should be one of '
      f'{", ".join(map(repr, LABELS))}, or empty'
    )
  return made
