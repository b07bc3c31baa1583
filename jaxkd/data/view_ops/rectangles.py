"""Random rectangles in an image, by their area and shape."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.errors import UserError
from jaxkd.keys import fold

TRIES = 10  # as torchvision has it


class Rectangle(NamedTuple):
  """A rectangle of whole pixels.

  Attributes:
    found: whether one of the tries was inside of the image, bool [].
    start: top and left, int32 [2].
    size: height and width, int32 [2].
  """

  found: Array
  start: Array
  size: Array


def draw(
  key: Array,
  image: tuple[int, int],
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> Rectangle:
  """Draws a rectangle anywhere in an image.

  Its area is uniform, and so is the logarithm of its shape; sides are rounded.
  What is larger than the image is drawn again, `TRIES` times at most.

  Args:
    key: of the draws.
    image: its height and width in pixels.
    scale: the least and the largest area, as shares of that of the image.
    ratio: the least and the largest width over height.
  """
  sides = jnp.array(image)
  shares = jax.random.uniform(
    fold(key, 'area'), (TRIES,), minval=scale[0], maxval=scale[1]
  )
  low, high = (math.log(end) for end in ratio)
  shapes = jax.random.uniform(
    fold(key, 'ratio'), (TRIES,), minval=low, maxval=high
  )
  root, stretch = jnp.sqrt(shares * math.prod(image)), jnp.exp(shapes / 2)
  sizes = jnp.stack([root / stretch, root * stretch], axis=1)
  sizes = jnp.round(sizes).astype(jnp.int32)
  fits = ((sizes > 0) & (sizes <= sides[None])).all(axis=1)
  size = sizes[fits.argmax()]
  room = jnp.maximum(sides - size, 0)
  start = jax.random.randint(fold(key, 'place'), (2,), 0, room + 1)
  return Rectangle(fits.any(), start, size)


def crop(
  key: Array,
  image: tuple[int, int],
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> Rectangle:
  """As `draw`; where none is found, the largest such shape in the middle."""
  height, width = image
  size = (
    min(height, max(1, round(width / ratio[0]))),
    min(width, max(1, round(height * ratio[1]))),
  )
  start = tuple(
    (whole - part) // 2 for whole, part in zip(image, size, strict=True)
  )
  drawn = draw(key, image, scale, ratio)
  return Rectangle(
    jnp.array(True),
    jnp.where(drawn.found, drawn.start, jnp.array(start)),
    jnp.where(drawn.found, drawn.size, jnp.array(size)),
  )


def check(
  scale: tuple[float, float], ratio: tuple[float, float], op: str
) -> None:
  """Refuses areas and shapes that no rectangle has.

  Raises:
    UserError: naming the op.
  """
  if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
    raise UserError(
      f'{op}(scale={scale}) needs the least and the largest share of the area, '
      'above 0 and at most 1, as in (0.08, 1)'
    )
  if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
    raise UserError(
      f'{op}(ratio={ratio}) needs the least and the largest width over height, '
      'above 0, as in (0.75, 1.33)'
    )
