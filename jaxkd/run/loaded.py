"""A net that a run has exported, with its inputs and classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd.data import inputs as inputs_lib
from jaxkd.data.inputs import Inputs
from jaxkd.errors import UserError
from jaxkd.types import Net


class LoadedNet(Net):
  """A `Net` that knows what inputs it was trained on.

  ``net.apply`` refuses inputs of other shapes, types and ranges; see
  `jaxkd.data.inputs.take`.

  Attributes:
    classes: the names of the classes of its logits.
    inputs: what its examples are before its view; None if the run kept none.
    view: its view in evaluation, as in the config.
    standardized: the means and the standard deviations of the labels that it
      has learnt to predict standardised; empty for classes.

  Examples::

    net, variables = jaxkd.load('runs/demo')
    outputs, _ = net.apply(variables, net.read('mine.png'))
    net.classes[outputs['logits'][0].argmax()]
  """

  def __new__(
    cls,
    init: Callable[..., dict],
    apply: Callable[..., tuple[dict, dict]],
    classes: Sequence[str] = (),
    inputs: Inputs | None = None,
    view: str = '',
    standardized: tuple[tuple[float, ...], ...] = (),
  ):
    """Makes the two functions of a `Net`, and sets the attributes."""
    net = super().__new__(cls, init, apply)
    net.classes, net.inputs, net.view = tuple(classes), inputs, view
    net.standardized = standardized
    return net

  @property
  def input_shape(self) -> Any:
    """Shape of one example before the view; see `jaxkd.shapes`."""
    return self.inputs.shape if self.inputs else None

  def read(self, *paths: str | Path, resize: bool = False) -> np.ndarray:
    """Image files as the run has read its own; see `jaxkd.data.inputs.read`.

    Returns:
      uint8 [N, H, W, C], for ``apply``.
    """
    if self.inputs is None or not self.inputs.is_known:
      raise UserError(
        'net.read: it was not kept how the run has read its files; run its '
        'config again with this version of jaxkd'
      )
    return inputs_lib.read(self.inputs, paths, resize=resize)

  def values(self, predictions: Any) -> np.ndarray:
    """Predictions of measured values in the unit of the labels.

    Args:
      predictions: the output ``logits``, [..., D], of a net that was trained
        with the task ``regression``.

    Returns:
      float64 [..., D].

    Raises:
      UserError: its labels were not standardised, as those of classes are not.
    """
    if not self.standardized:
      raise UserError(
        'net.values: its outputs are not of standardised labels; take them as '
        'they are'
      )
    means, scales = map(np.asarray, self.standardized)
    return np.asarray(predictions, np.float64) * scales + means

  def __repr__(self) -> str:
    takes = inputs_lib.said(self.inputs) if self.inputs else 'what it took'
    view = f', seen through {self.view}' if self.view else ''
    kind = 'values' if self.standardized else 'classes'
    return f'<a net of {len(self.classes)} {kind} that takes {takes}{view}>'
