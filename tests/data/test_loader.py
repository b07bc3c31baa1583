"""Batches are a pure function of the step."""

import threading

import numpy as np
import pytest

from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.data.loader import Loader, evaluation_batches
from jaxkd.errors import UserError

N = 11
EXAMPLES = ArrayExamples(
  np.arange(2 * N, dtype=np.float32).reshape(N, 2), np.arange(N) % 3
)


def make(members=2, batch_size=4, examples=EXAMPLES, weights=None, **options):
  if weights is None:
    weights = np.ones((members, len(examples)), np.float32)
  seeds = options.pop('seeds', range(len(weights)))
  return Loader(examples, weights, [*seeds], batch_size, **options)


def streamed(examples=EXAMPLES, fail=()):
  def read(indices):
    if set(fail) & set(indices.tolist()):
      raise UserError('data.source: example is damaged')
    return examples.fetch(indices)

  return StreamedExamples(len(examples), read, lambda: examples.labels)


def ids(loader, steps):
  """The ids of all steps, one row a member."""
  return np.concatenate([loader.batch(s)['id'] for s in range(steps)], axis=-1)


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def test_a_batch_holds_the_examples_of_its_ids():
  batch = make().batch(3)
  assert {name: x.shape for name, x in batch.items()} == {
    'inputs': (2, 4, 2),
    'labels': (2, 4),
    'id': (2, 4),
    'rank': (2, 4),
    'epoch': (2, 4),
  }
  whole = ('labels', 'id', 'rank', 'epoch')
  assert {batch[name].dtype.name for name in whole} == {'int32'}
  np.testing.assert_array_equal(batch['inputs'][..., 0], 2 * batch['id'])
  np.testing.assert_array_equal(batch['labels'], batch['id'] % 3)


def test_a_rank_numbers_the_examples_that_a_member_sees():
  weights = np.zeros((2, N))
  weights[0, [1, 4, 5, 8, 9]] = 1
  weights[1, [0, 2, 3, 6, 7]] = 1
  loader = make(weights=weights)
  for step in range(3):
    batch = loader.batch(step)
    for m in range(2):
      seen = np.flatnonzero(weights[m])
      np.testing.assert_array_equal(seen[batch['rank'][m]], batch['id'][m])


def test_inputs_may_be_a_pytree_and_fields_may_be_added():
  examples = ArrayExamples(
    {'a': np.zeros((N, 3)), 'b': np.ones((N, 2, 2))},
    np.zeros(N),
    mask=np.ones((N, 5), bool),
  )
  batch = make(examples=examples).batch(0)
  assert batch['inputs']['a'].shape == (2, 4, 3)
  assert batch['inputs']['b'].shape == (2, 4, 2, 2)
  assert batch['mask'].shape == (2, 4, 5)


def test_a_step_has_the_same_batch_whenever_it_is_asked_for():
  unbroken = make()
  batches = [unbroken.batch(step) for step in range(20)]
  resumed = make()
  for step in (19, 3, 0, 12, 3):
    assert_same(resumed.batch(step), batches[step])


