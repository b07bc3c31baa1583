import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxkd.tasks import classification, diagnosis

random = np.random.default_rng(0)
LABELS = random.integers(0, 4, 200)
LOGITS = random.normal(size=(200, 4)) + np.eye(4)[LABELS]


def softmax(x):
  p = np.exp(x)
  return p / p.sum(-1, keepdims=True)


def reached(logits, labels):
  metric = diagnosis.metrics(range(logits.shape[1]))['auc']
  fields = metric.measure({'logits': logits}, {'labels': labels}, {})
  return metric.value(*metric.whole(*fields))


def test_area_is_that_of_scikit_learn():
  want = roc_auc_score(LABELS, softmax(LOGITS), multi_class='ovr')
  assert reached(LOGITS, LABELS) == pytest.approx(want)
  coarse = np.round(softmax(LOGITS), 1)  # ties
  want = np.mean([roc_auc_score(k == LABELS, coarse[:, k]) for k in range(4)])
  assert diagnosis.auc(coarse, LABELS) == pytest.approx(want)


def test_area_of_two_classes():
  labels = LABELS % 2
  want = roc_auc_score(labels, LOGITS[:, 1] - LOGITS[:, 0])
  assert reached(LOGITS[:, :2], labels) == pytest.approx(want)


def test_classes_without_an_example_are_left_out():
  some = LABELS < 3
  found = diagnosis.auc(softmax(LOGITS)[some], LABELS[some])
  assert found == pytest.approx(
    diagnosis.auc(softmax(LOGITS)[some, :3], LABELS[some])
  )
  assert np.isnan(diagnosis.auc(softmax(LOGITS), np.zeros(200, int)))


def test_a_net_that_diverged_has_no_area():
  assert np.isnan(reached(np.full((200, 4), np.nan), LABELS))


def test_all_metrics_of_classification_are_there():
  found = diagnosis.metrics('abcdefghijkl')
  assert set(found) == {'auc', *classification.metrics('abcdefghijkl')}
