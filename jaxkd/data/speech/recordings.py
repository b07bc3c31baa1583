"""Recorded speech with transcripts: from folders, lists of files, and TFDS."""

import csv
import functools
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd import lookup
from jaxkd.data import folders
from jaxkd.data.speech import audio
from jaxkd.data.speech.utterances import Utterance, standardized
from jaxkd.errors import UserError, unknown

RATE = 16_000  # samples a second, which sounds are converted to
# Columns of a list, by their usual names.
_SOUND = 'audio', 'path', 'file', 'audio_filepath', 'wav'
_TEXT = 'text', 'transcript', 'sentence', 'transcription'
_SPEAKER = 'speaker', 'speaker_id', 'client_id'
_READER = re.compile(r'(\d+)-\d+\.trans\.txt')  # reader and chapter
_LISTS = '.csv', '.tsv', '.jsonl'
_FRAME, _SHIFT = 0.025, 0.01  # seconds
_UNKNOWN = 2**30  # samples from which on a header does not know the length
_LOOKED_AT = 256  # sounds of which it is known how they were converted

Lines = Iterator[tuple[Path, str, str]]  # sounds, what is said, by whom


def read(
  root: Path, parts: Mapping[str, Sequence[str]], *, bins: int
) -> tuple[dict[str, list[Utterance]], tuple[str, ...]]:
  """The utterances of each split; sounds are read when their frames are.

  A part of a split is a folder, or a list of files. A folder has LibriSpeech's
  layout, ``*.trans.txt`` at any depth with lines of a name and what is said, a
  single list of files, or sounds with a text of the same name beside each. A
  list is CSV or TSV with a header, or JSON lines. Its columns are ``audio`` and
  ``text``, or have other usual names, and paths are relative to its folder. A
  column ``speaker`` says who speaks; in LibriSpeech's layout names of files do.

  Args:
    root: the folder of the parts.
    parts: split -> names of its folders, or of its lists without their endings;
      empty for those called as `jaxkd.data.folders` has them.
    bins: bands of the log-Mel features.

  Returns:
    Split -> utterances, and sentences for the row on how sounds were
    converted.

  Raises:
    UserError: parts, files or columns that are missing, or damaged ones.
  """
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  known = {
    path.name if path.is_dir() else path.stem: path
    for path in folders.listed(root)
    if path.is_dir() or path.suffix in _LISTS
  }
  if not parts:
    named = folders.splits(known, where=str(root))
    parts = {split: (own,) for split, own in named.items()}
  for split in parts:
    if split not in folders.SPLITS:
      raise unknown('split', split, folders.SPLITS, 'data.kw.parts')
  found, sounds = {}, []
  for split, names in parts.items():
    found[split] = []
    for name in [names] if isinstance(names, str) else names:
      if name not in known:
        raise unknown(f'part in {root}', name, known, f'data.kw.parts.{split}')
      lines = [*_lines(known[name])]
      if not lines:
        raise UserError(
          f'data.source: {known[name]} has no transcript: it holds neither '
          '*.trans.txt, nor a list of files, nor sounds with a .txt of the '
          'same name beside each'
        )
      found[split] += [_of_file(*line, bins) for line in lines]
      sounds += [path for path, *_ in lines]
  for split in ('train', 'test'):
    if split not in found:
      raise UserError(
        f'data.source: {root} has no part for {split}; call a folder or list '
        f'{split}, or name its parts in data.kw.parts.{split}'
      )
  return found, _converted(sounds)


def prepared(
  builder: Any, parts: Mapping[str, Sequence[str]], *, bins: int
) -> dict[str, list[Utterance]]:
  """The utterances of a data set that TFDS has prepared, such as librispeech.

  Args:
    builder: from `jaxkd.data.prepared.find`; it has the features ``speech`` or
      ``audio``, and ``text``.
    parts: split -> TFDS's names of its parts; empty for splits that are called
      as ours.
    bins: bands of the log-Mel features.

  Raises:
    UserError: features or parts that are missing.
  """
  features = builder.info.features
  sound = next((name for name in ('speech', 'audio') if name in features), '')
  if not sound or 'text' not in features:
    raise UserError(
      f'data.source: {builder.info.name} has {", ".join(features)}, not speech '
      'and text'
    )
  known = builder.info.splits
  if not parts:
    named = folders.splits(known, where=builder.info.name)
    parts = {split: (own,) for split, own in named.items()}
  rate = getattr(features[sound], 'sample_rate', None) or RATE
  found = {}
  for split, names in parts.items():
    if split not in folders.SPLITS:
      raise unknown('split', split, folders.SPLITS, 'data.kw.parts')
    found[split] = []
    for name in [names] if isinstance(names, str) else names:
      if name not in known:
        raise unknown('split', name, known, f'data.kw.parts.{split}')
      records = builder.as_data_source(name)
      for i in range(len(records)):
        record = records[i]
        where = f'example {i} of {name}'
        get = functools.partial(_record, records, i, sound)
        size = len(record[sound])
        found[split].append(
          Utterance(
            where,
            record['text'].decode(),
            frames_of(size, rate),
            functools.partial(_features, get, bins, rate, where),
            str(record.get('speaker_id', '')),
          )
        )
  return found


