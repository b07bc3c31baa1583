"""Images of Hugging Face datasets, of whatever columns these have."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxkd.data import examples, fingerprint, sources
from jaxkd.data.images import hub_images, image_files
from jaxkd.errors import UserError

datasets = pytest.importorskip('datasets')
NAMES = ['ant', 'bee']
COUNTS = {'train': 10, 'test': 6}


def picture(number, size=(4, 3)):
  return Image.new('RGB', size, (number, 0, 255 - number))


def encoded(number, kind='png', **options):
  file = io.BytesIO()
  picture(number, **options).save(file, kind)
  return file.getvalue()


def rows(count, start=0):
  return {
    'image': [
      {'bytes': encoded(start + i), 'path': None} for i in range(count)
    ],
    'label': [i % 2 for i in range(count)],
  }


FEATURES = datasets.Features(
  image=datasets.Image(), label=datasets.ClassLabel(names=NAMES)
)


def table(count, start=0, features=FEATURES, **columns):
  return datasets.Dataset.from_dict(
    rows(count, start) | columns, features=features
  )


def saved(folder, splits=None, **columns):
  splits = splits or {
    split: table(count, 20 * (split == 'test'))
    for split, count in COUNTS.items()
  }
  datasets.DatasetDict(splits).save_to_disk(folder)
  return folder


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
  datasets.disable_progress_bars()
  monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / '.hf')
  monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)


def load(folder, **options):
  return sources.load(f'hf:{folder}', **{'validation': 0, **options})


def red(split):
  """What tells the images apart, and their labels."""
  found = split.fetch(np.arange(len(split)))
  assert found['inputs'].dtype == np.uint8
  assert found['labels'].dtype == np.int32
  assert found['inputs'].shape[1:] == (3, 4, 3)
  return found['inputs'][:, 0, 0, 0].tolist(), found['labels'].tolist()


EXPECTED = {
  'train': ([*range(10)], [0, 1] * 5),
  'test': ([*range(20, 26)], [0, 1] * 3),
}


@pytest.mark.parametrize('limit', [0, 2**30])
def test_a_saved_set_is_read_at_once_or_when_asked_for(
  tmp_path, monkeypatch, limit
):
  monkeypatch.setattr(examples, 'IN_MEMORY', limit)
  source = load(saved(tmp_path / 'set'))
  assert {split: red(own) for split, own in source.splits.items()} == EXPECTED
  assert source.classes == tuple(NAMES)
  assert source.notes == ()
  assert bool(source.sizes) == (limit == 0)
  some = source.splits['train'].fetch(np.array([7, 2, 7]))
  assert some['inputs'][:, 0, 0, 0].tolist() == [7, 2, 7]
  assert some['labels'].tolist() == [1, 0, 1]


def test_parquet_as_the_hub_has_it(tmp_path):
  for split, count in COUNTS.items():
    own = table(count, 20 * (split == 'test'))
    own.to_parquet(tmp_path / f'{split}-00000-of-00001.parquet')
  source = load(tmp_path)
  assert {split: red(own) for split, own in source.splits.items()} == EXPECTED
  assert source.classes == tuple(NAMES)


def test_columns_of_other_names_and_kinds(tmp_path):
  own = table(12).rename_columns({'image': 'picture', 'label': 'kind'})
  own.save_to_disk(tmp_path / 'one')
  source = load(tmp_path / 'one')  # without splits: 60 : 20 : 20
  assert {k: len(x) for k, x in source.splits.items()} == {
    'train': 10,
    'test': 2,
  }
  # Bytes of files and texts, without a word about what they are.
  columns = {
    'content': [encoded(i, 'png') for i in range(12)],
    'kind': [NAMES[i % 2] for i in range(12)],
  }
  datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / 'plain')
  options = {'format': 'images', 'labels': 'kind'}
  plain = load(tmp_path / 'plain', **options)
  assert plain.classes == tuple(NAMES)
  for split, whole in plain.splits.items():
    assert red(whole) == red(source.splits[split])
  # Numbers that have no names.
  features = datasets.Features(
    image=datasets.Image(), label=datasets.Value('int64')
  )
  table(12, features=features).save_to_disk(tmp_path / 'numbers')
  assert load(tmp_path / 'numbers').classes == ('0', '1')
  assert load(tmp_path / 'numbers', num_classes=3).num_classes == 3


def test_files_that_lie_elsewhere(tmp_path):
  paths = []
  for i in range(10):
    paths.append(str(tmp_path / f'{i}.png'))
    picture(i).save(paths[-1])
  made = table(10, image=paths).cast_column('image', datasets.Image())
  made.save_to_disk(tmp_path / 'set')
  source = load(tmp_path / 'set')
  assert sorted(
    red(source.splits['train'])[0] + red(source.splits['test'])[0]
  ) == [*range(10)]


def test_images_are_resized_and_grey_ones_stay_grey(tmp_path):
  grey = io.BytesIO()
  Image.new('L', (5, 5), 9).save(grey, 'png')
  own = [{'bytes': grey.getvalue(), 'path': None}] * 10
  table(10, image=own).save_to_disk(tmp_path / 'grey')
  assert load(tmp_path / 'grey').input_shape == (5, 5, 1)
  sizes = [
    {'bytes': encoded(i, size=(4 + i, 3)), 'path': None} for i in range(10)
  ]
  table(10, image=sizes).save_to_disk(tmp_path / 'sizes')
  assert load(tmp_path / 'sizes', resize=(2, 6)).input_shape == (2, 6, 3)
  differ = (
    r"^data\.source: image 0 of 'hf:.* has 4x3 pixels and image 1 of .*5x3"
  )
  with pytest.raises(UserError, match=rf'{differ}.*kw\.resize=3'):
    load(tmp_path / 'sizes')


def test_another_split_may_be_the_one_to_test_on(tmp_path):
  splits = {
    'train': table(10),
    'validation': table(6, 20),
    'test': table(4, label=[-1] * 4),  # as of those whose labels are secret
  }
  saved(tmp_path / 'set', splits)
  with pytest.raises(UserError, match=r"the split 'test'.* has the label -1"):
    load(tmp_path / 'set', validation=None)
  saved(tmp_path / 'two', {k: splits[k] for k in ('train', 'validation')})
  with pytest.raises(
    UserError, match=r'kw\.test: .* train, validation; say wh'
  ):
    load(tmp_path / 'two')
  source = load(tmp_path / 'set', test='validation')
  assert red(source.splits['test']) == EXPECTED['test']
  with pytest.raises(
    UserError, match=r"data\.kw\.test: there is no split 'dev'"
  ):
    load(tmp_path / 'set', test='dev')
  with pytest.raises(UserError, match=r'data\.kw\.test: 3 should be the name'):
    load(tmp_path / 'set', test=3)


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  datasets.disable_progress_bars()
  folder = tmp_path_factory.mktemp('one') / 'set'
  more = table(10).add_column('text', ['word'] * 10)
  more.add_column('many', [[0, 1]] * 10).save_to_disk(folder)
  return folder


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'inputs': 'picture'}, r"kw\.inputs: 'hf:.* has no column 'picture'; its "
     r'columns are image \(Image\), label \(ClassLabel\), text \(string\)'),
    ({'inputs': 'text'}, r"kw\.inputs: the column 'text' of .* holds no image"),
    ({'labels': 'kind'}, r"kw\.labels: .* has no column 'kind'; its"),
    ({'labels': 'many'}, r"kw\.labels: the column 'many' of .* is not one cl"),
    ({'labels': 'image'}, r"the column 'image' of .* is not one class"),
    ({'num_classes': 3}, r'kw\.num_classes: .* names its 2 classes; remove'),
    ({'tokens': 'bytes'}, r'kw\.tokens: hf:\S+ is read as images, of which'),
    ({'format': 'text', 'resize': 3}, r'kw\.resize: hf:\S+ is read as texts'),
    ({'format': 'sound'}, r"kw\.format: 'sound' should be one of images, "),
    ({'resize': -1}, r'kw\.resize: -1 is not a side'),
  ],
)  # fmt: skip
def test_what_cannot_be_is_refused(one, options, message):
  with pytest.raises(UserError, match=message):
    load(one, **options)


def test_a_set_without_images_or_classes_says_what_it_has(tmp_path):
  datasets.Dataset.from_dict({'body': ['a', 'b']}).save_to_disk(tmp_path / 'a')
  hint = r"or, of images, say data\.kw\.format='images'"
  with pytest.raises(UserError, match=rf"no field 'text' but body; .* {hint}"):
    load(tmp_path / 'a')
  none = r'kw\.inputs: .* has not one column of images; its columns are body'
  with pytest.raises(UserError, match=none):
    load(tmp_path / 'a', format='images')
  table(4).remove_columns('label').save_to_disk(tmp_path / 'b')
  with pytest.raises(
    UserError, match=r'kw\.labels: .* has not one column of cl'
  ):
    load(tmp_path / 'b')


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (None, r"there is no image 1 of 'hf:.*; leave the record out"),
    ({'bytes': b'none', 'path': None}, "image 1 of 'hf:.* is no image, or a"),
  ],
)
def test_damaged_records_are_named(tmp_path, image, message):
  own = rows(10)['image']
  own[1] = image
  table(10, image=own).save_to_disk(tmp_path / 'set')
  with pytest.raises(UserError, match=rf'^data\.source: {message}'):
    load(tmp_path / 'set')


def test_a_struct_of_bytes_and_path_is_a_file_too(tmp_path):
  files = [{'bytes': encoded(i), 'path': 'a.png'} for i in range(10)]
  files[3] = {'bytes': None, 'path': str(tmp_path / '3.png')}
  made = datasets.Dataset.from_dict({'image': files, 'label': [0, 1] * 5})
  made.save_to_disk(tmp_path / 'set')
  with pytest.raises(UserError, match=r'3\.png is no image, or a damaged'):
    load(tmp_path / 'set', format='images')
  picture(3).save(tmp_path / '3.png')
  source = load(tmp_path / 'set', format='images')
  both = [red(own)[0] for own in source.splits.values()]
  assert sorted(both[0] + both[1]) == [*range(10)]


def test_splits_must_name_the_same_classes(tmp_path):
  other = datasets.Features(
    image=datasets.Image(), label=datasets.ClassLabel(names=NAMES[::-1])
  )
  splits = {'train': table(10), 'test': table(6, features=other)}
  saved(tmp_path / 'set', splits)
  with pytest.raises(
    UserError, match='other names, or another order, in the spl'
  ):
    load(tmp_path / 'set')


def test_what_many_images_are_is_kept_until_the_files_change(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(image_files, 'MANY', 5)
  monkeypatch.setattr(hub_images, '_BLOCK', 4)
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  first = load(saved(tmp_path / 'set'))
  found = fingerprint.of_source(first)
  with monkeypatch.context() as patched:
    patched.setattr(image_files, 'kind', lambda *given: pytest.fail('read'))
    assert fingerprint.of_source(load(tmp_path / 'set')) == found
  changed = {'train': table(10, 50), 'test': table(6, 20)}
  saved(tmp_path / 'new', changed)
  (tmp_path / 'set').rename(tmp_path / 'old')
  (tmp_path / 'new').rename(tmp_path / 'set')
  other = fingerprint.of_source(load(tmp_path / 'set'))
  part = 'data.source (inputs of {})'.format
  assert other[part('train')] != found[part('train')]
  assert other[part('test')] == found[part('test')]
