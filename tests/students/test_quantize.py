"""Quantised nets against plain NumPy, and their gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.errors import UserError
from jaxkd.students import compression, quantize, stored
from jaxkd.types import Net

SHAPE = (3, 2, 4, 5)  # height, width, inputs, outputs of a convolution


def weights(shape=SHAPE, seed=0):
  drawn = np.random.default_rng(seed).normal(size=shape)
  return drawn.astype(np.float32)


def quantised(text, w, key=None, table=None):
  """What an op makes of an array."""
  (op,) = quantize.parse(text, at='quantize')
  code = op.does.encode(stored.flat(jnp.asarray(w)), table, key)
  vars(code)['shape'] = w.shape
  return np.asarray(stored.values(code)), code


def in_torch_order(w):
  return w.transpose(3, 2, 0, 1).ravel() if w.ndim == 4 else w.T.ravel()


def uniform(values, bits, bucket):
  """Bucket by bucket, in double precision."""
  made = []
  for start in range(0, len(values), bucket):
    part = values[start : start + bucket].astype(np.float64)
    low, range_ = part.min(), np.ptp(part)
    range_ = 1.0 if range_ < 1e-10 else range_
    levels = 2**bits - 1
    made.append(
      np.round((part - low) / range_ * levels) / levels * range_ + low
    )
  return np.concatenate(made)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('bucket', [1, 16, 50, 119, 120, 256, None])
def test_uniform_is_the_formula_bucket_by_bucket(bits, bucket):
  w = weights()
  made, code = quantised(f'uniform({bits}, bucket={bucket})', w)
  want = uniform(in_torch_order(w), bits, bucket or w.size)
  np.testing.assert_allclose(in_torch_order(made), want, atol=2e-6)
  assert code.codes.max() <= 2**bits - 1
  assert len(code.scale) == -(-w.size // min(bucket or w.size, w.size))


def test_equal_weights_stay_what_they_are():
  made, _ = quantised('uniform(2)', np.full((4, 3), 0.7, np.float32))
  np.testing.assert_array_equal(made, np.float32(0.7))


def test_stochastic_rounding_is_right_in_the_mean_and_off_without_a_key():
  w = weights((40, 5))
  op = 'uniform(2, stochastic=True)'
  draws = np.stack([quantised(op, w, jax.random.key(i))[0] for i in range(200)])
  step = np.ptp(w) / 3
  assert np.abs(draws.mean(0) - w).max() < 5 * step / 2 / np.sqrt(200)
  assert np.abs(draws - w).max() <= step * 1.001  # an adjacent level
  again = quantised(op, w, jax.random.key(3))[0]
  np.testing.assert_array_equal(again, draws[3])
  np.testing.assert_array_equal(
    quantised(op, w)[0], quantised('uniform(2)', w)[0]
  )


@pytest.mark.parametrize('threshold', [0.05, 0.3])
def test_ternary_has_a_mean_on_each_side(threshold):
  w = weights() + 0.1
  made, code = quantised(f'ternary({threshold})', w)
  least = threshold * np.abs(w).max()
  want = np.zeros_like(w)
  want[w > least] = w[w > least].mean()
  want[w < -least] = w[w < -least].mean()
  np.testing.assert_allclose(made, want, rtol=1e-5)
  assert code.bits == 2 and len(np.unique(made)) == 3


def test_ternary_may_have_nothing_on_a_side():
  made, _ = quantised('ternary', np.abs(weights((4, 3))))
  assert np.isfinite(made).all() and made.min() >= 0


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_wrpn_rounds_what_lies_within_one(bits):
  w = weights()
  most = 2 ** (bits - 1) - 1
  made, _ = quantised(f'wrpn({bits})', w)
  want = np.round(np.clip(w, -1, 1) * np.float32(most)) / np.float32(most)
  np.testing.assert_allclose(made, want, rtol=1e-6, atol=0)
  zeros = np.zeros((2, 2), np.float32)
  largest = np.abs(w).max()
  made, _ = quantised(f'wrpn({bits}, scaled=True)', w)
  want = np.round(w / largest * most) / np.float32(most) * largest
  np.testing.assert_allclose(made, want, atol=1e-6)
  for text in ('wrpn(2)', 'wrpn(2, scaled=True)'):
    assert (quantised(text, zeros)[0] == 0).all()


def test_points_start_at_quantiles_and_weights_go_to_the_nearest():
  w = weights()
  (op,) = quantize.parse('points(2, bucket=50)', at='quantize')
  table = op.does.table(stored.flat(jnp.asarray(w)))
  values = in_torch_order(w)
  rows = [values[i : i + 50] for i in range(0, len(values), 50)]
  scaled = np.concatenate([(r - r.min()) / np.ptp(r) for r in rows])
  np.testing.assert_allclose(
    table, np.percentile(scaled, [0, 100 / 3, 200 / 3, 100]), atol=1e-5
  )
  made, _ = quantised('points(2, bucket=50)', w, table=table)
  nearest = np.abs(scaled[:, None] - np.asarray(table)[None]).argmin(1)
  want = np.concatenate(
    [
      np.asarray(table)[nearest[i : i + 50]] * np.ptp(r) + r.min()
      for i, r in zip(range(0, len(values), 50), rows, strict=True)
    ]
  )
  np.testing.assert_allclose(in_torch_order(made), want, atol=1e-5)
  shuffled, _ = quantised('points(2, bucket=50)', w, table=table[::-1])
  np.testing.assert_array_equal(made, shuffled)


def test_points_that_start_uniform_round_as_uniform_does():
  w = weights()
  text = 'points(3, bucket=50, start="uniform")'
  (op,) = quantize.parse(text, at='quantize')
  table = op.does.table(stored.flat(jnp.asarray(w)))
  made, _ = quantised(text, w, table=table)
  want, _ = quantised('uniform(3, bucket=50)', w)
  np.testing.assert_allclose(made, want, atol=1e-5)


# Of a whole net: logits = x @ kernel + bias.


def init(key):
  return {
    'params': {
      'head': {
        'kernel': jax.random.normal(key, (4, 3)),
        'bias': jnp.ones((3,), jnp.float32),
      }
    },
    'state': {},
  }


def apply(variables, inputs, *, key=None, train=False):
  head = variables['params']['head']
  return {'logits': inputs @ head['kernel'] + head['bias'][None]}, {}


NET = Net(init, apply)
X = weights((5, 4), 1)
PULL = weights((5, 3), 2)


def trained(quantisation, pruning=''):
  made = compression.compression(
    NET, quantisation, pruning, steps=10, at='student'
  )
  return made, made.start(NET.init(jax.random.key(0)))


def slope(made, variables, **kw):
  def loss(params):
    outputs, _ = made.apply({**variables, 'params': params}, X, **kw)
    return (outputs['logits'] * PULL).sum()

  return jax.grad(loss)(variables['params'])


def test_the_gradient_goes_straight_through():
  """That of the loss by the quantised weights: xᵀ · pull."""
  made, variables = trained('uniform(2)')
  found = slope(made, variables)['head']
  np.testing.assert_allclose(found['kernel'], X.T @ PULL, rtol=1e-5)
  np.testing.assert_allclose(found['bias'], PULL.sum(0), rtol=1e-5)
  outputs, _ = made.apply(variables, X)
  w = np.asarray(variables['params']['head']['kernel'])
  np.testing.assert_allclose(
    outputs['logits'], X @ quantised('uniform(2)', w)[0] + 1, rtol=1e-5
  )
  np.testing.assert_array_equal(
    w, init(jax.random.key(0))['params']['head']['kernel']
  )


def test_what_wrpn_clips_gets_no_gradient():
  made, variables = trained('wrpn(4)')
  w = np.asarray(variables['params']['head']['kernel'])
  assert (np.abs(w) > 1).any()
  want = np.where(np.abs(w) <= 1, X.T @ PULL, 0)
  found = slope(made, variables)['head']['kernel']
  np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize(
  'text', ['uniform(4)', 'points(2)', 'ternary', 'wrpn(4)', 'wrpn(4, True)']
)
def test_weights_that_are_not_numbers_give_none(text):
  made, variables = trained(text)
  head = variables['params']['head']
  head['kernel'] = head['kernel'].at[1, 2].set(jnp.nan)
  outputs, _ = made.apply(variables, X)
  assert np.isnan(outputs['logits']).any()


def test_a_point_gets_the_sum_over_its_weights_of_scale_times_theirs():
  made, variables = trained('points(2, bucket=5)')
  found = slope(made, variables)
  w = np.asarray(variables['params']['head']['kernel'])
  (table,) = variables['params']['quantize'].values()
  _, code = quantised('points(2, bucket=5)', w, table=table)
  each = in_torch_order(X.T @ PULL) * np.repeat(code.scale, 5)[: w.size]
  want = [each[code.codes == j].sum() for j in range(4)]
  got = found['quantize']['head/kernel']
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found['head']['kernel'], X.T @ PULL, rtol=1e-5)


def test_draws_are_by_key_and_in_training_only():
  made, variables = trained('uniform(1, stochastic=True)')

  def logits(**kw):
    return np.asarray(made.apply(variables, X, **kw)[0]['logits'])

  one = logits(key=jax.random.key(1), train=True)
  assert not np.allclose(one, logits(key=jax.random.key(2), train=True))
  np.testing.assert_array_equal(one, logits(key=jax.random.key(1), train=True))
  np.testing.assert_array_equal(logits(), logits(key=jax.random.key(1)))


def test_after_training_means_that_training_does_not_know():
  made, variables = trained('uniform(2, after=True)')
  want = NET.apply(variables, X)[0]['logits']
  np.testing.assert_array_equal(made.apply(variables, X)[0]['logits'], want)
  kernel = made.finish(variables)['params']['head']['kernel']
  w = np.asarray(variables['params']['head']['kernel'])
  np.testing.assert_array_equal(
    stored.values(kernel), quantised('uniform(2)', w)[0]
  )


def test_what_is_finished_is_the_nets_own():
  made, variables = trained('points(2)')
  assert 'quantize' in variables['params']
  done = made.finish(variables)
  assert set(done['params']) == {'head'} and done['state'] == {}
  np.testing.assert_array_equal(done['params']['head']['bias'], 1)


def test_members_are_quantised_each_by_itself():
  made, _ = trained('points(2)|uniform(3, only="*bias")')
  both = jax.vmap(NET.init)(jax.random.split(jax.random.key(0), 2))
  together = compression.apply_once(made, both)
  dense = stored.dense(together)['params']['head']['kernel']
  for i in range(2):
    own = jax.tree.map(lambda x, i=i: x[i : i + 1], both)
    alone = stored.dense(compression.apply_once(made, own))
    np.testing.assert_array_equal(
      dense[i], alone['params']['head']['kernel'][0]
    )


@pytest.mark.parametrize(
  ('text', 'low', 'high', 'levels'),
  [
    ('activations(2)', 0, 1, 3),
    ('activations(8, high=4.0)', 0, 4, 255),
    ('activations(3, signed=True)', -1, 1, 3),
    ('features(4, at="stage", high=2.0, signed=True)', -2, 2, 7),
  ],
)
def test_activations_are_clipped_and_rounded(text, low, high, levels):
  (op,) = quantize.parse(text, at='quantize')
  x = np.linspace(-5, 5, 101, dtype=np.float32)
  want = np.round(np.clip(x, low, high) * levels / high) * high / levels
  np.testing.assert_allclose(op.does.apply(x), want, atol=1e-6)
  got = jax.grad(lambda x: op.does.apply(x).sum())(x)
  np.testing.assert_array_equal(got, (x >= low) & (x <= high))
  half = op.does.apply(jnp.asarray(x, jnp.bfloat16))
  assert half.dtype == jnp.bfloat16


PATHS = ['stem/kernel', 'body/kernel', 'head/kernel', 'head/bias']


def test_the_first_op_that_is_for_a_parameter_has_it():
  ops = quantize.parse(
    'uniform(8, only="stem|head/kernel")|ternary|activations(4, skip="stem")',
    at='q',
  )
  assert quantize.precision(ops, PATHS) == {
    'stem/kernel': (8, 32),
    'body/kernel': (2, 4),
    'head/kernel': (8, 4),
    'head/bias': (32, 32),
  }
  hooks = quantize.hooks(ops, PATHS, at='q')
  assert [name for name, _ in hooks['before']] == ['body', 'head']
  ops = quantize.parse('uniform(3, skip="stem|head")', at='q')
  assert list(quantize.for_weights(ops, PATHS, at='q')) == ['body/kernel']


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('uniform(9)', 'needs 1 to 8 bits'),
    ('uniform(0)', 'needs 1 to 8 bits'),
    ('wrpn(1)', 'needs 2 to 8 bits'),
    ('activations(1, signed=True)', 'needs 2 to 8 bits'),
    ('points(2, bucket=0)', 'a bucket of at least 1'),
    ('points(2, start="zero")', "no start 'zero'.*quantiles"),
    ('ternary(1.0)', 'from 0 to below 1'),
    ('activations(8, high=0.0)', 'a limit above 0'),
    ('features(8, at="")', 'at=GLOB'),
    ('unifrom(4)', "no quantisation 'unifrom'.*'uniform'"),
    ('uniform(4', "cannot read 'uniform\\(4'"),
    ('uniform(4.5)', 'for bits, 4.5 should be a whole number'),
    ('uniform(4, bukcet=2)', "unexpected keyword argument 'bukcet'"),
    ('uniform(4, skip=3)', 'for skip, 3 should be a text'),
    ('uniform(4, only="haed")', "for parameters 'haed'.*head/kernel"),
    ('uniform(4)|ternary', 'ternary is for.*none for it'),
    ('activations(4, only="haed")', "for parameters 'haed'"),
    ('points(2, after=True)', 'nothing to train'),
    ('uniform(2, stochastic=True, after=True)', 'nothing to train'),
    ('activations(8, after=True)', 'leave out after'),
  ],
)  # fmt: skip
def test_mistakes_are_named(text, message):
  with pytest.raises(UserError, match=f'^q: .*{message}'):
    _shared_out(text)


def _shared_out(text):
  ops = quantize.parse(text, at='q')
  quantize.for_weights(ops, PATHS, at='q')
  quantize.hooks(ops, PATHS, at='q')
