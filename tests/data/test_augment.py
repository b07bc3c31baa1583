"""What `data.augment` says, from the text to a batch."""

import functools

import jax
import numpy as np
import pytest

from jaxkd.data import augment, moves
from jaxkd.data.augment import Augment
from jaxkd.errors import UserError


def batch_of(size, epoch=0, sides=(4, 6)):
  """Images whose pixels tell themselves apart, and maps of the same numbers."""
  labels = np.arange(size * sides[0] * sides[1], dtype=np.int32)
  labels = labels.reshape(size, *sides) + 1
  return {
    'inputs': labels[..., None].astype(np.float32),
    'labels': labels,
    'valid': np.ones(labels.shape, bool),
    'id': np.arange(size, dtype=np.int32),
    'rank': np.arange(size, dtype=np.int32),
    'epoch': np.full(size, epoch, np.int32),
  }


def of_classes(size):
  batch = batch_of(size)
  del batch['valid']
  return {**batch, 'labels': np.arange(size, dtype=np.int32)}


@functools.partial(jax.jit, static_argnames=('text', 'classes'))
def run(text, batch, seed=0, classes=8):
  return augment.apply(Augment(text), batch, seed=seed, num_classes=classes)


def augmented(text, batch, **options):
  return jax.device_get(run(text, batch, **options))


ALL = 'flip|pad_and_crop(2)|scale(0.8, 1.2)'


def test_ops_follow_one_another_with_a_key_for_each_name():
  batch = batch_of(8)
  found = augmented('flip|pad_and_crop(2)|flip', batch)
  base = jax.random.key(np.uint32(3))
  assert found.keys() == batch.keys()
  for i in range(8):
    one = {name: batch[name][i] for name in ('inputs', 'labels', 'valid')}
    key = augment.fold(augment.fold(base, 'augment'), 0, i)
    for name, op in (
      ('flip', moves.flip),
      ('pad_and_crop', functools.partial(moves.pad_and_crop, padding=2)),
      ('flip#1', moves.flip),
    ):
      one = moves.apply(op(augment.fold(key, name), (4, 6)), one, {})
    again = augmented('flip|pad_and_crop(2)|flip', batch, seed=3)
    for field, x in one.items():
      np.testing.assert_array_equal(again[field][i], x)
  for field in ('id', 'epoch', 'rank'):
    np.testing.assert_array_equal(found[field], batch[field])


def test_what_is_drawn_depends_on_seed_epoch_and_example_alone():
  batch = batch_of(16)
  first = augmented(ALL, batch)
  order = np.random.default_rng(3).permutation(16)
  other = augmented(ALL, {name: x[order] for name, x in batch.items()})
  part = augmented(ALL, {name: x[4:9] for name, x in batch.items()})
  for field, x in first.items():
    np.testing.assert_array_equal(other[field], x[order])
    np.testing.assert_array_equal(part[field], x[4:9])
  for changed in (
    augmented(ALL, batch, seed=1),
    augmented(ALL, batch_of(16, 1)),
  ):
    same = (changed['labels'] == first['labels']).all((1, 2))
    assert same.sum() < 4


def test_classes_stay_as_they_are():
  batch = of_classes(8)
  found = augmented(ALL, batch)
  assert found.keys() == batch.keys()
  for field in batch.keys() - {'inputs'}:
    np.testing.assert_array_equal(found[field], batch[field])
  assert (found['inputs'] != batch['inputs']).any()


def test_bytes_become_numbers_first():
  batch = of_classes(8)
  batch['inputs'] = np.full((8, 4, 6, 3), 255, np.uint8)
  found = augmented('flip|scale(1.0, 1.5)', batch)['inputs']
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, 1.0, rtol=1e-6)


