"""Losses on measured values: a student's predictions against labels.

Predictions are [..., D] over D outputs, without a softmax. Labels have the same
shape; where D is 1, they may lack that axis. In the formulas z is the student's
prediction, v the teacher's and y the label; σ is the labels' standard
deviation, by which errors of outputs in unlike units are made alike.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from jaxkd.losses import _checks, _numerics


def squared_error(
  student: Array,
  labels: Array,
  *,
  scale: Array | Sequence[float] | None = None,
) -> Array:
  """Mean squared error, over the variance of the labels if that is given.

  With the standard deviations of the training labels for ``scale``, a constant
  prediction of their mean has the loss 1 on them, in whatever units they are.

  Args:
    student: predictions z, [..., D].
    labels: y, floats [..., D], or [...] where D is 1.
    scale: σ, D numbers above 0; 1 for all by default, as for labels that are
      standardised already.

  Returns:
    The loss of each example, [...].

  Formula:
    1/D Σ_d ((z_d - y_d) / σ_d)²

  References:
    Hastie et al., `The Elements of Statistical Learning
    <https://hastie.su.domains/ElemStatLearn/>`_, 2009

  Example:
    >>> squared_error(jnp.array([[1.0, 4.0]]), jnp.array([[0.0, 0.0]])).item()
    8.5

  Variants:
    - Some code takes half of it, or the sum over the outputs.
  """
  student, labels = _alike(student, labels)
  return _mean_square(student - labels, _scale(student, scale))


def teacher_bounded(
  student: Array,
  teacher: Array,
  labels: Array,
  *,
  margin: float = 0.0,
  scale: Array | Sequence[float] | None = None,
) -> Array:
  """Squared error where it is not below the teacher's by a margin.

  A teacher's prediction may be worse than none: here it is an upper bound on
  the student's error and no target. The student learns from the label until it
  is better than the teacher by the margin, and then from nothing.

  Args:
    student: predictions z, [..., D].
    teacher: predictions v, [..., D].
    labels: y, floats [..., D], or [...] where D is 1.
    margin: m, at least 0, in the unit of the loss.
    scale: σ, as in ``squared_error``.

  Returns:
    The loss of each example, [...]; 0 where the student is better than the
    teacher by more than the margin, and NaN where the teacher's error is
    infinite or NaN. No gradient comes from the comparison.

  Formula:
    e(z) where e(z) + m > e(v), else 0, e of ``squared_error``

  References:
    Chen et al., `Learning Efficient Object Detection Models with Knowledge
    Distillation
    <https://papers.nips.cc/paper/6676-learning-efficient-object-detection-models-with-knowledge-distillation>`_,
    2017

  Example:
    >>> student, teacher = jnp.array([[1.0], [3.0]]), jnp.array([[2.0], [2.0]])
    >>> teacher_bounded(student, teacher, jnp.zeros((2, 1)))
    Array([0., 9.], dtype=float32)

  Variants:
    - The paper takes the squared distance, D times the mean that is here, and
      adds it to a smooth L1 loss of the boxes with a weight of ½.
  """
  _checks.arrays(
    student=(student, 'float[..., D]'), teacher=(teacher, 'float[..., D]')
  )
  _checks.non_negative(margin=margin)
  student, labels = _alike(student, labels)
  teacher = _numerics.upcast(teacher)
  scale = _scale(student, scale)
  own = _mean_square(student - labels, scale)
  bound = _mean_square(teacher - labels, scale)
  counts = _numerics.above(own + margin - bound, 0)  # of NaN too
  return jnp.where(counts, own, 0) * _numerics.one_or_nan(jnp.isfinite(bound))


def _alike(student, labels):
  """Predictions and labels [..., D], in float32 at least."""
  _checks.arrays(student=(student, 'float[..., D]'))
  one = jnp.ndim(labels) == student.ndim - 1 and student.shape[-1] == 1
  kind = 'float[...]' if one else 'float[..., D]'
  _checks.arrays(student=(student, 'float[..., D]'), labels=(labels, kind))
  return _numerics.upcast(student, labels[..., None] if one else labels)


def _scale(student, scale):
  """The scale as an array that divides predictions; None for none."""
  if scale is None:
    return None
  scale = _checks.weights(student.shape[-1], scale=scale, above=True)
  return jnp.expand_dims(scale, range(student.ndim - 1))


def _mean_square(gap, scale):
  return jnp.mean(jnp.square(gap if scale is None else gap / scale), axis=-1)
