"""Scenes of objects on canvases."""

import numpy as np
import pytest
from scipy import ndimage

from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.images import scenes
from jaxkd.data.sources import images as image_sources
from jaxkd.errors import UserError
from jaxkd.run import build

SMALL = {'count': 12, 'test': 6, 'validation': 4}
SPLITS = ('train', 'validation', 'test')


def everything(split):
  return split.fetch(np.arange(len(split)))


@pytest.fixture(scope='module')
def source():
  return sources.load('scenes', **SMALL)


def squares(**options):
  """Scenes of one bright square, and what they are made of."""
  objects = np.ones((3, 4, 4), np.uint8) * np.array([[[255]]], np.uint8)
  options = {'size': 48, 'most': 1, 'threshold': 0.4, 'seed': (1,)} | options
  return scenes.compose(objects, np.array([4, 4, 4]), 8, **options)


def test_images_maps_and_classes(source):
  assert source.classes == ('background', *map(str, range(10)))
  assert source.input_shape == (48, 48, 3)
  assert tuple(source.splits) == SPLITS
  assert [len(split) for split in source.splits.values()] == [12, 4, 6]
  for split in source.splits.values():
    batch = everything(split)
    assert batch['inputs'].dtype == np.uint8
    assert batch['labels'].shape == batch['valid'].shape == (len(split), 48, 48)
    assert not batch['labels'][~batch['valid']].any()
    objects = (batch['labels'] > 0).mean((1, 2))
    assert (objects > 0.01).all()
    assert (objects < 0.7).all()
    assert (batch['labels'] == 0).any((1, 2)).all()


def test_a_ring_around_each_object_does_not_count():
  made = squares()
  for labels, valid in zip(made.labels, made.valid, strict=True):
    own = labels > 0
    assert {*labels[own].tolist()} == {5}
    grown = ndimage.binary_dilation(own, np.ones((3, 3)))
    np.testing.assert_array_equal(~valid, grown & ~own)
    (box,) = ndimage.find_objects(own.astype(int))
    sides = [part.stop - part.start for part in box]
    assert all(5 <= side <= 28 for side in sides)


def test_later_objects_hide_earlier_ones():
  few, many = squares(most=1, size=24), squares(most=12, size=24)
  assert (many.labels > 0).mean() > 1.5 * (few.labels > 0).mean()
  # Where an object covers the ring of an earlier one, its pixels count.
  assert many.valid[many.labels > 0].all()
  assert (~many.valid).any()


def test_boxes_are_around_what_is_seen():
  """Of one object it is all of it; its class is that of its pixels, less 1."""
  made = squares()
  assert made.objects.valid.tolist() == [[True]] * 8
  assert made.objects.labels.tolist() == [[4]] * 8
  for labels, (box,) in zip(made.labels, made.objects.boxes, strict=True):
    rows, columns = np.nonzero(labels)
    ends = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    np.testing.assert_allclose(box, np.array(ends) / 48)


def test_hidden_objects_have_no_box():
  made = squares(most=12, size=24)
  there = made.objects.valid
  assert there.any(1).all()  # nothing hides the last one
  assert not made.objects.boxes[~there].any()
  assert (~there).any() and (there.sum(1) > 1).any()
  # They are in front, and the rest fills up.
  assert (np.diff(there.astype(int), axis=1) <= 0).all()
  corners = made.objects.boxes[there]
  assert ((corners >= 0) & (corners <= 1)).all()
  assert (corners[:, :2] < corners[:, 2:]).all()


def test_of_an_object_that_is_partly_hidden_the_rest_is_boxed():
  owner = np.zeros((10, 10), int)
  owner[2:6, 1:9] = 1  # 32 pixels
  owner[2:8, 5:9] = 2  # of which it hides 16
  owner[7:8, 5:9] = 3
  objects = scenes.Objects(
    np.zeros((1, 4), int), np.zeros((1, 4, 4)), np.zeros((1, 4), bool)
  )
  scenes._note(objects, 0, owner, [7, 8, 9, 6], [32, 60, 4, 5])
  # Of the second 20 of 60 pixels are seen, of the fourth none.
  assert objects.valid.tolist() == [[True, True, False, False]]
  assert objects.labels[0].tolist() == [7, 9, 0, 0]
  np.testing.assert_allclose(
    objects.boxes[0, :2], [[0.2, 0.1, 0.6, 0.5], [0.7, 0.5, 0.8, 0.9]]
  )


def test_a_source_of_boxes(source):
  boxed = sources.load('scenes', labels='boxes', **SMALL)
  assert boxed.classes == tuple(map(str, range(10)))
  for split, other in zip(SPLITS, source.splits.values(), strict=True):
    batch, maps = everything(boxed.splits[split]), everything(other)
    np.testing.assert_array_equal(batch['inputs'], maps['inputs'])
    assert batch['labels'].shape == batch['valid'].shape
    assert batch['boxes'].shape == (*batch['labels'].shape, 4)
    for i, j in np.argwhere(batch['valid']):
      sides = np.round(batch['boxes'][i, j] * 48).astype(int)
      inside = maps['labels'][i, sides[0] : sides[2], sides[1] : sides[3]]
      assert (inside == batch['labels'][i, j] + 1).any()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'labels': 'box'}, r"data.kw.labels.*'box'.*'boxes'"),
    (
      {'labels': 'boxes', 'labelled': 0.5},
      r'data.kw.labelled: 0.5 is for maps',
    ),
  ],
)
def test_labels_that_are_not_there(options, message):
  with pytest.raises(UserError, match=message):
    sources.load('scenes', **options, **SMALL)


