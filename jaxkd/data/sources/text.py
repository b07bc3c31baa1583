"""Sources of text for language models."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.data import kjv as kjv_lib
from jaxkd.data import markov as markov_lib
from jaxkd.data import positions, sentences, windows
from jaxkd.data import text as text_lib
from jaxkd.data.source import (
  Source,
  first_split,
  held_out_size,
  make_source,
  place,
  split_entry,
)
from jaxkd.errors import UserError


def markov(
  *,
  size: int = 400,
  words: int = 30,
  branching: int = 4,
  vocabulary: int = 10_000,
  length: int = 16,
  context: int = 0,
  test: int | float = 0.1,
  validation: int | float | None = None,
  seed: int = 0,
) -> Source:
  """Lines of a Markov chain of words; split 80 : 10 : 10 by default.

  The notes tell its perplexity, below which no model can be but by chance.

  Args:
    size: lines in all.
    words: how many different ones there are.
    branching: how many may follow each of them.
    vocabulary: as in `text`.
    length: likewise.
    context: likewise.
    test: likewise.
    validation: likewise.
    seed: of the chain and of the lines.
  """
  if min(size, branching - 1) < 1 or words <= branching or seed < 0:
    raise UserError(
      f'data.kw: markov cannot make {size} lines of {words} words with '
      f'{branching} that may follow each and seed {seed}; take 1 line or more, '
      '2 or more that follow, and more words than these'
    )
  documents, least = markov_lib.documents(size, words, branching, seed)
  source = _texts(
    'markov',
    {'all': documents},
    validation,
    test,
    tokens='spaces',
    vocabulary=vocabulary,
    length=length,
    context=context,
  )
  note = f'the perplexity of the chain itself is {least:.2f}'
  return source._replace(notes=(*source.notes, note))


def kjv(
  *,
  passage: str = 'gen1:1-rev22:21',
  tokens: str = 'words',
  vocabulary: int = 10_000,
  length: int = 48,
  context: int = 0,
  test: int | float = 0.1,
  validation: int | float | None = None,
) -> Source:
  """The King James Bible, by chapters; split 80 : 10 : 10 by default.

  It is read from Debian's packages bible-kjv and bible-kjv-text. A line is a
  verse, without its number.

  Args:
    passage: what of it, as the program ``bible`` takes it, e.g.
      'gen1:1-deu34:12'.
    tokens: as in `text`.
    vocabulary: likewise.
    length: likewise.
    context: likewise.
    test: how many chapters to test on, or which share.
    validation: how many of the others to validate on, or which share.
  """
  chapters = kjv_lib.chapters(passage)
  source = _texts(
    'kjv',
    {'all': list(chapters.values())},
    validation,
    test,
    tokens=tokens,
    vocabulary=vocabulary,
    length=length,
    context=context,
  )
  names = tuple(chapters)
  note = f'chapters {names[0]} to {names[-1]} of the King James Bible'
  return source._replace(notes=(note, *source.notes))


def text(
  path: str,
  *,
  dir: str = '',
  field: str = 'text',
  tokens: str = 'words',
  vocabulary: int = 10_000,
  length: int = 64,
  context: int = 0,
  test: int | float | None = None,
  validation: int | float | None = None,
) -> Source:
  """Text for language models, from files of text or of JSON Lines.

  A file, a folder of files, or a folder with train, test and perhaps validation
  as files or folders; see `jaxkd.data.text`. Where there are no splits, whole
  documents are held out, or the last lines of a single one, a tenth each by
  default.

  Examples are windows of `length` tokens, whose labels are the tokens that
  follow them. The documents of a split stand in a row.

  Args:
    path: of the file or the folder, absolute or in ``dir``.
    dir: a folder.
    field: of the objects in JSON Lines that has the text.
    tokens: 'words' for words in lower case, without punctuation; 'spaces' for
      what stands between spaces, as it is.
    vocabulary: the most tokens, four of which stand for no word; the words that
      train has most often.
    length: tokens of a window.
    context: how many of these, in validation and test, are the last ones of the
      window before: they are looked at and count there.
    test: how many documents (or lines, of a single document) to test on, or
      which share, where there is no such split.
    validation: likewise, of what is left; 0 for none.
  """
  return _texts(
    f'text:{path}',
    text_lib.read(place(dir, path), field),
    validation,
    test,
    tokens=tokens,
    vocabulary=vocabulary,
    length=length,
    context=context,
  )


def _texts(
  name: str,
  splits: Mapping[str, Sequence[text_lib.Document]],
  validation: int | float | None,
  test: int | float | None,
  **options: Any,
) -> Source:
  """As `make_source`; whole documents are held out, and then cut into windows.

  Args:
    name: of the source.
    splits: documents of 'train', 'test' and perhaps 'validation', or of 'all'.
    validation: how many of the documents to train on to hold out, or which
      share.
    test: how many of all documents, where there is no such split.
    **options: see `jaxkd.data.windows.tokenized`.
  """
  splits = {split: [*filter(None, own)] for split, own in splits.items()}
  first = first_split(name, splits)
  for split, documents in splits.items():
    if not documents:
      raise UserError(f'{split_entry(name, split)} is empty')
  if first == 'all':
    splits = _documents_held_out(
      name, splits, 'all', 'test', 0.1 if test is None else test
    )
    if not splits['test']:
      raise UserError('data.kw.test: 0 leaves nothing to test on; use more')
  elif test is not None:
    raise UserError(
      f'data.kw.test: {name!r} has a test split of its own; remove the entry'
    )
  if 'validation' not in splits:
    usual = 1 / 9 if first == 'all' else 0.1
    splits = _documents_held_out(
      name,
      splits,
      'train',
      'validation',
      usual if validation is None else validation,
    )
    validation = None if splits['validation'] else 0
  order = [s for s in ('train', 'validation', 'test') if splits.get(s)]
  splits = {split: splits[split] for split in order}
  made = windows.tokenized(splits, name=name, **options)
  source = make_source(
    name,
    made.splits,
    validation,
    classes=made.pieces,
    fields={'bytes': positions.FIXED},
  )
  return source._replace(notes=made.notes, vocabulary=len(made.pieces))


def _documents_held_out(
  name: str,
  splits: Mapping[str, Sequence[text_lib.Document]],
  of: str,
  split: str,
  amount: int | float,
) -> dict[str, Sequence[text_lib.Document]]:
  """Splits off documents, of which equal ones stay together.

  Of a single one, the last lines.
  """
  documents = splits[of]
  if len(documents) > 1:
    size = held_out_size(amount, len(documents), split)
    rest, out = sentences.hold_out(documents, size, key=lambda own: own)
  else:
    (lines,) = documents
    if len(lines) == 1 and amount:
      raise UserError(
        f'{split_entry(name, of)} has one line alone, of which none can be '
        f'held out for {split}; add text, or a {split} split of its own'
      )
    start = len(lines) - held_out_size(amount, len(lines), split)
    rest, out = [[*filter(None, [x])] for x in (lines[:start], lines[start:])]
  if not rest:
    raise UserError(
      f'data.kw.{split}: {amount} of the {len(documents):,} documents in {of} '
      f'of {name!r} takes all of them, for equal ones stay together; use less'
    )
  others = {s: own for s, own in splits.items() if s != of}
  return {'train': rest, **others, split: out}
