"""SHA-256 checksums that identify data."""

import hashlib
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd.data import cache, file_cache, passes
from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.data.sources import Source
from jaxkd.paths import by_path

CACHE = Path('~/.cache/jaxkd/checksums')
_SAMPLE = 1024  # examples that are hashed where not all are in memory
_made: weakref.WeakKeyDictionary[Any, dict[str, str]] = (
  weakref.WeakKeyDictionary()
)


def of_source(source: Source) -> dict[str, str]:
  """Name of each part of the data -> checksum.

  The checksums also depend on the order of the examples.
  """
  found = {
    f'data.source ({field} of {split})': checksum
    for split, examples in source.splits.items()
    for field, checksum in of_examples(examples).items()
  }
  if source.sizes:
    found['data.source (sizes of files)'] = source.sizes
  names = np.frombuffer(repr([*map(str, source.classes)]).encode(), np.uint8)
  return {**found, 'data.source (classes)': cache.fingerprint([names])}


def of_examples(examples: Examples) -> dict[str, str]:
  """A checksum of each field of the examples, e.g. of their inputs.

  All labels are hashed, and what is read with them, as the boxes of objects; of
  the other fields, 1,024 examples where the split is not in memory. Where it
  says what its examples depend on
  (`StreamedExamples.content`), their checksums are kept until that changes.
  """
  if examples not in _made:
    _made[examples] = _of_examples(examples)
  return _made[examples]


def _of_examples(examples: Examples) -> dict[str, str]:
  content = getattr(examples, 'content', '')
  if content:
    file = CACHE / f'{content}.npz'
    found = file_cache.arrays(file, lambda: _of_fields(examples))
    found = {field: checksum.item() for field, checksum in found.items()}
  else:
    found = _of_fields(examples)
  labels = examples.labels
  # Label maps and sequences that are streamed were hashed when the index was
  # made, with the same result as in memory.
  if labels is None:
    index = examples.index
    return {**found, **dict(index.others), 'labels': index.checksum}
  return {**found, 'labels': cache.fingerprint([labels])}


def _of_fields(examples: Examples) -> dict[str, str]:
  """The checksum of each field; of labels it may be of some alone."""
  count = len(examples)
  numbers = np.arange(count)
  if not isinstance(examples, ArrayExamples) and count > _SAMPLE:
    numbers = np.linspace(0, count - 1, _SAMPLE).astype(int)
  found = {}
  for part in np.array_split(numbers, -(-len(numbers) // _SAMPLE)):
    _add(found, examples, part)
  return {field: each.hexdigest() for field, each in sorted(found.items())}


def _add(found: dict[str, Any], examples: Examples, part: np.ndarray) -> None:
  """Updates the checksums of fields as `cache.add` would with these examples.

  It holds no more examples in memory than `passes.parts` allows. A field of
  several arrays is read once for each, since each is hashed as a whole.
  """
  one, rest = examples.fetch(part[:1]), part[1:]
  for field in one.keys() - found.keys():
    found[field] = hashlib.sha256()
    cache.add(found[field], np.array(len(examples)))
  paths = {field: sorted(by_path(own)) for field, own in one.items()}
  for turn in range(max(map(len, paths.values()))):
    now = {field: own[turn] for field, own in paths.items() if turn < len(own)}
    for field, path in now.items():
      leaf = by_path(one[field])[path]
      shape = len(part), *leaf.shape[1:]
      found[field].update(cache.header(path, shape, leaf.dtype))
      found[field].update(cache.bytes_of(leaf))
    places = passes.parts(len(rest), passes.nbytes(one), 'checking the data')
    for _, batch in passes.read(lambda own: examples.fetch(rest[own]), places):
      for field, path in now.items():
        found[field].update(cache.bytes_of(by_path(batch[field])[path]))
