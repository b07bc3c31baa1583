"""Data sets that TFDS has prepared, read without TensorFlow."""

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxkd import files
from jaxkd.data import file_cache
from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import StreamedExamples, as_labels
from jaxkd.data.images import image_files, objects
from jaxkd.data.pixels import as_inputs
from jaxkd.data.text.conversations import Document, Format
from jaxkd.data.text.sentences import Pair, is_blank
from jaxkd.errors import UserError, unknown

_LEFT_OUT = ('is_crowd', 'is_difficult')  # marks of objects, as TFDS has them
_FROM_BELOW = ('kitti',)  # sets whose boxes TFDS measures from the bottom

_EXTRA = "pip install 'jaxkd[tfds-prepare]'"


def folder(dir: str, at: str = 'data.dir') -> Path:
  """Where TFDS looks: ``dir``, which is that entry, or its own default."""
  if dir:
    return files.path(dir, at=at)
  default = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  return files.path(default, at='TFDS_DATA_DIR')


def command(name: str, dir: str) -> str:
  """The shell command that prepares a data set in the format we read."""
  where = f' --data_dir={folder(dir)}' if dir else ''
  return f'{_EXTRA} && tfds build {name} --file_format=array_record{where}'


def find(name: str, dir: str, others: Iterable[str]) -> Any:
  """The TFDS builder of a prepared data set.

  Args:
    name: as TFDS has it, perhaps with config and version.
    dir: TFDS's data directory, or empty.
    others: the names of our own sources, for errors.

  Raises:
    UserError: no such data set, or one that is not prepared, damaged, or in
      a format without random access.
  """
  # The import takes long, and finds TensorFlow where there is one.
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder

  if dir and not folder(dir).is_dir():
    raise UserError(f'data.dir: there is no folder {dir}')
  try:
    # From its files alone: the code of a builder may need TensorFlow.
    builder = read_only_builder.builder_from_files(name, data_dir=folder(dir))
    builder.as_data_source()
    return builder
  except tfds.core.DatasetNotFoundError as error:
    # Without TensorFlow the list lacks some, of which there are checksums.
    sums = tfds.core.tfds_path('url_checksums')
    known = {
      *tfds.list_builders(with_community_datasets=False),
      *(file.stem for file in sums.glob('*.txt')),
    }
    base = name.partition(':')[0].partition('/')[0]
    if base not in known:
      near = difflib.get_close_matches(base, known, n=3)
      raise unknown('source', name, {*others, *near}, 'data.source') from error
    raise UserError(
      f'data.source: {name} is not prepared in {folder(dir)}; run '
      f'`{command(name, dir)}`, or set data.dir to where it is'
    ) from error
  except NotImplementedError as error:
    raise UserError(
      f'data.source: {builder.data_path} is stored without random access; run '
      f'`{_EXTRA} && tfds convert_format --out_file_format=array_record '
      f'--dataset_version_dir={builder.data_path}`'
    ) from error
  except Exception as error:  # a damaged file may raise anything
    said = str(error).partition('\n')[0]
    raise UserError(
      f'data.source: cannot read {name} in {folder(dir)}: {said}'
    ) from error


def read(
  builder: Any,
  split: str,
  inputs: str,
  labels: str,
  resize: image_files.Resize,
  ignore: Sequence[int] | None,
  conventions: Conventions,
  boxed: 'Boxed | None' = None,
) -> StreamedExamples:
  """The examples of a split, to be read when they are asked for.

  Args:
    builder: from `find`.
    split: as TFDS has it.
    inputs: the feature to learn from.
    labels: the feature to predict.
    resize: side in pixels to bring all images to, or height and width; 0 to
      leave them.
    ignore: where labels are maps [H, W, 1], the values that do not count. The
      examples then have a field ``valid``.
    conventions: of the inputs.
    boxed: where labels are objects, what `objects_of` gives.
  """
  import tensorflow_datasets as tfds

  at = f'data.source: the split {split!r} of {builder.data_path}'
  records = builder.as_data_source(split)
  skip = {inputs: tfds.decode.SkipDecoding()}
  undecoded = builder.as_data_source(split, decoders=skip)

  def arrays(found: list[dict]) -> list[np.ndarray]:
    made = [np.asarray(record[inputs]) for record in found]
    return [_resize(x, resize, at) for x in made] if resize else made

  def maps(found: list[dict]) -> list[np.ndarray]:
    made = [np.asarray(record[labels]) for record in found]
    return [_shrunk(x, resize) for x in made] if resize else made

  @functools.cache
  def shape(of: Callable) -> tuple[int, ...]:
    return of(_get(records, np.arange(1), at))[0].shape

  def stacked(
    of: Callable, found: list[dict], indices: np.ndarray
  ) -> np.ndarray:
    """Arrays of records, all of the shape that the first record's has."""
    made = of(found)
    for i, array in zip(indices, made, strict=True):
      if array.shape != shape(of):
        raise UserError(
          f'{at}: example {i} has the shape {array.shape}, and example 0 '
          f'{shape(of)}; bring all images to one size with data.kw.resize='
          f'{min(shape(of)[:2])}'
        )
    return np.stack(made)

  def targets(found: list[dict], indices: np.ndarray) -> dict[str, Any]:
    """The labels of records; of maps and objects, which of them count."""
    if boxed:
      return boxed.fields(found, at, indices)
    if ignore is None:
      made = [np.asarray(record[labels]) for record in found]
      return {'labels': as_labels(made, at, indices)}
    made = as_labels(stacked(maps, found, indices)[..., 0], at, indices)
    valid = ~np.isin(made, ignore)
    return {'labels': np.where(valid, made, 0), 'valid': valid}

  def read_labels(indices: np.ndarray) -> dict[str, Any]:
    return targets(_get(undecoded, indices, at), indices)

  def fetch(indices: np.ndarray) -> dict[str, Any]:
    found = _get(records, indices, at)
    if ignore is not None:
      for i, record in zip(indices, found, strict=True):
        _check_map(record[labels], record[inputs], f'{at}: example {i}')
    pixels = as_inputs(
      stacked(arrays, found, indices), conventions, at, indices
    )
    return {'inputs': pixels, **targets(found, indices)}

  files = sorted(Path(builder.data_path).iterdir())
  how = (boxed.most, boxed.clip) if boxed else ()
  return StreamedExamples(
    len(records),
    fetch,
    read_labels=read_labels,
    name=file_cache.key(files, 2, split, labels, resize, ignore, *how),
  )


