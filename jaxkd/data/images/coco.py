"""Images with annotations in COCO's format: JSON files of boxes."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxkd.data import folders
from jaxkd.data.examples import StreamedExamples
from jaxkd.data.images import image_files, objects
from jaxkd.errors import UserError

ROBOFLOW = '_annotations.coco.json'  # of a split's own folder
# Annotations of something else than boxes that COCO has beside them.
_OTHERS = (
  'captions_',
  'person_keypoints_',
  'image_info_',
  'stuff_',
  'panoptic',
)
_ROUNDING = 1.0  # pixels by which rounding may put a box out of its image
_FLOAT_ERROR = 1e-6  # pixels by which a sum of floats may be larger
_LARGEST = 2**31  # pixels, above any side of an image


class Annotated(NamedTuple):
  """The images of a split, and what is in them.

  Attributes:
    file: with the annotations.
    images: the path of each.
    sizes: width and height of each in pixels.
    found: the objects of each.
    categories: the names of the classes in the order of their numbers.
    crowds: how many objects are left out, being crowds.
    clipped: how many are left out, having no area in the image.
    cut: how many reach out of the image and are cut off at its edges.
    twice: how many are there once more, of one class and with one box.
  """

  file: Path
  images: list[Path]
  sizes: list[tuple[int, int]]
  found: list[objects.Objects]
  categories: tuple[str, ...]
  crowds: int
  clipped: int
  cut: int
  twice: int


def find(root: Path, test: str = '') -> dict[str, Path]:
  """The files of annotations in a folder, by split.

  A file is of the split that its name, or that of its folder, ends in: without
  ``instances_`` in front and a year behind.

  Args:
    root: the folder.
    test: what the split to test on is called there, such as 'val2017'; empty
      for 'test'.

  Returns:
    Split -> file; 'all' if there is one file of no split.

  Raises:
    UserError: there is none, or two of one split.
  """
  places = [root, root / 'annotations']
  found = [
    path
    for place in places
    if place.is_dir()
    for path in folders.listed(place)
    if path.suffix.lower() == '.json' and not path.name.startswith(_OTHERS)
  ]
  named = {called(path): path for path in found}
  if len(named) < len(found):
    raise UserError(
      f'data.source: {root} and its folder annotations have files of one name; '
      'remove one'
    )
  named |= {
    path.name: path / ROBOFLOW
    for path in folders.listed(root)
    if (path / ROBOFLOW).is_file()
  }
  if not named:
    raise UserError(
      f'data.source: {root} holds no annotations; it must hold train.json and '
      'test.json, in it or in its folder annotations, or one .json alone'
    )
  if test and test not in named:
    raise UserError(
      f'data.kw.test: {root} has no annotations of {test!r} but of '
      f'{", ".join(named)}'
    )
  rest: dict[str, str] = {}
  for name in named:
    other = rest.setdefault(_base(name), name) if name != test else name
    if other != name:
      raise UserError(
        f'data.source: {root} has annotations of {other} and of {name}; remove '
        'those of one'
      )
  splits = {
    split: named[rest[base]]
    for split, base in folders.splits(rest, where=str(root)).items()
  }
  if test:
    splits['test'] = named[test]
  if len(named) == 1 and splits.keys() <= {'train'}:
    return {'all': next(iter(named.values()))}
  if test and 'train' not in splits:
    raise UserError(
      f'data.kw.test: {root} has annotations of {", ".join(named)}; without '
      f'{test!r} there are none to train on; name another split to test on'
    )
  if missing := {'train', 'test'} - splits.keys():
    raise UserError(
      f'data.source: {root} has annotations of {", ".join(named)} and none of '
      f'{" and ".join(sorted(missing))}; add them, name those to test on by '
      'data.kw.test, or keep one file alone, which is then split'
    )
  return splits


def called(file: Path) -> str:
  """What the split of a file is called: 'train2017', say."""
  if file.name == ROBOFLOW:
    return file.parent.name
  return file.stem.removeprefix('instances_')


def _base(name: str) -> str:
  return name.rstrip('0123456789')


def read(file: Path, root: Path, *, clip: bool) -> Annotated:
  """The annotations of a file, checked.

  Args:
    file: of JSON.
    root: the folder of the data.
    clip: whether boxes are cut off at the edges of their images, and left out
      where nothing is left; else such boxes are refused.

  Raises:
    UserError: a file that is damaged or of another kind; images, classes or
      boxes that are not there or cannot be. It names the first.
  """
  given = _parsed(file)
  kinds = _by_id(given['categories'], ('name',), 'category', file)
  order = sorted(kinds, key=lambda id: (isinstance(id, str), id))
  number = {id: i for i, id in enumerate(order)}
  known = _by_id(
    given['images'], ('file_name', 'width', 'height'), 'image', file
  )
  for what, entries in (('image', known), ('category', kinds)):
    if not entries:
      raise UserError(f'data.source: {file} lists no {what}; add some')
  names = [kind['name'] for kind in kinds.values()]
  if twice := {name for name in names if names.count(name) > 1}:
    raise UserError(
      f'data.source: {file} has several categories called {min(twice)!r}; give '
      'each a name of its own'
    )
  where = _folder_of(next(iter(known.values()))['file_name'], file, root)
  paths = {id: where / image['file_name'] for id, image in known.items()}
  for path in paths.values():
    if not os.path.isfile(path):  # which takes paths of any length
      raise UserError(
        f'data.source: {file} has an image {path}, which is not there; add it, '
        'or leave it out with its annotations'
      )
  _check_once(paths.values(), file)
  own: dict[Any, list] = {id: [] for id in known}
  crowds = clipped = cut = again = 0
  seen = set()
  for i, annotation in enumerate(given['annotations']):
    _check_keys(annotation, ('image_id', 'category_id', 'bbox'), file)
    here = f'data.source: {file}: annotation number {i}, from 0,'
    if annotation.get('id') is not None:
      _check_keys(annotation, ('id',), file)
      here = f'data.source: {file}: annotation {annotation["id"]!r}'
      if annotation['id'] in seen:
        raise UserError(f'{here} is there twice; number them anew')
      seen.add(annotation['id'])
    if annotation['image_id'] not in known:
      raise UserError(
        f'{here} is of the image {annotation["image_id"]!r}, which is not '
        'among the images; add it, or leave the annotation out'
      )
    if annotation['category_id'] not in number:
      raise UserError(
        f'{here} has the category {annotation["category_id"]!r}, which is not '
        'among the categories; add it, or leave the annotation out'
      )
    crowd = annotation.get('iscrowd') or 0
    if not isinstance(crowd, int | float) or crowd not in (0, 1):
      raise UserError(
        f'{here} has the iscrowd {crowd!r:.40}, which must be 0 or 1; correct '
        'it'
      )
    if crowd:
      crowds += 1
      continue
    image = known[annotation['image_id']]
    path = paths[annotation['image_id']]
    box, beyond = _box(annotation['bbox'], image, path, clip, here)
    if box is None:
      clipped += 1
      continue
    cut += beyond
    found = number[annotation['category_id']], box
    again += found in own[annotation['image_id']]
    own[annotation['image_id']].append(found)
  if not any(own.values()):
    left = f', of which {crowds} are crowds' if crowds else ''
    raise UserError(
      f'data.source: {file} has {len(given["annotations"])} annotations{left}, '
      'and no object is left in any image; add some, or remove the file'
    )
  _check_pixels(own, known, file)
  return Annotated(
    file,
    [*paths.values()],
    [(image['width'], image['height']) for image in known.values()],
    [
      (
        np.array([label for label, _ in found], np.int32),
        np.array([box for _, box in found], np.float32).reshape(-1, 4),
      )
      for found in own.values()
    ],
    tuple(kinds[id]['name'] for id in order),
    crowds,
    clipped,
    cut,
    again,
  )


def examples(
  annotated: Annotated,
  mode: str,
  resize: image_files.Resize,
  most: int,
  at: str,
) -> StreamedExamples:
  """Images with their objects, to be read when they are asked for.

  Args:
    annotated: from `read`.
    mode: 'L' or 'RGB'.
    resize: as in `image_files.read`.
    most: objects in an image.
    at: what to call the split in errors.

  Raises:
    UserError: an image with more objects, or, when it is read, one that has
      another size than its annotations say.
  """
  fields = objects.padded(annotated.found, most, at=at, names=annotated.images)

  def read_labels(indices: np.ndarray) -> dict[str, Any]:
    return {name: x[indices] for name, x in fields.items()}

  def fetch(indices: np.ndarray) -> dict[str, Any]:
    made = [
      image_files.pixels(annotated.images[i], mode, resize, annotated.sizes[i])
      for i in indices
    ]
    return {'inputs': np.stack(made), **read_labels(indices)}

  return StreamedExamples(len(annotated.images), fetch, read_labels=read_labels)


def check_alike(splits: Mapping[str, Annotated]) -> None:
  """Refuses splits of other classes than the first, or of the same images.

  Raises:
    UserError: naming the files.
  """
  first, *others = splits.values()
  seen: dict[str, tuple[Path, Path]] = {}
  for own in splits.values():
    real = {os.path.realpath(path): path for path in own.images}
    for name, path in real.items():
      if name not in seen:
        continue
      file, other = seen[name]
      called = f', there as {other}' if other != path else ''
      raise UserError(
        f'data.source: {own.file} and {file} have the image {path} both'
        f'{called}; leave it out of one'
      )
    seen |= {name: (own.file, path) for name, path in real.items()}
  for other in others:
    if other.categories == first.categories:
      continue
    if sorted(other.categories) == sorted(first.categories):
      todo = 'give each category the same id in both, by which they are ordered'
    else:
      todo = 'they must be the same'
    raise UserError(
      f'data.source: {other.file} has the categories '
      f'{", ".join(other.categories)} and {first.file} '
      f'{", ".join(first.categories)}; {todo}'
    )


def notes(splits: Mapping[str, Annotated]) -> tuple[str, ...]:
  """What is left out, for the row."""
  said = {
    'crowds': 'are crowds, which are left out; what a net finds there is false',
    'clipped': 'have no area in their image and are left out',
    'cut': 'reach out of their image and are cut off at its edges',
    'twice': 'are there once more, with the same class and box; each counts '
    'as an object, of which a net finds one alone',
  }
  return tuple(
    f'{getattr(own, field):,} annotations in {split} {what}'
    for split, own in splits.items()
    for field, what in said.items()
    if getattr(own, field)
  )


def _parsed(file: Path) -> dict[str, list]:
  try:
    text = file.read_text('utf-8-sig')
    given = json.loads(text) if text.strip() else {}
  except (OSError, ValueError) as error:
    raise UserError(f'data.source: cannot read {file}: {error}') from error
  except RecursionError as error:
    raise UserError(
      f'data.source: cannot read {file}: its lists are too deep, one in the '
      'other; write it in the format of COCO'
    ) from error
  if not text.strip():
    raise UserError(
      f'data.source: {file} is empty; write the annotations, or remove it'
    )
  for part in ('images', 'annotations', 'categories'):
    if not isinstance(given, dict) or not isinstance(given.get(part), list):
      raise UserError(
        f'data.source: {file} has no list of {part}, as the format of COCO '
        f'has; add one, as in {{"images": [...], "annotations": [...], '
        '"categories": [...]}'
      )
  return given


# What must stand under a key, and how to say so.
_ID = (lambda x: type(x) in (int, str), 'a whole number or a text')
_LENGTH = (
  lambda x: type(x) is int and 0 < x < _LARGEST,
  'a number of pixels',
)
_TEXT = (lambda x: isinstance(x, str) and bool(x), 'a text')
_KEYS = {
  **dict.fromkeys(('id', 'image_id', 'category_id'), _ID),
  **dict.fromkeys(('width', 'height'), _LENGTH),
  **dict.fromkeys(('name', 'file_name'), _TEXT),
}


def _check_keys(entry: Any, keys: Sequence[str], file: Path) -> None:
  """Refuses an entry without keys; makes whole floats ints, as 5.0 is 5."""
  for key in keys:
    if not isinstance(entry, dict) or key not in entry:
      raise UserError(
        f'data.source: {file}: {entry!r:.80} has no {key!r}; add it, or leave '
        'the entry out'
      )
    if isinstance(entry[key], float) and entry[key].is_integer():
      entry[key] = int(entry[key])
    right, what = _KEYS.get(key, (lambda x: True, ''))
    if not right(entry[key]):
      raise UserError(
        f'data.source: {file}: {entry!r:.80} has the {key} {entry[key]!r:.40}, '
        f'which must be {what}; correct it'
      )


def _by_id(
  entries: Sequence[dict], keys: Sequence[str], what: str, file: Path
) -> dict[Any, dict]:
  """Entries by their number."""
  found = {}
  for entry in entries:
    _check_keys(entry, ('id', *keys), file)
    if entry['id'] in found:
      raise UserError(
        f'data.source: {file} has two of the {what} {entry["id"]!r}; number '
        'them anew'
      )
    found[entry['id']] = entry
  return found


def _box(
  sides: Any, image: dict, path: Path, clip: bool, here: str
) -> tuple[tuple[float, ...] | None, bool]:
  """A box in shares, or None where nothing of it is in the image.

  Args:
    sides: left, top, width and height in pixels.
    image: with its size.
    path: of its file, for errors.
    clip: as in `read`.
    here: the annotation, for errors.

  Returns:
    The box, and whether it reaches out of the image.
  """
  width, height = image['width'], image['height']
  try:
    left, top, across, down = (
      float(side) if type(side) in (int, float) else math.nan for side in sides
    )
    finite = math.isfinite(left + top + across + down)
  except (TypeError, ValueError, OverflowError):
    finite = False
  if not finite:
    raise UserError(
      f'{here} has the box {sides!r:.60}, which must be [left, top, width, '
      'height] in pixels'
    )
  said = f'{here} has the box {list(sides)!r:.80}'
  if across < 0 or down < 0:
    raise UserError(
      f'{said}, which has a negative width or height; write [left, top, width, '
      'height]'
    )
  out = max(-left, -top, left + across - width, top + down - height)
  ends = (top / height, left / width)
  ends += ((top + down) / height, (left + across) / width)
  # As they are kept, in float32, where nothing may be left of a side.
  ends = tuple(float(np.float32(min(max(end, 0.0), 1.0))) for end in ends)
  there = ends[0] < ends[2] and ends[1] < ends[3]
  wrong = ''
  if not (across > 0 and down > 0):
    wrong = 'which has no area'
  elif out > _ROUNDING:
    wrong = f'which reaches out of its image of {width}x{height} pixels'
  elif not there:
    wrong = f'of which nothing is in its image of {width}x{height} pixels'
  if wrong and not clip:
    image_files.check_size(path, (width, height))  # which would be the cause
    raise UserError(
      f'{said}, {wrong}; repair it, or set data.kw.clip=True to cut boxes off '
      'at the edges and leave out those without area'
    )
  return ends if there else None, out > _FLOAT_ERROR


def _check_once(paths: Iterable[Path], file: Path) -> None:
  """Refuses an image that is listed again, perhaps by another name."""
  seen: dict[str, Path] = {}
  for path in paths:
    other = seen.setdefault(os.path.realpath(path), path)
    if other is not path:
      called = f', first as {other}' if other != path else ''
      raise UserError(
        f'data.source: {file} lists the image {path} twice{called}; list it '
        'once, with all of its objects'
      )


def _check_pixels(
  own: Mapping[Any, list], known: Mapping[Any, dict], file: Path
) -> None:
  """Refuses boxes that are shares of the image's sides: all in one pixel."""
  ends = [
    (box[2] * known[id]['height'], box[3] * known[id]['width'])
    for id, found in own.items()
    for _, box in found
  ]
  if np.max(ends) <= 1:
    raise UserError(
      f'data.source: all boxes of {file} end within the first pixel, as shares '
      'of the sides would; write [left, top, width, height] in pixels'
    )


def _folder_of(first: str, file: Path, root: Path) -> Path:
  """The folder that the images of a file of annotations are in."""
  tops = dict.fromkeys((called(file), called(file).lower()))
  places = *(root / name for name in tops), *(root / 'images' / n for n in tops)
  places = *places, root / 'images', root
  places = (file.parent, *places) if file.name == ROBOFLOW else places
  for place in places:
    if os.path.isfile(place / first):
      return place
  raise UserError(
    f'data.source: {file} has an image {first}, which is in none of '
    f'{", ".join(map(str, places))}; put the images there'
  )
