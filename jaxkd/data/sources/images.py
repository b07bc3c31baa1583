"""Sources of images with one class each."""

import collections
import importlib.util
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxkd import files as files_lib
from jaxkd.data import conventions as conventions_lib
from jaxkd.data import copies, listing, prepared
from jaxkd.data import examples as examples_lib
from jaxkd.data import folders as folders_lib
from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.data.images import glyphs as glyphs_lib
from jaxkd.data.images import image_files
from jaxkd.data.source import (
  Source,
  check_dir,
  in_memory,
  make_source,
  place,
  source_of_arrays,
  split_entry,
  with_sizes,
)
from jaxkd.data.sources.prepared import tfds
from jaxkd.errors import UserError

# Fields that a batch has anyway, and arrays of npz files.
_TAKEN = (
  *('inputs', 'labels', 'valid', examples_lib.SCALE),
  *('id', 'rank', 'epoch', 'where', 'x', 'y'),
)
DEBIAN_FASHION_MNIST = Path('/usr/share/datasets/fashion-mnist')


def digits(*, validation: int | float | None = None) -> Source:
  """1,797 handwritten digits of 8x8 pixels, from scikit-learn.

  Split 60 : 20 : 20 by default. Pixels are multiples of 1/16 in [0, 1].

  Alpaydin and Kaynak, `Optical Recognition of Handwritten Digits
  <https://doi.org/10.24432/C50P49>`_, 1998.
  """
  # The file is read as it is: to import scikit-learn takes a second.
  package = importlib.util.find_spec('sklearn').submodule_search_locations[0]
  file = Path(package) / 'datasets' / 'data' / 'digits.csv.gz'
  values, labels = np.split(np.loadtxt(file, delimiter=','), [64], axis=1)
  images = (values.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
  splits = {'all': ArrayExamples(images, labels[:, 0].astype(int))}
  classes = tuple(map(str, range(10)))
  return make_source('digits', splits, validation, classes=classes)


def fashion_mnist(
  *, dir: str = '', validation: int | float | None = None
) -> Source:
  """60,000 + 10,000 grey images of clothes, 28x28 pixels, ten classes.

  Reads the four IDX files, compressed or not, or the copy that TFDS prepared,
  from ``dir``; without one, from Debian's package or TFDS's own directory.
  A twelfth of the training images, 5,000, is for validation by default.

  Xiao et al., `Fashion-MNIST <https://arxiv.org/abs/1708.07747>`_, 2017.
  """
  check_dir(dir)
  folder = files_lib.path(dir, at='data.dir') if dir else DEBIAN_FASHION_MNIST
  names = (
    'train-images-idx3-ubyte',
    'train-labels-idx1-ubyte',
    't10k-images-idx3-ubyte',
    't10k-labels-idx1-ubyte',
  )
  paths = [
    next((p for p in (folder / n, folder / f'{n}.gz') if p.is_file()), None)
    for n in names
  ]
  if not any(paths) and (prepared.folder(dir) / 'fashion_mnist').is_dir():
    usual = 1 / 12 if validation is None else validation
    return tfds('fashion_mnist', dir=dir, validation=usual)
  if not any(paths):
    raise UserError(
      f'data.source: fashion_mnist is not in {folder}; run `apt-get install '
      'dataset-fashion-mnist` and leave data.dir empty, or set data.dir to a '
      f'folder with the files {", ".join(f"{n}.gz" for n in names)}, or run '
      f'`{prepared.command("fashion_mnist", dir)}`'
    )
  for n, path in zip(names, paths, strict=True):
    if path is None:
      raise UserError(
        f'data.dir: {folder} has neither {n}.gz nor {n}; all four files must '
        'be there'
      )
  train, train_labels, test, test_labels = map(
    image_files.read_idx, paths, (3, 1, 3, 1)
  )
  splits = {'train': (train, train_labels), 'test': (test, test_labels)}
  classes = (
    'T-shirt/top',
    'Trouser',
    'Pullover',
    'Dress',
    'Coat',
    'Sandal',
    'Shirt',
    'Sneaker',
    'Bag',
    'Ankle boot',
  )
  made = {}
  for split, (inputs, labels) in splits.items():
    fields = {'inputs': inputs[..., None], 'labels': labels}
    examples_lib.check_lengths(fields, split_entry('fashion_mnist', split))
    made[split] = ArrayExamples(**fields)
  return make_source('fashion_mnist', made, validation, 1 / 12, classes)


def glyphs(
  *,
  dir: str = '',
  size: int = 28,
  test: int | float = 0.2,
  validation: int | float | None = None,
  seed: int = 0,
) -> Source:
  """0-9, A-Z and a-z in the fonts of the machine, white on black.

  62 classes, some of them nearly alike: O, 0 and o, or I, l and 1. A family of
  fonts, with all of its styles, is in one split, 60 : 20 : 20 by default.

  Args:
    dir: a folder of .ttf and .otf files; empty for those of Debian's packages.
    size: side of the images in pixels.
    test: how many families to test on, or which share.
    validation: how many of the others to validate on, or which share.
    seed: of the assignment of families to splits.
  """
  check_dir(dir)
  drawn = glyphs_lib.load(dir, size)
  usual = 0.25 if validation is None else validation
  families = glyphs_lib.split(drawn.families, test, usual, seed)
  splits = {}
  for split, names in families.items():
    inputs = drawn.images[np.isin(drawn.families, names)]
    labels = np.tile(np.arange(inputs.shape[1]), len(inputs))
    inputs = inputs.reshape(-1, size, size, 1)
    splits[split] = ArrayExamples(inputs, labels)
  left = None if 'validation' in splits else 0  # nothing more to hold out
  source = make_source('glyphs', splits, left, classes=glyphs_lib.CHARACTERS)
  notes = (
    f'{len(families[split])} families of fonts in {split}: '
    f'{", ".join(families[split])}'
    for split in source.splits
  )
  return source._replace(notes=(*source.notes, *notes))


def synthetic(
  *,
  shape: tuple[int, ...] = (8, 8, 1),
  num_classes: int = 10,
  size: int = 1000,
  noise: float = 1.0,
  seed: int = 0,
  validation: int | float | None = None,
) -> Source:
  """A smooth random pattern for each class, under noise; split 60 : 20 : 20.

  Args:
    shape: of one example; the channels of an image are independent.
    num_classes: number of patterns.
    size: examples in all.
    noise: its standard deviation, relative to that of the patterns.
    seed: of patterns and noise.
    validation: as in `load`.
  """
  if min(*shape, num_classes, size) < 1 or noise < 0 or seed < 0:
    raise UserError(
      f'data.kw: synthetic cannot make {size} examples of shape {shape} in '
      f'{num_classes} classes with noise {noise} and seed {seed}'
    )
  from scipy import ndimage

  generator = np.random.default_rng(seed)
  patterns = generator.standard_normal((num_classes, *shape))
  sides = len(shape) - (len(shape) > 1)  # all axes but the channels
  widths = (0, *(n / 6 if i < sides else 0 for i, n in enumerate(shape)))
  patterns = ndimage.gaussian_filter(patterns, widths, mode='wrap')
  patterns /= patterns.std()
  labels = generator.permutation(np.arange(size) % num_classes)
  inputs = patterns[labels] + noise * generator.standard_normal((size, *shape))
  inputs = np.clip(0.5 + 0.15 * inputs, 0, 1).astype(np.float32)
  splits = {'all': ArrayExamples(inputs, labels)}
  classes = tuple(map(str, range(num_classes)))
  return make_source('synthetic', splits, validation, classes=classes)


def npz(
  path: str,
  *,
  dir: str = '',
  num_classes: int = 0,
  classes: tuple | str = (),
  range: tuple[float, float] | str = (),
  layout: str = '',
  labels: str = '',
  unit: str = '',
  validation: int | float | None = None,
) -> Source:
  """Arrays from an ``.npz`` file; nothing in it is ever unpickled.

  Either ``x_train, y_train, x_test, y_test`` and perhaps ``x_validation,
  y_validation`` (or ``x_val``, ``x_valid``, ``x_dev``), or ``inputs, labels``,
  to be split 60 : 20 : 20.

  Labels are numbers from 0 on without gaps, names of classes, booleans, or
  one-hot rows; [N] or [N, 1]; or what ``labels`` says. Images are uint8, or
  floats from 0 to 1, [N, H, W, C] or [N, H, W]. Other arrays need the options
  below.

  Args:
    path: of the file, absolute or in ``dir``.
    dir: a folder.
    num_classes: the number of classes, if some have no training example.
    classes: the labels in order, such as ``(1, 2, 3)``, which become 0, 1 and
      2; or 'sorted' for those of the training split.
    range: the range of pixels, ``(0, 255)`` or ``(-1, 1)``, which is rescaled
      to 0 to 1; or 'any' to use floats as they are.
    layout: 'NCHW' if channels come first, to move them last; 'NHWC' if they
      only seem to; 'features' for arrays that are not images.
    labels: 'multilabel' for labels [N, K] of 0 and 1, and -1 where they are
      unknown, of examples with several classes each; 'values' for measured
      values [N] or [N, D], which are standardised. Their names may be in
      ``classes``.
    unit: the name of one more array, such as ``'patient'``, for ``data.unit``:
      numbers or names, [N]; ``patient_train`` and so on where there are splits.
      All examples of a patient are in one split.
    validation: as in `load`.
  """
  name, file = f'npz:{path}', place(dir, path)
  conventions = conventions_lib.of(
    num_classes=num_classes,
    classes=classes,
    range=range,
    layout=layout,
    labels=labels,
  )
  if not file.is_file():
    raise UserError(f'data.source: there is no file {file}')
  try:
    with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as archive:
      arrays = dict(archive)
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as e:
    files_lib.refuse_pointer(file, at='data.source')
    raise UserError(
      f'data.source: cannot read {file}: {e}; it must be an undamaged .npz of '
      'arrays of numbers, as numpy.savez makes'
    ) from e

  if unit in _TAKEN:
    raise UserError(
      f'data.kw.unit: {unit!r} is the name of something else; call the array '
      "otherwise, as in 'patient'"
    )
  wanted = [('inputs', 'x'), ('labels', 'y'), *([(unit, unit)] if unit else ())]
  if arrays.keys() == {whole for whole, _ in wanted}:
    splits = {'all': [arrays[whole] for whole, _ in wanted]}
    return source_of_arrays(name, splits, validation, conventions, unit)
  pairs = {key.rpartition('_')[::2] for key in arrays}
  found = folders_lib.splits({of for _, of in pairs}, where=str(file))
  if pairs != {(part, own) for own in found.values() for _, part in wanted}:
    also = f', {unit}' if unit else ''
    of_splits = f', {unit}_train, {unit}_test' if unit else ''
    raise UserError(
      f'data.source: {file} holds {", ".join(arrays) or "nothing"}; it must '
      f'hold inputs, labels{also}, or x_train, y_train, x_test, y_test'
      f'{of_splits} and perhaps the same for validation, and nothing else'
    )
  splits = {
    split: [arrays[f'{part}_{own}'] for _, part in wanted]
    for split, own in found.items()
  }
  return source_of_arrays(name, splits, validation, conventions, unit)


def folder(
  path: str,
  *,
  dir: str = '',
  resize: int | tuple[int, int] = 0,
  validation: int | float | None = None,
) -> Source:
  """Images in one folder for each class.

  The class folders are in ``train/``, ``test/`` and perhaps ``validation/``
  (or ``val/``, ``valid/``, ``dev/``), or directly in PATH, to be split 60 : 20
  : 20. Classes are those of train, in order of their names as texts, so that
  '10' comes before '2'. Names that begin with a dot are ignored, and links are
  followed. Images are uint8, [H, W, 1] if all are grey, else [H, W, 3], rotated
  by their EXIF tag; transparency is dropped.

  Args:
    path: of the folder, absolute or in ``dir``.
    dir: a folder.
    resize: side in pixels to resize all images to, or height and width; 0 for
      no resizing.
    validation: as in `load`.
  """
  image_files.check_resize(resize)
  name, root = f'folder:{path}', place(dir, path)
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  classes, files, left_out = in_class_folders(root, image_files.IMAGES)
  all_files = listing.joined([found.files for found in files.values()])
  key = listing.key(all_files, 1)
  kind = image_files.kind_of_many(all_files.paths, resize, key)
  splits = {
    split: image_files.read(
      found.files.paths,
      found.labels,
      kind.mode,
      resize,
      key=listing.key(found.files, 1),
    )
    for split, found in files.items()
  }
  source = make_source(name, splits, validation, classes=classes)
  splits = in_memory(source, splits)
  twice = seen_twice(splits, files, image_files.IMAGES)
  notes = *twice, *kind.notes, *left_out
  notes = *source.notes, *notes
  source = source._replace(splits=splits, resize=resize, notes=notes)
  return with_sizes(source, all_files, root)


def in_class_folders(
  root: Path, kind: image_files.Files
) -> tuple[list[str], dict[str, image_files.Found], tuple[str, ...]]:
  """The classes, the files of each split with their labels, and notes.

  Args:
    root: has a folder for each class, directly or in folders of splits.
    kind: of the files.

  Raises:
    UserError: folders or files that are in no split or no class.
  """
  folders = image_files.classes(root)
  found = folders_lib.splits(folders, where=str(root))
  odd = [name for name in folders if name not in found.values()]
  if found and odd:
    raise UserError(
      f'data.source: {root} has the folders {", ".join(odd)} beside '
      f'{", ".join(found.values())}; the splits are called train, validation '
      'and test, and all class folders must be in these, or rename what is a '
      'class'
    )
  if found:
    image_files.check_none(root, kind)
  else:
    folders_lib.check_no_splits(folders, where=str(root))
  roots = {split: root / own for split, own in found.items()} or {'all': root}
  classes = image_files.classes(next(iter(roots.values())))
  files, left_out = {}, collections.Counter()
  for split, top in roots.items():
    files[split], others = image_files.find(
      top, classes, kind, all_of_them=split in ('train', 'all')
    )
    left_out += others
  return classes, files, image_files.left_out(left_out, kind)


def seen_twice(
  splits: Mapping[str, Examples],
  files: Mapping[str, image_files.Found],
  kind: image_files.Files,
) -> tuple[str, ...]:
  """Notes on copies; of examples that are not in memory, on links alone.

  Args:
    splits: the examples.
    files: what they were read from, by split.
    kind: of the files.
  """
  if all(isinstance(own, ArrayExamples) for own in splits.values()):
    return copies.said(splits)
  return image_files.seen_twice(files, kind)
