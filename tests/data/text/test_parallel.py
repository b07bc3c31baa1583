"""Pairs of sentences from text files and from what TFDS has prepared."""

import pathlib
import sys

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.data.text import tokenizer
from jaxkd.errors import UserError

OPTIONS = {'vocabulary': 40, 'length': 24}
WORDS = {'one': 'eins', 'two': 'zwei', 'red': 'rot', 'tea': 'Tee'}


def pairs(count, start=0):
  """Sentences of three words, all different."""
  names = [*WORDS]
  for i in range(start, start + count):
    chosen = [names[i // 4**n % 4] for n in range(3)]
    yield ' '.join(chosen), ' '.join(WORDS[name] for name in chosen)


SPLITS = {'train': [*pairs(40)], 'test': [*pairs(10, 40)]}


def write(folder, splits, languages=('en', 'de')):
  for split, own in splits.items():
    for side, language in enumerate(languages):
      text = ''.join(f'{pair[side]}\n' for pair in own)
      (folder / f'{split}.{language}').write_text(text, encoding='utf-8')
  return folder


def load(folder, **options):
  given = {'languages': ('en', 'de'), **OPTIONS}
  return sources.load(f'parallel:{folder}', **{**given, **options})


def said(split, classes):
  batch = split.fetch(np.arange(len(split)))
  sides = batch['inputs']['source'], batch['labels']
  read = ([tokenizer.text(x, classes) for x in side] for side in sides)
  return [*zip(*read, strict=True)]


class TestFiles:
  def test_lines_are_pairs(self, tmp_path):
    source = load(write(tmp_path, SPLITS))
    assert source.name == f'parallel:{tmp_path}'
    sizes = {name: len(split) for name, split in source.splits.items()}
    assert sizes == {'train': 36, 'validation': 4, 'test': 10}
    assert said(source.splits['test'], source.classes) == SPLITS['test']
    held = [
      pair
      for split in ('train', 'validation')
      for pair in said(source.splits[split], source.classes)
    ]
    assert sorted(held) == sorted(SPLITS['train'])
    assert source.notes == ()

  def test_either_language_may_be_the_source(self, tmp_path):
    source = load(write(tmp_path, SPLITS), languages=('de', 'en'))
    turned = [(b, a) for a, b in SPLITS['test']]
    assert said(source.splits['test'], source.classes) == turned

  def test_a_validation_split_of_its_own_is_taken(self, tmp_path):
    folder = write(tmp_path, {**SPLITS, 'validation': [*pairs(5, 50)]})
    source = load(folder)
    assert len(source.splits['train']) == 40
    own = said(source.splits['validation'], source.classes)
    assert own == [*pairs(5, 50)]
    with pytest.raises(UserError, match=r'^data\.kw\.validation: .* its own'):
      load(folder, validation=5)

  @pytest.mark.parametrize('name', ['valid', 'val', 'dev'])
  def test_which_goes_by_several_names(self, tmp_path, name):
    folder = write(tmp_path, {**SPLITS, name: [*pairs(5, 50)]})
    write(folder, {f'.{name}': [], 'notes': []})
    own = load(folder).splits['validation']
    assert said(own, load(folder).classes) == [*pairs(5, 50)]
    write(folder, {'validation': [*pairs(5, 50)]})
    message = f'has {" and ".join(sorted((name, "validation")))}, which are nam'
    with pytest.raises(UserError, match=message):
      load(folder)

  def test_lines_end_by_line_feeds(self, tmp_path):
    folder = write(tmp_path, SPLITS)
    for language in ('en', 'de'):  # as old Macs wrote them
      file = folder / f'train.{language}'
      file.write_bytes(file.read_bytes().replace(b'\n', b'\r'))
    with pytest.raises(UserError, match=r'line 1 of .*train\.en has a carri'):
      load(folder)

  def test_there_may_be_none(self, tmp_path):
    source = load(write(tmp_path, SPLITS), validation=0)
    assert [*source.splits] == ['train', 'test']

  def test_pieces_are_learnt_from_train_alone(self, tmp_path):
    splits = {**SPLITS, 'test': [('tea ж', 'Tee ж')]}
    source = load(write(tmp_path, splits))
    assert not any('ж' in piece for piece in source.classes)
    assert source.notes[0].startswith('2 of the ')

  def test_a_line_ends_where_a_line_ends(self, tmp_path):
    folder = write(tmp_path, SPLITS)
    file = folder / 'test.en'
    lines = file.read_text().split('\n')
    lines[0] = 'one\u2028two\x0b'  # which are no ends
    file.write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(lines[:-1]).encode())
    test = load(folder).splits['test']
    assert len(test) == 10

  def test_what_is_missing_is_named(self, tmp_path):
    with pytest.raises(UserError, match=r'there is no folder .*nowhere'):
      load(tmp_path / 'nowhere')
    folder = write(tmp_path, {**SPLITS, 'validation': SPLITS['test']})
    for file in ('train.de', 'test.en', 'validation.de'):
      text = (folder / file).read_text()
      (folder / file).unlink()
      with pytest.raises(UserError, match=rf'there is no file .*{file}; a '):
        load(folder)
      (folder / file).write_text(text)

  def test_other_numbers_of_lines(self, tmp_path):
    folder = write(tmp_path, SPLITS)
    with (folder / 'test.de').open('a') as file:
      file.write('eins\n')
    with pytest.raises(UserError, match=r'test\.en has 10 lines and .* 11; '):
      load(folder)

  @pytest.mark.parametrize(
    'empty', ['', '  \t', '\u200b', '\ufeff', '\x01', '\ufffd ▁']
  )
  def test_empty_lines_are_named(self, tmp_path, empty):
    folder = write(tmp_path, SPLITS)
    lines = (folder / 'train.de').read_text().split('\n')
    lines[6] = empty
    (folder / 'train.de').write_text('\n'.join(lines), encoding='utf-8')
    with pytest.raises(UserError, match=r'line 7 of .*train\.de is empty'):
      load(folder)

  def test_an_empty_file(self, tmp_path):
    folder = write(tmp_path, {**SPLITS, 'test': []})
    with pytest.raises(UserError, match=r'^data\.source: .*test\.en is empty'):
      load(folder)

  def test_translations_of_one_sentence_are_not_held_out(self, tmp_path):
    same = [('tea', german) for _, german in SPLITS['train']]
    folder = write(tmp_path, {**SPLITS, 'train': same})
    message = r'^data\.kw\.validation: 0\.1 of the 40 pairs .* stay together'
    with pytest.raises(UserError, match=message):
      load(folder)
    assert len(load(folder, validation=0).splits['train']) == 40

  def test_other_encodings_are_named(self, tmp_path):
    folder = write(tmp_path, SPLITS)
    lines = (folder / 'train.de').read_bytes().split(b'\n')
    lines[2] = 'größer'.encode('latin-1')
    (folder / 'train.de').write_bytes(b'\n'.join(lines))
    with pytest.raises(UserError, match=r'line 3 of .*train\.de is not UTF-8'):
      load(folder)

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      *(
        ({'languages': odd}, r'^data\.kw\.languages: .* two different')
        for odd in (('en', 'en'), (), ('', 'de'), ('../en', 'de'))
      ),
      ({'languages': 'en'}, r'^data\.kw\.languages: .* list of texts'),
      ({'validation': 40}, r'^data\.kw\.validation: 40 of 40'),
      ({'length': 3}, r'^data\.kw\.length: \d+ of the 36 pairs in train'),
      (
        {'length': 2, 'too_long': 'drop'},
        r"^data\.kw\.length: all 36 pairs in train .*too_long='drop'",
      ),
    ],
  )
  def test_options_that_do_not_fit(self, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
      load(write(tmp_path, SPLITS), **options)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A folder with a set of translations, and one of numbers."""
  import tensorflow_datasets as tfds

  folder = tmp_path_factory.mktemp('tfds')

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    @classmethod
    def _get_pkg_dir_path(cls):
      return pathlib.Path(folder)  # without a package there is none

    def _info(self):
      return self.dataset_info_from_configs(
        features=tfds.features.Translation(languages=['en', 'de']),
        supervised_keys=('en', 'de'),
      )

    def _split_generators(self, _):
      return {
        name: self._generate_examples(own) for name, own in SPLITS.items()
      }

    def _generate_examples(self, own):
      for i, (english, german) in enumerate(own):
        yield i, {'en': english, 'de': german}

  class Numbers(Builder, skip_registration=True):
    name = 'numbers'

    def _info(self):
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict({'en': np.int64, 'de': np.int64})
      )

    def _generate_examples(self, own):
      return ((i, {'en': i, 'de': i}) for i in range(len(own)))

  Builder.name = 'tiny_pairs'
  for kind in (Builder, Numbers):
    kind(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


class TestPrepared:
  @pytest.mark.parametrize('languages', [(), ('de', 'en')])
  def test_reads_what_is_prepared(self, prepared, languages):
    source = sources.load(
      'translation:tiny_pairs',
      dir=str(prepared),
      languages=languages,
      **OPTIONS,
    )
    sizes = {name: len(split) for name, split in source.splits.items()}
    assert sizes == {'train': 36, 'validation': 4, 'test': 10}
    found = said(source.splits['test'], source.classes)
    turn = slice(None, None, -1 if languages else 1)
    assert sorted(found) == sorted(pair[turn] for pair in SPLITS['test'])
    assert 'tensorflow' not in sys.modules

  @pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
      (
        'tiny_pairs',
        {'languages': ('en', 'fr')},
        r"^data\.kw\.languages: there is no language 'fr'",
      ),
      (
        'tiny_pairs',
        {'languages': ('en',)},
        r'^data\.kw\.languages: .* two of',
      ),
      (
        'tiny_pairs',
        {'languages': 'en'},
        r"^data\.kw\.languages: 'en' should be a list of texts",
      ),
      ('numbers', {}, r'^data\.source: numbers holds no translations but'),
    ],
  )
  def test_what_does_not_fit(self, prepared, name, options, message):
    with pytest.raises(UserError, match=message):
      sources.load(
        f'translation:{name}', dir=str(prepared), **OPTIONS, **options
      )

  @pytest.mark.parametrize(
    ('last', 'message'),
    [
      (None, 'is damaged: bad block'),
      ('\u200b', 'example 2 has an empty sentence in de'),
    ],
  )
  def test_names_what_is_damaged(self, prepared, monkeypatch, last, message):
    from jaxkd.data import prepared as prepared_lib

    builder = prepared_lib.find('tiny_pairs', str(prepared), ())

    class Broken:
      def __len__(self):
        return 3

      def __getitems__(self, indices):
        if last is None:
          raise OSError('bad block')
        german = ('Tee', 'rot', last)
        return [{'en': b'tea', 'de': german[i].encode()} for i in indices]

    monkeypatch.setattr(builder, 'as_data_source', lambda split: Broken())
    with pytest.raises(UserError, match=f'tiny_pairs.*{message}'):
      prepared_lib.sentences(builder, 'train', ('en', 'de'))
