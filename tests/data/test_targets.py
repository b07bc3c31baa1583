"""Labels of several classes and measured values, from arrays to batches."""

import numpy as np
import pytest

from jaxkd.data import fingerprint, loader, positions, sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.errors import UserError

RNG = np.random.default_rng(0)
N = 30
INPUTS = RNG.normal(size=(N, 5)).astype(np.float32)
SEVERAL = (RNG.random((N, 3)) < 0.4).astype(np.int8)
VALUES = RNG.normal(300.0, 20.0, size=N)


def made(given, **kw):
  def source():
    return {'all': (INPUTS, given)}

  globals()['source'] = source
  return sources.load(f'{__name__}:source', **kw)


def everything(source):
  parts = [own.fetch(np.arange(len(own))) for own in source.splits.values()]
  return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


@pytest.fixture
def npz(tmp_path):
  def write(given, **kw):
    np.savez(tmp_path / 'mine.npz', inputs=INPUTS, labels=given)
    return sources.load(f'npz:{tmp_path / "mine.npz"}', **kw)

  return write


class TestMultilabel:
  def test_an_example_has_a_label_of_each_class(self, npz):
    source = npz(SEVERAL, labels='multilabel')
    batch = everything(source)
    assert (source.num_classes, source.classes) == (3, ('0', '1', '2'))
    assert batch['labels'].dtype == np.int32
    assert batch['labels'].sum() == SEVERAL.sum()
    assert batch['valid'].all()

  @pytest.mark.parametrize('kind', [bool, np.float64])
  def test_of_any_type(self, kind):
    batch = everything(made(SEVERAL.astype(kind), labels='multilabel'))
    assert batch['labels'].sum() == SEVERAL.sum()

  @pytest.mark.parametrize('unknown', [-1, np.nan])
  def test_some_may_be_unknown(self, unknown):
    labels = SEVERAL.astype(float)
    labels[::2, 1] = unknown
    source = made(labels, labels='multilabel')
    batch = everything(source)
    assert (~batch['valid']).sum() == N / 2
    assert not batch['labels'][~batch['valid']].any()
    assert '% of the labels of train are unknown' in ' '.join(source.notes)

  def test_a_class_without_a_1_is_told(self):
    labels = np.concatenate([SEVERAL, np.zeros((N, 1), int)], axis=1)
    source = made(labels, labels='multilabel', classes=('a', 'b', 'c', 'd'))
    assert source.classes[3] == 'd'
    told = [note for note in source.notes if note.startswith('train has no')]
    assert told == ['train has no example of 1 of the 4 classes: d']

  def test_a_class_without_a_0_is_told(self):
    labels = np.concatenate([SEVERAL, np.ones((N, 1), int)], axis=1)
    labels[::2, 3] = -1
    notes = made(labels, labels='multilabel', classes=tuple('abcd')).notes
    (told,) = [
      note for note in notes if note.startswith('all examples of test')
    ]
    assert told.endswith('precision is 1 for every net: d')

  @pytest.mark.parametrize(
    ('labels', 'message'),
    [
      (SEVERAL[:, 0], r'shape \(30,\); labels of several classes are'),
      (SEVERAL * 2, r'example \d+ has the label 2 of class'),
      (SEVERAL * 0, 'no label that is 1'),
      (SEVERAL.astype(str), 'must be numbers'),
    ],
  )
  def test_names_what_does_not_fit(self, labels, message):
    with pytest.raises(UserError, match=message):
      made(labels, labels='multilabel')

  def test_as_many_names_as_columns(self):
    with pytest.raises(UserError, match=r'data\.kw\.classes: .* 3 columns'):
      made(SEVERAL, labels='multilabel', classes=('a', 'b'))
    with pytest.raises(UserError, match=r'data\.kw\.num_classes: '):
      made(SEVERAL, labels='multilabel', num_classes=4)

  def test_rows_are_not_guessed_at(self):
    with pytest.raises(UserError, match=r"data\.kw\.labels='multilabel'"):
      made(SEVERAL)


