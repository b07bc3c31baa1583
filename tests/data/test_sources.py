"""Sources by name: fixed splits, checked data, one sentence for what fails."""

import gzip
import struct
import sys
import textwrap
import types

import numpy as np
import pytest
from PIL import Image

from jaxkd.data import examples, source, sources
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.data.sources import images as image_sources
from jaxkd.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 4, 4), np.uint8)
LABELS = np.arange(24) % 3


def everything(split):
  return split.fetch(np.arange(len(split)))


def sizes(source):
  return {name: len(split) for name, split in source.splits.items()}


class TestDigits:
  def test_is_split_by_class(self):
    source = sources.load('digits')
    assert sizes(source) == {'train': 1078, 'validation': 360, 'test': 359}
    assert (source.num_classes, source.input_shape) == (10, (8, 8, 1))
    assert source.classes == tuple('0123456789')
    whole = np.concatenate([s.labels for s in source.splits.values()])
    share = np.bincount(whole) / len(whole)
    for split in source.splits.values():
      expected = share * len(split)
      assert (np.abs(np.bincount(split.labels) - expected) < 2).all()

  def test_holds_each_image_once_in_the_unit_interval(self):
    from sklearn.datasets import load_digits

    source = sources.load('digits')
    held = [everything(split)['inputs'] for split in source.splits.values()]
    held = np.concatenate(held)
    assert held.dtype == np.float32
    rows = held.reshape(len(held), -1) * 16
    np.testing.assert_array_equal(
      rows[np.lexsort(rows.T)],
      load_digits().data[np.lexsort(load_digits().data.T)],
    )

  def test_is_always_split_alike(self):
    a, b = sources.load('digits'), sources.load('digits')
    for split in a.splits:
      np.testing.assert_array_equal(
        everything(a.splits[split])['inputs'],
        everything(b.splits[split])['inputs'],
      )

  @pytest.mark.parametrize(
    ('amount', 'size'), [(100, 100), (0.5, 719), (0, None), (0.0, None)]
  )
  def test_the_validation_split_may_be_of_any_size(self, amount, size):
    source = sources.load('digits', validation=amount)
    assert sizes(source).get('validation') == size
    assert sizes(source)['test'] == 359
    assert sizes(source)['train'] == 1438 - (size or 0)

  @pytest.mark.parametrize('amount', [-1, 1438, 1.0, -0.1, 1e-9, 1.5])
  def test_validation_must_leave_something(self, amount):
    with pytest.raises(UserError, match=r'^data\.kw\.validation: .*of 1438'):
      sources.load('digits', validation=amount)

  @pytest.mark.parametrize(
    ('amount', 'count', 'why'),
    [
      (0.1, 4, 'rounds to none for validation; give a number, such as 1'),
      (4, 4, 'leaves nothing to train on; give less'),
      (-1, 4, 'cannot be; give a share such as 0.1, or a number of examples'),
      (0.1, 1, 'cannot be held out; add examples, or a validation split'),
    ],
  )
  def test_why_it_leaves_nothing_is_said(self, amount, count, why):
    with pytest.raises(UserError, match=rf'{amount} of {count} examples {why}'):
      source.held_out_size(amount, count)


class TestSynthetic:
  def test_can_be_learnt(self):
    source = sources.load('synthetic', shape=(6, 6, 2), num_classes=4, size=200)
    assert sizes(source) == {'train': 120, 'validation': 40, 'test': 40}
    assert source.input_shape == (6, 6, 2)
    train, test = (everything(source.splits[s]) for s in ('train', 'test'))
    centres = np.stack(
      [train['inputs'][train['labels'] == c].mean(axis=0) for c in range(4)]
    )
    distance = np.square(test['inputs'][:, None] - centres).sum(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == test['labels']).mean() > 0.8
    assert train['inputs'].min() >= 0
    assert train['inputs'].max() <= 1

  def test_its_seed_makes_the_data(self):
    a, b, c = (
      everything(sources.load('synthetic', size=50, seed=s).splits['train'])
      for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(a['inputs'], b['inputs'])
    assert (a['inputs'] != c['inputs']).any()

  def test_examples_may_be_of_any_shape(self):
    source = sources.load('synthetic', shape=(5,), num_classes=2, size=20)
    assert source.input_shape == (5,)

  @pytest.mark.parametrize(
    'options', [{'size': 0}, {'shape': (0, 4)}, {'noise': -1}]
  )
  def test_numbers_must_make_sense(self, options):
    with pytest.raises(UserError, match=r'^data\.kw: synthetic cannot make'):
      sources.load('synthetic', **options)


def idx(array):
  header = struct.pack('>HBB', 0, 8, array.ndim)
  header += struct.pack(f'>{array.ndim}I', *array.shape)
  return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path):
  """A small folder as Fashion-MNIST's, two of its files compressed."""
  folder = tmp_path / 'fashion'
  folder.mkdir()
  (folder / 'train-images-idx3-ubyte').write_bytes(idx(IMAGES))
  (folder / 'train-labels-idx1-ubyte').write_bytes(idx(LABELS))
  for name, array in (
    ('images-idx3', IMAGES[:6]),
    ('labels-idx1', LABELS[:6]),
  ):
    file = folder / f't10k-{name}-ubyte.gz'
    file.write_bytes(gzip.compress(idx(array)))
  return folder


