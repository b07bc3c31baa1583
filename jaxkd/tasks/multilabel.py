"""Multi-label classification: a label of 0 or 1 for each class.

Logits are [B, K], whose sigmoids are the probabilities of the classes, labels
[B, K], and ``valid`` of the batch says which labels are known.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxkd import losses
from jaxkd.losses import _numerics
from jaxkd.tasks.metrics import counted, counted_valid, mean, valid
from jaxkd.teachers.many import log_mean_sigmoids
from jaxkd.types import Metric

GROUND_TRUTH = 'binary_cross_entropy'
LABELS = ('classes',)
MASK = 'valid'
LOGITS = 'sigmoids'
ensemble = log_mean_sigmoids


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Mean average precision, F1 and log-likelihood, of the labels known.

  `map` is the mean over the classes that some example of the split has of the
  average precision of each: Σ_n (R_n - R_{n-1}) P_n over the thresholds of its
  logits, from the highest, with precision P and recall R, by scikit-learn. `f1`
  is 2 TP / (2 TP + FP + FN) of all labels together, where a probability above ½
  predicts a class; `nll` is the negative log-likelihood of a label, in nats.
  """
  del classes
  return {
    'map': Metric(_scored, mean, whole=_mean_average_precision),
    'f1': Metric(_overlap, mean),
    'nll': Metric(_nll, mean, higher_is_better=False),
  }


def fidelity(teacher: str) -> dict[str, Metric]:
  """How often both predict a class or both do not, and the KL of a class.

  Args:
    teacher: the group's name. Its members' probabilities are averaged.
  """

  def agreement(outputs, batch, teachers):
    own = outputs['logits']
    target = log_mean_sigmoids(teachers[teacher]['logits'])
    same = (own > 0) == (target > 0)
    return counted((same * _known(own) * _known(target)).mean(-1), batch)

  def divergence(outputs, batch, teachers):
    target = log_mean_sigmoids(teachers[teacher]['logits'])
    loss = losses.binary_kl(outputs['logits'], target)
    return counted(loss / target.shape[-1], batch)

  return {
    'agreement': Metric(agreement, teacher=teacher),
    'teacher_kl': Metric(divergence, higher_is_better=False, teacher=teacher),
  }


def _known(logits):
  """1, or NaN where a logit is."""
  return _numerics.one_or_nan(~jnp.isnan(logits))


def _scored(outputs, batch, teachers):
  return outputs['logits'], batch['labels'], valid(batch)


def _mean_average_precision(logits, labels, valid):
  """The sum of the classes' average precisions, and of how many."""
  if np.isnan(logits).any():
    return np.nan, 1
  from sklearn import metrics as reference  # takes time to import

  found = [
    reference.average_precision_score(truth[known] == 1, scores[known])
    for scores, truth, known in zip(logits.T, labels.T, valid.T, strict=True)
    if (truth[known] == 1).any()
  ]
  return np.sum(found), len(found)


def _overlap(outputs, batch, teachers):
  counts, logits = valid(batch), outputs['logits']
  found, there = (logits > 0) & counts, (batch['labels'] == 1) & counts
  known = jnp.where(counts, _known(logits), 1).min()
  both = 2 * (found & there).sum() * known
  return both, (found.sum() + there.sum()).astype(jnp.float32)


def _nll(outputs, batch, teachers):
  each = losses.binary_cross_entropy(
    outputs['logits'][..., None], batch['labels'][..., None]
  )
  return counted_valid(each, batch)
