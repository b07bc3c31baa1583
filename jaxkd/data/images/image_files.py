"""Images from files: class folders, and IDX files of bytes."""

import collections
import contextlib
import functools
import gzip
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageOps, features

from jaxkd import files as files_lib
from jaxkd.data import file_cache, folders, listing, passes
from jaxkd.data.examples import StreamedExamples
from jaxkd.data.listing import Listing
from jaxkd.errors import UserError, several

Resize = int | tuple[int, int]  # a side, or height and width; 0 for none
Size = tuple[int, int]  # width and height, as annotations have them

CACHE = Path('~/.cache/jaxkd/headers')
MANY = 10_000  # images whose headers take a while to read
LARGEST = 8192  # pixels, the largest side to resize to
# Endings that Pillow knows of what are documents, films or measurements.
_NO_IMAGES = {
  *('.bufr', '.emf', '.eps', '.fit', '.fits', '.grib', '.h5', '.hdf', '.iim'),
  *('.mpeg', '.mpg', '.palm', '.pdf', '.ps', '.wmf'),
}
_GREY = {'1', 'L'}
_READ = {*_GREY, 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV'}
_TAGS = {1, 2, 3, 4, 5, 6, 7, 8}  # values of the EXIF tag of orientation
_TURNED = {5, 6, 7, 8}  # those that swap width and height
_WHOLE = {'MPO', 'PSD'}  # formats whose first frame is the picture


class Kind(NamedTuple):
  """The common properties of image files.

  Attributes:
    mode: that fits all, 'L' or 'RGB'.
    notes: what is lost of some.
  """

  mode: str
  notes: tuple[str, ...]


class Found(NamedTuple):
  """Files in class folders.

  Attributes:
    files: of a split.
    labels: the number of the class of each, int32 [N].
  """

  files: Listing
  labels: np.ndarray


class Stored(NamedTuple):
  """The content of an image file that is stored in another file.

  Attributes:
    name: what to call it in errors.
    content: its bytes, or a buffer of them.
  """

  name: str
  content: Any

  def __str__(self) -> str:
    return self.name


File = str | Path | Stored  # of an image


class Files(NamedTuple):
  """A kind of files in class folders.

  Attributes:
    are: whether a file is of the kind, by its path.
    name: what they are called.
  """

  are: Callable[[str | Path], bool]
  name: str


def classes(top: Path) -> list[str]:
  """The names of the class folders."""
  return [path.name for path in folders.listed(top) if path.is_dir()]


def check_none(top: Path, kind: Files) -> None:
  """Refuses files that lie beside the folders of classes or splits.

  Args:
    top: the folder with those folders.
    kind: of the files.

  Raises:
    UserError: naming the first.
  """
  for path in folders.listed(top):
    if path.is_file() and kind.are(path):
      raise UserError(
        f'data.source: {path} is in no class folder; move or remove it'
      )


def find(
  top: Path, names: Sequence[str], kind: Files, *, all_of_them: bool
) -> tuple[Found, collections.Counter[str]]:
  """The files of a kind in the class folders, in order, with their labels.

  Folders inside a class folder belong to that class.

  Args:
    top: the folder with the class folders.
    names: of the classes, in order of their numbers.
    kind: of the files.
    all_of_them: whether each class must have such files.

  Returns:
    The files and their labels; and the counts of other files, by ending.

  Raises:
    UserError: a class folder that is not in ``names``, a class without files
      that must have some or with folders of splits in it, or a file outside of
      the class folders.
  """
  if not names:
    raise UserError(f'data.source: {top} has no class folders')
  for name in classes(top):
    if name not in names:
      raise UserError(
        f'data.source: {top} has the class folder {name}, which is none of the '
        f'classes of train, {several(names)}; rename, move or remove it'
      )
  check_none(top, kind)
  found, counts, left_out = [], [], collections.Counter()
  for name in names:
    folder = top / name
    own, others = [], collections.Counter()
    for path, status in folders.walk(folder) if folder.is_dir() else ():
      if kind.are(path):
        own.append((path, status))
      else:
        others[Path(path).suffix.lower() or 'without ending'] += 1
    own = listing.gathered(own)
    start = len(os.path.join(folder, ''))
    parts = (path[start:].partition(os.sep) for path in own.paths)
    inner = {first for first, inside, _ in parts if inside}
    folders.check_no_splits(inner, where=str(folder))
    if all_of_them and not own.paths:
      but = f' but {_counted(others)}' if others else ''
      raise UserError(
        f'data.source: {folder} holds no {kind.name}{but}; add some, or remove '
        'the folder'
      )
    found.append(own)
    counts.append(len(own.paths))
    left_out += others
  labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
  return Found(listing.joined(found), labels), left_out


def left_out(others: Mapping[str, int], kind: Files) -> tuple[str, ...]:
  """A note for the row on files of other kinds by their ending, if any."""
  if not others:
    return ()
  return (f'files that are no {kind.name} are left out: {_counted(others)}',)


def seen_twice(found: Mapping[str, Found], kind: Files) -> tuple[str, ...]:
  """Notes on files that links put into several splits or classes.

  Args:
    found: split -> files and labels, from `find`.
    kind: of the files.
  """
  splits = [*found]
  split = np.repeat(
    np.arange(len(splits)), [len(x.labels) for x in found.values()]
  )
  label = np.concatenate([own.labels for own in found.values()])
  files = np.concatenate([own.files.status[:, 3:] for own in found.values()])
  _, first, file = np.unique(
    files, axis=0, return_index=True, return_inverse=True
  )
  first = first[file.reshape(-1)]
  elsewhere = (split != split[first]) | (label != label[first])
  pairs = zip(
    split[elsewhere].tolist(), split[first][elsewhere].tolist(), strict=True
  )
  counts = collections.Counter(pairs)
  return tuple(
    f'{count:,} {kind.name} in {splits[own]} are the same files as '
    f'{kind.name} in ' + (splits[other] if other != own else 'another class')
    for (own, other), count in counts.items()
  )


def kind_of_many(
  files: Sequence[File],
  resize: Resize,
  key: str,
  annotated: Sequence[Size] = (),
) -> Kind:
  """As `kind`; if the images are many, it is kept under a key.

  Args:
    files: of all images.
    resize: as in `read`.
    key: changes when one of the files does.
    annotated: as in `kind`.
  """
  if len(files) < MANY:
    return kind(files, resize, annotated)
  by = PIL.__version__, resize, *((tuple(annotated),) if annotated else ())
  name = file_cache.key((), 2, key, *by)
  found = file_cache.arrays(
    CACHE / f'{name}.npz', lambda: kind(files, resize, annotated)._asdict()
  )
  return Kind(found['mode'].item(), tuple(found['notes'].tolist()))


def kind(
  paths: Sequence[File], resize: Resize, annotated: Sequence[Size] = ()
) -> Kind:
  """What all images have in common, from their headers.

  Args:
    paths: of all images.
    resize: as in `read`.
    annotated: the size of each that its annotations are for; see `pixels`.

  Raises:
    UserError: a file that is no image, pixels of more than eight bits or in an
      unusual space of colours, images of several sizes and no ``resize``, or
      one of another size than it is annotated for.
  """
  modes, sizes, losses = set(), {}, collections.Counter()
  for i, path in enumerate(passes.over(paths, 'reading headers')):
    try:
      with _opened(path) as image:
        moves = getattr(image, 'is_animated', False)
        losses['frames'] += moves and image.format not in _WHOLE
        losses['alpha'] += _has_alpha(image)
        losses['bits'] += _is_cut(image)
        if annotated:
          _check_early(path, image, annotated[i])
        if not resize:
          size = annotated[i] if annotated else _size_as_shown(image)
          sizes.setdefault(size, path)
    except UserError:
      raise
    except Exception as error:  # a damaged file may raise anything
      raise _damaged(path, error) from error
    modes.add(image.mode)
    if image.mode.startswith(('I', 'F')):
      raise UserError(
        f'{path} has pixels of more than eight bits; convert it '
        'to eight, or use floats in npz',
        entry='data.source',
      )
    if image.mode not in _READ:
      raise UserError(
        f'{path} has pixels of the kind {image.mode}; convert it to RGB',
        entry='data.source',
      )
    if len(sizes) > 1:
      (a, b), (first, second) = sizes, sizes.values()
      raise UserError(
        f'{first} has {a[0]}x{a[1]} pixels and {second} has '
        f'{b[0]}x{b[1]}; bring all images to one size with '
        f'data.kw.resize={min(a + b)}',
        entry='data.source',
      )
  said = {
    'alpha': 'have a channel of transparency, which is dropped',
    'frames': 'have several frames or pages, of which the first is read',
    'bits': 'have colours of sixteen bits, of which the first eight are kept',
  }
  notes = (
    f'{losses[loss]:,} of the {len(paths):,} images {what}'
    for loss, what in said.items()
    if losses[loss]
  )
  return Kind('L' if modes <= _GREY else 'RGB', tuple(notes))


def read(
  paths: Sequence[File],
  labels: np.ndarray,
  mode: str,
  resize: Resize,
  key: str = '',
) -> StreamedExamples:
  """Images with their labels, to be read when they are asked for.

  Args:
    paths: of N files.
    labels: the class of each, int32 [N].
    mode: 'L' or 'RGB'.
    resize: side in pixels to bring all images to, or height and width; 0 to
      leave them.
    key: changes when a file does, so that checksums of the images are kept
      until then; empty to keep none.
  """

  def fetch(indices: np.ndarray) -> dict[str, Any]:
    images = np.stack([pixels(paths[i], mode, resize) for i in indices])
    return {'inputs': images, 'labels': labels[indices]}

  content = content_key(key, mode, resize)
  return StreamedExamples(len(paths), fetch, lambda: labels, content=content)


def content_key(key: str, mode: str, resize: Resize) -> str:
  """The key of the pixels of files; empty where their own key is."""
  by = PIL.__version__, features.version('jpg'), mode, resize
  return file_cache.key((), 1, key, *by) if key else ''


def pixels(
  path: File, mode: str, resize: Resize, size: tuple[int, int] = ()
) -> np.ndarray:
  """An image as it is meant to be shown, turned as its EXIF tag says.

  Args:
    path: of the file.
    mode: 'L' or 'RGB'.
    resize: as in `read`.
    size: that its annotations are for, which may be that before it is turned:
      then it stays as it is stored. Empty for any, without annotations.

  Returns:
    uint8 [H, W, 1 or 3].

  Raises:
    UserError: no image, one of another size, or one of which the size does not
      tell whether it is annotated as it is stored or as it is shown.
  """
  try:
    with _opened(path) as file:
      turns = not size or _turns(path, file, tuple(size))
      image = _as_shown(file) if turns else file
      image = _opaque(image).convert(mode)
  except UserError:
    raise
  except Exception as error:  # a damaged file may raise anything
    raise _damaged(path, error) from error
  found = resized(image, resize)
  return found[..., None] if mode == 'L' else found


def check_size(path: File, size: Size) -> None:
  """Refuses an image of another size than its annotations are for.

  Raises:
    UserError: as `pixels`, of what its header tells.
  """
  try:
    with _opened(path) as image:
      _check_early(path, image, size)
  except UserError:
    raise
  except Exception as error:  # a damaged file may raise anything
    raise _damaged(path, error) from error


def _is_cut(image: Image.Image) -> bool:
  """Whether colours have sixteen bits, of which Pillow keeps eight."""
  if image.mode.startswith('I'):
    return False
  return any(re.search(r';16[BLN]', str(tile.args)) for tile in image.tile)


def check_resize(resize: Resize) -> None:
  """Refuses what is no number of pixels, or more than fit into memory."""
  given = (resize,) if isinstance(resize, int) else resize
  least = 0 if isinstance(resize, int) else 1
  if not all(least <= side <= LARGEST for side in given):
    raise UserError(
      f'data.kw.resize: {resize} is not a side in pixels; use 1 to {LARGEST}, '
      'a height and a width, or 0 to leave the images as they are'
    )


def sides(resize: Resize) -> tuple[int, int]:
  """The height and width to resize to."""
  return (resize, resize) if isinstance(resize, int) else tuple(resize)


def resized(image: Image.Image, resize: Resize) -> np.ndarray:
  """Pixels [height, width, ...] of an image; all of them if it is 0."""
  if resize:
    height, width = sides(resize)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
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


def _is_image(path: str | Path) -> bool:
  return _ending(path) in _endings()


@functools.cache
def _endings() -> frozenset[str]:
  return frozenset(Image.registered_extensions()) - _NO_IMAGES


def _ending(path: str | Path) -> str:
  return os.path.splitext(path)[1].lower()


def _opened(path: File) -> Image.Image:
  """An image whose pixels are not read yet.

  Pillow tries one format after the other, most of which raise an error inside;
  to begin with that of the ending takes half the time.
  """
  if isinstance(path, Stored):
    return Image.open(io.BytesIO(path.content))
  usual = Image.registered_extensions().get(_ending(path))
  if usual:
    with contextlib.suppress(Image.UnidentifiedImageError):
      return Image.open(path, formats=[usual])
  return Image.open(path)


def _has_alpha(image: Image.Image) -> bool:
  return image.mode.endswith('A') or 'transparency' in image.info


def _opaque(image: Image.Image) -> Image.Image:
  """The colours alone; of a palette too, whose conversion would warn."""
  transparent = image.mode == 'P' and 'transparency' in image.info
  return image.convert('RGBA') if transparent else image


def _as_shown(image: Image.Image) -> Image.Image:
  """Turned as its EXIF tag says, or as it is where that cannot be read."""
  image.load()
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # a damaged tag may raise anything
    return image


def _size_as_shown(image: Image.Image) -> Size:
  """Width and height of `_as_shown`."""
  # The tag of a PNG may be behind its pixels, which takes time to reach.
  if image.width == image.height:
    return image.size
  return _sizes(image, _tag(image))[1]


def _tag(image: Image.Image) -> int:
  """By which way the image is to be turned; 1 for none."""
  try:
    tag = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # a damaged tag, or pixels that `read` will name
    return 1
  return tag if tag in _TAGS else 1


def _sizes(image: Image.Image, tag: int) -> tuple[Size, Size]:
  """Width and height as the image is stored, and as it is shown."""
  turned = image.size[::-1] if tag in _TURNED else image.size
  # Pillow turns a TIFF itself, and tells the size after that.
  if image.format == 'TIFF':
    return turned, image.size
  return image.size, turned


def _check_early(path: File, image: Image.Image, size: Size) -> None:
  """`_turns`, from what is before the pixels."""
  behind = image.format == 'PNG' and 'exif' not in image.info
  if not behind or image.size != tuple(size):
    _turns(path, image, tuple(size))


def _turns(path: File, image: Image.Image, size: Size) -> bool:
  """Whether an image is turned as its tag says, by what it is annotated for.

  Tools for annotating show images as stored, as COCO does, or as turned.

  Args:
    path: of the file, for errors.
    image: whose pixels may not be read yet.
    size: of the image that the annotations are for.

  Raises:
    UserError: neither has this size, or that cannot be told.
  """
  tag = _tag(image)
  as_stored, as_shown = _sizes(image, tag)
  if size not in (as_stored, as_shown):
    raise UserError(
      f'{path} is {as_shown[0]} pixels wide and {as_shown[1]} high, and its '
      f'annotations are for {size[0]} wide and {size[1]} high; repair one of '
      'them',
      entry='data.source',
    )
  if tag != 1 and as_stored == as_shown:
    raise UserError(
      f'{path} has an EXIF tag by which it is turned when it is shown, and '
      'whether it was annotated before or after that cannot be told; write '
      'it without the tag, turned as it was when it was annotated',
      entry='data.source',
    )
  if size != as_shown and image.format == 'TIFF':
    raise UserError(
      f'{path} is a TIFF that is turned when it is read, and was annotated '
      'before that; write it without the EXIF tag',
      entry='data.source',
    )
  return size == as_shown


def _counted(others: Mapping[str, int]) -> str:
  return ', '.join(f'{count:,} {ending}' for ending, count in others.items())


def _damaged(path: File, error: Exception) -> UserError:
  if not isinstance(path, Stored):
    files_lib.refuse_pointer(Path(path), at='data.source')
  return UserError(
    f'{path} is no image, or a damaged one ({error}); replace or remove it',
    entry='data.source',
  )


IMAGES = Files(_is_image, 'images')
