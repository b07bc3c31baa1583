"""Retrieval: examples of one class should lie close together.

This holds for classes that the net has not seen, too. It is measured on the
output ``embedding``, with the Euclidean distance.
"""

from collections.abc import Sequence

import numpy as np

from jaxkd.types import Metric

GROUND_TRUTH = 'triplet'
OUTPUT = 'embedding'
NET = 'embedder'
RANKS = (1, 2, 4, 8)
AT_ONCE = 512  # queries


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Recall at 1, 2, 4 and 8, and the mutual information with clusters."""
  found = {
    f'recall_at_{k}': Metric(
      _embedded, _share(i), output=OUTPUT, whole=_recalled
    )
    for i, k in enumerate(RANKS)
  }
  return found | {'nmi': Metric(_embedded, output=OUTPUT, whole=_clustered)}


def _embedded(outputs, batch, teachers):
  return outputs[OUTPUT], batch['labels']


def _share(i):
  return lambda total, count: total[..., i] / count


def _recalled(embeddings, labels):
  return recall(embeddings, labels, RANKS), 1


def _clustered(embeddings, labels):
  return nmi(embeddings, labels), 1


def recall(
  embeddings: np.ndarray, labels: np.ndarray, ranks: tuple[int, ...]
) -> np.ndarray:
  """The share of examples with one of their class among their nearest.

  Ties count against the net, so that constant embeddings score nothing.

  Args:
    embeddings: [N, D].
    labels: class numbers [N].
    ranks: how many of the nearest others are looked at.

  Returns:
    Recall@K of each K of `ranks`; nan where an embedding is.
  """
  if not np.isfinite(embeddings).all():
    return np.full(len(ranks), np.nan)
  from scipy.spatial import distance  # takes time that others need not spend

  numbers = np.arange(len(labels))
  ahead = np.empty(len(labels), int)  # of the nearest one of its class
  for start in range(0, len(labels), AT_ONCE):
    some = numbers[start : start + AT_ONCE]
    apart = distance.cdist(embeddings[some], embeddings, 'sqeuclidean')
    alike = labels[some, None] == labels
    others = alike & (some[:, None] != numbers)
    nearest = np.where(others, apart, np.inf).min(1, keepdims=True)
    count = (~alike & (apart <= nearest)).sum(1)
    ahead[some] = np.where(others.any(1), count, max(ranks))
  return np.array([(ahead < k).mean() for k in ranks])


def nmi(embeddings: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
  """Mutual information of the classes and k-means clusters, as many of them.

  Normalised by the mean of both entropies.

  Args:
    embeddings: [N, D].
    labels: class numbers [N].
    seed: of the clusters' first centres, of which four draws are tried.

  Returns:
    From 0 to 1; nan where an embedding is.
  """
  if not np.isfinite(embeddings).all():
    return np.nan
  from sklearn import cluster, metrics

  kinds = len(np.unique(labels))
  means = cluster.KMeans(kinds, n_init=4, random_state=seed)
  found = means.fit_predict(embeddings)
  return float(metrics.normalized_mutual_info_score(labels, found))
