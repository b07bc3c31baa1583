"""What is stored: bits, masks, sizes, and that all of it comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.students import compression, stored
from jaxkd.students.stored import Stored
from jaxkd.types import Net

MEMBERS = 2


def init(key):
  return {
    'params': {
      'conv': {'kernel': jax.random.normal(key, (3, 3, 2, 5))},
      'head': {'kernel': jax.random.normal(key, (7, 3)), 'bias': jnp.ones(3)},
    },
    'state': {'norm': {'mean': jnp.arange(4.0)}},
  }


NET = Net(init, lambda variables, inputs, **kw: ({}, variables['state']))


def finished(quantisation, pruning=''):
  made = compression.compression(
    NET, quantisation, pruning, steps=9, at='student'
  )
  keys = jax.random.split(jax.random.key(0), MEMBERS)
  return compression.apply_once(made, jax.vmap(NET.init)(keys))


@pytest.mark.parametrize('shape', [(), (3,), (2, 3), (2, 3, 4, 5)])
def test_flat_has_an_inverse(shape):
  x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
  np.testing.assert_array_equal(stored.unflat(stored.flat(x), shape), x)


WAYS = [
  *((f'uniform({bits}, bucket=16)', '') for bits in range(1, 9)),
  ('points(3)', ''),
  ('ternary', ''),
  ('wrpn(5)', ''),
  ('wrpn(4, scaled=True)', ''),
  ('', 'magnitude(0.7)'),
  ('uniform(3)', 'magnitude(0.7, only="conv")'),
  ('wrpn(5, skip="head")', 'magnitude(0.7)'),
]


@pytest.mark.parametrize(('quantisation', 'pruning'), WAYS)
def test_what_is_exported_comes_back_to_the_last_bit(
  quantisation, pruning, tmp_path
):
  variables = finished(quantisation, pruning)
  dense = stored.dense(variables)
  stored.export(tmp_path, variables, {'model': 'mine'})
  back, spec = stored.load(tmp_path)
  assert spec['model'] == 'mine'
  assert jax.tree.structure(back) == jax.tree.structure(dense)
  for ours, theirs in zip(
    jax.tree.leaves(back), jax.tree.leaves(dense), strict=True
  ):
    assert ours.dtype == theirs.dtype and isinstance(ours, jax.Array)
    np.testing.assert_array_equal(ours, theirs)


def test_names_with_slashes_come_back_as_they_were(tmp_path):
  """As Linen's WeightNorm has them."""

  def init(key):
    return {
      'params': {
        'dense': {'kernel': jax.random.normal(key, (6, 5))},
        'norm': {'dense/kernel/scale': jnp.arange(5.0)},
      },
      'state': {},
    }

  net = Net(init, None)
  made = compression.compression(net, 'uniform(3)', '', steps=9, at='student')
  keys = jax.random.split(jax.random.key(0), MEMBERS)
  variables = compression.apply_once(made, jax.vmap(init)(keys))
  stored.export(tmp_path, variables, {})
  loaded, _ = stored.load(tmp_path)
  want = stored.dense(variables)
  assert jax.tree.structure(loaded) == jax.tree.structure(want)
  jax.tree.map(np.testing.assert_array_equal, loaded, want)


def test_plain_variables_are_stored_as_they_are(tmp_path):
  keys = jax.random.split(jax.random.key(0), MEMBERS)
  variables = jax.vmap(NET.init)(keys)
  assert compression.finish(None, variables) is variables
  assert stored.pack(variables) == (variables, {})
  stored.export(tmp_path, variables, {})
  back, _ = stored.load(tmp_path)
  np.testing.assert_array_equal(
    back['params']['conv']['kernel'], variables['params']['conv']['kernel']
  )


REST = 4 * (3 + 4)  # the bias and the mean stay as they are


@pytest.mark.parametrize(
  ('quantisation', 'pruning', 'size'),
  [
    ('uniform(4, bucket=None)', '', 45 + 11 + 2 * 8 + REST),
    ('uniform(2, bucket=30)', '', 23 + 3 * 8 + 6 + 8 + REST),
    ('ternary', '', 23 + 12 + 6 + 12 + REST),
    ('wrpn(8)', '', 90 + 21 + REST),
    ('wrpn(4, scaled=True)', '', 45 + 11 + 8 + REST),
    ('points(3, bucket=None)', '', 34 + 8 + 2 * (8 + 32) + REST),
    # half of 111 weights, and a bit that says which
    ('', 'magnitude(0.5)', 4 * 55 + 12 + 3 + REST),
    ('', 'magnitude(0.5, only="head/kernel")', 4 * 90 + 4 * 11 + 3 + REST),
    ('wrpn(8)', 'magnitude(0.5)', 55 + 12 + 3 + REST),
  ],
)
def test_sizes_are_counted_in_bytes(quantisation, pruning, size):
  assert stored.size(finished(quantisation, pruning)) == size


def test_masked_codes_decode_to_exact_zeros():
  code = Stored(
    np.array([1, 2, 3], np.uint8),
    np.array([True, False, True]),
    scale=np.float32([2.0]),
    offset=np.float32([5.0]),
    levels='uniform',
    bits=2,
    bucket=3,
    shape=(3,),
  )
  np.testing.assert_allclose(stored.values(code), [5 + 2 / 3, 0, 7])
