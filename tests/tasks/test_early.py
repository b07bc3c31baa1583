"""Early prediction: accuracy at each level, and the mean of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.errors import UserError
from jaxkd.report import wording
from jaxkd.tasks import classification, early

LABELS = np.array([0, 1, 2, 1])
# The first example is right from the third level on, the second always, the
# third never, and the last at the first level alone.
RIGHT = np.zeros((4, early.LEVELS), bool)
RIGHT[0, 2:] = RIGHT[1] = RIGHT[3, 0] = True
LEVELS = np.where(
  RIGHT[..., None],
  np.eye(3)[LABELS][:, None],
  np.eye(3)[(LABELS + 1) % 3][:, None],
).astype(np.float32)


def reached(levels, **batch):
  outputs = {'levels': jnp.asarray(levels), 'logits': levels[:, -1]}
  return {
    name: metric.value(*metric.measure(outputs, batch, {}))
    for name, metric in early.metrics('abc').items()
  }


def test_accuracy_at_each_level_and_the_area_below():
  found = reached(LEVELS, labels=LABELS)
  _, series = early.SERIES['top1']
  assert [*series] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
  want = RIGHT.mean(0)
  for level, name in enumerate(series.values()):
    assert found[name] == pytest.approx(want[level])
    assert wording.is_fraction(name)
  assert found['auc'] == pytest.approx(RIGHT.mean())
  assert found['top1'] == found['at_100']
  assert {*found} == {*classification.metrics('abc'), *series.values(), 'auc'}


def test_examples_that_do_not_count_and_ties():
  some = np.array([True, True, True, False])
  found = reached(LEVELS, labels=LABELS, where=some)
  assert found['auc'] == pytest.approx(RIGHT[:3].mean())
  assert reached(np.ones_like(LEVELS), labels=LABELS)['auc'] == 0
  assert np.isnan(reached(LEVELS * np.nan, labels=LABELS)['auc'])


def test_there_must_be_ten_levels():
  with pytest.raises(UserError, match=r'^task: early needs .* of 10 levels'):
    reached(LEVELS[:, :4], labels=LABELS)
