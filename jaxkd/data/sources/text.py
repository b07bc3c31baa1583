"""Sources of text for language models."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd.data import folders as folders_lib
from jaxkd.data import positions
from jaxkd.data import prepared as prepared_lib
from jaxkd.data.source import (
  Source,
  first_split,
  held_out_size,
  make_source,
  place,
  split_entry,
)
from jaxkd.data.sources import NAMES
from jaxkd.data.text import conversations, corpus, sentences
from jaxkd.data.text import kjv as kjv_lib
from jaxkd.data.text import markov as markov_lib
from jaxkd.data.text import text_files as text_lib
from jaxkd.data.text.conversations import Document
from jaxkd.data.text.corpus import Layout
from jaxkd.errors import UserError

_FIELDS = {
  'bytes': positions.FIXED,
  'unknown_bytes': positions.FIXED,
  'prompt': positions.FIXED,
}


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
  source = texts(
    'markov',
    {'all': documents},
    validation,
    test,
    tokens='spaces',
    vocabulary=vocabulary,
    layout=Layout(length=length, context=context),
  )
  note = f'the perplexity of the chain itself is {least:.2f}'
  return source._replace(notes=(*source.notes, note))


def kjv(
  *,
  passage: str = 'gen1:1-rev22:21',
  tokens: str = 'words',
  vocabulary: int | None = None,
  eos: str = '',
  length: int = 48,
  packing: str = 'windows',
  context: int = 0,
  too_long: str = 'refuse',
  prompt: int = 0,
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
    eos: likewise.
    length: likewise.
    packing: likewise.
    context: likewise.
    too_long: likewise.
    prompt: likewise.
    test: how many chapters to test on, or which share.
    validation: how many of the others to validate on, or which share.
  """
  chapters = kjv_lib.chapters(passage)
  source = texts(
    'kjv',
    {'all': list(chapters.values())},
    validation,
    test,
    tokens=tokens,
    vocabulary=vocabulary,
    eos=eos,
    layout=Layout(length, packing, context, too_long, prompt),
  )
  names = tuple(chapters)
  note = f'chapters {names[0]} to {names[-1]} of the King James Bible'
  return source._replace(notes=(note, *source.notes))


def text(
  path: str,
  *,
  dir: str = '',
  format: str = 'text',
  field: str | tuple[str, ...] = '',
  tokens: str = 'words',
  vocabulary: int | None = None,
  eos: str = '',
  template: str = '',
  learn: str = '',
  length: int = 64,
  packing: str = 'windows',
  context: int = 0,
  too_long: str = 'refuse',
  prompt: int = 0,
  test: int | float | None = None,
  validation: int | float | None = None,
) -> Source:
  """Text for language models, from files of text or of JSON Lines, or of TFDS.

  A file, a folder of files, or a folder with train, test and perhaps validation
  as files or folders; see `jaxkd.data.text.text_files`. Where there are no
  splits, whole documents are held out, or the last lines of a single one, a
  tenth each by default.

  Examples are rows of `length` tokens, whose labels are the tokens that follow
  them; see `jaxkd.data.text.rows.Rows.fetch`.

  Args:
    path: of the file or the folder, absolute or in ``dir``; or 'tfds:NAME' for
      a data set that TFDS has prepared.
    dir: a folder; of TFDS, its data directory.
    format: what an object in JSON Lines has: a 'text'; a prompt and its
      completion, 'completions'; or a 'chat', messages of user and assistant in
      turn.
    field: the names of these: 'text', ('prompt', 'completion') or 'messages' by
      default.
    tokens: 'words' for words in lower case, without punctuation; 'spaces' for
      what stands between spaces, as it is; 'pieces' of SentencePiece and
      'bytes', which keep all of a text; 'tokenizer:PATH' for a
      ``tokenizer.json``, or a folder of Hugging Face with one; or
      'sentencepiece:PATH' for a model of SentencePiece.
    vocabulary: the most tokens of a vocabulary that is learnt from train,
      10,000 by default, four of which stand for no word.
    eos: the token that ends a text, of a vocabulary that is read; as it says
      itself by default.
    template: of conversations: that of the tokenizer by default, 'chatml', or a
      file of Jinja.
    learn: 'all' tokens, or those of 'completions', as by default where there
      are prompts.
    length: tokens of a row.
    packing: 'windows' cuts documents that stand in a row; 'packed' puts whole
      documents into rows, where each sees itself alone; 'none' has a document
      in each row.
    context: how many tokens of a window, in validation and test, are the last
      ones of the window before: they are looked at and count there.
    too_long: what becomes of documents that do not fit into a row, but for
      windows: 'refuse', 'split' or 'cut'.
    prompt: how many tokens at the beginning of each row are a prompt, which is
      not learnt.
    test: how many documents (or lines, of a single document) to test on, or
      which share, where there is no such split.
    validation: likewise, of what is left; 0 for none.
  """
  form = conversations.format_of(format, field)
  kind, _, called = path.partition(':')
  if kind == 'tfds':
    builder = prepared_lib.find(called, dir, NAMES)
    stored = folders_lib.splits(builder.info.splits, where=path)
    splits = {
      split: prepared_lib.documents(builder, own, form)
      for split, own in stored.items()
    }
    if splits.keys() == {'train'}:
      splits = {'all': splits['train']}
  else:
    splits = text_lib.read(place(dir, path), form)
  return texts(
    f'text:{path}',
    splits,
    validation,
    test,
    kind=format,
    tokens=tokens,
    vocabulary=vocabulary,
    eos=eos,
    template=template,
    layout=Layout(length, packing, context, too_long, prompt, learn),
  )


