import jax
import numpy as np
import pytest

from jaxkd import shapes

TOKENS = jax.ShapeDtypeStruct((5,), np.int32)
TREE = {'source': TOKENS, 'image': (8, 8, 3)}


def test_from_one_to_a_batch_and_back():
  found = shapes.batch(TREE, 2)
  assert found['source'].shape == (2, 5) and found['source'].dtype == np.int32
  assert found['image'].shape == (2, 8, 8, 3)
  assert found['image'].dtype == np.float32
  assert shapes.example(found) == TREE
  assert shapes.flat(TREE) == [(8, 8, 3), (5,)]


@pytest.mark.parametrize('dtype', [np.uint8, np.float64, np.float32])
def test_what_becomes_float32_is_a_tuple(dtype):
  assert shapes.example(np.zeros((4, 2, 2, 1), dtype)) == (2, 2, 1)


@pytest.mark.parametrize('shape', [(), (3,), (8, 8, 1), TOKENS, TREE])
def test_json_brings_them_back(shape):
  assert shapes.from_json(shapes.as_json(shape)) == shape


def test_zeros_are_of_the_types():
  found = shapes.zeros(TREE, 3)
  assert found['source'].dtype == np.int32 and not found['image'].any()


def test_in_words():
  assert shapes.said((28, 28, 1)) == '28 × 28 × 1'
  assert shapes.said({'b': TOKENS, 'a': (3,)}) == 'a 3, b 5'


def test_a_function_of_arrays_tells_of_shapes_what_it_does_to_them():
  arrays = {'a': np.zeros((4, 2), np.int8), 'b': [np.zeros((4,), np.float32)]}
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
  for function in (
    lambda x: x[1],
    lambda x: x[:1],
    lambda x: x[np.arange(9) % 4],
  ):
    made = shapes.mapped(function, arrays)
    told = shapes.mapped(function, like)
    assert isinstance(told['a'], jax.ShapeDtypeStruct)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), told) == jax.tree.map(
      lambda x: (x.shape, x.dtype), made
    )
