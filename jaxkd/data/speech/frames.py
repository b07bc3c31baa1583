"""Frames of speech with the states of their phones, for acoustic models.

The speech are the prompts of the Asterisk telephone exchange: one speaker, 16
kHz, with their texts. Each frame of 10 ms has the state that a forced alignment
by PocketSphinx gives it: of each of 39 phones the beginning, the middle or the
end. Versions of PocketSphinx give different alignments, so there is only one,
which is kept in the home folder with a checksum. Speech that is made up, of
random spectra, needs neither recordings nor an aligner.
"""

import gzip
import hashlib
import importlib.metadata
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from jaxkd import lookup
from jaxkd.data import file_cache, folders, passes
from jaxkd.data.speech import audio
from jaxkd.errors import UserError

KINDS = ('asterisk', 'made_up')
SOUNDS = Path('/usr/share/asterisk/sounds/en_US_f_Allison')
TEXTS = Path('/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz')
CACHE = Path('~/.cache/jaxkd/speech')
INSTALL = 'apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-en'
PHONES = (
  *('AA', 'AE', 'AH', 'AO', 'AW', 'AY', 'B', 'CH', 'D', 'DH', 'EH', 'ER', 'EY'),
  *('F', 'G', 'HH', 'IH', 'IY', 'JH', 'K', 'L', 'M', 'N', 'NG', 'OW', 'OY'),
  *('P', 'R', 'S', 'SH', 'T', 'TH', 'UH', 'UW', 'V', 'W', 'Y', 'Z', 'ZH'),
)
STATES = 3  # of a phone
CLASSES = tuple(f'{phone}.{i + 1}' for phone in PHONES for i in range(STATES))
SILENCE = -1  # the state of frames that are of no phone
RATE = 16_000  # samples a second
FEWEST = 10  # utterances
MADE_UP = 60  # utterances, if nothing is said
_SPELLED = {
  **{'0': 'zero', '1': 'one', '2': 'two', '3': 'three', '4': 'four'},
  **{'5': 'five', '6': 'six', '7': 'seven', '8': 'eight', '9': 'nine'},
  **{'#': 'pound', '*': 'star'},
}  # as the prompts say them
_FULL = 2**15 - 1  # what an int16 has for 1
_FORMAT = 1  # of the file that keeps an alignment
_STD = 1e-6  # added to standard deviations, so that a band may be constant


class Aligner(Protocol):
  """Finds the state of each frame.

  Attributes:
    name: its own, with its version.
  """

  name: str

  def __call__(self, wave: np.ndarray, text: str) -> np.ndarray | None:
    """The states of an utterance.

    Args:
      wave: float32 [n], of `RATE` samples a second.
      text: what is said.

    Returns:
      Numbers of `CLASSES`, or `SILENCE`, int [frames]; None where wave and text
      cannot be aligned.
    """


class Alignment(NamedTuple):
  """Utterances with the states of their frames, one behind the other.

  Attributes:
    texts: of the utterances, str [U].
    waves: int16, of all utterances together.
    samples: of each utterance, int64 [U].
    states: int16, of all utterances together.
    frames: of each utterance, int64 [U].
    aligner: what made it, and its version, str [].
    left_out: how many utterances could not be aligned, int64 [].
    checksum: SHA-256 of all this, str [].
  """

  texts: np.ndarray
  waves: np.ndarray
  samples: np.ndarray
  states: np.ndarray
  frames: np.ndarray
  aligner: np.ndarray
  left_out: np.ndarray
  checksum: np.ndarray


class Utterance(NamedTuple):
  """One of them.

  Attributes:
    text: what is said.
    features: log-Mel features, float32 [frames, bins].
    states: numbers of `CLASSES`, or `SILENCE`, int16 [frames].
    wave: float32 [n], from -1 to 1; empty if there is none.
  """

  text: str
  features: np.ndarray
  states: np.ndarray
  wave: np.ndarray


class Frames(NamedTuple):
  """Frames of a phone, and what surrounds them.

  Attributes:
    inputs: float32 [N, context, bins], or [N, context, bins, 2]: without noise
      and with it.
    labels: numbers of `CLASSES`, int32 [N].
    utterance: where each is from, int32 [N].
  """

  inputs: np.ndarray
  labels: np.ndarray
  utterance: np.ndarray


# Recorded speech.


