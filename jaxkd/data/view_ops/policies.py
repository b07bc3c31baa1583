"""The ops of RandAugment and TrivialAugment, one of which is drawn at a time.

They are the fourteen of torchvision 0.20, in its order, with its ranges,
nearest neighbours and zeros from outside. All that move pixels are one affine
map, so that a batch in which each image has an op of its own takes one lookup
of pixels and not fourteen.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data.view_ops import colours

STEPS = 30  # a magnitude is a whole number from 0 to this
OPS = (
  'identity',
  *('shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate'),
  *('brightness', 'saturation', 'contrast', 'sharpness'),
  *('posterize', 'solarize', 'autocontrast', 'equalize'),
)
_MOVING = 6  # the first ops, of which each has a map; others have the first's


class Ranges(NamedTuple):
  """What the ops do at the largest magnitude.

  Attributes:
    shear: pixels sideways for each pixel of the other axis.
    translate: pixels along the height and the width.
    degrees: of the rotation.
    mix: how far the factor of a mixture of colours is from 1.
    bits: of bytes that are lost.
  """

  shear: float
  translate: tuple[float, float]
  degrees: float
  mix: float
  bits: int


def apply(
  image: Array, op: Array, magnitude: Array, sign: Array, ranges: Ranges
) -> Array:
  """An image after one of the ops.

  Args:
    image: floats from 0 to 1, [H, W, 1 or 3].
    op: its number in `OPS`, int32 [].
    magnitude: int32 [], from 0 to `STEPS`.
    sign: 1 or -1, for the ops that have a direction.
    ranges: at the largest magnitude.
  """
  share = magnitude.astype(jnp.float32) / STEPS
  signed = sign * share
  maps = _maps(image.shape[:2], signed, ranges)
  image = warped(image, maps[jnp.where(op < _MOVING, op, 0)])
  factor = 1 + signed * ranges.mix
  lost = jnp.round(share * ranges.bits).astype(jnp.int32)
  changes = (
    lambda x: x,
    lambda x: colours.brightness(x, factor),
    lambda x: colours.saturation(x, factor),
    lambda x: colours.contrast(x, factor),
    lambda x: colours.sharpness(x, factor),
    lambda x: colours.posterize(x, 8 - lost),
    lambda x: colours.solarize(x, 1 - share),
    colours.autocontrast,
    colours.equalize,
  )
  return jax.lax.switch(jnp.maximum(op - _MOVING + 1, 0), changes, image)


def warped(image: Array, map: Array) -> Array:
  """An image after an affine map, by the nearest pixel, as Pillow has it.

  Args:
    image: [H, W, C].
    map: float32 [6], (a, b, c, d, e, f): the pixel whose middle is at (x, y),
      from the upper left corner, comes from (ax + by + c, dx + ey + f).

  Returns:
    [H, W, C], with zeros where that is outside.
  """
  height, width = image.shape[:2]
  y, x = jnp.meshgrid(
    jnp.arange(height, dtype=jnp.float32) + 0.5,
    jnp.arange(width, dtype=jnp.float32) + 0.5,
    indexing='ij',
  )
  a, b, c, d, e, f = map
  column = jnp.floor(a * x + b * y + c).astype(jnp.int32)
  row = jnp.floor(d * x + e * y + f).astype(jnp.int32)
  inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
  found = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
  return jnp.where(inside[..., None], found, 0)


def _maps(size: tuple[int, int], signed: Array, ranges: Ranges) -> Array:
  """The map of each op that moves pixels, float32 [6, 6]."""
  one, zero = jnp.ones(()), jnp.zeros(())
  shear = signed * ranges.shear
  down, right = (jnp.trunc(signed * most) for most in ranges.translate)
  angle = signed * math.radians(ranges.degrees)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  y, x = (side / 2 for side in size)  # the middle stays where it is
  maps = (
    (one, zero, zero, zero, one, zero),
    (one, shear, zero, zero, one, zero),
    (one, zero, zero, shear, one, zero),
    (one, zero, right, zero, one, zero),
    (one, zero, zero, zero, one, down),
    (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y),
  )
  return jnp.stack([jnp.stack(map) for map in maps])
