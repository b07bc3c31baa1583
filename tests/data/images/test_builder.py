"""Images of ours that TFDS reads."""

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.images import builder
from jaxkd.errors import UserError

LABELS = np.array([0, 1, 2, 0, 1, 2, 2, 0, 1])
MAPS = np.arange(9 * 4 * 5).reshape(9, 4, 5) % 3
SMALL = {'count': 6, 'test': 3, 'validation': 4, 'size': 24, 'labelled': 0.5}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


def written(source, name, folder):
  place = builder.build(source, name, str(folder))
  assert place == folder / name / '1.0.0'
  validation = 0 if 'validation' not in source.splits else None
  return sources.load(f'tfds:{name}', dir=str(folder), validation=validation)


def ours(labels, *, channels=1, classes=('a', 'b', 'c'), **fields):
  """A source of nine images of 4x5 pixels, of which the last four test."""
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (9, 4, 5, channels), np.uint8)
  fields |= {'inputs': images, 'labels': np.asarray(labels)}
  splits = {
    split: ArrayExamples(**{name: x[own] for name, x in fields.items()})
    for split, own in (('train', slice(5)), ('test', slice(5, 9)))
  }
  return sources.Source('ours', splits, 3, (4, 5, channels), classes)


def same(one, other, splits):
  for split in splits:
    rows = np.arange(len(one.splits[split]))
    ours, theirs = (x.splits[split].fetch(rows) for x in (one, other))
    assert {*ours} == {*theirs}
    for field in ours:
      np.testing.assert_array_equal(ours[field], theirs[field])
  assert one.classes == other.classes
  assert one.input_shape == other.input_shape


def test_maps_come_back_in_their_order(folder):
  source = sources.load('scenes', **SMALL)
  same(source, written(source, 'scenes', folder), source.splits)


def test_so_do_classes_of_images(folder):
  source = ours(LABELS)
  same(source, written(source, 'ours', folder), source.splits)


def test_all_pixels_may_count(folder):
  source = written(ours(MAPS), 'counted', folder)
  test = source.splits['test'].fetch(np.arange(4))
  np.testing.assert_array_equal(test['labels'], MAPS[5:])
  assert test['valid'].all()


@pytest.mark.parametrize('name', ['Scenes', 'my-scenes', '', 'é', '_x', '1a'])
def test_names_that_tfds_cannot_have(folder, name):
  source = sources.load('scenes', **SMALL)
  with pytest.raises(UserError, match='is no name for a TFDS data set'):
    builder.build(source, name, str(folder))


def test_what_is_there_stays(folder):
  source = sources.load('scenes', **SMALL)
  written(source, 'twice', folder)
  with pytest.raises(UserError, match='is there already; remove it'):
    builder.build(source, 'twice', str(folder))


def test_a_folder_without_files_is_none(folder):
  (folder / 'rest' / '1.0.0' / 'empty').mkdir(parents=True)
  written(ours(LABELS), 'rest', folder)


@pytest.mark.parametrize(
  ('odd', 'message'),
  [
    (
      dict(labels=LABELS, valid=LABELS != 1),
      "example 1 in train of 'ours' .* with one class, which counts; ",
    ),
    (
      dict(labels=MAPS[:, :2]),
      r'image \[4, 5, 1\] of uint8 with a class for each pixel',
    ),
    (
      dict(labels=LABELS + 1),
      "the split 'train' of 'ours': example 2 has the label 3",
    ),
    (
      dict(labels=LABELS, channels=2),
      'ours has no images of uint8 with 1 or 3 channels',
    ),
    (
      dict(labels=LABELS, classes=('a', 'b', 'c\nd')),
      r"class 'c\\nd'; names must be one line",
    ),
    (
      dict(labels=LABELS, classes=('a', 'b', '')),
      "class ''; names must be one line",
    ),
    (
      dict(labels=LABELS, classes=('a', 'b', 'b')),
      'has 2 names for 3 classes',
    ),
  ],
)
def test_what_would_not_come_back_leaves_nothing(tmp_path, odd, message):
  with pytest.raises(UserError, match=message):
    builder.build(ours(**odd), 'odd', str(tmp_path / 'tfds'))
  assert not [*tmp_path.iterdir()]


def test_other_examples_are_refused(folder):
  with pytest.raises(UserError, match='digits has no images of uint8'):
    builder.build(sources.load('digits'), 'digits', str(folder))
