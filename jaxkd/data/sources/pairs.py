"""Sources of pairs of sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.data import folders as folders_lib
from jaxkd.data import prepared
from jaxkd.data.source import (
  Source,
  held_out_size,
  make_source,
  place,
  split_entry,
  with_validation,
)
from jaxkd.data.sources import NAMES
from jaxkd.data.text import parallel as parallel_lib
from jaxkd.data.text import phrases as phrases_lib
from jaxkd.data.text import sentences
from jaxkd.errors import UserError


def phrases(
  *,
  languages: Sequence[str] = ('en', 'de'),
  size: int = 24_000,
  vocabulary: int = 320,
  length: int = 28,
  too_long: str = 'refuse',
  kinds: tuple[str, ...] = (),
  test: int | float = 0.1,
  validation: int | float | None = None,
  seed: int = 0,
) -> Source:
  """Numbers, dates, times, money and lists, in two languages.

  The contents are random, the wordings real. Each language draws one of several
  wordings, with the shares of `jaxkd.data.text.phrases`, so that a source
  sentence has several right targets. All contents and all source sentences
  differ, within and between splits, which are 80 : 10 : 10 by default.

  Args:
    languages: to translate from and to, as CLDR and num2words know them.
    size: pairs in all.
    vocabulary: number of pieces, learnt from the training split.
    length: the most tokens of a sentence.
    too_long: what becomes of longer pairs: 'refuse', 'cut' or 'drop'.
    kinds: of contents, some of `jaxkd.data.text.phrases.KINDS`; all by default.
    test: how many pairs to test on, or which share.
    validation: how many of the others to validate on, or which share.
    seed: of contents and wordings.
  """
  made, notes = phrases_lib.make(languages, size, seed, tuple(kinds))
  out = held_out_size(test, len(made), 'test')
  if not out:
    raise UserError('data.kw.test: 0 pairs leave nothing to test on; use more')
  rest = len(made) - out
  usual = 1 / 9 if validation is None else validation
  start = rest - held_out_size(usual, rest)
  pairs = [phrase.texts for phrase in made]
  splits = {
    'train': pairs[:start],
    'validation': pairs[start:rest],
    'test': pairs[rest:],
  }
  source = _sentences(
    'phrases',
    splits if start < rest else {s: splits[s] for s in ('train', 'test')},
    None if start < rest else 0,
    vocabulary=vocabulary,
    length=length,
    too_long=too_long,
  )
  return source._replace(notes=(*notes, *source.notes))


def parallel(
  path: str,
  *,
  dir: str = '',
  languages: Sequence[str] = (),
  vocabulary: int = 8000,
  length: int = 64,
  too_long: str = 'refuse',
  validation: int | float | None = None,
) -> Source:
  """Sentences and their translations, from a folder of text files.

  They are ``train.LANGUAGE``, ``test.LANGUAGE`` and perhaps
  ``validation.LANGUAGE`` (or ``val``, ``valid``, ``dev``), UTF-8, of both
  languages; line n of one is the translation of line n of the other.

  Args:
    path: of the folder, absolute or in ``dir``.
    dir: a folder.
    languages: to translate from and to, as the files are called.
    vocabulary: number of pieces, learnt from the training split.
    length: the most tokens of a sentence.
    too_long: what becomes of longer pairs: 'refuse', 'cut' or 'drop'.
    validation: as in `load`.
  """
  phrases_lib.check_languages(languages)
  return _sentences(
    f'parallel:{path}',
    parallel_lib.read(place(dir, path), languages),
    validation,
    vocabulary=vocabulary,
    length=length,
    too_long=too_long,
  )


def translation(
  path: str,
  *,
  dir: str = '',
  languages: Sequence[str] = (),
  vocabulary: int = 8000,
  length: int = 64,
  too_long: str = 'refuse',
  validation: int | float | None = None,
) -> Source:
  """Sentences and their translations, from a data set that TFDS has prepared.

  Args:
    path: its name, perhaps with config and version, as in `tfds`.
    dir: TFDS's data directory; empty for its own default.
    languages: to translate from and to; as the data set says by default.
    vocabulary: number of pieces, learnt from the training split.
    length: the most tokens of a sentence.
    too_long: what becomes of longer pairs: 'refuse', 'cut' or 'drop'.
    validation: as in `load`.
  """
  name, builder = f'translation:{path}', prepared.find(path, dir, NAMES)
  languages = prepared.languages(builder, languages)
  stored = folders_lib.splits(builder.info.splits, where=path)
  splits = {
    split: prepared.sentences(builder, own, languages)
    for split, own in stored.items()
  }
  return _sentences(
    name,
    splits,
    validation,
    vocabulary=vocabulary,
    length=length,
    too_long=too_long,
  )


def _sentences(
  name: str,
  splits: Mapping[str, Sequence[sentences.Pair]],
  validation: int | float | None,
  **options: Any,
) -> Source:
  """As `make_source`; the vocabulary is learnt after validation is held out."""
  splits, validation = with_validation(
    name, splits, validation, sentences.hold_out, 'pairs'
  )
  for split, pairs in splits.items():
    if not pairs:
      raise UserError(f'{split_entry(name, split)} is empty')
  made = sentences.tokenized(splits, name=name, **options)
  source = make_source(name, made.splits, validation, classes=made.pieces)
  return source._replace(notes=made.notes, vocabulary=len(made.pieces))
