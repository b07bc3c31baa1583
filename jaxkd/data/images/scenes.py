"""Synthetic scenes: real objects on coloured canvases, with maps and boxes.

A scene depends only on the seed and its number, not on how many there are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from jaxkd.errors import UserError

# The least brightness of an object's pixels, of 1; clothes may be dark.
THRESHOLDS = {'digits': 0.4, 'fashion_mnist': 0.1}
SIDES = 0.29, 0.58  # sides of objects, as shares of the scene's
GRIDS = 3, 6, 12  # sizes of the noise of a texture, coarse to fine
STROKES = 5  # in a scene, at most
MOST = 100  # objects in a scene; so many cover all of its canvas
APART = 0.35  # the least distance of an object's colour from those behind it
VISIBLE = 0.4  # the least share of an object that is seen, for it to have a box
_FINER = 3  # supersampling of strokes
_EDGE = 4.0  # steepness of the edges of objects


class Objects(NamedTuple):
  """The objects of scenes that are not hidden.

  Attributes:
    labels: their classes, int32 [N, most]; 0 where there is none.
    boxes: around what is seen of them, float32 [N, most, 4], as in
      `jaxkd.data.positions`; 0 where there is none.
    valid: where there is one, bool [N, most].
  """

  labels: np.ndarray
  boxes: np.ndarray
  valid: np.ndarray


class Scenes(NamedTuple):
  """Images, their label maps and their objects.

  Attributes:
    images: uint8 [N, size, size, 3].
    labels: 0 for the background, k + 1 for objects of class k, int32 [N, size,
      size]; 0 where they do not count.
    valid: which of them count, bool [N, size, size].
    objects: of which at least a share `VISIBLE` of the pixels is seen.
  """

  images: np.ndarray
  labels: np.ndarray
  valid: np.ndarray
  objects: Objects


def compose(
  objects: np.ndarray,
  classes: np.ndarray,
  count: int,
  *,
  size: int,
  most: int,
  threshold: float,
  seed: tuple[int, ...],
) -> Scenes:
  """Scenes, about 700 a second.

  A canvas blends two colours by smooth noise; its strokes are not objects.
  Objects are scaled to between 0.29 and 0.58 of its side, coloured differently
  from what they occlude, and placed anywhere, later ones over earlier ones. The
  pixels of an object have its class, and the pixels next to it do not count.

  Args:
    objects: grey images, bright on dark, uint8 or floats from 0 to 1 [n, h, w].
    classes: of them, int [n].
    count: how many scenes.
    size: their side in pixels.
    most: objects of a scene, up to `MOST`; each number from 1 on is as likely.
    threshold: above which a pixel is of the object, from 0 to 1.
    seed: of the draws.

  Raises:
    UserError: a size that makes no sense.
  """
  if not 24 <= size <= 512:
    raise UserError(
      f'data.kw.size: scenes cannot have {size} pixels; use 24 to 512'
    )
  from scipy import ndimage  # slow to import

  made = Scenes(
    np.empty((count, size, size, 3), np.uint8),
    np.zeros((count, size, size), np.int32),
    np.ones((count, size, size), bool),
    Objects(
      np.zeros((count, most), np.int32),
      np.zeros((count, most, 4), np.float32),
      np.zeros((count, most), bool),
    ),
  )
  for i in range(count):
    draw = np.random.default_rng([*seed, i])
    image = canvas(draw, size)
    owner = np.zeros((size, size), int)  # number of an object; 0 is the canvas
    kinds, pixels = [], []
    for number in range(1, draw.integers(1, most + 1) + 1):
      which = draw.integers(len(objects))
      shape = _placed(draw, objects[which], size)
      own = shape > threshold
      ring = ndimage.binary_dilation(own, np.ones((3, 3))) & ~own
      _paint(draw, image, shape, threshold)
      made.labels[i][own] = classes[which] + 1
      made.labels[i][ring] = 0
      made.valid[i][own] = True
      made.valid[i][ring] = False
      owner[own] = number
      kinds.append(classes[which])
      pixels.append(own.sum())
    _note(made.objects, i, owner, kinds, pixels)
    made.images[i] = np.round(255 * image.clip(0, 1))
  return made


def _note(
  objects: Objects,
  i: int,
  owner: np.ndarray,
  classes: Sequence[int],
  pixels: Sequence[int],
) -> None:
  """Writes down the objects of scene i that are not hidden.

  Args:
    objects: of all scenes.
    i: the number of the scene.
    owner: the number of the object that is seen at each pixel, from 1 on.
    classes: of its objects.
    pixels: how many each of them has, hidden ones included.
  """
  from scipy import ndimage

  there = 0
  places = ndimage.find_objects(owner, len(classes))
  for number, place in enumerate(places):
    seen = (owner == number + 1).sum()
    if not seen or seen < VISIBLE * pixels[number]:
      continue
    rows, columns = place
    box = rows.start, columns.start, rows.stop, columns.stop
    objects.labels[i, there] = classes[number]
    objects.boxes[i, there] = np.array(box) / len(owner)
    objects.valid[i, there] = True
    there += 1


def canvas(draw: np.random.Generator, size: int) -> np.ndarray:
  """A texture with strokes, floats from about 0 to 1, [size, size, 3]."""
  noise = sum(
    _resized(draw.random((n, n)), size) / 2**i for i, n in enumerate(GRIDS)
  )
  blend = (noise - noise.min()) / np.ptp(noise)
  one, other = draw.uniform(0.1, 0.9, (2, 3))
  image = one + (other - one) * blend[..., None]
  image += draw.normal(0, 0.02, image.shape)
  for _ in range(draw.integers(STROKES + 1)):
    large = size * _FINER
    ink = Image.new('L', (large, large))
    steps = draw.normal(0, large / 9, (draw.integers(2, 5), 2))
    points = draw.uniform(0, large, 2) + np.cumsum(steps, axis=0)
    width = int(draw.uniform(0.02, 0.06) * large) + 1
    line = [tuple(point) for point in points.tolist()]
    ImageDraw.Draw(ink).line(line, 255, width, joint='curve')
    cover = np.asarray(ink.reduce(_FINER))[..., None] / 255
    image += cover * (draw.random(3) - image)
  return image


def _placed(
  draw: np.random.Generator, pixels: np.ndarray, size: int
) -> np.ndarray:
  """An object scaled and somewhere on a dark canvas, [size, size]."""
  if pixels.dtype == np.uint8:
    pixels = pixels / 255
  low, high = (round(share * size) for share in SIDES)
  side = draw.integers(low, high + 1)
  top, left = draw.integers(0, size - side + 1, 2)
  canvas = np.zeros((size, size))
  # Around it there is nothing, so that what fills its frame ends there.
  canvas[top : top + side, left : left + side] = _resized(
    np.pad(pixels, 1), side
  )
  return canvas


def _paint(
  draw: np.random.Generator,
  image: np.ndarray,
  shape: np.ndarray,
  threshold: float,
) -> None:
  """Covers the image with an object in a colour that can be seen there."""
  own = shape > threshold
  if not own.any():
    return
  hidden = image[own].mean(0)
  colour = draw.random(3)
  while np.abs(colour - hidden).max() < APART:
    colour = draw.random(3)
  shade = colour * (0.5 + 0.5 * shape.clip(0, 1)[..., None])
  cover = ((shape - threshold) * _EDGE + 0.5).clip(0, 1) * (shape > 0.02)
  image += cover[..., None] * (shade - image)


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
  image = Image.fromarray(pixels.astype(np.float32))
  return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
