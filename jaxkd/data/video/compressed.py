"""Clips of compressed video: key frames, motion vectors and residuals.

A codec stores a group of pictures as a key frame (I), which stands by itself,
and predicted frames (P), of which it stores where each block comes from in the
frame before, and what remains. As in Wu et al., `Compressed Video Action
Recognition <https://arxiv.org/abs/1712.00636>`_, 2018, the vectors of a P-frame
are accumulated back to the key frame of its group:

- ``motion``: where each pixel has moved since the key frame, in pixels of the
  file, (right, down) for each P-frame that is taken;
- ``residual``: that frame less the key frame moved so;
- ``image``: the key frame.

Or, with no look at groups, ``frames``: decoded frames, evenly spaced.

All are bytes. Signed values are stored around `ZERO`: vectors in steps of
1 / `VECTOR_STEPS` pixels, so from -32 to 31.75, and residuals in steps of
`RESIDUAL_STEP`; what is beyond is clipped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

from jaxkd import files as files_lib
from jaxkd import lookup
from jaxkd.data import file_cache, passes, positions
from jaxkd.data.examples import Examples, StreamedExamples
from jaxkd.data.images import image_files
from jaxkd.data.video import decoding
from jaxkd.errors import UserError, unknown

CACHE = Path('~/.cache/jaxkd/video')
GROUP = ('image', 'motion', 'residual')  # parts of a group of pictures
FRAMES = 'frames'
ZERO, VECTOR_STEPS, RESIDUAL_STEP = positions.ZERO, 4, 2
CHANNELS = {'image': 3, 'motion': 2, 'residual': 3, FRAMES: 3}
ENDINGS = {
  *('.avi', '.mp4', '.m4v', '.mkv', '.mov', '.mpg', '.mpeg', '.mpe', '.webm'),
  *('.ts', '.flv', '.wmv', '.3gp', '.ogv'),
}
# Whose vectors FFmpeg gives, and whose P-frames refer to the frame before.
# Those of H.264 may refer to any earlier one, which the vectors do not say.
_CODECS = {
  *('mpeg1video', 'mpeg2video', 'mpeg4', 'h263', 'h263p', 'flv'),
  *('msmpeg4v1', 'msmpeg4v2', 'msmpeg4'),
}
_VERSION = 2  # of the arrays in the cache, and of what is refused
_LOOKED_AT = 1024  # clips of which it is known how many vectors are clipped


class Wanted(NamedTuple):
  """What of a clip becomes an example.

  Attributes:
    parts: of `GROUP`, or `FRAMES` alone.
    count: how many P-frames of the group are taken, evenly spaced, the last
      one among them; of `FRAMES`, how many frames of the clip.
    group: frames in a group of pictures, at least; the one in the middle of a
      clip is taken, and of it so many frames.
    resize: side in pixels that all parts are resized to, by Pillow's bilinear
      filter; 0 for no resizing. Vectors stay in pixels of the file.
  """

  parts: tuple[str, ...] = GROUP
  count: int = 3
  group: int = 12
  resize: int = 0

  def channels(self) -> dict[str, slice]:
    """Which channels of an example's array [H, W, C] are of which part."""
    found, start = {}, 0
    for part in self.parts:
      size = CHANNELS[part] * (1 if part == 'image' else self.count)
      found[part] = slice(start, start + size)
      start += size
    return found


def wanted(parts: Sequence[str], count: int, group: int, resize: int) -> Wanted:
  """The options, checked.

  Raises:
    UserError: parts that do not exist or go together, or numbers that do not.
  """
  parts = tuple(dict.fromkeys(parts))
  for part in parts:
    if part not in CHANNELS:
      raise unknown('part of a video', part, CHANNELS, 'data.kw.parts')
  if not parts or (FRAMES in parts and len(parts) > 1):
    raise UserError(
      f'data.kw.parts: {parts} should be some of {", ".join(GROUP)}, or '
      f'{FRAMES!r} alone'
    )
  for option, number, least in (
    ('count', count, 1), ('group', group, 2), ('resize', resize, 0)
  ):  # fmt: skip
    if number < least:
      raise UserError(f'data.kw.{option}: {number} should be {least} or more')
  if resize > image_files.LARGEST:
    raise UserError(
      f'data.kw.resize: {resize} pixels should be at most '
      f'{image_files.LARGEST:,}'
    )
  if FRAMES not in parts and count > group - 1:
    raise UserError(
      f'data.kw.count: a group of {group} frames has {group - 1} P-frames, '
      f'fewer than {count}; lower it'
    )
  return Wanted(parts, count, group, resize)


# Files.


def is_video(path: str | Path) -> bool:
  """Whether a file is a video by its ending."""
  return Path(path).suffix.lower() in ENDINGS


VIDEOS = image_files.Files(is_video, 'videos')


# Arrays.


