"""A model that transcribes, at once and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError

TOKENS, COUNT, BINS, LENGTH, STACK = 7, 10, 3, 4, 3
SHAPE = {
  'source': {
    'frames': (COUNT, BINS),
    'valid': jax.ShapeDtypeStruct((COUNT,), jnp.bool_),
  },
  'prefix': jax.ShapeDtypeStruct((LENGTH,), jnp.int32),
}
KW = {'stack': STACK, 'width': 6, 'depth': 2, 'decoder_depth': 1, 'heads': 2}
random = np.random.default_rng(0)
PREFIX = np.array([[2, 4, 5, 6], [2, 0, 0, 0], [2, 5, 5, 4]], np.int32)


def speech(lengths, count=COUNT, beyond=0.0):
  """Frames, with something beyond their ends."""
  frames = np.full((len(lengths), count, BINS), beyond, np.float32)
  valid = np.arange(count)[None] < np.array(lengths)[:, None]
  drawn = np.random.default_rng(1).normal(size=(len(lengths), 10, BINS))
  frames[:, :10][valid[:, :10]] = drawn[valid[:, :10]]
  return {'frames': frames, 'valid': valid}


SOURCE = speech([10, 0, 4])  # the second as in rows that fill up a batch


def build(**kw):
  return models.build(
    'speech_transformer',
    num_classes=TOKENS,
    input_shape=SHAPE,
    **{**KW, 'dropout': 0.3, **kw},
  )


@pytest.fixture(scope='module')
def made():
  net = build()
  variables = jax.jit(net.init)(jax.random.key(0))
  forward = jax.jit(lambda x: net.apply(variables, x)[0])
  return forward


def state_of(outputs):
  return {
    name.removeprefix('state/'): x
    for name, x in outputs.items()
    if name.startswith('state/')
  }


def test_steps_give_what_a_whole_prefix_does(made):
  whole = made({'source': SOURCE, 'prefix': PREFIX})
  assert set(whole) == {'logits', 'ctc_logits', 'source_valid'}
  assert whole['logits'].shape == (3, LENGTH, TOKENS)
  # Ten frames are four stacks of three, four frames are two.
  assert whole['ctc_logits'].shape == (3, 4, TOKENS)
  np.testing.assert_array_equal(whole['source_valid'].sum(1), [4, 0, 2])
  state = state_of(made({'source': SOURCE}))
  assert 'ctc_logits' not in state
  for i in range(LENGTH):
    outputs = made({'state': state, 'token': PREFIX[:, i]})
    np.testing.assert_allclose(
      outputs['logits'], whole['logits'][:, i], rtol=1e-4, atol=1e-5
    )
    state |= state_of(outputs)


def test_padding_does_not_matter(made):
  want = made({'source': SOURCE, 'prefix': PREFIX})
  assert all(np.isfinite(x).all() for x in want.values())
  for source in (speech([10, 0, 4], 13), speech([10, 0, 4], beyond=np.nan)):
    found = made({'source': source, 'prefix': PREFIX})
    np.testing.assert_allclose(found['logits'], want['logits'], atol=1e-5)
    for here in np.argwhere(want['source_valid']):
      np.testing.assert_allclose(
        found['ctc_logits'][*here], want['ctc_logits'][*here], atol=1e-5
      )


def test_each_frame_matters(made):
  want = made({'source': SOURCE, 'prefix': PREFIX})['logits'][0]
  for i in range(COUNT):
    frames = SOURCE['frames'].copy()
    frames[0, i] += 1
    source = {**SOURCE, 'frames': frames}
    found = made({'source': source, 'prefix': PREFIX})['logits'][0]
    assert (abs(found - want) > 1e-6).any(-1).all()


@pytest.mark.parametrize(
  ('shape', 'kw', 'message'),
  [
    ((8, 8, 1), {}, r'transcribes.*not inputs of shape \(8, 8, 1\)'),
    ({**SHAPE, 'source': SHAPE['prefix']}, {}, 'it takes frames with'),
    (SHAPE, {'stack': 0}, 'stack=0 should be from 1 to 10'),
    (SHAPE, {'stack': 11}, 'stack=11'),
    (SHAPE, {'heads': 4}, 'heads=4 does not divide width=6'),
  ],
)
def test_what_cannot_be_built(shape, kw, message):
  with pytest.raises(UserError, match=message):
    models.build(
      'speech_transformer', num_classes=TOKENS, input_shape=shape, **KW | kw
    )
