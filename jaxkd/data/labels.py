"""Labels in the forms that people have them in, as class numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import Examples, as_labels, changed
from jaxkd.errors import UserError, several

MOST_CLASSES = 2**20  # larger labels are hardly class numbers
_LISTED = 10  # labels that a message proposes for data.kw.classes, at most


class Labels(NamedTuple):
  """Labels [N] of a split.

  Attributes:
    values: int32 [N], or text [N].
    form: 'numbers', 'booleans', 'text', or e.g. 'one-hot rows of 3'.
    columns: of one-hot rows; 0 for the other forms.
  """

  values: np.ndarray
  form: str
  columns: int = 0


def of_split(labels: Any, at: str) -> Labels:
  """Reads the labels of a split in any of the usual forms.

  Args:
    labels: numbers, booleans or texts [N] or [N, 1]; or one-hot rows [N, K].
    at: what to call the examples in errors.

  Raises:
    UserError: anything else.
  """
  labels = np.asarray(labels)
  what = f'{at} has labels of shape {labels.shape} and type {labels.dtype}'
  must = 'they must be class numbers, one for each example'
  if not labels.ndim or (labels.size != len(labels) and labels.ndim != 2):
    raise UserError(f'{what}; {must}')
  if labels.size == len(labels):
    labels = labels.reshape(-1)
  if labels.dtype == object:
    labels = _of_one_type(labels, at)
  if labels.dtype.kind == 'S':
    labels = np.char.decode(labels, 'utf-8')
  if labels.dtype.kind == 'U' and labels.ndim == 1:
    for i in np.flatnonzero(np.char.strip(labels) == ''):
      raise UserError(f'{at}: example {i} has an empty label; repair it')
    return Labels(labels, 'text')
  if labels.dtype.kind not in 'biuf':
    raise UserError(f'{what}; {must}, or names of classes')
  if labels.ndim == 2:
    ones = (labels == 1).sum(axis=1)
    if not (((labels == 0) | (labels == 1)).all() and (ones == 1).all()):
      raise UserError(
        f'{what}; {must}, or rows that are 1 at the class and 0 elsewhere; '
        "set data.kw.labels='multilabel' if an example has several classes, "
        "or 'values' if they are measured"
      )
    columns = labels.shape[1]
    found = labels.argmax(axis=1).astype(np.int32)
    return Labels(found, f'one-hot rows of {columns}', columns)
  if labels.dtype == bool:
    return Labels(labels.astype(np.int32), 'booleans')
  fractions = np.isfinite(labels) & (labels != np.floor(labels))
  for i in np.flatnonzero(fractions):
    raise UserError(
      f'{at}: example {i} has the label {labels[i]:g}, which is no class '
      "number; data.kw.labels='values' reads arrays of measured values"
    )
  return Labels(as_labels(labels, at), 'numbers')


def _of_one_type(labels: np.ndarray, at: str) -> np.ndarray:
  """An array of Python objects as one of their common type."""
  first = labels.flat[0] if labels.size else 0
  kinds = (bool, np.bool_), (int, float, np.number), (str,), (bytes,)
  kind = next((kind for kind in kinds if isinstance(first, kind)), ())
  for place in np.ndindex(labels.shape):
    one = labels[place]
    odd = isinstance(one, bool) and bool not in kind
    if odd or not isinstance(one, kind):
      raise UserError(
        f'{at}: example {place[0]} has the label {one!r}; labels must all be '
        'numbers or all names of classes'
      )
  return np.array(labels.tolist())


def read(
  labels: Mapping[str, Any], conventions: Conventions, at: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
  """Reads the labels of all splits in any of the usual forms.

  Args:
    labels: split -> labels as `of_split` takes them; the first split is the one
      to train on.
    conventions: of the labels.
    at: split -> what to call its examples in errors.

  Returns:
    Split -> class numbers, int32 [N]; the names of the classes if the labels
    are names, else nothing, and `numbered` makes them; and notes for the row.

  Raises:
    UserError: labels that are no classes, or of different forms.
  """
  found = {split: of_split(own, at[split]) for split, own in labels.items()}
  (first, one), *others = found.items()
  for split, other in others:
    if other.form != one.form:
      raise UserError(
        f'data.source: labels are {one.form} in the split {first} and '
        f'{other.form} in {split}; use one form, as in {at[first]}'
      )
  values = {split: own.values for split, own in found.items()}
  is_told = bool(conventions.num_classes or conventions.classes)
  if one.form == 'text':
    return *_named(values, conventions, at), ()
  if one.form == 'booleans' and not is_told:
    return values, ('False', 'True'), ()
  if not one.columns:
    return values, (), ()
  most = max(int(own.max(initial=0)) for own in values.values())
  if most + 1 < one.columns and not is_told:
    raise UserError(
      f'{at[first]} has {one.form} columns, and no example is of the last; set '
      "data.kw.classes='sorted' to leave out what has no example, or "
      f'data.kw.num_classes={one.columns} to keep it'
    )
  return values, (), (f'labels are {one.form} columns, read as their numbers',)


def _named(
  labels: Mapping[str, np.ndarray],
  conventions: Conventions,
  at: Mapping[str, str],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Numbers for labels that are names, in sorted or in the given order."""
  if conventions.num_classes:
    raise UserError(
      'data.kw.num_classes: labels that are names define the number of '
      'classes; remove the entry, or list all names in data.kw.classes'
    )
  first = next(iter(labels))
  names = np.unique(labels[first]).tolist()
  if conventions.classes and conventions.classes != 'sorted':
    names = list(conventions.classes)
  else:
    bare: dict[str, str] = {}
    for name in names:
      other = bare.setdefault(name.strip(), name)
      if other != name:
        raise UserError(
          f'{at[first]} has the labels {other!r} and {name!r}, which differ '
          'only in spaces; write them alike, or list both in data.kw.classes'
        )
  number = {name: i for i, name in enumerate(names)}
  made = {}
  for split, own in labels.items():
    for i, name in enumerate(own.tolist()):
      if name not in number:
        raise UserError(
          f'{at[split]}: example {i} has the label {name!r}, which is none of '
          f'{several(names)}; repair it, leave it out, or list all classes in '
          'data.kw.classes'
        )
    numbers = [number[name] for name in own.tolist()]
    made[split] = np.array(numbers, np.int32)
  return made, tuple(map(str, names))


