"""Losses between sequences of different lengths."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jax import Array

from jaxkd.losses import _checks, _numerics


def ctc(
  logits: Array,
  labels: Array,
  *,
  valid: Array | None = None,
  blank: int = 0,
  ignored: Sequence[int] = (0, 3),
  zero_infinity: bool = False,
) -> Array:
  """Connectionist temporal classification.

  The negative log-likelihood of a sequence of labels of which it is not known
  where they are: the sum over all ways to write it frame by frame, where labels
  may be repeated and blanks stand between them. It needs a frame for each label
  and one more between equal neighbours.

  Args:
    logits: z of each frame, [B, F, K].
    labels: class indices from 0 to K - 1, int [B, L].
    valid: which frames count, bool [B, F], the first ones; all by default.
    blank: the class that stands for no label.
    ignored: classes that are no labels, such as padding and the end of a
      sentence; from the first of them on, nothing follows that is one. The
      defaults are those of `jaxkd.data.text.tokens`.
    zero_infinity: whether sequences that have too few frames cost 0, with no
      gradient, in place of infinity.

  Returns:
    The loss of each sequence, nats, [B]; infinity where it has too few frames.

  Formula:
    -log Σ_{paths p of the labels} Π_f softmax(z_f)_{p_f}

  References:
    Graves et al., `Connectionist Temporal Classification
    <https://doi.org/10.1145/1143844.1143891>`_, 2006

  Example:
    >>> even = jnp.zeros((1, 2, 2))  # of 4 paths, 3 say the label 1 once
    >>> round(ctc(even, jnp.array([[1]])).item(), 3)
    0.288

  Variants:
    - Many toolkits divide by the number of labels or of frames of a sequence,
      which weighs sequences differently.
  """
  _checks.arrays(
    logits=(logits, 'float[B, F, K]'),
    labels=(labels, 'int[B, L]'),
    valid=(valid, 'bool[B, F] or None'),
  )
  logits = _numerics.at_valid(valid, _numerics.upcast(logits))
  if valid is None:
    valid = jnp.ones(logits.shape[:2], bool)
  counts = ~jnp.isin(labels, jnp.asarray(ignored))
  loss = optax.losses.ctc_loss(
    logits,
    1 - valid.astype(logits.dtype),
    labels,
    1 - counts.astype(logits.dtype),
    blank_id=blank,
  )
  again = counts[:, 1:] & (labels[:, 1:] == labels[:, :-1])
  possible = counts.sum(1) + again.sum(1) <= valid.sum(1)
  otherwise = 0.0 if zero_infinity else jnp.inf
  return jnp.where(possible, loss, jnp.asarray(otherwise, loss.dtype))