def recorded(bins: int) -> tuple[list[Utterance], tuple[str, ...]]:
  """The prompts that could be aligned.

  Args:
    bins: Mel bands of the features.

  Returns:
    The utterances, and notes.

  Raises:
    UserError: recordings or packages that are not installed, or too few
      prompts that can be aligned.
  """
  found = alignment()
  waves = [
    wave.astype(np.float32) / _FULL
    for wave in _apart(found.waves, found.samples)
  ]
  made = [
    _utterance(str(text), states, wave, bins)
    for text, states, wave in zip(
      found.texts, _apart(found.states, found.frames), waves, strict=True
    )
  ]
  minutes = found.samples.sum() / RATE / 60
  return made, (
    f'{len(made)} prompts of Asterisk, {minutes:.1f} minutes of one speaker; '
    f'{found.left_out} more could not be aligned',
    f'states aligned by {found.aligner}, SHA-256 {str(found.checksum)[:16]}',
  )


def alignment(aligner: Aligner | None = None) -> Alignment:
  """The alignment of all prompts: the one in the home folder, or a new one.

  Args:
    aligner: that makes a new one; `PocketSphinx` by default.

  Raises:
    UserError: as `recorded`; or the file in the home folder is not what was
      written.
  """
  files, texts = _prompts()
  # Whatever the version of the aligner, there is one alignment.
  file = CACHE / f'{file_cache.key([TEXTS, *files], _FORMAT)}.npz'
  made = file_cache.arrays(file, lambda: _aligned(files, texts, aligner))
  found = Alignment(**made)
  if str(found.checksum) != _checksum(found):
    raise UserError(
      f'data.source: {file} is not what was written there; remove it'
    )
  return found


def _prompts() -> tuple[list[Path], list[str]]:
  """The sound files of speech, and their texts."""
  for place in (SOUNDS, TEXTS):
    if not place.exists():
      raise UserError(
        'data.source: speech_frames reads the prompts of Asterisk, and '
        f'{place} is not there; run `{INSTALL}`, or set '
        "data.kw.speech='made_up'"
      )
  with gzip.open(TEXTS, 'rt', encoding='utf-8') as lines:
    pairs = [line.strip().partition(': ') for line in lines]
  texts = {
    # In brackets are sounds and remarks.
    name: text
    for name, colon, text in pairs
    if colon and not {*text} & {*'[<('}
  }
  files = {
    path.relative_to(SOUNDS).with_suffix('').as_posix(): path
    for path in SOUNDS.rglob('*.g722')
    if folders.is_data(path)
  }
  names = sorted(files.keys() & texts.keys())
  return [files[name] for name in names], [texts[name] for name in names]


def _aligned(
  files: Sequence[Path], texts: Sequence[str], aligner: Aligner | None
) -> dict[str, np.ndarray]:
  aligner, found = aligner or PocketSphinx(), []
  prompts = [*zip(files, texts, strict=True)]
  for file, text in passes.over(prompts, 'aligning prompts'):
    wave = audio.read(file, RATE)
    states = aligner(wave, text)
    if states is not None and (np.asarray(states) != SILENCE).any():
      found.append((text, _as_int16(wave), states))
  if len(found) < FEWEST:
    raise UserError(
      f'data.source: {len(found)} of {len(prompts)} prompts in {SOUNDS} could '
      f'be aligned, and speech_frames needs {FEWEST}; run `{INSTALL}` again'
    )
  texts, waves, states = zip(*found, strict=True)
  made = Alignment(
    texts=np.array(texts),
    waves=np.concatenate(waves),
    samples=np.array([*map(len, waves)]),
    states=np.concatenate(states).astype(np.int16),
    frames=np.array([*map(len, states)]),
    aligner=np.array(aligner.name),
    left_out=np.array(len(prompts) - len(found)),
    checksum=np.array(''),
  )
  return made._replace(checksum=np.array(_checksum(made)))._asdict()


def _checksum(found: Alignment) -> str:
  made = hashlib.sha256()
  for array in found._replace(checksum=np.array('')):
    made.update(f'{array.dtype.str} {array.shape} '.encode())
    made.update(np.ascontiguousarray(array).tobytes())
  return made.hexdigest()


def _as_int16(wave: np.ndarray) -> np.ndarray:
  return (wave * _FULL).astype(np.int16)


