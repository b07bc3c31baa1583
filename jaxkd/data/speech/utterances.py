"""Utterances with their transcripts, as padded frames and tokens."""

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxkd.data.examples import Examples, StreamedExamples, held
from jaxkd.data.text import tokenizer
from jaxkd.data.text.tokens import EOS, PAD, UNK, shifted
from jaxkd.errors import UserError

# What `PAD`, `UNK`, `BOS` and `EOS` are called, as SentencePiece has it.
_SPECIAL = '<pad>', '<unk>', '<s>', '</s>'
TOO_LONG = 'refuse', 'drop'


class Utterance(NamedTuple):
  """Something that is said.

  Attributes:
    name: where it is from, for errors.
    text: what is said.
    count: the number of its frames.
    read: gives its frames, float32 [count, D].
    speaker: whose voice it is; empty where that is not known.
  """

  name: str
  text: str
  count: int
  read: Callable[[], np.ndarray]
  speaker: str = ''


class Spoken(NamedTuple):
  """Splits of utterances.

  Attributes:
    splits: examples with the inputs ``source``, a dict of ``frames`` [N, F, D]
      and ``valid`` [N, F], which of them are more than padding, and ``prefix``,
      what comes before each token of the transcript; with ``labels``, its
      tokens and `EOS`; and with ``valid``, where the labels are not `PAD`; both
      [N, length]. Where all speakers are known, ``speaker`` numbers them, [N].
    pieces: what each token stands for.
    notes: sentences about the data, for the row.
  """

  splits: dict[str, Examples]
  pieces: tuple[str, ...]
  notes: tuple[str, ...]


def assembled(
  splits: Mapping[str, Sequence[Utterance]],
  *,
  vocabulary: int,
  length: int,
  frames: int,
  too_long: str,
  name: str,
  alphabet: str = '',
  is_held_out: bool = False,
) -> Spoken:
  """Tokenises transcripts, and pads frames and tokens.

  Args:
    splits: 'train' and others.
    vocabulary: number of pieces, learnt from ``train``; 0 for characters.
    length: the most tokens of a transcript, with `EOS`; 0 for the longest one.
    frames: the most frames of an utterance; 0 for the longest one.
    too_long: what to do with longer ones: 'refuse' for an error, or 'drop'.
    name: of the source, for errors.
    alphabet: characters that there may be, where tokens are characters; those
      of ``train`` by default.
    is_held_out: whether validation was taken from ``train``, for errors.

  Raises:
    UserError: invalid options, transcripts that are empty, too long, longer
      than their utterances, of characters that ``train`` does not have, or
      another text as pieces, or utterances without a frame.
  """
  for option, value in (('length', length), ('frames', frames)):
    if value < 0 or value == 1:
      raise UserError(
        f'data.kw.{option}: {value} should be 2 or more, or 0 for that of the '
        'longest utterance'
      )
  if too_long not in TOO_LONG:
    raise UserError(
      f'data.kw.too_long: {too_long!r} should be one of {", ".join(TOO_LONG)}'
    )
  splits = {
    split: [own._replace(text=' '.join(own.text.split())) for own in utterances]
    for split, utterances in splits.items()
  }
  for split, utterances in splits.items():
    for own in utterances:
      _check_there(own, split, name)
  lines = [own.text for own in splits['train']]
  encode, pieces, known = _tokenizer(lines, vocabulary, alphabet)
  tokens, notes = {}, []
  for split, utterances in splits.items():
    _check_known(utterances, known, split, name, is_held_out)
    tokens[split] = [
      [*line, EOS] for line in encode([own.text for own in utterances])
    ]
    for own, line in zip(utterances, tokens[split], strict=True):
      _check_written(own, line, pieces, split, name)
      _check_fits(own, line[:-1], split, name)
  most = {
    'length': length or max(len(x) for own in tokens.values() for x in own),
    'frames': frames or max(x.count for own in splits.values() for x in own),
  }
  speakers = _numbers(splits)
  made = {}
  for split, utterances in splits.items():
    sizes = {
      'length': np.array([len(line) for line in tokens[split]]),
      'frames': np.array([own.count for own in utterances]),
    }
    for option, unit in (('length', 'tokens'), ('frames', 'frames')):
      long = sizes[option] > most[option]
      if long.any() and too_long == 'refuse':
        raise UserError(
          f'data.kw.{option}: {long.sum():,} of the {len(long):,} utterances '
          f'in {split} of {name!r} have more than {most[option]} {unit}, the '
          f'longest {sizes[option].max()}; raise it, or set '
          "data.kw.too_long='drop'"
        )
      if long.any():
        notes.append(
          f'{long.sum():,} of the {len(long):,} utterances in {split} have '
          f'more than {most[option]} {unit} and are left out'
        )
    kept = np.flatnonzero(
      (sizes['length'] <= most['length']) & (sizes['frames'] <= most['frames'])
    )
    if not len(kept):
      raise UserError(
        f'data.kw.too_long: no utterance in {split} of {name!r} is short '
        'enough, and all are left out; raise data.kw.length or data.kw.frames'
      )
    made[split] = _examples(
      [utterances[i] for i in kept],
      [tokens[split][i] for i in kept],
      most['length'],
      most['frames'],
      speakers,
    )
  notes += [*_seen(splits), *_heard(splits), *_unknown(splits)]
  return Spoken(made, pieces, tuple(notes))


def hold_out(
  utterances: Sequence[Utterance], size: int
) -> tuple[list[Utterance], list[Utterance]]:
  """Splits off ``size`` utterances or a few more: (rest, chosen).

  All utterances of a transcript stay together, so that none is in both; always
  the same are chosen.
  """
  counts = sorted(collections.Counter(x.text for x in utterances).items())
  order = np.random.default_rng(0).permutation(len(counts))
  before = np.cumsum([0, *(counts[i][1] for i in order)])[:-1]
  chosen = {counts[i][0] for i in order[before < size]}
  rest = [own for own in utterances if own.text not in chosen]
  return rest, [own for own in utterances if own.text in chosen]


