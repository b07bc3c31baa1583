"""Medical classification, evaluated by the area under the ROC curve.

It is not part of `classification`, whose runs need not spend the time.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from jaxkd.tasks import classification
from jaxkd.types import Metric

GROUND_TRUTH = classification.GROUND_TRUTH


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Those of classification, and the area under the ROC curve."""
  found = classification.metrics(classes)
  return found | {'auc': Metric(_predicted, whole=_auc)}


def _predicted(outputs, batch, teachers):
  return outputs['logits'], batch['labels']


def _auc(logits, labels):
  return auc(special.softmax(logits.astype(np.float64), -1), labels), 1


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
  """Area under the ROC curve, the mean over classes of each against the rest.

  Equal to ``roc_auc_score(..., multi_class='ovr', average='macro')`` of
  scikit-learn, but for classes without an example, or without others, which
  are left out here.

  Args:
    scores: of each class, [N, K].
    labels: class numbers [N].

  Returns:
    The area; nan where no class is left or a score is nan.
  """
  own = labels[:, None] == np.arange(scores.shape[1])
  count = own.sum(0)
  pairs = count * (len(labels) - count)
  # The sum of ranks counts the pairs in order, ties as one half.
  ranks = (stats.rankdata(scores, axis=0) * own).sum(0)
  ahead = ranks - count * (count + 1) / 2
  there = pairs > 0
  return float((ahead[there] / pairs[there]).mean()) if there.any() else np.nan
