"""Synthetic clips: real objects that do one of ten things before a camera.

An object in a colour of its own moves on a canvas of
`jaxkd.data.images.scenes`, while the camera pans; each frame has sensor noise.
The class of a clip is what the object does. Where it begins and how fast it is
are random, so that no single frame tells the class for sure. A clip depends
only on the seed and its number.
"""

import shutil
import uuid
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxkd.data import file_cache, passes
from jaxkd.data.images import scenes
from jaxkd.data.video import compressed, decoding
from jaxkd.errors import UserError

CACHE = Path('~/.cache/jaxkd/clips')
VERSION = 1  # of what is drawn
ACTIONS = (  # in the order of their folders, which is that of the alphabet
  'anticlockwise',
  'clockwise',
  'down',
  'grow',
  'left',
  'right',
  'shrink',
  'still',
  'swing',
  'up',
)
_SPEED = 0.2, 0.4  # of an object that moves, in its clip, as shares of the side
_TURN = 0.7, 1.6  # of one that turns or swings, in radians
_GROWTH = 1.5, 2.0
_SIDES = 0.3, 0.45  # of objects, as shares of the clip's


class Clip(NamedTuple):
  """A clip and what moves in it.

  Attributes:
    frames: uint8 [T, H, W, 3].
    motion: where each pixel has moved since the first frame, (right, down) in
      pixels, float32 [T, H, W, 2].
  """

  frames: np.ndarray
  motion: np.ndarray


class Scene(NamedTuple):
  """How clips are made.

  Attributes:
    size: side of the frames in pixels, even.
    length: frames of a clip.
    pan: the most that the camera pans in a frame each way, in pixels.
    noise: standard deviation of the sensor's noise; pixels are from 0 to 1.
    typical: share of clips whose object is of the class that goes with the
      action; other objects are random.
    threshold: above which a pixel is of the object, from 0 to 1.
  """

  size: int = 64
  length: int = 12
  pan: float = 1.0
  noise: float = 0.01
  typical: float = 0.5
  threshold: float = 0.1


def check(scene: Scene, quantizer: int, counts: Mapping[str, int]) -> None:
  """Refuses options of which no clips can be made.

  Args:
    scene: how clips are made.
    quantizer: of the codec.
    counts: how many, by option.

  Raises:
    UserError: naming the first.
  """
  if not 16 <= scene.size <= 256 or scene.size % 2:
    raise UserError(
      f'data.kw.size: {scene.size} should be an even number from 16 to 256'
    )
  if not 2 <= scene.length <= 100:
    raise UserError(f'data.kw.length: {scene.length} should be 2 to 100 frames')
  for option, value in (('pan', scene.pan), ('noise', scene.noise)):
    if not 0 <= value < np.inf:
      raise UserError(f'data.kw.{option}: {value} should be 0 or more')
  if not 0 <= scene.typical <= 1:
    raise UserError(
      f'data.kw.typical: {scene.typical} should be a share, from 0 to 1'
    )
  if not 1 <= quantizer <= 31:
    raise UserError(f'data.kw.quantizer: {quantizer} should be 1 to 31')
  for option, count in counts.items():
    if count < len(ACTIONS):
      raise UserError(
        f'data.kw.{option}: {count} clips are fewer than the {len(ACTIONS)} '
        'actions; use more'
      )


def make(
  draw: np.random.Generator, pixels: np.ndarray, action: str, scene: Scene
) -> Clip:
  """One clip, in about 30 ms for 12 frames of 64x64 pixels.

  Args:
    draw: draws all that is random.
    pixels: of the object, bright on dark, uint8 or floats from 0 to 1 [h, w].
    action: one of `ACTIONS`.
    scene: how.
  """
  from scipy import ndimage  # slow to import

  size, length = scene.size, scene.length
  if pixels.dtype == np.uint8:
    pixels = pixels / 255
  pan = draw.uniform(-scene.pan, scene.pan, 2)  # right, down
  room = int(np.ceil(scene.pan * (length - 1))) + 1
  canvas = scenes.canvas(draw, size + 2 * room)
  places, angles, sizes = _path(draw, action, size, length)
  rows, columns = np.indices((size, size), np.float32)
  here = np.stack([columns, rows], -1)
  colour = _colour(draw, canvas)
  middle = (np.array(pixels.shape[::-1]) - 1) / 2
  frames, motion = [], []
  for t in range(length):
    at = here + room + t * pan
    sampled = [
      ndimage.map_coordinates(
        canvas[..., i], np.moveaxis(at, -1, 0)[::-1], order=1
      )
      for i in range(3)
    ]
    image = np.stack(sampled, -1)
    place = places[t] - t * pan
    own = (here - place) @ _turned(-angles[t]).T / sizes[t]
    where = own * pixels.shape[1] + middle
    shape = ndimage.map_coordinates(
      pixels, np.moveaxis(where, -1, 0)[::-1], order=1, cval=0.0
    )
    cover = ((shape - scene.threshold) * 4 + 0.5).clip(0, 1) * (shape > 0.02)
    shade = colour * (0.5 + 0.5 * shape.clip(0, 1)[..., None])
    image = image + cover[..., None] * (shade - image)
    image += draw.normal(0, scene.noise, image.shape)
    frames.append(np.rint(255 * image.clip(0, 1)).astype(np.uint8))
    first = places[0] + sizes[0] * own @ _turned(angles[0]).T
    inside = (shape > scene.threshold)[..., None]
    motion.append(np.where(inside, here - first, -t * pan))
  return Clip(np.stack(frames), np.stack(motion).astype(np.float32))