def numbered(
  splits: Mapping[str, Examples],
  conventions: Conventions,
  at: Mapping[str, str],
) -> tuple[dict[str, Examples], tuple[str, ...], tuple[str, ...]]:
  """Splits with classes 0, ..., K - 1, found from the labels themselves.

  Args:
    splits: with labels that are whole numbers; the first is the one to train
      on.
    conventions: of the labels.
    at: split -> what to call it in errors.

  Returns:
    The splits, the names of the classes, and notes for the row.

  Raises:
    UserError: labels below 0, implausibly large ones, or ones that are not in
      ``conventions.classes``.
  """
  if conventions.num_classes:
    return dict(splits), tuple(map(str, range(conventions.num_classes))), ()
  first = next(iter(splits))
  if conventions.classes:
    if splits[first].index.each:
      raise UserError(
        'data.kw.classes: examples of many labels each keep their numbers; say '
        'data.kw.num_classes'
      )
    values = conventions.classes
    if values == 'sorted':
      values = splits[first].index.values.tolist()
    made = {s: _renumbered(x, values, at[s]) for s, x in splits.items()}
    note = f'labels {several(values)} are classes 0 to {len(values) - 1}'
    return made, tuple(map(str, values)), (note,)
  for split, examples in splits.items():
    index = examples.index
    last = index.values.max(initial=0)
    if last >= MOST_CLASSES:
      raise UserError(
        f'{at[split]} has the label {last}, which is too large for a class; '
        'number the classes 0, 1, 2 and so on'
      )
    wrong = index.earliest(index.values < 0)
    if wrong:
      raise UserError(
        f'{at[split]}: example {wrong[0]} has the label {wrong[1]}, and '
        'classes are numbered from 0; leave such examples out, or '
        f'{_remedy(index.values)}'
      )
  last = max(int(x.index.values.max(initial=0)) for x in splits.values())
  return dict(splits), tuple(map(str, range(last + 1))), ()


def check_gaps(splits: Mapping[str, Examples], at: Mapping[str, str]) -> None:
  """Refuses class numbers that no training example has.

  Args:
    splits: with labels from 0 on; the first is the one to train on.
    at: split -> what to call it in errors.

  Raises:
    UserError: there is one; the first is named.
  """
  there = {split: x.index.values for split, x in splits.items()}
  first, *others = there
  count = max(int(labels.max()) for labels in there.values()) + 1
  for split in others:
    for label in np.setdiff1d(there[split], there[first]):
      raise UserError(
        f'{at[split]} has the label {label}, which no example in {first} has; '
        'leave such examples out, or set data.kw.num_classes='
        f'{count} to allow classes without training examples'
      )
  meant = f'set data.kw.num_classes={count} if that is right'
  if not splits[first].index.each:
    meant = f'{_remedy(there[first])}, to be numbered from 0, or {meant}'
  for label in np.setdiff1d(np.arange(count), there[first]):
    raise UserError(
      f'{at[first]} has no example of class {label}, though labels go up to '
      f'{count - 1}; {meant}'
    )


def _remedy(values: np.ndarray) -> str:
  """What to set where labels are not 0, 1, 2 and so on."""
  few = len(values) <= _LISTED
  them = tuple(values.tolist()) if few else 'sorted'
  return f'set data.kw.classes={them!r} if these are the classes'


def _renumbered(examples: Examples, values: Sequence[int], at: str) -> Examples:
  """Renumbers labels [N], which are among these values, as 0, 1, 2, ..."""
  for value in values:
    if isinstance(value, bool) or not isinstance(value, int):
      raise UserError(
        f'data.kw.classes: {value!r} should be a whole number, like the labels'
      )
  order = np.argsort(values)
  ordered = np.asarray(values)[order]

  def of(labels, numbers):
    place = np.searchsorted(ordered, labels).clip(max=len(ordered) - 1)
    for i in np.flatnonzero(ordered[place] != labels):
      raise UserError(
        f'{at}: example {numbers[i]} has the label {labels[i]}, which is none '
        f'of {several(values)}; repair it, leave it out, or list it in '
        'data.kw.classes'
      )
    return order[place].astype(np.int32)

  def change(batch, numbers):
    return {**batch, 'labels': of(batch['labels'], numbers)}

  numbers = np.arange(len(examples))
  return changed(examples, change, lambda: of(examples.labels, numbers))


def lacking(
  splits: Mapping[str, Examples], classes: Sequence[str]
) -> tuple[str, ...]:
  """Notes for the row on classes without examples in a split."""
  notes = []
  for split, examples in splits.items():
    if examples.index.each:
      continue
    absent = np.setdiff1d(np.arange(len(classes)), examples.index.values)
    if absent.size:
      names = several([classes[i] for i in absent])
      notes.append(
        f'{split} has no example of {absent.size:,} of the {len(classes):,} '
        f'classes: {names}'
      )
  return tuple(notes)
