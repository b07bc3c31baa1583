"""Moves of an image together with its maps, boxes and points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.data import moves
from jaxkd.data.moves import Move
from jaxkd.errors import UserError


def move_of(size, scale, shift, **options):
  pair = (np.array(x, np.float32) for x in (scale, shift))
  return Move(size, *pair, **options)


def pixels(*size):
  """Different numbers above 0, as an image of one channel and as a map."""
  labels = np.arange(1, 1 + np.prod(size), dtype=np.int32).reshape(size)
  return labels[..., None].astype(np.float32), labels


def example(*size):
  image, labels = pixels(*size)
  return {
    'inputs': image,
    'labels': labels,
    'valid': labels % 3 > 0,
    'boxes': np.array([[0, 0.25, 0.5, 1], [0.5, 0, 1, 0.75]], np.float32),
    'points': np.array([[0.25, 0.125], [0.75, 1]], np.float32),
  }


def objects(*size):
  """An object in each pixel: its box, its middle, and its class."""
  image, labels = pixels(*size)
  corner = np.stack(np.indices(size), -1).reshape(-1, 2)
  shares = [(corner + d) / np.array(size) for d in (0, 1, 0.5)]
  return {
    'inputs': image,
    'labels': labels.reshape(-1),
    'valid': np.ones(labels.size, bool),
    'boxes': np.concatenate(shares[:2], 1).astype(np.float32),
    'points': shares[2].astype(np.float32),
  }


@functools.partial(jax.jit, static_argnames=('op', 'arguments'))
def moved(op, arguments, keys, fields):
  """An example after moves drawn by each key."""
  size = fields['inputs'].shape[:2]
  return jax.vmap(
    lambda key: moves.apply(op(key, size, *arguments), fields, {})
  )(keys)


KEYS = jax.random.split(jax.random.key(0), 32)
MIRRORED = move_of((2, 4), (1, -1), (0, 4))


def test_left_and_right_change_places_in_all_fields():
  one = example(2, 4)
  found = moves.apply(MIRRORED, one, {})
  for field in ('inputs', 'labels', 'valid'):
    np.testing.assert_array_equal(found[field], one[field][:, ::-1])
    assert found[field].dtype == one[field].dtype
  np.testing.assert_array_equal(
    found['boxes'], [[0, 0, 0.5, 0.75], [0.5, 0.25, 1, 1]]
  )
  np.testing.assert_array_equal(found['points'], [[0.25, 0.875], [0.75, 0]])
  again = moves.apply(MIRRORED, found, {})
  for field, x in one.items():
    np.testing.assert_array_equal(again[field], x)


def test_what_comes_in_from_outside_is_zero_and_not_valid():
  image, labels = pixels(3, 4)
  one = {'inputs': image, 'labels': labels, 'valid': np.ones((3, 4), bool)}
  move = move_of((3, 4), (1, 1), (1, -2), adds=True, loses=True)
  found = moves.apply(move, one, {})
  want = np.zeros((3, 4), np.int32)
  want[1:, :2] = labels[:2, 2:]
  np.testing.assert_array_equal(found['labels'], want)
  np.testing.assert_array_equal(found['valid'], want > 0)
  np.testing.assert_array_equal(found['inputs'][..., 0], want)


def test_boxes_are_cut_off_and_points_outside_do_not_count():
  boxes = [
    [0.25, 0, 0.75, 0.25],  # all of it is left
    [0, 0, 0.5, 1],  # a half
    [0, 0, 0.25, 0.25],  # nothing
    [0, 0, 0.2625, 1],  # a twentieth
    [0, 0, 1, 1],  # counted for nothing before
  ]
  one = {
    'inputs': pixels(4, 4)[0],
    'labels': np.arange(5, dtype=np.int32),
    'valid': np.array([True] * 4 + [False]),
    'boxes': np.array(boxes, np.float32),
  }
  move = move_of((4, 4), (1, 1), (-1, 0), adds=True, loses=True)
  found = moves.apply(move, one, {})
  np.testing.assert_array_equal(
    found['valid'], [True, True, False, False, False]
  )
  np.testing.assert_allclose(
    found['boxes'][:2], [[0, 0, 0.5, 0.25], [0, 0, 0.25, 1]]
  )
  np.testing.assert_array_equal(found['labels'], one['labels'])
  points = np.array([[0.25, 0], [0.2, 1], [1, 1], [0.3, 0.5], [0.5, 0.5]])
  del one['boxes']
  one['points'] = points.astype(np.float32)
  found = moves.apply(move, one, {})
  np.testing.assert_array_equal(
    found['valid'], [True, False, True, True, False]
  )
  np.testing.assert_allclose(found['points'][3], [0.05, 0.5], rtol=1e-5)


@pytest.mark.parametrize(
  ('op', 'arguments', 'size'),
  [
    (moves.flip, (), (3, 5)),
    (moves.dihedral, (), (4, 4)),
    (moves.pad_and_crop, (2,), (3, 5)),
    (moves.random_crop, (2,), (3, 5)),
    (moves.random_crop, ((3, 4),), (3, 5)),
  ],
)
def test_labels_stay_with_their_pixels(op, arguments, size):
  """Of an object of one pixel box and point are where that pixel is."""
  one = objects(*size)
  found = jax.device_get(moved(op, arguments, KEYS, one))
  _, labels = pixels(*size)
  maps = {'inputs': one['inputs'], 'labels': labels, 'valid': labels > 0}
  maps = jax.device_get(moved(op, arguments, KEYS, maps))
  np.testing.assert_array_equal(maps['inputs'], found['inputs'])
  np.testing.assert_array_equal(maps['labels'], found['inputs'][..., 0])
  np.testing.assert_array_equal(maps['valid'], maps['labels'] > 0)
  assert len(np.unique(maps['labels'].reshape(len(KEYS), -1), axis=0)) > 1
  new = np.array(maps['labels'].shape[1:])
  for i in range(len(KEYS)):
    for j, value in enumerate(one['labels']):
      place = np.argwhere(maps['labels'][i] == value)
      assert found['valid'][i, j] == len(place)
      if len(place):
        corners = np.concatenate([place[0], place[0] + 1]) / np.tile(new, 2)
        np.testing.assert_allclose(found['boxes'][i, j], corners, atol=1e-6)
        middle = (place[0] + 0.5) / new
        np.testing.assert_allclose(found['points'][i, j], middle, atol=1e-6)


@pytest.mark.parametrize(
  ('op', 'arguments', 'count'),
  [
    (moves.flip, (), 2),
    (moves.dihedral, (), 8),
    (moves.pad_and_crop, (1,), 9),
    (moves.random_crop, (3,), 4),
  ],
)
def test_all_places_are_drawn(op, arguments, count):
  image, labels = pixels(4, 4)
  one = {'inputs': image, 'labels': labels, 'valid': labels > 0}
  keys = jax.random.split(jax.random.key(1), 200)
  found = moved(op, arguments, keys, one)['labels']
  kinds, counts = np.unique(
    np.reshape(found, (200, -1)), axis=0, return_counts=True
  )
  assert len(kinds) == count
  assert np.abs(counts - 200 / count).max() < 4 * np.sqrt(200 / count)


def test_a_crop_is_a_crop_by_hand():
  image, labels = pixels(5, 6)
  one = {'inputs': image, 'labels': labels}
  for found in np.asarray(
    moved(moves.random_crop, ((2, 3),), KEYS, one)['labels']
  ):
    top, left = np.argwhere(labels == found[0, 0])[0]
    np.testing.assert_array_equal(found, labels[top : top + 2, left : left + 3])


@pytest.mark.parametrize('factor', [0.5, 0.8, 1.0, 1.3, 2.0])
def test_scales_as_jax_does(factor):
  random = np.random.default_rng(0)
  image = random.random((8, 6, 2), np.float32)
  shift = np.array([0.4, -0.2], np.float32)
  move = move_of((8, 6), (factor, factor), shift, resamples=True, adds=True)
  labels = np.arange(48, dtype=np.int32).reshape(8, 6)
  one = {'inputs': image, 'labels': labels, 'valid': labels >= 0}
  found = moves.apply(move, one, {})
  want = jax.image.scale_and_translate(
    image, image.shape, (0, 1), np.full(2, factor, np.float32), shift, 'linear'
  )
  np.testing.assert_allclose(found['inputs'], want, atol=1e-5)
  rows, columns = (
    np.floor((np.arange(n) + 0.5 - t) / factor).astype(int)
    for n, t in zip((8, 6), shift, strict=True)
  )
  inside = ((rows >= 0) & (rows < 8))[:, None] & (columns >= 0) & (columns < 6)
  np.testing.assert_array_equal(found['valid'], inside)
  by_hand = labels[np.clip(rows, 0, 7)][:, np.clip(columns, 0, 5)]
  np.testing.assert_array_equal(found['labels'], np.where(inside, by_hand, 0))


def test_a_scale_of_one_leaves_all_as_it_is():
  one = example(4, 4)
  for field, x in moved(moves.scale, (1.0, 1.0), KEYS[:2], one).items():
    np.testing.assert_array_equal(x, np.stack([one[field]] * 2))


def test_what_is_scaled_is_all_there_or_fills_the_image():
  one = objects(6, 6)
  small = moved(moves.scale, (0.5, 1.0), KEYS, one)
  assert small['valid'].all()
  height = small['boxes'][..., 2] - small['boxes'][..., 0]
  share = np.asarray(height) * 6
  np.testing.assert_allclose(share, share[:, :1] + np.zeros(36), rtol=1e-4)
  assert 0.5 <= share.min() < 0.6
  assert 0.9 < share.max() <= 1
  image, labels = pixels(6, 6)
  maps = {'inputs': image, 'labels': labels, 'valid': labels > 0}
  large = moved(moves.scale, (1.0, 2.0), KEYS, maps)
  assert large['valid'].all()
  assert (np.asarray(large['inputs']) >= 1).all()
  assert not np.asarray(
    moved(moves.scale, (0.5, 0.9), KEYS, maps)['valid']
  ).all()


def test_other_fields_are_moved_as_they_are_declared():
  one = example(2, 4)
  one |= {
    'depth': one['inputs'] / 8,
    'caption': np.arange(5, dtype=np.int32),
    'weight': np.float32(2),
    'joints': one['points'],
  }
  declared = {'depth': 'map', 'caption': 'fixed', 'joints': 'points'}
  found = moves.apply(MIRRORED, one, declared)
  np.testing.assert_array_equal(found['depth'], found['inputs'] / 8)
  np.testing.assert_array_equal(found['joints'], found['points'])
  for field in ('caption', 'weight'):
    np.testing.assert_array_equal(found[field], one[field])
  with pytest.raises(UserError, match=r"no rule for moving the field 'joints'"):
    moves.apply(MIRRORED, one, {**declared, 'joints': ''})
  one.pop('joints')
  with pytest.raises(UserError, match=r"'caption', \[5\] for one"):
    moves.apply(MIRRORED, one, {'depth': 'map'})


ADDS, LOSES = MIRRORED._replace(adds=True), MIRRORED._replace(loses=True)
LABELS = {
  'map': np.zeros((2, 4), np.int32),
  'objects': np.zeros(2, np.int32),
  'class': np.zeros((), np.int32),
}


@pytest.mark.parametrize(
  ('move', 'labels', 'fields', 'said'),
  [
    (ADDS, 'map', (), r"'labels' something comes in .* 'valid' .* \[2, 4\]"),
    (LOSES, 'map', (), ''),
    (MIRRORED, 'map', (), ''),
    (LOSES, 'objects', ('boxes',), r"'boxes' something is cut .* \[2\]"),
    (LOSES, 'objects', ('points',), r"'points' something is cut"),
    (ADDS, 'objects', ('boxes', 'points'), ''),
    (LOSES, 'class', ('points',), r"'points' something is cut"),
    (MIRRORED, 'objects', (), r"no rule .* 'labels', \[2\]"),
    (ADDS._replace(loses=True), 'class', (), ''),
  ],
)
def test_labels_need_a_field_that_says_what_counts(move, labels, fields, said):
  one = example(2, 4)
  one = {'inputs': one['inputs'], **{field: one[field] for field in fields}}
  one['labels'] = LABELS[labels]
  if not said:
    moves.apply(move, one, {})
    one['valid'] = np.ones(one['labels'].shape, bool)
    return
  with pytest.raises(UserError, match=said):
    moves.apply(move, one, {})


@pytest.mark.parametrize(
  ('op', 'arguments', 'said'),
  [
    (moves.dihedral, (), 'square images, got 2 by 4'),
    (moves.pad_and_crop, (-1,), 'padding=-1'),
    (moves.random_crop, (3,), r'to=\(3, 3\) should be .* at most 2 and 4'),
    (moves.random_crop, ((2, 0),), r'to=\(2, 0\)'),
    (moves.random_crop, ((2, 2, 2),), r'to=\(2, 2, 2\)'),
    (moves.scale, (1.2, 0.8), 'low=1.2'),
    (moves.scale, (0.0, 1.0), 'low=0.0'),
  ],
)
def test_arguments_that_make_no_sense(op, arguments, said):
  with pytest.raises(UserError, match=said):
    op(KEYS[0], (2, 4), *arguments)


def test_images_of_few_bits_keep_their_type():
  one = {'inputs': jnp.ones((4, 4, 1), jnp.bfloat16), 'labels': np.int32(1)}
  move = moves.scale(KEYS[0], (4, 4), 0.5, 0.8)
  assert moves.apply(move, one, {})['inputs'].dtype == jnp.bfloat16
