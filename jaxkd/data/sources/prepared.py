"""Data sets that TFDS has prepared."""

from pathlib import Path

from jaxkd.data import conventions as conventions_lib
from jaxkd.data import examples as examples_lib
from jaxkd.data import folders as folders_lib
from jaxkd.data import listing, prepared
from jaxkd.data.images import image_files, objects
from jaxkd.data.source import Source, make_source, with_sizes
from jaxkd.data.sources import NAMES
from jaxkd.errors import UserError, unknown


def tfds(
  path: str,
  *,
  dir: str = '',
  inputs: str = '',
  labels: str = '',
  test: str = 'test',
  resize: int | tuple[int, int] = 0,
  ignore: tuple[int, ...] = (255,),
  most: int = objects.MOST,
  clip: bool = False,
  origin: str = '',
  num_classes: int = 0,
  classes: tuple | str = (),
  range: tuple[float, float] | str = (),
  layout: str = '',
  validation: int | float | None = None,
) -> Source:
  """A data set that TFDS has prepared in a format with random access.

  Labels are one class number for each example; a map of class numbers, which
  the features `Image` and `LabeledImage` with one channel hold; or objects, a
  `Sequence` with a box and a class of each, as 'objects' of coco, voc and
  kitti. Objects that are crowds or difficult are left out.

  Args:
    path: its name, perhaps with config and version: 'cifar10:3.0.2'.
    dir: TFDS's data directory; empty for its own default.
    inputs: the input feature; by default that of TFDS's supervised keys.
    labels: the feature to predict, likewise; of objects with several classes
      each also which, such as 'objects/type'.
    test: the TFDS split to test on.
    resize: side in pixels to resize all images to, or height and width, and
      maps by the nearest pixel; 0 for no resizing.
    ignore: values in maps, from 0 to 255, that do not count.
    most: objects in an image, at most.
    clip: as in `coco`, for boxes.
    origin: whether boxes are measured from the 'top' of an image or from its
      'bottom'; by default from the top, and in kitti from the bottom.
    num_classes: as in `npz`, where TFDS has no names of the classes.
    classes: likewise.
    range: as in `npz`.
    layout: as in `npz`.
    validation: as in `load`.
  """
  conventions = conventions_lib.of(
    num_classes=num_classes, classes=classes, range=range, layout=layout
  )
  image_files.check_resize(resize)
  name, builder = f'tfds:{path}', prepared.find(path, dir, NAMES)
  keys = tuple(builder.info.supervised_keys or ('image', 'label'))[:2]
  inputs, labels = inputs or keys[0], labels or keys[1]
  for entry, key in (('inputs', inputs), ('labels', labels.split('/')[0])):
    if key not in builder.info.features:
      raise unknown('feature', key, builder.info.features, f'data.kw.{entry}')
  if prepared.is_text(builder, inputs):
    raise UserError(
      f'data.kw.inputs: {inputs!r} of {path} is text; read it for language '
      f"models as data.source='text:tfds:{path}', or name another feature"
    )
  if inputs == labels:
    raise UserError(
      f'data.kw: inputs and labels are both {labels!r}, so that the net would '
      'be shown the answer; name another feature for one of them'
    )
  boxed = prepared.objects_of(builder, labels, most, clip, origin)
  labelled = boxed.classes if boxed else builder.info.features[labels]
  shape = () if boxed else labelled.shape
  maps = len(shape) == 3 and shape[-1] == 1
  if shape and not maps:
    raise UserError(
      f'data.kw.labels: {labels!r} is not one class number for each example, '
      'nor a map of them, [H, W, 1], nor objects; name another feature'
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
  names = tuple(getattr(labelled, 'names', None) or ())
  if names and (num_classes or classes):
    entry = 'classes' if classes else 'num_classes'
    raise UserError(
      f'data.kw.{entry}: {labels!r} of {path} names its {len(names)} classes; '
      'remove the entry'
    )
  how = inputs, labels, resize, tuple(ignore) if maps else None, conventions
  how = *how, boxed
  splits = {
    split: examples_lib.held(prepared.read(builder, of, *how))
    for split, of in stored.items()
  }
  source = make_source(
    name, splits, validation, classes=names, conventions=conventions
  )
  notes = *source.notes, *(boxed.notes if boxed else ())
  folder = Path(builder.data_path)
  shards = [path for path in sorted(folder.iterdir()) if path.is_file()]
  source = source._replace(resize=resize, notes=notes)
  return with_sizes(source, listing.of(shards), folder)
