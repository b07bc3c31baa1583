"""Splits of data: arrays or streams, checked and cut."""

import numpy as np
import pytest

from jaxkd.data import examples
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.errors import UserError

ALL = ArrayExamples(
  np.arange(20.0, dtype=np.float32).reshape(10, 2), np.arange(10) % 2
)
STREAM = StreamedExamples(10, ALL.fetch, lambda: ALL.labels)


@pytest.mark.parametrize('split', [ALL, STREAM])
def test_holding_out_cuts_by_class_and_always_the_same(split):
  rest, out = examples.hold_out(split, 4)
  assert (len(rest), len(out)) == (6, 4)
  np.testing.assert_array_equal(np.bincount(out.labels), [2, 2])
  first = [x.fetch(np.arange(len(x)))['inputs'][:, 0] for x in (rest, out)]
  assert sorted(np.concatenate(first)) == list(range(0, 20, 2))
  again = examples.hold_out(ALL, 4)[1]
  np.testing.assert_array_equal(
    out.fetch(np.arange(4))['inputs'], again.fetch(np.arange(4))['inputs']
  )


def test_small_streams_are_held_in_memory(monkeypatch):
  assert isinstance(examples.held(STREAM), ArrayExamples)
  monkeypatch.setattr(examples, 'IN_MEMORY', 79)
  assert examples.held(STREAM) is STREAM


def test_an_empty_stream_is_left_to_the_source():
  empty = examples.take(STREAM, np.arange(0))
  assert examples.held(empty) is empty


@pytest.mark.parametrize(
  ('given', 'made'),
  [
    (np.zeros((3, 4)), ((3, 4), 'float32')),
    (np.zeros((3, 4, 4), np.uint8), ((3, 4, 4, 1), 'uint8')),
    (np.zeros((3, 4, 4, 3), np.uint8), ((3, 4, 4, 3), 'uint8')),
    (np.full((3, 4), 2**31 - 1), ((3, 4), 'int32')),
    (np.full((3, 4), -(2**31), '>i8'), ((3, 4), 'int32')),
    (np.zeros((3, 4), bool), ((3, 4), 'float32')),
    (np.zeros((3, 4, 4), np.float16), ((3, 4, 4, 1), 'float32')),
    (np.zeros((3, 4, 4)), ((3, 4, 4, 1), 'float32')),
    (np.zeros((3, 4, 4), bool), ((3, 4, 4, 1), 'float32')),
    (np.zeros((3, 4, 4, 3), bool), ((3, 4, 4, 3), 'float32')),
  ],
)
def test_arrays_get_the_types_that_nets_take(given, made):
  found = examples.as_numbers(given, 'x')
  assert (found.shape, found.dtype) == made


@pytest.mark.parametrize(
  ('given', 'made'),
  [
    (np.zeros((3, 4, 5)), ((3, 4, 5), 'float32')),
    (np.zeros((3, 4, 5), np.uint8), ((3, 4, 5), 'int32')),
    (np.zeros((3, 4, 5, 6), np.int64), ((3, 4, 5, 6), 'int32')),
  ],
)
def test_what_is_no_image_keeps_its_axes(given, made):
  found = examples.as_numbers(given, 'x', images=False)
  assert (found.shape, found.dtype) == made


@pytest.mark.parametrize(
  ('inputs', 'message'),
  [
    (np.array([[1, 2], [3, 2**31]]), 'example 1 holds 2147483648;'),
    (np.zeros((2, 4, 4), np.int32), 'type int32; give images as uint8'),
    (np.zeros((2, 4, 4, 3), np.uint16), r'uint16; .*data\.kw\.range=\(LOW'),
    (np.array([{}, {}]), 'type object; they must be numbers'),
    (np.array(['a', 'b']), 'must be numbers'),
  ],
)
def test_arrays_that_cannot_be_inputs(inputs, message):
  with pytest.raises(UserError, match=f'^data.source: mine.*{message}'):
    examples.as_numbers(inputs, 'data.source: mine')


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (255, r'example 4321 holds 255; .*range=\(0, 255\), or .any. .*features'),
    (1.01, r'holds 1\.01; .*range=\(LOW, HIGH\)'),
    (-1, r'holds -1; .*range=\(-1, 1\)'),
    (60000, r'holds 60000; .*range=\(0, 65535\)'),
    (-2.5, r'holds -2\.5; .*range=\(LOW, HIGH\)'),
  ],
)
def test_floats_in_images_are_from_0_to_1(value, message):
  images = np.full((5000, 1, 1, 3), 0.5, np.float32)
  images[4321, 0, 0, 1] = value
  split = ArrayExamples({'x': images}, np.zeros(5000))
  with pytest.raises(UserError, match=f'^mine: .*{message}'):
    examples.checked(split, 2, at='mine')
  examples.checked(split, 2, at='mine', limits=None)
  stream = StreamedExamples(5000, split.fetch, lambda: split.labels)
  made = examples.checked(stream, 2, at='mine')
  with pytest.raises(UserError, match=message):
    made.fetch(np.arange(4300, 4400))