def test_what_is_mixed_was_moved_before():
  """Partners and shares are those of the same mixture of images as they are."""
  batch = of_classes(8)
  flipped = augmented('flip', batch)
  want = augmented('mixup(1.0)|cutmix(1.0)', flipped)
  found = augmented('flip|mixup(1.0)|cutmix(1.0)', batch)
  assert found.keys() == {'inputs', 'label_probabilities', 'id', 'epoch'}
  for field, x in want.items():
    np.testing.assert_array_equal(found[field], x)


def shifted(key, size, pixels: int):
  """A move of one's own."""
  del key
  one = np.ones(2, np.float32)
  return moves.Move(size, one, pixels * one, adds=True, loses=True)


def negative(key, fields, of: float = 1.0):
  """An op of one's own on all fields."""
  del key
  return {**fields, 'inputs': of - fields['inputs']}


def test_ops_of_ones_own():
  batch = batch_of(2)
  found = augmented(f'{__name__}:shifted(1)|{__name__}:negative(2.0)', batch)
  np.testing.assert_array_equal(
    found['labels'][:, 1:, 1:], batch['labels'][:, :-1, :-1]
  )
  assert not found['valid'][:, 0].any()
  np.testing.assert_array_equal(found['inputs'][..., 0], 2.0 - found['labels'])


def careless(key, fields):
  """Loses fields."""
  return {'inputs': fields['inputs']}


def broken(key, fields):
  raise ValueError('no such luck')


def alone(key):
  return key


IMAGE = np.zeros((2, 4, 6, 1), np.float32)


@pytest.mark.parametrize(
  ('text', 'change', 'said'),
  [
    ('flop', {}, "no augmentation 'flop'; did you mean 'flip'"),
    ('rotate(3.0)', {}, r'known: cutmix, dihedral, flip, mixup, pad_and_crop'),
    ('apply', {}, "no augmentation 'apply'"),
    ('flip(1)', {}, 'the augmentation flip takes no arguments'),
    ('pad_and_crop', {}, 'pad_and_crop takes padding: int'),
    ('pad_and_crop(1.5)', {}, '1.5 should be a whole number'),
    ('dihedral', {}, 'dihedral: it needs square images, got 4 by 6'),
    ('mixup(0.2)|flip', {}, 'flip stands behind mixup, .* what mixes last'),
    ('flip|mixup(0.2)', {}, r'one class each, and these have labels int32\[4'),
    ('flip|cutmix', {}, 'leave it empty'),
    ('flip', {'inputs': IMAGE[..., 0]}, r'flip: it moves images .*\[4, 6\]'),
    ('flip', {'inputs': {'a': IMAGE}}, 'flip: it moves images .*several arr'),
    ('flip', {'labels': np.zeros((2, 3), np.int32)}, "flip: .*rule .*'labels'"),
    ('flip', {'code': np.zeros((2, 9))}, "flip: there is no rule .*'code'"),
    ('flip|scale(0.5, 1)', {'valid': None}, "scale: of the field 'labels'"),
    (
      f'{__name__}:careless',
      {},
      'careless: it gives inputs, and .* labels, valid',
    ),
    (f'{__name__}:broken', {}, 'ValueError: no such luck'),
    (
      f'{__name__}:alone',
      {},
      'not a function of .*key, fields, .*key, example, other',
    ),
  ],
)
def test_what_cannot_be_done(text, change, said):
  batch = {k: x for k, x in {**batch_of(2), **change}.items() if x is not None}
  with pytest.raises(UserError, match=said) as error:
    augment.check(Augment(text, 'data.augment.teachers'), batch, 4)
  assert str(error.value).startswith('data.augment.teachers: ')


def test_fields_that_a_source_declares():
  batch = {**batch_of(2), 'code': np.zeros((2, 9), np.float32)}
  fields = {'code': 'fixed'}
  found = augment.check(Augment('random_crop((2, 3))'), batch, 4, fields)
  assert found['inputs'].shape == (2, 2, 3, 1)
  assert found['labels'].shape == found['valid'].shape == (2, 2, 3)
  assert found['code'].shape == (2, 9)
