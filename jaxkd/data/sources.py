"""Sources: data sets by name, as splits of examples.

A source is the function of that name below, called with the path after the
colon (``folder:PATH``) and the options of the config; one of your own is
``package.module:function``. Splits are fixed: they do not depend on any seed of
a run.

Data sets of less than a gibibyte are read into memory at once, which checks
every example; larger ones are read, and checked, on demand.
"""

import collections
import functools
import importlib.util
import inspect
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxkd import files as files_lib
from jaxkd import lookup
from jaxkd import options as options_lib
from jaxkd import shapes as shapes_lib
from jaxkd.data import clips as clips_lib
from jaxkd.data import conventions as conventions_lib
from jaxkd.data import examples as examples_lib
from jaxkd.data import (
  file_cache,
  images,
  pixels,
  positions,
  prepared,
  sentences,
)
from jaxkd.data import folders as folders_lib
from jaxkd.data import glyphs as glyphs_lib
from jaxkd.data import labels as labels_lib
from jaxkd.data import parallel as parallel_lib
from jaxkd.data import phrases as phrases_lib
from jaxkd.data import scenes as scenes_lib
from jaxkd.data import video as video_lib
from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import ArrayExamples, Examples, StreamedExamples
from jaxkd.errors import UserError, unknown

NAMES = (
  'digits',
  'fashion_mnist',
  'glyphs',
  'synthetic',
  'scenes',
  'clips',
  'phrases',
  'folder',
  'video',
  'npz',
  'parallel',
  'tfds',
  'translation',
)
DEBIAN_FASHION_MNIST = Path('/usr/share/datasets/fashion-mnist')


class Source(NamedTuple):
  """A data set.

  Attributes:
    name: as in the config.
    splits: 'train', 'validation' (unless ``validation=0``) and 'test'.
    num_classes: labels are 0, ..., num_classes - 1.
    input_shape: shape of one example, or a pytree of shapes; see
      `jaxkd.shapes`.
    classes: the names of the classes.
    notes: sentences about the data, for the row.
    resize: side in pixels that image files are resized to, by Pillow's bilinear
      filter; 0 for no resizing.
    vocabulary: number of tokens, where inputs are tokens; else 0.
    range: the range from which pixels were rescaled to 0 to 1, as given in
      ``data.kw.range``; empty for none.
    fields: kinds of fields that are not clear by name; see
      `jaxkd.data.positions`.
  """

  name: str
  splits: dict[str, Examples]
  num_classes: int
  input_shape: Any
  classes: tuple[str, ...]
  notes: tuple[str, ...] = ()
  resize: int = 0
  vocabulary: int = 0
  range: tuple[float, ...] = ()
  fields: Mapping[str, str] = MappingProxyType({})


def load(
  name: str,
  *,
  dir: str = '',
  validation: int | float | None = None,
  **options: Any,
) -> Source:
  """Loads a data set by name.

  Args:
    name: one of `NAMES` ('folder:PATH', 'video:PATH', 'npz:PATH',
      'parallel:PATH', 'tfds:NAME', 'translation:NAME'), a bare TFDS name, or
      'package.module:function', where the function takes the options and
      returns a `Source` or a dict ``{split: (inputs, labels)}`` of train,
      test and perhaps validation, or of all, to be split 60 : 20 : 20. Options
      of `jaxkd.data.conventions` that it does not take itself describe its
      arrays, as in `npz`.
    dir: where the files are, for the sources that take it.
    validation: how much of the training split to hold out for validation, a
      number of examples or a share. None for the source's own default; 0 for no
      validation split.
    **options: of the source.

  Raises:
    UserError: no such source or option, files that are missing or damaged, or
      invalid examples or labels.
  """
  kind, colon, path = name.partition(':')
  # A user's own source, too, gets the expanded path.
  dir = str(files_lib.path(dir, at='data.dir')) if dir else ''
  if colon and kind not in NAMES:
    files_lib.refuse_remote(name, at='data.source')
    function = lookup.attribute(name, kind='source', at='data.source')
    given = _given_dir(name, function, dir)
    return _from_user(name, function, {**given, **options}, validation)
  if kind not in NAMES:
    kind, path = 'tfds', name
  function = globals()[kind]
  takes = inspect.signature(function).parameters
  if bool(path) != ('path' in takes):
    form = f'{kind}:PATH' if 'path' in takes else kind
    raise UserError(f'data.source: write {form!r}, not {name!r}')
  lookup.check_options(
    function,
    {**options, 'validation': validation},
    name=kind,
    at='data.kw',
  )
  given = _given_dir(name, function, dir)
  if path:
    given['path'] = path
  return function(**given, validation=validation, **options)._replace(name=name)


