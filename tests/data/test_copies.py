"""Examples that are there more than once."""

import numpy as np
import pytest
from PIL import Image

from jaxkd.data import copies, examples, sources
from jaxkd.data.examples import ArrayExamples, StreamedExamples

IMAGES = np.arange(10, dtype=np.uint8)[:, None, None, None] + np.zeros(
  (4, 3, 1), np.uint8
)


def split(numbers, labels):
  return ArrayExamples(IMAGES[numbers], np.array(labels))


def test_those_of_several_splits_and_classes_are_told_of():
  splits = {
    'train': split([0, 1, 2, 2, 3], [0, 0, 1, 0, 1]),
    'validation': split([4, 5], [0, 1]),
    'test': split([1, 1, 4, 6], [0, 0, 0, 1]),
  }
  assert copies.said(splits) == (
    '2 of the 5 examples in train are there as another class too',
    '2 of the 4 examples in test are in train too',
    '1 of the 4 examples in test are in validation too',
  )


def test_all_inputs_must_be_the_same():
  a = {'x': np.arange(4.0), 'y': np.zeros(4, np.int32)}
  b = {'x': np.arange(4.0), 'y': np.arange(4, dtype=np.int32)}
  labels = np.arange(4) % 2
  splits = {
    'train': ArrayExamples(a, labels),
    'test': ArrayExamples(b, labels),
  }
  assert copies.said(splits) == (
    '1 of the 4 examples in test are in train too',
  )


def test_streamed_splits_are_left_out():
  own = split([0, 0], [0, 1])
  streamed = StreamedExamples(2, own.fetch, lambda: own.labels)
  assert copies.said({'train': own, 'test': streamed}) == (
    '2 of the 2 examples in train are there as another class too',
  )
  assert copies.said({'train': streamed, 'test': streamed}) == ()


@pytest.mark.parametrize(
  ('labels', 'options'),
  [
    (np.array([0, 1, 0, 1]), {}),
    (np.eye(2, dtype=int)[[0, 1, 0, 1]], dict(labels='multilabel')),
    (np.array([0.1, 0.2, 0.3, 0.4]), dict(labels='values')),
  ],
)
def test_a_row_tells_of_arrays(tmp_path, labels, options):
  arrays = dict(x_train=IMAGES[:4], y_train=labels, y_test=labels)
  np.savez(tmp_path / 'x.npz', **arrays, x_test=IMAGES[2:6])
  for_all = dict(range=(0, 255), validation=0, **options)
  source = sources.load(f'npz:{tmp_path / "x.npz"}', **for_all)
  assert '2 of the 4 examples in test are in train too' in source.notes


def test_a_row_tells_of_copied_files(tmp_path, monkeypatch):
  for name, numbers in (('ant', (0, 1, 2, 3)), ('bee', (5, 6, 7, 3))):
    for part, shift in (('train', 0), ('test', 1)):
      folder = tmp_path / part / name
      folder.mkdir(parents=True)
      for number in numbers:
        image = np.full((4, 3), 20 * number + 10 * shift * (number > 1))
        Image.fromarray(image.astype(np.uint8)).save(folder / f'{number}.png')
  told = (
    '2 of the 8 examples in train are there as another class too',
    '2 of the 8 examples in test are there as another class too',
    '2 of the 8 examples in test are in train too',
  )
  load = lambda: sources.load(f'folder:{tmp_path}', validation=0)  # noqa: E731
  assert load().notes == told
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  assert load().notes == ()
