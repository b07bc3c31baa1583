"""Sources of speech: its frames, and utterances with their transcripts."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from jaxkd.data import conventions as conventions_lib
from jaxkd.data import labels as labels_lib
from jaxkd.data import prepared
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.source import (
  Source,
  held_out_size,
  make_source,
  place,
  with_validation,
)
from jaxkd.data.sources import NAMES
from jaxkd.data.speech import audio
from jaxkd.data.speech import frames as speech_frames_lib
from jaxkd.data.speech import recordings as speech_lib
from jaxkd.data.speech import spelled as spelled_lib
from jaxkd.data.speech import utterances as utterances_lib
from jaxkd.data.speech import voices as voices_lib
from jaxkd.errors import UserError, unknown


def speech_frames(
  *,
  speech: str = 'asterisk',
  utterances: int = 0,
  bins: int = 40,
  context: int = 15,
  noise: tuple[float, ...] = (),
  talkers: int = 3,
  test: float = 0.15,
  validation: float | None = None,
  seed: int = 0,
) -> Source:
  """Frames of speech, each labelled with one of three states of 39 phones.

  Log-Mel features of 10 ms with those around them, of mean 0 and variance 1 in
  each band over the training frames; silence is no class and is left out, see
  `jaxkd.data.speech.frames`. All frames of an utterance, and of all that say
  the same, are in one split. The field ``utterance`` is for ``data.unit``.

  Args:
    speech: 'asterisk', the prompts of Debian's packages, 16 kHz, one speaker;
      or 'made_up', random spectra without meaning.
    utterances: how many; 0 for all, or 60 that are made up.
    bins: number of Mel bands.
    context: how many frames a net sees, an odd number.
    noise: lowest and highest ratio of signal to noise, in dB, as (0.0, 10.0).
      Then an input has two channels, without noise and with it, for the view
      ``channel``; the noise are other utterances of the same split, played
      backwards. Empty for no noise, and no axis of channels.
    talkers: how many are heard in the noise at a time.
    test: share of the texts to test on.
    validation: share of all texts to validate on, 0.1 by default; 0 for no such
      split.
    seed: of the splits, the noise, and what is made up.
  """
  validation = 0.1 if validation is None else validation
  own = speech_frames_lib
  if speech not in own.KINDS:
    raise unknown('kind of speech', speech, own.KINDS, 'data.kw.speech')
  if utterances and utterances < own.FEWEST:
    raise UserError(
      f'data.kw.utterances: {utterances} should be {own.FEWEST} or more, or 0 '
      'for all'
    )
  if context < 1 or context % 2 == 0:
    raise UserError(
      f'data.kw.context: {context} should be odd, for the frame in the middle'
    )
  if speech != 'made_up':
    audio.check_bins(bins)
  if bins < 1 or talkers < 1 or seed < 0:
    raise UserError(
      f'data.kw: speech_frames cannot have {bins} bins, {talkers} talkers and '
      f'seed {seed}'
    )
  if noise and not (
    len(noise) == 2 and np.isfinite(noise).all() and noise[0] <= noise[1]
  ):
    raise UserError(
      f'data.kw.noise: {noise} should be the lowest and the highest ratio of '
      'signal to noise in dB, as in (0.0, 10.0), or () for none'
    )
  if speech == 'made_up':
    said = own.made_up(utterances or own.MADE_UP, bins, seed)
    notes = (f'{len(said)} utterances of made-up speech, without meaning',)
  else:
    said, notes = own.recorded(bins)
    if utterances > len(said):
      raise UserError(
        f'data.kw.utterances: there are {len(said)}, not {utterances}; use 0 '
        'for all'
      )
    said = said[: utterances or None]
  made = own.splits(said, test, validation, seed)
  if noise:
    for split, part in made.items():
      if talkers >= len(part):
        raise UserError(
          f'data.kw.talkers: {talkers} others cannot be heard in {split}, of '
          f'{len(part)} utterances; use fewer, or have more utterances'
        )
    notes += (
      f'channel 1 has noise: {talkers} other utterances of the split, played '
      f'backwards, {noise[0]:g} to {noise[1]:g} dB below',
    )
  frames = own.windows(
    said, made, context, noise=tuple(noise), talkers=talkers, seed=seed
  )
  source = make_source(
    'speech_frames',
    {s: ArrayExamples(**part._asdict()) for s, part in frames.items()},
    None if 'validation' in frames else 0,
    classes=own.CLASSES,
    conventions=conventions_lib.of(range='any', layout='features'),
    unit='utterance',
  )
  counts = (f'{len(part)} utterances in {s}' for s, part in made.items())
  lacking = labels_lib.lacking(source.splits, source.classes)
  return source._replace(notes=(*notes, ', '.join(counts), *lacking))


def spelled(
  *,
  size: int = 2000,
  words: int = 40,
  most: int = 3,
  letters: int = 12,
  bins: int = 16,
  noise: float = 0.5,
  test: int | float = 0.1,
  validation: int | float | None = None,
  seed: int = 0,
) -> Source:
  """Sentences of made-up words; each letter is a pattern of frames.

  A task of transcription without sound, see `jaxkd.data.speech.spelled`. All
  sentences differ, within and between splits, which are 80 : 10 : 10 by
  default.

  Args:
    size: sentences in all.
    words: how many words there are.
    most: words of a sentence, at most.
    letters: how many letters there are.
    bins: features of a frame.
    noise: its standard deviation; patterns have the deviation 1.
    test: how many sentences to test on, or which share.
    validation: how many of the others to validate on, or which share.
    seed: of all that is drawn.
  """
  made = spelled_lib.make(
    size,
    words=words,
    most=most,
    letters=letters,
    bins=bins,
    noise=noise,
    seed=seed,
  )
  out = held_out_size(test, len(made), 'test')
  if not out:
    raise UserError('data.kw.test: 0 sentences leave nothing to test on')
  usual = 1 / 9 if validation is None else validation
  splits = {'train': made[out:], 'test': made[:out]}
  alphabet = spelled_lib.LETTERS[:letters] + ' '
  return _spoken('spelled', splits, usual, alphabet=alphabet)


def speech(
  path: str,
  *,
  dir: str = '',
  parts: Mapping[str, Sequence[str]] = MappingProxyType({}),
  bins: int = 40,
  vocabulary: int = 0,
  length: int = 0,
  frames: int = 0,
  too_long: str = 'refuse',
  validation: int | float | None = None,
) -> Source:
  """Recorded speech and its transcripts, from a folder or from TFDS.

  Sounds are converted to 16,000 samples a second and to log-Mel features every
  10 ms, each of which has the mean 0 and the deviation 1 in an utterance. See
  `jaxkd.data.speech.recordings.read` for what a folder may look like.

  Args:
    path: of the folder, absolute or in ``dir``; or 'tfds:NAME' for a data set
      with the features ``speech`` and ``text`` that TFDS has prepared.
    dir: a folder; of TFDS, its data directory.
    parts: split -> names of the folders, lists or TFDS splits that it has, e.g.
      ``dict(train=('train-clean-100',), test=('test-clean',))``; those called
      train, validation and test by default.
    bins: bands of the features.
    vocabulary: number of pieces, learnt from the training split; 0 for
      characters.
    length: the most tokens of a transcript; 0 for that of the longest.
    frames: the most frames of an utterance; 0 for that of the longest.
    too_long: what becomes of longer utterances: 'refuse' or 'drop'.
    validation: as in `load`.
  """
  audio.check_bins(bins)
  kind, _, called = path.partition(':')
  if kind == 'tfds':
    try:
      builder = prepared.find(called, dir, NAMES)
    except ImportError as error:
      raise UserError(
        f'data.source: TFDS reads the sounds of {called} with TensorFlow alone '
        '(pip install tensorflow); or unpack its files, and write speech:FOLDER'
      ) from error
    splits, notes = speech_lib.prepared(builder, parts, bins=bins), ()
  else:
    splits, notes = speech_lib.read(place(dir, path), parts, bins=bins)
  source = _spoken(
    f'speech:{path}',
    splits,
    validation,
    vocabulary=vocabulary,
    length=length,
    frames=frames,
    too_long=too_long,
  )
  return source._replace(notes=(*notes, *source.notes))


def voices(
  *,
  size: int = 6000,
  bins: int = 40,
  held_out: int = 8,
  vocabulary: int = 120,
  frames: int = 0,
  too_long: str = 'refuse',
  test: int = 600,
  validation: int | None = None,
  seed: int = 0,
) -> Source:
  """Spoken numbers, dates and times by synthetic voices, eSpeak NG and Flite.

  All that is said differs, within and between splits, and so do the voices of
  the test from the others; see `jaxkd.data.speech.voices`. The features are as
  in `speech`, and are kept in ``~/.cache/jaxkd/voices`` in half precision.

  Args:
    size: utterances in all.
    bins: bands of the log-Mel features.
    held_out: how many voices are heard in the test alone.
    vocabulary: number of pieces, learnt from the training split: most are
      words; 0 for characters.
    frames: the most frames of an utterance; 0 for that of the longest. A step
      costs as much as if all were that long.
    too_long: what becomes of longer utterances: 'refuse' or 'drop'.
    test: utterances to test on.
    validation: utterances to validate on, 500 by default.
    seed: of what is said, by whom and how fast.
  """
  audio.check_bins(bins)
  held = 500 if validation is None else validation
  counts = {'train': size - test - held, 'validation': held, 'test': test}
  if min(counts['train'], test) < 1 or held < 0 or size > voices_lib.MOST:
    raise UserError(
      f'data.kw: {size} utterances with {test} to test and {held} to validate '
      f'on cannot be made; use up to {voices_lib.MOST:,}, and leave some to '
      'train on'
    )
  if seed < 0:  # Python draws the same for seeds of either sign
    raise UserError(f'data.kw.seed: {seed} should be 0 or more')
  counts = {split: count for split, count in counts.items() if count}
  splits, notes = voices_lib.make(
    counts, bins=bins, seed=seed, heard_in_test=held_out
  )
  left = None if held else 0
  source = _spoken(
    'voices',
    splits,
    left,
    vocabulary=vocabulary,
    frames=frames,
    too_long=too_long,
    alphabet=voices_lib.ALPHABET,
  )
  return source._replace(notes=(*notes, *source.notes))


def _spoken(
  name: str,
  splits: Mapping[str, Sequence[utterances_lib.Utterance]],
  validation: int | float | None,
  *,
  vocabulary: int = 0,
  length: int = 0,
  frames: int = 0,
  too_long: str = 'refuse',
  alphabet: str = '',
) -> Source:
  """As `make_source`; tokens are learnt after validation is held out."""
  is_held_out = 'validation' not in splits
  splits, validation = with_validation(
    name, splits, validation, utterances_lib.hold_out, 'utterances'
  )
  made = utterances_lib.assembled(
    splits,
    vocabulary=vocabulary,
    length=length,
    frames=frames,
    too_long=too_long,
    name=name,
    alphabet=alphabet,
    is_held_out=is_held_out,
  )
  source = make_source(name, made.splits, validation, classes=made.pieces)
  return source._replace(
    notes=(*made.notes, *source.notes), vocabulary=len(made.pieces)
  )
