"""What of the data a checksum sees."""

import numpy as np
import pytest

from jaxkd.data import cache, fingerprint
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.data.sources import Source

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.random((6, 4), np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def source(test=None, **changes):
  splits = {
    'train': ArrayExamples(INPUTS, LABELS),
    'test': test or ArrayExamples(INPUTS[:3], LABELS[:3]),
  }
  return Source('mine', splits, 3, (4,), ('a', 'b', 'c'))._replace(**changes)


def changed(*args, **kw):
  """Which parts are others than those of `source()`."""
  first = fingerprint.of_source(source())
  other = fingerprint.of_source(source(*args, **kw))
  return {x for x in {*first, *other} if first.get(x) != other.get(x)}


def test_what_has_changed_is_named():
  assert changed() == set()
  nudged = INPUTS[:3].copy()
  nudged[2, 3] = np.nextafter(nudged[2, 3], 2, dtype=np.float32)
  inputs = 'data.source (inputs of test)'
  labels = 'data.source (labels of test)'
  assert changed(ArrayExamples(nudged, LABELS[:3])) == {inputs}
  assert changed(ArrayExamples(INPUTS[:3], LABELS[[0, 1, 0]])) == {labels}
  order = [1, 0, 2]
  moved = ArrayExamples(INPUTS[order], LABELS[order])
  assert changed(moved) == {inputs, labels}
  valid = ArrayExamples(INPUTS[:3], LABELS[:3], valid=np.ones(3, bool))
  assert changed(valid) == {'data.source (valid of test)'}
  assert changed(classes=('a', 'c', 'b')) == {'data.source (classes)'}
  assert changed(notes=('cropped',)) == set()  # they tell of what is compared


def test_inputs_of_several_arrays():
  both = ArrayExamples({'a': INPUTS, 'b': INPUTS[:, :1]}, LABELS)
  other = ArrayExamples({'b': INPUTS, 'a': INPUTS[:, :1]}, LABELS)
  first, second = map(fingerprint.of_examples, (both, other))
  assert first['inputs'] != second['inputs']
  assert first['labels'] == second['labels']


def test_caches_of_outputs_that_are_there_stay_known():
  found = fingerprint.of_examples(ArrayExamples(INPUTS, LABELS))
  assert found['inputs'] == cache.fingerprint([np.array(6), INPUTS])


def test_streamed_examples_have_a_sample_of_inputs_and_all_labels():
  count, fetched = 5000, []

  def streamed(labels):
    def fetch(numbers):
      fetched.extend(numbers)
      return {'inputs': numbers.astype(np.float32), 'labels': labels[numbers]}

    return StreamedExamples(count, fetch, lambda: labels)

  labels = np.arange(count, dtype=np.int32) % 7
  first = fingerprint.of_examples(streamed(labels))
  assert len(fetched) == 1024
  assert {0, count - 1} < set(fetched)
  other = labels.copy()
  left_out = next(i for i in range(count) if i not in fetched)
  other[left_out] = 6 - other[left_out]
  second = fingerprint.of_examples(streamed(other))
  assert first['inputs'] == second['inputs']
  assert first['labels'] != second['labels']


def test_it_is_computed_once(monkeypatch):
  examples = ArrayExamples(INPUTS, LABELS)
  first = fingerprint.of_examples(examples)
  monkeypatch.setattr(examples, 'fetch', pytest.fail)
  assert fingerprint.of_examples(examples) == first


def test_maps_that_stay_on_disk_are_known_as_in_memory_and_to_the_last_pixel():
  count = 3000
  maps = np.arange(count * 6, dtype=np.int32).reshape(count, 2, 3) % 5

  def streamed(labels):
    def fetch(numbers):
      inputs = {'a': labels[numbers] / 5, 'b': numbers[:, None] + 0.0}
      return {'inputs': inputs, 'labels': labels[numbers]}

    return StreamedExamples(count, fetch)

  first = fingerprint.of_examples(streamed(maps))
  assert first['labels'] == cache.fingerprint([maps])
  taken = np.linspace(0, count - 1, 1024).astype(int)
  inputs = {'a': maps[taken] / 5, 'b': taken[:, None] + 0.0}
  sample = ArrayExamples(inputs, maps[taken])
  for own in (first, fingerprint.of_examples(sample)):
    assert own['inputs'] == cache.fingerprint(
      [np.array(count if own is first else len(taken)), inputs]
    )
  other = maps.copy()
  left_out = np.setdiff1d(np.arange(count), taken)[0]
  other[left_out, 1, 2] += 1
  second = fingerprint.of_examples(streamed(other))
  assert second['inputs'] == first['inputs']
  assert second['labels'] != first['labels']


def test_boxes_that_stay_on_disk_are_known_to_the_last():
  count = 1500
  fields = {
    'labels': np.zeros((count, 2), np.int32),
    'valid': np.ones((count, 2), bool),
    'boxes': RANDOM.random((count, 2, 4), np.float32),
  }

  def streamed(fields):
    def read_labels(numbers):
      return {name: x[numbers] for name, x in fields.items()}

    def fetch(numbers):
      return {'inputs': numbers + 0.0, **read_labels(numbers)}

    return StreamedExamples(count, fetch, read_labels=read_labels)

  first = fingerprint.of_examples(streamed(fields))
  left_out = np.setdiff1d(
    np.arange(count), np.linspace(0, count - 1, 1024).astype(int)
  )
  other = {**fields, 'boxes': fields['boxes'].copy()}
  other['boxes'][left_out[0], 1, 2] += 1
  second = fingerprint.of_examples(streamed(other))
  assert {k for k in first if first[k] != second[k]} == {'boxes'}


def test_a_sample_is_read_in_parts(monkeypatch):
  monkeypatch.setattr(fingerprint.passes, '_BYTES', 7 * 4 * (4 + 1))
  whole = ArrayExamples(INPUTS.repeat(50, 0), LABELS.repeat(50))
  once = fingerprint.of_examples(whole)
  sizes = []

  def fetch(numbers):
    sizes.append(len(numbers))
    return whole.fetch(numbers)

  stream = StreamedExamples(300, fetch, lambda: whole.labels)
  assert fingerprint.of_examples(stream) == once
  assert max(sizes) == 7
  assert once['inputs'] == cache.fingerprint(
    [np.array(300), INPUTS.repeat(50, 0)]
  )
