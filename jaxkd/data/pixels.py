"""Arrays of inputs as people have them: converted for nets, or refused."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import ArrayExamples, Examples, as_numbers
from jaxkd.errors import UserError

_DARK = 1.01 / 255  # images whose brightest pixel is below are suspicious


def as_inputs(
  x: Any, conventions: Conventions, at: str, numbers: np.ndarray | None = None
) -> np.ndarray:
  """Converts inputs [n, ...] to what nets take; images to [n, H, W, C].

  Args:
    x: inputs [n, ...]; [n, H, W] are images without an axis of channels.
    conventions: of the inputs.
    at: what to call them in errors.
    numbers: of these examples, int [n]; 0, ..., n - 1 if they are all.

  Raises:
    UserError: not numbers, channels that seem to come first, or pixels outside
      of ``conventions.range``.
  """
  x = np.asarray(x)
  if conventions.layout == 'NCHW':
    if x.ndim != 4:
      raise UserError(
        f"data.kw.layout: 'NCHW' is for images [examples, channels, height, "
        f'width], and {at.partition(": ")[2]} has inputs of shape {x.shape}'
      )
    x = np.moveaxis(x, 1, -1)
  else:
    check_layout(x.shape, conventions, at)
  if conventions.ends:
    x = _scaled(x, conventions.ends, at, numbers)
  return as_numbers(x, at, numbers, images=conventions.layout != 'features')


def check_layout(
  shape: tuple[int, ...], conventions: Conventions, at: str
) -> None:
  """Refuses inputs [n, ...] whose channels seem to come first.

  Raises:
    UserError: they do, and ``conventions.layout`` is not set.
  """
  if conventions.layout:
    return
  if len(shape) == 5 and _seems_video_channels_first(shape):
    raise UserError(
      f'{at} has inputs of shape {shape}, in which the channels seem to come '
      'before height and width; move them last, as numpy.moveaxis does, or set '
      "data.kw.layout='NHWC' if the last axis has them, or 'features' if these "
      'are no images'
    )
  if _seems_channels_first(shape):
    raise UserError(
      f'{at} has inputs of shape {shape}, in which the channels seem to come '
      "first; set data.kw.layout='NCHW' to have them moved last, or 'NHWC' if "
      "the last axis has them, or 'features' if these are no images"
    )


def _seems_channels_first(shape: tuple[int, ...]) -> bool:
  if len(shape) != 4:
    return False
  _, channels, height, width = shape
  # Images are mostly square, and have few channels.
  return (channels <= 4 < width) or channels < height == width


def _seems_video_channels_first(shape: tuple[int, ...]) -> bool:
  """Of videos [n, C, T, H, W] or [n, T, C, H, W], or volumes."""
  *_, height, width = shape
  return not {1, 3}.isdisjoint(shape[1:3]) and height == width > 4


def _scaled(
  x: np.ndarray, range: Sequence[float], at: str, numbers: np.ndarray | None
) -> np.ndarray:
  """Rescales values from the given range to 0 to 1; bytes stay bytes."""
  low, high = range
  if x.dtype.kind not in 'biuf':
    return x  # which `as_numbers` refuses
  for i, *rest in np.argwhere((x < low) | (x > high)):
    raise UserError(
      f'{at}: example {i if numbers is None else numbers[i]} holds '
      f'{x[i, *rest]}, which is not from {low} to {high}, as data.kw.range says'
    )
  if x.dtype == np.uint8 and (low, high) == (0, 255):
    return x
  return (x.astype(np.float32) - np.float32(low)) / np.float32(high - low)


def check_brightness(
  examples: Examples, conventions: Conventions, at: str
) -> None:
  """Refuses images that are nearly black, e.g. divided by 255 twice.

  Bytes that are not images are checked in the same way. Floats may have been
  divided by ``conventions.range`` although they were from 0 to 1 before.

  Args:
    examples: a split; only one that is in memory is checked.
    conventions: of the inputs.
    at: what to call them in errors.

  Raises:
    UserError: the brightest pixel is at most 1 of 255.
  """
  _check_range(examples, conventions, at)
  if conventions.range or conventions.layout == 'features':
    return
  for leaf in _in_memory(examples):
    is_bytes = leaf.dtype == np.uint8
    if not is_bytes and (leaf.ndim < 4 or leaf.dtype != np.float32):
      continue
    least, most = leaf.min(), leaf.max()
    unit = 255 if is_bytes else 1
    if 0 <= least < most <= _DARK * unit:
      what = 'images' if leaf.ndim > 3 else 'bytes'
      parts = 'the pixels' if leaf.ndim > 3 else 'the bytes'
      raise UserError(
        f'{at} has {what} that are all but black, from {least:g} to {most:g} '
        f'of {unit}; set data.kw.range to the range of {parts}: '
        f'(0, {most:g}) or, if they are right, (0, {unit})'
      )


def _check_range(examples: Examples, conventions: Conventions, at: str) -> None:
  """Refuses a range that makes images nearly black."""
  low, high = conventions.ends or (0, 1)
  if low or high <= 1:
    return
  for leaf in _in_memory(examples):
    if leaf.ndim > 3 and leaf.dtype != np.uint8 and 0 < leaf.max() <= _DARK:
      least, most = (end * high for end in (leaf.min(), leaf.max()))
      raise UserError(
        f'{at} has images from {least:g} to {most:g}, which '
        f'data.kw.range={conventions.ends} makes all but black; set it to '
        f'(0, {most:g})'
      )


def said_ranges(
  splits: Mapping[str, Examples], conventions: Conventions
) -> Iterator[str]:
  """Notes for the row on a range that is given, or is not from 0 to 1."""
  how = (
    f'by data.kw.range={conventions.ends}'
    if conventions.ends
    else 'as they are'
  )
  for split, examples in splits.items():
    leaves = _in_memory(examples)
    if not conventions.range:
      leaves = [x for x in leaves if x.dtype.kind == 'f']
    if leaves:
      low, high = min(x.min() for x in leaves), max(x.max() for x in leaves)
      if conventions.range or low < 0 or high > 1:
        yield f'inputs in {split} are from {low:.4g} to {high:.4g}, {how}'


def _in_memory(examples: Examples) -> list[np.ndarray]:
  """The inputs of all examples; nothing if they are streamed."""
  if not isinstance(examples, ArrayExamples):
    return []
  return jax.tree.leaves(examples.fetch(np.arange(len(examples)))['inputs'])
