"""Recorded speech, in the layouts that people have it in."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from jaxkd.data import examples, prepared, sources
from jaxkd.data.sources import speech
from jaxkd.data.speech import audio, recordings
from jaxkd.data.text.tokenizer import text
from jaxkd.errors import UserError

soundfile = pytest.importorskip('soundfile')
pytest.importorskip('kaldi_native_fbank')
RATE = 16_000
SAID = {
  'train': ('ab a', 'b a', 'aab', 'ba'),
  'test': ('a b', 'bb'),
}


def tone(seconds=0.3, rate=RATE):
  """A tone under noise."""
  time = np.arange(int(rate * seconds)) / rate
  noise = np.random.default_rng(0).normal(size=len(time))
  return (0.4 * np.sin(2 * np.pi * 440 * time) + 0.1 * noise).astype(np.float32)


def write(path, wave=None, rate=RATE):
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, tone() if wave is None else wave, rate)
  return path


def librispeech(root):
  for split, lines in SAID.items():
    for i, line in enumerate(lines):
      chapter = root / split / str(i % 2) / '7'
      write(chapter / f'{i}.flac', tone(0.3 + 0.1 * i))
      with (chapter / f'{i % 2}-7.trans.txt').open('a') as file:
        file.write(f'{i} {line}\n')


def beside(root):
  for split, lines in SAID.items():
    for i, line in enumerate(lines):
      path = write(root / split / f'{i}.wav', tone(0.3 + 0.1 * i))
      path.with_suffix('.txt').write_text(f'{line}\n')


def listed(root, suffix):
  for split, lines in SAID.items():
    rows = []
    for i, line in enumerate(lines):
      path = write(root / 'sounds' / split / f'{i}.wav', tone(0.3 + 0.1 * i))
      rows.append({'path': str(path.relative_to(root)), 'sentence': line})
    if suffix == 'jsonl':
      lines = map(json.dumps, rows)
    else:
      mark = '\t' if suffix == 'tsv' else ','
      lines = [f'path{mark}sentence']
      lines += (mark.join(row.values()) for row in rows)
    (root / f'{split}.{suffix}').write_text('\n'.join(lines))


def said(split, classes):
  labels = split.fetch(np.arange(len(split)))['labels']
  return [text(x, classes) for x in labels]


LAYOUTS = {
  'librispeech': librispeech,
  'beside': beside,
  'csv': lambda root: listed(root, 'csv'),
  'tsv': lambda root: listed(root, 'tsv'),
  'jsonl': lambda root: listed(root, 'jsonl'),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(layout, tmp_path):
  LAYOUTS[layout](tmp_path)
  source = sources.load(f'speech:{tmp_path}', validation=1, bins=8)
  found = [said(source.splits[s], source.classes) for s in source.splits]
  assert sorted(found[0] + found[1]) == sorted(SAID['train'])
  assert sorted(found[2]) == sorted(SAID['test'])
  batch = source.splits['test'].fetch(np.arange(2))
  frames = batch['inputs']['source']
  # Of 0.3 and 0.4 seconds, in frames of 25 ms every 10 ms.
  assert sorted(frames['valid'].sum(1)) == [28, 38]
  own = frames['frames'][0][frames['valid'][0]]
  np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
  wave = tone(0.3 if len(own) == 28 else 0.4)
  want = audio.log_mel(wave, 8)
  want = (want - want.mean(0)) / want.std(0)
  np.testing.assert_allclose(own, want, atol=0.02)
  assert source.vocabulary == len(source.classes) == 7


@pytest.mark.parametrize('suffix', ['csv', 'jsonl'])
def test_speakers_are_units(suffix, tmp_path):
  """Numbered over all splits; no field where one of them is not known."""
  listed(tmp_path, suffix)
  file = tmp_path / f'train.{suffix}'
  first, *lines = file.read_text().split('\n')
  if suffix == 'csv':
    lines = [f'{line},{who}' for line, who in zip(lines, 'cbbc', strict=True)]
    file.write_text('\n'.join([f'{first},speaker', *lines]))
  else:
    rows = map(json.loads, [first, *lines])
    rows = [
      row | {'speaker_id': n} for row, n in zip(rows, (7, 5, 5, 7), strict=True)
    ]
    file.write_text('\n'.join(map(json.dumps, rows)))
  source = sources.load(f'speech:{tmp_path}', validation=0, bins=8)
  assert 'speaker' not in source.splits['train'].fetch(np.arange(1))
  assert 'speakers of 2 of the 6 utterances are not known' in source.notes[-1]
  # The same sounds by the same speakers, under other names.
  (tmp_path / 'sounds' / 'test').rename(tmp_path / 'sounds' / 'other')
  shutil.copytree(tmp_path / 'sounds' / 'train', tmp_path / 'sounds' / 'test')
  rows = file.read_text().replace('/train/', '/test/')
  (tmp_path / f'test.{suffix}').write_text(rows)
  source = sources.load(f'speech:{tmp_path}', validation=0, bins=8)
  assert '2 of the 2 speakers in test are in train too' in source.notes
  units = examples.units(source.splits['train'], 'speaker', 'data.unit')
  np.testing.assert_array_equal(units, [1, 0, 0, 1])


def test_readers_of_librispeech_are_speakers(tmp_path):
  librispeech(tmp_path)
  source = sources.load(f'speech:{tmp_path}', validation=0, bins=8)
  units = examples.units(source.splits['train'], 'speaker', 'data.unit')
  assert sorted(units) == [0, 0, 1, 1]


def test_parts_can_be_named(tmp_path):
  librispeech(tmp_path)
  (tmp_path / 'train').rename(tmp_path / 'clean-100')
  shutil.copytree(tmp_path / 'test', tmp_path / 'other')
  parts = dict(train=('clean-100',), validation='other', test=('test',))
  source = sources.load('speech:.', dir=str(tmp_path), parts=parts)
  sizes = {name: len(split) for name, split in source.splits.items()}
  assert sizes == {'train': 4, 'validation': 2, 'test': 2}
  for odd, message in (
    (dict(train=('clean-360',)), r"kw\.parts\.train: .*'clean-360'.*clean-100"),
    (dict(train=('clean-100',), dev=('test',)), r"kw\.parts: .*'dev'"),
    (dict(train=('clean-100',)), 'no part for test'),
    ({}, 'no part for train'),
    (
      dict(train=('clean-100', 'clean-100'), test=('test',)),
      "'clean-100' is named for train and again for train; name each part once",
    ),
    (dict(train='test', test='test'), 'for train and again for test'),
    (dict(train=5), r'kw\.parts\.train: 5 should be a list of names'),
  ):
    with pytest.raises(UserError, match=message):
      sources.load('speech:.', dir=str(tmp_path), parts=odd)
  with pytest.raises(UserError, match=r'kw\.parts: 5 should be a dict of'):
    speech.speech(str(tmp_path), parts=5)


def test_what_is_counted_is_what_is_read(tmp_path):
  for rate in (8000, 16_000, 22_050, 44_100):
    for seconds in (0.0251, 0.1, 0.377):
      path = write(tmp_path / 'a.wav', tone(seconds, rate), rate)
      made = recordings._of_file(recordings._Line(path, 'a', '', ''), 4)
      assert made.read().shape == (made.count, 4)
  # Shorter than a frame, it is refused when utterances are assembled.
  path = write(tmp_path / 'a.wav', tone(0.02))
  line = recordings._Line(path, 'a', '', '')
  assert recordings._of_file(line, 4).count == 0


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda r: (r / 'train' / '1.txt').unlink(), r'1\.wav has no transcript'),
    (
      lambda r: (r / 'train' / '1.txt').write_text(' '),
      '1.txt is empty; write',
    ),
    (lambda r: (r / 'test' / '1.txt').write_text('c'), "the character 'c'"),
    (
      lambda r: (r / 'test' / '1.txt').write_text('ab' * 20),
      '38 frames, too few for the 40 tokens',
    ),
    (lambda r: (r / 'train' / '0.wav').write_bytes(b''), 'is empty; remove it'),
    (lambda r: write(r / 'test' / '0.wav', tone(0.01)), 'than one frame'),
    (lambda r: write(r / 'test' / '0.wav', tone(0)), '0.wav.*no samples'),
    (
      lambda r: (r / 'train' / '0.txt').write_bytes(b'\xff'),
      r'0\.txt is not UTF-8',
    ),
    (
      lambda r: (r / 'train' / 'list.csv').write_text('audio,text\nz.wav,a'),
      r"list\.csv is of '.*z\.wav', and there is no",
    ),
    (
      lambda r: (r / 'train' / 'list.csv').write_text('audio,words\n0.wav,a'),
      r"line 2 of .*list\.csv has no 'text' but 'audio', 'words'",
    ),
    (
      lambda r: (r / 'train' / 'list.jsonl').write_text('{"audio": 1'),
      r'line 1 of .*list\.jsonl is not JSON',
    ),
    (
      lambda r: [(r / 'train' / f'{x}.csv').write_text('') for x in 'ab'],
      r'several lists of files \(a\.csv, b\.csv\)',
    ),
    (
      lambda r: (r / 'train' / 'list.csv').write_text('audio,text\n0.wav,a, b'),
      r'line 2 of .*list\.csv has more columns than the header; put a text',
    ),
    (
      lambda r: (r / 'train' / 'list.csv').write_text('audio,text\n'),
      r'list\.csv lists no sound; add some',
    ),
    (
      lambda r: (r / 'train' / 'list.csv').write_text('audio;text\n0.wav;a'),
      r"line 2 of .*list\.csv has no 'audio' but 'audio;text'; give each",
    ),
    (
      lambda r: write(r / 'train' / '1.flac'),
      r'1\.flac and 1\.wav have one name, and so one transcript; remove one',
    ),
    (
      lambda r: (r / 'train' / '1.wav').unlink(),
      r'there is no sound file of the same name beside .*1\.txt; add it',
    ),
    (
      lambda r: (r / 'train' / 'a.trans.txt').write_text('0 a\n9 b\n'),
      r'line 2 of .*a\.trans\.txt is of 9, and there is no sound',
    ),
    (
      lambda r: (r / 'train' / 'a.trans.txt').write_text('0 a\n1 b\n0 b\n'),
      r'0\.wav is there twice, in train \(line 1 of .*in train \(line 3 of',
    ),
    (
      lambda r: (r / 'train' / 'list.csv').write_text(
        'audio,text\n0.wav,a\n../test/0.wav,b\n'
      ),
      r'test/0\.wav is there twice, in train \(line 3 of .*in test \(',
    ),
    (
      lambda r: (r / 'train' / 'README.md').write_text('By us.'),
      r'README\.md has no transcript.*or remove the file',
    ),
  ],
)
def test_what_is_missing_or_damaged(change, message, tmp_path):
  beside(tmp_path)
  change(tmp_path)
  with pytest.raises(UserError, match=message):
    sources.load(f'speech:{tmp_path}', validation=1)


def test_how_sounds_are_converted_is_told(tmp_path):
  beside(tmp_path)
  write(tmp_path / 'train' / '0.wav', np.stack([tone(), tone()], 1))
  write(tmp_path / 'train' / '1.wav', tone(rate=8000), 8000)
  write(tmp_path / 'test' / '0.wav', np.clip(9 * tone(), -1, 1))
  notes = sources.load(f'speech:{tmp_path}', validation=1).notes
  for said in (
    '1 of 6 sounds: channels were averaged',
    '1 of 6 sounds: converted from 8000 to 16000 samples a second',
    '1 of 6 sounds are clipped',
  ):
    assert any(note.startswith(said) for note in notes), notes


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_a_quoted_text_may_have_commas_and_quotation_marks(end, tmp_path):
  listed(tmp_path, 'csv')
  file = tmp_path / 'train.csv'
  rows = file.read_text().replace('ab a', '"ab, ""a"""')
  file.write_bytes(rows.replace('\n', end).encode())
  found, _ = recordings.read(tmp_path, {}, bins=4)
  assert [own.text for own in found['train']] == [
    'ab, "a"', 'b a', 'aab', 'ba',
  ]  # fmt: skip


