"""Sources of compressed video."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxkd.data import examples as examples_lib
from jaxkd.data import file_cache, listing, positions
from jaxkd.data.examples import StreamedExamples
from jaxkd.data.images import image_files
from jaxkd.data.images import scenes as scenes_lib
from jaxkd.data.source import (
  Source,
  given_dir,
  make_source,
  place,
  with_sizes,
)
from jaxkd.data.sources import images as image_sources
from jaxkd.data.video import clips as clips_lib
from jaxkd.data.video import compressed as video_lib
from jaxkd.data.video import ucf
from jaxkd.errors import UserError, unknown


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
  """Clothes or digits that do one of ten things, before a panning camera.

  Clips are encoded once as MPEG-4, one group of pictures each, and read back as
  `video` reads them; see `jaxkd.data.video.clips`. The objects of a split come
  from the same split of their source.

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
  function = getattr(image_sources, objects)
  of = function(**given_dir(f'clips of {objects}', function, dir))
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
    classes, files, _ = _in_class_folders(root)
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
  published: PATH has ``UCF-101/CLASS/*.avi`` and ``ucfTrainTestlist``. See
  `jaxkd.data.video.compressed` for what they must be, and for what the parts
  mean. Inputs are a dict of the parts, which the view ``part(NAME)`` takes one
  of; or, of one part, its array alone. All are uint8 [H, W, C], with the
  P-frames along the channels; 'frames' is [count, H, W, 3].

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
  name, root = f'video:{path}', place(dir, path)
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  if fold not in (1, 2, 3):
    raise UserError(f'data.kw.fold: {fold} should be 1, 2 or 3')
  notes = ()
  if ucf.is_laid_out(root):
    classes, files = ucf.read(root, fold)
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
    ucf.check_has_lists(root)
    classes, files, notes = _in_class_folders(root)
  source = _clips(
    name, video_lib.read(files, how), how, classes, validation, notes
  )
  found = {
    split: image_files.Found(
      listing.of(path for path, _ in own), np.array([label for _, label in own])
    )
    for split, own in files.items()
  }
  twice = image_sources.seen_twice(source.splits, found, video_lib.VIDEOS)
  source = source._replace(notes=(*twice, *source.notes))
  all_files = listing.joined([own.files for own in found.values()])
  return with_sizes(source, all_files, root)


def _in_class_folders(
  root: Path,
) -> tuple[list[str], dict[str, list[tuple[Path, int]]], tuple[str, ...]]:
  """As that of images, with the paths and labels of each split."""
  classes, found, notes = image_sources.in_class_folders(root, video_lib.VIDEOS)
  files = {
    split: [*zip(map(Path, own.files.paths), own.labels.tolist(), strict=True)]
    for split, own in found.items()
  }
  return classes, files, notes


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
  signed = {'motion': positions.VECTORS, 'residual': positions.SIGNED}
  of |= {part: kind for part, kind in signed.items() if part in of}
  kinds = of if len(of) > 1 else {'inputs': next(iter(of.values()))}
  splits = {
    split: examples_lib.held(own) if len(own) else own
    for split, own in splits.items()
  }
  source = make_source(name, splits, validation, classes=classes, fields=kinds)
  notes = *source.notes, *notes, *video_lib.clipped(source.splits['train'], how)
  return source._replace(notes=notes, resize=how.resize)