class TestFashionMnist:
  def test_reads_idx_files(self, fashion):
    source = sources.load('fashion_mnist', dir=str(fashion), validation=0)
    assert (source.num_classes, source.input_shape) == (10, (4, 4, 1))
    assert source.classes[-1] == 'Ankle boot'
    train, test = (everything(source.splits[s]) for s in ('train', 'test'))
    np.testing.assert_array_equal(train['inputs'], IMAGES[..., None])
    np.testing.assert_array_equal(train['labels'], LABELS)
    np.testing.assert_array_equal(test['inputs'], IMAGES[:6, ..., None])
    assert train['inputs'].dtype == np.uint8

  def test_holds_out_a_twelfth(self, fashion):
    source = sources.load('fashion_mnist', dir=str(fashion))
    assert sizes(source) == {'train': 22, 'validation': 2, 'test': 6}

  def test_finds_debians_files(self, fashion, monkeypatch):
    monkeypatch.setattr(image_sources, 'DEBIAN_FASHION_MNIST', fashion)
    assert sizes(sources.load('fashion_mnist'))['test'] == 6

  def test_says_how_to_get_it(self, tmp_path):
    for options in ({}, {'dir': str(tmp_path)}):
      with pytest.raises(UserError) as caught:
        sources.load('fashion_mnist', **options)
      message = str(caught.value)
      assert message.startswith('data.source: fashion_mnist is not in ')
      for way in (
        'apt-get install dataset-fashion-mnist',
        't10k-labels-idx1-ubyte.gz',
        'tfds build fashion_mnist --file_format=array_record',
      ):
        assert way in message
      assert (f'--data_dir={tmp_path}' in message) == bool(options)

  def test_names_a_missing_folder_or_file(self, fashion):
    with pytest.raises(UserError, match=r'data\.dir: there is no folder'):
      sources.load('fashion_mnist', dir=str(fashion / 'nowhere'))
    (fashion / 't10k-labels-idx1-ubyte.gz').unlink()
    with pytest.raises(UserError, match=r'neither t10k-labels.*all four'):
      sources.load('fashion_mnist', dir=str(fashion))

  @pytest.mark.parametrize(
    'name', ['train-images-idx3-ubyte', 't10k-images-idx3-ubyte.gz']
  )
  @pytest.mark.parametrize('damage', ['truncated', 'empty', 'of another kind'])
  def test_names_a_damaged_file(self, fashion, name, damage):
    file = fashion / name
    whole = file.read_bytes()
    damaged = {'truncated': whole[:-9], 'empty': b'', 'of another kind': b'x'}
    file.write_bytes(damaged[damage] * (99 if damage[0] == 'o' else 1))
    message = rf'^data\.dir: .*{name} is truncated or damaged'
    with pytest.raises(UserError, match=message):
      sources.load('fashion_mnist', dir=str(fashion))

  def test_names_labels_in_the_place_of_images(self, fashion):
    labels = (fashion / 'train-labels-idx1-ubyte').read_bytes()
    (fashion / 'train-images-idx3-ubyte').write_bytes(labels)
    with pytest.raises(UserError, match=r'images.* bytes of 3 axes'):
      sources.load('fashion_mnist', dir=str(fashion))

  def test_names_labels_and_counts_that_do_not_fit(self, fashion):
    file = fashion / 'train-labels-idx1-ubyte'
    labels = LABELS.copy()
    labels[5] = 10
    file.write_bytes(idx(labels))
    message = "'train' of 'fashion_mnist': example 5 has the label 10"
    with pytest.raises(UserError, match=message):
      sources.load('fashion_mnist', dir=str(fashion))
    file.write_bytes(idx(LABELS[:-1]))
    with pytest.raises(UserError, match=r"'train'.*23 labels for 24 inputs"):
      sources.load('fashion_mnist', dir=str(fashion))


@pytest.fixture
def npz(tmp_path):
  """Writes an npz file; gives its source's name."""

  def write(**arrays):
    np.savez(tmp_path / 'mine.npz', **arrays)
    return f'npz:{tmp_path / "mine.npz"}'

  return write


