"""Sources of images with labels of places: maps of classes, and boxes."""

import zlib

import numpy as np

from jaxkd.data import copies, listing
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.images import coco as coco_lib
from jaxkd.data.images import image_files, objects
from jaxkd.data.images import scenes as scenes_lib
from jaxkd.data.source import (
  Source,
  first_split,
  given_dir,
  in_memory,
  make_source,
  place,
  split_entry,
  with_sizes,
)
from jaxkd.data.sources import images as image_sources
from jaxkd.errors import UserError, unknown


def scenes(
  *,
  dir: str = '',
  objects: str = 'digits',
  labels: str = 'maps',
  size: int = 48,
  count: int = 2000,
  test: int = 500,
  most: int = 4,
  labelled: float = 1.0,
  seed: int = 0,
  validation: int | None = None,
) -> Source:
  """Digits or clothes pasted on coloured canvases, with maps or boxes.

  Objects of many scales and colours occlude one another on textures and
  strokes; see `jaxkd.data.images.scenes`. The objects of a split come from the
  same split of their source.

  With maps, each pixel has a class: 0 is the background, and the classes of the
  objects follow; a ring of one pixel around each object does not count. With
  boxes, each object has its class and, in the field ``boxes``, its place;
  objects of which more than 60 % are hidden are left out.

  Args:
    dir: where the objects' files are, as for their source.
    objects: 'digits' or 'fashion_mnist'.
    labels: 'maps' or 'boxes'.
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
  if labels not in ('maps', 'boxes'):
    raise unknown('kind of labels', labels, ('maps', 'boxes'), 'data.kw.labels')
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
  if labels == 'boxes' and labelled != 1:
    raise UserError(
      f'data.kw.labelled: {labelled} is for maps, as a scene without boxes is '
      'one without objects; leave it out'
    )
  known = round(labelled * count) if 0 < labelled <= 1 else 0
  if not known:
    raise UserError(
      f'data.kw.labelled: {labelled} of {count} scenes leaves none with '
      'labels; give a share above 0 and up to 1'
    )
  function = getattr(image_sources, objects)
  of = function(**given_dir(f'scenes of {objects}', function, dir))
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
    if labels == 'boxes':
      splits[split] = ArrayExamples(made.images, **made.objects._asdict())
      continue
    if split == 'train':
      made.valid[known:] = False
      made.labels[known:] = 0
    splits[split] = ArrayExamples(made.images, made.labels, valid=made.valid)
  left = None if 'validation' in splits else 0
  classes = of.classes if labels == 'boxes' else ('background', *of.classes)
  source = make_source('scenes', splits, left, classes=classes)
  if known == count:
    return source
  note = f'the first {known} of {count} training scenes have labels'
  return source._replace(notes=(note,))


def coco(
  path: str,
  *,
  dir: str = '',
  test: str = '',
  resize: int | tuple[int, int] = 0,
  most: int = 0,
  clip: bool = False,
  validation: int | float | None = None,
) -> Source:
  """Images with the boxes of their objects, annotated in COCO's format.

  The annotations are ``train.json``, ``test.json`` and perhaps
  ``validation.json`` (or ``val``, ``valid``, ``dev``), or COCO's own
  ``instances_train2017.json``, in PATH or in its folder ``annotations``, and
  the images in a folder of the split's name, in ``images`` or in PATH. Folders
  of splits with a ``_annotations.coco.json`` each will do, and so will one
  file of annotations, to be split 60 : 20 : 20.

  Classes are the categories in the order of their numbers. Crowds are left out.
  An image may have no object.

  Args:
    path: of the folder, absolute or in ``dir``.
    dir: a folder.
    test: what the split to test on is called, such as 'val2017'.
    resize: side in pixels to resize all images to, or height and width; 0 for
      no resizing.
    most: objects in an image, at most; 0 for as many as one has.
    clip: whether boxes are cut off at the edges of their images, and left out
      where they have no area; else such boxes are refused.
    validation: as in `load`.
  """
  image_files.check_resize(resize)
  objects.check_most(most, least=0)
  name, root = f'coco:{path}', place(dir, path)
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  found = {
    split: coco_lib.read(file, root, clip=clip)
    for split, file in coco_lib.find(root, test).items()
  }
  first_split(name, found)
  coco_lib.check_alike(found)
  files = listing.of(path for own in found.values() for path in own.images)
  sizes = [size for own in found.values() for size in own.sizes]
  key = listing.key(files, 1)
  kind = image_files.kind_of_many(files.paths, resize, key, sizes)
  counts = [len(labels) for own in found.values() for labels, _ in own.found]
  how = kind.mode, resize, most or max(1, *counts)
  splits = {
    split: coco_lib.examples(own, *how, split_entry(name, split))
    for split, own in found.items()
  }
  source = make_source(
    name, splits, validation, classes=next(iter(found.values())).categories
  )
  source = source._replace(splits=in_memory(source, splits), resize=resize)
  notes = *source.notes, *kind.notes, *coco_lib.notes(found)
  source = source._replace(notes=(*notes, *copies.said(source.splits)))
  return with_sizes(source, files, root)
