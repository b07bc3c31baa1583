"""Outputs in files find their examples, or are refused."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.sources import Source
from jaxkd.errors import UserError
from jaxkd.teachers import recorded
from jaxkd.teachers.recorded import Recorded

AT = r'^teachers\.main\.restore: '


@pytest.fixture(scope='module')
def digits():
  return sources.load('digits')


def logits(labels, seed=0):
  """Logits whose largest is mostly that of the label."""
  random = np.random.default_rng(seed)
  noise = random.normal(size=(len(labels), 10))
  return (3 * np.eye(10)[labels] + noise).astype(np.float32)


def taught(path, source, classes=10):
  return Recorded(f'outputs:{path}', source, classes, 'teachers.main')


def check(path, source, wanted, split='train'):
  numbers = np.arange(len(wanted))[::-3]
  found = taught(path, source)
  got = found.outputs(split, numbers)['logits']
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, wanted[numbers])
  return ' '.join(found.notes)


def test_rows_are_found_by_order_by_id_and_by_labels(digits, tmp_path):
  train = digits.splits['train']
  labels, values = train.labels, logits(train.labels)
  order = np.random.default_rng(1).permutation(len(labels))
  np.save(tmp_path / 'a.npy', values.astype(np.float64))
  notes = check(tmp_path / 'a.npy', digits, values)
  agreement = (values.argmax(-1) == labels).mean()
  assert 'taken to be in the order of the data' in notes
  assert f'that of the label for {agreement:.1%} of them' in notes
  np.savez(tmp_path / 'a.npz', logits=values[order], id=order)
  assert 'by their id' in check(tmp_path / 'a.npz', digits, values)
  np.savez(
    tmp_path / 'b.npz', logits=values[order], labels=labels[order], id=order
  )
  notes = check(tmp_path / 'b.npz', digits, values)
  assert 'by their id and their labels' in notes


def test_a_file_of_all_examples_serves_every_split(digits, tmp_path):
  """Those of digits are split here, and a file has them as they come."""
  count = digits.origins['train'].count
  labels = np.empty(count, int)
  for split, origin in digits.origins.items():
    labels[origin.numbers] = digits.splits[split].labels
  np.testing.assert_array_equal(labels, load_digits().target)
  values = logits(labels)
  np.savez(tmp_path / 'a.npz', logits=values, labels=labels)
  np.save(tmp_path / 'a.npy', values)
  order = np.random.default_rng(1).permutation(count)
  np.savez(tmp_path / 'b.npz', logits=values[order], id=order)
  for split, origin in digits.origins.items():
    for name in ('a.npz', 'a.npy', 'b.npz'):
      check(tmp_path / name, digits, values[origin.numbers], split)
  part = sources.of_classes(
    digits, {'train': (3, 4), 'validation': (), 'test': ()}
  )
  wanted = values[part.origins['train'].numbers]
  check(tmp_path / 'a.npz', part, wanted)
  assert taught(tmp_path / 'a.npz', part).splits == set(digits.splits)


def test_splits_have_files_of_their_own(digits, tmp_path):
  values = {s: logits(x.labels) for s, x in digits.splits.items()}
  for split in ('train', 'test'):
    recorded.save(
      tmp_path / f'{split}.npz', digits.splits[split], {'logits': values[split]}
    )
  for name in ('', '{split}.npz'):
    for split in ('train', 'test'):
      notes = check(tmp_path / name, digits, values[split], split)
      assert 'the checksum of the inputs' in notes
    assert taught(tmp_path / name, digits).splits == {'train', 'test'}
  alone = taught(tmp_path / 'train.npz', digits)
  assert alone.splits == {'train'}
  before = recorded.checksum(f'outputs:{tmp_path}', at='at')
  recorded.save(
    tmp_path / 'test.npz', digits.splits['test'], {'logits': 2 * values['test']}
  )
  assert recorded.checksum(f'outputs:{tmp_path}', at='at') != before
  np.save(tmp_path / 'test.npy', values['test'])
  with pytest.raises(UserError, match=f'{AT}.*test.npy and test.npz; keep'):
    taught(tmp_path, digits)


def test_outputs_of_other_examples_are_refused(digits, tmp_path):
  train = digits.splits['train']
  labels, values = train.labels, logits(train.labels)
  count, number = len(labels), 0

  def refused(said, classes=10, **arrays):
    nonlocal number
    number += 1
    path = tmp_path / f'{number}.npz'
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=f'{AT}.*{said}') as error:
      taught(path, digits, classes)
    assert '\n' not in str(error.value)

  order = np.random.default_rng(1).permutation(count)
  refused('has 1,075 rows, and train of digits has 1,078', logits=values[3:])
  refused('1,078 rows of a and 3 of b', a=values, b=values[:3])
  refused('rows in a random order would have', logits=values[order])
  refused('rows in a random order would have', logits=values, id=order)
  refused('has labels of <U', logits=values, labels=labels.astype(str))
  refused('label 9 for example 0', logits=values, labels=np.roll(labels, 1))
  refused(
    'labels of .2. for an example', logits=values, labels=np.zeros((count, 2))
  )
  refused(r'\[7\], and there are 10 classes', logits=values[:, :7])
  refused(r'\[10\], and there are 12', classes=12, logits=values)
  refused(r'\[1, 10\], and there', logits=values[:, None])
  refused(r'\[\], and there', logits=values[:, 0])
  refused('the id 1078 among', logits=values, id=np.arange(count) + 1)
  refused('no row of example 539', logits=values, id=np.arange(count) // 2)
  refused('has id of float', logits=values, id=np.arange(count) + 0.5)
  refused('checksum is another', logits=values, checksum=np.array('0' * 64))
  refused('logits is int', logits=values.astype(int))
  refused('has no outputs', id=np.arange(count))
  for wrong in (np.nan, np.inf, 1e300):
    lost = values.astype(np.float64)
    lost[17, 3] = wrong
    refused('logits of example 17 is not a number', logits=lost)
  lost = values.copy()
  lost[17] = -np.inf
  refused('logits of example 17 is not a number', logits=lost)
  layer = values.copy()
  layer[5, 0] = -np.inf
  refused('layer of example 5 is not', logits=values, layer=layer)
  odds = np.exp(values)
  refused('are probabilities', logits=odds / odds.sum(-1, keepdims=True))


@pytest.mark.parametrize(
  ('labels', 'kind'), [('values', 'values'), ('multilabel', 'sigmoids')]
)
def test_outputs_are_those_that_the_task_takes(labels, kind, tmp_path):
  random = np.random.default_rng(0)
  y = random.random((60, 2))
  given = 7 + 50 * y if labels == 'values' else y > 0.5
  np.savez(tmp_path / 'd.npz', inputs=np.zeros((60, 2)), labels=given)
  source = sources.load(f'npz:{tmp_path}/d.npz', labels=labels)
  of = f'outputs:{tmp_path}/a.npy', source, 2, 'teachers.main', kind
  logits = 4 * y - 2 + 0.3 * random.normal(size=y.shape)
  np.save(tmp_path / 'a.npy', logits)
  assert 'their correlation with the labels is 0.' in Recorded(*of).notes[0]
  np.save(tmp_path / 'a.npy', np.roll(logits, 7, axis=0))
  with pytest.raises(UserError, match=f'{AT}.* in a random order would have 0'):
    Recorded(*of)
  path = tmp_path / 'b.npz'
  of_labels = f'outputs:{path}', *of[1:]
  np.savez(path, logits=logits, labels=given)
  assert 'matched by their labels' in Recorded(*of_labels).notes[0]
  np.savez(path, logits=logits, labels=given[::-1])
  with pytest.raises(UserError, match='the rows are of other examples'):
    Recorded(*of_labels)
  np.save(tmp_path / 'a.npy', given if labels == 'values' else 0.9 * y)
  with pytest.raises(UserError, match=f'{AT}.* (in the unit|probabilities)'):
    Recorded(*of)


@pytest.mark.parametrize('size', [8, 200])
def test_maps_in_another_order_are_refused(size, tmp_path):
  """Most pixels are background, so that most agree in any order."""
  random = np.random.default_rng(0)
  labels = (random.random((size, 6, 5)) < 0.1).astype(np.int32)
  valid = random.random(labels.shape) < 0.8
  train = ArrayExamples(np.zeros((size, 6, 5, 1)), labels, valid=valid)
  source = Source('maps', {'train': train}, 2, (6, 5, 1), ('0', '1'))
  logits = 4 * np.eye(2)[labels] + random.normal(size=(*labels.shape, 2))
  np.save(tmp_path / 'a.npy', logits)
  (note,) = taught(tmp_path / 'a.npy', source, 2).notes
  assert re.search('that of the label for (99|100)', note)
  np.save(tmp_path / 'b.npy', np.roll(logits, 3, 0))
  with pytest.raises(UserError, match=f'{AT}.*in a random order would h'):
    taught(tmp_path / 'b.npy', source, 2)


def test_a_few_examples_can_agree(tmp_path):
  labels = np.arange(30) % 2
  np.savez(tmp_path / 'd.npz', inputs=np.zeros((30, 2)), labels=labels)
  source = sources.load(f'npz:{tmp_path}/d.npz')
  np.save(tmp_path / 'a.npy', 3.0 * np.eye(2)[labels])
  notes = taught(tmp_path / 'a.npy', source, 2).notes
  assert all('of the label for 100.0% of them' in note for note in notes)


def test_a_class_may_be_ruled_out(digits, tmp_path):
  values = logits(digits.splits['train'].labels)
  values[:, 3] = -np.inf
  np.save(tmp_path / 'a.npy', values)
  check(tmp_path / 'a.npy', digits, values)


def test_a_poor_teacher_is_taken_where_its_order_is_certain(digits, tmp_path):
  train = digits.splits['train']
  values = np.random.default_rng(0).normal(size=(len(train), 10))
  np.save(tmp_path / 'a.npy', values)
  with pytest.raises(UserError, match='in a random order'):
    taught(tmp_path / 'a.npy', digits)
  recorded.save(tmp_path / 'a.npz', train, {'logits': values})
  assert taught(tmp_path / 'a.npz', digits).splits == {'train'}


def test_outputs_of_train_are_needed(digits, tmp_path):
  recorded.save(
    tmp_path / 'test.npz',
    digits.splits['test'],
    {'logits': logits(digits.splits['test'].labels)},
  )
  with pytest.raises(UserError, match=f'{AT}there are no outputs of train'):
    taught(tmp_path, digits)
  for name, said in (
    ('nothing.npy', 'there is no file'),
    ('{split}.npy', 'there is no file .*train.npy'),
  ):
    with pytest.raises(UserError, match=f'{AT}{said}'):
      taught(tmp_path / name, digits)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='has no file of outputs'):
    taught(tmp_path / 'empty', digits)
  with pytest.raises(UserError, match='name a file of outputs'):
    taught('', digits)


@pytest.mark.parametrize(
  ('path', 'outputs', 'said'),
  [
    ('a.npy', {}, 'should end in .npz'),
    ('a.npz', {'logits': np.zeros((3, 10))}, 'there are 1,078 examples'),
    ('a.npz', {'logits': np.full((1078, 2), np.nan)}, 'not a number'),
    ('a.npz', {'id': np.zeros(1078)}, 'cannot be the name of an output'),
  ],
)
def test_what_cannot_be_read_again_is_not_written(
  path, outputs, said, digits, tmp_path
):
  with pytest.raises(UserError, match=said):
    recorded.save(tmp_path / path, digits.splits['train'], outputs)
  assert not list(tmp_path.iterdir())