class TestNpz:
  SPLITS = {  # noqa: RUF012 (never changed)
    'x_train': IMAGES,
    'y_train': LABELS,
    'x_test': IMAGES[:6],
    'y_test': LABELS[:6],
  }

  def test_takes_splits(self, npz):
    source = sources.load(npz(**self.SPLITS), validation=3)
    assert sizes(source) == {'train': 21, 'validation': 3, 'test': 6}
    assert (source.num_classes, source.input_shape) == (3, (4, 4, 1))
    own = {'x_validation': IMAGES[:9], 'y_validation': LABELS[:9]}
    source = sources.load(npz(**self.SPLITS, **own))
    assert sizes(source) == {'train': 24, 'validation': 9, 'test': 6}
    with pytest.raises(UserError, match=r'data\.kw\.validation: .*its own'):
      sources.load(npz(**self.SPLITS, **own), validation=3)

  @pytest.mark.parametrize('name', ['val', 'valid', 'dev'])
  def test_validation_has_several_names(self, npz, name):
    own = {f'x_{name}': IMAGES[:9], f'y_{name}': LABELS[:9]}
    source = sources.load(npz(**self.SPLITS, **own))
    assert sizes(source) == {'train': 24, 'validation': 9, 'test': 6}
    two = {
      f'{x}_validation': of[:9] for x, of in [('x', IMAGES), ('y', LABELS)]
    }
    with pytest.raises(UserError, match='names of the validation split alike'):
      sources.load(npz(**self.SPLITS, **own, **two))

  def test_splits_one_set(self, npz, tmp_path):
    npz(inputs=RNG.random((20, 5)), labels=np.arange(20) % 2)
    source = sources.load('npz:mine.npz', dir=str(tmp_path))
    assert sizes(source) == {'train': 12, 'validation': 4, 'test': 4}
    assert everything(source.splits['test'])['inputs'].dtype == np.float32

  def test_never_unpickles(self, npz, tmp_path):
    marker = tmp_path / 'executed'

    class Bomb:
      def __reduce__(self):
        return (open, (str(marker), 'w'))

    bombs = np.array([Bomb()] * 24, object)
    with pytest.raises(UserError, match=r'cannot read .*mine\.npz'):
      sources.load(npz(**self.SPLITS | {'x_train': bombs}))
    assert not marker.exists()

  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      ({'x_train': IMAGES[:-1]}, '24 labels for 23 inputs'),
      ({'x_test': IMAGES[:0], 'y_test': LABELS[:0]}, "'test' .* is empty"),
      ({'y_train': LABELS - 1}, "'train' .*example 0 has the label -1"),
      ({'x_test': IMAGES[:6, :3]}, r'\(4, 4, 1\) in .* \(3, 4, 1\) in test'),
      ({'x_valid': IMAGES}, 'holds .*x_valid; it must hold'),
      ({'x_validation': IMAGES}, 'it must hold'),
      ({'x_test': IMAGES[:6, ..., None] / 255},
       'the type uint8 in the split train and float32 in test'),
      ({'x_train': IMAGES[:, :0]}, 'are empty'),
      ({'y_train': LABELS * 0, 'y_test': LABELS[:6] * 0},
       "'train' .*only has examples of the class 0"),
      ({'y_test': LABELS[:6] + 2**20}, 'the label 1048578, which is too large'),
    ],
  )  # fmt: skip
  def test_names_what_does_not_fit(self, npz, change, message):
    with pytest.raises(UserError, match=rf'^data\.source: .*{message}'):
      sources.load(npz(**self.SPLITS | change))

  def test_names_examples_that_are_not_finite_as_the_file_numbers_them(
    self, npz
  ):
    for i in (7, 23):
      inputs = np.zeros((24, 3))
      inputs[i, 1] = np.nan
      name = npz(inputs=inputs, labels=LABELS)
      message = rf"data\.source: 'npz:[^']*': example {i} holds NaN or infinity"
      with pytest.raises(UserError, match=message):
        sources.load(name)

  def test_names_a_class_that_cannot_be_split(self, npz):
    name = npz(inputs=np.zeros((3, 3)), labels=[0, 1, 2])
    with pytest.raises(UserError, match=r'too few examples, 1, .* for test'):
      sources.load(name)
    splits = {'x_train': np.zeros((3, 3)), 'y_train': [0, 1, 2]}
    splits |= {'x_test': np.zeros((3, 3)), 'y_test': [0, 1, 2]}
    with pytest.raises(UserError, match=r'too few .* for validation'):
      sources.load(npz(**splits), validation=1)

  @pytest.mark.parametrize('keep', [0, 100, -30])
  def test_names_a_damaged_file(self, npz, tmp_path, keep):
    name = npz(**self.SPLITS)
    file = tmp_path / 'mine.npz'
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r'cannot read .*mine\.npz: '):
      sources.load(name)

  def test_a_class_may_be_without_examples_if_that_is_told(self, npz):
    labels = np.array([0, 7, 255])[LABELS]
    whole = npz(inputs=IMAGES, labels=labels)
    with pytest.raises(UserError, match=r'class 1, .*classes=\(0, 7, 255\)'):
      sources.load(whole)
    source = sources.load(whole, num_classes=300)
    assert (source.num_classes, len(source.classes)) == (300, 300)
    note = 'train has no example of 297 of the 300 classes: 1, 2, 3, 4, 5, 6, 8'
    assert source.notes[0].startswith(note)
    with pytest.raises(
      UserError, match=r'the label 255, .* not one of 0 to 199'
    ):
      sources.load(whole, num_classes=200)

  def test_labels_become_classes_if_that_is_told(self, npz):
    of_pixel = {image.tobytes(): label for image, label in zip(
      IMAGES, LABELS, strict=True)}  # fmt: skip
    name = npz(inputs=IMAGES, labels=LABELS + 1)
    for classes in ((1, 2, 3), 'sorted'):
      source = sources.load(name, classes=classes)
      assert source.classes == ('1', '2', '3')
      assert source.notes == ('labels 1, 2, 3 are classes 0 to 2',)
      for split in source.splits.values():
        batch = everything(split)
        wanted = [of_pixel[image.tobytes()] for image in batch['inputs']]
        np.testing.assert_array_equal(batch['labels'], wanted)

  def test_splits_are_numbered_by_train(self, npz):
    splits = self.SPLITS | {'y_train': LABELS + 1, 'y_test': LABELS[:6]}
    with pytest.raises(
      UserError, match=r"'test'.* label 0, which no example in"
    ):
      sources.load(npz(**splits))
    with pytest.raises(
      UserError, match=r"'test'.*: example 0 has the label 0, "
    ):
      sources.load(npz(**splits), classes='sorted')
    lacking = {'x_test': IMAGES[:1], 'y_test': LABELS[:1]}
    source = sources.load(npz(**self.SPLITS | lacking), validation=0)
    assert source.notes[0] == 'test has no example of 2 of the 3 classes: 1, 2'

  @pytest.mark.parametrize(
    ('given', 'classes'),
    [
      (LABELS[:, None], '012'),
      (np.eye(3)[LABELS], '012'),
      (np.array(['c', 'a', 'b'])[LABELS], 'abc'),
      (LABELS > 0, ('False', 'True')),
    ],
  )
  def test_labels_are_read_however_they_are_written(self, npz, given, classes):
    name = npz(**self.SPLITS | {'y_train': given, 'y_test': given[:6]})
    source = sources.load(name, validation=0)
    assert source.classes == tuple(classes)
    wanted = {'abc': [2, 0, 1], '012': [0, 1, 2]}.get(
      ''.join(classes), [0, 1, 1]
    )
    for split in source.splits.values():
      np.testing.assert_array_equal(
        split.labels, np.array(wanted)[LABELS[: len(split)]]
      )

  def test_floats_beyond_1_are_refused_or_scaled(self, npz):
    bright = IMAGES[..., None].astype(np.float32)
    half = self.SPLITS | {'x_train': bright / 255, 'x_test': bright[:6]}
    message = r"the split 'test' of .*example 0 holds .*range=\(0, 255\)"
    with pytest.raises(UserError, match=message):
      sources.load(npz(**half))
    whole = npz(**self.SPLITS | {'x_train': bright, 'x_test': bright[:6]})
    source = sources.load(whole, range=(0, 255), validation=0)
    found = everything(source.splits['train'])['inputs']
    np.testing.assert_allclose(found, IMAGES[..., None] / 255, atol=1e-6)
    source = sources.load(whole, range='any', validation=0)
    found = everything(source.splits['train'])['inputs']
    np.testing.assert_array_equal(found, bright)
    assert source.notes[:2] == (
      f'inputs in train are from {IMAGES.min()} to {IMAGES.max()}, as they are',
      f'inputs in test are from {IMAGES[:6].min()} to {IMAGES[:6].max()}, as '
      'they are',
    )

  def test_the_last_of_many_examples_is_looked_at(self, npz):
    images = np.zeros((5000, 2, 2, 1), np.float32)
    images[-1] = 2
    name = npz(inputs=images, labels=np.arange(5000) % 2)
    with pytest.raises(UserError, match='example 4999 holds 2;'):
      sources.load(name)

  def test_channels_that_come_first_are_refused_or_moved(self, npz):
    images = RNG.random((24, 3, 8, 8)).astype(np.float32)
    name = npz(inputs=images, labels=LABELS)
    with pytest.raises(UserError, match='the channels seem to come first'):
      sources.load(name)
    source = sources.load(name, layout='NCHW')
    assert source.input_shape == (8, 8, 3)
    held = {x.tobytes() for x in images.transpose(0, 2, 3, 1)}
    for split in source.splits.values():
      assert {x.tobytes() for x in everything(split)['inputs']} <= held

  def test_float_images_get_their_channel_as_bytes_do(self, npz):
    grey = (IMAGES / 255).astype(np.float32)
    source = sources.load(npz(inputs=grey, labels=LABELS))
    assert source.input_shape == (4, 4, 1)
    sequences = npz(inputs=RNG.normal(size=(24, 7, 5)), labels=LABELS)
    source = sources.load(sequences, layout='features')
    assert source.input_shape == (7, 5)

  @pytest.mark.parametrize('option', ['num_classes', 'classes', 'range'])
  def test_options_are_of_a_type(self, npz, option):
    with pytest.raises(UserError, match=rf'^data\.kw\.{option}: .* should be '):
      sources.load(npz(**self.SPLITS), **{option: 1.5})

  def test_names_a_missing_file(self):
    with pytest.raises(UserError, match=r'there is no file .*nowhere\.npz'):
      sources.load('npz:nowhere.npz')


