"""Random rectangles: inside of the image, of the wanted area and shape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxkd.data import moves, views
from jaxkd.data.view_ops import rectangles
from jaxkd.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 256)
SIZE, SCALE, RATIO = (60, 80), (0.1, 0.6), (0.5, 2.0)


def drawn(function, size=SIZE, scale=SCALE, ratio=RATIO):
  run = functools.partial(function, image=size, scale=scale, ratio=ratio)
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(KEYS))


@pytest.mark.parametrize('function', [rectangles.draw, rectangles.crop])
def test_are_inside_and_of_all_areas_shapes_and_places(function, strict_dtypes):
  found, start, size = drawn(function)
  assert found.all()
  assert (start >= 0).all() and (start + size <= np.array(SIZE)).all()
  area = size.prod(1) / np.prod(SIZE)
  assert 0.08 < area.min() < 0.15 and 0.5 < area.max() < 0.62
  shape = size[:, 1] / size[:, 0]
  assert 0.45 < shape.min() < 0.6 and 1.7 < shape.max() < 2.2
  assert 0.8 < np.exp(np.log(shape).mean()) < 1.4
  free = np.array(SIZE) - size
  assert (start == 0).any() and (start == free).any()


def test_what_never_fits_is_the_middle_of_the_shape():
  shape = {'size': (100, 10), 'scale': (1.0, 1.0), 'ratio': (0.5, 2.0)}
  assert not drawn(rectangles.draw, **shape).found.any()
  found, start, size = drawn(rectangles.crop, **shape)
  assert found.all()
  assert (size == (20, 10)).all() and (start == (40, 0)).all()
  wide = drawn(rectangles.crop, (10, 100), (1.0, 1.0), (0.5, 2.0))
  assert (wide.size == (10, 20)).all()


IMAGE = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)


def test_a_resized_crop_is_what_pillow_makes_of_the_same_part(strict_dtypes):
  for key in KEYS[:2]:
    part = rectangles.crop(key, (20, 30), (0.08, 1.0), (3 / 4, 4 / 3))
    (top, left), (height, width) = (x.tolist() for x in part[1:])
    made = views.random_resized_crop(key, IMAGE, 12)
    box = left, top, left + width, top + height
    for channel in range(3):
      image = Image.fromarray(IMAGE[..., channel])
      expected = image.resize((12, 12), Image.Resampling.BILINEAR, box)
      np.testing.assert_allclose(
        made[..., channel], np.asarray(expected), atol=1e-5
      )


def test_as_a_move_it_takes_boxes_along(strict_dtypes):
  key, boxes = (
    KEYS[0],
    np.array([[0.0, 0, 1, 1], [0.4, 0.4, 0.6, 0.6]], np.float32),
  )
  fields = {
    'inputs': IMAGE,
    'labels': np.zeros(2, np.int32),
    'boxes': boxes,
    'valid': np.ones(2, bool),
  }
  move = moves.random_resized_crop(key, (20, 30), 12, (0.5, 0.8))
  made = moves.apply(move, fields, {})
  assert made['inputs'].shape == (12, 12, 3)
  part = jax.tree.map(
    np.asarray, rectangles.crop(key, (20, 30), (0.5, 0.8), (3 / 4, 4 / 3))
  )
  sides = np.array([20, 30])
  corner = (boxes[1].reshape(2, 2) * sides - part.start) / part.size
  np.testing.assert_allclose(
    made['boxes'][1], np.clip(corner, 0, 1).reshape(-1), atol=1e-5
  )
  np.testing.assert_allclose(made['boxes'][0], [0, 0, 1, 1], atol=1e-6)
  # In the middle of the crop, where its edge is not seen, both are the same.
  shown = views.random_resized_crop(key, IMAGE, 12, (0.5, 0.8))
  np.testing.assert_allclose(
    made['inputs'][2:-2, 2:-2], shown[2:-2, 2:-2], atol=1e-5
  )


def erased(**options):
  run = functools.partial(
    views.random_erasing, image=jnp.array(IMAGE), **options
  )
  return np.asarray(jax.jit(jax.vmap(run))(KEYS))


def test_erasing_overwrites_a_rectangle_now_and_then(strict_dtypes):
  for probability in (0.0, 0.5, 1.0):
    made = erased(probability=probability, value=2.0)
    hole = (made == 2).all(-1)
    np.testing.assert_array_equal(made, np.where(hole[..., None], 2, IMAGE))
    share = hole.any((1, 2)).mean()
    assert abs(share - probability) < (0.15 if probability == 0.5 else 1e-6)
  rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
  np.testing.assert_array_equal(hole.sum((1, 2)), rows * columns)
  assert (
    0.01 < (rows * columns / 600).min() < (rows * columns / 600).max() < 0.36
  )
  noise = erased(probability=1.0, value='noise')[hole]
  assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('random_resized_crop(0)', r'size=0\) needs a size above 0'),
    ('random_resized_crop(4, (0, 1))', r'scale=\(0, 1\)\) needs the least'),
    ('random_resized_crop(4, (0.5, 1.5))', 'at most 1'),
    ('random_resized_crop(4, (0.5, 1), (2, 1))', r'ratio=\(2, 1\)\) needs'),
    ('random_resized_crop(4, 0.5)', r'for scale, 0.5 should be a list of 2'),
    ('random_erasing(2)', 'needs one from 0 to 1'),
    ("random_erasing(1, value='pixel')", r"number, or 'noise'"),
    ('color_jitter', 'changes nothing'),
    ('color_jitter(-1)', r'brightness=-1.0\) needs a number from 0 on'),
    ('color_jitter(hue=0.6)', 'from 0 to 0.5'),
    ('rand_augment(0)', 'needs an op or more'),
    ('rand_augment(2, 31)', 'from 0 to 30'),
    ('standardize(0.5, 0.2)|rand_augment', 'stands behind standardize'),
    ('segments(3)|trivial_augment', r'needs an image of shape'),
  ],
)
def test_what_cannot_be_is_refused(text, message):
  with pytest.raises(UserError, match=message):
    views.output_shape(views.parse(text), (8, 8, 3))


@pytest.mark.parametrize(
  ('text', 'channels', 'message'),
  [
    ('color_jitter(0.4, hue=0.1)', 1, 'no saturation and no hue'),
    ('color_jitter(0.4)', 2, 'grey or RGB, got 2'),
    ('rand_augment', 4, 'grey or RGB, got 4'),
  ],
)
def test_colours_need_grey_or_rgb(text, channels, message):
  with pytest.raises(UserError, match=message):
    views.output_shape(views.parse(text), (8, 8, channels))


def test_jitter_draws_each_factor_and_an_order():
  flat = jnp.full((4, 4, 3), 0.5)
  run = functools.partial(views.color_jitter, image=flat, brightness=0.4)
  found = np.asarray(jax.jit(jax.vmap(run))(KEYS))
  assert (found == found[:, :1, :1, :1]).all()
  level = found[:, 0, 0, 0] / 0.5
  assert 0.6 <= level.min() < 0.62 and 1.38 < level.max() <= 1.4
  # Of two changes that do not commute, both orders occur.
  both = functools.partial(
    views.color_jitter, image=jnp.array(IMAGE), brightness=0.9, contrast=0.9
  )
  made = np.asarray(jax.jit(jax.vmap(both))(KEYS[:64]))
  assert len(np.unique(made.reshape(64, -1), axis=0)) == 64
  assert made.min() >= 0 and made.max() <= 1


def test_all_but_erasing_and_jitter_move_pixels():
  text = 'random_resized_crop(4)|color_jitter(0.1)|rand_augment|trivial_augment'
  moved = views.moving(views.parse(text + '|random_erasing'))
  assert moved == ('random_resized_crop', 'rand_augment', 'trivial_augment')
  assert {'rand_augment', 'trivial_augment'} <= views.TURNING
