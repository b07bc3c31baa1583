"""Inputs as people have them: ranges, layouts, channels."""

import re

import numpy as np
import pytest

from jaxkd.data import conventions, pixels
from jaxkd.data.examples import ArrayExamples
from jaxkd.errors import UserError

AT = 'data.source: mine'
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)


def read(x, **options):
  return pixels.as_inputs(x, conventions.of(**options), AT)


@pytest.mark.parametrize(
  ('given', 'range', 'wanted'),
  [
    (BYTES.astype(np.float32), (0, 255), BYTES / 255),
    (BYTES.astype(np.int64), (0, 255), BYTES / 255),
    (BYTES.astype(np.float16), [0, 255], BYTES / 255),
    (BYTES.astype(np.uint16) * 257, (0, 65535), BYTES / 255),
    (BYTES / 127.5 - 1, (-1, 1), BYTES / 255),
    (BYTES // 128, (0, 1), BYTES // 128),
    (BYTES[..., 0] + 0.0, (0, 255), BYTES[..., :1] / 255),
    (BYTES.reshape(6, -1) + 0.0, (0, 255), BYTES.reshape(6, -1) / 255),
  ],
)
def test_a_range_that_is_given_becomes_0_to_1(given, range, wanted):
  made = read(given, range=range)
  assert made.dtype == np.float32
  np.testing.assert_allclose(made, wanted, atol=1e-6)


def test_bytes_stay_bytes():
  for options in ({}, {'range': (0, 255)}, {'range': 'any'}):
    made = read(BYTES, **options)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, BYTES)


def test_what_goes_beyond_the_range_is_named():
  images = np.ones((6, 5, 5, 3))
  images[4, 1, 2, 0] = 256
  message = r'mine: example 4 holds 256\.0, which is not from 0 to 255, as data'
  with pytest.raises(UserError, match=message):
    read(images, range=(0, 255))


@pytest.mark.parametrize(
  'shape',
  [(6, 3, 5, 9), (6, 1, 28, 28), (6, 4, 5, 5), (6, 12, 32, 32), (6, 2, 3, 8),
   (6, 3, 4, 4)],
)  # fmt: skip
def test_channels_that_come_first(shape):
  images = RNG.random(shape)
  message = r'\(6, .*first; set data\.kw\.layout=.NCHW. .*NHWC.*features'
  with pytest.raises(UserError, match=message):
    read(images)
  moved = read(images, layout='NCHW')
  np.testing.assert_array_equal(moved, images.transpose(0, 2, 3, 1).astype('f'))
  for layout in ('NHWC', 'features'):
    np.testing.assert_array_equal(
      read(images, layout=layout), images.astype('f')
    )


@pytest.mark.parametrize(
  'shape',
  [(6, 32, 32, 3), (6, 5, 4, 3), (6, 3, 4, 1), (6, 1, 87, 2), (6, 4, 4, 4),
   (6, 8, 8, 16), (6, 64, 64, 12), (6, 3, 32, 32, 3)],
)  # fmt: skip
def test_channels_that_come_last(shape):
  assert read(RNG.random(shape)).shape == shape


def test_only_images_have_channels_to_move():
  with pytest.raises(UserError, match=r"^data\.kw\.layout: 'NCHW' is for ima"):
    read(np.zeros((6, 5)), layout='NCHW')


def test_what_is_no_image_stays_as_it_is():
  x = RNG.normal(size=(6, 7, 5))
  np.testing.assert_array_equal(read(x, layout='features'), x.astype('f'))


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    (
      BYTES // 128,
      r'from 0 to 1 of 255; .*range of the pixels: \(0, 1\) or,.* \(0, 255\)',
    ),
    (
      (BYTES / 255**2).astype('f'),
      r'from 0 to 0\.0039\d* of 1; .*range of the pixels: \(0,',
    ),
  ],
)
def test_images_that_are_all_but_black_are_refused(images, message):
  split = ArrayExamples(images, np.arange(6))
  with pytest.raises(UserError, match=f'mine has images .*black, {message}'):
    pixels.check_brightness(split, conventions.of(), AT)
  for options in ({'range': (0, 1)}, {'layout': 'features'}):
    pixels.check_brightness(split, conventions.of(**options), AT)
  for other in (images * 3, images * 0):
    split = ArrayExamples(other, np.arange(6))
    pixels.check_brightness(split, conventions.of(), AT)


def test_bytes_are_taken_from_0_to_255_in_vectors_too():
  features = (BYTES // 128).reshape(6, -1)
  message = (
    r'mine has bytes that are all but black, .*range of the bytes: \(0, 1\) or'
  )
  with pytest.raises(UserError, match=message):
    pixels.check_brightness(
      ArrayExamples(features, np.arange(6)), conventions.of(), AT
    )
  for other in (features / 255, features.astype(np.int32), features * 3):
    split = ArrayExamples(other.astype(other.dtype), np.arange(6))
    pixels.check_brightness(split, conventions.of(), AT)


@pytest.mark.parametrize(
  ('inputs', 'options', 'note'),
  [
    (BYTES, {}, ''),
    (BYTES / 255, {}, ''),
    (BYTES.reshape(6, -1) / 255, {}, ''),
    (BYTES.reshape(6, -1) + 0.0, {}, 'from 0 to 2\\d\\d, as they are'),
    (BYTES / 25 - 3, {'layout': 'features'}, 'from -3 to .*, as they are'),
    (BYTES, {'range': 'any'}, 'from 0 to 2\\d\\d, as they are'),
    # What was from 0 to 1 already, and is so twice now.
    (BYTES / 255, {'range': (0, 255)},
     r'from 0 to 0\.0039\d*, by .*range=\(0, 255\)'),
    (BYTES / 255, {'range': [-1, 1]}, r'from 0\.5 to 1, by .*=\(-1, 1\)'),
  ],
)  # fmt: skip
def test_unusual_ranges_are_noted(inputs, options, note):
  split = ArrayExamples(read(inputs, **options), np.arange(6))
  found = pixels.said_ranges({'train': split}, conventions.of(**options))
  (said,) = found if note else [*found, '']
  assert re.search(f'^inputs in train are {note}$' if note else '^$', said)


def test_a_range_that_makes_images_all_but_black_is_refused():
  """Images from 0 to 1 of which it is said that they are from 0 to 255."""
  given = conventions.of(range=(0, 255))
  images = pixels.as_inputs(BYTES / 255, given, AT)
  examples = ArrayExamples(images, np.zeros(6, int))
  message = r'images from 0 to 1, which .*range=\(0, 255\) makes .* \(0, 1\)'
  with pytest.raises(UserError, match=message):
    pixels.check_brightness(examples, given, AT)
  vectors = ArrayExamples(images.reshape(6, -1), np.zeros(6, int))
  pixels.check_brightness(vectors, given, AT)


@pytest.mark.parametrize('shape', [(9, 3, 4, 8, 8), (9, 4, 3, 8, 8)])
def test_videos_whose_channels_come_first_are_refused(shape):
  with pytest.raises(UserError, match='seem to come before height'):
    read(np.zeros(shape))
  assert read(np.zeros(shape), layout='features').shape == shape
  for last in ((9, 4, 8, 8, 3), (9, 3, 8, 6, 1), (9, 4, 8, 8, 16)):
    assert read(np.zeros(last)).shape == last
