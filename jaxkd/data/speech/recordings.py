"""Recorded speech with transcripts: from folders, lists of files, and TFDS."""

import csv
import functools
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxkd import lookup
from jaxkd.data import folders
from jaxkd.data.speech import audio
from jaxkd.data.speech.utterances import Utterance, standardized
from jaxkd.data.text import conversations, text_files
from jaxkd.errors import UserError, unknown

RATE = 16_000  # samples a second, which sounds are converted to
# Columns of a list, by their usual names.
_SOUND = 'audio', 'path', 'file', 'audio_filepath', 'wav'
_TEXT = 'text', 'transcript', 'sentence', 'transcription'
_SPEAKER = 'speaker', 'speaker_id', 'client_id'
_READER = re.compile(r'(\d+)-\d+\.trans\.txt')  # reader and chapter
_NEW_LINE = re.compile(r'\r\n?|\n')
_LISTS = '.csv', '.tsv', '.jsonl'
_FRAME, _SHIFT = 0.025, 0.01  # seconds
_UNKNOWN = 2**30  # samples from which on a header does not know the length
_LOOKED_AT = 256  # sounds of which it is known how they were converted


class _Line(NamedTuple):
  """A sound file and what is said in it.

  Attributes:
    sound: the file.
    text: what is said.
    speaker: by whom; empty where that is not known.
    where: what says so, for errors.
  """

  sound: Path
  text: str
  speaker: str
  where: str


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
    Split -> utterances, and sentences for the row on files that are left out
    and on how sounds were converted.

  Raises:
    UserError: parts, files or columns that are missing, damaged ones, or a
      sound that is there twice.
  """
  if not root.is_dir():
    raise UserError(f'data.source: there is no folder {root}')
  known = {
    path.name if path.is_dir() else path.stem: path
    for path in folders.listed(root)
    if path.is_dir() or path.suffix in _LISTS
  }
  chosen = _chosen(parts, known, f'part in {root}', str(root))
  found, notes, sounds = {}, [], {}
  for split, names in chosen.items():
    found[split] = []
    for name in names:
      lines, said = _lines(known[name])
      notes += said
      for line in lines:
        where = f'{split} ({line.where})'
        # Links, and paths that go up and down, lead to the same file.
        other = sounds.setdefault(os.path.realpath(line.sound), where)
        if other is not where:
          raise UserError(
            f'data.source: the sound {line.sound} is there twice, in {other} '
            f'and in {where}; leave one of them'
          )
        found[split].append(_of_file(line, bins))
  for split in ('train', 'test'):
    if split not in found:
      raise UserError(
        f'data.source: {root} has no part for {split}; call a folder or list '
        f'{split}, or name its parts in data.kw.parts.{split}'
      )
  names = [own.name for part in found.values() for own in part]
  return found, (*notes, *_converted(names))


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
  chosen = _chosen(parts, known, 'split', builder.info.name)
  rate = getattr(features[sound], 'sample_rate', None) or RATE
  found = {}
  for split, names in chosen.items():
    found[split] = []
    for name in names:
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


def _chosen(
  parts: Mapping[str, Sequence[str]],
  known: Collection[str],
  kind: str,
  where: str,
) -> dict[str, tuple[str, ...]]:
  """Split -> names of its parts; each part belongs to one split."""
  if not isinstance(parts, Mapping):
    raise UserError(
      f'data.kw.parts: {parts!r} should be a dict of splits and the names of '
      "their parts, as dict(train=('train-clean-100',), test=('test-clean',))"
    )
  named = parts or folders.splits(known, where)
  found, splits = {}, {}
  for split, names in named.items():
    if split not in folders.SPLITS:
      raise unknown('split', split, folders.SPLITS, 'data.kw.parts')
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not all(
      isinstance(name, str) for name in names
    ):
      raise UserError(
        f'data.kw.parts.{split}: {names!r} should be a list of names'
      )
    for name in names:
      if name not in known:
        raise unknown(kind, name, known, f'data.kw.parts.{split}')
      if name in splits:
        raise UserError(
          f'data.kw.parts: {name!r} is named for {splits[name]} and again for '
          f'{split}; name each part once'
        )
      splits[name] = split
    found[split] = tuple(names)
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


def _converted(paths: Sequence[str]) -> tuple[str, ...]:
  """How sounds are converted, by some of them from all over the data."""
  chosen = np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_AT))
  looked_at = [audio.load(paths[i], RATE) for i in chosen.astype(int)]
  return audio.notes(
    [own._replace(wave=np.zeros(0)) for own in looked_at], of=len(paths)
  )


def _of_file(line: _Line, bins: int) -> Utterance:
  path = line.sound
  get = functools.partial(audio.read, path, RATE)
  read = functools.partial(_features, get, bins, RATE, str(path))
  count = frames_of(_samples(path))
  return Utterance(str(path), line.text, count, read, line.speaker)


def _samples(path: Path) -> int:
  """How many samples of `RATE` a file has, by its header where that tells."""
  soundfile = lookup.package('soundfile', extra='speech', at='data.source')
  try:
    info = soundfile.info(str(path))
  except soundfile.LibsndfileError:
    info = None  # it is for another library, or damaged
  if info is None or not 0 < info.frames < _UNKNOWN:
    return len(audio.read(path, RATE))
  audio.check_rate(info.samplerate, path)
  return math.ceil(info.frames * RATE / info.samplerate)


def _lines(part: Path) -> tuple[list[_Line], list[str]]:
  """The sounds of a part and what is said in them, and sentences on others."""
  if part.is_file():
    return _listed(part), []
  files = [*folders.below(part)]
  transcripts = [file for file in files if file.name.endswith('.trans.txt')]
  lists = [file for file in files if file.suffix in _LISTS]
  texts = {
    (file.parent, file.stem): file for file in files if file.suffix == '.txt'
  }
  sounds: dict[tuple[Path, str], Path] = {}
  for file in files:
    if file.suffix == '.txt' or file in lists:
      continue
    other = sounds.setdefault((file.parent, file.stem), file)
    if other != file:
      raise UserError(
        f'data.source: {other} and {file.name} have one name, and so one '
        'transcript; remove one'
      )
  if transcripts:
    found = [line for file in transcripts for line in _of_reader(file, sounds)]
    said = {line.sound for line in found}
    others = [file for file in sounds.values() if file not in said]
    if not others:
      return found, []
    return found, [
      f'{len(others):,} of the {len(sounds):,} files in {part.name} have no '
      f'line in a *.trans.txt and are left out, such as {others[0].name}'
    ]
  if len(lists) == 1:
    return _listed(lists[0]), []
  if lists:
    raise UserError(
      f'data.source: {part} has several lists of files '
      f'({", ".join(file.name for file in lists)}); leave one, or name them in '
      'data.kw.parts'
    )
  if not files:
    raise UserError(
      f'data.source: {part} has no transcript: it holds neither *.trans.txt, '
      'nor a list of files, nor sounds with a .txt of the same name beside each'
    )
  return [*_beside(sounds, texts)], []


def _of_reader(
  file: Path, sounds: Mapping[tuple[Path, str], Path]
) -> Iterator[_Line]:
  """The lines of a file of LibriSpeech: a sound's name and what is said."""
  reader = _READER.fullmatch(file.name)
  for number, line in enumerate(_NEW_LINE.split(text_files.content(file)), 1):
    if not line.strip():
      continue
    name, *said = line.split(maxsplit=1)
    if (file.parent, name) not in sounds:
      raise UserError(
        f'data.source: line {number} of {file} is of {name}, and there is '
        'no sound file of that name beside it'
      )
    yield _Line(
      sounds[file.parent, name],
      ''.join(said),
      reader[1] if reader else '',
      f'line {number} of {file}',
    )


