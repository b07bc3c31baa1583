"""The `:paper` form of every config: it is built, and a step is traced.

No data is read: a source of the published shape stands in for it.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxkd import shapes
from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.errors import UserError
from jaxkd.run import checks
from jaxkd.run import config as configs

CONFIGS = sorted((Path(__file__).parents[1] / 'configs').glob('*.py'))
# Source -> the shape of an example and the number of classes, as published.
PUBLISHED = {
  'tfds:mnist': ((28, 28, 1), 10),
  'tfds:caltech_birds2011': ((256, 256, 3), 200),
  'tfds:cifar10': ((32, 32, 3), 10),
  'tfds:cifar100': ((32, 32, 3), 100),
  'npz:chime3.npz': ((1, 87, 2), 3012),
  'npz:speech_frames.npz': ((26, 40), 14_000),
  'npz:breast_mri.npz': ((224, 224, 4), 2),
  'npz:ucf101_segments.npz': ((10, 2048), 101),
  'video:ucf101': (
    {
      'image': (224, 224, 3),
      'motion': (224, 224, 6),
      'residual': (224, 224, 9),
    },
    101,
  ),
  'folder:imagenet': ((224, 224, 3), 1000),
  'folder:isic2017': ((224, 224, 3), 3),
}
SENTENCES = {  # length, pieces
  'translation:wmt14_translate/de-en': (50, 50_000),
  'parallel:wmt13': (50, 50_000),
}
TEXTS = {'text:ptb': (35, 10_003)}  # length, words
SPOKEN = {'speech:LibriSpeech': (1700, 80, 150, 5000)}  # frames, bins, tokens
MAPS = {'tfds:cityscapes/semantic_segmentation': ((512, 512, 3), 19)}
BOXES = {'tfds:kitti': ((384, 1248, 3), 8)}


def maps(name, shape, classes):
  labels = np.arange(40, dtype=np.int32)[:, None, None] % classes
  labels = np.broadcast_to(labels, (40, *shape[:2]))

  def read(numbers):
    images = np.zeros((len(numbers), *shape), np.float32)
    own = labels[numbers]
    return {'inputs': images, 'labels': own, 'valid': own >= 0}

  split = StreamedExamples(len(labels), read, lambda: labels)
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  names = tuple(map(str, range(classes)))
  return sources.Source(name, splits, classes, shape, names)


def boxes(name, shape, classes):
  fields = {
    'labels': np.tile(
      np.arange(40, dtype=np.int32)[:, None] % classes, (1, 30)
    ),
    'boxes': np.tile(np.array([0, 0, 0.5, 0.5], np.float32), (40, 30, 1)),
    'valid': np.ones((40, 30), bool),
  }

  def read(numbers):
    images = np.zeros((len(numbers), *shape), np.float32)
    return {'inputs': images, **{k: x[numbers] for k, x in fields.items()}}

  split = StreamedExamples(40, read)
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  names = tuple(map(str, range(classes)))
  return sources.Source(name, splits, classes, shape, names)


def sentences(name, length, words):
  tokens = np.zeros((400, length), np.int32)
  labels = np.tile(np.arange(400, dtype=np.int32)[:, None], (1, length))
  split = ArrayExamples(
    {'source': tokens, 'prefix': tokens}, labels, valid=labels > 0
  )
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  shape = shapes.example(split.fetch(np.arange(1))['inputs'])
  names = tuple(map(str, range(words)))
  return sources.Source(name, splits, words, shape, names)


def texts(name, length, words):
  labels = np.tile(np.arange(4000, dtype=np.int32)[:, None] + 4, (1, length))
  split = ArrayExamples(labels, labels, valid=labels > 0, bytes=labels)
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  shape = shapes.example(split.fetch(np.arange(1))['inputs'])
  names = tuple(map(str, range(words)))
  return sources.Source(name, splits, words, shape, names)


def spoken(name, frames, bins, length, pieces):
  labels = np.tile(np.arange(400, dtype=np.int32)[:, None], (1, length))

  def read_labels(numbers):
    return {'labels': labels[numbers], 'valid': labels[numbers] > 0}

  def read(numbers):
    source = {
      'frames': np.zeros((len(numbers), frames, bins), np.float32),
      'valid': np.ones((len(numbers), frames), bool),
    }
    inputs = {'source': source, 'prefix': labels[numbers]}
    return {'inputs': inputs, **read_labels(numbers)}

  split = StreamedExamples(len(labels), read, read_labels=read_labels)
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  shape = shapes.example(read(np.arange(1))['inputs'])
  return sources.Source(name, splits, pieces, shape, ('x',) * pieces)


def stand_in(name, **options):
  if name in TEXTS:
    return texts(name, *TEXTS[name])
  if name in SENTENCES:
    return sentences(name, *SENTENCES[name])
  if name in SPOKEN:
    return spoken(name, *SPOKEN[name])
  if name in MAPS:
    return maps(name, *MAPS[name])
  if name in BOXES:
    return boxes(name, *BOXES[name])
  shape, classes = PUBLISHED[name]
  # Of so many, a batch is a small fraction.
  labels = np.arange(min(400, 400_000 // classes) * classes) % classes

  def read(numbers):
    of = shapes.batch(shape, len(numbers))
    inputs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), of)
    return {'inputs': inputs, 'labels': labels[numbers]}

  split = StreamedExamples(len(labels), read, lambda: labels)
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  names = tuple(map(str, range(classes)))
  return sources.Source(name, splits, classes, shape, names)


@pytest.mark.parametrize('file', CONFIGS, ids=lambda path: path.stem)
def test_the_paper_form_can_be_traced(
  file, of_the_claim, tmp_path, monkeypatch
):
  try:
    config = configs.plain(configs.load(f'{file}:paper'))
  except UserError as error:
    refused = str(error)  # says what cannot be had
    assert refused.endswith('leave :paper out')
    return
  monkeypatch.setattr(sources, 'load', stand_in)
  # Nor are weights of others.
  monkeypatch.setattr(checks.teachers, 'restore', lambda *given: None)
  # Other arms differ in sizes or weights, and each would be traced anew.
  _, rounds = checks.prepare(of_the_claim(config, arms=1), tmp_path)
  assert rounds
