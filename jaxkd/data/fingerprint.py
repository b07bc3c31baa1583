"""SHA-256 checksums by which data are known again."""

import hashlib
import weakref
from typing import Any

import numpy as np

from jaxkd.data import cache
from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.data.sources import Source

_SAMPLE = 1024  # examples that stand for all where these are not in memory
_made: weakref.WeakKeyDictionary[Any, dict[str, str]] = (
  weakref.WeakKeyDictionary()
)


def of_source(source: Source) -> dict[str, str]:
  """A checksum of each part of the data, by what the part is called.

  Another order of the examples gives other checksums, too.
  """
  found = {
    f'data.source ({field} of {split})': checksum
    for split, examples in source.splits.items()
    for field, checksum in of_examples(examples).items()
  }
  names = np.frombuffer(repr([*map(str, source.classes)]).encode(), np.uint8)
  return {**found, 'data.source (classes)': cache.fingerprint([names])}


def of_examples(examples: Examples) -> dict[str, str]:
  """A checksum of each field of the examples, e.g. of their inputs.

  Of all labels, but of 1,024 examples' other fields where these are not in
  memory.
  """
  if examples not in _made:
    _made[examples] = _of_examples(examples)
  return _made[examples]


def _of_examples(examples: Examples) -> dict[str, str]:
  count = len(examples)
  numbers = np.arange(count)
  if not isinstance(examples, ArrayExamples) and count > _SAMPLE:
    numbers = np.linspace(0, count - 1, _SAMPLE).astype(int)
  found = {}
  for part in np.array_split(numbers, -(-len(numbers) // _SAMPLE)):
    for field, values in examples.fetch(part).items():
      if field not in found:
        found[field] = hashlib.sha256()
        cache.add(found[field], np.array(count))
      cache.add(found[field], values)
  found = {field: each.hexdigest() for field, each in sorted(found.items())}
  labels = examples.labels
  # Those of maps and sequences that are read as asked for have been hashed on
  # the way, as if they were in memory.
  found['labels'] = (
    examples.index.checksum if labels is None else cache.fingerprint([labels])
  )
  return found