def test_quotation_marks_of_tsv_are_just_marks(tmp_path):
  listed(tmp_path, 'tsv')
  file = tmp_path / 'train.tsv'
  file.write_text(file.read_text().replace('ab a', '"ab a'))
  found, _ = recordings.read(tmp_path, {}, bins=4)
  assert [own.text for own in found['train']] == ['"ab a', *SAID['train'][1:]]


HEAD = 'audio,text\n0.wav,a\n'
FIRST = '{"audio": "0.wav", "text": "a"}\n'


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.csv', f'{HEAD}1.wav,"b\n2.wav,a"\n', 'line 3 of .* cannot be read'),
    ('a.csv', f'{HEAD}1.wav,"b', r'line 3 of .*end of data.*be closed in'),
    ('a.csv', f'{HEAD}1.wav,"b" a', r'line 3 of .* cannot be read'),
    ('a.csv', f'{HEAD}1.wav,{"a" * 2**18}', r'line 3 of .*field limit'),
    ('a.csv', f'{HEAD}1.wav\n', 'line 3 of .* has 1 of the 2 columns'),
    ('a.csv', HEAD.encode() + b'1.wav,\xff', 'line 3 of .* is not UTF-8'),
    ('a.csv', f'{HEAD}{"b" * 5000}.wav,b', 'line 3 of .* there is no sound'),
    ('a.csv', f'{HEAD}./0.wav,b', r'0\.wav is there twice'),
    ('a.tsv', 'audio\ttext\n0.wav\ta\tb', 'line 2 of .*spaces for the tabs'),
    ('a.jsonl', f'{FIRST}{{"text": {"9" * 5000}}}', 'line 2 of .* not JSON'),
    ('a.jsonl', f'{FIRST}{"[" * 100_000}', 'line 2 of .* is not JSON'),
    (
      'a.jsonl',
      FIRST + r'{"audio": "1.wav", "text": "\ud800"}',
      'line 2 of .* has a text that is not UTF-8',
    ),
    (
      'a.jsonl',
      FIRST + '{"audio": "1.wav", "text": 7}',
      "line 2 of .* has an entry 'text' that is no text; give each",
    ),
    ('a.jsonl', '[]', "line 1 of .* has no 'audio' but nothing"),
  ],
)
def test_lists_that_cannot_be_read(name, content, message, tmp_path):
  beside(tmp_path)
  raw = content if isinstance(content, bytes) else content.encode()
  (tmp_path / 'train' / name).write_bytes(raw)
  with pytest.raises(UserError, match=rf'^data\.source: .*{message}'):
    sources.load(f'speech:{tmp_path}', validation=1)