class Boxed(NamedTuple):
  """Where a set has its objects, and how to read them.

  Attributes:
    feature: the sequence of objects.
    boxes: the feature of each that is its box.
    label: the one that is its class.
    classes: that feature itself.
    out: features that mark objects to leave out.
    most: objects in an image, at most.
    clip: whether boxes are cut off at the edges of the image.
    from_below: whether they are measured from the bottom of the image.
  """

  feature: str
  boxes: str
  label: str
  classes: Any
  out: tuple[str, ...]
  most: int
  clip: bool
  from_below: bool

  def fields(
    self, found: list[dict], at: str, numbers: np.ndarray
  ) -> dict[str, np.ndarray]:
    """The objects of records, see `jaxkd.data.images.objects.padded`."""
    made = []
    for record in found:
      own = record[self.feature]
      labels = np.asarray(own[self.label], np.int32)
      boxes = np.asarray(own[self.boxes], np.float32).reshape(-1, 4)
      if self.from_below:
        top, left, bottom, right = boxes.T
        boxes = np.stack([1 - bottom, left, 1 - top, right], 1)
      for mark in self.out:
        counts = ~np.asarray(own[mark], bool)
        labels, boxes = labels[counts], boxes[counts]
      if self.clip:
        labels, boxes = objects.clipped(labels, boxes)
      made.append((labels, boxes))
    names = [f'example {number}' for number in numbers]
    return objects.padded(made, self.most, at=at, names=names)

  @property
  def notes(self) -> tuple[str, ...]:
    """What is read in an unusual way, for the row."""
    said = [
      f'objects with {mark} are left out; what a net finds there is false'
      for mark in self.out
    ]
    if self.from_below:
      said.append('boxes are measured from the bottom of an image')
    return tuple(said)


def objects_of(
  builder: Any, labels: str, most: int, clip: bool, origin: str
) -> Boxed | None:
  """What the objects of a set are; None where its labels are none.

  Args:
    builder: from `find`.
    labels: the feature, and behind a slash that of an object's class.
    most: see `Boxed`.
    clip: see `Boxed`.
    origin: 'top' or 'bottom'; empty for what is known of the set.

  Raises:
    UserError: objects without boxes, or with several classes of which none is
      named; or options that cannot be.
  """
  import tensorflow_datasets as tfds

  name, _, label = labels.partition('/')
  inside = getattr(builder.info.features[name], 'feature', None)
  if not isinstance(inside, tfds.features.FeaturesDict):
    if label:
      raise UserError(
        f'data.kw.labels: {name!r} holds no objects, so that there is no '
        f'{label!r} of them; name another feature'
      )
    return None
  objects.check_most(most)
  if origin not in ('', 'top', 'bottom'):
    raise UserError(f"data.kw.origin: {origin!r} should be 'top' or 'bottom'")
  # TFDS reads the features of a set in any order.
  names = sorted(inside)
  boxes = [k for k in names if isinstance(inside[k], tfds.features.BBoxFeature)]
  kinds = [k for k in names if isinstance(inside[k], tfds.features.ClassLabel)]
  if not boxes or not kinds:
    raise UserError(
      f'data.kw.labels: the objects of {name!r} have no '
      f'{"class" if boxes else "box"} but {", ".join(names)}; name another '
      'feature'
    )
  if not label:
    label = 'label' if 'label' in kinds else kinds[0]
    if label != 'label' and len(kinds) > 1:
      one = f'{name}/{kinds[0]}'
      raise UserError(
        f'data.kw.labels: the objects of {name!r} have the classes '
        f'{", ".join(kinds)}; say which, as in {one!r}'
      )
  if label not in kinds:
    raise unknown(f'class of {name}', label, kinds, 'data.kw.labels')
  return Boxed(
    name,
    boxes[0],
    label,
    inside[label],
    tuple(mark for mark in _LEFT_OUT if mark in inside),
    most,
    clip,
    origin == 'bottom' or (not origin and builder.name in _FROM_BELOW),
  )


