"""Labels as people write them: which class of how many they say."""

import numpy as np
import pytest

from jaxkd.data import conventions, labels
from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.errors import UserError

AT = {
  'all': 'data.source: mine',
  'train': "data.source: the split 'train' of mine",
  'test': "data.source: the split 'test' of mine",
}
CLASSES = np.arange(12) % 3


def read(train, test=None, **options):
  splits = {'all': train} if test is None else {'train': train, 'test': test}
  return labels.read(splits, conventions.of(**options), AT)


def splits_of(train, test, valid=None):
  fields = {} if valid is None else {'valid': valid}
  return {
    'train': ArrayExamples(np.zeros(len(train)), np.array(train), **fields),
    'test': ArrayExamples(np.zeros(len(test)), np.array(test), **fields),
  }


@pytest.mark.parametrize(
  'given',
  [
    CLASSES,
    CLASSES.astype(np.uint8),
    CLASSES.astype(np.float16),
    CLASSES[:, None],
    CLASSES[:, None, None] + 0.0,
    CLASSES.astype(object),
    CLASSES.tolist(),
    np.eye(3)[CLASSES],
    np.eye(3, dtype=bool)[CLASSES],
    np.eye(3, dtype=np.uint8)[CLASSES].astype(object),
  ],
)
def test_numbers_are_read_however_they_are_written(given):
  made, names, notes = read(given)
  np.testing.assert_array_equal(made['all'], CLASSES)
  assert made['all'].dtype == np.int32
  assert names == ()
  one_hot = np.ndim(given) == 2 and np.shape(given)[1] == 3
  said = ('labels are one-hot rows of 3 columns, read as their numbers',)
  assert notes == (said if one_hot else ())


@pytest.mark.parametrize(
  'given', [CLASSES > 0, (CLASSES > 0)[:, None], (CLASSES > 0).astype(object)]
)
def test_booleans_are_two_classes(given):
  made, names, _ = read(given)
  np.testing.assert_array_equal(made['all'], CLASSES > 0)
  assert made['all'].dtype == np.int32
  assert names == ('False', 'True')


@pytest.mark.parametrize('kind', [str, object, 'S3'])
def test_names_are_classes_in_their_order(kind):
  names = np.array(['cat', 'bee', 'ant'])
  made, found, _ = read(names[CLASSES].astype(kind), names[[1, 2]].astype(kind))
  assert found == ('ant', 'bee', 'cat')
  np.testing.assert_array_equal(made['train'], 2 - CLASSES)
  np.testing.assert_array_equal(made['test'], [1, 0])
  _, found, _ = read(names[CLASSES], classes=('bee', 'ant', 'eel', 'cat'))
  assert found == ('bee', 'ant', 'eel', 'cat')
  spaced = np.array(['cat', 'bee', 'bee '])
  with pytest.raises(UserError, match=r"labels 'bee' and 'bee ', .* in spaces"):
    read(spaced[CLASSES].astype('S4' if kind == 'S3' else kind))
  assert read(spaced[CLASSES], classes=tuple(spaced))[1] == tuple(spaced)
  message = "'test' of mine: example 1 has the label 'eel', which is none of"
  with pytest.raises(UserError, match=message):
    read(names[CLASSES], np.array(['cat', 'eel']))


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ([0, 0.5], 'example 1 has the label 0.5'),
    ([np.nan, 0], 'example 0 has the label nan'),
    ([0, -np.inf], 'example 1 has the label -inf'),
    ([0, 2**32], 'example 1 has the label 4294967296;'),
    (np.array([0, 2**64 - 1], np.uint64), 'example 1 has'),
    ([[1, 1], [0, 1]], r'labels of shape \(2, 2\).* rows that are 1 at the'),
    ([[0, 0], [0, 1]], r'labels of shape \(2, 2\)'),
    ([[0.9, 0.1], [0, 1]], r'labels of shape \(2, 2\)'),
    ([[0, 2], [1, 0]], r'labels of shape \(2, 2\)'),
    ([[0, np.nan], [1, 0]], r'labels of shape \(2, 2\)'),
    (np.zeros((2, 3, 3)), 'must be class numbers, one for each example'),
    (3, 'must be class numbers, one for each example'),
    ([['a', 'b'], ['b', 'a']], 'must be class numbers'),
    (['a', ' '], 'example 1 has an empty label'),
    (np.array(['a', 1], object), 'example 1 has the label 1; labels must all'),
    (np.array([1, None], object), 'example 1 has the label None'),
    (np.array([1, True], object), 'example 1 has the label True'),
    (np.array([True, 1], object), 'example 1 has the label 1'),
    (np.array(['2020-01-01'] * 2, 'M8[D]'), 'must be class numbers'),
    (np.array([1j, 0]), 'must be class numbers'),
  ],
)
def test_labels_that_say_no_class(given, message):
  with pytest.raises(UserError, match=f'^data.source: mine.*{message}'):
    read(given)