def test_what_is_no_image_may_hold_any_number():
  for shape in ((5,), (5, 6)):
    inputs = np.full((9, *shape), 255, np.float32)
    examples.checked(ArrayExamples(inputs, np.zeros(9)), 2, at='mine')
  # Nor is it wrong to round.
  inputs = np.full((9, 2, 2, 1), 1 + 1e-6, np.float32)
  examples.checked(ArrayExamples(inputs, np.zeros(9)), 2, at='mine')


@pytest.mark.parametrize('split', [ALL, STREAM])
def test_fields_can_be_changed(split):
  def change(batch, numbers):
    return {**batch, 'labels': batch['labels'] + 1, 'number': numbers}

  made = examples.changed(split, change, lambda: split.labels + 1)
  batch = made.fetch(np.array([7, 2]))
  np.testing.assert_array_equal(batch['labels'], ALL.labels[[7, 2]] + 1)
  np.testing.assert_array_equal(batch['number'], [7, 2])
  np.testing.assert_array_equal(made.labels, ALL.labels + 1)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_example(bad):
  inputs = np.zeros((5000, 2), np.float32)
  inputs[4321, 1] = bad
  split = ArrayExamples({'x': inputs}, np.zeros(5000))
  with pytest.raises(UserError, match='mine: example 4321 holds NaN or inf'):
    examples.checked(split, 2, at='mine')


def test_streams_are_checked_as_they_are_read():
  inputs = np.zeros((9, 2), np.float32)
  inputs[7] = np.nan
  split = ArrayExamples(inputs, np.arange(9) % 3)
  stream = StreamedExamples(9, split.fetch, lambda: split.labels)
  made = examples.take(examples.checked(stream, 3, at='mine'), np.arange(5, 9))
  assert len(made.fetch(np.arange(2))['labels']) == 2
  with pytest.raises(UserError, match='mine: example 7 holds NaN'):
    made.fetch(np.arange(4))
  with pytest.raises(UserError, match='mine: example 2 has the label 2'):
    examples.checked(stream, 2, at='mine').fetch(np.arange(4))


@pytest.mark.parametrize(
  ('labels', 'message'),
  [([0.0, 0.5], 'example 1 has the label 0.5'), ([0], '1 labels for 2 inputs')],
)
def test_examples_of_ones_own_are_checked(labels, message):
  with pytest.raises(UserError, match=f'^data.source.*{message}'):
    ArrayExamples(np.zeros((2, 1)), labels)
  stream = StreamedExamples(2, ALL.fetch, lambda: np.array([0.0, 0.5]))
  with pytest.raises(UserError, match=r'example 1 has the label 0\.5'):
    _ = stream.labels  # read when asked for


@pytest.mark.parametrize('bad', [-1, 3])
def test_labels_out_of_range_are_named_by_example(bad):
  labels = np.array([0, 1, 2, bad])
  split = ArrayExamples(np.zeros((4, 1)), labels)
  message = f'mine: example 3 has the label {bad}, .* 0 to 2'
  with pytest.raises(UserError, match=message):
    examples.checked(split, 3, at='mine')


class TestLabelsOfManyClassesEach:
  LABELS = np.arange(24).reshape(6, 4) % 3
  VALID = np.ones((6, 4), bool)

  def split(self, labels=LABELS, valid=VALID):
    return ArrayExamples(np.zeros((6, 2)), labels, valid=valid)

  def test_are_held_out_as_others_are(self):
    rest, out = examples.hold_out(self.split(), 2)
    assert rest.labels.shape == (4, 4) and out.labels.shape == (2, 4)
    assert out.labels.dtype == np.int32

  def test_count_where_they_are_valid(self):
    labels, valid = self.LABELS.copy(), self.VALID.copy()
    labels[4, 1] = 7
    message = 'mine: example 4 has the label 7, .* 0 to 2'
    with pytest.raises(UserError, match=message):
      examples.checked(self.split(labels), 3, at='mine')
    valid[4, 1] = False
    examples.checked(self.split(labels, valid), 3, at='mine')

  @pytest.mark.parametrize('valid', [VALID[:, :2], VALID.astype(int)])
  def test_need_to_know_of_each_whether_it_is_valid(self, valid):
    with pytest.raises(UserError, match='mine: the field valid of example 0'):
      examples.checked(self.split(valid=valid), 3, at='mine')

  def test_of_a_part_that_is_no_number_the_example_is_named(self):
    labels = self.LABELS + 0.0
    labels[5, 3] = np.nan
    with pytest.raises(UserError, match='example 5 has the label nan'):
      self.split(labels)