def languages(builder: Any, wanted: Sequence[str]) -> tuple[str, str]:
  """The languages of a set of translations, from and to.

  Args:
    builder: from `find`.
    wanted: two of those that it has; empty for what it says itself.

  Raises:
    UserError: it is no such set, or has not these languages.
  """
  import tensorflow_datasets as tfds

  if not isinstance(builder.info.features, tfds.features.Translation):
    raise UserError(
      f'data.source: {builder.info.name} holds no translations but '
      f'{", ".join(builder.info.features)}; read it as tfds:NAME'
    )
  known = tuple(builder.info.features)
  found = wanted or tuple(builder.info.supervised_keys or known)[:2]
  if isinstance(found, str) or len(found) != 2 or found[0] == found[1]:
    raise UserError(
      f'data.kw.languages: {found!r} should be two of {", ".join(known)}'
    )
  for language in found:
    if language not in known:
      raise unknown('language', language, known, 'data.kw.languages')
  return tuple(found)


def sentences(
  builder: Any, split: str, languages: tuple[str, str]
) -> list[Pair]:
  """The pairs of a split of a set of translations.

  Args:
    builder: from `find`.
    split: as TFDS has it.
    languages: from `languages`.

  Raises:
    UserError: files that are damaged, or empty sentences.
  """
  at = f'data.source: the split {split!r} of {builder.data_path}'
  records = builder.as_data_source(split)
  found = (
    record
    for start in range(0, len(records), 4096)
    for record in _get(records, _from(start, len(records)), at)
  )
  pairs = [
    tuple(record[language].decode() for language in languages)
    for record in found
  ]
  for i, pair in enumerate(pairs):
    for language, text in zip(languages, pair, strict=True):
      if is_blank(text):
        raise UserError(
          f'{at}: example {i} has an empty sentence in {language}; leave it out'
        )
  return pairs


def is_text(builder: Any, feature: str) -> bool:
  """Whether a feature of a data set is a text."""
  import tensorflow_datasets as tfds

  return isinstance(builder.info.features[feature], tfds.features.Text)


def documents(builder: Any, split: str, form: Format) -> list[Document]:
  """The documents of a split of a set of texts.

  Args:
    builder: from `find`.
    split: as TFDS has it.
    form: which features have the text.

  Raises:
    UserError: no such features, or files that are damaged.
  """
  at = f'data.source: the split {split!r} of {builder.data_path}'
  features = builder.info.features
  for field in form.fields:
    if field not in features or not is_text(builder, field):
      raise UserError(
        f'data.kw.field: {field!r} of {builder.info.name} is no text; its '
        f'features are {", ".join(features)}'
      )
  records, found = builder.as_data_source(split), []
  for start in range(0, len(records), 4096):
    numbers = _from(start, len(records))
    for i, record in zip(numbers, _get(records, numbers, at), strict=True):
      here = f'{at}: example {i}'
      try:
        said = {field: record[field].decode() for field in form.fields}
      except UnicodeDecodeError as error:
        raise UserError(f'{here} is not UTF-8; leave it out') from error
      found.append(form.read(said, here))
  return found


def _get(records: Any, indices: np.ndarray, at: str) -> list[dict[str, Any]]:
  try:
    return records.__getitems__(indices.tolist())
  except Exception as error:  # a damaged file may raise anything
    raise UserError(
      f'{at} is damaged: {error}; remove that folder and prepare it anew'
    ) from error


def _from(start: int, end: int) -> np.ndarray:
  """The next numbers that are read at once."""
  return np.arange(start, min(start + 4096, end))


def _resize(
  pixels: np.ndarray, side: image_files.Resize, at: str
) -> np.ndarray:
  if pixels.dtype != np.uint8 or pixels.ndim != 3:
    raise UserError(
      f'data.kw.resize: {at.partition(": ")[2]} holds arrays of shape '
      f'{pixels.shape} and type {pixels.dtype}, not images'
    )
  grey = pixels.shape[2] == 1
  image = Image.fromarray(pixels[..., 0] if grey else pixels)
  resized = image_files.resized(image, side)
  return resized[..., None] if grey else resized


def _check_map(target: np.ndarray, image: np.ndarray, at: str) -> None:
  """Refuses classes of the pixels of an image of another size."""
  if target.shape[:2] != image.shape[:2]:
    raise UserError(
      f'{at} has a map of {_size(target)} pixels for an image of '
      f'{_size(image)}; repair it or leave it out'
    )


def _shrunk(target: np.ndarray, side: image_files.Resize) -> np.ndarray:
  """A map of classes, resized by the nearest pixel."""
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(int)
    for new, old in zip(image_files.sides(side), target.shape[:2], strict=True)
  )
  return target[np.ix_(rows, columns)]


def _size(pixels: np.ndarray) -> str:
  return 'x'.join(map(str, pixels.shape[:2]))