def of_classes(source: Source, kept: Mapping[str, Sequence[int]]) -> Source:
  """Keeps only some classes in each split, without renumbering them.

  So nets can be tested on classes that they have not seen. Validation has the
  classes of train by default: model selection must not see the test classes.

  Args:
    source: the data.
    kept: split -> class numbers; empty for all, and in validation for those of
      train.

  Raises:
    UserError: a class without examples in that split, or examples of many
      classes each.
  """
  kept = {split: tuple(classes) for split, classes in kept.items()}
  kept['validation'] = kept['validation'] or kept['train']
  if not any(kept.values()):
    return source
  splits, notes = dict(source.splits), []
  for split, classes in kept.items():
    if not classes:
      continue
    index = splits[split].index
    if index.each:
      raise UserError(
        f'data.classes.{split}: examples of {source.name} are of many classes '
        'each; leave it empty'
      )
    for number in classes:
      if number not in index.values:
        raise UserError(
          f'data.classes.{split}: {source.name} has no example of class '
          f'{number} there; its classes are 0 to {source.num_classes - 1}'
        )
    numbers = np.flatnonzero(np.isin(index.classes, classes))
    splits[split] = examples_lib.take(splits[split], numbers)
    names = ', '.join(str(source.classes[number]) for number in classes)
    notes.append(f'{split} has {len(classes)} classes alone: {names}')
  return source._replace(splits=splits, notes=(*source.notes, *notes))


# The sources.


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
  return _source('digits', splits, validation, classes=classes)


def fashion_mnist(
  *, dir: str = '', validation: int | float | None = None
) -> Source:
  """60,000 + 10,000 grey images of clothes, 28x28 pixels, ten classes.

  Reads the four IDX files, compressed or not, or the copy that TFDS prepared,
  from ``dir``; without one, from Debian's package or TFDS's own directory.
  A twelfth of the training images, 5,000, is for validation by default.

  Xiao et al., `Fashion-MNIST <https://arxiv.org/abs/1708.07747>`_, 2017.
  """
  _check_dir(dir)
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
    images.read_idx, paths, (3, 1, 3, 1)
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
    examples_lib.check_lengths(fields, _at('fashion_mnist', split))
    made[split] = ArrayExamples(**fields)
  return _source('fashion_mnist', made, validation, 1 / 12, classes)


def glyphs(
  *,
  dir: str = '',
  size: int = 28,
  test: int | float = 0.2,
  validation: int | float | None = None,
  seed: int = 0,
) -> Source:
  """0-9, A-Z and a-z in the fonts of the machine, in white on black.

  62 classes, some of them nearly alike: O, 0 and o, or I, l and 1. A family of
  fonts, with all of its styles, is in one split, 60 : 20 : 20 by default.

  Args:
    dir: a folder of .ttf and .otf files; empty for those of Debian's packages.
    size: side of the images in pixels.
    test: how many families to test on, or which share.
    validation: how many of the others to validate on, or which share.
    seed: of the assignment of families to splits.
  """
  _check_dir(dir)
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
  source = _source('glyphs', splits, left, classes=glyphs_lib.CHARACTERS)
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
  return _source('synthetic', splits, validation, classes=classes)


def phrases(
  *,
  languages: Sequence[str] = ('en', 'de'),
  size: int = 24_000,
  vocabulary: int = 320,
  length: int = 28,
  too_long: str = 'refuse',
  kinds: tuple[str, ...] = (),
  test: int | float = 0.1,
  validation: int | float | None = None,
  seed: int = 0,
) -> Source:
  """Numbers, dates, times, money and lists, in two languages.

  The contents are random, the wordings real. Each language draws one of several
  wordings, with the shares of `jaxkd.data.phrases`, so that a source sentence
  has several right targets. All contents and all source sentences differ,
  within and between splits, which are 80 : 10 : 10 by default.

  Args:
    languages: to translate from and to, as CLDR and num2words know them.
    size: pairs in all.
    vocabulary: number of pieces, learnt from the training split.
    length: the most tokens of a sentence.
    too_long: what becomes of longer pairs: 'refuse', 'cut' or 'drop'.
    kinds: of contents, some of `jaxkd.data.phrases.KINDS`; all by default.
    test: how many pairs to test on, or which share.
    validation: how many of the others to validate on, or which share.
    seed: of contents and wordings.
  """
  made, notes = phrases_lib.make(languages, size, seed, tuple(kinds))
  out = _held_out(test, len(made), 'test')
  if not out:
    raise UserError('data.kw.test: 0 pairs leave nothing to test on; use more')
  rest = len(made) - out
  usual = 1 / 9 if validation is None else validation
  start = rest - _held_out(usual, rest)
  pairs = [phrase.texts for phrase in made]
  splits = {
    'train': pairs[:start],
    'validation': pairs[start:rest],
    'test': pairs[rest:],
  }
  source = _sentences(
    'phrases',
    splits if start < rest else {s: splits[s] for s in ('train', 'test')},
    None if start < rest else 0,
    vocabulary=vocabulary,
    length=length,
    too_long=too_long,
  )
  return source._replace(notes=(*notes, *source.notes))


