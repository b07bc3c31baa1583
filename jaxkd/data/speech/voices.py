"""Spoken numbers, dates and times by synthetic voices.

What is said is drawn and put into words by num2words. eSpeak NG speaks it with
accents and variants, each of which is a voice, and Flite with its own voices.
All that is drawn depends on the seed alone, and the features are kept on disk.
"""

import datetime
import functools
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxkd import lookup
from jaxkd.data import file_cache, passes
from jaxkd.data.speech import audio, recordings
from jaxkd.data.speech.utterances import Utterance
from jaxkd.errors import UserError

ACCENTS = (
  *('en-us', 'en-gb', 'en-gb-scotland', 'en-gb-x-gbclan', 'en-gb-x-rp'),
  *('en-gb-x-gbcwmd', 'en-029'),
)
VARIANTS = ('m1', 'm3', 'm7', 'f1', 'f2', 'f4')
FLITE = ('kal', 'awb', 'rms', 'slt')
ALPHABET = 'abcdefghijklmnopqrstuvwxyz '
INSTALL = 'apt-get install espeak-ng flite'
CACHE = Path('~/.cache/jaxkd/voices')
_SPEEDS = 140, 190  # words a minute
_FIRST, _LAST = datetime.date(1900, 1, 1), datetime.date(2050, 1, 1)
_MONTHS = (
  *('january', 'february', 'march', 'april', 'may', 'june', 'july'),
  *('august', 'september', 'october', 'november', 'december'),
)
_DAYS = (
  *('monday', 'tuesday', 'wednesday', 'thursday', 'friday'),
  *('saturday', 'sunday'),
)
MOST = 12_000  # utterances: there are few more times of a week
_VERSION = 1  # of what is made; another one is made anew


class Voice(NamedTuple):
  """Somebody who speaks.

  Attributes:
    program: 'espeak-ng' or 'flite'.
    name: as the program knows it.
  """

  program: str
  name: str

  def __str__(self) -> str:
    return f'{self.program} {self.name}'


VOICES = (
  *(Voice('espeak-ng', f'{a}+{v}') for a in ACCENTS for v in VARIANTS),
  *(Voice('flite', name) for name in FLITE),
)


class _Spoken(NamedTuple):
  """What a voice is to say, and how fast."""

  voice: Voice
  text: str
  speed: int


def make(
  counts: dict[str, int], *, bins: int, seed: int, heard_in_test: int
) -> tuple[dict[str, list[Utterance]], tuple[str, ...]]:
  """Utterances of each split, and notes on who speaks.

  All that is said differs, within and between splits. The voices of the test
  are heard nowhere else.

  Args:
    counts: split -> number of utterances.
    bins: bands of the log-Mel features.
    seed: of what is said, by whom and how fast.
    heard_in_test: how many of the voices are for the test.

  Raises:
    UserError: a program or package that is not installed.
  """
  if not 1 <= heard_in_test < len(VOICES):
    raise UserError(
      f'data.kw.held_out: {heard_in_test} should be from 1 to '
      f'{len(VOICES) - 1}, as there are {len(VOICES)} voices'
    )
  draw = random.Random(seed)
  order = draw.sample(VOICES, len(VOICES))
  who = {
    split: sorted(
      order[:heard_in_test] if split == 'test' else order[heard_in_test:]
    )
    for split in counts
  }
  said = sentences(sum(counts.values()), draw)
  spoken = {}
  for split, count in counts.items():
    own, said = said[:count], said[count:]
    spoken[split] = [
      _Spoken(draw.choice(who[split]), text, draw.randint(*_SPEEDS))
      for text in own
    ]
  every = [one for own in spoken.values() for one in own]
  key = file_cache.key((), _VERSION, bins, every)
  kept = file_cache.arrays(CACHE / f'{key}.npz', lambda: _features(every, bins))
  starts = np.concatenate([[0], np.cumsum(kept['lengths'])])
  found, number = {}, 0
  for split, own in spoken.items():
    found[split] = []
    for one in own:
      frames = kept['frames'][starts[number] : starts[number + 1]]
      found[split].append(
        Utterance(f'{one.text!r} by {one.voice}', one.text, len(frames),
                  lambda frames=frames: frames.astype(np.float32))
      )  # fmt: skip
      number += 1
  heard = ', '.join(map(str, who.get('test', ())))
  notes = (
    f'{len(VOICES) - heard_in_test} synthetic voices in training; '
    f'{heard_in_test} others in the test: {heard}',
  )
  return found, notes