def texts(
  name: str,
  splits: Mapping[str, Sequence[Document]],
  validation: int | float | None,
  test: int | float | None,
  **options: Any,
) -> Source:
  """A source of documents, which are held out whole and then made into rows.

  Args:
    name: of the source.
    splits: documents of 'train', 'test' and perhaps 'validation', or of 'all'.
    validation: how many of the documents to train on to hold out, or which
      share.
    test: how many of all documents, where there is no such split.
    **options: see `jaxkd.data.text.corpus.tokenized`.
  """
  splits, blank = _with_text(splits)
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
  made = corpus.tokenized(splits, name=name, **options)
  pieces = made.vocabulary.pieces
  source = make_source(
    name, made.splits, validation, classes=pieces, fields=_FIELDS
  )
  return source._replace(
    notes=(*blank, *made.notes),
    vocabulary=len(pieces),
    tokenizer=made.vocabulary,
  )


def _with_text(
  splits: Mapping[str, Sequence[Document]],
) -> tuple[dict[str, list[Document]], list[str]]:
  """The documents that have text, and notes on how many have none."""
  found = {s: [*filter(text_lib.lines, own)] for s, own in splits.items()}
  left = {s: len(own) - len(found[s]) for s, own in splits.items()}
  notes = [
    f'{count:,} of the {len(splits[split]):,} documents'
    f'{"" if split == "all" else f" in {split}"} have no text and are left out'
    for split, count in left.items()
    if count
  ]
  return found, notes


def _documents_held_out(
  name: str,
  splits: Mapping[str, Sequence[Document]],
  of: str,
  split: str,
  amount: int | float,
) -> dict[str, Sequence[Document]]:
  """Splits off documents, of which equal ones stay together.

  Of a single text, the last lines.
  """
  documents = splits[of]
  others = {s: own for s, own in splits.items() if s != of}
  if not amount:
    return {'train': documents, **others, split: []}
  if len(documents) > 1:
    size = held_out_size(amount, len(documents), split, 'documents')
    rest, out = sentences.hold_out(documents, size, key=text_lib.lines)
  else:
    rest, out = _lines_held_out(name, documents[0], of, split, amount)
  if not rest:
    raise UserError(
      f'data.kw.{split}: {amount} of the {len(documents):,} documents in {of} '
      f'of {name!r} takes all of them, for equal ones stay together; use less'
    )
  return {'train': rest, **others, split: out}


def _lines_held_out(
  name: str, document: Document, of: str, split: str, amount: int | float
) -> tuple[list[str], list[str]]:
  """The first and the last lines of the only document of a source."""
  is_text = isinstance(document, str)
  lines = document.split('\n') if is_text else []
  said = [i for i, line in enumerate(lines) if line.strip()]
  if len(said) < 2:
    raise UserError(
      f'{split_entry(name, of)} has one {"line" if is_text else "document"} '
      f'alone, of which none can be held out for {split}; add text, or a '
      f'{split} split of its own'
    )
  start = said[-held_out_size(amount, len(said), split, 'lines')]
  return ['\n'.join(lines[:start]).rstrip('\n')], ['\n'.join(lines[start:])]