def _beside(
  sounds: Mapping[tuple[Path, str], Path],
  texts: Mapping[tuple[Path, str], Path],
) -> Iterator[_Line]:
  """Sounds that have a text of the same name beside them."""
  for key, file in texts.items():
    if key not in sounds:
      raise UserError(
        f'data.source: there is no sound file of the same name beside '
        f'{file}; add it, or remove the text'
      )
  for key, file in sounds.items():
    if key not in texts:
      raise UserError(
        f'data.source: {file} has no transcript: there is no {key[1]}.txt '
        'beside it; add that, or remove the file'
      )
    said = text_files.content(
      texts[key], 'write what is said, or remove it and its sound'
    )
    yield _Line(file, said, '', str(texts[key]))


def _listed(file: Path) -> list[_Line]:
  """The lines of a list of files."""
  is_json = file.suffix == '.jsonl'
  rows = (text_files.json_lines if is_json else _table)(file)
  found = [_of_row(row, file.parent, where) for where, row in rows]
  if not found:
    raise UserError(f'data.source: {file} lists no sound; add some')
  return found


def _of_row(row: Any, folder: Path, where: str) -> _Line:
  row = row if isinstance(row, dict) else {}
  found = []
  for names in (_SOUND, _TEXT):
    there = [name for name in names if name in row]
    text = next((row[n] for n in there if isinstance(row[n], str)), None)
    if text is None:
      has = f'no {names[0]!r} but {", ".join(map(repr, row)) or "nothing"}'
      if there:
        has = f'an entry {there[0]!r} that is no text'
      raise UserError(
        f"data.source: {where} has {has}; give each 'audio', the path of a "
        "sound file, and 'text', what is said"
      )
    conversations.check_utf8(text, f'data.source: {where}')
    found.append(text)
  sound, said = folder / found[0], found[1]
  if not os.path.isfile(sound):  # which takes paths of any length
    raise UserError(
      f'data.source: {where} is of {str(sound)!r}, and there is no sound file '
      'of that name; add it, or remove the line'
    )
  speaker = next((str(row[n]) for n in _SPEAKER if row.get(n) is not None), '')
  return _Line(sound, said, speaker, where)


def _table(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
  """The rows of a CSV or TSV file below its header, and where they are.

  Each is a line: a quotation mark that is never closed would take the lines
  behind it into its text. In TSV, as Common Voice has it, they are just marks.
  """
  is_tsv = file.suffix == '.tsv'
  how = (
    dict(delimiter='\t', quoting=csv.QUOTE_NONE)
    if is_tsv
    else dict(strict=True)
  )
  header = None
  for number, line in enumerate(_NEW_LINE.split(text_files.content(file)), 1):
    if not line.strip():
      continue
    where = f'line {number} of {file}'
    try:
      (cells,) = csv.reader([line], **how)
    except csv.Error as error:
      raise UserError(
        f'data.source: {where} cannot be read ({error}); quotation marks must '
        'be closed in their line, and one that belongs to a text be doubled'
      ) from error
    header = header or cells
    if len(cells) > len(header):
      raise UserError(
        f'data.source: {where} has more columns than the header; '
        + (
          'write spaces for the tabs of a text'
          if is_tsv
          else 'put a text that has commas in quotation marks'
        )
      )
    if len(cells) < len(header):
      raise UserError(
        f'data.source: {where} has {len(cells)} of the {len(header)} columns '
        'of the header; add the others'
      )
    if cells is not header:
      yield where, dict(zip(header, cells, strict=True))
