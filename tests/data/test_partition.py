"""Who sees which examples."""

import numpy as np
import pytest

from jaxkd.data import index, partition
from jaxkd.data.partition import stratified
from jaxkd.errors import UserError

LABELS = np.repeat([0, 1, 2], [50, 30, 20])[
  np.random.default_rng(0).permutation(100)
]


def weights(labels, **options):
  return partition.weights(index.of(labels), **options)


def count(mask):
  return np.bincount(LABELS[mask], minlength=3)


def test_by_default_all_members_see_all():
  made = weights(LABELS, count=3)
  assert made.dtype == np.float32
  np.testing.assert_array_equal(made, np.ones((3, 100)))


@pytest.mark.parametrize('size', [0, 1, 7, 10, 50, 99, 100])
def test_stratified_keeps_proportions(size):
  chosen = stratified(LABELS, size, np.random.default_rng(1))
  assert chosen.sum() == size
  expected = np.array([50, 30, 20]) * size / 100
  assert (np.abs(count(chosen) - expected) <= 1).all()


class TestFraction:
  def test_is_stratified_and_the_same_for_all_members(self):
    made = weights(LABELS, fraction=0.2, count=3, seed=5)
    np.testing.assert_array_equal(made, made[:1].repeat(3, axis=0))
    np.testing.assert_array_equal(count(made[0] > 0), [10, 6, 4])

  def test_keeps_one_of_each_class(self):
    made = weights(LABELS, fraction=0.01)
    np.testing.assert_array_equal(count(made[0] > 0), [1, 1, 1])

  def test_is_drawn_from_the_seed_alone(self):
    draw = {'fraction': 0.2, 'seed': 5}
    one = weights(LABELS, **draw)
    np.testing.assert_array_equal(one, weights(LABELS, **draw))
    assert (one != weights(LABELS, fraction=0.2, seed=6)).any()
    folds = weights(LABELS, partition='disjoint', count=4, **draw)
    np.testing.assert_array_equal(folds.sum(axis=0), one[0])

  @pytest.mark.parametrize('fraction', [0, -0.1, 1.1, float('nan')])
  def test_must_be_a_share(self, fraction):
    with pytest.raises(UserError, match=r'^data\.fraction\.students: '):
      weights(LABELS, fraction=fraction, role='students')


class TestPartition:
  def test_disjoint_folds_are_stratified_and_cover_all(self):
    made = weights(LABELS, partition='disjoint', count=4)
    np.testing.assert_array_equal(made.sum(axis=0), np.ones(100))
    for member in made:
      assert member.sum() == 25
      assert (np.abs(count(member > 0) - [12.5, 7.5, 5]) <= 1).all()

  def test_bootstrap_members_draw_as_many_as_there_are(self):
    made = weights(LABELS, partition='bootstrap', count=5, fraction=0.5)
    np.testing.assert_array_equal(made.sum(axis=1), np.full(5, 50))
    assert made.max() > 1
    assert len(np.unique(made, axis=0)) == 5
    assert ((made > 0).any(axis=0) <= weights(LABELS, fraction=0.5)[0]).all()

  def test_bootstrap_members_do_not_depend_on_their_number(self):
    few = weights(LABELS, partition='bootstrap', count=2, seed=3)
    many = weights(LABELS, partition='bootstrap', count=5, seed=3)
    np.testing.assert_array_equal(few, many[:2])

  def test_classes_may_overlap(self):
    subsets = np.array([[True, True, False], [False, True, True]])
    made = weights(LABELS, partition='classes', count=2, subsets=subsets)
    np.testing.assert_array_equal(made, subsets[:, LABELS])

  def test_without_leaves_classes_out(self):
    made = weights(LABELS, partition='without:0,2', count=2)
    np.testing.assert_array_equal(made, np.tile(LABELS == 1, (2, 1)))

  def test_the_first_are_those_alone(self):
    made = weights(LABELS, partition='first:7', count=2)
    np.testing.assert_array_equal(made, [[1] * 7 + [0] * 93] * 2)
    maps = np.zeros((100, 2, 2), int)
    made = weights(maps, partition='first:100', fraction=0.5, seed=5)
    assert made.sum() == 50
    np.testing.assert_array_equal(made, weights(maps, fraction=0.5, seed=5))

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'partition': 'first'}, "no partition 'first'"),
      ({'partition': 'first:0'}, 'from 1 to 100'),
      ({'partition': 'first:101'}, "cannot take 'first:101'"),
      ({'partition': 'first:-5'}, "cannot take 'first:-5'"),
      ({'partition': 'first:few'}, "cannot take 'first:few'"),
      ({'partition': 'disjoin'}, "did you mean 'disjoint'"),
      ({'partition': 'without'}, "no partition 'without'"),
      ({'partition': 'without:a'}, 'write class numbers'),
      ({'partition': 'without:3'}, 'class 3, of which there are no'),
      ({'partition': 'without:0,1,2'}, 'member 0 without examples'),
      ({'partition': 'disjoint', 'count': 101}, 'there are 100'),
      ({'partition': 'classes'}, 'needs subsets'),
      ({'subsets': [[True] * 3]}, 'needs subsets'),
      (
        {'partition': 'classes', 'subsets': [[True, True]]},
        r'shape \(1, 2\) do not fit 1 members and 3 classes',
      ),
      (
        {'partition': 'classes', 'subsets': [[True] * 3], 'count': 2},
        'do not fit 2 members',
      ),
      (
        {
          'partition': 'classes',
          'subsets': [[True] * 3, [False] * 3],
          'count': 2,
        },
        'member 1 without examples',
      ),
    ],
  )
  def test_must_make_sense(self, options, message):
    with pytest.raises(UserError, match=rf'^data\.partition.*{message}'):
      weights(LABELS, **options)


