"""Ops of RandAugment against Pillow, and how they are drawn."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxkd.data import views
from jaxkd.data.view_ops import policies

PIXELS = np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)
RANGES = policies.Ranges(0.3, (9.0, 11.0), 30.0, 0.9, 4)
MAGNITUDE, SIGN = 17, -1
SHARE = MAGNITUDE / policies.STEPS


@pytest.fixture(scope='module')
def found():
  """The image after each op, by its name."""
  image = jnp.array(PIXELS, jnp.float32) / 255

  def apply(op):
    magnitude, sign = jnp.array(MAGNITUDE), jnp.float32(SIGN)
    return policies.apply(image, op, magnitude, sign, RANGES)

  every = jax.jit(jax.vmap(apply))(np.arange(len(policies.OPS)))
  return dict(zip(policies.OPS, 255 * np.asarray(every), strict=True))


def affine(*values):
  """As Pillow moves pixels."""
  return lambda image: image.transform(
    image.size, Image.Transform.AFFINE, values
  )


EXACT = {
  'identity': lambda image: image,
  'shear_x': affine(1, -0.3 * SHARE, 0, 0, 1, 0),
  'shear_y': affine(1, 0, 0, -0.3 * SHARE, 1, 0),
  'translate_x': affine(1, 0, -math.trunc(11 * SHARE), 0, 1, 0),
  'translate_y': affine(1, 0, 0, 0, 1, -math.trunc(9 * SHARE)),
  'posterize': lambda image: ImageOps.posterize(image, 8 - round(4 * SHARE)),
  'solarize': lambda image: ImageOps.solarize(image, 255 - 255 * SHARE),
  'equalize': ImageOps.equalize,
}
ROUNDED = {
  'autocontrast': ImageOps.autocontrast,
  **{
    name: lambda image, of=of: of(image).enhance(1 - 0.9 * SHARE)
    for name, of in (
      ('brightness', ImageEnhance.Brightness),
      ('saturation', ImageEnhance.Color),
      ('contrast', ImageEnhance.Contrast),
      ('sharpness', ImageEnhance.Sharpness),
    )
  },
}


def test_every_op_is_compared():
  assert {*policies.OPS} == {*EXACT, *ROUNDED, 'rotate'}


@pytest.mark.parametrize('name', [*EXACT, *ROUNDED])
def test_ops_are_those_of_pillow(found, name):
  change = (EXACT | ROUNDED)[name]
  expected = np.asarray(change(Image.fromarray(PIXELS)), np.float32)
  within = 1e-3 if name in EXACT else 2.1
  np.testing.assert_allclose(found[name], expected, atol=within)


def test_rotates_as_pillow_does_but_for_ties(found):
  image = Image.fromarray(PIXELS)
  expected = np.asarray(image.rotate(30 * SHARE), np.float32)
  alike = np.isclose(found['rotate'], expected, atol=1e-3).all(-1)
  assert alike.mean() > 0.99
  assert (found['rotate'][[0, -1], [0, -1]] == 0).all()


IMAGES = np.stack([PIXELS] * 64)
IDS = np.arange(64, dtype=np.int32)


@functools.cache
def seen(text):
  """64 copies of the image, each with draws of its own."""
  view = views.parse(text)
  run = jax.jit(functools.partial(views.apply, view, seed=0))
  return np.asarray(run(IMAGES, epoch=IDS * 0, id=IDS)) * 255


def test_trivial_augment_draws_op_magnitude_and_direction_for_each_example():
  made = seen('trivial_augment')
  assert len(np.unique(made.reshape(64, -1), axis=0)) > 40
  plain = (np.abs(made - PIXELS) < 1e-3).all((1, 2, 3))
  assert 0 < plain.sum() < 20  # the identity, and a magnitude of 0
  dark = made.max((1, 2, 3))
  assert made.min() >= 0 and dark.max() <= 255.001


def test_rand_augment_applies_two_ops_of_one_magnitude():
  once, more = seen('rand_augment(1, 9)'), seen('rand_augment(2, 9)')
  plain = [
    (np.abs(x - PIXELS) < 1e-3).all((1, 2, 3)).sum() for x in (once, more)
  ]
  assert plain[0] > plain[1]
  # Of one op there are 14 with 9 directions more, and no other magnitudes.
  assert len(np.unique(once.round(1).reshape(64, -1), axis=0)) <= 23
  assert len(np.unique(more.round(1).reshape(64, -1), axis=0)) > 40


def test_grey_images_may_have_all_ops():
  view = views.parse('rand_augment|trivial_augment')
  assert views.output_shape(view, (8, 8, 1)) == (8, 8, 1)
