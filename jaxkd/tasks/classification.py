"""Classification: one label for each example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import losses
from jaxkd.distill.masks import examples
from jaxkd.tasks.metrics import counted, judged
from jaxkd.types import Metric

GROUND_TRUTH = 'cross_entropy'
BINS = 15


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Top-1, top-5, negative log-likelihood and calibration error.

  Top-5 is there where it says something: with more than ten classes.
  """
  found = {
    'top1': Metric(_top(1)),
    'nll': Metric(_nll, higher_is_better=False),
    'ece': Metric(_confidence_gaps, _calibration_error, False),
  }
  if len(classes) > 10:
    found['top5'] = Metric(_top(5))
  return found


def _top(k):
  def measure(outputs, batch, teachers):
    logits, labels = outputs['logits'], batch['labels']
    own = jnp.take_along_axis(logits, labels[:, None], -1)
    # Ties count against the net, so that constant logits score nothing.
    ahead = (logits >= own).sum(-1) - 1
    return counted(judged(ahead < k, logits), batch)

  return measure


def recall(classes: Sequence[int]) -> Metric:
  """Top-1 on the examples of some classes alone; nan where there are none."""

  def measure(outputs, batch, teachers):
    where = jnp.isin(batch['labels'], jnp.array(classes, jnp.int32))
    where &= batch.get('where', True)
    return top1(outputs, {**batch, 'where': where}, teachers)

  top1 = _top(1)
  return Metric(measure, _of_some)


def _of_some(total, count):
  nothing = np.full(np.shape(total), np.nan)
  return np.divide(total, count, out=nothing, where=count > 0)


def _nll(outputs, batch, teachers):
  return counted(
    losses.cross_entropy(outputs['logits'], batch['labels']), batch
  )


def _confidence_gaps(outputs, batch, teachers):
  """Sum over the examples of each bin of confidence - correctness."""
  probabilities = jax.nn.softmax(outputs['logits'].astype(jnp.float32))
  confidence = probabilities.max(-1)
  correct = probabilities.argmax(-1) == batch['labels']
  bins = jnp.clip((confidence * BINS).astype(jnp.int32), 0, BINS - 1)
  where = examples(batch)
  if where is None:
    where = jnp.ones(confidence.shape, bool)
  gaps = jnp.where(where, confidence - correct, 0)
  total = jax.nn.one_hot(bins, BINS).T @ gaps
  return total, where.sum().astype(jnp.float32)


def _calibration_error(total, count):
  """Expected calibration error over 15 equal bins (Guo et al., 2017)."""
  return np.abs(total).sum(-1) / count
