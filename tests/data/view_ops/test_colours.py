"""Colours change as Pillow changes them, and NaN stays NaN."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxkd.data.view_ops import colours

RANDOM = np.random.default_rng(0)
# Uneven values, so that bytes are neither equally frequent nor all there.
RGB = (255 * RANDOM.beta(2, 4, (24, 20, 3))).astype(np.uint8)
GREY = RGB[..., :1]
FLAT = np.full((24, 20, 1), 77, np.uint8)


def made(change, pixels, *values):
  image = pixels.astype(np.float32) / 255
  found = jax.jit(change)(image, *values)
  assert found.dtype == np.float32
  assert found.shape == pixels.shape
  return 255 * np.asarray(found)


def pillow(change, pixels):
  image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
  return np.asarray(change(image), np.float32).reshape(pixels.shape)


@pytest.mark.parametrize('pixels', [RGB, GREY], ids=['rgb', 'grey'])
@pytest.mark.parametrize('factor', [0.1, 1.0, 1.9])
@pytest.mark.parametrize(
  ('change', 'enhancer'),
  [
    (colours.brightness, ImageEnhance.Brightness),
    (colours.saturation, ImageEnhance.Color),
    (colours.contrast, ImageEnhance.Contrast),
    (colours.sharpness, ImageEnhance.Sharpness),
  ],
)
def test_mixtures(pixels, factor, change, enhancer, strict_dtypes):
  expected = pillow(lambda image: enhancer(image).enhance(factor), pixels)
  found = made(change, pixels, np.float32(factor))
  # Pillow rounds the other image of the mixture and the result to bytes.
  assert np.abs(found - expected).max() < 2.1
  if factor == 1:
    np.testing.assert_allclose(found, pixels, atol=1e-3)


@pytest.mark.parametrize(
  'pixels', [RGB, GREY, FLAT], ids=['rgb', 'grey', 'flat']
)
def test_bytes_become_the_same_bytes(pixels, strict_dtypes):
  for bits in (1, 4, 8):
    np.testing.assert_allclose(
      made(colours.posterize, pixels, bits),
      pillow(lambda image, n=bits: ImageOps.posterize(image, n), pixels),
      atol=1e-3,
    )
  for threshold in (0, 40, 200, 255):
    np.testing.assert_allclose(
      made(colours.solarize, pixels, np.float32(threshold / 255)),
      pillow(lambda image, t=threshold: ImageOps.solarize(image, t), pixels),
      atol=1e-3,
    )
  np.testing.assert_allclose(
    made(colours.equalize, pixels), pillow(ImageOps.equalize, pixels), atol=1e-3
  )
  stretched = pillow(ImageOps.autocontrast, pixels)
  found = made(colours.autocontrast, pixels)
  assert np.abs(found - stretched).max() < 1.001  # which Pillow rounds off


@pytest.mark.parametrize('turn', [-0.5, 0.0, 0.1])
def test_hues_are_turned(turn, strict_dtypes):
  expected = []
  for pixel in RGB.reshape(-1, 3) / 255:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
  found = made(colours.hue, RGB, np.float32(turn)) / 255
  np.testing.assert_allclose(found.reshape(-1, 3), expected, atol=1e-5)


def test_small_images_have_nothing_to_sharpen():
  image = np.ones((2, 5, 3), np.float32) / 3
  np.testing.assert_array_equal(colours.sharpness(image, 0.0), image)


@pytest.mark.parametrize(
  'change',
  [
    *(functools.partial(f, factor=jnp.float32(0.5)) for f in (
      colours.brightness, colours.saturation, colours.sharpness)),
    functools.partial(colours.hue, turn=jnp.float32(0.1)),
    functools.partial(colours.posterize, bits=jnp.array(3)),
    functools.partial(colours.solarize, threshold=jnp.float32(0.5)),
    colours.autocontrast,
    colours.equalize,
  ],
)  # fmt: skip
def test_nan_stays_nan(change):
  image = RGB.astype(np.float32) / 255
  image[3, 4] = np.nan
  assert np.isnan(jax.jit(change)(image)[3, 4]).all()
