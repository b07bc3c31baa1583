"""Models that translate, at once and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from jaxkd import models
from jaxkd.data.text.tokens import PAD
from jaxkd.errors import UserError
from jaxkd.models import transformer_seq2seq

KEY = jax.random.key(0)
TOKENS = 7
SHAPE = {
  'source': jax.ShapeDtypeStruct((5,), jnp.int32),
  'prefix': jax.ShapeDtypeStruct((4,), jnp.int32),
}
# The second has no source at all, as rows that fill up a batch do.
SOURCE = np.array([[4, 5, 6, 0, 0], [0, 0, 0, 0, 0], [3, 4, 5, 6, 1]], np.int32)
PREFIX = np.array([[2, 4, 5, 6], [2, 0, 0, 0], [2, 5, 5, 4]], np.int32)
BOTH = {'source': SOURCE, 'prefix': PREFIX}
SMALL = {
  'seq2seq': {'width': 6, 'depth': 2, 'dropout': 0.3, 'init': 0.8},
  'transformer_seq2seq': {'width': 6, 'depth': 2, 'heads': 2, 'dropout': 0.3},
}
FAMILIES = pytest.mark.parametrize('family', SMALL)


def build(family, **kw):
  return models.build(
    family, num_classes=TOKENS, input_shape=SHAPE, **SMALL[family], **kw
  )


@pytest.fixture(scope='module')
def made():
  """Nets of all families, their forward pass and variables."""
  found = {}
  for family in SMALL:
    net = build(family)
    forward = jax.jit(lambda v, x, net=net: net.apply(v, x)[0])
    found[family] = net, forward, jax.jit(net.init)(KEY)
  return found


def state_of(outputs):
  return {
    name.removeprefix('state/'): x
    for name, x in outputs.items()
    if name.startswith('state/')
  }


@FAMILIES
def test_steps_give_what_a_whole_prefix_does(made, family):
  _, forward, variables = made[family]
  whole = forward(variables, BOTH)
  np.testing.assert_array_equal(whole['source_valid'], SOURCE != PAD)
  assert set(whole) == {'logits', 'source_valid'}
  assert whole['logits'].shape == (3, 4, TOKENS)
  state = state_of(forward(variables, {'source': SOURCE}))
  assert all(len(x) == 3 for x in state.values())
  for i in range(4):
    outputs = forward(variables, {'state': state, 'token': PREFIX[:, i]})
    np.testing.assert_allclose(
      outputs['logits'], whole['logits'][:, i], rtol=1e-4, atol=1e-5
    )
    changed = state_of(outputs)
    assert changed.keys() < state.keys()
    for name, x in changed.items():
      assert (x.shape, x.dtype) == (state[name].shape, state[name].dtype)
    state |= changed
  # One more than the transformer has room for.
  more = forward(variables, {'state': state, 'token': PREFIX[:, 0]})['logits']
  assert np.isnan(more).all() == (family == 'transformer_seq2seq')


@FAMILIES
def test_what_comes_later_and_padding_do_not_matter(made, family):
  _, forward, variables = made[family]
  want = forward(variables, BOTH)['logits']
  assert np.isfinite(want).all()
  later = PREFIX.copy()
  later[:, 2:] = 3
  found = forward(variables, {'source': SOURCE, 'prefix': later})['logits']
  np.testing.assert_allclose(found[:, :2], want[:, :2], rtol=1e-4, atol=1e-5)
  assert (abs(found - want)[:, 2:] > 1e-4).any((1, 2)).all()

  longer = np.pad(SOURCE, ((0, 0), (0, 3)), constant_values=PAD)
  found = forward(variables, {'source': longer, 'prefix': PREFIX})['logits']
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@FAMILIES
def test_the_source_matters_to_the_last_token(made, family):
  _, forward, variables = made[family]
  want = forward(variables, BOTH)['logits'][2]
  for i in range(SOURCE.shape[1]):
    source = SOURCE.copy()
    source[2, i] = 2
    found = forward(variables, {'source': source, 'prefix': PREFIX})['logits']
    assert (abs(found[2] - want) > 1e-5).any(-1).all()


def sigmoid_step(x, h, c, kernels, bias):
  gates = x @ kernels[0] + h @ kernels[1] + bias
  i, f, o, g = np.split(gates, 4)
  c = special.expit(f) * c + special.expit(i) * np.tanh(g)
  return special.expit(o) * np.tanh(c), c


def translate(params, source, prefix):
  """The paper's equations in NumPy, for one example."""
  width, depth = params['keys']['kernel'].shape[0], len(params['encoder'])
  h, c = np.zeros((depth, width)), np.zeros((depth, width))
  encoded = []
  for token in source:
    x = params['source']['embedding'][token]
    for i in range(depth):
      layer = params['encoder'][str(i)]
      kernels = layer['inputs']['kernel'], layer['recurrent']['kernel']
      x, c[i] = sigmoid_step(x, h[i], c[i], kernels, layer['inputs']['bias'])
      h[i] = x
    encoded.append(x)
  encoded, fed, logits = np.array(encoded), np.zeros(width), []
  decoder = params['decoder']
  for token in prefix:
    x = np.concatenate([params['target']['embedding'][token], fed])
    for i in range(depth):
      weights = decoder['recurrent'][str(i)]
      below, own = np.split(weights['kernel'], 2)
      bias = weights['bias'] if i else decoder['inputs']['bias']
      if i == 0:
        below = np.concatenate([decoder['inputs']['kernel'], below])
      h[i], c[i] = sigmoid_step(x, h[i], c[i], (below, own), bias)
      x = h[i]
    # Scores are those of a bilinear form between h and the source.
    p = special.softmax(x @ (encoded @ params['keys']['kernel']).T)
    both = np.concatenate([p @ encoded, x])
    fed = np.tanh(
      both
      @ np.concatenate([params['values']['kernel'], decoder['out']['kernel']])
    )
    logits.append(fed @ params['head']['kernel'] + params['head']['bias'])
  return np.array(logits)


