"""Models of clips: a net for each part, and one that goes through segments."""

import jax
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError

KEY = jax.random.key(0)
PARTS = {'image': (6, 6, 3), 'motion': (6, 6, 4)}
NET = {'model': 'mlp', 'kw': {'widths': (5,)}}
FUSED = {'nets': {'image': NET, 'motion': NET}}


def normal(*shape, seed=1):
  draw = np.random.default_rng(seed)
  return draw.normal(size=shape).astype(np.float32)


def build(name, shape, **kw):
  net = models.build(name, num_classes=3, input_shape=shape, **kw)
  return net, net.init(KEY)


@pytest.mark.parametrize('bidirectional', [False, True])
def test_a_level_sees_no_later_segment_in_one_direction(bidirectional):
  kw = dict(widths=(4,), width=6, bidirectional=bidirectional)
  net, variables = build('lrcn', (5, 4, 4, 2), **kw)
  run = jax.jit(lambda x: net.apply(variables, x)[0])
  clips = normal(2, 5, 4, 4, 2)
  outputs = run(clips)
  assert {name: x.shape for name, x in outputs.items()} == {
    'logits': (2, 3),
    'levels': (2, 5, 3),
    'features': (2, 5, 6),
    'embedding': (2, 6),
  }
  np.testing.assert_array_equal(outputs['logits'], outputs['levels'][:, -1])
  for n in range(5):
    later = clips.copy()
    later[:, n + 1 :] = normal(2, 4 - n, 4, 4, 2, seed=2)
    found = run(later)
    for name in ('levels', 'features'):
      before = outputs[name][:, : n + 1], found[name][:, : n + 1]
      if not bidirectional:
        np.testing.assert_array_equal(*before)
      elif n < 4:  # each has seen the whole clip
        assert (before[0] != before[1]).any(-1).all()
      assert (
        n == 4 or (outputs[name][:, n + 1 :] != found[name][:, n + 1 :]).any()
      )


def test_an_lstm_is_that_of_its_definition():
  """Of features of segments, which no convolution sees."""
  net, variables = build('lrcn', (4, 3), width=5)
  x = normal(2, 4, 3)
  outputs, _ = net.apply(variables, x)
  params = jax.device_get(variables['params'])
  cell = params['lstms']['0']
  h = c = np.zeros((2, 5))
  sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
  for n in range(4):
    gates = x[:, n] @ cell['inputs']['kernel'] + cell['inputs']['bias']
    gates = gates + h @ cell['recurrent']['kernel']
    write, keep, read, new = np.split(gates, 4, axis=-1)
    c = sigmoid(keep) * c + sigmoid(write) * np.tanh(new)
    h = sigmoid(read) * np.tanh(c)
    np.testing.assert_allclose(outputs['features'][:, n], h, atol=1e-5)
  assert 'convs' not in params


@pytest.mark.parametrize(
  ('shape', 'kw', 'message'),
  [
    ((8, 8, 3), {}, r'lrcn takes sequences of images'),
    ((5, 2, 2, 1), {}, r'at least 4 by 4 pixels, not 2 by 2'),
    ((5, 3), {'width': 7, 'bidirectional': True}, r'width=7 is odd'),
  ],
)
def test_lrcn_takes_sequences(shape, kw, message):
  with pytest.raises(UserError, match=message):
    build('lrcn', shape, **kw)


def test_late_fusion_is_the_weighted_mean_of_probabilities():
  kw = dict(**FUSED, weights={'image': 2}, normalize=('motion',))
  net, variables = build('late_fusion', PARTS, **kw)
  x = {part: normal(4, *shape) for part, shape in PARTS.items()}
  outputs, state = net.apply(variables, x, key=KEY, train=True)
  assert {name: y.shape for name, y in outputs.items()} == dict.fromkeys(
    ('logits', 'image', 'motion'), (4, 3)
  )
  p = {name: jax.nn.softmax(y) for name, y in outputs.items()}
  np.testing.assert_allclose(
    p['logits'], (2 * p['image'] + p['motion']) / 3, rtol=1e-5
  )
  np.testing.assert_allclose(p['logits'].sum(-1), 1, rtol=1e-6)
  # Each net sees its own part.
  other, _ = net.apply(
    variables, {**x, 'motion': 2 + x['motion']}, key=KEY, train=False
  )
  same, _ = net.apply(variables, x, key=KEY, train=False)
  np.testing.assert_array_equal(other['image'], same['image'])
  assert (other['motion'] != same['motion']).any()
  moved = jax.tree.leaves(jax.tree.map(
    lambda a, b: bool((a != b).any()), variables['state'], state
  ))  # fmt: skip
  assert any(moved)


@pytest.mark.parametrize(
  ('shape', 'kw', 'message'),
  [
    ((6, 6, 3), FUSED, r'late_fusion takes examples of several parts'),
    (PARTS, {'nets': {'sound': NET}}, r"late_fusion: nets: .*'sound'"),
    (PARTS, {'nets': {}}, r'nets should name parts'),
    (PARTS, {**FUSED, 'weights': {'residual': 1}}, r"weights: .*'residual'"),
    (PARTS, {**FUSED, 'weights': {'image': 0}}, r'weight of image is 0'),
    (PARTS, {**FUSED, 'normalize': ('a',)}, r"normalize: .*'a'"),
    (
      PARTS,
      {'nets': {'image': {'kw': {}}}},
      r'nets\.image is .* a dict',
    ),
  ],
)
def test_late_fusion_needs_parts(shape, kw, message):
  with pytest.raises(UserError, match=message):
    build('late_fusion', shape, **kw)
