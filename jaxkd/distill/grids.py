"""Tokens of an image, and the grid of patches that they stand for.

A vision transformer gives tokens [B, N, D], row by row, perhaps behind some
that stand for no place (a class token, registers); a convolutional net gives
maps [B, H, W, C]. Patches are square, so the grid of N of them has the
proportions of the image, and no more than one grid fits.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

Shape = tuple[int, ...]
MOST = 8  # class tokens and registers that are looked for, to propose them


def grid(number: int, image: Sequence[int] = ()) -> tuple[int, int] | None:
  """Rows and columns of so many square patches; None where none fit.

  Args:
    number: of patches.
    image: [B, H, W, C] of what was cut into them; square if it is no image.
  """
  height, width = image[1:3] if len(image) == 4 else (1, 1)
  rows = math.isqrt(number * height // width)
  columns = number // rows if rows else 0
  fits = rows * columns == number > 0 and rows * width == columns * height
  return (rows, columns) if fits else None


def to_map(tokens: Array, size: tuple[int, int]) -> Array:
  """[B, H W, C] -> [B, H, W, C], row by row."""
  return tokens.reshape(tokens.shape[0], *size, tokens.shape[-1])


def to_tokens(maps: Array) -> Array:
  """[B, H, W, C] -> [B, H W, C], row by row."""
  return maps.reshape(maps.shape[0], -1, maps.shape[-1])


def with_class_tokens(tokens: Array, number: int) -> Array:
  """Tokens behind so many that are their mean, [B, number + N, C]."""
  mean = tokens.mean(1, keepdims=True)
  return jnp.concatenate([*[mean] * number, tokens], axis=1)


def remedy(
  student: Shape,
  teacher: Shape,
  image: Sequence[int] = (),
  *,
  adapter: str = 'linear',
) -> str:
  """What brings two layers together of which one or both are tokens, if so.

  Args:
    student: shape of the student's layer.
    teacher: that of the teacher's.
    image: as for `grid`.
    adapter: what takes the student's layer where that is a map.
  """
  if {len(student), len(teacher)} - {3, 4} or len(student) == 4 == len(teacher):
    return ''
  said = [
    f"{entry}='tokens_to_map'{_options(entry, shape[1], image)}"
    for entry, shape in (('adapter', student), ('teacher_adapter', teacher))
    if len(shape) == 3
  ]
  if len(student) == 4:
    said.append(f'adapter={adapter!r}')
  return f'set {" and ".join(said)}'


def extra_tokens(number: int, image: Sequence[int] = ()) -> int | None:
  """How many of the tokens may be no patches: the least that leaves a grid."""
  for extra in range(min(MOST, number)):
    if grid(number - extra, image):
      return extra
  return None


def _options(entry: str, number: int, image: Sequence[int]) -> str:
  """The options that lay so many tokens out, as a remedy says them."""
  extra = extra_tokens(number, image)
  if extra is None:
    return f' with {entry}_kw.height, the rows of their grid'
  return f' with {entry}_kw.class_tokens={extra}' if extra else ''
