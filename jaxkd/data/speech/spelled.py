"""Sentences of made-up words, spelled in sound: speech without any recording.

Each letter is a fixed random pattern of features, held for a random time and
under noise, so that a net has to find where letters begin. It needs no sound,
voice or package, and says nothing about speech.
"""

import numpy as np

from jaxkd.data.speech.utterances import Utterance
from jaxkd.errors import UserError

SHORTEST, LONGEST = 2, 5  # frames of a letter
LETTERS = 'abcdefghijklmnopqrstuvwxyz'
_LEAST, _MOST = 2, 5  # letters of a word


def make(
  count: int,
  *,
  words: int,
  most: int,
  letters: int,
  bins: int,
  noise: float,
  seed: int,
) -> list[Utterance]:
  """Utterances whose sentences all differ.

  Args:
    count: how many.
    words: how many words there are.
    most: words of a sentence, at most.
    letters: how many letters there are.
    bins: features of a frame.
    noise: its standard deviation; patterns have the deviation 1.
    seed: of words, patterns, sentences, times and noise.

  Raises:
    UserError: options that leave too few words or sentences, or odd ones.
  """
  given = {'words': words, 'most': most, 'letters': letters, 'bins': bins}
  for option, value in given.items():
    if value < 1 + (option == 'letters'):
      raise UserError(f'data.kw.{option}: {value} is too few')
  if letters > len(LETTERS) or noise < 0 or seed < 0:
    raise UserError(
      f'data.kw: spelled cannot be of {letters} letters with noise {noise} and '
      f'seed {seed}; use up to {len(LETTERS)} letters, and 0 or more for '
      'the others'
    )
  if words > letters**_LEAST:
    raise UserError(
      f'data.kw.words: {words} are more than {letters} letters make easily; '
      f'use up to {letters**_LEAST}'
    )
  if count > (words**most) // 2:
    raise UserError(
      f'data.kw: {count} sentences that differ are too many for {most} of '
      f'{words} words; raise words or most'
    )
  random = np.random.default_rng(seed)
  patterns = random.normal(size=(letters + 1, bins))  # the last is the space
  known = {}
  while len(known) < words:
    size = random.integers(_LEAST, _MOST + 1)
    known[''.join(LETTERS[i] for i in random.integers(letters, size=size))] = 0
  lexicon, said = [*known], {}
  while len(said) < count:
    size = random.integers(1, most + 1)
    said[' '.join(lexicon[i] for i in random.integers(words, size=size))] = 0
  return [
    _spelled(text, patterns, noise, np.random.default_rng((seed, i)), i)
    for i, text in enumerate(said)
  ]


def _spelled(text, patterns, noise, random, number):
  held = [LETTERS.find(x) for x in text]  # -1 for a space, the last pattern
  times = random.integers(SHORTEST, LONGEST + 1, size=len(held))
  frames = np.repeat(patterns[held], times, axis=0)
  frames = frames + noise * random.normal(size=frames.shape)
  frames = frames.astype(np.float32)
  return Utterance(f'sentence {number}', text, len(frames), lambda: frames)
