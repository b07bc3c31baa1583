"""The loss, the detections and the average precision of detectors."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxkd import boxes, tasks
from jaxkd.errors import UserError
from jaxkd.tasks import boxed, detection
from jaxkd.teachers.many import log_mean_sigmoids

K = 3
SHAPES = boxes.shapes((8, 12), (0.5, 1.0, 2.0))
GRID = boxes.anchors((32, 32), 8, SHAPES)
N = GRID[..., 0].size
random = np.random.default_rng(0)

# Two images with objects, and one without.
BOXES = np.zeros((3, 2, 4), np.float32)
BOXES[0] = [[0.1, 0.1, 0.4, 0.5], [0.5, 0.55, 0.9, 0.9]]
BOXES[1, 0] = [0.3, 0.2, 0.6, 0.5]
LABELS = np.array([[2, 0], [2, 0], [0, 0]], np.int32)
VALID = np.array([[True, True], [True, False], [False, False]])
ANCHORS = np.broadcast_to(GRID, (3, *GRID.shape))
BATCH = {'labels': LABELS, 'boxes': BOXES, 'valid': VALID}

run = jax.jit(lambda *x: detection.focal_and_boxes(x[:3], *x[3:]))
find = jax.jit(detection.detections)


def outputs(scale=1.0):
  draw = np.random.default_rng(1)
  return {
    'logits': (scale * draw.normal(size=(3, N, K)) - 2).astype(np.float32),
    'offsets': draw.normal(size=(3, N, 4)).astype(np.float32) / 4,
    'anchors': ANCHORS,
  }


def perfect():
  """What a net gives that finds each object and nothing else."""
  logits = np.full((3, N, K), -20, np.float32)
  offsets = np.zeros((3, N, 4), np.float32)
  anchors = GRID.reshape(-1, 4)
  for i in range(3):
    which, found, _ = boxes.match(anchors, BOXES[i], VALID[i])
    found = np.asarray(found)
    logits[i, found, LABELS[i][which][found]] = 20
    offsets[i] = np.where(
      found[:, None], boxes.encode(BOXES[i][which], anchors), 0
    )
  return {'logits': logits, 'offsets': offsets, 'anchors': ANCHORS}


def loss_of(given, batch=BATCH):
  return np.asarray(
    run(
      *(given[name] for name in detection.OUTPUT),
      *(batch[name] for name in ('labels', 'boxes', 'valid')),
    )
  )


def precision(given, batch=BATCH):
  found = jax.tree.map(np.asarray, find(given))
  fields = (batch[name] for name in ('labels', 'boxes', 'valid'))
  return detection.average_precision(found, *fields, K)


def smooth(gap):
  gap = abs(gap)
  return np.where(gap < 1 / 9, gap**2 * 4.5, gap - 1 / 18).sum()


@pytest.mark.parametrize('weight', [-1.0, np.nan, np.inf])
def test_the_weight_of_boxes_is_0_or_more(weight):
  fields = {name: jnp.asarray(x) for name, x in BATCH.items()}
  given = tuple(outputs()[name] for name in detection.OUTPUT)
  with pytest.raises(ValueError, match='box_weight must be a'):
    detection.focal_and_boxes(given, **fields, box_weight=weight)


def test_the_loss_is_its_formula():
  given = outputs()
  want = np.zeros(3)
  anchors = GRID.reshape(-1, 4)
  for i in range(3):
    which, found, background = (
      np.asarray(x) for x in boxes.match(anchors, BOXES[i], VALID[i])
    )
    assert (~found & ~background).sum() > 0 or not VALID[i].any()
    for n in np.flatnonzero(found | background):
      for k in range(K):
        p = 1 / (1 + np.exp(-given['logits'][i, n, k]))
        if found[n] and LABELS[i, which[n]] == k:
          want[i] -= 0.25 * (1 - p) ** 2 * np.log(p)
        else:
          want[i] -= 0.75 * p**2 * np.log(1 - p)
    for n in np.flatnonzero(found):
      target = boxes.encode(BOXES[i, which[n]], anchors[n])
      want[i] += smooth(given['offsets'][i, n] - np.asarray(target))
    want[i] /= max(1, found.sum())
  np.testing.assert_allclose(loss_of(given), want, rtol=1e-4)


def test_the_loss_of_a_perfect_net_is_0_and_that_of_none_is_not():
  assert (loss_of(perfect()) < 1e-3).all()
  none = {**perfect(), 'logits': np.full((3, N, K), -20, np.float32)}
  assert (loss_of(none)[:2] > 1).all() and loss_of(none)[2] < 1e-3


def test_what_fills_up_changes_nothing():
  """Whatever it holds: NaN, too."""
  odd = {name: x.copy() for name, x in BATCH.items()}
  odd['boxes'][1, 1], odd['labels'][1, 1] = np.nan, 1
  odd['boxes'][2], odd['labels'][2] = 0.5, 2
  np.testing.assert_array_equal(loss_of(outputs(), odd), loss_of(outputs()))

  def total(given):
    return detection.focal_and_boxes(
      tuple(given[name] for name in detection.OUTPUT),
      *(odd[name] for name in ('labels', 'boxes', 'valid')),
    ).sum()

  slopes = jax.jit(jax.grad(total))(outputs())
  assert all(np.isfinite(x).all() for x in slopes.values())


def test_what_is_no_number_gets_through():
  given = outputs()
  given['logits'][0, 5, 1] = np.nan
  assert np.isnan(loss_of(given)).tolist() == [True, False, False]
  assert np.isnan(precision(given)).all()


def test_average_precision_at_its_ends():
  np.testing.assert_allclose(precision(perfect()), 1.0)
  nothing = {**perfect(), 'logits': np.full((3, N, K), -np.inf, np.float32)}
  np.testing.assert_array_equal(precision(nothing), 0)
  moved = {**perfect(), 'offsets': perfect()['offsets'] + 9}
  np.testing.assert_array_equal(precision(moved), 0)
  other = perfect()
  other['logits'] = np.roll(other['logits'], 1, -1)
  other['logits'][other['logits'] < 0] = -np.inf
  np.testing.assert_array_equal(precision(other), 0)
  nobody = {**BATCH, 'valid': np.zeros_like(VALID)}
  assert np.isnan(precision(perfect(), nobody)).all()


def test_average_precision_by_hand(capsys):
  """One of class 2 is found first, a false one comes next, the last is missed.

  So that class has precision 1 up to a recall of .5, 51 of 101 points, and the
  other has none. A shift of a fifth of the height leaves an overlap of 2/3.
  """
  found = {
    'boxes': np.zeros((3, 2, 4), np.float32),
    'labels': np.full((3, 2), 2, np.int32),
    'scores': np.zeros((3, 2), np.float32),
  }
  found['boxes'][0, 0] = BOXES[0, 0] + np.array([0.06, 0, 0.06, 0])
  found['boxes'][2, 1] = [0.1, 0.1, 0.2, 0.2]
  found['scores'][0, 0], found['scores'][2, 1] = 0.9, 0.8
  overlap = boxes.iou(found['boxes'][0, :1], BOXES[0, :1])
  np.testing.assert_allclose(overlap, 2 / 3, rtol=1e-5)
  ap, ap50 = detection.average_precision(found, LABELS, BOXES, VALID, K)
  assert ap50 == pytest.approx(51 / 101 / 2)
  assert ap == pytest.approx(4 / 10 * ap50)  # at .5, .55, .6 and .65
  assert capsys.readouterr().out == ''


def test_detections_are_sorted_and_in_the_image():
  found = jax.tree.map(np.asarray, find(outputs(scale=3.0)))
  assert found['scores'].shape == (3, min(detection.MOST, N * K))
  assert (np.diff(found['scores'], axis=1) <= 0).all()
  assert ((found['boxes'] >= 0) & (found['boxes'] <= 1)).all()
  for i in range(3):
    there = found['scores'][i] > 0
    assert there.sum() > 3
    overlaps = np.array(boxes.iou(*[found['boxes'][i, there]] * 2))
    np.fill_diagonal(overlaps, 0)
    same = found['labels'][i, there][:, None] == found['labels'][i, there]
    assert overlaps[same].max() <= detection.OVERLAP < overlaps[~same].max()


def test_metrics():
  metrics = detection.metrics(tuple('abc'))
  assert {*metrics} == {'ap', 'ap50', 'loss'}
  given = perfect()
  for name, metric in metrics.items():
    measured = metric.measure(given, BATCH, {})
    if metric.whole:
      measured = metric.whole(*(np.asarray(x) for x in measured))
    value = metric.value(*(np.asarray(x) for x in measured))
    assert value == pytest.approx(float(name != 'loss'), abs=1e-3)
  (kl,) = detection.fidelity('main').values()
  logits = jnp.stack([outputs()['logits'], outputs(2.0)['logits']])
  same, _ = kl.measure(outputs(), BATCH, {'main': {'logits': logits[:1]}})
  assert same == pytest.approx(0, abs=1e-5)
  total, count = kl.measure(outputs(), BATCH, {'main': {'logits': logits}})
  assert total > 0 and count == 3
  p = jax.nn.sigmoid(logits).mean(0)
  np.testing.assert_allclose(
    jax.nn.sigmoid(log_mean_sigmoids(logits)), p, rtol=1e-5
  )


def test_without_pycocotools_there_is_a_sentence(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pycocotools.cocoeval', None)
  message = r"^task: the package pycocotools.*install 'jaxkd\[detection\]'$"
  with pytest.raises(UserError, match=message):
    detection.metrics(('a', 'b'))


def test_is_a_task_of_objects_with_boxes():
  from jaxkd.data.examples import ArrayExamples
  from jaxkd.data.sources import Source

  images = np.zeros((3, 8, 8, 3), np.uint8)

  def source(**fields):
    train = ArrayExamples(images, LABELS, **fields)
    return Source('mine', {'train': train}, K, (8, 8, 3), tuple('abc'))

  tasks.check('detection', source(valid=VALID, boxes=BOXES))
  with pytest.raises(UserError, match="mine has no field 'boxes', which"):
    tasks.check('detection', source(valid=VALID))
  with pytest.raises(UserError, match="mine has no field 'valid', which"):
    tasks.check('detection', source(boxes=BOXES))
  with pytest.raises(UserError, match='labels by example, and those'):
    tasks.check('classification', source(valid=VALID, boxes=BOXES))


@pytest.mark.parametrize('count', [K, 30])
def test_pictures(tmp_path, count):
  images = random.integers(0, 256, (3, 32, 48, 1)).astype(np.uint8)
  classes = [f'class {i}' for i in range(count)]
  nets = {'net': lambda x: perfect(), 'other': lambda x: outputs()}
  detection.show(tmp_path, {**BATCH, 'inputs': images}, nets, classes)
  with Image.open(tmp_path / 'boxes.png') as image:
    assert min(image.size) > 300
  truth = [(BOXES[i][VALID[i]], LABELS[i][VALID[i]]) for i in range(3)]
  figure = boxed.drawn(images, {'labels': truth, 'net': truth}, classes)
  counts = [len(ax.patches) for ax in figure.axes]
  assert counts == [0, 2, 2, 0, 1, 1, 0, 0, 0]
  (first, _) = figure.axes[1].patches
  # Left and top in pixels, then width and height.
  assert first.get_bbox().bounds == pytest.approx((4.8, 3.2, 19.2, 9.6))
  scored = [(*found, np.full(len(found[0]), 0.456)) for found in truth]
  figure = boxed.drawn(images, {'net': scored}, classes, 'from 0.3 on')
  assert figure.get_suptitle() == 'from 0.3 on'
  names = [f'{classes[2]} ', f'{classes[0]} '] if count > 20 else ['', '']
  said = [text.get_text() for text in figure.axes[1].texts]
  assert said == [f'{name}0.46' for name in names]
  assert [ax.get_xlabel() for ax in figure.axes[1::2]] == ['', '', 'none']
  with pytest.raises(ValueError, match='net is of 2 images, and there are 3'):
    boxed.drawn(images, {'net': truth[:2]}, classes)


def test_images_of_other_channels_are_not_drawn(tmp_path):
  images = np.zeros((3, 8, 8, 4), np.uint8)
  detection.show(tmp_path, {**BATCH, 'inputs': images}, {}, tuple('abc'))
  assert not list(tmp_path.iterdir())
