"""Texts in the tokens of two tokenizers: which positions belong together.

A teacher and a student with tokens of their own read the same text at unequal
places. At some of them both have read the same text, up to the same byte, and
their predictions are of what follows that text.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.errors import UserError

STUDENT, TEACHER = 'student', 'teacher'  # the parts of the inputs
PLACE = 'place'  # of the teacher's part, where its outputs are looked up
PAIRED = 'paired'  # which labels have a counterpart
WAYS = ('bytes', 'length')


def joined(
  split: str, student: Examples, teacher: Examples, by: str
) -> ArrayExamples:
  """A split whose inputs are the tokens of both.

  Args:
    split: its name, for errors.
    student: rows of one text each, in the tokens of the student.
    teacher: the same texts in the same order, in those of the teacher.
    by: see `places`.

  Returns:
    The fields of the student, but for inputs of the parts `STUDENT`, tokens
    [N, L], and `TEACHER`, ``tokens`` [N, M] and `PLACE` [N, L]; and `PAIRED`,
    bool [N, L].

  Raises:
    UserError: rows of several texts, or other texts.
  """
  if len(student) != len(teacher):
    raise UserError(
      f'data.source: {split} has {len(student):,} rows of one tokenizer and '
      f'{len(teacher):,} of the other; '
      "take packing='none' and a length that no text exceeds"
    )
  one, other = (
    dict(side.fetch(np.arange(len(side)))) for side in (student, teacher)
  )
  for side in (one, other):
    if not hasattr(side['inputs'], 'shape') or 'bytes' not in side:
      raise UserError(
        'data.source: two tokenizers need rows of one text each, with the '
        "bytes of their labels; take text with packing='none'"
      )
  sizes = one['bytes'].sum(1), other['bytes'].sum(1)
  if (unequal := sizes[0] != sizes[1]).any():
    row = int(unequal.argmax())
    raise UserError(
      f'data.source: row {row} of {split} has {sizes[0][row]:,} bytes of text '
      f'in the tokens of the student and {sizes[1][row]:,} in those of the '
      "teacher; take packing='none' and a length that no text exceeds"
    )
  place, paired = places(one, other, by)
  inputs = {
    STUDENT: one.pop('inputs'),
    TEACHER: {'tokens': other['inputs'], PLACE: place},
  }
  return ArrayExamples(inputs, one.pop('labels'), **one, **{PAIRED: paired})


def places(
  student: Mapping[str, Any], teacher: Mapping[str, Any], by: str
) -> tuple[np.ndarray, np.ndarray]:
  """For each position of a student the position of its teacher.

  Args:
    student: its ``valid`` and ``bytes`` of labels, [N, L].
    teacher: those of the teacher, [N, M].
    by: 'bytes', where both have read the same text; or 'length', the first
      label that counts to the first one, and so on, however far they drift.

  Returns:
    Positions, int32 [N, L], and whether there is one, bool [N, L]. Only labels
    that count on both sides have one.
  """
  counts, others = student['valid'], teacher['valid']
  place = np.zeros(counts.shape, np.int32)
  paired = np.zeros(counts.shape, bool)
  read = [_read(side['bytes']) for side in (student, teacher)]
  for row in range(len(counts)):
    mine, theirs = np.flatnonzero(counts[row]), np.flatnonzero(others[row])
    if by == 'length':
      shared = min(len(mine), len(theirs))
      mine, theirs = mine[:shared], theirs[:shared]
    else:
      keys = [
        _numbered(x[row, at])
        for x, at in zip(read, (mine, theirs), strict=True)
      ]
      _, one, other = np.intersect1d(
        *keys, assume_unique=True, return_indices=True
      )
      mine, theirs = mine[one], theirs[other]
    place[row, mine], paired[row, mine] = theirs, True
  return place, paired


def _read(sizes: np.ndarray) -> np.ndarray:
  """How many bytes come before each label, int64 [N, L]."""
  return np.cumsum(sizes, 1, dtype=np.int64) - sizes


def _numbered(starts: np.ndarray) -> np.ndarray:
  """Ascending starts as unique keys; labels without bytes share a start."""
  again = np.arange(len(starts)) - np.searchsorted(starts, starts)
  return (starts << 32) + again
