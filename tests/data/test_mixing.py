"""Mixtures of the examples of a batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.data import augment
from jaxkd.data.augment import Augment
from jaxkd.errors import UserError


def batch_of(size, shape=(6, 8, 2), classes=4, epoch=0):
  random = np.random.default_rng(0)
  return {
    'inputs': random.normal(size=(size, *shape)).astype(np.float32),
    'labels': random.integers(classes, size=size).astype(np.int32),
    'id': np.arange(size, dtype=np.int32),
    'rank': np.arange(size, dtype=np.int32),
    'epoch': np.full(size, epoch, np.int32),
  }


@functools.partial(jax.jit, static_argnames=('text', 'classes'))
def mixed(text, batch, seed=0, classes=4):
  return augment.apply(Augment(text), batch, seed=seed, num_classes=classes)


def numbered(size):
  """Examples of one number, and classes that tell which one it is."""
  batch = batch_of(size, (1,), size)
  batch['labels'] = np.arange(size, dtype=np.int32)
  return {**batch, 'inputs': np.arange(size, dtype=np.float32)[:, None]}


def partners(probabilities):
  """The other example of each, where its share is not rounded away."""
  others = np.array(probabilities)
  np.fill_diagonal(others, 0)
  return others.argmax(1)


def test_a_mixture_is_of_two_and_so_is_its_label():
  batch = numbered(32)
  found = mixed('mixup(1.0)', batch, classes=32)
  assert found.keys() == {'inputs', 'label_probabilities', 'id', 'epoch'}
  p = np.asarray(found['label_probabilities'])
  np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
  assert ((p > 0).sum(1) <= 2).all()
  np.testing.assert_allclose(found['inputs'], p @ batch['inputs'], rtol=1e-4)
  # Each is the other of exactly one, and all are on one circle.
  other, at, seen = partners(p), 0, set()
  assert sorted(other) == list(range(32))
  while at not in seen:
    seen.add(at)
    at = other[at]
  assert len(seen) == 32


def test_what_is_drawn_depends_on_seed_epoch_and_example_alone():
  batch = numbered(16)
  again = lambda b, seed=0: mixed('mixup(1.0)', b, seed, 16)  # noqa: E731
  first = again(batch)
  order = np.random.default_rng(3).permutation(16)
  shuffled = again({name: x[order] for name, x in batch.items()})
  for name, x in first.items():
    np.testing.assert_array_equal(shuffled[name], np.asarray(x)[order])
  for other in (again(batch, 1), again({**batch, 'epoch': batch['epoch'] + 1})):
    share = np.diag(other['label_probabilities'])
    assert not np.isclose(share, np.diag(first['label_probabilities'])).any()


def test_partners_and_shares_are_drawn_evenly():
  each = [
    np.asarray(mixed('mixup(0.5)', numbered(8), seed, 8)['label_probabilities'])
    for seed in range(400)
  ]
  counts = np.zeros((8, 8))
  for p in each:
    counts[np.arange(8), partners(p)] += 1
  assert not np.diag(counts).any()
  assert np.abs(counts + 400 / 7 * np.eye(8) - 400 / 7).max() < 4 * 7.1
  share = np.array([np.diag(p) for p in each])
  assert abs(share.mean() - 0.5) < 0.03
  assert abs(share.var() - 1 / 8) < 0.01  # of Beta(α, α): 1 / (4 (2 α + 1))


def test_a_box_of_the_other_image_and_its_exact_share():
  batch = batch_of(64)
  batch['labels'] = np.arange(64, dtype=np.int32)
  found = mixed('cutmix(1.0)', batch, classes=64)
  p, x = np.asarray(found['label_probabilities']), np.asarray(found['inputs'])
  sizes = set()
  for i, j in enumerate(partners(p)):
    own = (x[i] == batch['inputs'][i]).all(-1)
    theirs = (x[i] == batch['inputs'][j]).all(-1)
    np.testing.assert_array_equal(own, ~theirs)
    assert p[i, i] == pytest.approx(own.mean(), abs=1e-6)
    rows, columns = theirs.any(1), theirs.any(0)
    np.testing.assert_array_equal(theirs, np.outer(rows, columns))
    sizes.add((rows.sum(), columns.sum()))
    for line in (rows, columns):
      assert np.abs(np.diff(np.pad(line, 1).astype(int))).sum() in (0, 2)
  assert len(sizes) > 10


def test_one_of_several_ways_is_drawn_for_each_example():
  batch = batch_of(256, (6, 8, 1))
  found = np.asarray(mixed('mixup(1.0)|cutmix(1.0)', batch)['inputs'])
  boxes = np.isin(found.ravel(), batch['inputs'].ravel())
  boxes = boxes.reshape(256, -1).all(1)
  assert 90 < boxes.sum() < 166
  alone = np.asarray(mixed('mixup(1.0)', batch)['inputs'])
  np.testing.assert_allclose(found[~boxes], alone[~boxes], rtol=1e-5)


def test_bytes_become_numbers_first():
  batch = batch_of(4)
  batch['inputs'] = np.full((4, 6, 8, 2), 255, np.uint8)
  found = mixed('mixup(0.2)', batch)['inputs']
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, 1.0, rtol=1e-6)


def test_labels_that_are_no_class_are_not_mixed_in_silence():
  batch = numbered(4)
  batch['labels'][2] = 7
  p = np.asarray(mixed('mixup(1.0)', batch, classes=4)['label_probabilities'])
  assert np.isnan(p[2]).all()
  assert np.isnan(p).any(1).sum() == 2  # and that of which it is the other


def blend(key, example, other, share: float = 0.75):
  """A way to mix of one's own."""
  return share * example + (1 - share) * other, share


def test_a_way_to_mix_of_ones_own():
  batch = numbered(8)
  found = mixed(f'{__name__}:blend(0.75)', batch, classes=8)
  p = np.asarray(found['label_probabilities'])
  np.testing.assert_allclose(np.diag(p), 0.75)
  np.testing.assert_allclose(found['inputs'], p @ batch['inputs'], rtol=1e-6)


@pytest.mark.parametrize(
  ('text', 'change', 'said'),
  [
    ('mixpu(0.2)', {}, "no augmentation 'mixpu'; did you mean 'mixup'"),
    ('mixup', {}, 'alpha'),
    ('mixup(0)', {}, 'alpha above 0'),
    ('cutmix(-1.0)', {}, 'alpha above 0'),
    ('cutmix', {'inputs': np.zeros((4, 6), np.float32)}, "take 'mixup"),
    ('mixup(1)', {'inputs': np.zeros((4, 6), np.int32)}, 'is int32'),
    (
      'mixup(1)',
      {'inputs': {'a': np.zeros((4, 6), np.float32)}},
      'several arrays',
    ),
    ('mixup(1)', {'labels': np.zeros((4, 6), np.int32)}, 'one class each'),
    ('mixup(1)', {'labels': np.zeros(4, np.float32)}, 'labels float32'),
    ('mixup(1)', {'valid': np.ones((4, 6), bool)}, 'parts that do not'),
  ],
)
def test_what_cannot_be_mixed(text, change, said):
  batch = {**batch_of(4), **change}
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
  with pytest.raises(UserError, match=said) as error:
    augment.check(Augment(text, 'data.augment.teachers'), shapes, 4)
  assert str(error.value).startswith('data.augment.teachers: ')


def test_one_example_has_no_other():
  with pytest.raises(UserError, match='batch_size to 2'):
    augment.check(Augment('mixup(1)'), batch_of(1), 4)
