import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import tasks
from jaxkd.errors import UserError
from jaxkd.tasks import classification
from jaxkd.tasks.metrics import counted

CLASSES = tuple('abcdefghijkl')
random = np.random.default_rng(0)
LOGITS = random.normal(size=(40, 12)).astype(np.float32)
LABELS = random.integers(0, 12, 40).astype(np.int32)


def measured(name, logits, labels, **batch):
  metric = classification.metrics(CLASSES)[name]
  pair = metric.measure({'logits': logits}, {'labels': labels, **batch}, {})
  return pair, metric


def value(name, logits=LOGITS, labels=LABELS, **batch):
  pair, metric = measured(name, logits, labels, **batch)
  return float(metric.value(*map(np.asarray, pair)))


def test_top1_and_top5():
  order = np.argsort(-LOGITS, -1)
  assert value('top1') == pytest.approx((order[:, 0] == LABELS).mean())
  in_five = (order[:, :5] == LABELS[:, None]).any(-1)
  assert value('top5') == pytest.approx(in_five.mean())
  assert 'top5' not in classification.metrics(CLASSES[:10])


def test_a_net_that_says_nothing_scores_nothing():
  constant = jnp.zeros((4, 12))
  assert value('top1', constant, jnp.zeros(4, jnp.int32)) == 0


def test_negative_log_likelihood():
  p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
  want = -np.log(p[np.arange(40), LABELS]).mean()
  assert value('nll') == pytest.approx(want, rel=1e-5)


def test_calibration_error_is_that_of_fifteen_bins():
  p = np.exp(3 * LOGITS) / np.exp(3 * LOGITS).sum(-1, keepdims=True)
  confidence, correct = p.max(-1), p.argmax(-1) == LABELS
  bins = np.minimum((confidence * 15).astype(int), 14)
  want = 0
  for b in np.unique(bins):
    gap = confidence[bins == b].mean() - correct[bins == b].mean()
    want += (bins == b).mean() * abs(gap)
  assert value('ece', 3 * LOGITS) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize('name', ['top1', 'nll', 'ece'])
def test_padding_counts_for_nothing_and_batches_add_up(name):
  padded = np.concatenate([LOGITS, 9 * np.ones((8, 12), np.float32)])
  labels = np.concatenate([LABELS, np.zeros(8, np.int32)])
  where = np.arange(48) < 40
  assert value(name, padded, labels, where=where) == pytest.approx(
    value(name), rel=1e-5
  )
  parts = [measured(name, LOGITS[s], LABELS[s])[0] for s in
           (slice(0, 15), slice(15, 40))]  # fmt: skip
  total = [np.asarray(a) + np.asarray(b) for a, b in zip(*parts, strict=True)]
  metric = classification.metrics(CLASSES)[name]
  assert float(metric.value(*total)) == pytest.approx(value(name), rel=1e-5)


def test_counted_ignores_what_is_not_finite_outside_the_mask():
  total, count = counted(
    jnp.array([1.0, jnp.nan]), {'where': jnp.array([True, False])}
  )
  assert (float(total), float(count)) == (1, 1)


@pytest.mark.parametrize('name', ['top1', 'top5', 'nll', 'ece'])
def test_examples_without_a_label_count_for_nothing(name):
  valid = np.arange(40) % 3 > 0
  logits = np.where(valid[:, None], LOGITS, np.nan)
  labels = np.where(valid, LABELS, 0)
  where = np.arange(40) < 30
  want = value(name, LOGITS[valid & where], LABELS[valid & where])
  got = value(name, logits, labels, valid=valid, where=where)
  assert got == pytest.approx(want, rel=1e-5)


def test_a_task_that_is_not_there():
  with pytest.raises(UserError, match=r"no task 'clasification'.*did you mean"):
    tasks.find('clasification')


def test_recall_is_top1_on_some_classes():
  metric = classification.recall((3, 7))
  where = np.arange(40) < 30
  own = np.isin(LABELS, (3, 7)) & where
  total, count = metric.measure(
    {'logits': LOGITS}, {'labels': LABELS, 'where': where}, {}
  )
  assert count == own.sum()
  want = (LOGITS.argmax(-1) == LABELS)[own].mean()
  pair = np.asarray(total), np.asarray(count)
  assert metric.value(*pair) == pytest.approx(want)
  assert np.isnan(metric.value(np.zeros(2), np.zeros(2))).all()
