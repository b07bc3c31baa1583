"""An index of the labels of a split: which occur, how often, where first.

The class of each example takes four bytes and stays in memory. Label maps and
sequences of labels stay on disk: one pass over them finds which classes occur,
and the result is cached, so that the next run need not read them.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxkd.data import file_cache, passes
from jaxkd.errors import UserError

CACHE = Path('~/.cache/jaxkd/labels')
_VERSION = 2  # of what is kept there
_DENSE = 2**20  # the widest range of labels for a bincount; else a sort


class LabelIndex(NamedTuple):
  """Statistics of the labels of the N examples of a split.

  Attributes:
    classes: the class of each example, int32 [N], by which draws are
      stratified; all 0 where an example has many labels.
    each: the shape of one example's labels; () where it has one class.
    values: the distinct labels that count (see ``valid``), sorted, int64 [V].
    counts: how often each of these occurs, int64 [V].
    first: the number of the first example that has it, int64 [V].
    checksum: SHA-256 of all labels, where they are not in ``classes``.
    others: field -> SHA-256 of what else is read with such labels, as the boxes
      of objects are; pairs of texts, [n, 2].
  """

  classes: np.ndarray
  each: tuple[int, ...]
  values: np.ndarray
  counts: np.ndarray
  first: np.ndarray
  checksum: str = ''
  others: tuple[tuple[str, str], ...] = ()

  def earliest(self, wrong: np.ndarray) -> tuple[int, int] | None:
    """The first example that has one of the given labels, and that label.

    Args:
      wrong: marks those labels among ``values``, bool [V].
    """
    if not wrong.any():
      return None
    i = np.flatnonzero(wrong)[self.first[wrong].argmin()]
    return int(self.first[i]), int(self.values[i])


def of(labels: np.ndarray, valid: np.ndarray | None = None) -> LabelIndex:
  """The index of labels in memory.

  Args:
    labels: int32 [N, ...]; or float32 [N, D], of which none is a class.
    valid: which of them count, bool [N, ...]; all by default.
  """
  if labels.dtype.kind == 'f':
    return LabelIndex(
      np.zeros(len(labels), np.int32), labels.shape[1:], *_none()
    )
  found, each = _none(), labels.shape[1:]
  size = labels.nbytes // max(len(labels), 1)
  for numbers in passes.parts(
    len(labels), size, 'counting labels', most=len(labels)
  ):
    part = slice(numbers[0], numbers[-1] + 1)
    counts = None if valid is None else valid[part]
    found = _with(found, labels[part], counts, numbers[0])
  classes = np.zeros(len(labels), np.int32) if each else labels
  return LabelIndex(classes, each, *found)


def read(
  count: int, fetch: Callable[[np.ndarray], Mapping[str, Any]]
) -> LabelIndex:
  """The index of labels that are read in parts, in order.

  Args:
    count: the number of examples, N.
    fetch: gives ``labels``, int32 [n, ...], and perhaps ``valid`` and further
      fields of examples by their numbers, in any thread.

  Raises:
    UserError: the examples' labels differ in shape.
  """
  one = fetch(np.arange(1))
  each = one['labels'].shape[1:]
  classes = np.zeros(count, np.int32)
  found, checksums = _none(), {}
  if each:
    from jaxkd.data import cache  # imports TensorStore, which is slow

    for field, x in one.items():
      # A sample of the inputs is hashed, and of fields of several arrays.
      if field == 'inputs' or not isinstance(x, np.ndarray):
        continue
      checksums[field] = hashlib.sha256()
      if field != 'labels':  # as `jaxkd.data.fingerprint` hashes fields
        cache.add(checksums[field], np.array(count))
      checksums[field].update(cache.header('', (count, *x.shape[1:]), x.dtype))
  parts = passes.parts(count, passes.nbytes(one), 'reading labels')
  for numbers, batch in passes.read(fetch, parts):
    labels = batch['labels']
    if labels.shape[1:] != each:
      raise UserError(
        f'data.source: example {numbers[0]} has labels of shape '
        f'{labels.shape[1:]}, and example 0 of {each}; make them alike'
      )
    found = _with(found, labels, batch.get('valid'), numbers[0])
    for field, checksum in checksums.items():
      checksum.update(cache.bytes_of(batch[field]))
    if not each:
      classes[numbers] = labels
  others = {field: x.hexdigest() for field, x in sorted(checksums.items())}
  own = others.pop('labels', '')
  return LabelIndex(classes, each, *found, own, tuple(others.items()))


def cached(name: str, make: Callable[[], LabelIndex]) -> LabelIndex:
  """The index from the cache; computed and written if it is not there.

  Args:
    name: from `jaxkd.data.file_cache.key`; empty for no caching.
    make: computes it.
  """
  if not name:
    return make()
  file = CACHE / f'{name}.{_VERSION}.npz'
  found = file_cache.arrays(file, lambda: make()._asdict())
  plain = {
    'each': tuple(found['each'].tolist()),
    'checksum': found['checksum'].item(),
    'others': tuple(map(tuple, found['others'].tolist())),
  }
  return LabelIndex(**{**found, **plain})


_Occurring = tuple[np.ndarray, np.ndarray, np.ndarray]  # values, counts, first


def _none() -> _Occurring:
  return (np.zeros(0, np.int64),) * 3


def _with(
  found: _Occurring, labels: np.ndarray, valid: np.ndarray | None, start: int
) -> _Occurring:
  """Adds more examples to the statistics of those before.

  Args:
    found: of the examples before.
    labels: of the further examples, int [n, ...].
    valid: which of them count.
    start: the number of the first further example.
  """
  flat = labels.reshape(-1) if valid is None else labels[valid]
  if not flat.size:
    return found
  low, high = int(flat.min()), int(flat.max())
  if high - low < _DENSE:
    counts = np.bincount(flat.astype(np.int64) - low)
    values = np.flatnonzero(counts) + low
    counts = counts[values - low]
  else:
    values, counts = np.unique(flat, return_counts=True)
  first = np.zeros(len(values), np.int64)
  if np.setdiff1d(values, found[0]).size:  # else all have a first example
    per = math.prod(labels.shape[1:])
    places = np.arange(flat.size) if valid is None else np.flatnonzero(valid)
    # Of several writes to one index the last wins: here the earliest example.
    order = np.searchsorted(values, flat)[::-1]
    first[order] = places[::-1] // per + start
  values, place, where = np.unique(
    np.concatenate([found[0], values]), return_index=True, return_inverse=True
  )
  total = np.zeros(len(values), np.int64)
  np.add.at(total, where, np.concatenate([found[1], counts]))
  return values, total, np.concatenate([found[2], first])[place]