def test_lstms_are_those_of_the_paper(made):
  _, forward, variables = made['seq2seq']
  params = jax.tree.map(lambda x: np.float64(x), variables['params'])
  found = forward(variables, BOTH)['logits']
  for i in (0, 2):
    source = SOURCE[i][SOURCE[i] != PAD]
    np.testing.assert_allclose(
      found[i], translate(params, source, PREFIX[i]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
  ('name', 'millions'),
  [('lstm_4x1000', 221), ('lstm_2x500', 84), ('lstm_2x300', 49)],
)
def test_sizes_are_those_of_the_paper(name, millions):
  net = models.build(name, num_classes=50_000, input_shape=SHAPE)
  shapes = jax.eval_shape(net.init, KEY)['params']
  assert models.count(shapes) / 1e6 == pytest.approx(millions, abs=1)


def test_initial_values_of_lstms_are_uniform(made):
  _, _, variables = made['seq2seq']
  values = np.concatenate([x.ravel() for x in jax.tree.leaves(variables)])
  assert abs(values).max() <= 0.8
  assert np.histogram(values, 4, (-0.8, 0.8))[0] / values.size == (
    pytest.approx(0.25, abs=0.03)
  )


def test_attention_is_that_of_jax():
  attention = transformer_seq2seq.Attention(
    6, 2, dropout=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0)
  )
  x, memory = (jax.random.normal(KEY, (3, n, 6)) for n in (4, 5))
  mask = (SOURCE != PAD)[:, None, None]
  keys, values = attention.remember(memory)
  found = jax.nn.dot_product_attention(
    attention.query(x).reshape(3, 4, 2, 3), keys, values, mask=mask
  )
  want = attention.project_out(found.reshape(3, 4, 6))
  np.testing.assert_allclose(
    attention(x, keys, values, mask)[::2], want[::2], rtol=1e-5, atol=1e-6
  )


