"""Images from files: class folders, and IDX files of bytes."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxkd.data.examples import StreamedExamples
from jaxkd.errors import UserError


def classes(top: Path) -> list[str]:
  """The names of the class folders."""
  return sorted(
    p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith('.')
  )


def find(top: Path, names: list[str]) -> list[tuple[Path, int]]:
  """The image files in the class folders, in order, with their labels.

  Raises:
    UserError: other class folders than these, one without images, or an image
      outside of them.
  """
  if not names:
    raise UserError(f'data.source: {top} has no class folders')
  if classes(top) != names:
    raise UserError(
      f'data.source: {top} has the class folders '
      f'{", ".join(classes(top)) or "(none)"}, and train has {", ".join(names)}'
    )
  endings = Image.registered_extensions()
  for path in top.iterdir():
    if path.is_file() and path.suffix.lower() in endings:
      raise UserError(
        f'data.source: {path} is in no class folder; move or remove it'
      )
  files = []
  for label, name in enumerate(names):
    images = [
      (path, label)
      for path in sorted((top / name).rglob('*'))
      if path.suffix.lower() in endings
    ]
    if not images:
      raise UserError(f'data.source: {top / name} holds no images')
    files += images
  return files


def mode(files: list[Path], resize: int) -> str:
  """The mode that fits all images, 'L' or 'RGB', from their headers.

  Raises:
    UserError: a file that is no image, pixels of more than eight bits, or
      images of several sizes and no ``resize``.
  """
  modes, sizes = set(), {}
  for path in files:
    try:
      with Image.open(path) as image:
        modes.add(image.mode)
        sizes.setdefault(image.size, path)
    except Exception as error:  # a damaged file may raise anything
      raise _damaged(path, error) from error
    if image.mode.startswith(('I', 'F')):
      raise UserError(
        f'data.source: {path} has pixels of more than eight bits; convert it '
        'to eight, or use floats in npz'
      )
    if len(sizes) > 1 and not resize:
      (a, b), (first, second) = sizes, sizes.values()
      raise UserError(
        f'data.source: {first} has {a[0]}x{a[1]} pixels and {second} has '
        f'{b[0]}x{b[1]}; bring all images to one size with '
        f'data.kw.resize={min(a + b)}'
      )
  return 'L' if modes <= {'1', 'L'} else 'RGB'


def read(
  files: list[tuple[Path, int]], mode: str, resize: int
) -> StreamedExamples:
  """Images with their labels, to be read when they are asked for.

  Args:
    files: from `find`.
    mode: 'L' or 'RGB'.
    resize: side in pixels to bring all images to; 0 to leave them.
  """
  labels = np.array([label for _, label in files], np.int32)

  def pixels(path: Path) -> np.ndarray:
    try:
      with Image.open(path) as file:
        image = file.convert(mode)
    except Exception as error:  # a damaged file may raise anything
      raise _damaged(path, error) from error
    return resized(image, resize)

  def fetch(indices: np.ndarray) -> dict[str, Any]:
    images = np.stack([pixels(files[i][0]) for i in indices])
    images = images[..., None] if mode == 'L' else images
    return {'inputs': images, 'labels': labels[indices]}

  return StreamedExamples(len(files), fetch, lambda: labels)


def check_resize(side: int) -> None:
  """Refuses what is no number of pixels."""
  if side < 0:
    raise UserError(
      f'data.kw.resize: {side} is not a side in pixels; use 1 or more, or 0 to '
      'leave the images as they are'
    )


def resized(image: Image.Image, side: int) -> np.ndarray:
  """Pixels [side, side, ...] of an image; all of them if ``side`` is 0."""
  if side:
    image = image.resize((side, side), Image.Resampling.BILINEAR)
  return np.asarray(image)


def read_idx(path: Path, rank: int) -> np.ndarray:
  """Bytes from an IDX file: two zeros, 8, the rank, the sizes, the data.

  Raises:
    UserError: a file that is truncated, damaged or of another kind or rank.
  """
  opened = gzip.open if path.suffix == '.gz' else open
  try:
    with opened(path, 'rb') as file:
      data = file.read()
    if struct.unpack_from('>HBB', data) != (0, 8, rank):
      raise ValueError(
        f'it does not start as an IDX file of bytes of {rank} axes does'
      )
    shape = struct.unpack_from(f'>{rank}I', data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
  except (EOFError, OSError, ValueError, struct.error, zlib.error) as error:
    raise UserError(
      f'data.dir: {path} is truncated or damaged ({error}); fetch it again'
    ) from error


def _damaged(path: Path, error: Exception) -> UserError:
  return UserError(
    f'data.source: {path} is no image, or a damaged one ({error}); replace or '
    'remove it'
  )
