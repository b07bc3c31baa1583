"""Regression: one or several measured values for each example.

The output `logits` are predictions [B, D], with no softmax, of labels [B, D];
``label_scale`` of the batch is the unit of each label, so that errors are in
the units that were measured.
"""

import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd.data.examples import SCALE
from jaxkd.distill.masks import examples
from jaxkd.types import Metric

GROUND_TRUTH = 'squared_error'
LABELS = ('values',)
FIELDS = (SCALE,)
LOGITS = 'values'


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Errors in the unit of the labels, and the share of variance explained.

  `rmse` is the root of the mean squared error and `mae` the mean absolute error
  of a split; `r2` is 1 less the squared error over the squared deviation of the
  labels from their mean on that split. Of several values they are means over
  these, and `rmse_NAME` is of one; `mse` is the mean squared error of the
  standardised labels, which values of unlike units have in common.

  Args:
    classes: the names of the values.
  """
  found = {
    'rmse': Metric(_sums, lambda *x: _rmse(*x).mean(-1), False),
    'mae': Metric(_sums, _mae, False),
    'r2': Metric(_sums, _r2),
    'mse': Metric(_plain_sums, _mse, False),
  }
  if len(classes) > 1:
    named = all(re.fullmatch(r'[\w.-]+', name) for name in classes)
    for i, name in enumerate(classes):
      called = f'rmse_{name if named else i}'
      value = lambda *x, i=i: _rmse(*x)[..., i]  # noqa: E731
      found[called] = Metric(_sums, value, False)
  return found


def fidelity(teacher: str) -> dict[str, Metric]:
  """The root mean squared distance to the mean prediction of a group.

  Args:
    teacher: the group's name.
  """

  def distances(outputs, batch, teachers):
    target = ensemble(teachers[teacher]['logits'])
    return _sums(outputs, {**batch, 'labels': target}, teachers)

  return {
    'teacher_rmse': Metric(
      distances, lambda *x: _rmse(*x).mean(-1), False, teacher=teacher
    )
  }


def ensemble(predictions: Array) -> Array:
  """The mean of the predictions [T, B, D] of several nets, [B, D]."""
  return predictions.astype(jnp.float32).mean(0)


def _sums(outputs, batch, teachers):
  """Sums of squares, of absolute errors, of labels and of their squares."""
  scale = batch.get(SCALE, jnp.ones((), jnp.float32))
  labels = batch['labels'] * scale
  gap = outputs['logits'].astype(jnp.float32) * scale - labels
  where = examples(batch)
  if where is None:
    where = jnp.ones(len(labels), bool)
  each = jnp.stack([gap**2, jnp.abs(gap), labels, labels**2])
  total = jnp.where(where[:, None], each, 0).sum(1)
  return total, where.sum().astype(jnp.float32)


def _plain_sums(outputs, batch, teachers):
  batch = {name: x for name, x in batch.items() if name != SCALE}
  return _sums(outputs, batch, teachers)


def _mean(total, count, i):
  return total[..., i, :].astype(np.float64) / np.asarray(count)[..., None]


def _rmse(total, count):
  return np.sqrt(_mean(total, count, 0))


def _mae(total, count):
  return _mean(total, count, 1).mean(-1)


def _mse(total, count):
  return _mean(total, count, 0).mean(-1)


def _r2(total, count):
  error, middle, square = (_mean(total, count, i) for i in (0, 2, 3))
  variance = square - middle**2
  # Of rounding nothing can be explained.
  variance = np.where(variance > 1e-6 * square, variance, np.nan)
  return (1 - error / variance).mean(-1)
