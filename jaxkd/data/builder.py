"""Images of ours as a TFDS data set, for whoever reads TFDS."""

import io
import pathlib

import numpy as np
from PIL import Image

from jaxkd.data import prepared, sources
from jaxkd.errors import UserError, writing

IGNORED = 255  # of a map of classes, what does not count


def build(source: sources.Source, name: str, dir: str = '') -> pathlib.Path:
  """Writes a source of images as the TFDS data set of a name.

  The examples stay in their order. They have the features ``image`` and
  ``label``, a class or, for labels [N, H, W], an image of the classes, in which
  `IGNORED` is what does not count.

  Args:
    source: with images [H, W, 1 or 3] of uint8.
    name: of the data set, in lower case and underscores.
    dir: TFDS's data directory; empty for its own default.

  Returns:
    The folder it is in.

  Raises:
    UserError: examples that are no such images, more classes than pixels can
      tell, a name that TFDS does not take, or a data set that is there already.
  """
  import tensorflow_datasets as tfds

  if not name.isidentifier() or name != name.lower():
    raise UserError(
      f'{name!r} is no name for a TFDS data set; use lower case, digits and _'
    )
  first = source.splits['test'].fetch(np.arange(1))
  image, maps = first['inputs'], first['labels'].ndim == 3
  if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
    raise UserError(f'{source.name} has no images of uint8, which can be files')
  if maps and source.num_classes > IGNORED:
    raise UserError(
      f'{source.name} has {source.num_classes} classes; an image of them can '
      f'tell {IGNORED}'
    )
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
        name: self._generate_examples(split)
        for name, split in source.splits.items()
      }

    def _generate_examples(self, split):
      for i in range(len(split)):
        found = split.fetch(np.array([i]))
        labels = found['labels'][0]
        if maps:
          counts = found['valid'][0]
          labels = _png(np.where(counts, labels, IGNORED).astype(np.uint8))
        yield i, {'image': _png(found['inputs'][0]), 'label': labels}

  Builder.name = name
  folder = prepared.folder(dir)
  with writing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(data_dir=folder, file_format='array_record')
    place = pathlib.Path(builder.data_path)
    if place.exists():
      raise UserError(f'{place} is there already; remove it, or take a name')
    builder.download_and_prepare()
  return place


def _png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  squeezed = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
  Image.fromarray(squeezed).save(file, format='png')
  return file.getvalue()