def scenes(
  *,
  dir: str = '',
  objects: str = 'digits',
  size: int = 48,
  count: int = 2000,
  test: int = 500,
  most: int = 4,
  labelled: float = 1.0,
  seed: int = 0,
  validation: int | None = None,
) -> Source:
  """Digits or clothes pasted on coloured canvases, a class for each pixel.

  Objects of many scales and colours occlude one another on textures and
  strokes; a ring of one pixel around each does not count, see
  `jaxkd.data.scenes`. Class 0 is the background, and the classes of the objects
  follow. The objects of a split come from the same split of their source.

  Args:
    dir: where the objects' files are, as for their source.
    objects: 'digits' or 'fashion_mnist'.
    size: side of the scenes in pixels.
    count: scenes to train on.
    test: scenes to test on.
    most: objects in a scene, at most; at least one.
    labelled: share of the training scenes that have labels; they come first,
      and no pixel of the others counts.
    seed: of the scenes.
    validation: scenes to validate on, 500 by default; 0 for no such split.
  """
  if objects not in scenes_lib.THRESHOLDS:
    raise unknown(
      'kind of objects', objects, scenes_lib.THRESHOLDS, 'data.kw.objects'
    )
  counts = {
    'train': count,
    'validation': 500 if validation is None else validation,
    'test': test,
  }
  given = {'count': count, 'test': test, 'most': most, 'seed': seed}
  for option, number in given.items():
    least = 0 if option == 'seed' else 1
    up = f'to {scenes_lib.MOST}' if option == 'most' else 'or more'
    if number < least or (option == 'most' and number > scenes_lib.MOST):
      raise UserError(f'data.kw.{option}: {number} should be {least} {up}')
  if counts['validation'] < 0:
    raise UserError(
      f'data.kw.validation: {validation} should be a number of scenes, or 0 '
      'for no such split'
    )
  known = round(labelled * count) if 0 < labelled <= 1 else 0
  if not known:
    raise UserError(
      f'data.kw.labelled: {labelled} of {count} scenes leaves none with '
      'labels; give a share above 0 and up to 1'
    )
  function = globals()[objects]
  of = function(**_given_dir(f'scenes of {objects}', function, dir))
  splits = {}
  for split, number in counts.items():
    if not number:
      continue
    own = of.splits[split]
    fields = own.fetch(np.arange(len(own)))
    made = scenes_lib.compose(
      fields['inputs'][..., 0],
      fields['labels'],
      number,
      size=size,
      most=most,
      threshold=scenes_lib.THRESHOLDS[objects],
      seed=(seed, zlib.crc32(split.encode())),
    )
    if split == 'train':
      made.valid[known:] = False
      made.labels[known:] = 0
    splits[split] = ArrayExamples(made.images, made.labels, valid=made.valid)
  left = None if 'validation' in splits else 0
  classes = ('background', *of.classes)
  source = _source('scenes', splits, left, classes=classes)
  if known == count:
    return source
  note = f'the first {known} of {count} training scenes have labels'
  return source._replace(notes=(note,))


def clips(
  *,
  dir: str = '',
  objects: str = 'fashion_mnist',
  size: int = 64,
  length: int = 12,
  train: int = 3000,
  test: int = 1000,
  pan: float = 1.0,
  noise: float = 0.01,
  typical: float = 0.5,
  codec: bool = True,
  quantizer: int = 3,
  parts: Sequence[str] = video_lib.GROUP,
  count: int = 3,
  resize: int = 0,
  seed: int = 0,
  validation: int | None = None,
) -> Source:
  """Clothes or digits that do one of ten things before a panning camera.

  Clips are encoded once as MPEG-4, one group of pictures each, and read back as
  `video` reads them; see `jaxkd.data.clips`. The objects of a split come from
  the same split of their source.

  Args:
    dir: where the objects' files are, as for their source.
    objects: 'digits' or 'fashion_mnist'.
    size: side of the frames in pixels.
    length: frames of a clip.
    train: clips to train on.
    test: clips to test on.
    pan: the most that the camera pans in a frame each way, in pixels.
    noise: standard deviation of the sensor's noise; pixels are from 0 to 1.
    typical: share of clips whose object is of the class that goes with the
      action, so that a single frame tells something.
    codec: whether clips are encoded; else motion is the true one, and no
      package is needed.
    quantizer: of the codec, from 1, fine, to 31, coarse.
    parts: as in `video`.
    count: likewise.
    resize: likewise.
    seed: of the clips.
    validation: clips to validate on, a tenth of ``train`` by default; 0 for no
      such split.
  """
  if objects not in scenes_lib.THRESHOLDS:
    raise unknown(
      'kind of objects', objects, scenes_lib.THRESHOLDS, 'data.kw.objects'
    )
  threshold = scenes_lib.THRESHOLDS[objects]
  scene = clips_lib.Scene(size, length, pan, noise, typical, threshold)
  out = train // 10 if validation is None else validation
  counts = {'train': train, 'validation': out, 'test': test}
  if out == 0:
    del counts['validation']
  clips_lib.check(scene, quantizer, counts)
  how = video_lib.wanted(parts, count, length, resize)
  function = globals()[objects]
  of = function(**_given_dir(f'clips of {objects}', function, dir))
  made, digests = {}, []
  for split, number in counts.items():
    own = of.splits[split]
    fields = own.fetch(np.arange(len(own)))
    pixels, kinds = fields['inputs'][..., 0], fields['labels']
    digests += [zlib.crc32(np.ascontiguousarray(x)) for x in (pixels, kinds)]
    start = clips_lib.seed_of(seed, split)
    made[split] = clips_lib.made(pixels, kinds, number, scene, start), number
  if codec:
    on = scene, counts, seed, digests, quantizer, clips_lib.VERSION
    root = clips_lib.written(
      made, file_cache.key((), *on), group=length, quantizer=quantizer
    )
    classes, files, _ = _in_class_folders(root, video_lib.VIDEOS)
    splits = video_lib.read(files, how)
  else:
    classes = clips_lib.ACTIONS
    splits = {
      split: video_lib.examples(
        clips_lib.as_arrays(clip, number, how),
        clips_lib.labels_of(number),
        how,
      )
      for split, (clip, number) in made.items()
    }
  left = None if out else 0
  return _clips('clips', splits, how, classes, left)


