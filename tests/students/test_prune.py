"""Pruned nets: which weights go, when, and that they stay away."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd.errors import UserError
from jaxkd.students import compression, prune, stored
from jaxkd.types import Net

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def init(key):
  one, two = jax.random.split(key)
  return {
    'params': {
      'a': {'kernel': jax.random.normal(one, (5, 8)), 'bias': jnp.zeros(8)},
      'b': {'kernel': 3 * jax.random.normal(two, (8, 2))},
    },
    'state': {'calls': jnp.zeros((), jnp.int32)},
  }


def apply(variables, inputs, *, key=None, train=False):
  a, b = variables['params']['a'], variables['params']['b']
  hidden = jnp.tanh(inputs @ a['kernel'] + a['bias'][None])
  state = {'calls': variables['state']['calls'] + 1}
  return {'logits': hidden @ b['kernel']}, state


NET = Net(init, apply)


def pruned(text, quantisation='', steps=100):
  made = compression.compression(
    NET, quantisation, text, steps=steps, at='student'
  )
  return made, made.start(NET.init(jax.random.key(0)))


def kernels(variables):
  own = variables['params']
  return {f'{k}/kernel': np.asarray(own[k]['kernel']) for k in ('a', 'b')}


def finished(made, variables):
  one = jax.tree.map(lambda x: x[None], variables)
  dense = stored.dense(compression.finish(made, one))
  return jax.tree.map(lambda x: x[0], dense)


def test_one_threshold_for_all():
  made, variables = pruned('magnitude(0.6)')
  w = kernels(variables)
  sizes = np.sort(np.abs(np.concatenate([x.ravel() for x in w.values()])))
  least = sizes[round(0.6 * sizes.size)]
  for path, mask in variables['state']['prune'].items():
    np.testing.assert_array_equal(mask, np.abs(w[path]) >= least)
  outputs, state = made.apply(variables, X, train=True)
  cut = [np.where(np.abs(x) >= least, x, 0) for x in w.values()]
  np.testing.assert_allclose(
    outputs['logits'], np.tanh(X @ cut[0]) @ cut[1], rtol=1e-4, atol=1e-5
  )
  assert state['calls'] == 1 and set(state) == {'calls', 'prune'}


def test_each_array_can_lose_its_share():
  _, variables = pruned('magnitude(0.5, layerwise=True)')
  for path, mask in variables['state']['prune'].items():
    assert mask.sum() == mask.size // 2, path


def test_only_what_is_named_is_pruned():
  _, variables = pruned('magnitude(0.5, skip="b")')
  assert list(variables['state']['prune']) == ['a/kernel']
  _, variables = pruned('magnitude(0.9, only="b")|magnitude(0.1)')
  shares = {k: 1 - m.mean() for k, m in variables['state']['prune'].items()}
  assert shares == pytest.approx({'b/kernel': 14 / 16, 'a/kernel': 0.1})


def test_what_is_pruned_stays_so_through_momentum_and_decay():
  made, variables = pruned('magnitude(0.5)')
  optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, 0.9))
  masks, opt = variables['state']['prune'], None
  params = variables['params']
  opt = optimizer.init(params)

  def loss(params):
    out = made.apply({**variables, 'params': params}, X, train=True)[0]
    return (out['logits'] ** 2).sum()

  for _ in range(4):
    slope = jax.grad(loss)(params)
    for path, mask in masks.items():
      where = slope[path[0]]['kernel']
      assert not where[~mask].any() and where[mask].any()
    updates, opt = optimizer.update(slope, opt, params)
    params = optax.apply_updates(params, updates)
  done = finished(made, {**variables, 'params': params})
  assert set(done['state']) == {'calls'}
  for path, mask in masks.items():
    np.testing.assert_array_equal(done['params'][path[0]]['kernel'] == 0, ~mask)


def test_the_share_grows_by_the_cubic_schedule_and_nothing_comes_back():
  made, variables = pruned('magnitude(0.8, begin=4, end=24, every=5)')
  update, gone, before = jax.jit(made.update), {}, None
  for step in range(40):
    # The weights change in the meantime.
    noise = 3 * jax.random.normal(jax.random.key(step), (5, 8))
    variables['params']['a']['kernel'] = noise
    variables['state'] = update(variables, step)
    masks = np.concatenate(
      [m.ravel() for m in variables['state']['prune'].values()]
    )
    gone[step] = (~masks).sum()
    if before is not None:
      assert not (masks & ~before).any()
    before = masks
  size = masks.size
  assert [s for s in range(1, 40) if gone[s] != gone[s - 1]] == [9, 14, 19, 24]
  for step in (4, 9, 14, 19, 24, 39):
    done = min(1, (step - 4) / 20)
    assert gone[step] == round(size * 0.8 * (1 - (1 - done) ** 3))


def test_all_at_once_in_the_middle():
  made, variables = pruned('magnitude(0.5, begin=3, end=3)')
  gone = []
  for step in range(6):
    variables['state'] = made.update(variables, step)
    masks = variables['state']['prune'].values()
    gone.append(sum(int((~m).sum()) for m in masks))
  assert gone == [0, 0, 0, 28, 28, 28]


def test_after_training_it_is_cut_once():
  made, variables = pruned('magnitude(0.5, after=True)')
  want = NET.apply(NET.init(jax.random.key(0)), X)[0]['logits']
  np.testing.assert_array_equal(made.apply(variables, X)[0]['logits'], want)
  done, early = finished(made, variables), pruned('magnitude(0.5)')
  for path, mask in early[1]['state']['prune'].items():
    kernel = done['params'][path[0]]['kernel']
    np.testing.assert_array_equal(kernel == 0, ~mask)


@pytest.mark.parametrize('after', [False, True])
def test_what_is_left_is_quantised(after):
  text = f'magnitude(0.5, layerwise=True, after={after})'
  made, variables = pruned(text, 'wrpn(4)|activations(8)')
  done = finished(made, variables)
  for path, w in kernels(variables).items():
    kernel = done['params'][path[0]]['kernel']
    mask = np.abs(w) >= np.sort(np.abs(w).ravel())[w.size // 2]
    want = np.where(mask, np.round(np.clip(w, -1, 1) * 7) / 7, 0)
    np.testing.assert_allclose(kernel, want, atol=1e-6)
  if not after:
    seen = made.apply(variables, X)[0]['logits']
    np.testing.assert_allclose(
      seen, NET.apply(done, X)[0]['logits'], rtol=1e-5, atol=1e-5
    )


def test_quantised_weights_of_zero_stay_zero_where_something_is_pruned():
  made, variables = pruned('magnitude(0.5)', 'uniform(1)')
  seen = made.apply(variables, X)[0]['logits']
  done = finished(made, variables)
  np.testing.assert_allclose(
    seen, NET.apply(done, X)[0]['logits'], rtol=1e-5, atol=1e-5
  )
  assert (done['params']['a']['kernel'] == 0).any()


def test_members_have_masks_of_their_own():
  made, _ = pruned('magnitude(0.5, end=4, every=2)')
  keys = jax.random.split(jax.random.key(7), 3)
  variables = jax.vmap(made.start)(jax.vmap(NET.init)(keys))
  variables['state'] = jax.jit(jax.vmap(made.update))(variables, jnp.full(3, 4))
  masks = variables['state']['prune']
  assert not np.array_equal(masks['a/kernel'][0], masks['a/kernel'][1])
  left = [sum(int(m[i].sum()) for m in masks.values()) for i in range(3)]
  assert left == [28, 28, 28]
  one = jax.tree.map(lambda x: x[1], variables)
  alone = made.start(NET.init(keys[1]))
  alone['state'] = made.update(alone, 4)
  np.testing.assert_array_equal(
    alone['state']['prune']['a/kernel'], one['state']['prune']['a/kernel']
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('magnitude(0.0)', 'a share above 0 and below 1'),
    ('magnitude(1.0)', 'a share above 0 and below 1'),
    ('magnitude(0.5, begin=3)', 'an end that is not before it'),
    ('magnitude(0.5, begin=-1)', 'a begin of at least 0'),
    ('magnitude(0.5, end=5, every=0)', 'at least 1 step'),
    ('magnitude(0.5, end=100)', 'the net trains for 100'),
    ('magnitude(0.5, end=5, after=True)', 'has both end=5 and after=True'),
    ('magnitud(0.5)', "no pruning 'magnitud'.*'magnitude'"),
    ('magnitude(0.5, only="c")', "for parameters 'c'.*a/kernel"),
  ],
)
def test_mistakes_are_named(text, message):
  with pytest.raises(UserError, match=rf'^student\.prune: .*{message}'):
    pruned(text)


def signs(share: float) -> prune.Pruner:
  """Negative weights go first."""
  return prune.Pruner(jnp.sign, False, lambda step: jnp.float32(share))


def test_ones_own_way_to_prune(monkeypatch):
  monkeypatch.syspath_prepend(str(Path(__file__).parent))
  _, variables = pruned('test_prune:signs(share=0.2)')
  for path, mask in variables['state']['prune'].items():
    assert (kernels(variables)[path][~np.asarray(mask)] < 0).all()
