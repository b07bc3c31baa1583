"""One source of text in the tokens of two tokenizers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxkd import shapes
from jaxkd.data import positions, sources
from jaxkd.data.source import Source
from jaxkd.data.text import alignment
from jaxkd.errors import UserError

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def two_tokenizers(
  *,
  of: str,
  dir: str = '',
  kw: Mapping[str, Any] = _NOTHING,
  teacher_kw: Mapping[str, Any] = _NOTHING,
  align: str = 'bytes',
  validation: int | float | None = None,
) -> Source:
  """Text for a student and a teacher with different tokenizers.

  Inputs have the parts ``student`` and ``teacher``, which the nets' views show
  by ``part('student')`` and ``part('teacher')``. The teacher's outputs are
  those at the positions that belong to the student's; the field ``paired`` says
  for which labels there is such a position, and is the mask of terms that
  compare both. All else is the student's.

  Args:
    of: the source of the text, such as 'text:PATH', with one text in a row.
    dir: as that source takes it.
    kw: its options, those of the student's tokens among them.
    teacher_kw: what is other for the teacher, such as its ``tokens``.
    align: 'bytes' pairs positions that have read the same text; 'length' the
      first label that counts with the first one, and so on (Boizard et al.).
    validation: as in `jaxkd.data.sources.load`.

  Raises:
    UserError: options that do not fit, rows of several texts, or none paired.
  """
  if align not in alignment.WAYS:
    raise UserError(
      f'data.kw.align: {align!r} should be one of {", ".join(alignment.WAYS)}'
    )
  if not teacher_kw:
    raise UserError(
      'data.kw.teacher_kw: it is empty, so both have the same tokens; name '
      "those of the teacher, as teacher_kw=dict(tokens='tokenizer:PATH')"
    )
  one, other = (
    sources.load(of, dir=dir, validation=validation, **own)
    for own in (kw, {**kw, **teacher_kw})
  )
  splits, notes = {}, []
  for split, examples in one.splits.items():
    made = alignment.joined(split, examples, other.splits[split], align)
    whole = made.fetch(np.arange(len(made)))
    count, paired = whole['valid'].sum(), whole[alignment.PAIRED].sum()
    if not paired:
      raise UserError(
        f'data.kw.align: no label of {split} has a position of the teacher '
        "that has read the same text; take align='length', or other tokens"
      )
    splits[split] = made
    notes.append(
      f'{paired:,} of the {count:,} labels of {split} have a position of the '
      f'teacher, {"by length" if align == "length" else "at the same byte"}'
    )
  first = splits['train'].fetch(np.arange(1))['inputs']
  longest = first[alignment.TEACHER]['tokens'].shape[1]
  return one._replace(
    splits=splits,
    input_shape=shapes.example(first),
    # Of all numbers in the inputs, those of positions too.
    vocabulary=max(one.vocabulary, other.vocabulary, longest),
    fields={**one.fields, alignment.PAIRED: positions.FIXED},
    notes=(*one.notes, *notes),
  )