def write_images(top, count=5, size=(4, 3), mode='L'):
  for label, name in enumerate(('ant', 'bee')):
    (top / name).mkdir(parents=True)
    for i in range(count):
      image = Image.new('L', size, 10 * i + 100 * label).convert(mode)
      image.save(top / name / f'{i}.png')
  (top / 'ant' / 'notes.txt').write_text('not an image')


class TestUnitsOfNpz:
  """Arrays with the patient of each example."""

  X, Y = np.zeros((40, 3), np.float32), np.arange(40) % 2
  PATIENT = np.array([f'p{i // 4}' for i in range(40)])

  @pytest.fixture
  def save(self, tmp_path):
    def to(**arrays):
      np.savez(tmp_path / 'a.npz', **arrays)
      return sources.load(f'npz:{tmp_path}/a.npz', unit='patient')

    return to

  def test_stay_in_one_split(self, save):
    for patient in (self.PATIENT, np.arange(40) // 4):
      source = save(inputs=self.X, labels=self.Y, patient=patient)
      found = [set(everything(s)['patient']) for s in source.splits.values()]
      assert [*map(len, found)] == [6, 2, 2]
      assert len(set.union(*found)) == 10 and source.unit == 'patient'

  def test_are_told_apart_over_all_splits(self, save):
    arrays = dict(x_train=self.X, y_train=self.Y, patient_train=self.PATIENT)
    arrays |= dict(x_test=self.X, y_test=self.Y)
    with pytest.raises(UserError, match='patient 0, and so has train'):
      save(**arrays, patient_test=self.PATIENT)
    other = np.char.add(self.PATIENT, 'x')
    assert sizes(save(**arrays, patient_test=other))['test'] == 40

  def test_must_be_there_for_each_example(self, save, tmp_path):
    both = dict(inputs=self.X, labels=self.Y)
    for patient, message in (
      ({}, 'must hold inputs, labels, patient, or x_train'),
      ({'patient': self.PATIENT[:3]}, 'has 40 labels for 3 values of patient'),
      ({'patient': self.X[:, 0]}, r'patient of shape \(40,\) and type float32'),
    ):
      with pytest.raises(UserError, match=message):
        save(**both, **patient)
    np.savez(tmp_path / 'a.npz', **both)
    with pytest.raises(UserError, match=r"^data\.kw\.unit: 'labels' is the na"):
      sources.load(f'npz:{tmp_path}/a.npz', unit='labels')


class TestFolder:
  def test_splits_class_folders(self, tmp_path):
    write_images(tmp_path / 'mine')
    source = sources.load('folder:mine', dir=str(tmp_path))
    assert sizes(source) == {'train': 6, 'validation': 2, 'test': 2}
    assert source.classes == ('ant', 'bee')
    assert source.input_shape == (3, 4, 1)
    for split in source.splits.values():
      assert isinstance(split, ArrayExamples)
      batch = everything(split)
      np.testing.assert_array_equal(
        batch['inputs'][:, 0, 0, 0] // 100, batch['labels']
      )

  def test_takes_splits_and_colours(self, tmp_path):
    for split, mode in (('train', 'L'), ('test', 'RGBA')):
      write_images(tmp_path / split, mode=mode)
    source = sources.load(f'folder:{tmp_path}', validation=2, resize=2)
    assert sizes(source) == {'train': 8, 'validation': 2, 'test': 10}
    assert source.input_shape == (2, 2, 3)

  def test_large_folders_are_read_as_asked_for(self, tmp_path, monkeypatch):
    write_images(tmp_path)
    small = sources.load(f'folder:{tmp_path}')
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)
    large = sources.load(f'folder:{tmp_path}')
    for split in small.splits:
      assert isinstance(large.splits[split], StreamedExamples)
      a, b = everything(small.splits[split]), everything(large.splits[split])
      np.testing.assert_array_equal(a['inputs'], b['inputs'])
      np.testing.assert_array_equal(a['labels'], b['labels'])
      np.testing.assert_array_equal(large.splits[split].labels, a['labels'])

  def test_images_of_several_sizes_can_be_resized(self, tmp_path):
    write_images(tmp_path)
    Image.new('L', (5, 6)).save(tmp_path / 'bee' / '9.png')
    message = r'ant.0\.png has 4x3 .*bee.9\.png has 5x6.*data\.kw\.resize=3'
    with pytest.raises(UserError, match=message):
      sources.load(f'folder:{tmp_path}')
    source = sources.load(f'folder:{tmp_path}', resize=3)
    assert source.input_shape == (3, 3, 1)

  def test_names_a_damaged_file(self, tmp_path):
    write_images(tmp_path, size=(40, 40))
    file = tmp_path / 'bee' / '2.png'
    for damaged in (file.read_bytes()[:60], b'', b'not a png'):
      file.write_bytes(damaged)
      with pytest.raises(UserError, match=r'bee.2\.png is no image, or a dam'):
        sources.load(f'folder:{tmp_path}')

  def test_names_what_is_missing(self, tmp_path):
    with pytest.raises(UserError, match=r'there is no folder .*nowhere'):
      sources.load('folder:nowhere')
    with pytest.raises(UserError, match='has no class folders'):
      sources.load(f'folder:{tmp_path}')
    write_images(tmp_path / 'train')
    with pytest.raises(UserError, match='splits train; it must have train and'):
      sources.load(f'folder:{tmp_path}')
    (tmp_path / 'test' / 'ant').mkdir(parents=True)
    with pytest.raises(UserError, match=r"the split 'test' of .* is empty"):
      sources.load(f'folder:{tmp_path}')
    write_images(tmp_path / 'more')
    (tmp_path / 'more').rename(tmp_path / 'test' / 'cat')
    with pytest.raises(UserError, match=r'test has the class folder cat, whic'):
      sources.load(f'folder:{tmp_path}')
    (tmp_path / 'test' / 'cat').rename(tmp_path / 'train' / 'cat')
    (tmp_path / 'train' / 'dog').mkdir()
    (tmp_path / 'train' / 'dog' / '1.heic').write_bytes(b'')
    with pytest.raises(UserError, match=r'dog holds no images but 1 \.heic;'):
      sources.load(f'folder:{tmp_path}')

  def test_names_what_would_be_left_out(self, tmp_path):
    write_images(tmp_path / 'train')
    write_images(tmp_path / 'test')
    (tmp_path / 'ants').mkdir()
    with pytest.raises(UserError, match='has the folders ants beside train, t'):
      sources.load(f'folder:{tmp_path}')
    (tmp_path / 'ants').rmdir()
    for place in (tmp_path / 'test', tmp_path):
      Image.new('L', (4, 3)).save(place / 'stray.png')
      with pytest.raises(UserError, match=r'stray\.png is in no class folder'):
        sources.load(f'folder:{tmp_path}')
      (place / 'stray.png').unlink()

  def test_there_must_be_two_classes(self, tmp_path):
    (tmp_path / 'ant').mkdir()
    Image.new('L', (4, 3)).save(tmp_path / 'ant' / '0.png')
    with pytest.raises(
      UserError, match="only has examples of the class 0, 'ant'; "
    ):
      sources.load(f'folder:{tmp_path}')

  def test_refuses_deep_pixels(self, tmp_path):
    write_images(tmp_path)
    deep = np.full((3, 4), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / 'bee' / '9.png')
    with pytest.raises(UserError, match=r'9\.png has pixels of more than eig'):
      sources.load(f'folder:{tmp_path}')