class TestUnits:
  """Of 20 units of five examples, in an order that is not that of numbers."""

  UNITS = np.random.default_rng(2).permutation(20).repeat(5) + 7

  def by_unit(self, **options):
    made = weights(LABELS, units=self.UNITS, **options)
    made = made.reshape(-1, 20, 5)
    np.testing.assert_array_equal(made, made[..., :1].repeat(5, -1))
    return made[..., 0]

  def test_a_fraction_is_of_the_units(self):
    made = self.by_unit(fraction=0.1, seed=1)
    assert made.sum() == 2
    assert (made != self.by_unit(fraction=0.1, seed=2)).any()
    assert self.by_unit(fraction=0.001).sum() == 1

  def test_folds_and_samples_are_of_units(self):
    folds = self.by_unit(partition='disjoint', count=4)
    np.testing.assert_array_equal(folds.sum(0), np.ones(20))
    np.testing.assert_array_equal(folds.sum(1), np.full(4, 5))
    drawn = self.by_unit(partition='bootstrap', count=3)
    np.testing.assert_array_equal(drawn.sum(1), np.full(3, 20))
    assert drawn.max() > 1

  def test_the_first_are_those_that_come_first(self):
    made = self.by_unit(partition='first:3')
    np.testing.assert_array_equal(made, [[1] * 3 + [0] * 17])
    with pytest.raises(UserError, match='from 1 to 20'):
      self.by_unit(partition='first:21')

  def test_a_class_can_be_left_out_of_a_share(self):
    made = weights(
      LABELS, units=self.UNITS, partition='without:0', fraction=0.5
    )
    assert not made[0, LABELS == 0].any()
    assert len(np.unique(self.UNITS[made[0] > 0])) <= 10

  def test_units_of_one_class_each_are_stratified(self):
    labels = np.repeat([0, 1], [15, 5]).repeat(4)  # fifteen and five units
    made = weights(labels, units=np.arange(20).repeat(4), fraction=0.2)[0]
    np.testing.assert_array_equal(np.bincount(labels, made), [12, 4])

  def test_one_unit_leaves_nothing_to_draw(self):
    with pytest.raises(UserError, match=r'^data\.unit\.students: .* one unit'):
      weights(LABELS, units=np.zeros(100, int), role='students')

  def test_there_are_as_many_units_as_folds(self):
    with pytest.raises(UserError, match='21 disjoint folds'):
      self.by_unit(partition='disjoint', count=21)


def test_who_shares_a_draw_has_the_same_examples():
  labels = np.arange(200) % 4

  def chosen(who, draw, fraction=0.1):
    seed = partition.seed_of(3, who, draw)
    return weights(labels, fraction=fraction, seed=seed)[0] > 0

  teachers, students = 'teachers/main', 'students'
  assert (chosen(teachers, 'own') != chosen(students, 'own')).any()
  same = chosen(students, 'shared')
  np.testing.assert_array_equal(chosen(teachers, 'shared'), same)
  assert chosen(teachers, 'shared', 0.3)[same].all()
  with pytest.raises(UserError, match=r'data\.draw.*own.*shared'):
    partition.seed_of(3, students, 'common')


def test_the_classes_that_are_left_out():
  assert partition.left_out('without:3,7') == (3, 7)
  assert partition.left_out('none') == partition.left_out('disjoint') == ()


def test_maps_and_sequences_are_of_one_kind():
  maps = np.arange(40).reshape(10, 2, 2) % 7
  found = weights(maps, fraction=0.3, count=2)
  assert found.shape == (2, 10)
  np.testing.assert_array_equal(found.sum(1), [3, 3])
  folds = weights(maps, partition='disjoint', count=5)
  np.testing.assert_array_equal(folds.sum(0), np.ones(10))
  with pytest.raises(UserError, match=r'one class for each.*2 x 2'):
    weights(maps, partition='without:1')