def read(
  files: Mapping[str, Sequence[tuple[Path, int]]], how: Wanted
) -> dict[str, StreamedExamples]:
  """Videos as examples, from one array that is kept on disk.

  All are decoded once; `CACHE` keeps what is wanted of them until a file or an
  option changes.

  Args:
    files: split -> videos and their labels, one or more in all.
    how: what of them is wanted.

  Raises:
    UserError: a video that cannot be read or does not have what is wanted, or
      videos of several sizes.
  """
  av = lookup.package('av', extra='video', at='data.source')
  paths = [path for group in files.values() for path, _ in group]
  first = of_file(paths[0], how)

  def rows():
    each = passes.parts(len(paths), first.nbytes, 'decoding videos')
    fetch = lambda numbers: [of_file(paths[i], how) for i in numbers]  # noqa: E731
    for numbers, arrays in passes.read(fetch, each):
      for i, array in zip(numbers, arrays, strict=True):
        _check_size(array, first, paths[i], paths[0])
        yield array

  by = av.__version__, PIL.__version__
  name = file_cache.key(paths, _VERSION, how, by)
  shape = (len(paths), *first.shape)
  kept = file_cache.mapped(CACHE / f'{name}.npy', shape, np.uint8, rows)
  found, start = {}, 0
  for split, group in files.items():
    labels = np.array([label for _, label in group], np.int32)
    found[split] = examples(kept[start : start + len(group)], labels, how)
    start += len(group)
  return found


def examples(
  arrays: np.ndarray, labels: np.ndarray, how: Wanted
) -> StreamedExamples:
  """Examples of arrays in which the parts lie one behind the other.

  Args:
    arrays: uint8 [N, H, W, C].
    labels: the class of each, int32 [N].
    how: what of the clips they hold.
  """

  def fetch(numbers):
    inputs = _parted(np.asarray(arrays[numbers]), how)
    return {'inputs': inputs, 'labels': labels[numbers]}

  return StreamedExamples(len(labels), fetch, lambda: labels)


def inputs_of(paths: Sequence[str | Path], how: Wanted) -> Any:
  """What a net that learned from clips takes, of clips of one's own.

  Args:
    paths: of N video files, one or more, in a list.
    how: what of them is wanted, as in the run; see `wanted`.

  Returns:
    A dict of the parts, each uint8 [N, H, W, C]; of one part, its array alone;
    of `FRAMES`, uint8 [N, count, H, W, 3].

  Raises:
    UserError: a video that cannot be read or does not have what is wanted, or
      videos of several sizes.
  """
  if isinstance(paths, str | Path) or not paths:
    raise UserError('paths: give a list of one video file or more')
  paths = [files_lib.path(path, at='paths') for path in paths]
  arrays = [of_file(path, how) for path in paths]
  for array, path in zip(arrays, paths, strict=True):
    _check_size(array, arrays[0], path, paths[0])
  return _parted(np.stack(arrays), how)


def _parted(rows: np.ndarray, how: Wanted) -> Any:
  """The inputs of examples whose parts lie one behind the other."""
  found = {part: rows[..., at] for part, at in how.channels().items()}
  if FRAMES in found:
    split = found[FRAMES].reshape(*rows.shape[:3], how.count, 3)
    found[FRAMES] = np.moveaxis(split, 3, 1)
  return found if len(found) > 1 else next(iter(found.values()))


def clipped(split: Examples, how: Wanted) -> tuple[str, ...]:
  """A note for the row on vectors that are clipped, if a sample has some."""
  if 'motion' not in how.parts:
    return ()
  count = min(len(split), _LOOKED_AT)
  inputs = split.fetch(np.arange(count))['inputs']
  motion = inputs['motion'] if isinstance(inputs, Mapping) else inputs
  share = np.isin(motion, (0, 255)).mean()
  if not share:
    return ()
  return (
    f'{100 * share:.2g} % of the components of vectors of {count:,} training '
    f'clips are beyond {ZERO // VECTOR_STEPS} pixels and clipped',
  )


def of_file(path: Path, how: Wanted) -> np.ndarray:
  """What is wanted of a video, uint8 [H, W, C].

  Raises:
    UserError: a video that cannot be read or does not have it.
  """
  frames, codec = decoding.decoded(path)
  if FRAMES in how.parts:
    if len(frames) < how.count:
      raise UserError(
        f'data.kw.count: {path} has {len(frames)} frames, fewer than '
        f'{how.count}; lower it, or remove the file'
      )
    at = ((np.arange(how.count) + 0.5) * len(frames) / how.count).astype(int)
    return array(how, frames=[decoding.pixels_of(frames[i]) for i in at])
  if codec not in _CODECS and how.parts != ('image',):
    raise UserError(
      f'{path} is coded as {codec}, which gives no vectors to the frame '
      f'before; {decoding.ENCODE}',
      entry='data.source',
    )
  group = decoding.group_of(frames, how.group, path)
  image, chosen = decoding.pixels_of(group[0]), spaced(how)
  if how.parts == ('image',):
    return array(how, image=image)
  if any(frame.interlaced_frame for frame in group):
    raise UserError(
      f'{path} is interlaced, with vectors for every other line; '
      f'{decoding.ENCODE}',
      entry='data.source',
    )
  vectors = [decoding.vectors_of(frame) for frame in group[1 : chosen[-1] + 1]]
  moved = accumulated(vectors, image.shape[:2])
  return array(
    how,
    image=image,
    motion=[moved[i - 1] for i in chosen],
    frames=[decoding.pixels_of(group[i]) for i in chosen],
  )


