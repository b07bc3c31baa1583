"""Data sets that TFDS prepared are read without TensorFlow."""

import functools
import io
import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from jaxkd.data import (
  cache,
  examples,
  fingerprint,
  index,
  partition,
  passes,
  sources,
)
from jaxkd.data import prepared as reader
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.errors import UserError


def pixels(i, side=4):
  return np.full((side, side, 1), i, np.uint8)


def mask(i):
  """Classes of pixels: 0 to 2, a corner that does not count."""
  found = np.arange(16, dtype=np.uint8).reshape(4, 4) % 3
  found[0, :2] = i % 3, 255
  return found


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format='png')
  return file.getvalue()


def same_index(one, other):
  assert one.each == other.each
  for field in ('classes', 'values', 'counts', 'first'):
    np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


# Top, left, bottom and right.
BOXES = [[0.1, 0.2, 0.5, 0.6], [0.0, 0.3, 0.9, 1.0], [0.2, 0.2, 0.4, 0.4]]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A folder with a data set and a copy called fashion_mnist."""
  import tensorflow_datasets as tfds

  folder = tmp_path_factory.mktemp('tfds')

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    @classmethod
    def _get_pkg_dir_path(cls):
      return pathlib.Path(folder)  # without a package there is none

    def _info(self):
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(
          {
            'image': tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8),
            'float': tfds.features.Tensor(shape=(2,), dtype=np.float32),
            'ragged': tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            'label': tfds.features.ClassLabel(names=['a', 'b', 'c']),
            'bright': tfds.features.Tensor(shape=(1, 4, 5), dtype=np.float32),
            'number': np.int64,
            'counted': np.int64,
            'large': np.int64,
            'mask': tfds.features.LabeledImage(
              labels=['x', 'y', 'z'], shape=(None, None, 1)
            ),
            'two': tfds.features.LabeledImage(labels=2, shape=(4, 4, 1)),
            'plain': tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8),
            'narrow': tfds.features.Tensor(shape=(4, 3, 1), dtype=np.uint8),
            'colour': tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8),
            'objects': tfds.features.Sequence(
              {
                'bbox': tfds.features.BBoxFeature(),
                'label': tfds.features.ClassLabel(names=['p', 'q']),
                'is_crowd': np.bool_,
              }
            ),
            'things': tfds.features.Sequence(
              {
                'bbox': tfds.features.BBoxFeature(),
                'type': tfds.features.ClassLabel(names=['r', 's', 't']),
                'occluded': tfds.features.ClassLabel(num_classes=4),
              }
            ),
            'places': tfds.features.Sequence({'x': np.float32}),
          }
        ),
        supervised_keys=('image', 'label'),
      )

    def _split_generators(self, _):
      dev = {'dev': self._generate_examples(6)}
      return {
        'train': self._generate_examples(30),
        'test': self._generate_examples(12),
        **(dev if self.name == 'with_dev' else {}),
      }

    def _generate_examples(self, count):
      for i in range(count):
        yield (
          i,
          {
            'image': pixels(i),
            'float': [i, np.nan if i == 7 else 0],
            'ragged': np.zeros((1 + i % 2, 2), np.float32),
            'label': i % 3,
            'bright': np.full((1, 4, 5), 8.0 * i, np.float32),
            'number': i % 5,
            'counted': 1 + i % 3,
            'large': 2**32 if i == 7 else 0,
            'mask': png(mask(i)),
            'two': png(mask(i) * (i == 7)),
            'plain': mask(i)[..., None],
            'narrow': mask(i)[:, :3, None],
            'colour': mask(i)[..., None].repeat(3, -1),
            'objects': [
              {
                'bbox': tfds.features.BBox(*box),
                'label': j % 2,
                'is_crowd': j > 1,
              }
              for j, box in enumerate(BOXES[: i % 4])
            ],
            'things': [
              {
                'bbox': tfds.features.BBox(*BOXES[0]),
                'type': i % 3,
                'occluded': 1,
              }
            ],
            'places': [{'x': 1.0}],
          },
        )

  for name in ('tiny_set', 'fashion_mnist', 'with_dev', 'kitti'):
    Builder.name = name
    Builder(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


@pytest.fixture
def copy(prepared, tmp_path):
  """A copy to damage."""
  shutil.copytree(prepared, tmp_path / 'copy')
  return tmp_path / 'copy'


@pytest.mark.parametrize(
  'name', ['tiny_set', 'tfds:tiny_set', 'tfds:tiny_set:1.0.0']
)
def test_reads_what_is_prepared(prepared, name):
  source = sources.load(name, dir=str(prepared))
  assert source.name == name
  assert source.classes == ('a', 'b', 'c')
  assert source.input_shape == (4, 4, 1)
  assert {k: len(split) for k, split in source.splits.items()} == {
    'train': 27,
    'validation': 3,
    'test': 12,
  }
  test = source.splits['test']
  assert isinstance(test, ArrayExamples)
  batch = test.fetch(np.arange(12))
  assert sorted(batch['inputs'][:, 0, 0, 0]) == list(range(12))
  np.testing.assert_array_equal(
    batch['inputs'][:, 0, 0, 0] % 3, batch['labels']
  )
  assert 'tensorflow' not in sys.modules


def test_large_sets_are_read_as_asked_for(prepared, monkeypatch):
  small = sources.load('tiny_set', dir=str(prepared))
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  large = sources.load('tiny_set', dir=str(prepared))
  assert large.sizes
  assert not small.sizes
  for name, split in large.splits.items():
    assert isinstance(split, StreamedExamples)
    order = np.arange(len(split))[::-1]
    a, b = small.splits[name].fetch(order), split.fetch(order)
    np.testing.assert_array_equal(a['inputs'], b['inputs'])
    np.testing.assert_array_equal(a['labels'], b['labels'])
    np.testing.assert_array_equal(split.labels, small.splits[name].labels)


def test_features_can_be_chosen_and_images_resized(prepared):
  source = sources.load(
    'tiny_set', dir=str(prepared), labels='number', resize=6, validation=0
  )
  assert source.num_classes == 5
  assert source.input_shape == (6, 6, 1)
  assert 'validation' not in source.splits


@pytest.mark.parametrize('labels', ['mask', 'plain'])
@pytest.mark.parametrize('resize', [0, 8])
@pytest.mark.parametrize('limit', [examples.IN_MEMORY, 0])
def test_labels_may_be_maps(prepared, monkeypatch, labels, resize, limit):
  monkeypatch.setattr(examples, 'IN_MEMORY', limit)
  source = sources.load(
    'tiny_set', dir=str(prepared), labels=labels, resize=resize
  )
  named = {'mask': ('x', 'y', 'z'), 'plain': ('0', '1', '2')}
  assert source.classes == named[labels]
  assert len(source.splits['validation']) == 3
  test = source.splits['test']
  batch = test.fetch(np.arange(12)[::-1])
  side = 2 if resize else 1
  want = np.stack([mask(i) for i in batch['inputs'][:, 0, 0, 0]])
  want = want.repeat(side, 1).repeat(side, 2)
  np.testing.assert_array_equal(batch['valid'], want != 255)
  np.testing.assert_array_equal(batch['labels'], np.where(want == 255, 0, want))
  assert (batch['labels'].dtype, batch['valid'].dtype) == (np.int32, bool)
  in_order = batch['labels'][::-1], batch['valid'][::-1]
  same_index(test.index, index.of(*in_order))
  if limit:
    np.testing.assert_array_equal(test.labels, in_order[0])
  else:
    assert test.labels is None
    assert test.index.checksum == cache.fingerprint([in_order[0]])
  assert 'tensorflow' not in sys.modules


def test_what_does_not_count_can_be_said(prepared):
  source = sources.load(
    'tiny_set', dir=str(prepared), labels='plain', ignore=[255, 2]
  )
  assert source.num_classes == 2
  batch = source.splits['test'].fetch(np.arange(12))
  assert {*batch['labels'][batch['valid']].tolist()} == {0, 1}
  assert not batch['labels'][~batch['valid']].any()


@pytest.mark.parametrize('limit', [examples.IN_MEMORY, 0])
def test_what_arrays_mean_can_be_told(prepared, monkeypatch, limit):
  monkeypatch.setattr(examples, 'IN_MEMORY', limit)
  source = sources.load(
    'tiny_set', dir=str(prepared), inputs='bright', layout='NCHW',
    range=(0, 255), labels='counted', classes=(1, 2, 3),
  )  # fmt: skip
  assert (source.input_shape, source.classes) == ((4, 5, 1), ('1', '2', '3'))
  ranges = [note for note in source.notes if 'data.kw.range=(0, 255)' in note]
  assert len(ranges) == (2 if limit else 0)  # of what is in memory
  assert source.notes == ('labels 1, 2, 3 are classes 0 to 2', *ranges)
  test = source.splits['test']
  batch = test.fetch(np.arange(12)[::-1])
  number = np.rint(batch['inputs'][:, 0, 0, 0] * 255 / 8).astype(int)
  assert sorted(number) == list(range(12))
  np.testing.assert_array_equal(batch['labels'], number % 3)
  np.testing.assert_array_equal(test.labels[::-1], batch['labels'])


def test_validation_goes_by_several_names(prepared):
  source = sources.load('with_dev', dir=str(prepared))
  assert {k: len(split) for k, split in source.splits.items()} == {
    'train': 30,
    'validation': 6,
    'test': 12,
  }
  source = sources.load('with_dev', dir=str(prepared), test='dev')
  assert len(source.splits['test']) == 6
  assert len(source.splits['validation']) == 3  # of train


def test_fashion_mnist_is_taken_from_tfds_where_it_is_prepared(prepared):
  source = sources.load('fashion_mnist', dir=str(prepared))
  assert source.name == 'fashion_mnist'
  assert len(source.splits['validation']) == round(30 / 12)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'inputs': 'imag'}, r"^data\.kw\.inputs: .*'imag'; .*'image'"),
    ({'labels': 'labl'}, r"^data\.kw\.labels: .*'label'"),
    ({'test': 'tests'}, r"^data\.kw\.test: there is no split 'tests'"),
    ({'test': 'train'}, r"^data\.kw\.test: 'train' is the split to train on"),
    ({'inputs': 'label'}, r"^data\.kw: inputs and labels are both 'label'"),
    ({'labels': 'image'}, r"^data\.kw: inputs and labels are both 'image'"),
    ({'ignore': ['x']}, r"^data\.kw\.ignore: \['x'\] .* whole numbers"),
    ({'ignore': [255, -1]}, r'^data\.kw\.ignore: -1 is no value of a map'),
    ({'inputs': 'float'}, r'example \d+ holds NaN or infinity'),
    ({'inputs': 'ragged'}, r'example \d+ has the shape'),
    ({'labels': 'float'}, r"^data\.kw\.labels: 'float' is not one class num"),
    ({'labels': 'large'}, r'example \d+ has the label 4294967296'),
    ({'labels': 'counted'}, r'no example of class 0, .*classes=\(1, 2, 3\) if'),
    (
      {'num_classes': 9},
      r"^data\.kw\.num_classes: 'label' of .* its 3 classes",
    ),
    ({'classes': (1, 2)}, r"^data\.kw\.classes: 'label' of tiny_set names its"),
    ({'inputs': 'bright'}, r'\(\d+, 1, 4, 5\), in which the channels seem to'),
    ({'inputs': 'bright', 'layout': 'NHWC'}, r'example \d+ holds .*\(0, 255\)'),
    (
      {'labels': 'two'},
      r"split 'train' of 'tfds:tiny_set': example \d+ has the label 2, which",
    ),
    (
      {'labels': 'plain', 'ignore': [0, 1, 2, 255]},
      "split 'train' of 'tfds:tiny_set' has no label that counts",
    ),
    (
      {'labels': 'narrow'},
      r'example \d+ has a map of 4x3 pixels for an image of 4x4',
    ),
    (
      {'labels': 'narrow', 'resize': 2},
      r'example \d+ has a map of 4x3 pixels for an image of 4x4',
    ),
    ({'labels': 'colour'}, r"^data\.kw\.labels: 'colour' is not .*, nor a map"),
    ({'resize': -2}, r'^data\.kw\.resize: -2 is not a side'),
    ({'inputs': 'float', 'resize': 4}, r'^data\.kw\.resize: .*not images'),
  ],
)
def test_options_that_do_not_fit(prepared, options, message):
  with pytest.raises(UserError, match=message):
    sources.load('tiny_set', dir=str(prepared), **options)


def test_says_how_to_prepare_what_is_not(prepared, tmp_path):
  command = 'tfds build cifar10 --file_format=array_record'
  with pytest.raises(UserError, match=command) as caught:
    sources.load('cifar10', dir=str(prepared))
  assert "pip install 'jaxkd[tfds-prepare]' && " in str(caught.value)
  assert f' --data_dir={prepared}`' in str(caught.value)
  with pytest.raises(UserError, match=command + '`'):
    sources.load('cifar10')
  # Whose code needs TensorFlow, so that TFDS lists it only with it.
  with pytest.raises(UserError, match='tfds build wmt14_translate/de-en'):
    sources.load('translation:wmt14_translate/de-en')
  with pytest.raises(UserError, match=r"no source 'cifar11'.*'cifar10'"):
    sources.load('cifar11')
  with pytest.raises(UserError, match=r'data\.dir: there is no folder'):
    sources.load('cifar10', dir=str(tmp_path / 'nowhere'))


def test_says_how_to_convert_what_cannot_be_read_at_random(copy):
  info = copy / 'tiny_set' / '1.0.0' / 'dataset_info.json'
  entries = json.loads(info.read_text())
  info.write_text(json.dumps(entries | {'fileFormat': 'tfrecord'}))
  message = 'tfds convert_format --out_file_format=array_record .*tiny_set'
  with pytest.raises(UserError, match=message):
    sources.load('tiny_set', dir=str(copy))


@pytest.mark.parametrize('file', ['*-train.array_record*', 'dataset_info.json'])
@pytest.mark.parametrize('damage', ['truncated', 'empty', 'gone'])
def test_names_what_is_damaged(copy, file, damage):
  (path,) = (copy / 'tiny_set' / '1.0.0').glob(file)
  path.write_bytes(path.read_bytes()[: 50 if damage == 'truncated' else 0])
  if damage == 'gone':
    path.unlink()
  with pytest.raises(UserError, match=r'^data\.source: .*tiny_set'):
    sources.load('tiny_set', dir=str(copy))


class TestTheIndexOfLabels:
  """Of large sets, whose labels stay where they are."""

  @pytest.fixture(autouse=True)
  def large(self, monkeypatch):
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)

  @pytest.fixture
  def never_read(self, monkeypatch):
    """After it is called, no labels are read to make an index."""

    def made():
      monkeypatch.setattr(index, 'read', lambda *given: pytest.fail('read'))

    return made

  @pytest.mark.parametrize('labels', ['label', 'mask'])
  def test_is_made_once(self, prepared, labels, never_read):
    first = sources.load('tiny_set', dir=str(prepared), labels=labels)
    of_first = {split: x.index for split, x in first.splits.items()}
    never_read()
    again = sources.load('tiny_set', dir=str(prepared), labels=labels)
    for split, examples_ in again.splits.items():
      same_index(examples_.index, of_first[split])
      assert examples_.index.checksum == of_first[split].checksum
    with pytest.raises(pytest.fail.Exception):  # other labels, other index
      sources.load('tiny_set', dir=str(prepared), labels='plain')

  def test_is_made_anew_after_a_change(self, copy, tmp_path):
    file = next((copy / 'tiny_set' / '1.0.0').glob('*-train.array_record*'))
    status = file.stat()
    first = sources.load('tiny_set', dir=str(copy), labels='mask')
    made = {*index.CACHE.iterdir()}
    # The same size and, for who looks at the contents' alone, the same time.
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = sources.load('tiny_set', dir=str(copy), labels='mask')
    assert first.splits['train'].index.counts.sum() == (
      again.splits['train'].index.counts.sum()
    )
    assert {*index.CACHE.iterdir()} > made

  def test_is_not_there_after_a_pass_that_was_cut_short(
    self, prepared, monkeypatch
  ):
    read, passed = reader._get, []

    def cut_short(records, indices, at):
      passed.append(indices)
      if len(passed) == 9:
        raise KeyboardInterrupt
      return read(records, indices, at)

    monkeypatch.setattr(passes, '_BYTES', 1)
    monkeypatch.setattr(reader, '_get', cut_short)
    with pytest.raises(KeyboardInterrupt):
      sources.load('tiny_set', dir=str(prepared), labels='mask')
    assert not index.CACHE.exists()
    monkeypatch.setattr(reader, '_get', read)
    source = sources.load('tiny_set', dir=str(prepared), labels='mask')
    assert source.splits['train'].index.counts.sum() == 27 * 15

  def test_never_has_all_maps_in_memory(self, prepared, monkeypatch):
    """No more examples are asked for at once than a pass reads."""
    read, most = reader._get, []

    def counted(records, indices, at):
      most.append(len(indices))
      return read(records, indices, at)

    monkeypatch.setattr(reader, '_get', counted)
    # A pixel takes four bytes, and one to say whether it counts.
    monkeypatch.setattr(passes, '_BYTES', 3 * 16 * 5)
    source = sources.load('tiny_set', dir=str(prepared), labels='mask')
    for split in source.splits.values():
      partition.weights(split.index, partition='disjoint', count=2)
      assert split.index.checksum
    assert max(most) <= 3

  def test_partitions_are_those_of_labels_in_memory(
    self, prepared, monkeypatch
  ):
    large = {
      labels: sources.load('tiny_set', dir=str(prepared), labels=labels)
      for labels in ('label', 'mask')
    }
    monkeypatch.setattr(examples, 'IN_MEMORY', 2**30)
    for labels, source in large.items():
      small = sources.load('tiny_set', dir=str(prepared), labels=labels)
      for split, own in source.splits.items():
        assert isinstance(own, StreamedExamples)
        assert isinstance(small.splits[split], ArrayExamples)
        same_index(own.index, small.splits[split].index)
        for options in (
          {'fraction': 0.5},
          {'partition': 'disjoint', 'count': 2},
          {'partition': 'bootstrap', 'count': 2, 'fraction': 0.7},
        ):
          np.testing.assert_array_equal(
            partition.weights(own.index, **options),
            partition.weights(small.splits[split].index, **options),
          )
        kept = fingerprint.of_examples(own)
        assert kept == fingerprint.of_examples(small.splits[split])


@pytest.mark.parametrize('limit', [examples.IN_MEMORY, 0])
def test_labels_may_be_objects(prepared, monkeypatch, limit):
  """Example i has i % 4 of them, of which the third is a crowd."""
  monkeypatch.setattr(examples, 'IN_MEMORY', limit)
  source = sources.load(
    'tiny_set', dir=str(prepared), labels='objects', most=3, resize=(6, 8)
  )
  assert source.classes == ('p', 'q')
  assert source.input_shape == (6, 8, 1)
  test = source.splits['test']
  batch = test.fetch(np.arange(12))
  for i, number in enumerate(batch['inputs'][:, 0, 0, 0].tolist()):
    count = min(number % 4, 2)
    assert batch['valid'][i].tolist() == [j < count for j in range(3)]
    assert batch['labels'][i].tolist() == [0, int(count > 1), 0]
    np.testing.assert_allclose(
      batch['boxes'][i, :count], np.reshape(BOXES[:count], (-1, 4))
    )
  assert test.index.values.tolist() == [0, 1]
  assert 'objects with is_crowd are left out; what a net finds there is ' in (
    ' '.join(source.notes)
  )


def test_objects_with_several_classes(prepared):
  load = functools.partial(sources.load, dir=str(prepared))
  message = r"things' have the classes .*; say which, as in 'things/occluded'"
  with pytest.raises(UserError, match=message):
    load('tiny_set', labels='things')
  # TFDS measures the boxes of kitti from the bottom.
  top, left, bottom, right = BOXES[0]
  upset = [1 - bottom, left, 1 - top, right]
  for name, origin, want in (
    ('tiny_set', '', BOXES[0]),
    ('tiny_set', 'bottom', upset),
    ('kitti', '', upset),
    ('kitti', 'top', BOXES[0]),
  ):
    source = load(name, labels='things/type', origin=origin, validation=0)
    assert source.classes == ('r', 's', 't')
    batch = source.splits['test'].fetch(np.arange(2))
    np.testing.assert_allclose(batch['boxes'][:, 0], [want] * 2)
    said = any('from the bottom of an image' in note for note in source.notes)
    assert said == (want is upset)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'labels': 'objects', 'most': 1}, 'has 2 objects, and 1 is the most'),
    (
      {'labels': 'objects', 'most': 0},
      r'^data\.kw\.most: 0 should be a number',
    ),
    ({'labels': 'objects', 'origin': 'left'}, r"^data\.kw\.origin: 'left'"),
    (
      {'labels': 'objects/type'},
      r"^data\.kw\.labels: .*class of objects 'type'",
    ),
    ({'labels': 'label/type'}, "'label' holds no objects, so that there is no"),
    ({'labels': 'places'}, "the objects of 'places' have no box but x"),
  ],
)
def test_objects_that_cannot_be_had(prepared, options, message):
  with pytest.raises(UserError, match=message):
    sources.load('tiny_set', dir=str(prepared), **options)
