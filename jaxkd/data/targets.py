"""Labels that are not one class: those of several classes, measured values.

`data.kw.labels` says which. Labels of several classes are 0 or 1 for each
class, and unknown where nobody has looked. Measured values are standardised by
the training split, so that nets learn numbers around 0 in whatever unit they
were measured; the unit comes along as the field `examples.SCALE`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import SCALE, Examples, changed, measured
from jaxkd.data.positions import FIXED
from jaxkd.errors import UserError, several

MULTILABEL, VALUES = 'multilabel', 'values'
# Deviations of values whose squared errors float32 holds; others become 0 or
# infinite.
_UNITS = 1e-12, 1e12
UNKNOWN = -1
# Of no positions in an image, however many there are.
FIELDS = {'labels': FIXED, 'valid': FIXED, SCALE: FIXED}


def read(
  labels: Mapping[str, Any], conventions: Conventions, at: Mapping[str, str]
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...], np.ndarray]:
  """Reads the labels of all splits, as `conventions.labels` says.

  Args:
    labels: split -> labels; the first split is the one to train on. Those of
      several classes are [N, K], 0 or 1, or `UNKNOWN` or NaN; measured values
      are numbers [N] or [N, D].
    conventions: of the labels.
    at: split -> what to call its examples in errors.

  Returns:
    Split -> the fields of its examples: ``labels``, int32 [N, K], and
    ``valid``, which of them are known; or ``labels``, float32 [N, D], less
    their mean over the first split, and `examples.SCALE`, all 1. Then the
    names of the classes or values; and that mean [D], or nothing.

  Raises:
    UserError: something else.
  """
  one = _of_classes if conventions.labels == MULTILABEL else _of_values
  found = {split: one(own, at[split]) for split, own in labels.items()}
  (first, fields), *others = found.items()
  count = fields['labels'].shape[1]
  for split, other in others:
    columns = other['labels'].shape[1]
    if columns != count:
      raise UserError(
        f'{at[split]} has labels of {columns} columns, and {at[first]} of '
        f'{count}; make them alike'
      )
  names = conventions.classes or range(conventions.num_classes or count)
  if names == 'sorted' or len(names) != count:
    entry = 'classes' if conventions.classes else 'num_classes'
    raise UserError(
      f'data.kw.{entry}: the labels of {at[first].partition(": ")[2]} have '
      f'{count} columns; name each in data.kw.classes, or leave both entries '
      'empty'
    )
  centre = np.zeros(0)
  if conventions.labels == VALUES:  # in double precision, before float32
    centre = fields['labels'].mean(0)
    for own in found.values():
      own['labels'] = (own['labels'] - centre).astype(np.float32)
  elif not (fields['labels'] == 1).any():
    raise UserError(
      f'{at[first]} has no label that is 1; mark the classes that an example '
      'has'
    )
  return found, tuple(map(str, names)), centre


def _of_classes(labels: Any, at: str) -> dict[str, np.ndarray]:
  values = _numbers(labels, at)
  if values.ndim != 2 or values.shape[1] < 2:
    raise UserError(
      f'{at} has labels of shape {values.shape}; labels of several classes are '
      '[examples, classes], with two classes or more'
    )
  unknown = np.isnan(values) | (values == UNKNOWN)
  for i, k in np.argwhere(~unknown & (values != 0) & (values != 1)):
    raise UserError(
      f'{at}: example {i} has the label {values[i, k]:g} of class {k}; it must '
      f'be 0 or 1, or {UNKNOWN} where it is unknown'
    )
  known = np.where(unknown, 0, values).astype(np.int32)
  return {'labels': known, 'valid': ~unknown}


def _of_values(labels: Any, at: str) -> dict[str, np.ndarray]:
  values = _numbers(labels, at)
  if values.ndim == 1:
    values = values[:, None]
  if values.ndim != 2 or not values.shape[1]:
    raise UserError(
      f'{at} has labels of shape {values.shape}; measured values are '
      '[examples], or [examples, values]'
    )
  for i in np.flatnonzero(~np.isfinite(values).all(1)):
    raise UserError(
      f'{at}: example {i} has a label that is NaN or infinite; repair it or '
      'leave it out'
    )
  return {'labels': values, SCALE: np.ones(values.shape, np.float32)}


def _numbers(labels: Any, at: str) -> np.ndarray:
  labels = np.asarray(labels)
  if not labels.ndim or labels.dtype.kind not in 'biuf':
    raise UserError(
      f'{at} has labels of shape {labels.shape} and type {labels.dtype}; they '
      'must be numbers'
    )
  return labels.astype(np.float64)


def standardized(
  splits: Mapping[str, Examples],
  names: tuple[str, ...],
  centre: np.ndarray,
  at: str,
) -> tuple[dict[str, Examples], tuple[tuple[float, ...], ...], tuple[str, ...]]:
  """Splits whose measured values have mean 0 and deviation 1 in train.

  Args:
    splits: with `examples.SCALE` of 1.
    names: of the values.
    centre: what `read` has subtracted.
    at: what to call the training examples in errors.

  Returns:
    The splits; the means and the standard deviations that they had; and notes
    for the row.

  Raises:
    UserError: a value that is the same in all training examples, or whose
      deviation in its unit is too small or too large for float32.
  """
  values = np.asarray(splits['train'].labels, np.float64)
  middle, scales = values.mean(0), values.std(0)
  means = centre + middle
  for d in np.flatnonzero(scales <= 1e-12 * np.abs(means)):
    raise UserError(
      f'{at} has measured values {names[d]!r} that are {means[d]:g} in all '
      'examples, of which nothing can be learnt; leave them out'
    )
  low, high = _UNITS
  for d in np.flatnonzero((scales < low) | (scales > high)):
    raise UserError(
      f'{at} has measured values {names[d]!r} whose standard deviation is '
      f'{scales[d]:g}; give them in a unit in which it is from {low:g} to '
      f'{high:g}'
    )

  def change(batch, numbers):
    labels = (batch['labels'] - middle) / scales
    return {
      **batch,
      'labels': labels.astype(np.float32),
      SCALE: np.broadcast_to(np.float32(scales), labels.shape),
    }

  made = {split: changed(own, change) for split, own in splits.items()}
  pairs = zip(names, means, scales, strict=True)
  said = several([f'{n}: {m:.6g} and {s:.6g}' for n, m, s in pairs])
  note = (
    'labels are standardised by the mean and the standard deviation of the '
    f'training split ({said}); errors are given in their own unit'
  )
  return made, (tuple(means.tolist()), tuple(scales.tolist())), (note,)


def lacking(
  splits: Mapping[str, Examples], classes: tuple[str, ...]
) -> tuple[str, ...]:
  """Notes on labels of several classes: unknown, or of one value."""
  notes = []
  for split, examples in splits.items():
    batch = examples.fetch(np.arange(len(examples)))
    labels, valid = batch['labels'], batch['valid']
    if not valid.all():
      notes.append(
        f'{1 - valid.mean():.1%} of the labels of {split} are unknown'
      )
    absent = np.flatnonzero(~(labels * valid).any(0))
    if absent.size:
      names = several([classes[k] for k in absent])
      notes.append(
        f'{split} has no example of {absent.size:,} of the {len(classes):,} '
        f'classes: {names}'
      )
    certain = np.flatnonzero(valid.any(0) & (labels | ~valid).all(0))
    if certain.size:
      names = several([classes[k] for k in certain])
      notes.append(
        f'all examples of {split} are of {certain.size:,} of the '
        f'{len(classes):,} classes, whose average precision is 1 for every '
        f'net: {names}'
      )
  return tuple(notes)


def check_measured(examples: Examples, at: str) -> None:
  """Refuses measured values that are not in memory."""
  if measured(examples) and examples.labels is None:
    raise UserError(
      f'{at} has measured values for labels, which must be in memory; give a '
      'jaxkd.data.examples.ArrayExamples'
    )