def spaced(how: Wanted) -> list[int]:
  """Which frames of a group are taken, its key frame being 0."""
  last = how.group - 1
  return [round(last * (i + 1) / how.count) for i in range(how.count)]


def array(
  how: Wanted,
  *,
  image: np.ndarray | None = None,
  motion: Sequence[np.ndarray] = (),
  frames: Sequence[np.ndarray] = (),
) -> np.ndarray:
  """The parts that are wanted, as bytes, uint8 [H, W, C].

  Args:
    how: what is wanted.
    image: the key frame, uint8 [H, W, 3]; not for `FRAMES`.
    motion: of each frame, where its pixels have moved since the key frame:
      floats [H, W, 2], (right, down) in pixels.
    frames: the frames, uint8 [H, W, 3].
  """
  made = {FRAMES: frames, 'image': [image]}
  if 'motion' in how.parts:
    made['motion'] = [VECTOR_STEPS * vectors for vectors in motion]
  if 'residual' in how.parts:
    made['residual'] = [
      (frame.astype(np.float32) - warped(image, vectors)) / RESIDUAL_STEP
      for frame, vectors in zip(frames, motion, strict=True)
    ]
  parts = []
  for part in how.parts:
    each = np.concatenate(made[part], axis=-1, dtype=np.float32)
    zero = ZERO if part in ('motion', 'residual') else 0
    values = np.rint(_resized(each, how.resize) + zero)
    parts.append(values.clip(0, 255).astype(np.uint8))
  return np.concatenate(parts, axis=-1)


def accumulated(
  vectors: Sequence[np.ndarray], size: tuple[int, int]
) -> list[np.ndarray]:
  """Where pixels have moved since the key frame, for each P-frame behind it.

  A block without a vector, which was coded anew, counts as one that stays.

  Args:
    vectors: of each P-frame, in order: a row for each block with its ``w`` and
      ``h``, its middle ``dst_x`` and ``dst_y``, and ``motion_x`` and
      ``motion_y`` over ``motion_scale``, from there to where it comes from in
      the frame before.
    size: height and width.

  Returns:
    float32 [H, W, 2] for each, (right, down) in pixels.
  """
  height, width = size
  rows, columns = np.indices(size, np.float32)
  here = np.stack([columns, rows], axis=-1)
  most = np.array([width - 1, height - 1], np.float32)
  source, found = here, []
  for blocks in vectors:
    before = here + _painted(blocks, size)
    near = np.rint(before).clip(0, most)
    x, y = np.moveaxis(near.astype(int), -1, 0)
    source = source[y, x] + (before - near)
    found.append(here - source)
  return found


def warped(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
  """The image moved, by the nearest pixel: float32 [H, W, C].

  Args:
    image: [H, W, C].
    motion: where each pixel has come from, as of `accumulated`, [H, W, 2].
  """
  rows, columns = np.indices(image.shape[:2])
  x = np.rint(columns - motion[..., 0]).clip(0, image.shape[1] - 1)
  y = np.rint(rows - motion[..., 1]).clip(0, image.shape[0] - 1)
  return image[y.astype(int), x.astype(int)].astype(np.float32)


def _painted(blocks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """To where each pixel has its block's vector, float32 [H, W, 2]."""
  field = np.zeros((*size, 2), np.float32)
  for block in blocks:
    left, top = (
      int(block[f'dst_{axis}']) - int(block[side]) // 2
      for axis, side in (('x', 'w'), ('y', 'h'))
    )
    right, bottom = left + int(block['w']), top + int(block['h'])
    motion = float(block['motion_x']), float(block['motion_y'])
    field[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = (
      np.array(motion) / block['motion_scale']
    )
  return field


def _resized(x: np.ndarray, side: int) -> np.ndarray:
  """Floats [side, side, C] of [H, W, C]; all of them if ``side`` is 0."""
  if not side:
    return x
  each = [
    Image.fromarray(x[..., i]).resize((side, side), Image.Resampling.BILINEAR)
    for i in range(x.shape[-1])
  ]
  return np.stack(each, axis=-1)


def _check_size(
  array: np.ndarray, first: np.ndarray, path: Path, other: Path
) -> None:
  if array.shape != first.shape:
    (a, b), (c, d) = first.shape[:2], array.shape[:2]
    raise UserError(
      f'{other} has {b}x{a} pixels and {path} has {d}x{c}; bring all videos to '
      f'one size with data.kw.resize={min(a, b, c, d)}',
      entry='data.source',
    )
