"""Geometric augmentation: an image and its labels are transformed together.

Every op is a function ``op(key, size, *arguments) -> Move``: given the height
and width of an image, it draws a transform of coordinates. Images, label maps,
boxes and points are all transformed by that one `Move`, so they always agree,
and to add an op is to write one function here. See `jaxkd.data.positions` for
what the fields of an example mean.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.data import positions
from jaxkd.data.view_ops import rectangles
from jaxkd.errors import UserError
from jaxkd.keys import fold

VISIBLE = 0.2  # the share of a box's area that must stay inside the image

Size = tuple[int, int]


class Move(NamedTuple):
  """A transform of image coordinates: an optional transpose, scale and shift.

  Along each axis, position p of the old image, in pixels from its upper left
  corner, becomes ``scale * p + shift`` in the new image.

  Attributes:
    size: height and width of the new image.
    scale: float32 [2], of rows and columns; negative for a flip.
    shift: float32 [2], in pixels.
    swapped: whether rows and columns are swapped first, bool []; only for
      square images.
    resamples: whether new pixels are interpolated from old ones; else each is a
      copy of one.
    adds: whether pixels from outside of the old image may come in.
    loses: whether parts of the old image may be cropped away.
  """

  size: Size
  scale: Array
  shift: Array
  swapped: Array | None = None
  resamples: bool = False
  adds: bool = False
  loses: bool = False


def apply(
  move: Move, fields: Mapping[str, Any], declared: Mapping[str, str]
) -> dict[str, Any]:
  """Transforms an example.

  Label maps use the nearest neighbour. Pixels from outside of the old image are
  0, and not valid. Inputs may be several images of one size, which move alike;
  those around `positions.ZERO` get that from outside, and vectors are turned
  and scaled as well. Boxes are clipped to the image; those with less than a
  share `VISIBLE` of their area left, and points outside of it, become invalid.

  Args:
    move: from an op.
    fields: of one example: ``inputs``, an image [H, W, C] or a dict of them,
      and its labels.
    declared: kinds of fields that are not clear by name; see `Source.fields`.

  Raises:
    UserError: a field of unknown kind, or labels that may leave the image
      without a field ``valid`` to mark them.
  """
  kinds = positions.kinds(fields, declared)
  _check(move, fields, kinds)
  moved, seen = dict(fields), []
  inputs = fields['inputs']
  old = positions.size_of(inputs)
  if isinstance(inputs, Mapping):
    moved['inputs'] = {
      name: _shown(move, x, declared.get(name)) for name, x in inputs.items()
    }
  else:
    moved['inputs'] = _shown(move, inputs, declared.get('inputs'))
  for field, kind in kinds.items():
    if kind == positions.MAP:
      moved[field] = _nearest(move, fields[field])
    if kind == positions.BOXES:
      corners = fields[field].reshape(-1, 2, 2)
      corners = _placed(move, corners, old)
      corners = jnp.stack([corners.min(1), corners.max(1)], 1)
      inside = jnp.clip(corners, 0, 1)
      moved[field] = inside.reshape(-1, 4)
      left, whole = _area(inside), _area(corners)
      seen.append((left > 0) & (left >= VISIBLE * whole))
    if kind == positions.POINTS:
      moved[field] = _placed(move, fields[field], old)
      seen.append(((moved[field] >= 0) & (moved[field] <= 1)).all(-1))
  if move.loses:
    for each in seen:
      moved['valid'] &= each
  return moved


# The ops.


def flip(key: Array, size: Size) -> Move:
  """Flips left and right with probability 1/2.

  Points keep their order: the point labelled as the left eye keeps that index.
  """
  axes = jnp.array([False, True]) & jax.random.bernoulli(key)
  return _mirrored(size, axes)


def dihedral(key: Array, size: Size) -> Move:
  """Applies one of the eight symmetries of the square, drawn uniformly.

  Only for square images. Points keep their order, as in `flip`.
  """
  if size[0] != size[1]:
    raise UserError(f'it needs square images, got {size[0]} by {size[1]}')
  mirrored, swapped = jnp.split(jax.random.bernoulli(key, shape=(3,)), [2])
  return _mirrored(size, mirrored)._replace(swapped=swapped[0])


def pad_and_crop(key: Array, size: Size, padding: int) -> Move:
  """Pads all sides by ``padding``, then takes a random crop of the old size."""
  if padding < 0:
    raise UserError(f'padding={padding} should be 0 or more')
  place = jax.random.randint(key, (2,), -padding, padding + 1)
  shift = place.astype(jnp.float32)
  return Move(size, jnp.ones(2), shift, adds=padding > 0, loses=padding > 0)


def random_crop(key: Array, size: Size, to: int | tuple) -> Move:
  """Takes a random crop of ``to`` x ``to`` pixels, or ``to=(height, width)``.

  Nets train on crops of that size, and are evaluated on whole images.
  """
  to = to if isinstance(to, tuple) else (to, to)
  if len(to) != 2 or not all(
    type(new) is int and 1 <= new <= old
    for new, old in zip(to, size, strict=False)
  ):
    raise UserError(
      f'to={to} should be a height and a width of at least 1 and at most '
      f'{size[0]} and {size[1]}, which the images have'
    )
  room = jnp.array([old - new for new, old in zip(to, size, strict=True)])
  place = jax.random.randint(key, (2,), 0, room + 1)
  shift = -place.astype(jnp.float32)
  return Move(to, jnp.ones(2), shift, loses=to != size)


def random_resized_crop(
  key: Array,
  size: Size,
  to: int | tuple,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Move:
  """A crop of random area and shape, resized to ``to`` x ``to`` pixels.

  As the view of that name; or ``to=(height, width)``.
  """
  to = to if isinstance(to, tuple) else (to, to)
  if len(to) != 2 or not all(type(new) is int and new >= 1 for new in to):
    raise UserError(f'to={to} should be a height and a width of at least 1')
  rectangles.check(scale, ratio, 'random_resized_crop')
  part = rectangles.crop(key, size, scale, ratio)
  stretch = jnp.array(to, jnp.float32) / part.size.astype(jnp.float32)
  shift = -part.start.astype(jnp.float32) * stretch
  return Move(to, stretch, shift, resamples=True, loses=True)


def scale(key: Array, size: Size, low: float, high: float) -> Move:
  """Rescales the content by a factor drawn from [low, high).

  The image keeps its size: enlarged content is cropped at a random place, and
  reduced content is placed at random among zeros. Interpolation is linear, with
  antialiasing.
  """
  if not 0 < low <= high:
    raise UserError(f'low={low}, high={high} should be 0 < low <= high')
  factor = jax.random.uniform(fold(key, 'factor'), (), minval=low, maxval=high)
  room = (1 - factor) * jnp.array(size, jnp.float32)
  shift = room * jax.random.uniform(fold(key, 'place'), (2,))
  return Move(
    size,
    jnp.stack([factor, factor]),
    shift,
    resamples=True,
    adds=low < 1,
    loses=high > 1,
  )


def _mirrored(size: Size, axes: Array) -> Move:
  """Flips along the axes that are true, bool [2]: rows, columns."""
  whole = jnp.array(size, jnp.float32)
  return Move(
    size,
    jnp.where(axes, -1.0, 1.0),
    jnp.where(axes, whole, jnp.zeros_like(whole)),
  )


# The rules.


def _source(move: Move, axis: int, length: int) -> tuple[Array, Array]:
  """The position in the old image of each new pixel, along one axis.

  Returns:
    The positions, float32 [size], and whether they are inside, bool [size].
  """
  middle = jnp.arange(move.size[axis], dtype=jnp.float32) + 0.5
  position = (middle - move.shift[axis]) / move.scale[axis]
  return position, (position >= 0) & (position < length)


def _swapped(move: Move, x: Array) -> Array:
  if move.swapped is None:
    return x
  return jnp.where(move.swapped, jnp.swapaxes(x, 0, 1), x)


def _shown(move: Move, image: Array, kind: str | None) -> Array:
  """An image [H, W, C] after the move, or vectors, turned and scaled too."""
  move_image = _interpolated if move.resamples else _nearest
  if kind not in positions.AROUND_ZERO:
    return move_image(move, image)
  zero = positions.ZERO / 255
  signed = move_image(move, image - zero)
  if kind == positions.VECTORS:
    signed = _turned(move, signed)
  return jnp.clip(signed + zero, 0, 1)


def _turned(move: Move, vectors: Array) -> Array:
  """Vectors [H, W, 2 n] whose directions and lengths change with the image."""
  pairs = vectors.reshape(*vectors.shape[:2], -1, 2)
  if move.swapped is not None:
    pairs = jnp.where(move.swapped, pairs[..., ::-1], pairs)
  scale = move.scale[::-1].astype(pairs.dtype)  # right comes before down
  return (pairs * scale.reshape(1, 1, 1, 2)).reshape(vectors.shape)


def _nearest(move: Move, x: Array) -> Array:
  """Nearest-neighbour sampling of [H, W, ...]; 0 from outside."""
  x = _swapped(move, x)
  for axis in (0, 1):
    length = x.shape[axis]
    position, inside = _source(move, axis, length)
    index = jnp.floor(position).astype(jnp.int32)
    x = jnp.take(x, jnp.clip(index, 0, length - 1), axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    x = jnp.where(inside.reshape(shape), x, jnp.zeros_like(x))
  return x


def _interpolated(move: Move, image: Array) -> Array:
  """Bilinear sampling of an image [H, W, C]; 0 from outside.

  Where the image shrinks, the triangle filter widens: antialiasing.
  """
  weights = []
  for axis, length in enumerate(image.shape[:2]):
    position, inside = _source(move, axis, length)
    middle = jnp.arange(length, dtype=jnp.float32) + 0.5
    reach = jnp.maximum(1.0, 1 / jnp.abs(move.scale[axis]))
    position = jnp.clip(position, 0, length)
    apart = jnp.abs(position[:, None] - middle[None]) / reach
    near = jnp.maximum(0.0, 1 - apart)
    near /= near.sum(1, keepdims=True)
    weights.append(jnp.where(inside[:, None], near, 0.0))
  return jnp.einsum(
    'yh,hwc,xw->yxc',
    weights[0].astype(image.dtype),
    _swapped(move, image),
    weights[1].astype(image.dtype),
    precision='highest',
  )


def _placed(move: Move, x: Array, old: Size) -> Array:
  """Transforms positions [..., 2], given and returned as shares of the size."""
  if move.swapped is not None:
    x = jnp.where(move.swapped, x[..., ::-1], x)
  lead = (1,) * (x.ndim - 1)
  pairs = (move.scale, move.shift, jnp.array(old), jnp.array(move.size))
  scale, shift, before, after = (
    p.astype(x.dtype).reshape(*lead, 2) for p in pairs
  )
  return (scale * x * before + shift) / after


def _area(corners: Array) -> Array:
  """The area of boxes [M, 2, 2], each (top left, bottom right)."""
  return jnp.prod(corners[:, 1] - corners[:, 0], axis=-1)


def _check(
  move: Move, fields: Mapping[str, Any], kinds: Mapping[str, str]
) -> None:
  for field, kind in kinds.items():
    shape = list(fields[field].shape)
    if kind == positions.UNKNOWN:
      raise UserError(
        f'there is no rule for moving the field {field!r}, {shape} for one '
        'example; leave the op out, or say what it is in the `fields` of the '
        "source, e.g. 'map', or 'fixed' if it says nothing about positions"
      )
    of_pixels = kind == positions.MAP and move.adds
    of_objects = kind in (positions.BOXES, positions.POINTS) and move.loses
    if not (of_pixels or of_objects):
      continue
    count = 2 if of_pixels else 1
    valid = fields.get('valid')
    if valid is None or valid.shape != fields[field].shape[:count]:
      what = 'comes in from outside' if of_pixels else 'is cut off'
      raise UserError(
        f'of the field {field!r} something {what}, and the examples have no '
        f"field 'valid' of the shape {shape[:count]} to tell what counts; give "
        'them one, or leave the op out'
      )