@pytest.mark.parametrize(
  ('test', 'message'),
  [
    (np.eye(3)[CLASSES], 'numbers in the split train and one-hot rows of 3 in'),
    (CLASSES > 0, 'numbers in the split train and booleans in test'),
    (CLASSES.astype(str), 'numbers in the split train and text in test'),
  ],
)
def test_splits_are_labelled_alike(test, message):
  with pytest.raises(UserError, match=f'^data.source: labels are {message}'):
    read(CLASSES, test)
  with pytest.raises(UserError, match=r'rows of 3 in the split train and .*4'):
    read(np.eye(3)[CLASSES], np.eye(4)[CLASSES])
  made, *_ = read(CLASSES, CLASSES[:, None] + 0.0)  # which are alike
  np.testing.assert_array_equal(made['test'], CLASSES)


def test_columns_without_an_example():
  with pytest.raises(UserError, match=r'rows of 4 columns.*\.num_classes=4 to'):
    read(np.eye(4)[CLASSES])
  made, *_ = read(np.eye(4)[CLASSES], num_classes=4)
  np.testing.assert_array_equal(made['all'], CLASSES)
  # As `to_categorical` makes of labels from 1 on.
  made, *_ = read(np.eye(4)[CLASSES + 1])
  with pytest.raises(UserError, match='no example of class 0'):
    labels.check_gaps(splits_of(made['all'], made['all']), AT)


@pytest.mark.parametrize(
  ('train', 'test', 'message'),
  [
    ([1, 2, 3], [1, 2, 3],
     r"'train' .*no example of class 0, .* 3; .*classes=\(1, 2, 3\) .*=4 if"),
    ([0, 7, 255], [0, 7, 255],
     r'class 1, .* 255; .*classes=\(0, 7, 255\) .*num_classes=256'),
    ([*range(1, 90)], [5], "classes='sorted' if"),
    ([0, 1], [0, 1, 2], "'test' .*label 2, which no example in train has"),
    ([1, 2], [0, 1], "'test' .*label 0, which no example in train has"),
  ],
)  # fmt: skip
def test_numbers_without_an_example_are_refused(train, test, message):
  splits, names, notes = labels.numbered(
    splits_of(train, test), conventions.of(), AT
  )
  assert len(names) == max(*train, *test) + 1
  assert notes == ()
  with pytest.raises(UserError, match=f'^data.source: .*{message}'):
    labels.check_gaps(splits, AT)


def test_a_test_split_may_lack_a_class():
  splits = splits_of([0, 1, 2], [0, 2])
  labels.check_gaps(splits, AT)
  assert labels.lacking(splits, ('a', 'b', 'c')) == (
    'test has no example of 1 of the 3 classes: b',
  )
  many = splits_of([*range(40)], [0])
  (note,) = labels.lacking(many, tuple(map(str, range(40))))
  assert note.endswith('39 of the 40 classes: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 '
                       'and 29 more')  # fmt: skip


def test_labels_that_do_not_count_are_none():
  one = np.array([[0, 1], [2, 5]])
  splits = splits_of(one, one, valid=one < 5)
  labels.check_gaps(splits, AT)
  splits = splits_of(one, one, valid=one != 1)
  with pytest.raises(UserError, match=r'of class 1, .* 5; set data.kw.num_c'):
    labels.check_gaps(splits, AT)


@pytest.mark.parametrize(
  ('classes', 'values'),
  [
    ((1, 2, 3), [1, 2, 3]),
    ('sorted', [1, 2, 3]),
    ([3, 1, 2], [3, 1, 2]),
    ((9, 1, 2, 3), [9, 1, 2, 3]),
  ],
)
@pytest.mark.parametrize('streamed', [False, True])
def test_labels_can_be_given(classes, values, streamed):
  splits = splits_of([1, 2, 3, 1], [3, 3, 2])
  if streamed:
    splits = {
      name: StreamedExamples(len(x), x.fetch, lambda x=x: x.labels)
      for name, x in splits.items()
    }
  made, names, (note,) = labels.numbered(
    splits, conventions.of(classes=classes), AT
  )
  assert names == tuple(map(str, values))
  last = len(values) - 1
  said = ', '.join(map(str, values))
  assert note == f'labels {said} are classes 0 to {last}'
  for split, own in made.items():
    found = np.array(values)[own.labels]
    np.testing.assert_array_equal(found, splits[split].labels)
    batch = own.fetch(np.arange(len(own))[::-1])
    np.testing.assert_array_equal(batch['labels'], own.labels[::-1])


def test_labels_that_were_not_given_are_named():
  splits = splits_of([1, 2, 1], [1, 2, 5])
  for classes in ((1, 2), 'sorted'):
    message = "'test' of mine: example 2 has the label 5, which is none of 1, 2"
    with pytest.raises(UserError, match=message):
      labels.numbered(splits, conventions.of(classes=classes), AT)
  with pytest.raises(
    UserError, match=r"^data\.kw\.classes: 'a' should be a whole"
  ):
    labels.numbered(splits, conventions.of(classes=('a', 1)), AT)


def test_labels_below_0_are_named():
  splits = splits_of([-1, 1, -1], [1, -1])
  message = r"'train' of mine: example 0 has the label -1, .*classes=\(-1, 1\)"
  with pytest.raises(UserError, match=message):
    labels.numbered(splits, conventions.of(), AT)
  made, names, _ = labels.numbered(splits, conventions.of(classes=(-1, 1)), AT)
  assert names == ('-1', '1')
  np.testing.assert_array_equal(made['train'].labels, [0, 1, 0])
