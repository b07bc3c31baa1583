"""What the fields of an example mean, by their names and shapes."""

import numpy as np
import pytest

from jaxkd.data import positions
from jaxkd.data.positions import kinds, positional
from jaxkd.errors import UserError


def example(**shapes):
  fields = {'inputs': (6, 8, 3), 'labels': (), 'id': (), **shapes}
  return {name: np.zeros(shape) for name, shape in fields.items()}


@pytest.mark.parametrize(
  ('shapes', 'declared', 'want', 'says'),
  [
    ({}, {}, {'labels': 'fixed'}, ''),
    ({'valid': ()}, {}, {'labels': 'fixed', 'valid': 'fixed'}, ''),
    (
      {'labels': (6, 8), 'valid': (6, 8)},
      {},
      {'labels': 'map', 'valid': 'map'},
      'labels',
    ),
    ({'labels': (3, 4)}, {}, {'labels': ''}, 'labels'),
    (
      {'labels': (5,), 'valid': (5,), 'boxes': (5, 4)},
      {},
      {'labels': 'objects', 'valid': 'objects', 'boxes': 'boxes'},
      'boxes',
    ),
    (
      {'points': (5, 2)},
      {},
      {'labels': 'fixed', 'points': 'points'},
      'points',
    ),
    ({'labels': (5,)}, {}, {'labels': ''}, 'labels'),
    ({'labels': (5,)}, {'labels': 'fixed'}, {'labels': 'fixed'}, ''),
    ({'code': (9,)}, {}, {'labels': 'fixed', 'code': ''}, ''),
    (
      {'depth': (6, 8, 1)},
      {'depth': 'map'},
      {'labels': 'fixed', 'depth': 'map'},
      'depth',
    ),
    (
      {'inputs': (6, 8), 'labels': (6,), 'valid': (6,)},
      {},
      {'labels': '', 'valid': ''},
      '',
    ),
  ],
)
def test_what_fields_are(shapes, declared, want, says):
  one = example(**shapes)
  assert kinds(one, declared) == {**want, 'id': 'fixed'}
  assert positional(one, declared) == says


@pytest.mark.parametrize(
  ('shapes', 'declared', 'said'),
  [
    ({'boxes': (4,)}, {}, r"'boxes' of an example is \[4\].* \[objects, 4\]"),
    ({'points': (5, 3)}, {}, r"'points' .* \[5, 3\]"),
    ({'depth': (3, 4)}, {'depth': 'map'}, r"'depth' .* \[height, width"),
    ({'scores': (3, 4)}, {'scores': 'objects'}, r'\[objects\]'),
  ],
)
def test_fields_of_another_shape(shapes, declared, said):
  with pytest.raises(UserError, match=said):
    kinds(example(**shapes), declared)


def test_kinds_that_are_not_there():
  positions.check_declared({'depth': 'map'}, 'data.source: mine')
  with pytest.raises(UserError, match=r"^data.source: mine: .*'maps'.*'map'"):
    positions.check_declared({'depth': 'maps'}, 'data.source: mine')


GOOD = np.array([[0, 0.1, 1, 0.5], [0, 0, 0.1, 0.1]], np.float32)


def batch_of(*examples, valid=None, field='boxes'):
  batch = {field: np.stack(examples)}
  return batch if valid is None else {**batch, 'valid': np.array(valid)}


@pytest.mark.parametrize(
  'row',
  [
    (0, 0, 12, 20),  # pixels
    (0.1, 0.1, 0.3, 1.2),
    (-0.1, 0.1, 0.3, 0.2),
    (0.5, 0.1, 0.2, 0.3),  # the bottom above the top
    (0.1, 0.3, 0.5, 0.2),  # the right side left of the left one
    (0.1, 0.3, 0.5, 0.3),  # no area
    (0, 0, 0, 0),
    (np.nan, 0, 1, 1),
  ],
)
def test_boxes_outside_of_the_image(row):
  bad = np.array([GOOD[0], row], np.float32)
  with pytest.raises(UserError, match=r'^here: example 7 has .*\(top, left'):
    positions.check(batch_of(GOOD, bad), np.array([3, 7]), {}, 'here')
  valid = [[True, True], [True, False]]
  positions.check(
    batch_of(GOOD, bad, valid=valid), np.array([3, 7]), {}, 'here'
  )


def test_points_outside_of_the_image():
  points = np.array([[0.5, 0.5], [10, 12]], np.float32)
  with pytest.raises(UserError, match=r'^here: example 3 has .*\(down, right'):
    positions.check(batch_of(points, field='points'), np.array([3]), {}, 'here')


def test_boxes_that_are_no_boxes():
  for wrong in (GOOD[..., :3], GOOD.astype(np.int32)):
    with pytest.raises(UserError, match=r'boxes of example 3 is .*objects, 4'):
      positions.check(batch_of(wrong), np.array([3]), {}, 'here')


def test_what_is_declared_is_checked_and_nothing_else():
  cloud = np.zeros((1, 9, 3), np.float32)
  declared = {'points': 'fixed', 'joints': 'points'}
  numbers = np.array([3])
  positions.check({'points': cloud}, numbers, declared, 'here')
  with pytest.raises(UserError, match=r'joints of example 3 is .*objects, 2'):
    positions.check({'joints': cloud}, numbers, declared, 'here')
