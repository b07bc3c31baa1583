import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxkd import tasks
from jaxkd.tasks import maps, segmentation

K = 6
METRICS = segmentation.metrics(tuple(map(str, range(K))))
random = np.random.default_rng(0)
LOGITS = random.normal(size=(5, 7, 8, K)).astype(np.float32)
LOGITS[..., 4] = -9  # class 4 is never predicted
LABELS = random.integers(0, K - 1, (5, 7, 8)).astype(np.int32)  # 5 is not there
LABELS[LABELS == 4] = 2  # nor is 4
VALID = random.random((5, 7, 8)) < 0.7
BATCH = {'labels': np.where(VALID, LABELS, 0), 'valid': VALID}


def pair(name, logits=LOGITS, batch=BATCH):
  measure = jax.jit(lambda x, b: METRICS[name].measure({'logits': x}, b, {}))
  return [np.asarray(x) for x in measure(logits, batch)]


def value(name, *args):
  return float(METRICS[name].value(*pair(name, *args)))


def test_is_a_task_that_masks_what_does_not_count():
  task = tasks.find('segmentation')
  assert (task.GROUND_TRUTH, task.MASK) == ('cross_entropy', 'valid')


def test_overlaps_are_those_of_the_confusion_matrix():
  truth, predicted = LABELS[VALID], LOGITS.argmax(-1)[VALID]
  matrix = reference.confusion_matrix(truth, predicted, labels=range(K))
  both, either = pair('miou')
  np.testing.assert_array_equal(both, matrix.diagonal())
  np.testing.assert_array_equal(
    either, matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
  )
  assert either[4] == 0 < either[5]  # predicted, but not there
  want = reference.jaccard_score(
    truth, predicted, labels=[0, 1, 2, 3, 5], average='macro'
  )
  assert value('miou') == pytest.approx(want, rel=1e-6)


def test_accuracy_and_likelihood():
  truth, logits = LABELS[VALID], LOGITS[VALID].astype(np.float64)
  want = reference.accuracy_score(truth, logits.argmax(-1))
  assert value('pixel_accuracy') == pytest.approx(want, rel=1e-6)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  want = reference.log_loss(truth, p, labels=range(K))
  assert value('nll') == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('name', METRICS)
def test_rows_that_fill_up_count_for_nothing_and_batches_add_up(name):
  first = {k: x[:2] for k, x in BATCH.items()}
  rest = {k: np.concatenate([x[2:], x[:1]]) for k, x in BATCH.items()}
  rest['where'] = np.array([True, True, True, False])
  logits = np.concatenate([LOGITS[2:], LOGITS[:1]])
  logits[3] = np.nan
  sums = zip(pair(name, LOGITS[:2], first), pair(name, logits, rest),
             strict=True)  # fmt: skip
  found = METRICS[name].value(*(a + b for a, b in sums))
  assert float(found) == pytest.approx(value(name), rel=1e-6)


@pytest.mark.parametrize('name', METRICS)
def test_nothing_that_counts_is_nan_and_members_are_apart(name):
  nothing = pair(name, LOGITS, BATCH | {'valid': np.zeros_like(VALID)})
  assert np.isnan(METRICS[name].value(*nothing))
  stacked = [np.stack(x) for x in zip(pair(name), nothing, strict=True)]
  found = METRICS[name].value(*stacked)
  assert found.shape == (2,)
  assert float(found[0]) == pytest.approx(value(name))
  assert np.isnan(found[1])


def test_ties_are_the_first_class():
  batch = {
    'labels': np.zeros((1, 2, 2), np.int32),
    'valid': np.ones((1, 2, 2), bool),
  }
  constant = jnp.zeros((1, 2, 2, K))
  assert value('miou', constant, batch) == 1
  assert value('pixel_accuracy', constant, batch) == 1


def test_fidelity_is_over_the_pixels_that_count():
  teachers = random.normal(size=(2, *LOGITS.shape)).astype(np.float32)

  def probabilities(x):
    e = np.exp(x.astype(np.float64))
    return e / e.sum(-1, keepdims=True)

  target, own = probabilities(teachers).mean(0), probabilities(LOGITS)
  want = {
    'agreement': own.argmax(-1) == target.argmax(-1),
    'teacher_kl': (target * np.log(target / own)).sum(-1),
  }
  found = segmentation.fidelity('main')
  assert found.keys() == want.keys()
  for name, metric in found.items():
    assert metric.teacher == 'main'
    measured = metric.measure(
      {'logits': LOGITS}, BATCH, {'main': {'logits': teachers}}
    )
    value = metric.value(*map(np.asarray, measured))
    assert float(value) == pytest.approx(want[name][VALID].mean(), rel=1e-4)


def test_a_picture_of_what_nets_see(tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(maps, 'draw', lambda *args: drawn.append(args))
  images = random.random((5, 7, 8, 3)).astype(np.float32)
  nets = {
    'one': lambda inputs: {'logits': jnp.asarray(LOGITS)},
    'other': lambda inputs: {'logits': jnp.asarray(-LOGITS)},
  }
  segmentation.show(tmp_path, {**BATCH, 'inputs': images}, nets, 'abcdef')
  ((path, shown, truth, valid, predictions, classes),) = drawn
  assert path == tmp_path / 'maps.png' and classes == 'abcdef'
  np.testing.assert_array_equal(shown, images)
  np.testing.assert_array_equal(truth, BATCH['labels'])
  np.testing.assert_array_equal(valid, VALID)
  np.testing.assert_array_equal(predictions['one'], LOGITS.argmax(-1))
  np.testing.assert_array_equal(predictions['other'], LOGITS.argmin(-1))