def _apart(joined: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
  return np.split(joined, np.cumsum(sizes)[:-1])


def _utterance(
  text: str, states: np.ndarray, wave: np.ndarray, bins: int
) -> Utterance:
  features = audio.log_mel(wave, bins, RATE, name=f'the prompt {text!r}')
  # The last frame of an aligner may reach over the end of the wave.
  count = min(len(states), len(features))
  return Utterance(text, features[:count], states[:count], wave)


class PocketSphinx:
  """The aligner of the package pocketsphinx, with the model that it brings."""

  def __init__(self):
    package = lookup.package('pocketsphinx', extra='speech', at='data.source')
    self._decoder = package.Decoder(lm=None, loglevel='FATAL', samprate=RATE)
    self.name = f'pocketsphinx {importlib.metadata.version("pocketsphinx")}'

  def __call__(self, wave: np.ndarray, text: str) -> np.ndarray | None:
    words = self._words(text)
    if not words:
      return None
    decoder, raw = self._decoder, _as_int16(wave).tobytes()

    def decode():
      decoder.start_utt()
      decoder.process_raw(raw, full_utt=True)
      decoder.end_utt()

    try:
      decoder.set_align_text(' '.join(words))
      decode()  # words
      decoder.set_alignment()
      decode()  # states
      found = decoder.get_alignment()
    except RuntimeError:
      return None
    if found is None:
      return None
    spans = []
    # Entries do not outlive the iteration that gives them.
    for word in found:
      for phone in word:
        speech = phone.name in PHONES
        first = STATES * PHONES.index(phone.name) if speech else 0
        for i, state in enumerate(phone):
          own = first + i if speech else SILENCE
          spans.append((state.start, state.start + state.duration, own))
    states = np.full(max((stop for _, stop, _ in spans), default=0), SILENCE)
    for start, stop, own in spans:
      states[start:stop] = own
    return states

  def _words(self, text: str) -> list[str]:
    """The words as the dictionary has them; none if it lacks one."""
    found = []
    for word in text.lower().split():
      bare = word.strip('.,;:!?"')
      parts = [_SPELLED.get(part, part) for part in bare.split('-') if part]
      for form in ([word], [bare], parts):
        if all(part and self._decoder.lookup_word(part) for part in form):
          found += form
          break
      else:
        return []
    return found


# Speech that is made up.


def made_up(count: int, bins: int, seed: int) -> list[Utterance]:
  """Utterances of random phones, each state of which has a spectrum.

  A state lasts two to six frames. Spectra run into one another over a frame,
  under noise and at a level of each utterance.

  Args:
    count: how many.
    bins: width of the spectra.
    seed: of spectra and utterances.
  """
  draw = np.random.default_rng([seed, zlib.crc32(b'spectra')])
  spectra = 2 * draw.standard_normal((len(CLASSES) + 1, bins)).astype(
    np.float32
  )
  spectra[SILENCE] -= 6
  made = []
  for i in range(count):
    draw = np.random.default_rng([seed, i])
    phones = draw.integers(len(PHONES), size=draw.integers(6, 13))
    order = (STATES * phones[:, None] + np.arange(STATES)).reshape(-1)
    order = np.concatenate([[SILENCE], order, [SILENCE]])
    states = order.repeat(draw.integers(2, 7, len(order)))
    clear = spectra[states]
    blurred = (np.roll(clear, 1, 0) + 2 * clear + np.roll(clear, -1, 0)) / 4
    noise = draw.standard_normal(clear.shape) + draw.normal(0, 0.5)
    features = (blurred + noise).astype(np.float32)
    text = ' '.join(PHONES[phone] for phone in phones)
    empty = np.zeros(0, np.float32)
    made.append(Utterance(text, features, states.astype(np.int16), empty))
  return made


# Splits, noise and windows.


def splits(
  utterances: Sequence[Utterance], test: float, validation: float, seed: int
) -> dict[str, list[int]]:
  """Which utterances are in which split; those of one text stay together.

  Args:
    utterances: all.
    test: share of the texts.
    validation: share of the texts; 0 for no such split.
    seed: texts are shared out in the order of a hash of this and the text.

  Returns:
    Split -> numbers of utterances, in order.

  Raises:
    UserError: shares that leave a split empty.
  """

  def place(text: str) -> str:
    return hashlib.sha256(f'{seed} {text}'.encode()).hexdigest()

  texts = sorted({utterance.text for utterance in utterances}, key=place)
  sizes = {}
  for name, share in (('test', test), ('validation', validation)):
    sizes[name] = round(share * len(texts)) if 0 <= share < 1 else 0
    if not sizes[name] and (name == 'test' or share):
      raise UserError(
        f'data.kw.{name}: {share} of {len(texts)} texts leaves none for '
        f'{name}; give a share such as 0.1'
      )
  if sum(sizes.values()) >= len(texts):
    raise UserError(
      f'data.kw.test: {test} for the test and {validation} for validation '
      'leave none to train on; use less'
    )
  sizes['train'] = len(texts)  # the rest
  rest, split_of = iter(texts), {}
  for name, size in sizes.items():
    split_of |= dict.fromkeys(itertools.islice(rest, size), name)
  numbers = range(len(utterances))
  found = {
    name: [i for i in numbers if split_of[utterances[i].text] == name]
    for name in ('train', 'validation', 'test')
  }
  return {name: part for name, part in found.items() if part}


def windows(
  utterances: Sequence[Utterance],
  parts: dict[str, list[int]],
  context: int,
  *,
  noise: tuple[float, ...] = (),
  talkers: int = 1,
  seed: int = 0,
) -> dict[str, Frames]:
  """The frames of each split that are of a phone, each with those around it.

  Beyond its ends an utterance goes on as it begins and ends. Each band has mean
  0 and variance 1 over the training utterances, without noise.

  Args:
    utterances: all.
    parts: split -> numbers of utterances, from `splits`.
    context: how many frames make an input, an odd number.
    noise: the range of the ratio of signal to noise, in dB; empty for none.
    talkers: how many others are heard in the noise.
    seed: of the noise.
  """
  train = np.concatenate([utterances[i].features for i in parts['train']])
  mean, std = train.mean(axis=0), train.std(axis=0) + _STD
  # Those of one text are one utterance for `data.unit`, so that none of its
  # frames are where another's are not.
  first = {u.text: i for i, u in reversed([*enumerate(utterances)])}
  made = {}
  for split, numbers in parts.items():
    own = [utterances[i] for i in numbers]
    heard = [[(u.features - mean) / std for u in own]]
    if noise:
      mixed = _noisy(own, noise, talkers, seed)
      heard.append([(features - mean) / std for features in mixed])
    found = []
    for utterance, *channels in zip(own, *heard, strict=True):
      spectrum = np.stack(channels, axis=-1) if noise else channels[0]
      at = np.flatnonzero(utterance.states != SILENCE)
      found.append(
        Frames(
          _surrounded(spectrum.astype(np.float32), context)[at],
          utterance.states[at].astype(np.int32),
          np.full(len(at), first[utterance.text], np.int32),
        )
      )
    made[split] = Frames(*map(np.concatenate, zip(*found, strict=True)))
  return made


def _surrounded(spectrum: np.ndarray, context: int) -> np.ndarray:
  """Each frame and its neighbours, [frames, context, ...]."""
  last = len(spectrum) - 1
  at = np.arange(len(spectrum))[:, None] + np.arange(context) - context // 2
  return spectrum[at.clip(0, last)]


def _noisy(
  utterances: Sequence[Utterance],
  noise: tuple[float, ...],
  talkers: int,
  seed: int,
) -> list[np.ndarray]:
  """The features of utterances in the babble of others, played backwards.

  Waves are added where there are any, and energies otherwise.
  """
  made = []
  for i, own in enumerate(utterances):
    draw = np.random.default_rng([seed, zlib.crc32(own.text.encode()), i])
    others = draw.choice(len(utterances) - 1, talkers, replace=False)
    babble = [utterances[j + (j >= i)] for j in others]
    below = 10 ** (-draw.uniform(*noise) / 10)  # of the power
    if len(own.wave):
      added = sum(_backwards(u.wave, len(own.wave), draw) for u in babble)
      power = np.square(own.wave).mean() / np.square(added).mean()
      mixed = own.wave + np.sqrt(below * power) * added
      features = audio.log_mel(mixed, own.features.shape[1], RATE)
    else:
      signal = np.exp(own.features)
      added = sum(
        _backwards(np.exp(u.features), len(signal), draw) for u in babble
      )
      features = np.log(signal + below * signal.mean() / added.mean() * added)
    made.append(features[: len(own.features)])
  return made


def _backwards(
  sound: np.ndarray, length: int, draw: np.random.Generator
) -> np.ndarray:
  """A sound in reverse, from anywhere in it on, over and over."""
  start = draw.integers(len(sound))
  return np.take(sound[::-1], np.arange(start, start + length), 0, mode='wrap')
