"""LSTMs as language models: causal, tied, with dropout between layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.types import Idle

KEY = jax.random.key(0)
SHAPE = jax.ShapeDtypeStruct((5,), jnp.int32)
TOKENS = np.array([[4, 5, 6, 3, 4], [2, 1, 6, 4, 5]], np.int32)


def build(**kw):
  given = {'width': 3, 'depth': 2, 'init': 0.5, **kw}
  return models.build(
    'lstm_language', num_classes=7, input_shape=SHAPE, **given
  )


@pytest.fixture(scope='module')
def made():
  net = build(dropout=0.4)
  return net, jax.jit(net.init)(KEY)


def reference(params, tokens):
  """The same in NumPy, a step and a sequence at a time."""

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  params = jax.tree.map(np.float64, params)
  embedding = params['embed']['embedding']
  found = []
  for sequence in tokens:
    x = embedding[sequence]
    for layer in params['layers'].values():
      h = c = np.zeros(x.shape[-1])
      outputs = []
      for now in x:
        gates = now @ layer['inputs']['kernel'] + layer['inputs']['bias']
        gates = gates + h @ layer['recurrent']['kernel']
        write, keep, read, new = np.split(gates, 4)
        c = sigmoid(keep) * c + sigmoid(write) * np.tanh(new)
        h = sigmoid(read) * np.tanh(c)
        outputs.append(h)
      x = np.stack(outputs)
    found.append(x @ embedding.T + params['bias'])
  return np.stack(found)


def test_is_stacked_lstms_with_one_embedding(made):
  net, variables = made
  params = {**variables['params'], 'bias': np.linspace(-1, 1, 7, dtype='f4')}
  outputs, _ = net.apply({**variables, 'params': params}, TOKENS)
  assert outputs['logits'].dtype == jnp.float32
  np.testing.assert_allclose(
    outputs['logits'], reference(params, TOKENS), atol=1e-5
  )
  assert outputs['embedding'].shape == (2, 5, 3)
  assert net.idle() == Idle()


def test_does_not_see_what_follows(made):
  net, variables = made
  other = TOKENS.copy()
  other[:, 3:] = 1
  one, two = (net.apply(variables, x)[0]['logits'] for x in (TOKENS, other))
  np.testing.assert_array_equal(one[:, :3], two[:, :3])
  assert (one[:, 3:] != two[:, 3:]).any()


def test_dropout_is_drawn_in_training_alone(made):
  net, variables = made
  draws = [
    net.apply(variables, TOKENS, key=jax.random.key(i), train=True)[0]['logits']
    for i in (1, 1, 2)
  ]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert (draws[0] != draws[2]).any()


def test_published_sizes():
  """Embedding and biases, and two layers of 4 (1500 + 1500) 1500 and biases."""
  net = models.build(
    'lstm_language_2x1500', num_classes=10_003, input_shape=SHAPE
  )
  params = jax.eval_shape(net.init, KEY)['params']
  layer = 4 * 1500 * (1500 + 1500 + 1)
  assert models.count(params) == 10_003 * (1500 + 1) + 2 * layer


def test_an_output_layer_of_its_own():
  params = jax.eval_shape(build(tied=False).init, KEY)['params']
  assert params['head']['kernel'].shape == (3, 7)
  assert 'bias' not in params


@pytest.mark.parametrize(
  'shape', [(4, 4, 1), jax.ShapeDtypeStruct((3, 2), jnp.int32), {'a': SHAPE}]
)
def test_what_is_no_sequence_of_tokens_is_refused(shape):
  with pytest.raises(UserError, match=r'this model is of language.*choose'):
    models.build('lstm_language', num_classes=7, input_shape=shape)


@pytest.mark.parametrize('tied', [True, False])
def test_logits_may_stay_factors(tied):
  net, plain = build(tied=tied, logits='factored', chunk=3), build(tied=tied)
  variables = plain.init(KEY)
  outputs, _ = net.apply(variables, TOKENS)
  wanted, _ = plain.apply(variables, TOKENS)
  assert outputs['logits'].shape == (2, 5, 7) and outputs['logits'].chunk == 3
  np.testing.assert_allclose(
    outputs['logits'].dense(), wanted['logits'], rtol=1e-6, atol=1e-7
  )
  with pytest.raises(UserError, match=r'kw.logits: .* dense, factored'):
    build(logits='chunks')
