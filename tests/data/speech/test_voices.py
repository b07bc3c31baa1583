"""Synthetic voices, some of which are for the test alone."""

import random
import shutil
import sys

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.data.speech import voices
from jaxkd.data.text.tokenizer import text
from jaxkd.errors import UserError

SMALL = dict(size=12, test=4, validation=3, bins=6, vocabulary=0)
speaking = pytest.mark.skipif(
  not (shutil.which('espeak-ng') and shutil.which('flite')),
  reason='the programs that speak are not installed',
)


def noise(one, path, bins):
  """Instead of a voice, frames as many as what it says is long."""
  count = 4 * len(one.text)
  return np.random.default_rng(0).normal(size=(count, bins)).astype(np.float32)


@pytest.fixture
def silent(monkeypatch):
  """Voices without the programs, and who was asked to say what."""
  asked = []

  def speak(one, path, bins):
    asked.append(one)
    return noise(one, path, bins)

  monkeypatch.setattr(voices, '_speak', speak)
  monkeypatch.setattr(voices.shutil, 'which', lambda name: name)
  every = {x for voice in voices.VOICES for x in voice.name.split('+')}
  monkeypatch.setattr(voices, '_known', lambda program: every)
  return asked


def said(source):
  return {
    name: [
      text(x, source.classes)
      for x in split.fetch(np.arange(len(split)))['labels']
    ]
    for name, split in source.splits.items()
  }


def test_what_is_said_differs_and_is_plain():
  made = voices.sentences(300, random.Random(0))
  assert len({*made}) == 300
  assert not {*''.join(made)} - {*' abcdefghijklmnopqrstuvwxyz'}
  assert any(' of september ' in x for x in made)
  assert made == voices.sentences(300, random.Random(0))


def test_the_voices_of_the_test_are_its_own(silent):
  source = sources.load('voices', **SMALL, held_out=5)
  sizes = {name: len(split) for name, split in source.splits.items()}
  assert sizes == {'train': 5, 'validation': 3, 'test': 4}
  who = {one.text: one.voice for one in silent}
  texts = said(source)
  heard = {split: {who[x] for x in own} for split, own in texts.items()}
  assert not heard['test'] & (heard['train'] | heard['validation'])
  assert len({x for own in texts.values() for x in own}) == 12
  assert source.notes[0].startswith('41 synthetic voices in training; 5 others')
  assert all(str(voice) in source.notes[0] for voice in heard['test'])


def test_they_speak_once(silent):
  first = sources.load('voices', **SMALL)
  assert len(silent) == 12
  again = sources.load('voices', **SMALL)
  assert len(silent) == 12
  assert said(first) == said(again)
  for name, split in first.splits.items():
    a, b = (
      x.fetch(np.arange(3))['inputs']['source']['frames']
      for x in (split, again.splits[name])
    )
    np.testing.assert_array_equal(a, b)
  other = sources.load('voices', **SMALL, seed=1)
  assert len(silent) == 24 and said(other) != said(first)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'held_out': 0}, r'kw\.held_out: 0 should be from 1 to 45'),
    ({'size': 7}, '7 utterances with 4 to test'),
    ({'size': 20_000}, r'use up to 12,000'),
    ({'seed': -1}, r'kw\.seed: -1 should be 0 or more'),
    ({'bins': 127}, r'kw\.bins: 127 bands should be 3 to 126'),
    ({'frames': 2}, r"kw\.frames: .*kw\.too_long='drop'"),
  ],
)
def test_what_cannot_be_made(options, message, silent):
  with pytest.raises(UserError, match=message):
    sources.load('voices', **SMALL | options)


def test_says_what_to_install(monkeypatch):
  monkeypatch.setattr(voices.shutil, 'which', lambda name: None)
  with pytest.raises(
    UserError, match=r'^data\.source: the program .* is not installed; apt-get'
  ):
    sources.load('voices', **SMALL)
  monkeypatch.setitem(sys.modules, 'num2words', None)
  with pytest.raises(UserError, match=r"pip install 'jaxkd\[speech\]'"):
    sources.load('voices', **SMALL)


@speaking
@pytest.mark.parametrize('program', ['espeak-ng', 'flite'])
def test_a_voice_says_more_in_more_time(program, tmp_path):
  voice = next(v for v in voices.VOICES if v.program == program)
  lengths = []
  for words, speed in (('one', 160), ('one hundred and one', 160),
                       ('one hundred and one', 120)):  # fmt: skip
    one = voices._Spoken(voice, words, speed)
    frames = voices._speak(one, tmp_path / 'a.wav', 8)
    assert frames.shape[1] == 8 and np.isfinite(frames).all()
    lengths.append(len(frames))
  assert lengths == sorted({*lengths})


@speaking
def test_all_voices_are_there():
  for voice in voices.VOICES:
    assert {*voice.name.split('+')} <= voices._known(voice.program)


def test_no_voice_stands_in_for_another(silent, monkeypatch):
  monkeypatch.setattr(voices, '_known', lambda program: {'en-us', 'm1', 'kal'})
  with pytest.raises(UserError, match=r"has no voice '.*' here"):
    sources.load('voices', **SMALL)


def test_what_is_written_is_no_sound(monkeypatch, tmp_path):
  one = voices._Spoken(voices.VOICES[0], 'one', 160)
  with pytest.raises(UserError, match=r"en-us\+m1 cannot say 'one': .*apt-get"):
    voices._speak(one, tmp_path / 'no' / 'folder.wav', 8)