def labels_of(count: int) -> np.ndarray:
  """The action of each clip, int32 [count]: one after another."""
  return np.arange(count, dtype=np.int32) % len(ACTIONS)


def made(
  objects: np.ndarray,
  classes: np.ndarray,
  count: int,
  scene: Scene,
  seed: tuple[int, ...],
) -> Callable[[int], Clip]:
  """The clip of each number.

  Args:
    objects: [n, h, w].
    classes: of them, int [n].
    count: how many clips.
    scene: how they are made.
    seed: of the draws.
  """
  labels = labels_of(count)
  of = [np.flatnonzero(classes == k) for k in range(len(ACTIONS))]

  def clip(number: int) -> Clip:
    draw = np.random.default_rng([*seed, number])
    any_of_them, own = draw.integers(len(objects)), of[labels[number]]
    typical = draw.random() < scene.typical and len(own)
    which = own[draw.integers(len(own))] if typical else any_of_them
    return make(draw, objects[which], ACTIONS[labels[number]], scene)

  return clip


def as_arrays(
  clip: Callable[[int], Clip], count: int, how: compressed.Wanted
) -> np.ndarray:
  """Clips as `compressed.of_file` gives them, of true motion and no codec.

  Returns:
    uint8 [count, H, W, C].
  """
  rows = []
  for number in passes.over(range(count), 'making clips'):
    frames, motion = clip(number)
    if compressed.FRAMES in how.parts:
      at = ((np.arange(how.count) + 0.5) * len(frames) / how.count).astype(int)
      rows.append(compressed.array(how, frames=frames[at]))
      continue
    at = compressed.spaced(how)
    rows.append(
      compressed.array(
        how, image=frames[0], motion=motion[at], frames=frames[at]
      )
    )
  return np.stack(rows)


def written(
  clips: Mapping[str, tuple[Callable[[int], Clip], int]],
  name: str,
  *,
  group: int,
  quantizer: int,
) -> Path:
  """The folder of encoded clips in `CACHE`, made if it is missing.

  Args:
    clips: split -> what makes each clip, and how many.
    name: of the folder, a hash of all that they depend on.
    group: frames in a group of pictures.
    quantizer: of the codec.

  Returns:
    A folder with ``SPLIT/ACTION/NUMBER.avi``.

  Raises:
    UserError: it cannot be written.
  """
  try:
    folder = CACHE.expanduser() / name
  except RuntimeError as error:
    raise file_cache.unwritable(CACHE, error) from error
  if folder.is_dir():
    return folder
  draft = folder.with_name(f'.{name}.{uuid.uuid4().hex}')
  try:
    file_cache.make_folder(folder.parent)
    for split, (clip, count) in clips.items():
      for action in ACTIONS:
        (draft / split / action).mkdir(parents=True)
      labels = labels_of(count)
      for number in passes.over(range(count), f'encoding clips of {split}'):
        path = draft / split / ACTIONS[labels[number]] / f'{number:06d}.avi'
        frames = clip(number).frames
        decoding.encode(path, frames, group=group, quantizer=quantizer)
    draft.rename(folder)
  except OSError as error:
    if not folder.is_dir():  # else another run has made it meanwhile
      raise file_cache.unwritable(folder, error) from error
  finally:
    shutil.rmtree(draft, ignore_errors=True)
  return folder


def seed_of(seed: int, split: str) -> tuple[int, ...]:
  """The seed of the clips of a split."""
  return seed, zlib.crc32(split.encode())


def _path(
  draw: np.random.Generator, action: str, size: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The middle [T, 2], the angle [T] and the side [T] of an object."""
  time = np.linspace(0, 1, length)
  side = size * draw.uniform(*_SIDES)
  angle = draw.uniform(-0.5, 0.5)
  middle = size * draw.uniform(0.35, 0.65, 2)
  way = size * draw.uniform(*_SPEED)
  turn, growth = draw.uniform(*_TURN), draw.uniform(*_GROWTH)
  ways = dict(left=(-1, 0), right=(1, 0), up=(0, -1), down=(0, 1))
  towards = np.array(ways.get(action, (0, 0)))
  # Mostly around the middle, so that where it begins does not tell where to.
  begins = draw.uniform(0, 0.5) if towards.any() else 0.0
  places = middle + np.outer(time - begins, way * towards)
  angles, sizes = np.full(length, angle), np.full(length, side)
  if action in ('clockwise', 'anticlockwise'):
    angles = angle + time * (turn if action == 'clockwise' else -turn)
  if action == 'swing':
    angles = angle + turn / 2 * np.sin(2 * np.pi * time)
  if action in ('grow', 'shrink'):
    factor = growth ** (time - 0.5)
    sizes = side * (factor if action == 'grow' else factor[::-1])
  return places, angles, sizes


def _turned(angle: float) -> np.ndarray:
  """Turns (right, down) clockwise."""
  c, s = np.cos(angle), np.sin(angle)
  return np.array([[c, -s], [s, c]])


def _colour(draw: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
  """A colour that can be seen on the canvas."""
  mean = canvas.mean((0, 1))
  colour = draw.random(3)
  while np.abs(colour - mean).max() < scenes.APART:
    colour = draw.random(3)
  return colour