def frames_of(samples: int, rate: int = RATE) -> int:
  """How many frames `jaxkd.data.speech.audio.log_mel` makes of a wave."""
  length, shift = round(_FRAME * rate), round(_SHIFT * rate)
  return max(0, 1 + (samples - length) // shift)


def features(wave: np.ndarray, bins: int, name: str, rate: int = RATE):
  """Log-Mel features with the mean 0 and the deviation 1, [frames, bins]."""
  found = audio.log_mel(wave, bins, rate, name=name)
  return standardized(found).astype(np.float32)


def _features(get: Callable[[], np.ndarray], bins: int, rate: int, name: str):
  return features(get(), bins, name, rate)


def _record(records: Any, number: int, sound: str) -> np.ndarray:
  """The wave of a record: floats, or integers of 16 bits; mono."""
  wave = records[number][sound]
  scale = 2**15 if wave.dtype.kind in 'iu' else 1
  wave = wave.astype(np.float32) / scale
  return wave.mean(axis=1) if wave.ndim > 1 else wave


def _converted(paths: Sequence[Path]) -> tuple[str, ...]:
  """How sounds are converted, by some of them from all over the data."""
  chosen = np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_AT))
  looked_at = [audio.load(paths[i], RATE) for i in chosen.astype(int)]
  return audio.notes([own._replace(wave=np.zeros(0)) for own in looked_at])


def _of_file(path: Path, text: str, speaker: str, bins: int) -> Utterance:
  if not path.is_file():
    raise UserError(f'data.source: there is no sound file {path}')
  get = functools.partial(audio.read, path, RATE)
  read = functools.partial(_features, get, bins, RATE, str(path))
  return Utterance(str(path), text, frames_of(_samples(path)), read, speaker)


def _samples(path: Path) -> int:
  """How many samples of `RATE` a file has, by its header where that tells."""
  soundfile = lookup.package('soundfile', extra='speech', at='data.source')
  try:
    info = soundfile.info(str(path))
  except soundfile.LibsndfileError:
    info = None  # it is for another library, or damaged
  if info is None or not 0 < info.frames < _UNKNOWN:
    return len(audio.read(path, RATE))
  return math.ceil(info.frames * RATE / info.samplerate)


def _lines(part: Path) -> Lines:
  """The sounds of a part, and what is said in them."""
  if part.is_file():
    yield from _listed(part)
    return
  files = [*folders.below(part)]
  transcripts = [file for file in files if file.name.endswith('.trans.txt')]
  lists = [file for file in files if file.suffix in _LISTS]
  by_stem: dict[tuple[Path, str], Path] = {}
  for file in files:
    if file.suffix == '.txt' or file in lists:
      continue
    other = by_stem.setdefault((file.parent, file.stem), file)
    if other != file:
      raise UserError(
        f'data.source: {other} and {file.name} have one name, and so one '
        'transcript; remove one'
      )
  if transcripts:
    for file in transcripts:
      reader = _READER.fullmatch(file.name)
      for number, line in enumerate(_text(file).split('\n'), 1):
        name, _, said = line.strip().partition(' ')
        if not name:
          continue
        if (file.parent, name) not in by_stem:
          raise UserError(
            f'data.source: line {number} of {file} is of {name}, and there is '
            'no sound file of that name beside it'
          )
        yield by_stem[file.parent, name], said, reader[1] if reader else ''
  elif len(lists) == 1:
    yield from _listed(lists[0])
  elif lists:
    raise UserError(
      f'data.source: {part} has several lists of files '
      f'({", ".join(file.name for file in lists)}); leave one, or name them in '
      'data.kw.parts'
    )
  else:
    texts = {
      (file.parent, file.stem): file for file in files if file.suffix == '.txt'
    }
    for key, file in texts.items():
      if key not in by_stem:
        raise UserError(
          f'data.source: there is no sound file of the same name beside '
          f'{file}; add it, or remove the text'
        )
    for key, file in by_stem.items():
      if key not in texts:
        raise UserError(
          f'data.source: {file} has no transcript: there is no '
          f'{key[1]}.txt beside it'
        )
      yield file, _text(texts[key]), ''


def _listed(file: Path) -> Lines:
  """The lines of a list of files."""
  text = _text(file)
  if file.suffix == '.jsonl':
    rows = [*_json_lines(text, file)]
  else:
    delimiter = '\t' if file.suffix == '.tsv' else ','
    # Not by lines: what is in quotation marks may have several.
    whole = io.StringIO(text, newline='')
    rows = [*csv.DictReader(whole, delimiter=delimiter)]
  if not rows:
    raise UserError(f'data.source: {file} lists no sound; add some')
  for number, row in enumerate(rows, 1):
    if None in row:  # what is beyond the columns of the header
      raise UserError(
        f'data.source: entry {number} of {file} has more columns than the '
        'header; put a text that has the delimiter in it in quotation marks'
      )
    found = [
      next((row[n] for n in names if isinstance(row.get(n), str)), None)
      for names in (_SOUND, _TEXT)
    ]
    if None in found:
      missing = (_SOUND, _TEXT)[found.index(None)][0]
      raise UserError(
        f'data.source: entry {number} of {file} has no {missing!r} but '
        f'{", ".join(map(repr, row)) or "nothing"}; give each '
        "'audio', the path of a sound file, and 'text', what is said"
      )
    speaker = next(
      (str(row[n]) for n in _SPEAKER if row.get(n) is not None), ''
    )
    yield file.parent / found[0], found[1], speaker


def _json_lines(text: str, file: Path) -> Iterator[dict]:
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise UserError(
        f'data.source: line {number} of {file} is no JSON: {error}'
      ) from error
    yield row if isinstance(row, dict) else {}


def _text(file: Path) -> str:
  try:
    return file.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise UserError(
      f'data.source: {file} is not UTF-8; convert the file'
    ) from error
  except OSError as error:
    raise UserError(
      f'data.source: cannot read {file}: {error.strerror}'
    ) from error