def test_what_has_no_line_in_librispeech_is_told(tmp_path):
  librispeech(tmp_path)
  write(tmp_path / 'train' / '1' / '7' / '9.flac')
  # Tabs are spaces, too.
  file = tmp_path / 'train' / '0' / '7' / '0-7.trans.txt'
  file.write_text(file.read_text().replace('0 ', '0\t'))
  found, notes = recordings.read(tmp_path, {}, bins=4)
  assert {own.text for own in found['train']} == {*SAID['train']}
  assert notes[0] == (
    '1 of the 5 files in train have no line in a *.trans.txt and are left '
    'out, such as 9.flac'
  )


def test_of_many_sounds_some_are_looked_at(tmp_path, monkeypatch):
  monkeypatch.setattr(recordings, '_LOOKED_AT', 2)
  beside(tmp_path)
  write(tmp_path / 'train' / '0.wav', tone(rate=8000), 8000)
  _, notes = recordings.read(tmp_path, {}, bins=4)
  assert notes == (
    '1 of 2 sounds looked at (of 6): converted from 8000 to 16000 samples a '
    'second',
  )


@pytest.mark.parametrize('bins', [0, 2, 127])
def test_numbers_of_bands_that_cannot_be_made(bins, tmp_path):
  message = rf'^data\.kw\.bins: {bins} bands should be 3 to 126'
  with pytest.raises(UserError, match=message):
    sources.load(f'speech:{tmp_path}', bins=bins)