def test_positions_have_waves_of_their_own():
  place = np.array([[0, 3, 9]])
  rate = 1e4 ** -(np.arange(3) / 3)
  want = np.concatenate(
    [np.sin(place[..., None] * rate), np.cos(place[..., None] * rate)], -1
  )
  for width in (5, 6):
    found = transformer_seq2seq.sines(jnp.asarray(place), width)
    np.testing.assert_allclose(found, want[..., :width], rtol=1e-5, atol=1e-6)


@FAMILIES
def test_dropout_is_of_the_key_and_of_training_alone(made, family):
  net, forward, variables = made[family]
  train = jax.jit(lambda key: net.apply(variables, BOTH, key=key, train=True))
  first, again, other = (
    train(jax.random.key(i))[0]['logits'] for i in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any(-1).all()
  assert (first != forward(variables, BOTH)['logits']).any(-1).all()
  with pytest.raises(UserError, match='give apply a key'):
    jax.eval_shape(lambda: net.apply(variables, BOTH, train=True))


@FAMILIES
def test_members_with_taps_in_half_precision_train(family):
  taps = ('decoder/output' if family == 'seq2seq' else 'decoder/*/output',)
  net = build(family, dtype='bfloat16', taps=taps, remat='encoder/*')

  def loss(params, state, key):
    variables = {'params': params, 'state': state}
    outputs, _ = net.apply(variables, BOTH, key=key, train=True)
    return outputs['logits'].sum()

  keys = jax.random.split(KEY, 2)
  variables = jax.eval_shape(jax.vmap(net.init), keys)
  grads = jax.eval_shape(
    jax.vmap(jax.grad(loss)), variables['params'], variables['state'], keys
  )
  assert grads == variables['params']

  one = jax.eval_shape(net.init, KEY)
  ask = lambda inputs: jax.eval_shape(net.apply, one, inputs)[0]  # noqa: E731
  outputs = ask(BOTH)
  tapped = [name for name in outputs if name.startswith('decoder/')]
  assert {outputs[name].shape for name in tapped} == {(3, 4, 6)}
  state = ask({'source': SOURCE})
  assert all(name.startswith('state/') for name in state)
  step = ask({'state': state_of(state), 'token': PREFIX[:, 0]})
  assert {step[name].shape for name in tapped} == {(3, 1, 6)}
  read = [x for name, x in step.items() if not name.startswith('state/')]
  assert {x.dtype for x in (*outputs.values(), *read)} <= {
    jnp.dtype('float32'),
    jnp.dtype('int32'),
    jnp.dtype('bool'),
  }


@FAMILIES
def test_what_cannot_be_translated_is_refused(made, family):
  net, _, variables = made[family]
  options = {'num_classes': 3}
  floats = {**SHAPE, 'source': jax.ShapeDtypeStruct((5,), jnp.float32)}
  for shape in ((8, 8, 1), {'source': SHAPE['source']}, floats):
    with pytest.raises(UserError, match='takes tokens, a source and a prefix'):
      models.build(family, input_shape=shape, **options)
  for inputs in (SOURCE, {'source': SOURCE, 'token': PREFIX[:, 0]}):
    with pytest.raises(UserError, match='give it a source and a prefix'):
      jax.eval_shape(net.apply, variables, inputs)


def test_heads_divide_the_width():
  with pytest.raises(UserError, match='heads=4 does not divide width=6'):
    models.build(
      'transformer_seq2seq', num_classes=3, input_shape=SHAPE, width=6
    )


def test_what_goes_into_a_loop_cannot_be_changed():
  with pytest.raises(
    UserError, match=r'decoder/out is called in a loop.*skip='
  ):
    models.build(
      'seq2seq',
      num_classes=5,
      input_shape=SHAPE,
      width=4,
      before=(('decoder/out', lambda x: x),),
    )