@pytest.fixture
def mine(tmp_path, monkeypatch):
  """A module of sources of one's own."""
  (tmp_path / 'my_data.py').write_text(
    textwrap.dedent("""
      import numpy as np
      from jaxkd.data.sources import ArrayExamples, Source

      def arrays(size=20):
        x, y = np.ones((size, 3)), np.arange(size) % 2
        return {'test': (x, y), 'train': (x, y)}

      def source(classes=('no', 'yes')):
        made = ArrayExamples({'a': np.ones((20, 3))}, np.arange(20) % 2)
        splits = {'train': made, 'test': made}
        return Source('', splits, 2, {'a': (3,)}, classes, ('hm',))

      def whole(dir='', seed=0):
        assert (dir, seed) == ('/', 3)
        return {'all': arrays()['train']}

      def patients(split='all', mixed=False):
        number = np.arange(60) // 3
        fields = dict(labels=np.arange(60) % 2, patient=number)
        made = {split: ArrayExamples(np.zeros((60, 3)), **fields)}
        if split == 'train':
          fields['patient'] = number + (0 if mixed else 20)
          made['test'] = ArrayExamples(np.zeros((60, 3)), **fields)
        return Source('', made, 2, (3,), (), unit='patient')

      def first(num_classes=2):
        x = np.full((20, 3, 8, 8), 255.0)
        return {'all': (x, 1 + np.arange(20) % num_classes)}

      def greedy(**options):
        assert options == {'num_classes': 3}
        return {'all': arrays()['train']}

      def bright():
        made = ArrayExamples(np.full((20, 3, 8, 8), 255.0), np.arange(20) % 2)
        return Source('', {'train': made, 'test': made}, 2, (3, 8, 8), ())

      def empty():
        return {}

      def nothing():
        return None

      def other_names():
        return {'learn': arrays()['train'], 'test': arrays()['test']}

      def known_names():
        return {'training': arrays()['train'], 'dev': arrays()['test'],
                'test': arrays()['test']}
    """)
  )
  monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures('mine')