def npz(
  path: str,
  *,
  dir: str = '',
  num_classes: int = 0,
  classes: tuple | str = (),
  range: tuple[float, float] | str = (),
  layout: str = '',
  validation: int | float | None = None,
) -> Source:
  """Arrays from an ``.npz`` file; nothing in it is ever unpickled.

  Either ``x_train, y_train, x_test, y_test`` and perhaps ``x_validation,
  y_validation``, or ``inputs, labels``, to be split 60 : 20 : 20.

  Labels are numbers from 0 on without gaps, names of classes, booleans, or
  one-hot rows; [N] or [N, 1]. Images are uint8, or floats from 0 to 1, [N, H,
  W, C] or [N, H, W]. Other arrays need the options below.

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
    validation: as in `load`.
  """
  name, file = f'npz:{path}', _place(dir, path)
  conventions = conventions_lib.of(
    num_classes=num_classes, classes=classes, range=range, layout=layout
  )
  if not file.is_file():
    raise UserError(f'data.source: there is no file {file}')
  try:
    with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as archive:
      arrays = dict(archive)
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as e:
    raise UserError(
      f'data.source: cannot read {file}: {e}; it must be an undamaged .npz of '
      'arrays of numbers, as numpy.savez makes'
    ) from e

  if arrays.keys() == {'inputs', 'labels'}:
    splits = {'all': (arrays['inputs'], arrays['labels'])}
    return _from_arrays(name, splits, validation, conventions)
  found = [
    split
    for split in ('train', 'validation', 'test')
    if arrays.keys() & {f'x_{split}', f'y_{split}'}
  ]
  if arrays.keys() != {f'{x}_{split}' for split in found for x in 'xy'}:
    raise UserError(
      f'data.source: {file} holds {", ".join(arrays) or "nothing"}; it must '
      'hold inputs and labels, or x_train, y_train, x_test, y_test and perhaps '
      'x_validation, y_validation, and nothing else'
    )
  splits = {s: (arrays[f'x_{s}'], arrays[f'y_{s}']) for s in found}
  return _from_arrays(name, splits, validation, conventions)


