"""Checks of what the ops of a view are given."""

from collections.abc import Mapping
from typing import Any

from jaxkd.errors import UserError


def require(condition: bool, message: str) -> None:
  """Raises a `UserError` with the message unless the condition holds."""
  if not condition:
    raise UserError(message)


def fits(op: str, image: Any, size: int) -> tuple[int, int]:
  """Height and width of an image that must have a square of that size."""
  height, width = size_of(op, image)
  require(
    1 <= size <= min(height, width),
    f'{op}(size={size}) of images of {height}x{width} needs a size from 1 to '
    'the shorter side',
  )
  return height, width


def require_array(op: str, example: Any) -> None:
  """Refuses an example of several arrays."""
  require(
    hasattr(example, 'shape'),
    f'{op} needs one array, and an example has several; '
    + (_choose(example) or 'leave it out'),
  )


def size_of(op: str, image: Any) -> tuple[int, int]:
  """Height and width of what must be an image."""
  shape = getattr(image, 'shape', None)
  if shape is None or len(shape) != 3:
    got = type(image).__name__ if shape is None else shape
    choose = _choose(image)
    raise UserError(
      f'{op} needs an image of shape (height, width, channels), got {got}'
      + (choose and f'; {choose}')
    )
  return shape[:2]


def _choose(example: Any) -> str:
  """How to choose one array of an example; empty if it is no dict of them."""
  parts = example if isinstance(example, Mapping) else {}
  if not parts or not all(hasattr(x, 'shape') for x in parts.values()):
    return ''
  names = ' or '.join(f'part({name!r})' for name in parts)
  return f'choose one in front of it, by {names}'


def require_colours(op: str, image: Any) -> tuple[int, int]:
  """Height and width of what must be grey or RGB."""
  size = size_of(op, image)
  require(
    image.shape[2] in (1, 3),
    f'{op} needs images of 1 or 3 channels, grey or RGB, got {image.shape[2]}; '
    'leave it out',
  )
  return size