class TestOnesOwn:
  def test_may_return_arrays(self):
    source = sources.load('my_data:arrays', size=10, validation=2)
    assert sizes(source) == {'train': 8, 'validation': 2, 'test': 10}
    assert [*source.splits] == ['train', 'validation', 'test']
    assert (source.name, source.num_classes) == ('my_data:arrays', 2)

  def test_may_take_a_folder_and_be_split(self):
    source = sources.load('my_data:whole', dir='/', seed=3)
    assert sizes(source) == {'train': 12, 'validation': 4, 'test': 4}
    with pytest.raises(UserError, match=r'^data\.dir: my_data:arrays reads no'):
      sources.load('my_data:arrays', dir='/')

  def test_what_arrays_mean_can_be_told(self):
    wanted = dict(layout='NCHW', range=(0, 255), classes='sorted')
    for left_out, message in (
      ('layout', 'channels seem to come first'),
      ('range', 'example 0 holds 255'),
      ('classes', 'no example of class 0'),
    ):
      options = {o: v for o, v in wanted.items() if o != left_out}
      with pytest.raises(UserError, match=message):
        sources.load('my_data:first', **options)
    assert sources.load('my_data:greedy', num_classes=3).num_classes == 2
    # What a function takes itself is its own.
    source = sources.load('my_data:first', num_classes=4, **wanted)
    assert source.classes == ('1', '2', '3', '4')
    assert source.input_shape == (8, 8, 3)
    assert everything(source.splits['train'])['inputs'].max() == 1

  def test_a_source_says_itself_what_its_classes_are(self):
    with pytest.raises(
      UserError, match=r"'train' .*holds 255; floats in images"
    ):
      sources.load('my_data:bright', layout='NHWC')
    with pytest.raises(
      UserError, match=r"'train' .*\(\d+, 3, 8, 8\), .*layout='NCHW'"
    ):
      sources.load('my_data:bright')
    source = sources.load('my_data:bright', layout='NCHW', range=(0, 255))
    assert source.input_shape == (8, 8, 3)
    assert source.range == (0, 255)
    assert everything(source.splits['test'])['inputs'].max() == 1
    for options in ({'classes': (0, 1)}, {'num_classes': 3}):
      with pytest.raises(
        UserError, match=r'^data\.kw\.\w*: .* sets this itself'
      ):
        sources.load('my_data:bright', **options)

  def test_may_return_a_source(self):
    source = sources.load('my_data:source')
    assert sizes(source) == {'train': 18, 'validation': 2, 'test': 20}
    assert source.classes == ('no', 'yes')
    assert source.input_shape == {'a': (3,)}
    assert source.notes == ('hm',)
    assert sources.load('my_data:source', classes=()).classes == ('0', '1')

  def test_splits_go_by_all_their_names(self):
    source = sources.load('my_data:known_names')
    assert list(source.splits) == ['train', 'validation', 'test']

  def test_a_patient_is_in_one_split(self):
    def patients(**options):
      source = sources.load('my_data:patients', **options)
      assert source.unit == 'patient'
      return {
        split: set(everything(own)['patient'].tolist())
        for split, own in source.splits.items()
      }

    found = patients()
    assert {s: len(p) for s, p in found.items()} == {
      'train': 12,
      'validation': 4,
      'test': 4,
    }
    assert len(set.union(*found.values())) == 20
    found = patients(split='train', validation=7)
    assert [len(p) for p in found.values()] == [13, 7, 20]
    message = r'of patient 0, and so has train; keep them in one split'
    with pytest.raises(UserError, match=message):
      patients(split='train', mixed=True)
    with pytest.raises(UserError, match=r'20 of 20 units \(patient\) leaves'):
      patients(split='train', validation=20)

  @pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
      ('no_module:f', {}, "data.source: cannot import 'no_module'"),
      ('my_data:array', {}, "there is no source 'array'; .*'arrays'"),
      ('my_data:arrays', {'sizes': 1}, r'^data\.kw: .*sizes'),
      ('my_data:empty', {}, r'has the splits \(none\); it must have train and'),
      ('my_data:nothing', {}, 'must return .* not NoneType'),
      ('my_data:other_names', {}, 'has the splits learn, test; it must'),
      ('my_data:source', {'classes': ('a',)}, 'names 1 classes of 2'),
    ],
  )
  def test_must_be_as_documented(self, name, options, message):
    with pytest.raises(UserError, match=message):
      sources.load(name, **options)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('digit', {}, "^data.source: there is no source 'digit'.*'digits'"),
    ('npz', {}, "write 'npz:PATH', not 'npz'"),
    ('digits:8', {}, "write 'digits', not 'digits:8'"),
    ('digits', {'sise': 3}, r'^data\.kw: .*sise'),
    ('synthetic', {'sise': 3}, r"^data\.kw: .*'sise'; did you mean 'size'"),
    ('digits', {'seed': 3}, r"^data\.kw: .*option of digits 'seed'"),
    ('digits', {'dir': '/'}, r'^data\.dir: digits reads nothing'),
    ('folder:/', {'resize': -1}, r'^data\.kw\.resize: -1 is not a side'),
    (
      'folder:/',
      {'resize': 2.0},
      r'^data\.kw\.resize: 2\.0 should be a whole number or a list of 2',
    ),
    ('digits', {'validation': 'x'}, 'should be a number or None'),
    ('digits', {'validation': np.nan}, 'nan should be a number or None'),
    (
      'digits',
      {'validation': True},
      r'^data\.kw\.validation: True should be',
    ),
    ('synthetic', {'shape': 8}, 'should be a list of whole numbers'),
    ('synthetic', {'seed': -1}, 'and seed -1'),
  ],
)
def test_names_and_options_that_do_not_exist(name, options, message):
  with pytest.raises(UserError, match=message):
    sources.load(name, **options)


