"""Outputs that are plainly something else than the logits of a task.

Probabilities, and values in the unit of the labels, are numbers too: losses and
metrics would take them, and mean nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxkd.errors import several
from jaxkd.logits.factored import is_factored
from jaxkd.tasks.metrics import counted
from jaxkd.types import Metric

_ROUNDING = 1e-2  # of sums of probabilities


class Sign(NamedTuple):
  """What outputs are told by that are no logits.

  Attributes:
    of: ``(logits, labels) -> numbers [B] of each example``, one or several, of
      arrays of NumPy or of JAX.
    holds: ``(their sums [..., n], the examples' count) -> whether it is so``.
    said: what the outputs are then, and what to do.
    is_rare: whether logits never look so, of untrained nets neither.
  """

  of: Callable[[Any, Any], list]
  holds: Callable[[np.ndarray, np.ndarray], np.ndarray]
  said: str
  is_rare: bool

  def sums(self, logits: np.ndarray, labels: Any = None) -> np.ndarray:
    """The sums of these numbers, [n]."""
    return np.array([x.sum() for x in self.of(logits, labels)])


def sign(
  kind: str, standardized: tuple[tuple[float, ...], ...] = ()
) -> Sign | None:
  """The sign for logits of a kind; None where nothing tells.

  Args:
    kind: 'softmax', 'sigmoids' or 'values', see `jaxkd.tasks`.
    standardized: the means and the deviations that values had.
  """
  if kind == 'softmax':
    said = (
      'are probabilities, of which a softmax would be taken; give logits, or '
      'the logarithms of these'
    )
    return Sign(_are_shares, _in_all, said, True)
  if kind == 'sigmoids':
    said = (
      'are probabilities, of which a sigmoid would be taken; give logits, '
      'log(p / (1 - p))'
    )
    return Sign(_are_parts, _in_all, said, False)
  if not any(standardized):
    return None
  means, scales = (np.float32([x]) for x in standardized)

  def errors(predicted, labels):
    measured = (predicted - means) / scales
    return [((x - labels) ** 2).mean(-1) for x in (predicted, measured)]

  pairs = zip(*standardized, strict=True)
  said = (
    'are in the unit of the labels, which are standardised here; give '
    '(value - mean) / deviation, by the means and deviations '
    f'{several([f"{mean:.6g} and {scale:.6g}" for mean, scale in pairs])}'
  )
  return Sign(errors, _are_measured, said, False)


def metric(found: Sign) -> Metric:
  """Whether a net's outputs have a sign on a split, as a metric."""

  def measure(outputs, batch, teachers):
    logits = outputs['logits']
    if is_factored(logits):  # a product, which has no softmax behind it
      return jnp.zeros(1), jnp.float32(0)
    numbers = found.of(logits.astype(jnp.float32), batch.get('labels'))
    sums = [counted(x, batch) for x in numbers]
    return jnp.stack([total for total, _ in sums]), sums[0][1]

  return Metric(measure, found.holds)


def _are_shares(logits, labels):
  """Of 1 or of 100, over the classes."""
  whole = logits.sum(-1)
  one, hundred = (abs(whole / of - 1) < _ROUNDING for of in (1, 100))
  return [_everywhere((logits >= 0).all(-1) & (one | hundred))]


def _are_parts(logits, labels):
  """Of 1, each; zeros may be a head that has learnt nothing."""
  is_part = (logits >= 0) & (logits <= 1)
  return [_everywhere(is_part.all(-1) & (logits > 0).any(-1))]


def _everywhere(found):
  return found.reshape(len(found), -1).all(1)


def _in_all(total, count):
  return (total[..., 0] == count) & (count > 0)


def _are_measured(total, count):
  """Better than the labels' mean, and far better than as standardised ones."""
  own, measured = total[..., 0], total[..., 1]
  return (measured < count) & (measured < own / 2)
