"""What is known of labels without holding them."""

import numpy as np
import pytest

from jaxkd.data import cache, index, passes
from jaxkd.data.examples import StreamedExamples
from jaxkd.errors import UserError

RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(-2, 5, 1000).astype(np.int32)
MAPS = RANDOM.integers(0, 9, (60, 4, 5)).astype(np.int32)
WIDE = RANDOM.choice([-(2**31), 0, 7, 2**31 - 1], (60, 3)).astype(np.int32)


def check(found, labels, valid=None):
  valid = np.ones(labels.shape, bool) if valid is None else valid
  values, counts = np.unique(labels[valid], return_counts=True)
  np.testing.assert_array_equal(found.values, values)
  np.testing.assert_array_equal(found.counts, counts)
  first = [np.argwhere((labels == v) & valid)[0, 0] for v in values]
  np.testing.assert_array_equal(found.first, first)
  assert found.each == labels.shape[1:]
  if found.each:
    np.testing.assert_array_equal(found.classes, np.zeros(len(labels)))
  else:
    np.testing.assert_array_equal(found.classes, labels)


def fetch_of(labels, valid=None):
  def fetch(numbers):
    assert len(numbers) <= 7
    fields = {} if valid is None else {'valid': valid[numbers]}
    return {'labels': labels[numbers], **fields}

  return fetch


@pytest.mark.parametrize('labels', [CLASSES, MAPS, WIDE])
@pytest.mark.parametrize('some', [False, True])
def test_tells_what_occurs_how_often_and_where_first(labels, some, monkeypatch):
  valid = labels % 3 > 0 if some else None
  check(index.of(labels, valid), labels, valid)
  monkeypatch.setattr(passes, '_BYTES', 7 * labels[0].nbytes)  # a part's
  check(index.of(labels, valid), labels, valid)
  found = index.read(len(labels), fetch_of(labels, valid))
  check(found, labels, valid)
  whole = cache.fingerprint([labels]) if found.each else ''
  assert found.checksum == whole


def test_the_earliest_example_with_one_of_some_labels():
  found = index.of(np.array([3, 1, 2, 1], np.int32))
  assert found.earliest(found.values < 3) == (1, 1)
  assert found.earliest(found.values > 1) == (0, 3)
  assert found.earliest(found.values > 3) is None


def test_there_may_be_none_that_counts():
  found = index.of(MAPS, np.zeros(MAPS.shape, bool))
  assert not found.values.size and not found.counts.size


def test_labels_of_several_shapes_are_refused(monkeypatch):
  def fetch(numbers):
    return {'labels': np.zeros((len(numbers), 2 + numbers[0] // 256))}

  with pytest.raises(
    UserError, match=r'example 256 has labels of shape \(3,\)'
  ):
    index.read(300, fetch)


class TestKept:
  def make(self):
    return index.read(60, fetch_of(MAPS))

  @pytest.fixture(autouse=True)
  def small(self, monkeypatch):
    monkeypatch.setattr(passes, '_BYTES', 7 * MAPS[0].nbytes)

  @pytest.mark.parametrize('labels', [CLASSES, MAPS, WIDE])
  def test_comes_back_as_it_was_made(self, labels):
    first = index.cached('a', lambda: index.of(labels))
    again = index.cached('a', pytest.fail)
    check(again, labels)
    assert again.checksum == first.checksum
    assert [x.dtype for x in again if isinstance(x, np.ndarray)] == [
      x.dtype for x in first if isinstance(x, np.ndarray)
    ]

  def test_comes_back_with_what_else_was_read(self):
    made = index.read(60, fetch_of(MAPS, MAPS > 3))
    ((field, checksum),) = made.others
    assert field == 'valid' and len(checksum) == 64
    index.cached('a', lambda: made)
    assert index.cached('a', pytest.fail).others == made.others

  def test_has_a_name(self):
    index.cached('', self.make)
    assert not index.CACHE.exists()
    index.cached('a', self.make)
    index.cached('b', self.make)
    assert len([*index.CACHE.iterdir()]) == 2


class TestOfStreams:
  def stream(self, own=MAPS, **options):
    read = []

    def fetch(numbers):
      read.append(len(numbers))
      return {'inputs': np.zeros((len(numbers), 3)), 'labels': own[numbers]}

    return StreamedExamples(len(own), fetch, **options), read

  def test_parts_are_known_by_who_is_in_them(self):
    whole, _ = self.stream(name='mine')
    even, odd = (whole.take(np.arange(i, 60, 2)) for i in range(2))
    again = whole.take(np.arange(0, 60, 2))
    assert len({whole.name, even.name, odd.name}) == 3
    assert again.name == even.name
    check(even.index, MAPS[::2])
    check(odd.index, MAPS[1::2])
    np.testing.assert_array_equal(
      odd.take(np.arange(3)).fetch(np.arange(3))['labels'], MAPS[[1, 3, 5]]
    )
    check(odd.take(np.arange(3)).index, MAPS[[1, 3, 5]])

  def test_what_has_no_name_is_not_kept(self):
    whole, _ = self.stream()
    assert whole.take(np.arange(4)).name == ''
    _ = whole.index
    assert not index.CACHE.exists()

  def test_many_labels_are_never_all_in_memory(self, monkeypatch):
    monkeypatch.setattr(passes, '_BYTES', 7 * (MAPS[0].nbytes + 24))
    split, read = self.stream()
    assert split.labels is None
    assert max(read) == 7
    assert sum(read) == 61  # and one to see how large they are
    check(split.index, MAPS)
    assert sum(read) == 61

  def test_labels_of_parts_are_not_read_where_they_are_classes(self):
    split, read = self.stream(CLASSES, labels=lambda: CLASSES)
    check(split.take(np.arange(5, 50)).index, CLASSES[5:50])
    assert max(read) == 1