class TestClasses:
  """Classes that a split keeps."""

  def test_nets_are_tested_on_classes_that_they_have_not_seen(self):
    whole = sources.load('digits')
    kept = {'train': (0, 1, 2, 3), 'validation': (), 'test': [4, 9]}
    source = sources.of_classes(whole, kept)
    found = {s: np.unique(x.labels).tolist() for s, x in source.splits.items()}
    # Validation has those of train: the test classes choose nothing.
    assert found == {'train': [0, 1, 2, 3], 'validation': [0, 1, 2, 3],
                     'test': [4, 9]}  # fmt: skip
    for split, examples_kept in source.splits.items():
      all_of, own = everything(whole.splits[split]), everything(examples_kept)
      chosen = np.isin(all_of['labels'], found[split])
      np.testing.assert_array_equal(own['inputs'], all_of['inputs'][chosen])
    assert source.num_classes == 10
    assert source.notes[-1] == 'test has 2 classes alone: 4, 9'

  def test_all_are_kept_by_default(self):
    whole = sources.load('digits')
    kept = {'train': (), 'validation': (), 'test': ()}
    assert sources.of_classes(whole, kept) is whole

  def test_a_class_that_is_not_there(self):
    kept = {'train': (0, 1), 'validation': (2,), 'test': (10,)}
    with pytest.raises(
      UserError, match=r'^data\.classes\.test: digits has no .* class 10 there'
    ):
      sources.of_classes(sources.load('digits'), kept)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_each_split_has_labels_that_count(split, monkeypatch):
  maps = np.arange(2 * 9, dtype=np.int32).reshape(2, 3, 3) % 2

  def made(valid):
    images = np.zeros((2, 3, 3, 1), np.uint8)
    return ArrayExamples(images, maps, valid=np.full(maps.shape, valid))

  splits = {name: made(name != split) for name in ('train', 'test')}
  source = sources.Source('mine', splits, 2, (3, 3, 1), ('a', 'b'))
  module = types.ModuleType('maps_of_mine')
  module.maps = lambda: source
  monkeypatch.setitem(sys.modules, 'maps_of_mine', module)
  with pytest.raises(UserError, match=f'split {split!r}.*no label that counts'):
    sources.load('maps_of_mine:maps', validation=0)


@pytest.mark.parametrize(
  'given', [('all',), ('train', 'test'), ('train', 'validation', 'test')]
)
def test_where_examples_were_held_out_from_is_known(given):
  x = {s: np.arange(60.0).reshape(60, 1) + 100 * i for i, s in enumerate(given)}
  splits = {s: ArrayExamples(x[s], np.arange(60) % 3) for s in given}
  made = source.make_source('a', splits, None)
  held = {'all': 3, 'train': 2}[given[0]] if len(given) < 3 else 0
  assert len(made.origins) == held
  kept = {'train': (0, 2), 'validation': (), 'test': ()}
  for found in (made, sources.of_classes(made, kept)):
    for split, origin in found.origins.items():
      own = found.splits[split]
      inputs = own.fetch(np.arange(len(own)))['inputs']
      whole = x.get(split, x[given[0]])
      np.testing.assert_array_equal(whole[origin.numbers], inputs)
      assert origin.count == 60
