"""The critic of whole maps, against NumPy and its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError

MAPS, IMAGE = (9, 8, 3), (16, 18, 2)
SMALL = {'widths': (8, 16), 'attention': 1}


def build(input_shape=MAPS, **kw):
  kw = {**SMALL, **kw}
  return models.build('critic', num_classes=1, input_shape=input_shape, **kw)


@pytest.fixture(scope='module')
def net():
  return build()


@pytest.fixture(scope='module')
def variables(net):
  return jax.jit(net.init)(jax.random.key(0))


def normal(*shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def attended(variables, gamma=1.0):
  """The same with attention that has begun to count."""
  params = dict(variables['params'])
  first = params['attentions']['0'] | {'gamma': jnp.float32(gamma)}
  return {**variables, 'params': {**params, 'attentions': {'0': first}}}


def test_published_size():
  """Counted from the layers of the authors' code."""
  net = models.build('critic_liu2019', num_classes=1, input_shape=(65, 65, 19))
  widths = (19, 64, 128, 256, 512)
  convs = sum(16 * a * b + b for a, b in itertools.pairwise(widths))
  attention = sum(2 * (c * c // 8 + c // 8) + c * c + c + 1 for c in (256, 512))
  variables = jax.eval_shape(net.init, jax.random.key(0))
  want = 2 * 19 + convs + attention + 4 * 4 * 512 + 1
  assert models.count(variables['params']) == want


def test_the_spectral_norm_is_one_once_it_is_found(net, variables):
  """The state alone moves, and only in training."""
  x = normal(2, *MAPS)
  state = variables['state']
  _, same = net.apply(variables, x)
  jax.tree.map(np.testing.assert_array_equal, state, same)
  train = jax.jit(
    lambda state: net.apply({**variables, 'state': state}, x, train=True)[1]
  )
  for _ in range(200):
    state = train(state)
  for i, stage in variables['params']['stages'].items():
    kernel = stage['conv']['layer_instance']['kernel']
    matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
    want = np.linalg.svd(matrix, compute_uv=False)[0]
    found = state['stages'][i]['conv']['batch_stats']["('kernel', 'sigma')"]
    np.testing.assert_allclose(found, want, rtol=1e-3)


def test_a_kernels_size_changes_no_score(net, variables):
  """Which is what dividing by its norm does; there is no bias at first."""
  x = normal(2, *MAPS)
  params = dict(variables['params'])
  larger = jax.tree.map(lambda x: x, params['stages'])
  kernel = larger['0']['conv']['layer_instance']['kernel']
  larger['0']['conv']['layer_instance']['kernel'] = 7 * kernel
  got = net.apply({**variables, 'params': {**params, 'stages': larger}}, x)[0][
    'score'
  ]
  want = net.apply(variables, x)[0]['score']
  np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize('train', [False, True])
def test_the_score_of_an_example_is_its_own(net, variables, train):
  """Whatever is beside it, and with members side by side."""
  variables = attended(variables)
  x = normal(4, *MAPS)
  score = lambda x: net.apply(variables, x, train=train)[0]['score']  # noqa: E731
  whole = score(x)
  assert whole.shape == (4,)
  assert len(np.unique(np.asarray(whole))) == 4
  np.testing.assert_allclose(score(x[1:2])[0], whole[1], rtol=1e-4)
  np.testing.assert_allclose(
    jax.vmap(score)(x.reshape(2, 2, *MAPS)).reshape(4), whole, rtol=1e-4
  )


def test_attention_is_what_it_says(net, variables):
  """None at first; then the softmax of products, against NumPy."""
  taps = ('stages/1', 'attentions/0')
  tapped = build(taps=taps)
  x = normal(2, *MAPS)
  before, _ = tapped.apply(variables, x)
  np.testing.assert_array_equal(*(before[tap] for tap in taps))
  found, _ = tapped.apply(attended(variables, 0.5), x)
  params = jax.tree.map(np.asarray, variables['params']['attentions']['0'])
  flat = np.asarray(found['stages/1'], np.float64).reshape(2, -1, 16)
  query, key, value = (
    flat @ params[name]['kernel'] + params[name]['bias'][None, None]
    for name in ('query', 'key', 'value')
  )
  weights = np.exp(query @ key.transpose(0, 2, 1))
  weights /= weights.sum(-1, keepdims=True)
  want = flat + 0.5 * weights @ value
  got = np.asarray(found['attentions/0']).reshape(want.shape)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def test_the_image_is_seen_at_the_size_of_the_maps():
  """A constant one may have any size."""
  net = build({'maps': MAPS, 'image': IMAGE})
  variables = jax.jit(net.init)(jax.random.key(1))
  maps, image = normal(2, *MAPS), normal(2, *IMAGE, seed=1)

  def score(image):
    x = {'maps': maps, 'image': image}
    return net.apply(variables, x)[0]['score']

  assert np.abs(score(image) - score(image[::-1])).min() > 1e-4
  constant = jnp.broadcast_to(jnp.array([0.3, 0.7]), (2, *IMAGE))
  np.testing.assert_allclose(
    score(constant), score(constant[:, :9, :8]), rtol=1e-5
  )


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(input_shape=(10,)), r'takes maps .* not scores of shape \(10,\)'),
    (
      dict(input_shape={'maps': MAPS, 'image': (16,)}),
      r'takes maps .* not an image of shape \(16,\)',
    ),
    (dict(input_shape=(3, 8, 2)), 'at least 4 by 4, not 3 by 8: give fewer'),
    (dict(attention=3), 'attention is 3 and should be from 0 to 2'),
  ],
)
def test_what_a_critic_cannot_see(given, message):
  with pytest.raises(UserError, match=message):
    build(**given)
