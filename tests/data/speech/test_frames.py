"""Frames of speech with states: of an alignment that is kept, or made up."""

import gzip
import sys

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.data.speech import audio, frames
from jaxkd.errors import UserError

SPLITS = ('train', 'validation', 'test')
NAMES = [*map(str, range(12)), 'digits/1', 'beep', 'loose']


class Stub:
  """States in turn, without a look at the wave, and silence at both ends."""

  name = 'stub 1.0'

  def __init__(self):
    self.calls = 0

  def __call__(self, wave, text):
    self.calls += 1
    if 'unknown' in text:
      return None
    states = np.arange(len(wave) // 160) % 6
    states[[0, -1]] = frames.SILENCE
    return states


def waves():
  """One second or so of noise for each sound, some of them louder."""
  draw = np.random.default_rng(0)
  for i, name in enumerate(NAMES):
    yield name, draw.uniform(-0.3, 0.3, 12_000 + 160 * i).astype(np.float32)


@pytest.fixture
def prompts(tmp_path, monkeypatch):
  """Two folders like those of Debian's packages; the sounds are arrays."""
  sounds, texts = tmp_path / 'sounds', tmp_path / 'texts.gz'
  heard = {}
  for name, wave in waves():
    file = sounds / f'{name}.g722'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(name.encode())
    heard[file] = wave
  lines = [f'{name}: Prompt number {i}.' for i, name in enumerate(NAMES[:-1])]
  lines[3] = '3: unknown'
  lines[5] = '5: Prompt number 4.'  # as another says
  lines[-1] = 'beep: [a beep]'
  texts.write_bytes(
    gzip.compress('\n'.join(['; A title', '', *lines]).encode())
  )
  monkeypatch.setattr(frames, 'SOUNDS', sounds)
  monkeypatch.setattr(frames, 'TEXTS', texts)
  monkeypatch.setattr(frames, 'CACHE', tmp_path / 'cache')
  monkeypatch.setattr(audio, 'read', lambda file, rate: heard[file])
  return tmp_path


@pytest.fixture
def stub(prompts, monkeypatch):
  made = Stub()
  monkeypatch.setattr(frames, 'PocketSphinx', lambda: made)
  return made


def everything(split):
  return split.fetch(np.arange(len(split)))


class TestAlignment:
  def test_is_made_once(self, prompts, stub):
    first = frames.alignment()
    assert stub.calls == 13  # what is in brackets or has no text is no speech
    assert len(first.texts) == 12 and first.left_out == 1
    other = Stub()
    other.name = 'stub 2.0'
    again = frames.alignment(other)
    assert not other.calls and str(again.aligner) == 'stub 1.0'
    for one, two in zip(first, again, strict=True):
      np.testing.assert_array_equal(one, two)

  def test_is_made_again_for_other_sounds(self, prompts, stub):
    first = frames.alignment()
    (prompts / 'sounds' / '7.g722').unlink()
    assert len(frames.alignment().texts) == 11
    assert stub.calls == 25
    assert str(frames.alignment().checksum) != str(first.checksum)

  def test_is_refused_if_it_was_changed(self, prompts, stub):
    frames.alignment()
    (file,) = (prompts / 'cache').glob('*.npz')
    with np.load(file) as found:
      arrays = dict(found)
    arrays['states'][7] += 1
    np.savez(file, **arrays)
    message = rf'^data\.source: {file} is not what was written there; remove it'
    with pytest.raises(UserError, match=message):
      frames.alignment()
    file.write_bytes(b'no archive')  # one that is damaged is made again
    frames.alignment()

  def test_needs_some_prompts_that_can_be_aligned(self, stub, monkeypatch):
    monkeypatch.setattr(frames, 'FEWEST', 13)
    with pytest.raises(UserError, match=r'12 of 13 prompts .*apt-get install'):
      frames.alignment()

  @pytest.mark.parametrize('what', ['SOUNDS', 'TEXTS'])
  def test_says_what_to_install(self, prompts, monkeypatch, what):
    monkeypatch.setattr(frames, what, prompts / 'nowhere')
    message = (
      r'^data\.source: .*nowhere is not there; run `apt-get install aste'
    )
    with pytest.raises(UserError, match=message):
      sources.load('speech_frames')

  def test_says_which_package_is_missing(self, prompts, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pocketsphinx', None)
    with pytest.raises(UserError, match=r"package pocketsphinx .*'jaxkd\[spee"):
      sources.load('speech_frames')


def test_pocketsphinx_aligns():
  """Synthetic sounds: it is about the form of what it gives."""
  pytest.importorskip('pocketsphinx')
  aligner = frames.PocketSphinx()
  assert aligner.name.startswith('pocketsphinx ')
  words = aligner._words('Press 1, or e-mail, at 5 P.M.')
  assert words == ['press', 'one', 'or', 'e-mail', 'at', 'five', 'p.m.']
  assert aligner._words('a call-forward') == ['a', 'call', 'forward']
  assert aligner._words('xyzzyx') == []
  assert aligner(np.zeros(1600, np.float32), 'xyzzyx') is None
  wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
  states = aligner(wave, 'one')
  if states is not None:
    assert abs(len(states) - 100) < 4
    said = states[states != frames.SILENCE]
    names = [frames.CLASSES[state] for state in dict.fromkeys(said)]
    assert names == [f'{p}.{i}' for p in ('W', 'AH', 'N') for i in (1, 2, 3)]
  # A prompt that is too short for its words cannot be aligned.
  assert aligner(wave[:800], 'one two three four five six seven') is None


class TestRecorded:
  @pytest.fixture
  def source(self, stub):
    pytest.importorskip('kaldi_native_fbank')
    options = dict(test=0.2, validation=0.2, noise=(0.0, 10.0), talkers=1)
    return sources.load('speech_frames', bins=8, context=5, **options)

  def test_has_frames_with_their_surroundings(self, source):
    assert source.input_shape == (5, 8, 2) and source.num_classes == 117
    assert source.classes[:4] == ('AA.1', 'AA.2', 'AA.3', 'AE.1')
    x = everything(source.splits['train'])
    # Without those two that say the same, and the ends of the others.
    number, count = x['utterance'], np.bincount(x['utterance'])
    inner = (number[:-1] == number[1:]) & (count[number[1:]] < 100)
    assert inner.sum() > 300
    # The next frame's window is this one's, one frame on.
    one, next_ = x['inputs'][:-1][inner], x['inputs'][1:][inner]
    np.testing.assert_array_equal(one[:, 1:], next_[:, :-1])
    assert abs(x['inputs'][:, 2, :, 0].mean()) < 0.05
    assert abs(x['inputs'][:, 2, :, 0].std() - 1) < 0.05

  def test_what_says_the_same_is_in_one_split(self, source):
    found = [set(everything(s)['utterance']) for s in source.splits.values()]
    assert tuple(source.splits) == SPLITS
    assert sum(map(len, found)) == len(set.union(*found)) == 11
    assert source.unit == 'utterance'

  def test_tells_what_it_is_made_of(self, source):
    said = ' '.join(source.notes)
    for part in (
      '12 prompts of Asterisk',
      '1 more could not be aligned',
      'states aligned by stub 1.0, SHA-256 ',
      'channel 1 has noise: 1 other utterances of the split',
      '8 utterances in train',
      'train has no example of 111 of the 117 classes',
    ):
      assert part in said


class TestMadeUp:
  def load(self, **options):
    return sources.load('speech_frames', speech='made_up', bins=8, **options)

  def test_is_a_pure_function_of_its_seed(self):
    one, same, other = (
      everything(self.load(seed=seed, context=3).splits['test'])
      for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one['inputs'], same['inputs'])
    assert one['inputs'].shape != other['inputs'].shape

  def test_states_can_be_told_by_their_frames(self):
    x = everything(self.load(context=1, utterances=200).splits['train'])
    means = [x['inputs'][x['labels'] == k].mean(0) for k in range(117)]
    far = np.square(x['inputs'][:, None] - np.stack(means)).sum((-1, -2))
    assert (far.argmin(1) == x['labels']).mean() > 0.3

  def test_milder_noise_is_nearer(self):
    def distance(*noise):
      x = everything(self.load(noise=noise).splits['test'])['inputs']
      return np.abs(x[..., 0] - x[..., 1]).mean()

    far, near, none = (
      distance(0.0, 0.0),
      distance(15.0, 20.0),
      distance(99.0, 99.0),
    )
    assert far > 1.5 * near and none < 1e-3

  def test_noise_is_what_the_clean_channel_lacks(self):
    """With it or without, labels, splits and the clean channel are equal."""
    clean, noisy = self.load(), self.load(noise=(0.0, 10.0))
    for split in SPLITS:
      a, b = everything(clean.splits[split]), everything(noisy.splits[split])
      np.testing.assert_array_equal(a['labels'], b['labels'])
      np.testing.assert_array_equal(a['utterance'], b['utterance'])
      np.testing.assert_array_equal(a['inputs'], b['inputs'][..., 0])

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'speech': 'asterix'}, r"speech: .*did you mean 'asterisk'"),
      ({'utterances': 3}, 'utterances: 3 should be 10 or more'),
      ({'context': 4}, 'context: 4 should be odd'),
      ({'bins': 0}, 'cannot have 0 bins'),
      ({'talkers': 0, 'noise': (0.0, 1.0)}, '0 talkers'),
      (
        {'talkers': 6, 'noise': (0.0, 1.0)},
        'talkers: 6 others .*have more utterances',
      ),
      ({'noise': (0.0,)}, r'noise: \(0\.0,\) should be'),
      ({'noise': (5.0, 0.0)}, 'the lowest and the highest'),
      ({'noise': (0.0, float('inf'))}, 'should be'),
      ({'test': 0.0}, r'test: 0\.0 of 60 texts leaves none'),
      ({'test': 1.5}, r'test: 1\.5 of 60 texts leaves none'),
      ({'validation': 0.001}, 'leaves none for validation; give a share'),
      ({'test': 0.6, 'validation': 0.4}, 'leave none to train on'),
    ],
  )
  def test_options_that_cannot_be(self, options, message):
    options = {'speech': 'made_up', **options}
    with pytest.raises(UserError, match=rf'^data\.kw.*{message}'):
      sources.load('speech_frames', **options)

  def test_may_have_no_validation(self):
    assert tuple(self.load(validation=0.0).splits) == ('train', 'test')