class TestValues:
  def test_are_standardised_by_the_training_split(self, npz):
    source = npz(VALUES, labels='values', classes=('kelvin',))
    train = source.splits['train']
    np.testing.assert_allclose(train.labels.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.labels.std(0), 1, rtol=1e-5)
    batch, (means, scales) = everything(source), source.standardized
    assert batch['labels'].shape == (N, 1)
    assert batch['labels'].dtype == np.float32
    np.testing.assert_allclose(batch['label_scale'], scales[0], rtol=1e-6)
    back = batch['labels'][:, 0] * scales[0] + means[0]
    np.testing.assert_allclose(np.sort(back), np.sort(VALUES), rtol=1e-6)
    assert source.classes == ('kelvin',)
    (note,) = [note for note in source.notes if 'standardised' in note]
    assert 'kelvin: ' in note

  def test_large_values_keep_their_differences(self):
    source = made(1.7e9 + np.arange(N), labels='values')
    (mean,), (scale,) = source.standardized
    labels = everything(source)['labels'][:, 0].astype(float)
    found = labels * scale + (mean - 1.7e9)
    np.testing.assert_allclose(np.sort(found), np.arange(N), atol=1e-4)

  def test_several_values_in_a_batch(self):
    labels = np.stack([VALUES, VALUES**2], axis=1)
    source = made(labels, labels='values')
    train = source.splits['train']
    batches = loader.Loader(train, np.ones((2, len(train))), [0, 1], 4)
    batch = batches.batch(0)
    assert batch['labels'].shape == (2, 4, 2)
    assert batch['label_scale'].shape == (2, 4, 2)

  def test_their_checksum_is_of_the_values(self):
    one, two = (made(VALUES + x, labels='values') for x in (0, VALUES[::-1]))
    prints = [fingerprint.of_source(x) for x in (one, one, two)]
    assert prints[0] == prints[1] != prints[2]

  @pytest.mark.parametrize(
    ('labels', 'message'),
    [
      (np.where(np.arange(N) == 3, np.nan, VALUES), 'example 3 .*NaN or inf'),
      (np.where(np.arange(N) == 7, np.inf, VALUES), 'example 7 .*NaN or inf'),
      (np.zeros(N), "values '0' that are 0 in all examples"),
      (VALUES * 1e-30, 'standard deviation is .*; give them in a unit'),
      (VALUES * 1e30, 'standard deviation is .*; give them in a unit'),
      (np.zeros((N, 2, 2)), 'measured values are'),
      (np.full(N, 'a'), 'must be numbers'),
    ],
  )
  def test_names_what_does_not_fit(self, labels, message):
    with pytest.raises(UserError, match=message):
      made(labels, labels='values')

  def test_classes_are_not_guessed_at(self):
    with pytest.raises(UserError, match=r"data\.kw\.labels='values'"):
      made(VALUES)

  def test_splits_must_be_alike(self, tmp_path):
    np.savez(
      tmp_path / 'mine.npz',
      x_train=INPUTS,
      x_test=INPUTS,
      y_train=np.stack([VALUES] * 2, axis=1),
      y_test=VALUES,
    )
    with pytest.raises(UserError, match=r'of 1 columns, and .* of 2'):
      sources.load(f'npz:{tmp_path / "mine.npz"}', labels='values')

  def test_a_source_of_ones_own(self):
    one = ArrayExamples(INPUTS, VALUES[:, None], label_scale=np.ones((N, 1)))
    assert one.labels.dtype == np.float32
    assert one.index.each == (1,)
    assert not one.index.values.size
    with pytest.raises(UserError, match='label_scale'):
      ArrayExamples(INPUTS, VALUES, label_scale=np.ones((N, 1)))


def test_another_kind_of_labels():
  with pytest.raises(UserError, match=r"data\.kw\.labels: 'many' should be"):
    made(SEVERAL, labels='many')


@pytest.mark.parametrize('kind', ['multilabel', 'values'])
def test_labels_have_no_positions_in_an_image(kind):
  """So that an image may be moved with its labels."""
  labels = np.tile(SEVERAL[:, :2], 2) + 0.0

  def images():
    return {'all': (np.ones((N, 4, 4, 1), np.uint8), labels)}

  globals()['images'] = images
  source = sources.load(f'{__name__}:images', labels=kind, range='any')
  train = source.splits['train'].fetch(np.arange(1))
  example = {name: x[0] for name, x in train.items()}
  assert positions.positional(example, source.fields) == ''