class TestExamplesOfOnesOwn:
  """Of any class that has a length, gives batches, and perhaps labels."""

  class Own:
    def __init__(self, **fields):
      self._fields = fields

    def __len__(self):
      return len(self._fields['labels'])

    def fetch(self, numbers):
      return {name: x[numbers] for name, x in self._fields.items()}

  def test_need_not_know_their_labels(self):
    maps = np.arange(24).reshape(6, 4) % 3
    own = self.Own(inputs=np.zeros((6, 2)), labels=maps, valid=maps > 0)
    made = examples.checked(own, 3, at='mine')
    assert made.labels is None
    np.testing.assert_array_equal(made.index.values, [1, 2])
    rest, out = examples.hold_out(made, 2)
    np.testing.assert_array_equal(
      rest.index.counts + out.index.counts, made.index.counts
    )
    examples.check_labels(made, 3, at='mine')
    with pytest.raises(UserError, match='mine: example 0 has the label 2, wh'):
      examples.check_labels(made, 2, at='mine')

  def test_are_checked_as_their_labels_are_read(self):
    labels = np.arange(6.0)
    labels[4] = 0.5
    own = self.Own(inputs=np.zeros((6, 2)), labels=labels)
    with pytest.raises(UserError, match=r'example 4 has the label 0\.5'):
      _ = examples.streamed(own).index
    own = self.Own(labels=np.arange(6), valid=np.ones(6, int))
    with pytest.raises(UserError, match='the field valid of example 0'):
      _ = examples.streamed(own).index

  def test_measured_values_are_no_classes_when_read_otherwise(self):
    values = np.linspace(0, 1, 6)[:, None]
    own = examples.ArrayExamples(
      np.zeros((6, 2)), values, **{examples.SCALE: np.ones((6, 1))}
    )
    made = examples.streamed(own).read_by(own.fetch)
    assert made.index.each == (1,)
    assert not made.index.values.size

  def test_some_label_counts(self):
    labels = np.arange(6)
    own = self.Own(inputs=labels, labels=labels, valid=labels > 9)
    made = examples.checked(own, 6, at='mine')
    with pytest.raises(UserError, match='mine has no label that counts'):
      examples.check_labels(made, 6, at='mine')


class TestUnits:
  """The unit of each example, of fields in memory and of those on disk."""

  LABELS = np.arange(12) % 2
  SPEAKERS = np.arange(12) // 3

  @pytest.fixture(params=[True, False], ids=['memory', 'streamed'])
  def split(self, request):
    fields = dict(
      inputs=np.zeros((12, 2)),
      labels=self.LABELS,
      speaker=self.SPEAKERS,
      level=np.zeros(12),
    )
    if request.param:
      return examples.ArrayExamples(**fields)
    return examples.streamed(TestExamplesOfOnesOwn.Own(**fields))

  def test_are_read_by_the_name_of_their_field(self, split):
    found = examples.units(split, 'speaker', 'at')
    np.testing.assert_array_equal(found, self.SPEAKERS)
    assert examples.units(split, '', 'at') is None
    part = examples.take(split, np.array([5, 0]))
    np.testing.assert_array_equal(examples.units(part, 'speaker', 'at'), [1, 0])

  @pytest.mark.parametrize(
    ('field', 'message'),
    [
      ('speakers', "^at: there is no field .*did you mean 'speaker'"),
      ('labels', '^at: there is no field '),
      ('level', r'^at: the field level is float64 \[\]; units are whole'),
    ],
  )
  def test_are_whole_numbers_of_a_field(self, split, field, message):
    with pytest.raises(UserError, match=message):
      examples.units(split, field, 'at')

  def test_stay_whole_where_some_are_held_out(self, split):
    parts = examples.hold_out(split, 1, self.SPEAKERS)
    speakers = [set(examples.units(p, 'speaker', 'at')) for p in parts]
    assert list(map(len, speakers)) == [3, 1] and not set.intersection(
      *speakers
    )
    assert list(map(len, parts)) == [9, 3]