def test_each_epoch_shows_each_example_once_in_a_new_order():
  loader = make()
  seen = ids(loader, N)
  epochs = np.concatenate([loader.batch(s)['epoch'] for s in range(N)], axis=1)
  np.testing.assert_array_equal(epochs, np.tile(np.arange(4 * N) // N, (2, 1)))
  for member in seen.reshape(2, 4, N):
    assert len(np.unique(member, axis=0)) == 4
    for epoch in member:
      assert sorted(epoch) == list(range(N))


def test_members_have_orders_of_their_own_seeds():
  together = ids(make(seeds=[5, 9]), 6)
  assert (together[0] != together[1]).any()
  alone = ids(make(members=1, seeds=[9]), 6)
  np.testing.assert_array_equal(together[1:], alone)


def test_a_batch_may_be_as_large_as_the_epoch():
  seen = ids(make(members=1, batch_size=N), 2)
  assert sorted(seen[0, :N]) == sorted(seen[0, N:]) == list(range(N))


def test_members_see_only_what_has_weight():
  weights = np.ones((2, N), np.float32)
  weights[0, 5:] = 0
  loader = make(weights=weights)
  seen = ids(loader, 5)
  assert set(seen[0]) == set(range(5))
  assert sorted(seen[0, :5]) == list(range(5))
  assert set(seen[1]) == set(range(N))
  # Each member counts epochs of its own length.
  np.testing.assert_array_equal(loader.batch(2)['epoch'][:, -1], [2, 1])


def test_unequal_weights_are_met_in_every_epoch():
  weights = np.array([[0, 1, 2, 3, 0, 4, 0.5, 1.5]], np.float32)
  examples = ArrayExamples(np.zeros((8, 1)), np.zeros(8))
  seen = ids(make(examples=examples, weights=weights, batch_size=6), 400)
  counts = np.stack(
    [np.bincount(epoch, minlength=8) for epoch in seen.reshape(400, 6)]
  )
  expected = 6 * weights[0] / weights.sum()
  assert (np.abs(counts - expected) < 1).all()
  np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.1)
  assert len(np.unique(seen.reshape(400, 6), axis=0)) > 100


def test_batches_of_any_size_are_cut_from_one_stream():
  weights = np.ones((2, N), np.float32)
  weights[0, 5:] = 0
  for size in (2, 5):
    loader = make(weights=weights, batch_size=size)
    batches = [loader.batch(step) for step in range(9)]
    for member in range(2):
      id, epoch = loader.stream(member, 3 * size, 9 * size)
      assert id.dtype == epoch.dtype == np.int32
      later = {n: np.hstack([b[n][member] for b in batches[3:]])
               for n in ('id', 'epoch')}  # fmt: skip
      np.testing.assert_array_equal(id, later['id'])
      np.testing.assert_array_equal(epoch, later['epoch'])
    streams = [make(weights=weights, batch_size=s).stream(1, 0, 30)[0]
               for s in (2, 5)]  # fmt: skip
    np.testing.assert_array_equal(*streams)


def test_a_shared_order_is_the_first_members_without_their_axis():
  shared, own = make(order='shared'), make(members=1)
  for step in range(4):
    one = {name: x[0] for name, x in own.batch(step).items()}
    assert_same(shared.batch(step), one)


@pytest.mark.parametrize('examples', [EXAMPLES, streamed()])
def test_iterating_gives_the_batches_of_the_steps(examples):
  loader = make(examples=examples)
  made = list(loader.iterate(3, 15))
  assert len(made) == 12
  for step, batch in enumerate(made, 3):
    assert_same(batch, loader.batch(step))
  assert list(loader.iterate(4, 4)) == []


@pytest.mark.parametrize(
  'examples', [EXAMPLES, streamed()], ids=['held', 'read']
)
def test_a_part_of_a_batch_is_all_that_is_fetched(examples):
  fetched = []

  def read(indices):
    fetched.extend(indices.tolist())
    return examples.fetch(indices)

  counted = StreamedExamples(N, read, lambda: examples.labels)
  part = np.zeros((2, 4), bool)
  part[0, 1:3] = part[1, 0] = True
  (batch,) = make(examples=counted).iterate(5, 6, part)
  whole = make(examples=examples).batch(5)
  assert fetched == whole['id'][part].tolist()
  for name in whole:
    np.testing.assert_array_equal(batch[name][part], whole[name][part])


def test_reading_ahead_stops_when_its_reader_does():
  before = set(threading.enumerate())
  batches = make(examples=streamed()).iterate(0, 10_000)
  next(batches)
  batches.close()
  for thread in set(threading.enumerate()) - before:
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_errors_of_reading_ahead_reach_the_reader():
  with pytest.raises(UserError, match='example is damaged'):
    list(make(examples=streamed(fail={7})).iterate(0, 10))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_size': 0}, r'train\.batch_size: 0 is not a batch size'),
    ({'batch_size': -1}, r'train\.batch_size: -1 is not a batch size'),
    (
      {'batch_size': N + 1},
      rf'size: {N + 1} is more than the {N}',
    ),
    (
      {'batch_size': 4, 'weights': np.eye(2, N)},
      'more than the 1 examples that member 0 sees',
    ),
    ({'order': 'share'}, "data.order: .*did you mean 'shared'"),
    ({'order': 'shared', 'weights': np.eye(2, N)}, 'see the same examples'),
    ({'seeds': [0, -1]}, r'train\.seed: .*-1'),
  ],
)
def test_settings_that_make_no_sense(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)


def test_the_entry_at_fault_can_be_named():
  with pytest.raises(UserError, match=r'^teachers\.main\.train\.batch_size: '):
    make(batch_size=-1, at='teachers.main.train.batch_size')


class TestEvaluation:
  def test_covers_all_examples_in_order_and_pads_the_last_batch(self):
    batches = list(evaluation_batches(EXAMPLES, 4))
    assert {b['inputs'].shape for b in batches} == {(4, 2)}
    where = np.concatenate([b['where'] for b in batches])
    np.testing.assert_array_equal(where, np.arange(12) < N)
    seen = np.concatenate([b['id'] for b in batches])
    np.testing.assert_array_equal(seen[where], np.arange(N))
    for batch in batches:
      np.testing.assert_array_equal(batch['inputs'][:, 0], 2 * batch['id'])
      np.testing.assert_array_equal(batch['epoch'], np.zeros(4))

  def test_one_batch_may_be_larger_than_the_split(self):
    (batch,) = evaluation_batches(EXAMPLES, 64)
    assert batch['where'].sum() == N

  def test_needs_a_batch_size(self):
    with pytest.raises(UserError, match=r'^train\.batch_size: -1'):
      next(evaluation_batches(EXAMPLES, -1))


def test_examples_of_a_class_stay_together():
  """Groups of two of a class in random order, the odd one of each by itself."""
  loader = make(batch_size=N, together=2)
  orders = set()
  for step in range(6):
    batch = loader.batch(step)
    for id, labels in zip(batch['id'], batch['labels'], strict=True):
      np.testing.assert_array_equal(np.sort(id), np.arange(N))
      for label, count in enumerate((4, 4, 3)):
        (places,) = np.nonzero(labels == label)
        pairs = list(places)
        while pairs:  # each is one of two that are neighbours, or the odd one
          first = pairs.pop(0)
          if pairs and pairs[0] == first + 1:
            pairs.pop(0)
          else:
            count -= 1
            assert count == 2
      orders.add(tuple(id))
  assert len(orders) == 12
  with pytest.raises(UserError, match=r'^data\.together: 0 should be'):
    make(together=0)


def test_without_groups_the_order_is_as_it_was():
  np.testing.assert_array_equal(ids(make(), 6), ids(make(together=1), 6))


def test_examples_of_many_classes_each_have_no_class_to_keep_together():
  maps = ArrayExamples(np.zeros((N, 2)), np.arange(3 * N).reshape(N, 3) % 3)
  assert make(examples=maps).batch(0)['labels'].shape == (2, 4, 3)
  with pytest.raises(UserError, match='together: 2 examples'):
    make(examples=maps, together=2)