def standardized(frames: np.ndarray) -> np.ndarray:
  """Frames with the mean 0 and the deviation 1 of each feature.

  Args:
    frames: of one utterance, [F, D].
  """
  frames = frames.astype(np.float64)
  deviation = frames.std(axis=0)
  # What is nearly constant, as in digital silence, is rounding and no sound.
  scale = np.where(deviation > 1e-3, deviation, 1)
  return (frames - frames.mean(axis=0)) / scale


def _tokenizer(lines, vocabulary, alphabet):
  """What gives the tokens of lines, what they stand for, known characters."""
  if vocabulary:
    learnt = tokenizer.learn(lines, vocabulary, normalize=False)
    return learnt.encode, learnt.pieces, {*''.join(lines), ' '}
  known = {*(alphabet or ''.join(lines)), ' '}
  pieces = *_SPECIAL, *sorted(x.replace(' ', tokenizer.SPACE) for x in known)
  number = {piece: i for i, piece in enumerate(pieces)}

  def encode(lines):
    return [
      [number[x] for x in line.replace(' ', tokenizer.SPACE)] for line in lines
    ]

  return encode, pieces, known


def _numbers(splits):
  """Speaker -> number; empty where some are not known."""
  names = {own.speaker for utterances in splits.values() for own in utterances}
  return {} if '' in names else {x: i for i, x in enumerate(sorted(names))}


def _heard(splits):
  """A sentence on speakers who are heard in training and in the test."""
  train, test = (
    {own.speaker for own in splits.get(split, ())} - {''}
    for split in ('train', 'test')
  )
  if both := train & test:
    yield (
      f'{len(both):,} of the {len(test):,} speakers in test are in train too'
    )


def _unknown(splits):
  known = [bool(own.speaker) for part in splits.values() for own in part]
  if any(known) and not all(known):
    yield (
      f'the speakers of {known.count(False):,} of the {len(known):,} '
      'utterances are not known, so that there is no field speaker'
    )


def _examples(utterances, tokens, length, most, speakers):
  labels = np.full((len(tokens), length), PAD, np.int32)
  for row, line in zip(labels, tokens, strict=True):
    row[: len(line)] = line

  whose = {}
  if speakers:
    whose['speaker'] = np.array(
      [speakers[own.speaker] for own in utterances], np.int32
    )

  def read_labels(numbers):
    own = labels[numbers]
    more = {name: x[numbers] for name, x in whose.items()}
    return {'labels': own, 'valid': own != PAD, **more}

  def read(numbers):
    found = [utterances[i].read() for i in numbers]
    frames = np.zeros((len(found), most, found[0].shape[1]), np.float32)
    for row, own in zip(frames, found, strict=True):
      row[: len(own)] = own[:most]
    counts = np.array([len(own) for own in found])
    source = {'frames': frames, 'valid': np.arange(most) < counts[:, None]}
    made = read_labels(numbers)
    inputs = {'source': source, 'prefix': shifted(made['labels'])}
    return {'inputs': inputs, **made}

  return held(StreamedExamples(len(tokens), read, read_labels=read_labels))


def _check_there(own, split, name):
  if not any(x.isprintable() and not x.isspace() for x in own.text):
    raise UserError(
      f'data.source: the transcript of {own.name} in {split} of {name!r} is '
      'empty; remove the utterance'
    )
  if tokenizer.SPACE in own.text:
    raise UserError(
      f'data.source: the transcript of {own.name} in {split} of {name!r} has '
      f'the character {tokenizer.SPACE!r}, which stands for a space; replace it'
    )
  if own.count < 1:
    raise UserError(
      f'data.source: the sound of {own.name} in {split} of {name!r} is shorter '
      'than one frame; remove the utterance'
    )


def _check_known(utterances, known, split, name, is_held_out):
  held = ''
  if is_held_out and split == 'validation':
    held = ' (data.kw.validation holds it out of train)'
  for own in utterances:
    for x in own.text:
      if x not in known:
        raise UserError(
          f'data.source: the transcript of {own.name} in {split} of {name!r} '
          f'has the character {x!r}, which no transcript in train has{held}; '
          'write it otherwise, or leave the utterance out'
        )


def _check_written(own, tokens, pieces, split, name):
  """Refuses what is another text as tokens, such as '<s>' of SentencePiece."""
  written = tokenizer.text(tokens, pieces)
  if UNK in tokens or written != own.text:
    raise UserError(
      f'data.kw.vocabulary: pieces cannot write the transcript {own.text!r} of '
      f'{own.name} in {split} of {name!r}, and make {written!r} of it; write '
      'it otherwise, or use 0, for characters'
    )


def _check_fits(own, tokens, split, name):
  """Refuses what cannot be aligned: `jaxkd.losses.ctc` would be infinite."""
  again = sum(a == b for a, b in itertools.pairwise(tokens))
  if own.count < len(tokens) + again:
    raise UserError(
      f'data.source: {own.name} in {split} of {name!r} has {own.count} frames, '
      f'too few for the {len(tokens) + again} tokens and blanks of its '
      'transcript; correct the transcript, or remove the utterance'
    )


def _seen(splits):
  known = {own.text for own in splits['train']}
  for split, utterances in splits.items():
    again = sum(own.text in known for own in utterances)
    if split != 'train' and again:
      yield (
        f'{again:,} of the {len(utterances):,} transcripts in {split} are in '
        'train too'
      )
