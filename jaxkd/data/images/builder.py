"""Images of ours as a TFDS data set, for whoever reads TFDS."""

import contextlib
import io
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from jaxkd.data import examples, prepared, sources
from jaxkd.errors import UserError, writing

IGNORED = 255  # of a map of classes, what does not count


def build(source: sources.Source, name: str, dir: str = '') -> pathlib.Path:
  """Writes a source of images as the TFDS data set of a name.

  The examples stay in their order. They have the features ``image`` and
  ``label``, a class or, for labels [N, H, W], an image of the classes, in which
  `IGNORED` is what does not count. If it fails, it leaves nothing behind.

  Args:
    source: with images [H, W, 1 or 3] of uint8.
    name: of the data set, in lower case, digits and underscores.
    dir: TFDS's data directory; empty for its own default.

  Returns:
    The folder it is in.

  Raises:
    UserError: examples that are no such images or have other labels, more
      classes than pixels can tell, names that TFDS does not take, or a data set
      that is there already.
  """
  import tensorflow_datasets as tfds

  if not re.fullmatch('[a-z][a-z0-9_]*', name):
    raise UserError(
      f'{name!r} is no name for a TFDS data set; use lower case, digits and _, '
      'and a letter first'
    )
  first = source.splits['test'].fetch(np.arange(1))
  image, maps = first['inputs'], first['labels'].ndim == 3
  if not (
    isinstance(image, np.ndarray)
    and image.dtype == np.uint8
    and image.ndim == 4
    and image.shape[3] in (1, 3)
  ):
    raise UserError(
      f'{source.name} has no images of uint8 with 1 or 3 channels, which files '
      'can hold'
    )
  if maps and source.num_classes > IGNORED:
    raise UserError(
      f'{source.name} has {source.num_classes} classes; an image of them can '
      f'tell {IGNORED}'
    )
  _check_classes(source)
  splits = {
    split: examples.checked(
      own, source.num_classes, at=f'the split {split!r} of {source.name!r}'
    )
    for split, own in source.splits.items()
  }
  label = (
    tfds.features.LabeledImage(
      labels=list(source.classes), shape=(*image.shape[1:3], 1)
    )
    if maps
    else tfds.features.ClassLabel(names=list(source.classes))
  )

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The data set."""

    VERSION = tfds.core.Version('1.0.0')

    @classmethod
    def _get_pkg_dir_path(cls):
      return pathlib.Path(__file__).parent

    def _info(self):
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(
          {'image': tfds.features.Image(shape=image.shape[1:]), 'label': label}
        ),
        supervised_keys=('image', 'label'),
        description='\n'.join((f'{source.name}, by jaxkd.', *source.notes)),
        disable_shuffling=True,
      )

    def _split_generators(self, manager):
      return {
        split: self._generate_examples(split, own)
        for split, own in splits.items()
      }

    def _generate_examples(self, split, own):
      for i in range(len(own)):
        found = own.fetch(np.array([i]))
        shape = image.shape[:3] if maps else (1,)
        counts = found.get('valid', np.True_)
        if (
          found['inputs'].shape != image.shape
          or found['inputs'].dtype != np.uint8
          or found['labels'].shape != shape
          or not (maps or counts.all())
        ):
          raise UserError(
            f'example {i} in {split} of {source.name!r} should be an image '
            f'{list(image.shape[1:])} of uint8 with '
            f'{"a class for each pixel" if maps else "one class, which counts"}'
            '; repair it or leave it out'
          )
        labels = np.where(counts, found['labels'], IGNORED)[0]
        yield (
          i,
          {
            'image': _png(found['inputs'][0]),
            'label': _png(labels.astype(np.uint8)) if maps else labels,
          },
        )

  Builder.name = name
  place = prepared.folder(dir) / name / str(Builder.VERSION)
  if any(not x.is_dir() for x in place.rglob('*')):
    raise UserError(
      f'{place} is there already; remove it, or take another name'
    )
  with writing(place.parents[1]), _all_or_none(place):
    builder = Builder(data_dir=place.parents[1], file_format='array_record')
    with tempfile.TemporaryDirectory() as downloads:  # none, but TFDS makes it
      builder.download_and_prepare(download_dir=downloads)
  return place


@contextlib.contextmanager
def _all_or_none(place: pathlib.Path) -> Iterator[None]:
  """Makes room for a folder, and removes what it made if that fails."""
  if place.exists():
    shutil.rmtree(place)
  made = [folder for folder in place.parents if not folder.exists()]
  try:
    place.parent.mkdir(parents=True, exist_ok=True)
    yield
  except BaseException:
    for folder in made:
      with contextlib.suppress(OSError):
        folder.rmdir()
    raise


def _check_classes(source: sources.Source) -> None:
  """Refuses names of classes that a file with one a line does not keep."""
  for name in source.classes:
    if name.splitlines() != [name.strip()]:
      raise UserError(
        f'{source.name} has a class {name!r}; names must be one line, without '
        'spaces around it'
      )
  if len({*source.classes}) != source.num_classes:
    raise UserError(
      f'{source.name} has {len({*source.classes})} names for '
      f'{source.num_classes} classes; each must have one of its own'
    )


def _png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  squeezed = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
  Image.fromarray(squeezed).save(file, format='png')
  return file.getvalue()
