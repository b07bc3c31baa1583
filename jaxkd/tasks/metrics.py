"""Metrics that any batching gives the same value of.

Most are sums and counts over batches; some take a whole split at once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd.losses import _numerics

Pair = tuple[Array, Array]


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
  """The mean that a sum and a count stand for."""
  return total / count


class Metric(NamedTuple):
  """A measure of a net's outputs.

  Attributes:
    measure: ``(outputs, batch, teachers) -> (sum, count)`` over one batch,
      where ``batch['where']``, a [B] bool, says which examples count. Sums
      and counts of batches add up.
    value: ``(sum, count) -> value``, on arrays with any leading axes.
    higher_is_better: which way is up.
    teacher: the group that it compares with; such a metric is left out where
      that group's outputs are not at hand.
    output: the output that it measures; nets without it are not measured.
    whole: for what no sum over batches can tell, such as a rank among all
      examples: ``(*fields) -> (sum, count)`` on the host, of the examples of a
      whole split that count. ``measure`` then gives the fields instead, arrays
      [B, ...]. Metrics of the same ``measure`` and ``whole`` share what it
      gives. Of a net that diverged the fields may be nan.
    finished: whether it is for finished nets alone, as it takes long.
  """

  measure: Callable[[dict, dict, dict], tuple[Array, ...]]
  value: Callable[[np.ndarray, np.ndarray], np.ndarray] = ratio
  higher_is_better: bool = True
  teacher: str = ''
  output: str = 'logits'
  whole: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None
  finished: bool = False


def judged(right: Array, *logits: Array) -> Array:
  """1 or 0, and NaN where logits are NaN, infinite or all -inf.

  An argmax or a comparison of such logits would be as good as any other.

  Args:
    right: bool [B, ...].
    *logits: what it was found from, [B, ..., K].
  """
  value = right.astype(jnp.float32)
  for each in logits:
    value *= _numerics.one_or_nan(_numerics.is_distribution(each))
  return value


def valid(batch: dict) -> Array:
  """Which tokens or pixels [B, ...] of the examples that count do so too."""
  counts = batch['valid']
  where = batch.get('where', jnp.ones(len(counts), bool))
  return counts & where.reshape(-1, *(1,) * (counts.ndim - 1))


def counted_valid(value: Array, batch: dict) -> Pair:
  """Sum and count of a value per token or pixel [B, ...], where they count."""
  counts = valid(batch)
  total = jnp.where(counts, value.astype(jnp.float32), 0).sum()
  return total, counts.sum().astype(jnp.float32)


def examples(batch: dict) -> Array | None:
  """Which examples count, bool [B]; None where all do.

  Those that only pad the batch do not, nor those whose one label is none.
  """
  masks = [batch['where']] if 'where' in batch else []
  if 'valid' in batch and batch['valid'].ndim == 1:
    masks.append(batch['valid'])
  return functools.reduce(jnp.logical_and, masks) if masks else None


def not_a_number(output: str) -> Metric:
  """The examples that count and of which an output has a nan where it counts.

  Comparisons with nan are false, so that most metrics of such an output are a
  number and mean nothing.
  """

  def measure(outputs, batch, teachers):
    lost = jnp.isnan(outputs[output])
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
