"""Anchors, overlaps, matching, offsets and NMS, against hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import boxes

random = np.random.default_rng(0)


def drawn(count):
  corners = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1)
  return corners.reshape(count, 4).astype(np.float32)


def test_anchors_lie_around_the_centres_of_cells():
  assert boxes.shapes((10, 20), (1, 4)) == (
    (10, 10),
    (20, 5),
    (20, 20),
    (40, 10),
  )
  found = boxes.anchors((16, 32), 8, ((8, 4), (16, 16)))
  assert found.shape == (2, 4, 2, 4) and found.dtype == np.float32
  # Row 1 and column 2 are around 12 pixels down and 20 across.
  want = np.array([[8, 18, 16, 22], [4, 12, 20, 28]]) / [16, 32, 16, 32]
  np.testing.assert_allclose(found[1, 2], want)
  assert boxes.anchors((17, 8), 8, ((8, 8),)).shape == (3, 1, 1, 4)


def test_overlaps():
  one = jnp.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]])
  other = jnp.array(
    [[0, 0, 0.5, 1], [0.6, 0.6, 0.9, 0.9], [0.3, 0.3, 0.3, 0.3]]
  )
  found = boxes.iou(one, other)
  # In hundredths of the image: 25 of 50; 12.5 of 62.5; 2.25 of 31.75.
  want = [[0.5, 0, 0], [0.2, 2.25 / 31.75, 0]]
  np.testing.assert_allclose(found, want, rtol=1e-5)
  nothing = jnp.zeros((1, 4))
  assert boxes.iou(nothing, nothing).tolist() == [[0]]


def test_an_overlap_is_the_same_in_pixels():
  a, b = drawn(5), drawn(4)
  size = np.array([30, 70, 30, 70], np.float32)
  np.testing.assert_allclose(
    boxes.iou(a, b), boxes.iou(a * size, b * size), rtol=1e-4
  )


ANCHORS = jnp.array(
  [
    [0.0, 0.0, 0.4, 0.4],
    [0.0, 0.1, 0.4, 0.5],
    [0.6, 0.6, 1.0, 1.0],
    [0.6, 0.0, 1.0, 0.4],
    [0.0, 0.6, 0.4, 1.0],
  ]
)


def matched(objects, valid):
  found = jax.jit(boxes.match)(ANCHORS, jnp.array(objects), jnp.array(valid))
  return [np.asarray(x).tolist() for x in found]


def test_anchors_take_what_they_overlap_most():
  # The first object is the first anchor, and has 0.6 of the second; the other
  # has an overlap of 0.01 / 0.16 with the third, and none with others.
  objects = [[0, 0, 0.4, 0.4], [0.7, 0.7, 0.8, 0.8]]
  which, found, background = matched(objects, [True, True])
  assert found == [True, True, True, False, False]
  assert which[:3] == [0, 0, 1]
  assert background == [False, False, False, True, True]


def test_between_both_thresholds_an_anchor_counts_for_nothing():
  # 0.44 of the second anchor, 0.6 of the first.
  _, found, background = matched([[0, 0, 0.4, 0.29]], [True])
  assert found[:2] == [True, False]
  overlap = float(boxes.iou(ANCHORS[1:2], jnp.array([[0, 0, 0.4, 0.29]]))[0, 0])
  assert 0.37 < overlap < 0.4 and background[1]
  objects = jnp.array([[0, 0, 0.4, 0.32]])
  overlap = float(boxes.iou(ANCHORS[1:2], objects)[0, 0])
  assert 0.4 < overlap < 0.5
  _, found, background = matched(objects, [True])
  assert not found[1] and not background[1]


def test_what_fills_up_takes_no_anchor():
  padding = [[0, 0, 0, 0], [0.6, 0.6, 1, 1]]
  which, found, background = matched(padding, [False, False])
  assert not any(found) and all(background)
  which, found, _ = matched([[0, 0, 0.4, 0.4], *padding], [True, False, False])
  assert found == [True, True, False, False, False] and which[:2] == [0, 0]


def test_objects_with_one_best_anchor_leave_it_to_the_larger_overlap():
  objects = [[0.6, 0.6, 0.7, 0.7], [0.6, 0.6, 0.9, 0.9]]
  which, found, _ = matched(objects, [True, True])
  assert found == [False, False, True, False, False] and which[2] == 1


def test_offsets_by_hand():
  anchor = jnp.array([0.0, 0.0, 0.2, 0.4])
  box = jnp.array([0.1, 0.1, 0.5, 0.5])
  found = boxes.encode(box, anchor)
  # The centre is 0.2 lower, a side of the anchor, and 0.1 to the right.
  np.testing.assert_allclose(found, [1.0, 0.25, np.log(2), 0], atol=1e-6)
  np.testing.assert_allclose(boxes.decode(found, anchor), box, atol=1e-6)


def test_offsets_are_undone_and_finite():
  # Not so flat that the stretch would be cut.
  anchors, given = drawn(50) + np.array([0, 0, 0.1, 0.1], np.float32), drawn(50)
  back = boxes.decode(boxes.encode(given, anchors), anchors)
  np.testing.assert_allclose(back, given, atol=1e-5)
  assert np.isfinite(boxes.encode(jnp.zeros((50, 4)), anchors)).all()
  assert np.isfinite(boxes.decode(jnp.full((50, 4), 1e4), anchors)).all()


def greedy(found, scores, classes, overlap):
  """The textbook loop."""
  kept = []
  for i in sorted(range(len(found)), key=lambda i: (-scores[i], i)):
    pairs = (
      np.asarray(boxes.iou(found[i : i + 1], found[j : j + 1]))
      for j in kept
      if classes[i] == classes[j]
    )
    if all(pair[0, 0] <= overlap for pair in pairs):
      kept.append(i)
  return [i in kept for i in range(len(found))]


@pytest.mark.parametrize('overlap', [0.1, 0.5])
def test_nms_is_the_loop(overlap):
  run = jax.jit(lambda *x: boxes.nms(*x, overlap=overlap))
  for _ in range(3):
    found, scores = drawn(40), random.integers(0, 20, 40) / 20
    classes = random.integers(0, 2, 40)
    want = greedy(found, scores, classes, overlap)
    assert run(found, scores.astype(np.float32), classes).tolist() == want
    assert 2 < sum(want) < 40


def test_nms_of_a_chain():
  """Each hides the next, so that every second one is kept."""
  start = np.arange(12)[:, None] * 0.05
  found = np.concatenate([start, 0 * start, start + 0.2, 0 * start + 1], 1)
  scores = np.linspace(1, 0.1, 12).astype(np.float32)
  kept = boxes.nms(found, scores, np.zeros(12, int), overlap=0.5)
  assert kept.tolist() == [True, False] * 6
