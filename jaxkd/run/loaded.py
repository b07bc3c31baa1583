"""A net that a run has exported, with its inputs and classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxkd.data import inputs as inputs_lib
from jaxkd.data.inputs import Inputs
from jaxkd.errors import UserError
from jaxkd.types import Net

AT_ONCE = 128  # examples that are predicted together
DETECTOR = {'logits', 'offsets', 'anchors'}  # the outputs of one


class Prediction(NamedTuple):
  """What a net predicts of one example.

  Attributes:
    name: of the most probable class; None where a probability is not a number.
    probability: of that class, the softmax of the logits.
    probabilities: of all classes by name, the most probable first.
  """

  name: str | None
  probability: float
  probabilities: dict[str, float]


class Detected(NamedTuple):
  """The n objects that a net finds in one image, the best first.

  Attributes:
    names: of their classes, n.
    boxes: (top, left, bottom, right) in shares of the image's height and width,
      float32 [n, 4].
    scores: from 0 to 1, float32 [n]; NaN where an output of the net is.
  """

  names: tuple[str, ...]
  boxes: np.ndarray
  scores: np.ndarray


class LoadedNet(Net):
  """A `Net` that knows what inputs it was trained on.

  ``net.apply`` refuses inputs of other shapes, types and ranges; see
  `jaxkd.data.inputs.take`.

  Attributes:
    classes: the names of the classes of its logits.
    inputs: what its examples are before its view; None if the run kept none.
    view: its view in evaluation, as in the config.
    forward: ``(variables, inputs) -> outputs`` in evaluation, of inputs that
      are taken as they are, unchecked.
    logits: what its logits are, 'softmax', 'sigmoids' or 'values'; see
      `jaxkd.tasks`.
    standardized: the means and the standard deviations of the labels that it
      has learnt to predict standardised; empty for classes.

  Examples::

    net, variables = jaxkd.load('runs/demo')
    for image in net.predict(variables, 'mine.png', 'other.jpg'):
      print(image.name, image.probability)
  """

  def __new__(
    cls,
    init: Callable[..., dict],
    forward: Callable[..., tuple[dict, dict]],
    classes: Sequence[str] = (),
    inputs: Inputs | None = None,
    view: str = '',
    logits: str = 'softmax',
    standardized: tuple[tuple[float, ...], ...] = (),
  ):
    """Makes the functions of a `Net`, and sets the attributes.

    Args:
      init: as of a `Net`.
      forward: as ``apply`` of a `Net`, of inputs that are not checked.
      classes: see the class.
      inputs: see the class.
      view: see the class.
      logits: see the class.
      standardized: see the class.
    """

    def apply(variables, given, *, key=None, train=False):
      given = inputs_lib.take(inputs, given) if inputs else given
      return forward(variables, given, key=key, train=train)

    net = super().__new__(cls, init, apply)
    net.classes, net.inputs, net.view = tuple(classes), inputs, view
    net.forward = lambda variables, given: forward(variables, given)[0]
    net._predict = jax.jit(net.forward)
    net._detect = jax.jit(lambda *x: _detections(net.forward(*x)))
    net.logits, net.standardized = logits, standardized
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
        'net.read: the run did not record how it read its files; run its '
        'config again with this version of jaxkd'
      )
    return inputs_lib.read(self.inputs, paths, resize=resize)

  def predict(
    self, variables: dict, *examples: Any
  ) -> list[Prediction] | list[Detected]:
    """The class of each example, with the probabilities of all.

    Or its objects, where the net is a detector.

    Args:
      variables: of the net, as `jaxkd.load` gives them.
      *examples: image files, and images as arrays [H, W, C] or [H, W] of bytes
        or of floats from 0 to 1, of any size: they are brought to the net's by
        Pillow's bilinear filter. For nets that take no images, arrays of one
        example each.

    Returns:
      A `Prediction` of each; or its `Detected`, of at most 100 objects, many of
      them with low scores.

    Raises:
      UserError: no examples, or some that the net does not take, or a net that
        gives an example neither one class nor objects.

    Examples::

      image, photograph = net.predict(variables, 'a.png', array)
    """
    if not examples:
      raise UserError('net.predict: pass one file or array, or several')
    if self.inputs is None:
      raise UserError(
        'net.predict: the run did not record what its examples are; run its '
        'config again with this version of jaxkd'
      )
    found = []
    for start in range(0, len(examples), AT_ONCE):
      some = examples[start : start + AT_ONCE]
      batch = inputs_lib.take(
        self.inputs, inputs_lib.batch_of(self.inputs, some)
      )
      outputs = jax.eval_shape(self._predict, variables, batch)
      if outputs.keys() >= DETECTOR:
        found += self._detected(self._detect(variables, batch))
        continue
      self._check_one_class(outputs)
      logits = self._predict(variables, batch)['logits']
      found += [self._prediction(each) for each in np.asarray(logits)]
    return found

  def _check_one_class(self, outputs: dict) -> None:
    """Refuses nets that do not give each example one class."""
    if self.logits != 'softmax':
      instead = {
        'sigmoids': 'take the sigmoids of the logits of net.apply',
        'values': 'pass the logits of net.apply to net.values',
      }
      raise UserError(
        'net.predict: it is for one class for each example, and this net has '
        f'another task; {instead[self.logits]}'
      )
    logits = outputs.get('logits')
    if logits is None or logits.shape[1:] != (len(self.classes),):
      gives = 'none' if logits is None else f'of {list(logits.shape)}'
      raise UserError(
        'net.predict: it is for one class for each example, and this net '
        f'gives logits {gives}; use net.apply'
      )

  def _detected(self, found: dict) -> list[Detected]:
    """What `jaxkd.tasks.detection.detections` says, by image."""
    fields = (np.asarray(found[k]) for k in ('labels', 'boxes', 'scores'))
    made = []
    for labels, boxes, scores in zip(*fields, strict=True):
      there = scores != 0  # NaN too
      names = tuple(self.classes[i] for i in labels[there])
      made.append(Detected(names, boxes[there], scores[there]))
    return made

  def _prediction(self, logits: np.ndarray) -> Prediction:
    """What logits [K] say."""
    p = np.asarray(jax.nn.softmax(logits.astype(np.float32)), np.float64)
    order = np.argsort(-p, kind='stable')
    named = {self.classes[i]: float(p[i]) for i in order}
    if np.isnan(p).any():
      return Prediction(None, float('nan'), named)
    return Prediction(self.classes[order[0]], float(p[order[0]]), named)

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


def _detections(outputs: dict) -> dict:
  from jaxkd.tasks import detection  # imports Matplotlib, which is slow

  return detection.detections(outputs)
