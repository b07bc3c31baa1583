import jax
import numpy as np

from jaxkd import keys


def test_folds_names_and_numbers_in_order():
  key = jax.random.key(0)
  data = jax.random.key_data
  one, two = keys.fold(key, 'a', 1), keys.fold(key, 1, 'a')
  assert not np.array_equal(data(one), data(two))
  again = keys.fold(keys.fold(key, 'a'), 1)
  np.testing.assert_array_equal(data(one), data(again))


def test_seeds_are_fixed_for_ever():
  """A change here would unpair every stored row."""
  assert keys.seed(0, 'teachers/main/0') == 1493384658
  assert len({keys.seed(s, f't/{i}') for s in range(9) for i in range(9)}) == 81
