"""What a net takes is what it trained on; anything else is refused."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxkd.data import examples, inputs, sources
from jaxkd.data.inputs import Array, Inputs
from jaxkd.errors import UserError

BYTES = Inputs(Array((4, 6, 3), 'uint8', 0.0, 1.0))
GREY = Inputs(Array((4, 6, 1), 'float32', 0.0, 1.0))
WIDE = Inputs(Array((4, 4, 3), 'float32', -2.0, 2.5))
VECTOR = Inputs(Array((5,), 'float32', -2.0, 2.5))
TOKENS = Inputs(
  {k: Array((7,), 'int32', 0, 39) for k in ('source', 'prefix')}
)  # as of translation
PARTS = Inputs(
  {
    'image': Array((4, 6, 3), 'uint8', 0.0, 1.0),
    'motion': Array((4, 6, 2), 'uint8', 0.0, 1.0),
  }
)  # as of video


def ones(*shape, dtype=np.float32):
  return np.ones(shape, dtype)


@pytest.mark.parametrize('asarray', [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
  ('known', 'given', 'taken'),
  [
    (BYTES, ones(2, 4, 6, 3, dtype=np.uint8), np.uint8),
    (BYTES, ones(2, 4, 6, 3), np.float32),
    (BYTES, ones(2, 4, 6, 3, dtype=np.float16), np.float32),
    (BYTES, ones(0, 4, 6, 3), np.float32),
    (GREY, ones(2, 4, 6, 1, dtype=np.uint8), np.uint8),
    (GREY, ones(2, 4, 6, dtype=np.uint8), np.uint8),
    (GREY, ones(4, 4, 6), np.float32),
    (GREY, ones(2, 4, 6, 1, dtype=bool), np.float32),
    (GREY, ones(2, 4, 6, 1) + np.float32(1e-6), np.float32),
    (GREY, ones(2, 4, 6, 1) * np.float32(np.nan), np.float32),
    (WIDE, ones(2, 4, 4, 3) * -6, np.float32),
    (VECTOR, ones(2, 5) * 1000, np.float32),  # as rare values may be
    (TOKENS, dict(source=ones(2, 7, dtype=np.int32) * 39,
                  prefix=ones(2, 7, dtype=np.uint8)), np.int32),
  ],
)  # fmt: skip
def test_what_it_trained_on_is_taken(asarray, known, given, taken):
  got = inputs.take(known, jax.tree.map(asarray, given))
  want = given if known is TOKENS else given.reshape(-1, *known.arrays.shape)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert all(x.dtype == taken for x in jax.tree.leaves(got))


@pytest.mark.parametrize(
  ('known', 'given', 'message'),
  [
    (BYTES, ones(2, 9, 9, 3), r'\[2, 9, 9, 3\]; bring images to 4 × 6 pixels'),
    (PARTS, {'image': ones(2, 4, 6, 3)}, 'and motion is missing; give it too'),
    (
      PARTS,
      {'image': ones(2, 4, 6, 3), 'motion': ones(1, 4, 6, 2)},
      'there are 2 of image, 1 of motion; give as many of each',
    ),
    (
      PARTS,
      {'image': ones(2, 4, 6, 3), 'motion': ones(2, 9, 6, 2)},
      r'\[2, 9, 6, 2\]; bring it to 4 × 6 pixels of 2 channels',
    ),
    (BYTES._replace(resize=4), ones(2, 9, 9, 3), r'data.kw.resize=4 did'),
    (
      BYTES._replace(resize=(4, 6)),
      ones(2, 9, 9, 3),
      r'4 × 6 pixels, RGB, as data.kw.resize=\(4, 6\) did',
    ),
    (BYTES, ones(4, 6, 3), r'\[4, 6, 3\]; .*give inputs\[None\]'),
    (BYTES, ones(2, 3, 4, 6), r'give numpy.moveaxis\(inputs, 1, -1\)'),
    (BYTES, ones(2, 4, 6), 'bring images to .* RGB'),
    (BYTES, ones(2, 4, 6, 4), 'bring images to .* RGB'),
    (BYTES, ones(2, 6, 4, 3), 'bring images to 4 × 6'),
    (BYTES, ones(2, 4, 6, 3) * 255, 'from 255 to 255 .* 0 to 1; .*divide by'),
    (BYTES._replace(range=(-1, 1)), ones(2, 4, 6, 3) * -0.5,
     r'data\.kw\.range=\(-1, 1\) brought -1 to 0 and 1 to 1, or give bytes'),
    (BYTES, ones(2, 4, 6, 3) * 1.01, 'from 1.01 to 1.01'),
    (BYTES, ones(2, 4, 6, 3) * -0.5, 'from -0.5 to -0.5'),
    (BYTES, ones(2, 4, 6, 3, dtype=np.int64), 'type int64; give arrays of uin'),
    (BYTES, ones(2, 4, 6, 3, dtype=np.uint16), 'type uint16'),
    (BYTES, ones(2, 4, 6, 3, dtype=complex), 'type complex128'),
    (BYTES, [ones(4, 6, 3)] * 2, 'takes one array, .* was given a list'),
    (BYTES, {'image': ones(2, 4, 6, 3)}, 'was given a dict'),
    (BYTES, None, 'was given a NoneType'),
    (BYTES, 3.0, 'was given a float'),
    (GREY, ones(4, 6, 1), r'give inputs\[None\]'),
    (GREY, ones(4, 6), r'give inputs\[None\]'),
    (GREY, ones(2, 4, 6, 3), 'bring images to 4 × 6 pixels, grey'),
    (GREY, ones(2, 4, 6) * 16, 'from 16 to 16'),
    (WIDE, ones(2, 4, 4, 3, dtype=np.uint8), 'type uint8; .* from -2 to 2.5'),
    (WIDE, ones(2, 4, 4, 3) * 255, 'from -2 to 2.5; scale them'),
    (VECTOR, ones(2, 5, dtype=np.uint8), 'type uint8'),
    (VECTOR, ones(5), r'give inputs\[None\]'),
    (VECTOR, ones(2, 6), r'\[N, 5\] .* \[2, 6\]; give arrays of that shape'),
    (TOKENS, ones(2, 7, dtype=np.int32), 'several arrays, prefix .*source'),
    (TOKENS, dict(source=ones(2, 7), prefix=ones(2, 7)), 'give int32'),
    (TOKENS, dict.fromkeys(('source', 'prefix'), ones(2, 7, dtype=int) * 40),
     'from 40 to 40 .* 0 to 39; give tokens of the vocabulary'),
    (TOKENS, dict.fromkeys(('source', 'prefix'), ones(2, 7, dtype=int) * -1),
     'from -1 to -1'),
  ],
)  # fmt: skip
def test_something_else_is_refused_in_a_sentence(known, given, message):
  with pytest.raises(UserError, match=f'^inputs: .*{message}') as error:
    inputs.take(known, given)
  assert '\n' not in str(error.value)


def test_a_model_may_be_asked_for_more_than_its_examples_have():
  step = dict(state={'h': ones(2, 3)}, token=ones(2, dtype=np.int32))
  assert inputs.take(TOKENS, step) == step
  source = {'source': ones(2, 7, dtype=np.int32)}
  assert inputs.take(TOKENS, source).keys() == {'source'}
  with pytest.raises(UserError, match='from 40 to 40'):
    inputs.take(TOKENS, {'source': source['source'] * 40})


def test_what_cannot_be_looked_at_becomes_nan():
  batch = ones(3, 4, 6, 1) * np.array([0.5, 255, -1])[:, None, None, None]
  taken = jax.jit(lambda x: inputs.take(GREY, x))(batch)
  assert np.isnan(taken).all((1, 2, 3)).tolist() == [False, True, True]
  np.testing.assert_array_equal(taken[0], batch[0])
  with pytest.raises(UserError, match='bring images'):  # shapes are known
    jax.eval_shape(lambda x: inputs.take(GREY, x), ones(3, 5, 5, 1))


def source(x, **more):
  split = {s: (x, np.arange(len(x)) % 2) for s in ('train', 'test')}
  made = {
    k: examples.ArrayExamples(examples.as_numbers(given, k), labels)
    for k, (given, labels) in split.items()
  }
  shape = inputs.shapes.example(x[:1])
  return sources.Source('mine', made, 2, shape, ('a', 'b'), **more)


def test_what_it_trained_on_is_seen():
  x = np.linspace(-1, 3, 4 * 12, dtype=np.float32).reshape(4, 2, 2, 3)
  seen = inputs.of(source(x))
  assert seen == Inputs(Array((2, 2, 3), 'float32', -1.0, 3.0))
  pixels = inputs.of(source(x.astype(np.uint8), resize=2))
  assert pixels == Inputs(Array((2, 2, 3), 'uint8', 0.0, 1.0), 2)
  tokens = source(np.arange(8).reshape(4, 2), vocabulary=9)
  assert inputs.of(tokens) == Inputs(Array((2,), 'int32', 0, 8))
  assert inputs.of(tokens).shape == jax.ShapeDtypeStruct((2,), np.int32)
  both = {'frames': x[:, 0, 0], 'valid': np.eye(4, 2) > 0}
  made = examples.ArrayExamples(both, np.arange(4) % 2)
  speech = tokens._replace(splits={'train': made})
  assert inputs.of(speech).arrays['valid'] == Array((2,), 'bool', 0, 1)
  numbers = source(np.arange(8).reshape(4, 2) - 3)
  assert inputs.of(numbers).arrays.bounds() == (-np.inf, np.inf)


PAIR = Inputs((GREY.arrays, VECTOR.arrays))
SCALED = GREY._replace(range=(-1, 1))


RESIZED = BYTES._replace(resize=(4, 6))


@pytest.mark.parametrize(
  'known', [BYTES, GREY, VECTOR, TOKENS, PAIR, SCALED, RESIZED]
)
def test_it_is_the_same_after_json(known):
  kept = json.loads(json.dumps(inputs.as_json(known)))
  assert inputs.from_json(kept) == known


def test_pairs_of_arrays():
  image, vector = inputs.take(PAIR, (ones(2, 4, 6), ones(2, 5)))
  assert image.shape == (2, 4, 6, 1) and vector.shape == (2, 5)
  for given in (ones(2, 4, 6), (ones(2, 4, 6),), {'a': ones(2, 5)}):
    with pytest.raises(UserError, match=r'takes several arrays, 0 .*; 1 '):
      inputs.take(PAIR, given)


def picture(path, mode, size):
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).convert(mode).save(path)
  return np.asarray(Image.open(path))


def test_files_are_read_as_those_of_the_run(tmp_path):
  a, b, deep = (tmp_path / f'{name}.png' for name in ('a', 'b', 'deep'))
  colours, grey = picture(a, 'RGB', (4, 6)), picture(b, 'L', (4, 6))
  got = inputs.read(BYTES, [a, b])
  np.testing.assert_array_equal(got[0], colours)
  np.testing.assert_array_equal(got[1], np.stack([grey] * 3, -1))
  got = inputs.read(GREY, [str(b)])
  np.testing.assert_array_equal(got, grey[None, ..., None])
  picture(a, 'RGB', (9, 5))
  with pytest.raises(UserError, match=r'9 × 5 pixels and .* 4 × 6; with resi'):
    inputs.read(BYTES, [a])
  small = np.asarray(Image.open(a).resize((6, 4), Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(inputs.read(BYTES, [a], resize=True)[0], small)
  square = Inputs(Array((3, 3, 3), 'uint8', 0.0, 1.0), 3)
  small = np.asarray(Image.open(a).resize((3, 3), Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(inputs.read(square, [a])[0], small)
  Image.fromarray(np.zeros((4, 6), np.uint16)).save(deep)
  b.write_text('no image')
  for known, file, message in (
    (BYTES, deep, 'deep.png has pixels of more than eight bits'),
    (BYTES, b, 'b.png is no image, or a damaged one'),
    (BYTES, tmp_path / 'c.png', 'there is no file .*c.png'),
    (VECTOR, a, r'takes \[N, 5\] of floats'),
    (WIDE, a, 'which is not what files of images hold'),
  ):
    with pytest.raises(UserError, match=f'^net.read: .*{message}') as error:
      inputs.read(known, [file])
    assert not re.search(r'data\.source|\n', str(error.value))
