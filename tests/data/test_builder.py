"""Images of ours that TFDS reads."""

import numpy as np
import pytest

from jaxkd.data import builder, sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.errors import UserError

SMALL = {'count': 6, 'test': 3, 'validation': 4, 'size': 24, 'labelled': 0.5}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


def written(source, name, folder):
  place = builder.build(source, name, str(folder))
  assert place == folder / name / '1.0.0'
  validation = 0 if 'validation' not in source.splits else None
  return sources.load(f'tfds:{name}', dir=str(folder), validation=validation)


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
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (9, 4, 5, 1), np.uint8)
  labels = np.array([0, 1, 2, 0, 1, 2, 2, 0, 1])
  source = sources.Source(
    'ours',
    {
      'train': ArrayExamples(images[:5], labels[:5]),
      'test': ArrayExamples(images[5:], labels[5:]),
    },
    3,
    (4, 5, 1),
    ('a', 'b', 'c'),
  )
  same(source, written(source, 'ours', folder), source.splits)


@pytest.mark.parametrize('name', ['Scenes', 'my-scenes', ''])
def test_names_that_tfds_cannot_have(folder, name):
  source = sources.load('scenes', **SMALL)
  with pytest.raises(UserError, match='is no name for a TFDS data set'):
    builder.build(source, name, str(folder))


def test_what_is_there_stays(folder):
  source = sources.load('scenes', **SMALL)
  written(source, 'twice', folder)
  with pytest.raises(UserError, match='is there already; remove it'):
    builder.build(source, 'twice', str(folder))


def test_other_examples_are_refused(folder):
  with pytest.raises(UserError, match='digits has no images of uint8'):
    builder.build(sources.load('digits'), 'digits', str(folder))
