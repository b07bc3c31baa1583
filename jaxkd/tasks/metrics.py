"""Helpers for metrics, whose values do not depend on the batch size.

Most metrics are sums and counts over batches; some take a whole split at once.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import losses
from jaxkd.distill.masks import examples
from jaxkd.logits.factored import is_factored
from jaxkd.losses import _numerics
from jaxkd.types import Metric

Pair = tuple[Array, Array]


def judged(right: Array, *logits: Array) -> Array:
  """1 or 0, or NaN where logits are NaN, infinite or all -inf.

  An argmax or a comparison of such logits would be arbitrary.

  Args:
    right: whether the prediction is right, bool [B, ...].
    *logits: from which this was found, [B, ..., K].
  """
  value = right.astype(jnp.float32)
  for each in logits:
    value *= _numerics.one_or_nan(_numerics.is_distribution(each))
  return value


def valid(batch: dict) -> Array:
  """Which tokens or pixels [B, ...] count, in examples that count."""
  counts = batch['valid']
  where = batch.get('where', jnp.ones(len(counts), bool))
  return counts & where.reshape(-1, *(1,) * (counts.ndim - 1))


def counted_valid(value: Array, batch: dict) -> Pair:
  """Sum and count of a value per token or pixel [B, ...], where they count."""
  counts = valid(batch)
  total = jnp.where(counts, value.astype(jnp.float32), 0).sum()
  return total, counts.sum().astype(jnp.float32)


def nll_of_valid(outputs: dict, batch: dict, teachers: dict) -> Pair:
  """Negative log-likelihood, in nats, of the labels that count."""
  del teachers
  loss = losses.cross_entropy(outputs['logits'], batch['labels'])
  return counted_valid(loss, batch)


def mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
  """The mean that a sum and a count stand for; nan where nothing counts."""
  return total / np.where(count > 0, count, np.nan)


def not_a_number(output: str) -> Metric:
  """The number of examples whose output has a NaN, where they count.

  Comparisons with NaN are false, so that most metrics of such an output would
  be meaningless numbers.
  """

  def measure(outputs, batch, teachers):
    found = outputs[output]
    # Of logits that are factors, the largest tells.
    lost = jnp.isnan(found.max(-1) if is_factored(found) else found)
    counts = batch.get('valid', jnp.ones((), bool))
    if lost.shape[: counts.ndim] == counts.shape:
      lost &= counts.reshape(*counts.shape, *(1,) * (lost.ndim - counts.ndim))
    return counted(lost.reshape(len(lost), -1).any(1), batch)

  return Metric(measure, lambda total, count: total, output=output)


def counted(value: Array, batch: dict) -> Pair:
  """Sum and count of a value per example [B], where the batch counts."""
  where = examples(batch)
  value = value.astype(jnp.float32)
  if where is None:
    return value.sum(), jnp.float32(value.shape[0])
  return jnp.where(where, value, 0).sum(), where.sum().astype(jnp.float32)
