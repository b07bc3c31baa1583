"""Images with a class each, in tables of Hugging Face ``datasets``.

The tables stay on disk, and an image is decoded when it is asked for. Images
are what the package calls so, files with or without their content, or a column
of the bytes of files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.data.examples import StreamedExamples
from jaxkd.data.images import image_files
from jaxkd.errors import UserError

_BLOCK = 256  # images that are looked at together where all are


class Records(Sequence):
  """The files of the images of a table, to be read when they are asked for."""

  def __init__(self, table: Any, column: str, where: str):
    """Reads nothing yet.

    Args:
      table: a ``datasets.Dataset``.
      column: that has the images.
      where: what to call the table in errors.
    """
    self._table = table.select_columns([column]).with_format('arrow')
    self._where = where
    self._block = -1, []

  def __len__(self) -> int:
    return len(self._table)

  def __getitem__(self, number: int) -> 'image_files.Stored | str':
    if not 0 <= number < len(self):
      raise IndexError(number)
    start = number - number % _BLOCK
    if self._block[0] != start:
      stop = min(start + _BLOCK, len(self))
      self._block = start, self.take(range(start, stop))
    return self._block[1][number - start]

  def take(self, numbers: Iterable[int]) -> list['image_files.Stored | str']:
    """The files with these numbers.

    Raises:
      UserError: a record without an image.
    """
    numbers = [int(number) for number in numbers]
    column = self._table[numbers].column(0)
    found = (one for chunk in column.chunks for one in _files(chunk))
    files = []
    for number, (content, path) in zip(numbers, found, strict=True):
      name = f'image {number} of {self._where}'
      if content is None and not path:
        raise UserError(
          f'data.source: there is no {name}; leave the record out'
        )
      files.append(
        path if content is None else image_files.Stored(name, content)
      )
    return files


def _files(chunk: Any) -> Iterator[tuple[Any, str]]:
  """The content and the path of each file in an Arrow array."""
  import pyarrow as pa  # which datasets brings

  if not pa.types.is_struct(chunk.type):
    for one in chunk:
      yield one.as_buffer(), ''
    return
  names = [field.name for field in chunk.type]
  nothing = pa.nulls(len(chunk), pa.string())
  paths = chunk.field('path') if 'path' in names else nothing
  for content, path in zip(chunk.field('bytes'), paths, strict=True):
    buffer = content.as_buffer() if content.is_valid else None
    yield buffer, path.as_py() or ''


def columns(
  table: Any, inputs: str, labels: str, where: str
) -> tuple[str, str]:
  """The names of the columns of images and of labels.

  Args:
    table: a ``datasets.Dataset``.
    inputs: the column of images; empty for 'image', or the only such column.
    labels: the column of labels; empty for 'label', or the only one of classes.
    where: what to call the table in errors.

  Raises:
    UserError: no such column, or one of something else.
  """
  features = table.features
  of_images = [name for name in features if holds_images(features[name])]
  of_classes = [name for name in features if hasattr(features[name], 'names')]
  inputs = inputs or _usual('image', of_images)
  labels = labels or _usual('label', of_classes, features)
  said = ', '.join(f'{name} ({_said(features[name])})' for name in features)
  for entry, what, name in (
    ('inputs', 'images', inputs),
    ('labels', 'classes', labels),
  ):
    if name not in features:
      called = f'no column {name!r}' if name else f'not one column of {what}'
      raise UserError(
        f'data.kw.{entry}: {where} has {called}; its columns are {said}, of '
        f'which this entry can name the one of {what}'
      )
  if inputs not in of_images:
    raise UserError(
      f'data.kw.inputs: the column {inputs!r} of {where} holds no images but '
      f'{_said(features[inputs])}; name another, of {said}'
    )
  if not hasattr(features[labels], 'dtype') or inputs == labels:
    raise UserError(
      f'data.kw.labels: the column {labels!r} of {where} is not one class for '
      f'each image but {_said(features[labels])}; name another, of {said}'
    )
  return inputs, labels


def holds_images(feature: Any) -> bool:
  """Whether a feature of a table is images, or files of some kind."""
  if isinstance(feature, Mapping):  # what the files lack in metadata
    content = feature.get('bytes')
    return getattr(content, 'dtype', '') in ('binary', 'large_binary')
  if type(feature).__name__ == 'Image':
    return True
  return getattr(feature, 'dtype', '') in ('binary', 'large_binary')


def has_images(table: Any) -> bool:
  """Whether a table says that a column of it is images."""
  return any(type(x).__name__ == 'Image' for x in table.features.values())


def classes_of(
  tables: Mapping[str, Any], labels: str, name: str
) -> tuple[str, ...]:
  """The names of the classes; none where the column is no ``ClassLabel``.

  Raises:
    UserError: splits that name them differently.
  """
  each = {
    split: tuple(getattr(table.features[labels], 'names', None) or ())
    for split, table in tables.items()
  }
  (first, names), *others = each.items()
  for split, own in others:
    if own != names:
      raise UserError(
        f'data.source: the classes of {name!r} have other names, or another '
        f'order, in the split {split} than in {first}; make them alike'
      )
  return names


def labels_of(table: Any, labels: str) -> np.ndarray:
  """All of a column of labels, [N]."""
  column = table.select_columns([labels]).with_format('arrow')[:].column(0)
  return np.array(column.to_pylist())


def examples(
  records: Records,
  labels: np.ndarray,
  mode: str,
  resize: image_files.Resize,
  key: str,
) -> StreamedExamples:
  """Images with their labels; see `jaxkd.data.images.image_files.read`."""

  def fetch(indices: np.ndarray) -> dict[str, Any]:
    files = records.take(indices)
    inputs = np.stack(
      [image_files.pixels(file, mode, resize) for file in files]
    )
    return {'inputs': inputs, 'labels': labels[indices]}

  content = image_files.content_key(key, mode, resize)
  return StreamedExamples(len(records), fetch, lambda: labels, content=content)


def _usual(name: str, found: list[str], known: Iterable[str] = ()) -> str:
  """The column of the usual name, or the only one that was found."""
  if name in found or name in known:
    return name
  return found[0] if len(found) == 1 else ''


def _said(feature: Any) -> str:
  kind = type(feature).__name__
  return str(feature.dtype) if kind == 'Value' else kind