def sentences(count: int, draw: random.Random) -> list[str]:
  """Different numbers, dates and times in words, of small letters alone.

  Args:
    count: how many.
    draw: what draws them.

  Raises:
    UserError: the package num2words is not installed.
  """
  package = lookup.package('num2words', extra='speech', at='data.source')
  found = {}
  while len(found) < count:
    kind = (_number, _day, _time)[len(found) % 3]
    said = kind(draw, package.num2words)
    said = ' '.join(re.sub(f'[^{ALPHABET}]', ' ', said.lower()).split())
    found[said] = None
  return [*found]


def _number(draw: random.Random, words: Callable) -> str:
  return words(int(10 ** draw.uniform(0, 6)))


def _day(draw: random.Random, words: Callable) -> str:
  day = datetime.date.fromordinal(
    draw.randrange(_FIRST.toordinal(), _LAST.toordinal())
  )
  month = _MONTHS[day.month - 1]
  year = words(day.year, to='year')
  if draw.random() < 0.5:
    return f'{month} {words(day.day, to="ordinal")} {year}'
  return f'the {words(day.day, to="ordinal")} of {month} {year}'


def _time(draw: random.Random, words: Callable) -> str:
  """A day of the week and a time."""
  hour, minute = draw.randrange(1, 13), draw.randrange(60)
  day = draw.choice(_DAYS)
  if not minute:
    clock = f'{words(hour)} o clock'
  else:
    clock = f'{words(hour)} {"oh " if minute < 10 else ""}{words(minute)}'
  return f'{day} at {clock}'


def _features(every: list[_Spoken], bins: int) -> dict[str, np.ndarray]:
  """Speaks, and keeps half-precision features one after another."""
  for voice in sorted({one.voice for one in every}):
    if not shutil.which(voice.program):
      raise UserError(
        f'data.source: the program {voice.program} is not installed; {INSTALL}'
      )
    # Both speak with another voice where they do not have one.
    if missing := {*_named(voice)} - _known(voice.program):
      raise UserError(
        f'data.source: {voice.program} has no voice {min(missing)!r} here; '
        'install the one of Debian'
      )
  with tempfile.TemporaryDirectory() as folder:

    def spoken(numbers):
      return [
        _speak(every[i], Path(folder) / f'{i}.wav', bins) for i in numbers
      ]

    read = passes.read(spoken, passes.parts(len(every), 0, 'speaking', 64))
    found = [frames for _, several in read for frames in several]
  return {
    'frames': np.concatenate(found).astype(np.float16),
    'lengths': np.array([len(frames) for frames in found]),
  }


def _named(voice: Voice) -> list[str]:
  """The accent and the variant of a voice."""
  return voice.name.split('+')


@functools.cache
def _known(program: str) -> set[str]:
  """The voices, accents and variants that a program has."""

  def asked(*command):
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.split()

  if program == 'flite':
    return {*asked('flite', '-lv')}
  variants = asked('espeak-ng', '--voices=variant')
  accents = asked('espeak-ng', '--voices=en')
  return {*accents, *(word.removeprefix('!v/') for word in variants)}


def _speak(one: _Spoken, path: Path, bins: int) -> np.ndarray:
  """The features of what a voice says."""
  if one.voice.program == 'flite':
    stretch = np.mean(_SPEEDS) / one.speed
    command = ['flite', '-voice', one.voice.name, '--setf',
               f'duration_stretch={stretch:.3f}', '-t', one.text, '-o',
               str(path)]  # fmt: skip
  else:
    # To a file, since what it writes to a pipe has no length.
    command = ['espeak-ng', '-v', one.voice.name, '-s', str(one.speed), '-w',
               str(path), one.text]  # fmt: skip
  # In a session of its own, where what interrupts the run does not end it; and
  # once more if that came before the session began.
  for _ in range(2):
    ran = subprocess.run(
      command,
      capture_output=True,
      text=True,
      check=False,
      start_new_session=True,
    )
    if ran.returncode >= 0:
      break
  if ran.returncode or not path.is_file():
    raise UserError(
      f'data.source: {one.voice} cannot say {one.text!r}: '
      f'{ran.stderr.strip() or "it wrote no sound"}; {INSTALL}'
    )
  wave = audio.read(path, recordings.RATE)
  path.unlink()
  return recordings.features(wave, bins, str(one.voice))
