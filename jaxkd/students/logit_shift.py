"""A shift of the logits of classes that a student has never seen.

A student that learns from soft targets alone knows such classes from what its
teacher says of others, but holds them for rare. One number, added to their
logits after training, undoes that (Hinton et al., 2015, section 3). It is in
the net's state, so that the net that is exported has it.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxkd.errors import UserError, unknown
from jaxkd.types import Net

MISSING = 'missing'


def classes(
  which: str,
  labels: np.ndarray,
  weights: np.ndarray,
  num_classes: int,
  *,
  at: str,
) -> np.ndarray:
  """The classes whose logits are shifted.

  Args:
    which: 'missing' for those of which a member sees nothing, or their
      numbers, as in '3,7'.
    labels: of the training examples, int [N].
    weights: sampling weights of the members over them, [M, N].
    num_classes: K.
    at: the config entry.

  Returns:
    bool [M, K].

  Raises:
    UserError: no such classes, none, or all of them.
  """
  if which == MISSING:
    seen = [np.isin(np.arange(num_classes), labels[own > 0]) for own in weights]
    found = ~np.stack(seen)
  else:
    numbers = [word.strip() for word in which.split(',')]
    known = [*map(str, range(num_classes))]
    for number in numbers:
      if number not in known:
        raise unknown('class', number, [MISSING, *known], at)
    found = np.tile(np.isin(known, numbers), (len(weights), 1))
  if not found.any(1).all():
    raise UserError(
      f'{at}: the student sees examples of every class, so none is missing; '
      'leave it empty, or leave classes out with data.partition.students'
    )
  if found.all(1).any():
    raise UserError(f'{at}: to shift the logits of all classes changes nothing')
  return found


def shift(logits: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
  """What, added to the logits of some classes, makes most examples right.

  All shifts between two thresholds, at which the first choice of an example
  changes, are alike; this is the middle of the widest of the best intervals.

  Args:
    logits: [N, K].
    labels: int [N].
    classes: bool [K], some of them.

  Returns:
    One number for all of the classes; nan where a logit is.
  """
  logits = np.asarray(logits, np.float64)
  if np.isnan(logits).any():
    return np.nan
  inside = np.where(classes, logits, -np.inf)
  outside = np.where(classes, -np.inf, logits)
  thresholds = outside.max(1) - inside.max(1)
  order = np.argsort(thresholds)
  # Once an example's threshold is passed, the first choice is inside.
  gain = np.where(inside.argmax(1) == labels, 1, 0)
  gain = gain - (outside.argmax(1) == labels)
  right = np.concatenate([[0], np.cumsum(gain[order])])
  ends = thresholds[order]
  ends = np.concatenate([[ends[0] - 1], ends, [ends[-1] + 1]])
  width = np.diff(ends)
  right = np.where(width > 0, right, right.min() - 1)
  best = np.where(right == right.max(), width, 0).argmax()
  return float(ends[best : best + 2].mean())


def shifted(net: Net, num_classes: int) -> Net:
  """A net whose logits are shifted by ``state['shift']['bias']``, [K].

  Args:
    net: gives logits [B, K].
    num_classes: K.
  """

  def init(key):
    variables = net.init(key)
    bias = {'bias': jnp.zeros((num_classes,), jnp.float32)}
    return {**variables, 'state': {**variables['state'], 'shift': bias}}

  def apply(variables, inputs, *, key=None, train=False):
    whole = dict(variables['state'])
    own = whole.pop('shift')
    inner = {**variables, 'state': whole}
    outputs, new = net.apply(inner, inputs, key=key, train=train)
    outputs = {**outputs, 'logits': outputs['logits'] + own['bias'][None]}
    return outputs, {**new, 'shift': own}

  return Net(init, apply)


def with_shift(variables: Mapping[str, Any], bias: np.ndarray) -> dict:
  """The variables of `shifted`, from those of the net; of members alike."""
  own = {'bias': jnp.asarray(bias, jnp.float32)}
  return {**variables, 'state': {**variables['state'], 'shift': own}}