def folder(
  path: str,
  *,
  dir: str = '',
  resize: int = 0,
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
    resize: side in pixels to resize all images to; 0 for no resizing.
    validation: as in `load`.
  """
  images.check_resize(resize)
  name, root = f'folder:{path}', _place(dir, path)
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  classes, files, left_out = _in_class_folders(root, images.IMAGES)
  kind = images.kind_of_many(
    [file for group in files.values() for file, _ in group], resize
  )
  splits = {
    split: images.read(group, kind.mode, resize)
    for split, group in files.items()
  }
  source = _source(name, splits, validation, classes=classes)
  # Read into memory only after they are split, to not hold them twice.
  small = {split: examples_lib.is_small(own) for split, own in splits.items()}
  first = next(iter(splits))  # from which missing splits were held out
  splits = {
    split: examples_lib.in_memory(own)
    if small.get(split, small[first])
    else own
    for split, own in source.splits.items()
  }
  notes = *images.seen_twice(files), *kind.notes, *left_out
  notes = *source.notes, *notes
  return source._replace(splits=splits, resize=resize, notes=notes)


def video(
  path: str,
  *,
  dir: str = '',
  parts: Sequence[str] = video_lib.GROUP,
  count: int = 3,
  group: int = 12,
  resize: int = 0,
  fold: int = 1,
  validation: int | float | None = None,
) -> Source:
  """Clips of compressed video: key frames, motion vectors and residuals.

  Videos are in one folder for each class, as in `folder`, or as UCF-101 is
  published: ``UCF-101/CLASS/*.avi`` beside ``ucfTrainTestlist``. See
  `jaxkd.data.video` for what they must be, and for what the parts mean. Inputs
  are a dict of the parts, which the view ``part(NAME)`` takes one of; or, of
  one part, its array alone. All are uint8 [H, W, C], with the P-frames along
  the channels; 'frames' is [count, H, W, 3].

  Args:
    path: of the folder, absolute or in ``dir``.
    dir: a folder.
    parts: some of 'image', 'motion' and 'residual'; or 'frames'.
    count: how many P-frames of a group are taken; or how many 'frames'.
    group: frames in a group of pictures, at least.
    resize: side in pixels to resize all parts to; 0 for no resizing. Vectors
      stay in pixels of the files.
    fold: of UCF-101, 1 to 3.
    validation: as in `load`.
  """
  how = video_lib.wanted(parts, count, group, resize)
  name, root = f'video:{path}', _place(dir, path)
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  if fold not in (1, 2, 3):
    raise UserError(f'data.kw.fold: {fold} should be 1, 2 or 3')
  notes = ()
  if video_lib.is_ucf(root):
    classes, files = video_lib.ucf(root, fold)
    notes = (
      'clips for validation are drawn from those for training, and may be of '
      'the same recording',
    )
  else:
    if fold != 1:
      raise UserError(
        f'data.kw.fold: {root} has no lists of folds, as UCF-101 has; remove '
        'the entry'
      )
    classes, files, notes = _in_class_folders(root, video_lib.VIDEOS)
  return _clips(
    name, video_lib.read(files, how), how, classes, validation, notes
  )


def parallel(
  path: str,
  *,
  dir: str = '',
  languages: Sequence[str] = (),
  vocabulary: int = 8000,
  length: int = 64,
  too_long: str = 'refuse',
  validation: int | float | None = None,
) -> Source:
  """Sentences and their translations, from a folder of text files.

  They are ``train.LANGUAGE``, ``test.LANGUAGE`` and perhaps
  ``validation.LANGUAGE`` (or ``val``, ``valid``, ``dev``), UTF-8, of both
  languages; line n of one is the translation of line n of the other.

  Args:
    path: of the folder, absolute or in ``dir``.
    dir: a folder.
    languages: to translate from and to, as the files are called.
    vocabulary: number of pieces, learnt from the training split.
    length: the most tokens of a sentence.
    too_long: what becomes of longer pairs: 'refuse', 'cut' or 'drop'.
    validation: as in `load`.
  """
  phrases_lib.check_languages(languages)
  return _sentences(
    f'parallel:{path}',
    parallel_lib.read(_place(dir, path), languages),
    validation,
    vocabulary=vocabulary,
    length=length,
    too_long=too_long,
  )


def translation(
  path: str,
  *,
  dir: str = '',
  languages: Sequence[str] = (),
  vocabulary: int = 8000,
  length: int = 64,
  too_long: str = 'refuse',
  validation: int | float | None = None,
) -> Source:
  """Sentences and their translations, of a data set that TFDS has prepared.

  Args:
    path: its name, perhaps with config and version, as in `tfds`.
    dir: TFDS's data directory; empty for its own default.
    languages: to translate from and to; as the data set says by default.
    vocabulary: number of pieces, learnt from the training split.
    length: the most tokens of a sentence.
    too_long: what becomes of longer pairs: 'refuse', 'cut' or 'drop'.
    validation: as in `load`.
  """
  name, builder = f'translation:{path}', prepared.find(path, dir, NAMES)
  languages = prepared.languages(builder, languages)
  stored = folders_lib.splits(builder.info.splits, where=path)
  splits = {
    split: prepared.sentences(builder, own, languages)
    for split, own in stored.items()
  }
  return _sentences(
    name,
    splits,
    validation,
    vocabulary=vocabulary,
    length=length,
    too_long=too_long,
  )


def tfds(
  path: str,
  *,
  dir: str = '',
  inputs: str = '',
  labels: str = '',
  test: str = 'test',
  resize: int = 0,
  ignore: tuple[int, ...] = (255,),
  num_classes: int = 0,
  classes: tuple | str = (),
  range: tuple[float, float] | str = (),
  layout: str = '',
  validation: int | float | None = None,
) -> Source:
  """A data set that TFDS has prepared in a format with random access.

  Labels are one class number for each example, or a map of class numbers, which
  the features `Image` and `LabeledImage` with one channel hold.

  Args:
    path: its name, perhaps with config and version: 'cifar10:3.0.2'.
    dir: TFDS's data directory; empty for its own default.
    inputs: the input feature; by default that of TFDS's supervised keys.
    labels: the feature to predict, likewise.
    test: the TFDS split to test on.
    resize: side in pixels to resize all images to, and maps by the nearest
      pixel; 0 for no resizing.
    ignore: values in maps, from 0 to 255, that do not count.
    num_classes: as in `npz`, where TFDS has no names of the classes.
    classes: likewise.
    range: as in `npz`.
    layout: as in `npz`.
    validation: as in `load`.
  """
  conventions = conventions_lib.of(
    num_classes=num_classes, classes=classes, range=range, layout=layout
  )
  images.check_resize(resize)
  name, builder = f'tfds:{path}', prepared.find(path, dir, NAMES)
  keys = tuple(builder.info.supervised_keys or ('image', 'label'))[:2]
  inputs, labels = inputs or keys[0], labels or keys[1]
  for entry, key in (('inputs', inputs), ('labels', labels)):
    if key not in builder.info.features:
      raise unknown('feature', key, builder.info.features, f'data.kw.{entry}')
  if inputs == labels:
    raise UserError(
      f'data.kw: inputs and labels are both {labels!r}, so that the net would '
      'be shown the answer; name another feature for one of them'
    )
  shape = builder.info.features[labels].shape
  maps = len(shape) == 3 and shape[-1] == 1
  if shape and not maps:
    raise UserError(
      f'data.kw.labels: {labels!r} is not one class number for each example, '
      'nor a map of them, [H, W, 1]; name another feature'
    )
  if test not in builder.info.splits:
    raise unknown('split', test, builder.info.splits, 'data.kw.test')
  if test == 'train':
    raise UserError(
      "data.kw.test: 'train' is the split to train on; name another to test on"
    )
  for value in ignore:
    if type(value) is not int or not 0 <= value <= 255:
      raise UserError(
        f'data.kw.ignore: {value!r} is no value of a map; give whole numbers '
        'from 0 to 255'
      )
  others = {*builder.info.splits} - {test}
  stored = {**folders_lib.splits(others, where=path), 'test': test}
  names = tuple(getattr(builder.info.features[labels], 'names', ()))
  if names and (num_classes or classes):
    entry = 'classes' if classes else 'num_classes'
    raise UserError(
      f'data.kw.{entry}: {labels!r} of {path} names its {len(names)} classes; '
      'remove the entry'
    )
  how = inputs, labels, resize, tuple(ignore) if maps else None, conventions
  splits = {
    split: examples_lib.held(prepared.read(builder, of, *how))
    for split, of in stored.items()
  }
  source = _source(
    name, splits, validation, classes=names, conventions=conventions
  )
  return source._replace(resize=resize)


# Helpers of the sources.


def _in_class_folders(
  root: Path, kind: images.Files
) -> tuple[list[str], dict[str, list[tuple[Path, int]]], tuple[str, ...]]:
  """The classes, the files of each split with their labels, and notes.

  Args:
    root: has a folder for each class, directly or in folders of splits.
    kind: of the files.

  Raises:
    UserError: folders or files that are in no split or no class.
  """
  folders = images.classes(root)
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
    images.check_none(root, kind)
  roots = {split: root / own for split, own in found.items()} or {'all': root}
  classes = images.classes(next(iter(roots.values())))
  files, left_out = {}, collections.Counter()
  for split, top in roots.items():
    files[split], others = images.find(
      top, classes, kind, all_of_them=split in ('train', 'all')
    )
    left_out += others
  return classes, files, images.left_out(left_out, kind)


def _clips(
  name: str,
  splits: Mapping[str, StreamedExamples],
  how: video_lib.Wanted,
  classes: Sequence[str],
  validation: int | float | None,
  notes: tuple[str, ...] = (),
) -> Source:
  """A source of parts of videos, in memory if they are small."""
  of = dict.fromkeys(how.parts, positions.MAP)
  if 'motion' in of:
    of['motion'] = positions.VECTORS
  kinds = of if len(of) > 1 else {'inputs': next(iter(of.values()))}
  splits = {
    split: examples_lib.held(own) if len(own) else own
    for split, own in splits.items()
  }
  source = _source(name, splits, validation, classes=classes, fields=kinds)
  notes = *source.notes, *notes, *video_lib.clipped(source.splits['train'], how)
  return source._replace(notes=notes, resize=how.resize)


def _sentences(
  name: str,
  splits: Mapping[str, Sequence[sentences.Pair]],
  validation: int | float | None,
  **options: Any,
) -> Source:
  """As `_source`; the vocabulary is learnt after validation is held out."""
  for split in ('train', 'test'):
    if split not in splits:
      raise UserError(f'{_at(name, split)} is not there')
  if 'validation' not in splits:
    usual = 0.1 if validation is None else validation
    size = _held_out(usual, len(splits['train']))
    train, out = sentences.hold_out(splits['train'], size)
    if not train:
      raise UserError(
        f'data.kw.validation: {usual} of the {len(out):,} pairs in train of '
        f'{name!r} takes all of them, for translations of one sentence stay '
        'together; use less, or 0 for no validation split'
      )
    splits = {**splits, 'train': train, **({'validation': out} if size else {})}
    validation = None if size else 0
  for split, pairs in splits.items():
    if not pairs:
      raise UserError(f'{_at(name, split)} is empty')
  made = sentences.tokenized(splits, name=name, **options)
  source = _source(name, made.splits, validation, classes=made.pieces)
  return source._replace(notes=made.notes, vocabulary=len(made.pieces))


def _source(
  name: str,
  splits: Mapping[str, Examples],
  validation: int | float | None,
  usual: float = 0.1,
  classes: Iterable[str] = (),
  conventions: Conventions | None = None,
  fields: Mapping[str, str] = MappingProxyType({}),
) -> Source:
  """Checks the splits, and holds out the validation split if there is none.

  Args:
    name: of the source.
    splits: 'train', 'test' and perhaps 'validation'; or 'all', to be split
      60 : 20 : 20.
    validation: as in `load`.
    usual: the default of ``validation``, if there is a train split.
    classes: their names, if known; else the labels give their number.
    conventions: of the arrays; None for a source whose arrays are known.
    fields: as in `Source`.
  """
  first = _first(name, splits)
  shapes, dtypes = {}, {}
  for split, examples in splits.items():
    if not len(examples):
      raise UserError(f'{_at(name, split)} is empty')
    one = examples.fetch(np.arange(1))['inputs']
    shapes[split] = shapes_lib.example(one)
    dtypes[split] = jax.tree.map(lambda x: x.dtype.name, one)
    if not all(leaf.size for leaf in jax.tree.leaves(one)):
      raise UserError(
        f'{_at(name, split)} has inputs of shape {shapes[split]}, which are '
        'empty'
      )
  for what, found in (('shape', shapes), ('type', dtypes)):
    for split, got in found.items():
      if got != found[first]:
        raise UserError(
          f'data.source: inputs of {name!r} have the {what} {found[first]} in '
          f'the split {first} and {got} in {split}; make them equal'
        )
  splits = {first: splits[first], **splits}
  at = {split: _at(name, split) for split in splits}
  if conventions:
    for split, examples in splits.items():
      pixels.check_brightness(examples, conventions, at[split])
  said = pixels.said_ranges(splits, conventions) if conventions else ()
  conventions = conventions or Conventions()
  classes, notes, unnamed = tuple(classes), (), not classes
  if unnamed:
    splits, classes, notes = labels_lib.numbered(splits, conventions, at)
  splits = {
    split: examples_lib.checked(
      examples,
      len(classes),
      at=at[split],
      limits=conventions.limits,
      fields=fields,
    )
    for split, examples in splits.items()
  }
  for split, examples in splits.items():
    examples_lib.check_labels(examples, len(classes), at=at[split])
  (one, *others), count = splits[first].index.values, len(splits[first])
  if not others:
    raise UserError(
      f'{at[first]} only has examples of the class {one}; there must be two '
      'classes or more'
    )
  if unnamed and not (conventions.num_classes or conventions.classes):
    labels_lib.check_gaps(splits, at)

  if first == 'all':
    fifth, usual = max(1, round(count / 5)), 0.25
    splits = _hold_out(name, splits['all'], fifth, 'test')
  if 'validation' not in splits:
    usual = usual if validation is None else validation
    splits |= _validation(name, splits['train'], usual)
  elif validation is not None:
    raise UserError(
      f'data.kw.validation: {name!r} has a validation split of its own; remove '
      'the entry'
    )
  order = [s for s in ('train', 'validation', 'test') if s in splits]
  splits = {split: splits[split] for split in order}
  notes = *notes, *said, *labels_lib.lacking(splits, classes)
  made = Source(name, splits, len(classes), shapes[first], classes, notes)
  return made._replace(range=conventions.ends, fields=fields)


def _first(name: str, splits: Mapping[str, Any]) -> str:
  """The split to learn from: 'train', or 'all' where it is the only one.

  Raises:
    UserError: splits of other names, or too few.
  """
  missing = {'train', 'test'} - splits.keys()
  odd = splits.keys() - {'train', 'validation', 'test'}
  if splits.keys() == {'all'}:
    return 'all'
  if missing or odd:
    raise UserError(
      f'data.source: {name!r} has the splits {", ".join(splits) or "(none)"}; '
      'it must have train and test, and may have validation, or all alone'
    )
  return 'train'


def _validation(
  name: str, train: Examples, amount: int | float
) -> dict[str, Examples]:
  size = _held_out(amount, len(train))
  return _hold_out(name, train, size, 'validation') if size else {}


def _held_out(
  amount: int | float, count: int, split: str = 'validation'
) -> int:
  """How many of the training examples to hold out for a split."""
  size = amount
  if isinstance(amount, float):
    size = round(amount * count) if 0 <= amount <= 1 else -1
  if not 0 <= size < count or (amount and not size):
    none = ', or 0 for no validation split' if split == 'validation' else ''
    raise UserError(
      f'data.kw.{split}: {amount} of {count} examples leaves nothing to train '
      f'on or none for {split}; give a share such as 0.1, or a number of '
      f'examples{none}'
    )
  return size


def _hold_out(
  name: str, examples: Examples, size: int, split: str
) -> dict[str, Examples]:
  """Splits off examples: ``{'train': the rest, split: examples}``."""
  train, out = examples_lib.hold_out(examples, size)
  kinds = examples.index.classes
  for label in np.setdiff1d(kinds, train.index.classes):
    count = (kinds == label).sum()
    raise UserError(
      f'data.source: class {label} of {name!r} has too few examples, {count}, '
      f'to hold some out for {split}; add examples, or leave the class out'
    )
  return {'train': train, split: out}


def _from_user(
  name: str,
  function: Any,
  options: Mapping[str, Any],
  validation: int | float | None,
) -> Source:
  takes = options_lib.parameters_of(function)
  takes_all = any(p.kind is p.VAR_KEYWORD for p in takes.values())
  left = set() if takes_all else {*Conventions._fields} - takes.keys()
  ours = {o: value for o, value in options.items() if o in left}
  options = {o: value for o, value in options.items() if o not in ours}
  conventions = conventions_lib.of(**ours)
  options_lib.check(options, takes, name=name, at='data.kw')
  made = function(**options)
  if isinstance(made, Source):
    return _from_source(name, made, validation, conventions)
  try:
    splits = {str(s): (inputs, labels) for s, (inputs, labels) in made.items()}
  except (AttributeError, TypeError, ValueError) as error:
    raise UserError(
      f'data.source: {name} must return a jaxkd.data.sources.Source or a dict '
      f'of (inputs, labels) by split, not {type(made).__name__}'
    ) from error
  return _from_arrays(name, splits, validation, conventions)


def _from_source(
  name: str,
  made: Source,
  validation: int | float | None,
  conventions: Conventions,
) -> Source:
  """Checks a user's own `Source`, and converts its inputs by conventions."""
  if conventions.num_classes or conventions.classes:
    entry = 'classes' if conventions.classes else 'num_classes'
    raise UserError(
      f'data.kw.{entry}: {name} returns a jaxkd.data.sources.Source, which '
      'sets this itself; remove the entry'
    )
  positions.check_declared(made.fields, f'data.source: {name}')
  classes = tuple(made.classes) or tuple(map(str, range(made.num_classes)))
  if len(classes) != made.num_classes:
    raise UserError(
      f'data.source: {name} names {len(classes)} classes of {made.num_classes}'
    )

  def change(split, batch, numbers):
    at = _at(name, split)
    inputs = jax.tree.map(
      lambda x: pixels.as_inputs(x, conventions, at, numbers), batch['inputs']
    )
    return {**batch, 'inputs': inputs}

  splits = dict(made.splits)
  for split, examples in splits.items():
    one = examples.fetch(np.arange(1))['inputs'] if len(examples) else ()
    for x in jax.tree.leaves(one):
      shape = (len(examples), *np.shape(x)[1:])
      pixels.check_layout(shape, conventions, _at(name, split))
  if conventions.range or conventions.layout:
    splits = {
      split: examples_lib.changed(examples, functools.partial(change, split))
      for split, examples in splits.items()
    }
  source = _source(
    name,
    splits,
    validation,
    classes=classes,
    conventions=conventions,
    fields=made.fields,
  )
  return source._replace(
    notes=(*made.notes, *source.notes),
    resize=made.resize,
    vocabulary=made.vocabulary,
  )


def _from_arrays(
  name: str,
  splits: Mapping[str, tuple[Any, Any]],
  validation: int | float | None,
  conventions: Conventions,
) -> Source:
  """A source of inputs [N, ...], or pytrees of them, and labels, by split."""
  first = _first(name, splits)
  splits = {first: splits[first], **splits}
  at = {split: _at(name, split) for split in splits}
  labels, classes, notes = labels_lib.read(
    {split: labels for split, (_, labels) in splits.items()}, conventions, at
  )
  made = {}
  for split, (inputs, _) in splits.items():
    inputs = jax.tree.map(
      lambda x, at=at[split]: pixels.as_inputs(x, conventions, at), inputs
    )
    fields = {'inputs': inputs, 'labels': labels[split]}
    examples_lib.check_lengths(fields, at[split])
    made[split] = ArrayExamples(**fields)
  source = _source(
    name, made, validation, classes=classes, conventions=conventions
  )
  return source._replace(notes=(*notes, *source.notes))


def _at(name: str, split: str) -> str:
  if split == 'all':
    return f'data.source: {name!r}'
  return f'data.source: the split {split!r} of {name!r}'


def _given_dir(name: str, function: Any, dir: str) -> dict[str, Any]:
  if dir and 'dir' not in inspect.signature(function).parameters:
    raise UserError(
      f'data.dir: {name} reads nothing from a folder; leave the entry empty'
    )
  return {'dir': dir} if dir else {}


def _place(dir: str, path: str) -> Path:
  """The path of a source's files; a relative one is in the folder."""
  folder = files_lib.path(dir, at='data.dir')
  return folder / files_lib.path(path, at='data.source')


def _check_dir(dir: str) -> None:
  if dir and not files_lib.path(dir, at='data.dir').is_dir():
    raise UserError(f'data.dir: there is no folder {dir}')
