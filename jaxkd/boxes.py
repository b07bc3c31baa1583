"""Boxes of objects in images: anchors, overlaps, matching, offsets, NMS.

A box is (top, left, bottom, right) in shares of the image's height and width,
as in `jaxkd.data.positions`. An overlap of two boxes is the same in shares as
in pixels, and so are the offsets between them.

Arrays of objects have a fixed length M; `valid` says which of them are there.
Those that only fill up have no part in any result.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LEAST = 1e-6  # the least side of a box whose logarithm is taken, in shares
STRETCH = math.log(1000 / 16)  # the most that offsets stretch an anchor


def shapes(
  sides: Sequence[float], ratios: Sequence[float]
) -> tuple[tuple[float, float], ...]:
  """Heights and widths of anchors of each area `sides`² and each proportion.

  Args:
    sides: of the square anchors, in pixels.
    ratios: height / width.
  """
  return tuple(
    (side * ratio**0.5, side / ratio**0.5) for side in sides for ratio in ratios
  )


def anchors(
  size: tuple[int, int], stride: int, shapes: Sequence[Sequence[float]]
) -> np.ndarray:
  """The anchors of an image, also those that reach out of it.

  Args:
    size: height and width of the image in pixels.
    stride: of the cells in pixels; the last ones may reach out of the image.
    shapes: height and width in pixels of each of the A anchors of a cell.

  Returns:
    float32 [rows, columns, A, 4], around the centres of the cells.
  """
  rows, columns = (-(-n // stride) for n in size)
  down = (np.arange(rows) + 0.5) * stride
  across = (np.arange(columns) + 0.5) * stride
  centres = np.stack(np.meshgrid(down, across, indexing='ij'), -1)[:, :, None]
  half = np.asarray(shapes, np.float64) / 2
  corners = np.concatenate([centres - half, centres + half], -1)
  return (corners / np.array([*size, *size])).astype(np.float32)


def area(boxes: Array) -> Array:
  """The areas of boxes [..., 4]; 0 where corners are swapped."""
  sides = boxes[..., 2:] - boxes[..., :2]
  return jnp.prod(jnp.maximum(sides, 0), -1)


def iou(one: Array, other: Array) -> Array:
  """Intersection over union of all pairs: [..., N, 4], [..., M, 4] -> [N, M].

  It is 0 for two boxes without area.
  """
  one, other = one[..., :, None, :], other[..., None, :, :]
  corners = [
    jnp.maximum(one[..., :2], other[..., :2]),
    jnp.minimum(one[..., 2:], other[..., 2:]),
  ]
  both = area(jnp.concatenate(corners, -1))
  either = area(one) + area(other) - both
  return both / jnp.where(either == 0, 1, either)


def match(
  anchors: Array,
  boxes: Array,
  valid: Array,
  *,
  low: float = 0.4,
  high: float = 0.5,
) -> tuple[Array, Array, Array]:
  """The object that each anchor is to find.

  An anchor takes the object that it overlaps most, from an overlap of `high`
  on. Each object also has the anchor that overlaps it most, whatever the
  overlap; of several such objects the anchor takes the one of the largest.

  Lin et al., `Focal Loss for Dense Object Detection
  <https://arxiv.org/abs/1708.02002>`_, 2017.

  Args:
    anchors: [N, 4].
    boxes: of the objects, [M, 4].
    valid: which of them are there, bool [M].
    low: below this overlap an anchor is of the background.
    high: see above; between the two an anchor counts for nothing.

  Returns:
    The number of each anchor's object, int32 [N]; which anchors have one, bool
    [N]; and which are of the background, bool [N].
  """
  overlap = jnp.where(valid[None], iou(anchors, boxes), 0)
  best = overlap.max(-1)
  of_object = jnp.arange(len(anchors))[:, None] == overlap.argmax(0)[None]
  forced = jnp.where(of_object & (overlap > 0), overlap, 0)
  is_forced = (forced > 0).any(-1)
  which = jnp.where(is_forced, forced.argmax(-1), overlap.argmax(-1))
  found = is_forced | (best >= high)
  return which.astype(jnp.int32), found, ~found & (best < low)


def encode(boxes: Array, anchors: Array) -> Array:
  """Offsets of boxes from anchors, both [..., 4].

  The shift of the centre, down and across, in sides of the anchor, and the
  logarithms of the quotients of the heights and of the widths; Girshick et al.,
  `Rich feature hierarchies <https://arxiv.org/abs/1311.2524>`_, 2014, C.
  """
  centre, sides = _centred(boxes)
  from_centre, from_sides = _centred(anchors)
  sides = jnp.maximum(sides, LEAST)
  shift = (centre - from_centre) / from_sides
  return jnp.concatenate([shift, jnp.log(sides / from_sides)], -1)


def decode(offsets: Array, anchors: Array) -> Array:
  """Boxes from offsets, both [..., 4]; undoes `encode`.

  Sides are at most exp(`STRETCH`) times those of the anchor.
  """
  from_centre, from_sides = _centred(anchors)
  shift, stretch = offsets[..., :2], offsets[..., 2:]
  centre = from_centre + shift * from_sides
  half = jnp.exp(jnp.minimum(stretch, STRETCH)) * from_sides / 2
  return jnp.concatenate([centre - half, centre + half], -1)


def nms(
  boxes: Array, scores: Array, classes: Array, *, overlap: float
) -> Array:
  """Which boxes are no repetition of a better one of their class.

  From the best to the worst, a box is kept unless its overlap with one that is
  kept is larger than `overlap`. Of equal scores the first is the better one.

  Args:
    boxes: [P, 4].
    scores: [P].
    classes: int [P].
    overlap: from 0 to 1.

  Returns:
    bool [P].
  """
  number = jnp.arange(len(boxes))
  higher = scores[:, None] > scores[None]
  equal = scores[:, None] == scores[None]
  before = higher | (equal & (number[:, None] < number[None]))
  repeats = before & (iou(boxes, boxes) > overlap)
  repeats &= classes[:, None] == classes[None]

  # `repeats` has no cycle, so that what repeats no kept box is settled from the
  # best box on, in as many rounds as boxes hide one another in a row.
  def again(carry):
    kept, _ = carry
    return ~(repeats & kept[:, None]).any(0), kept

  start = jnp.ones(len(boxes), bool)
  kept, _ = jax.lax.while_loop(
    lambda carry: (carry[0] != carry[1]).any(), again, again((start, start))
  )
  return kept


def _centred(boxes: Array) -> tuple[Array, Array]:
  """Centres and sides, [..., 2] each, down and across."""
  low, high = boxes[..., :2], boxes[..., 2:]
  return (low + high) / 2, high - low