def test_says_what_is_not_there_and_what_to_install(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r'^data\.source: there is no folder'):
    sources.load(f'speech:{tmp_path / "none"}')
  (tmp_path / 'train').mkdir()
  with pytest.raises(UserError, match='train has no transcript'):
    sources.load(f'speech:{tmp_path}')
  beside(tmp_path)
  monkeypatch.setitem(sys.modules, 'soundfile', None)
  with pytest.raises(UserError, match=r"pip install 'jaxkd\[speech\]'"):
    sources.load(f'speech:{tmp_path}')


def test_reads_what_tfds_has_prepared(tmp_path):
  import tensorflow_datasets as tfds

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    name = 'tiny_speech'

    @classmethod
    def _get_pkg_dir_path(cls):
      return pathlib.Path(tmp_path)  # without a package there is none

    def _info(self):
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict({
          # TFDS's own feature for sounds needs TensorFlow.
          'speech': tfds.features.Tensor(shape=(None,), dtype=np.int64),
          'text': tfds.features.Text(),
        })
      )  # fmt: skip

    def _split_generators(self, _):
      return {
        'train_clean100': self._generate_examples(SAID['train']),
        'test_clean': self._generate_examples(SAID['test']),
      }

    def _generate_examples(self, lines):
      for i, line in enumerate(lines):
        wave = (tone(0.3 + 0.1 * i) * 2**15).astype(np.int64)
        yield i, {'speech': wave, 'text': line}

  Builder(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  parts = dict(train='train_clean100', test=('test_clean',))
  source = sources.load(
    'speech:tfds:tiny_speech', dir=str(tmp_path), parts=parts, validation=1
  )
  assert sorted(said(source.splits['test'], source.classes)) == ['a b', 'bb']
  frames = source.splits['test'].fetch(np.arange(2))['inputs']['source']
  assert sorted(frames['valid'].sum(1)) == [28, 38]
  with pytest.raises(UserError, match=r"parts\.test: .*'test_other'"):
    sources.load(
      'speech:tfds:tiny_speech',
      dir=str(tmp_path),
      parts={**parts, 'test': ('test_other',)},
    )


def test_says_that_tfds_needs_tensorflow(monkeypatch):
  def find(*_):
    raise ModuleNotFoundError('tensorflow')

  monkeypatch.setattr(prepared, 'find', find)
  with pytest.raises(UserError, match=r'TensorFlow.*write speech:FOLDER'):
    sources.load('speech:tfds:librispeech')
