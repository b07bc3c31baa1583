"""Losses on information and contrast: what one side tells about the other.

Embeddings are [B, D]. Contrastive losses normalise them to length 1 and stop
no gradient, so a memory bank is stopped by whoever keeps it.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.losses import _checks, _numerics


def variational_information(
  mean: Array,
  raw_scale: Array,
  teacher: Array,
  *,
  eps: float = 1e-5,
  valid: Array | None = None,
) -> Array:
  """Variational information distillation (VID).

  A lower bound of the information between two layers: the student predicts
  the teacher's map as a normal distribution. Channels that it cannot predict
  get a large variance, and count less.

  Args:
    mean: the prediction μ, regressed on the student, [B, ..., C].
    raw_scale: a, the variance before softplus, one per channel, [C]. Train it
      with the student; log(exp(5) - 1) is the authors' start, a variance of 5.
    teacher: features t, [B, ..., C].
    eps: ε, the least variance, in squared units of t.
    valid: [B, ...] bool, true at the positions that count; all by default.

  Returns:
    The loss of each example, nats per element, [B]; with `valid` that of each
    position, [B, ...], 0 where it does not count. For given variances the least
    is at μ = t, mean ½ log σ², which may be below 0.

  Formula:
    mean ½ [(t - μ)²/σ_c² + log σ_c²], over all axes but the batch,
    σ_c² = softplus(a_c) + ε

  References:
    Ahn et al., `Variational Information Distillation for Knowledge Transfer
    <https://arxiv.org/abs/1904.05835>`_, 2019

  Example:
    >>> mean, teacher = jnp.zeros((1, 2)), jnp.array([[0.0, 4.0]])
    >>> raw_scale = jnp.log(jnp.expm1(jnp.array([1.0, 4.0])))
    >>> round(variational_information(mean, raw_scale, teacher).item(), 3)
    1.347

  Variants:
    - The paper sums over the elements; the authors' code has the mean.
    - Code that leaves the variances out of the optimiser, as registering the
      loss apart from the student easily does, is ``hint`` at a fixed weight.
  """
  _checks.arrays(
    mean=(mean, 'float[B, ..., C]'),
    raw_scale=(raw_scale, 'float[C]'),
    teacher=(teacher, 'float[B, ..., C]'),
    valid=(valid, 'bool[B, ...] or None'),
  )
  _checks.positive(eps=eps)
  mean, raw_scale, teacher = _numerics.upcast(mean, raw_scale, teacher)
  mean, teacher = _numerics.at_valid(valid, mean, teacher)
  variance = jax.nn.softplus(raw_scale) + eps
  variance = variance.reshape((1,) * (mean.ndim - 1) + variance.shape)
  loss = 0.5 * (jnp.square(teacher - mean) / variance + jnp.log(variance))
  if valid is None:
    return jnp.mean(loss, axis=range(1, loss.ndim))
  return _numerics.at_valid(valid, jnp.mean(loss, axis=-1))


def info_nce(
  student: Array,
  teacher: Array,
  *,
  temperature: float = 0.07,
  where: Array | None = None,
) -> Array:
  """InfoNCE inside the batch.

  Each student embedding has to pick the teacher's embedding of the same
  example among those of the whole batch.

  Args:
    student: embeddings, [B, D], of any length but 0.
    teacher: embeddings, [B, D].
    temperature: T > 0, in units of the cosine.
    where: true for the examples that count, bool [B]; all by default.

  Returns:
    The loss of each example, nats, [B]; at least 0, log B if all teacher
    embeddings are equal, and 0 where padded.

  Formula:
    -log (exp(s_b·t_b / T) / Σ_a exp(s_b·t_a / T)), on embeddings over their
    length

  References:
    van den Oord et al., `Representation Learning with Contrastive Predictive
    Coding <https://arxiv.org/abs/1807.03748>`_, 2018

  Example:
    >>> student, teacher = jnp.eye(2), jnp.eye(2)
    >>> round(info_nce(student, teacher, temperature=1.0).mean().item(), 3)
    0.313

  Variants:
    - CLIP adds the other direction and halves the sum: call it both ways.
    - optax's ``ntxent`` takes negatives from both sides and averages.
  """
  _checks.arrays(
    student=(student, 'float[B, D]'),
    teacher=(teacher, 'float[B, D]'),
    where=(where, 'bool[B] or None'),
  )
  _checks.positive(temperature=temperature)
  student, teacher = _numerics.upcast(student, teacher)
  student = _numerics.l2_normalize(_numerics.keep(where, student))
  teacher = _numerics.l2_normalize(_numerics.keep(where, teacher))
  scores = student @ teacher.T / temperature
  candidates = (
    None if where is None else where[None, :] | jnp.eye(len(where), dtype=bool)
  )
  total = jax.nn.logsumexp(scores, axis=1, where=candidates)
  return _numerics.keep(where, total - jnp.diagonal(scores))


def contrastive(
  anchor: Array,
  positive: Array,
  negatives: Array,
  *,
  normalizer: float | Array,
  num_data: int,
  temperature: float = 0.07,
  where: Array | None = None,
) -> Array:
  """Contrastive representation distillation (CRD), one direction.

  A classifier tells the teacher's embedding of the same example from those of
  N others. The method calls it each way: student as anchor among teachers,
  and the reverse, and adds them.

  Args:
    anchor: embeddings a, [B, D].
    positive: the other side's embedding of the same example, [B, D].
    negatives: the other side's embeddings of N examples, [B, N, D].
    normalizer: Z > 0, a scalar that stays as ``contrastive_normalizer`` gives
      it for the first batch; each direction has its own.
    num_data: how many examples the negatives are drawn from.
    temperature: T > 0, in units of the cosine.
    where: true for the examples that count, bool [B]; all by default.

  Returns:
    The loss of each example, nats, [B]; above 0, and 0 where padded.

  Formula:
    -log(h_pos/(h_pos + c + ε)) - Σ_neg log(c/(h_neg + c + ε)),
    h(a, b) = exp(a·b/T)/Z, c = N/num_data, ε = 1e-7, on embeddings over their
    length

  References:
    Tian et al., `Contrastive Representation Distillation
    <https://arxiv.org/abs/1910.10699>`_, 2020

  Example:
    >>> anchor, positive = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> negatives = jnp.array([[[0.0, 1.0]]])
    >>> options = dict(normalizer=1.0, num_data=1, temperature=1.0)
    >>> round(contrastive(anchor, positive, negatives, **options).item(), 3)
    1.006

  Variants:
    - Z is estimated once, from the first batch, in the authors' code, and so
      depends on the order of the data; it is explicit here.
    - Their embeddings come normalised from a linear layer, and negatives from
      a memory with momentum ½; ``info_nce`` needs neither.
  """
  _contrast(anchor, positive, negatives, num_data, temperature, where)
  _checks.positive(normalizer=normalizer)
  log_h = _scores(anchor, positive, negatives, temperature, where)
  log_h -= jnp.log(jnp.asarray(normalizer, log_h.dtype))
  eps = 1e-7
  noise = negatives.shape[1] / jnp.asarray(num_data, log_h.dtype)
  log_all = jnp.logaddexp(log_h, jnp.log(noise + eps))
  loss = jnp.sum(log_all, axis=1) - log_h[:, 0]
  loss -= negatives.shape[1] * jnp.log(noise)
  return _numerics.keep(where, loss)


def contrastive_normalizer(
  anchor: Array,
  positive: Array,
  negatives: Array,
  *,
  num_data: int,
  temperature: float = 0.07,
  where: Array | None = None,
) -> Array:
  """The constant Z of ``contrastive``, estimated from one batch.

  Makes the scores of the batch sum to 1 over the data set, roughly. Compute
  it once, keep it with the memory, and stop its gradient.

  Args:
    anchor: embeddings a, [B, D].
    positive: the other side's embedding of the same example, [B, D].
    negatives: the other side's embeddings of N examples, [B, N, D].
    num_data: how many examples the negatives are drawn from.
    temperature: T > 0, in units of the cosine.
    where: true for the examples that count, bool [B]; all by default.

  Returns:
    Z, a scalar [].

  Formula:
    num_data · mean exp(a·b/T), over the batch, the positive and the negatives

  References:
    Tian et al., `Contrastive Representation Distillation
    <https://arxiv.org/abs/1910.10699>`_, 2020

  Example:
    >>> anchor, positive = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> negatives = jnp.array([[[0.0, 1.0]]])
    >>> options = dict(num_data=10, temperature=1.0)
    >>> z = contrastive_normalizer(anchor, positive, negatives, **options)
    >>> round(z.item(), 3)
    18.591

  Variants:
    - As in the authors' code.
  """
  _contrast(anchor, positive, negatives, num_data, temperature, where)
  scores = _scores(anchor, positive, negatives, temperature, where)
  total = jnp.sum(_numerics.keep(where, jnp.exp(scores)))
  pairs = _numerics.count(where, scores) * scores.shape[1]
  return total / pairs * num_data


def _contrast(anchor, positive, negatives, num_data, temperature, where):
  _checks.arrays(
    anchor=(anchor, 'float[B, D]'),
    positive=(positive, 'float[B, D]'),
    negatives=(negatives, 'float[B, N, D]'),
    where=(where, 'bool[B] or None'),
  )
  if not negatives.shape[1]:
    raise ValueError(
      f'negatives must have at least 1 per example, not {negatives.shape}'
    )
  _checks.positive(num_data=num_data, temperature=temperature)


def _scores(anchor, positive, negatives, temperature, where):
  """Cosines over T, of the positive first, [B, 1 + N]."""
  anchor, positive, negatives = (
    _numerics.keep(where, x)
    for x in _numerics.upcast(anchor, positive, negatives)
  )
  anchor = _numerics.l2_normalize(anchor)
  scores = [_cosines(anchor, positive[:, None]), _cosines(anchor, negatives)]
  return jnp.concatenate(scores, axis=1) / temperature


def _cosines(anchor, others):
  """Of [B, D] of length 1 with [B, N, D], which are large: not copied."""
  square = jnp.sum(jnp.square(others), axis=-1)
  long = _numerics.above(square, 1e-24)  # as in l2_normalize
  scores = jnp.einsum('bd,bnd->bn', anchor, others)
  return jnp.where(long, scores / jnp.sqrt(jnp.where(long, square, 1)), 0)