def test_objects_can_be_told_from_their_canvas():
  made = squares()
  for image, labels, valid in zip(*made[:3], strict=True):
    near = ndimage.binary_dilation(labels > 0, iterations=4)
    near &= valid & (labels == 0)
    inside, around = image[labels > 0].mean(0), image[near].mean(0)
    assert np.abs(inside - around).max() > 10


def test_splits_have_objects_of_their_own(monkeypatch):
  """A digit is told by its class here: each split has other classes."""
  own = dict(zip(SPLITS, ((0, 1), (2, 3), (4, 5)), strict=True))

  def digits():
    splits = {
      split: ArrayExamples(np.ones((2, 8, 8, 1), np.float32), classes)
      for split, classes in own.items()
    }
    return sources.Source('digits', splits, 10, (8, 8, 1), tuple('abcdefghij'))

  monkeypatch.setattr(image_sources, 'digits', digits)
  made = sources.load('scenes', **SMALL)
  for split, classes in own.items():
    found = {*np.unique(made.splits[split].labels).tolist()} - {0}
    assert found == {k + 1 for k in classes}


def test_scenes_depend_on_the_seed_and_their_number_alone(source):
  batch = everything(source.splits['train'])
  more = sources.load('scenes', **{**SMALL, 'count': 20, 'labelled': 0.5})
  found = everything(more.splits['train'])
  for field in ('labels', 'valid'):
    np.testing.assert_array_equal(found[field][:10], batch[field][:10])
  np.testing.assert_array_equal(found['inputs'][:12], batch['inputs'])
  other = sources.load('scenes', **SMALL, seed=1)
  test = [everything(s.splits['test'])['inputs'] for s in (source, other)]
  assert (test[0] != test[1]).any((1, 2, 3)).all()
  assert (
    (test[0][:4] != everything(source.splits['validation'])['inputs'])
    .any((1, 2, 3))
    .all()
  )


def test_labelled_scenes_come_first_and_are_counted(source):
  assert source.notes == ()
  made = sources.load('scenes', **SMALL, labelled=0.25)
  assert made.notes == ('the first 3 of 12 training scenes have labels',)
  train, test = (everything(made.splits[s]) for s in ('train', 'test'))
  np.testing.assert_array_equal(train['valid'].any((1, 2)), np.arange(12) < 3)
  assert not train['labels'][3:].any()
  assert test['valid'].any((1, 2)).all()


def test_clothes_are_read_as_their_source_reads_them(tmp_path, monkeypatch):
  images = np.zeros((9, 28, 28, 1), np.uint8)
  images[:, 8:20, 8:20] = 40  # dark, but there
  splits = {split: ArrayExamples(images, [2, 6] * 4 + [2]) for split in SPLITS}
  asked = []

  def fashion_mnist(*, dir=''):
    asked.append(dir)
    return sources.Source('f', splits, 10, (28, 28, 1), tuple('abcdefghij'))

  monkeypatch.setattr(image_sources, 'fashion_mnist', fashion_mnist)
  made = sources.load(
    'scenes', objects='fashion_mnist', dir=str(tmp_path), **SMALL
  )
  assert asked == [str(tmp_path)]
  assert made.classes == ('background', *'abcdefghij')
  assert {*np.unique(made.splits['test'].labels).tolist()} == {0, 3, 7}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'objects': 'digit'}, r"^data\.kw\.objects: .*did you mean 'digits'"),
    ({'size': 8}, r'^data\.kw\.size: .* 8 pixels; use 24 to 512'),
    ({'count': 0}, r'^data\.kw\.count: 0 should be 1 or more'),
    ({'test': 0}, r'^data\.kw\.test: 0'),
    ({'most': 0}, r'^data\.kw\.most: 0 should be 1 to 100'),
    ({'most': 2**70}, r'^data\.kw\.most: \d+ should be 1 to 100'),
    ({'seed': -1}, r'^data\.kw\.seed: -1 should be 0 or more'),
    ({'validation': -1}, r'^data\.kw\.validation: -1'),
    ({'validation': 0.5}, r'^data\.kw\.validation: 0\.5 should be a whole'),
    ({'labelled': 0.0}, r'^data\.kw\.labelled: 0\.0 of 12 scenes'),
    ({'labelled': 0.01}, r'^data\.kw\.labelled: 0\.01 of 12'),
    ({'labelled': 1.5}, r'^data\.kw\.labelled: 1\.5'),
    ({'dir': '/'}, r'^data\.dir: scenes of digits reads nothing'),
  ],
)
def test_options_must_make_sense(options, message):
  with pytest.raises(UserError, match=message):
    sources.load('scenes', **{**SMALL, **options})


def test_there_may_be_no_validation_split():
  made = sources.load('scenes', **{**SMALL, 'validation': 0})
  assert tuple(made.splits) == ('train', 'test')


@pytest.mark.parametrize('use', ['train', 'eval'])
def test_views_that_move_pixels_are_refused(source, use):
  entry = {'views': {'train': '', 'eval': '', 'average': '', use: 'flip'}}
  message = rf'^students\.a\.views\.{use}: flip moves the pixels of scenes and'
  with pytest.raises(UserError, match=message):
    build.input_shape(entry, source, 'students.a')
  entry['views'][use] = 'noise(0.1)'
  assert build.input_shape(entry, source, 'students.a') == source.input_shape
