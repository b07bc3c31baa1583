"""Tokenised texts: from documents to rows for language models."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxkd.data.examples import Examples
from jaxkd.data.text import conversations, rows, vocabularies
from jaxkd.data.text import vocabulary as vocabulary_lib
from jaxkd.data.text.conversations import Document, Part, Writer
from jaxkd.data.text.rows import Pieces, Rows, Stream
from jaxkd.data.text.vocabulary import Vocabulary
from jaxkd.data.text.words import SPECIAL
from jaxkd.errors import UserError

LEARN = ('all', 'completions')


class Layout(NamedTuple):
  """How tokens become rows: options of a config.

  Attributes:
    length: tokens of a row.
    packing: 'windows' of documents that stand in a row, whole documents
      'packed' into rows, or 'none': a document in each row.
    context: how many tokens, at its beginning, a window of a split other than
      train shares with the one before.
    too_long: what becomes of longer documents, where they are not cut into
      windows: 'refuse', 'split' or 'cut'.
    prompt: how many tokens at the beginning of a row are a prompt.
    learn: 'all' tokens, or those of 'completions'; empty for these where there
      are some.
  """

  length: int = 64
  packing: str = 'windows'
  context: int = 0
  too_long: str = 'refuse'
  prompt: int = 0
  learn: str = ''

  def check(self, kind: str) -> 'Layout':
    """Refuses options that cannot be.

    Args:
      kind: of the documents; see `jaxkd.data.text.conversations.Format`.

    Returns:
      The layout, with ``learn`` said.

    Raises:
      UserError: invalid options.
    """
    if self.length < 2:
      raise UserError(
        f'data.kw.length: {self.length} is too short for a window; use 2 or '
        'more'
      )
    for option, known in (
      ('packing', rows.PACKINGS),
      ('too_long', rows.TOO_LONG),
      ('learn', ('', *LEARN)),
    ):
      if (given := getattr(self, option)) not in known:
        raise UserError(
          f'data.kw.{option}: {given!r} should be one of '
          f'{", ".join(filter(None, known))}'
        )
    if not 0 <= self.context < self.length:
      raise UserError(
        f'data.kw.context: {self.context} should be 0 or more, and less than '
        f'data.kw.length, {self.length}'
      )
    if self.packing != 'windows' and self.context:
      raise UserError(
        f'data.kw.context: with packing {self.packing!r} no row goes on where '
        'another ends; remove the entry'
      )
    if self.packing == 'windows' and self.too_long != 'refuse':
      raise UserError(
        'data.kw.too_long: windows cut documents of any length; remove the '
        'entry'
      )
    is_text = kind == 'text'
    if not is_text and self.packing == 'windows':
      raise UserError(
        'data.kw.packing: windows would cut prompts from their answers; use '
        "'packed' or 'none'"
      )
    if not is_text and self.too_long == 'split':
      raise UserError(
        'data.kw.too_long: an answer that is split loses its prompt; use '
        "'refuse' or 'cut'"
      )
    if is_text and self.learn == 'completions':
      raise UserError(
        'data.kw.learn: texts have no completions; set data.kw.format, or '
        "data.kw.prompt, or write 'all'"
      )
    if self.prompt:
      self._check_prompt(is_text)
    return self._replace(
      learn=self.learn or ('all' if is_text else 'completions')
    )

  def _check_prompt(self, is_text: bool) -> None:
    if not is_text:
      raise UserError(
        'data.kw.prompt: these documents have prompts of their own; remove the '
        'entry'
      )
    if self.packing == 'packed':
      raise UserError(
        'data.kw.prompt: a packed row has several beginnings; set '
        "data.kw.packing to 'windows' or 'none'"
      )
    if not 0 < self.prompt < self.length:
      raise UserError(
        f'data.kw.prompt: {self.prompt} should be 1 or more, and less than '
        f'data.kw.length, {self.length}'
      )


class Corpus(NamedTuple):
  """Splits of tokenised texts.

  Attributes:
    splits: their rows; see `jaxkd.data.text.rows.Rows.fetch`.
    vocabulary: of the tokens.
    notes: sentences about the data, for the row.
  """

  splits: dict[str, Examples]
  vocabulary: Vocabulary
  notes: tuple[str, ...]


def tokenized(
  splits: Mapping[str, Sequence[Document]],
  *,
  name: str,
  kind: str = 'text',
  tokens: str = 'words',
  vocabulary: int | None = None,
  eos: str = '',
  template: str = '',
  layout: Layout,
) -> Corpus:
  """Tokenises texts with one vocabulary, learnt from ``train`` or read.

  Args:
    splits: 'train' and others.
    name: of the source, for errors.
    kind: of the documents; see `jaxkd.data.text.conversations.Format`.
    tokens: see `jaxkd.data.text.vocabulary.of`.
    vocabulary: likewise, ``size``.
    eos: likewise.
    template: see `jaxkd.data.text.conversations.writer`.
    layout: how tokens become rows.

  Raises:
    UserError: invalid options, a split without words, or one of which no word
      is in ``train``; documents that are too long, or of which nothing counts.
  """
  layout = layout.check(kind)
  learnt = tokens in vocabularies.LEARNT
  lines = _lines(splits['train']) if learnt else ()
  own = vocabularies.of(tokens, vocabulary, lines, eos)
  writer = conversations.writer(kind, own, template)
  notes = [*own.notes]
  if own.is_lossless:
    notes.append(
      f'tokens are the {len(own.pieces):,} of {own.name}, whose checksum is '
      f'{own.checksum[:12]}'
    )
  if layout.learn == 'completions':
    notes.append('answers alone are learnt, and not their prompts')
  cut: dict[str, tuple[Stream, Pieces]] = {}
  for split, documents in splits.items():
    here = f'{split} of {name!r}'
    stream, empty = _stream(documents, own, writer, layout.learn == 'all')
    notes.append(_counted(stream, own, split, here, len(documents)))
    if empty:
      notes.append(
        f'{empty:,} of the {len(documents):,} documents in {split} have no '
        'token and are left out'
      )
    pieces, said = _pieces(stream, layout, split, here)
    notes += said
    cut[split] = stream, pieces
  prompt = 0
  if layout.prompt or (kind != 'text' and layout.packing == 'none'):
    prompt = max(int(pieces.prompts.max()) for _, pieces in cut.values())
  made = {}
  for split, (stream, pieces) in cut.items():
    firsts = np.arange(len(pieces.starts) + 1)
    is_packed = layout.packing == 'packed'
    if is_packed:
      order, firsts = rows.packed(pieces.lengths, layout.length)
      pieces = pieces.take(order)
      count = len(firsts) - 1
      full = pieces.lengths.sum() / (count * layout.length)
      notes.append(
        f'{split} is packed into {count:,} {"row" if count == 1 else "rows"}, '
        f'{full:.1%} full'
      )
    made[split] = Rows(
      stream, pieces, firsts, layout.length, own.special, is_packed, prompt
    ).examples()
  return Corpus(made, own, (*notes, *_seen(splits)))


def _lines(documents: Iterable[Document]) -> list[str]:
  """All lines, as they are written, without blank ones."""
  said = (
    (document,) if isinstance(document, str) else [x for _, x in document]
    for document in documents
  )
  texts = itertools.chain.from_iterable(said)
  return [line for x in texts for line in x.split('\n') if line.strip()]


def _stream(
  documents: Sequence[Document],
  vocabulary: Vocabulary,
  writer: Writer,
  learn_all: bool,
) -> tuple[Stream, int]:
  """All documents in a row, and how many are left out, as without a token."""
  made = []
  for batch in _batches(documents, writer):
    encoded = vocabulary.encode(
      [part.text for parts in batch for part in parts],
      [i > 0 for parts in batch for i, _ in enumerate(parts)],
      markup=writer.markup,
    )
    ends = np.cumsum(encoded.counts)[:-1]
    tokens = iter(np.split(encoded.tokens, ends))
    sizes = iter(np.split(encoded.sizes, ends))
    for parts in batch:
      own = [(part, next(tokens), next(sizes)) for part in parts]
      if any(len(found) for _, found, _ in own):
        made.append(_joined(own, vocabulary, writer.begins, learn_all))
  empty = len(documents) - len(made)
  if not made:
    none = np.zeros(0, np.int64)
    return Stream(none, none, none > 0, np.zeros(1, np.int64), none), empty
  *fields, prompts = zip(*made, strict=True)
  starts = np.cumsum([0, *map(len, fields[0])], dtype=np.int64)
  flat = map(np.concatenate, fields)
  return Stream(*flat, starts, np.array(prompts, np.int64)), empty


def _joined(
  own: Sequence[tuple[Part, np.ndarray, np.ndarray]],
  vocabulary: Vocabulary,
  begins: bool,
  learn_all: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
  """A document of tokenised parts: `Stream` of it alone, without its start."""
  special, (_, tokens, sizes) = vocabulary.special, own[0]

  def one(token, size, counts):
    return (
      np.array([token], tokens.dtype),
      np.array([size], sizes.dtype),
      np.array([counts]),
    )

  found, prompt = [one(special.bos, 0, False)] if begins else [], 0
  for part, tokens, sizes in own:
    if part.written:
      prompt = sum(len(x) for x, _, _ in found)
    counts = part.written or learn_all
    found.append((tokens, sizes, np.full(len(tokens), counts)))
    if part.ends:
      found.append(one(special.eos, vocabulary.end_size, counts))
  return *map(np.concatenate, zip(*found, strict=True)), prompt


def _batches(
  documents: Iterable[Document], writer: Writer
) -> Iterator[list[tuple[Part, ...]]]:
  """The parts of documents, for as much text as is tokenised at once."""
  batch, size = [], 0
  for document in documents:
    batch.append(writer.parts(document))
    size += sum(len(part.text) for part in batch[-1])
    if size >= vocabulary_lib.GROUP:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def _counted(
  stream: Stream, own: Vocabulary, split: str, here: str, documents: int
) -> str:
  """What is in a split, for the row.

  Raises:
    UserError: nothing, or nothing that is known.
  """
  special = own.special
  ends = sum(
    np.count_nonzero(stream.tokens == token)
    for token in {special.bos, special.eos}
  )
  count = len(stream.tokens) - ends
  what = 'tokens' if own.is_lossless else 'words'
  if not count:
    raise UserError(f'data.source: {here} has no {what}; add text')
  unknown = 0
  if special.unk is not None:
    unknown = np.count_nonzero(stream.tokens == special.unk)
  if unknown == count:
    raise UserError(
      f'data.source: no {what[:-1]} of {here} is among the '
      f'{len(own.pieces) - len(SPECIAL):,} that are learnt from train; take '
      'texts of one language'
      if not own.is_lossless
      else f'data.kw.tokens: no token of {here} is in {own.name}; take a '
      'vocabulary of its language'
    )
  share = f', {unknown:,} of them unknown,' if unknown else ''
  return f'{split} has {count:,} {what}{share} in {documents:,} documents'


def _pieces(
  stream: Stream, layout: Layout, split: str, here: str
) -> tuple[Pieces, list[str]]:
  """The pieces of a split that teach something, and notes."""
  notes = []
  if layout.packing == 'windows':
    overlap = 0 if split == 'train' else layout.context
    pieces = rows.windows(stream, layout.length, overlap)
    if not layout.prompt:
      return pieces, notes
  else:
    how = layout.too_long
    pieces, long = rows.documents(stream, layout.length, how, here)
    if long:
      notes.append(
        f'{long:,} of the {len(stream.prompts):,} documents in {split} do not '
        f'fit into {layout.length:,} tokens and are {how}'
      )
  if layout.prompt:
    pieces = rows.prompted(pieces, layout.prompt)
  kept = rows.learnt(stream, pieces) > 0
  if not kept.any():
    entry, why = (
      ('prompt', f'{layout.prompt:,} tokens are all that there is')
      if layout.prompt
      else ('length', f'no answer is within {layout.length:,} tokens')
    )
    raise UserError(
      f'data.kw.{entry}: {why} in {here}, so that nothing is learnt; change it'
    )
  if not kept.all():
    what = 'windows' if layout.packing == 'windows' else 'documents'
    notes.append(
      f'{(~kept).sum():,} of the {len(kept):,} {what} in {split} have no token '
      'that is learnt and are left out'
    )
  return pieces.take(kept), notes


def _seen(splits: Mapping[str, Sequence[Document]]) -> Iterator[str]:
  known = set(splits['train'])
  for split, documents in splits.items():
    again = sum(document in known for document in documents)
    if split != 'train' and again:
      yield (
        f'{again:,} of the {len(documents):,} documents in {split} are in '
        'train too'
      )
