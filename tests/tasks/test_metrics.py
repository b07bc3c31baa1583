"""What all metrics have in common."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.tasks.metrics import not_a_number


@pytest.mark.parametrize(
  ('lost', 'batch', 'count'),
  [
    ([], {}, 0),
    ([(0, 1, 2), (0, 0, 1), (3, 1, 0)], {}, 2),
    ([(0, 0, 0), (3, 1, 0)], {'where': [False, True, True, True]}, 1),
    ([(0, 0, 0), (3, 1, 0)], {'valid': [False, True, True, True]}, 1),
    ([(0, 0, 0), (3, 1, 0)], {'valid': [[True, False]] * 4}, 1),
    ([(0, 0, 0), (3, 1, 0)], {'valid': [[True] * 5] * 4}, 2),  # of no place
  ],
)
def test_examples_with_a_nan_where_it_counts(lost, batch, count):
  output = np.zeros((4, 2, 3), np.float32)
  output[0, 0, 0] = output[1, 1, 1] = -np.inf  # is a number
  for place in lost:
    output[place] = np.nan
  batch = {name: jnp.array(x) for name, x in batch.items()}
  metric = not_a_number('maps')
  found, _ = metric.measure({'maps': output}, batch, {})
  assert found == count


def test_whole_numbers_are_numbers():
  tokens = jnp.zeros((4, 7), jnp.int32)
  assert not_a_number('beam').measure({'beam': tokens}, {}, {})[0] == 0
