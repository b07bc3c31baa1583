"""Adapters from Flax modules to Nets, on toy modules."""

import os
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.sharding import PartitionSpec as P

from jaxkd.errors import UserError
from jaxkd.models import count, resnet
from jaxkd.models.net import from_linen, from_nnx, tap_shapes
from jaxkd.train import checkpoint

X = jnp.linspace(-1.0, 1.0, 12, dtype=jnp.float32).reshape(3, 4)
KEY = jax.random.key(0)


class Block(nnx.Module):
  def __init__(self, rngs, dropout=0.5):
    self.linear = nnx.Linear(4, 4, rngs=rngs)
    self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
    self.dropout = nnx.Dropout(dropout, rngs=rngs)

  @staticmethod
  def double(x):
    return 2 * x

  def __call__(self, x):
    return self.double(self.dropout(self.norm(self.linear(x))))


class Inherits(Block):
  """Has no ``__call__`` of its own."""


class Toy(nnx.Module):
  def __init__(self, rngs, dropout=0.5):
    self.blocks = nnx.List([Block(rngs, dropout), Inherits(rngs, dropout)])
    self.head = nnx.Linear(4, 2, rngs=rngs)

  def __call__(self, x):
    for block in self.blocks:
      x = block(x)
    return self.head(x)


class Returns(nnx.Module):
  """A linear layer whose output goes through a function."""

  def __init__(self, function, rngs):
    self.linear = nnx.Linear(4, 2, rngs=rngs)
    self.function = function

  def __call__(self, x):
    return self.function(self.linear(x))


class Recurrent(nnx.Module):
  def __init__(self, rngs):
    self.cell = nnx.Linear(4, 4, rngs=rngs)
    self.unused = nnx.Linear(4, 4, rngs=rngs)

  def __call__(self, x):
    return self.cell(self.cell(x))


@pytest.fixture(scope='module')
def toy():
  net = from_nnx(Toy, X, taps=('blocks/*', 'head'))
  return net, net.init(KEY)


def returns(function, **kw):
  net = from_nnx(lambda rngs: Returns(function, rngs), X, **kw)
  return net, net.init(KEY)


def test_variables_are_plain_dicts_of_float32_with_string_keys(toy):
  net, variables = toy

  def check(node):
    for key, value in node.items():
      assert isinstance(key, str)
      if isinstance(value, jax.Array):
        assert value.dtype == jnp.float32
      else:
        assert type(value) is dict
        check(value)

  check(variables)
  assert set(variables['params']['blocks']) == {'0', '1'}
  assert set(variables['params']['blocks']['0']) == {'linear', 'norm'}
  assert set(variables['state']['blocks']['0']) == {'norm'}
  assert count(variables['params']) == 2 * (20 + 8) + 10
  chex.assert_trees_all_equal_shapes_and_dtypes(
    jax.eval_shape(net.init, KEY), variables
  )


def test_init_is_the_same_under_jit(toy):
  net, variables = toy
  chex.assert_trees_all_close(jax.jit(net.init)(KEY), variables, rtol=1e-6)


def test_an_array_becomes_logits():
  net, variables = returns(lambda x: x)
  linear = variables['params']['linear']
  outputs, state = net.apply(variables, X)
  assert list(outputs) == ['logits']
  assert state == {}
  np.testing.assert_allclose(
    outputs['logits'], X @ linear['kernel'] + linear['bias'][None], rtol=1e-6
  )


def test_a_dict_keeps_its_names():
  net, variables = returns(lambda x: {'boxes': x, 'heads': {'aux': 2 * x}})
  outputs, _ = net.apply(variables, X)
  np.testing.assert_array_equal(outputs['heads/aux'], 2 * outputs['boxes'])
  assert set(outputs) == {'boxes', 'heads/aux'}


def test_what_is_none_is_left_out():
  net, variables = returns(lambda x: {'logits': x, 'aux': None})
  assert set(net.apply(variables, X)[0]) == {'logits'}


@pytest.mark.parametrize(
  ('function', 'said'),
  [
    (lambda x: (x, x), r'a tuple of 2, the first an array float32\[3, 2\]'),
    (lambda x: [None, x], 'a list of 2, the first None'),
    (lambda x: None, 'None'),
    (lambda x: {'logits': x, 'loss': 0.1}, "a dict in which 'loss' is a float"),
    (lambda x: {'heads': {'a': None}}, 'a dict without arrays'),
  ],
)
def test_other_outputs_are_refused(function, said):
  net, variables = returns(function)
  with pytest.raises(UserError) as error:
    net.apply(variables, X)
  assert re.match(f'the model Returns returns {said}, and', str(error.value))
  assert "return {'logits': logits, 'features': features}" in str(error.value)


def test_taps_are_named_by_path(toy):
  net, variables = toy
  outputs, _ = net.apply(variables, X)
  assert set(outputs) == {'logits', 'blocks/0', 'blocks/1', 'head'}
  np.testing.assert_array_equal(outputs['head'], outputs['logits'])
  head = variables['params']['head']
  np.testing.assert_allclose(
    outputs['blocks/1'] @ head['kernel'] + head['bias'][None],
    outputs['logits'],
    rtol=1e-5,
  )


def test_a_net_without_taps_gives_the_same(toy):
  net, variables = toy
  plain, _ = from_nnx(Toy, X).apply(variables, X)
  assert list(plain) == ['logits']
  np.testing.assert_array_equal(
    plain['logits'], net.apply(variables, X)[0]['logits']
  )


@pytest.mark.parametrize(
  ('tap', 'names'),
  [
    ('*', {'head'}),
    ('blocks/1', {'blocks/1'}),
    ('*/0', {'blocks/0'}),
    ('blocks/*/norm', {'blocks/0/norm', 'blocks/1/norm'}),
    ('**/dropout', {'blocks/0/dropout', 'blocks/1/dropout'}),
  ],
)
def test_stars_stay_inside_a_segment(tap, names):
  net = from_nnx(Toy, X, taps=(tap,))
  outputs, _ = jax.eval_shape(net.apply, net.init(KEY), X)
  assert set(outputs) - {'logits'} == names


def test_tap_shapes_lists_every_layer_called():
  shapes = tap_shapes(Toy, X)
  assert set(shapes) == {
    *('blocks/0', 'blocks/0/linear', 'blocks/0/norm', 'blocks/0/dropout'),
    *('blocks/1', 'blocks/1/linear', 'blocks/1/norm', 'blocks/1/dropout'),
    'head',
  }
  assert shapes['head'].shape == (3, 2)
  assert set(tap_shapes(Recurrent, X)) == {'cell@0', 'cell@1'}


def test_a_layer_called_twice_has_two_outputs():
  net = from_nnx(Recurrent, X, taps=('cell@*',))
  outputs, _ = net.apply(net.init(KEY), X)
  np.testing.assert_array_equal(outputs['cell@1'], outputs['logits'])
  assert set(outputs) == {'logits', 'cell@0', 'cell@1'}
  with pytest.raises(UserError, match="'cell'; did you mean 'cell@1'"):
    from_nnx(Recurrent, X, taps=('cell',))


def test_a_layer_with_several_outputs_has_a_name_for_each():
  class Outer(nnx.Module):
    def __init__(self, rngs):
      self.inner = Returns(lambda x: {'a': x, 'b': (2 * x, 3 * x)}, rngs)

    def __call__(self, x):
      return self.inner(x)['a']

  net = from_nnx(Outer, X, taps=('inner/**',))
  outputs, _ = net.apply(net.init(KEY), X)
  assert set(outputs) == {
    *('logits', 'inner/a', 'inner/b/0', 'inner/b/1', 'inner/linear')
  }
  np.testing.assert_array_equal(outputs['inner/b/1'], 3 * outputs['logits'])


def test_unknown_taps_name_the_nearest_layer():
  with pytest.raises(UserError, match=r"'bloks/0'; did you mean 'blocks/0'"):
    from_nnx(Toy, X, taps=('head', 'bloks/0'))
  with pytest.raises(UserError, match="no layer 'unused'"):
    from_nnx(Recurrent, X, taps=('unused',))


def test_names_that_clash_are_refused():
  with pytest.raises(UserError, match="'linear' has the name of an output"):
    returns(lambda x: {'linear': x}, taps=('linear',))


def test_batch_statistics_move_in_training_only(toy):
  net, variables = toy
  _, state = net.apply(variables, X)
  chex.assert_trees_all_equal(state, variables['state'])
  _, state = net.apply(variables, X, key=KEY, train=True)
  linear = variables['params']['blocks']['0']['linear']
  y = X @ linear['kernel'] + linear['bias'][None]
  new = state['blocks']['0']['norm']
  np.testing.assert_allclose(new['mean'], 0.1 * y.mean(0), rtol=1e-4)
  np.testing.assert_allclose(new['var'], 0.9 + 0.1 * y.var(0), rtol=1e-4)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, variables['state'])


def test_draws_depend_on_the_key_only(toy):
  net, variables = toy

  def train(key):
    return net.apply(variables, X, key=key, train=True)[0]['blocks/0']

  first, again, other = train(KEY), train(KEY), train(jax.random.key(1))
  np.testing.assert_array_equal(first, again)
  assert ((first == 0) != (other == 0)).any()


def test_training_that_draws_needs_a_key(toy):
  net, variables = toy
  with pytest.raises(UserError, match=r"'blocks/0/dropout' draws .* a key"):
    net.apply(variables, X, train=True)
  net = from_nnx(lambda rngs: Toy(rngs, dropout=0.0), X)
  net.apply(variables, X, train=True)


def test_initial_values_do_not_depend_on_dropout():
  class Plain(nnx.Module):
    def __init__(self, rngs):
      self.first = nnx.Linear(4, 4, rngs=rngs)
      self.second = nnx.Linear(4, 4, rngs=rngs)

  class Dropped(nnx.Module):
    def __init__(self, rngs):
      self.first = nnx.Linear(4, 4, rngs=rngs)
      self.dropout = nnx.Dropout(0.5, rngs=rngs)
      self.second = nnx.Linear(4, 4, rngs=rngs)

  chex.assert_trees_all_equal(
    from_nnx(Plain, X).init(KEY), from_nnx(Dropped, X).init(KEY)
  )


def test_gradients_under_jit_with_one_trace(toy):
  net, variables = toy

  @jax.jit
  @chex.assert_max_traces(1)
  def step(params, state, key):
    def loss(params):
      outputs, new = net.apply(
        {'params': params, 'state': state}, X, key=key, train=True
      )
      return jnp.mean(outputs['blocks/0'] ** 2 + outputs['head'].sum()), new

    grads, new = jax.grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), new

  params, state = step(*variables.values(), KEY)
  params, state = step(params, state, jax.random.key(1))
  chex.assert_tree_all_finite((params, state))
  head = variables['params']['head']['bias']
  np.testing.assert_allclose(params['head']['bias'], head - 0.6, rtol=1e-5)


def test_vmap_over_members_equals_a_loop(toy):
  net, _ = toy
  seeds = jax.random.split(KEY, 2)
  members = jax.vmap(net.init)(seeds)

  def train(variables, key):
    return net.apply(variables, X, key=key, train=True)

  together = jax.vmap(train)(members, seeds)
  for i in range(2):
    member = jax.tree.map(lambda x: x[i], members)  # noqa: B023
    chex.assert_trees_all_close(
      jax.tree.map(lambda x: x[i], together),  # noqa: B023
      train(member, seeds[i]),
      rtol=1e-5,
      atol=1e-6,
    )
    chex.assert_trees_all_equal(member, net.init(seeds[i]))


def test_members_on_two_devices_equal_vmap(toy):
  net, _ = toy
  seeds = jax.random.split(KEY, 2)
  members = jax.vmap(net.init)(seeds)

  def train(variables, key):
    return net.apply(variables, X, key=key, train=True)

  mesh = jax.sharding.Mesh(jax.devices()[:2], ('member',))
  sharded = jax.shard_map(
    jax.vmap(train),
    mesh=mesh,
    in_specs=P('member'),
    out_specs=P('member'),
  )
  chex.assert_trees_all_close(
    jax.jit(sharded)(members, seeds),
    jax.vmap(train)(members, seeds),
    rtol=1e-5,
    atol=1e-6,
  )


def test_layers_that_are_computed_again_keep_less_and_give_the_same():
  def make(rngs):
    return resnet.Model(
      num_classes=3, input_shape=(8, 8, 1), depth=8, widths=(2, 2, 4, 4),
      rngs=rngs,
    )  # fmt: skip

  x = jnp.ones((2, 8, 8, 1))
  found, kept = [], []
  for remat in ('', 'stages/*'):
    net = from_nnx(make, x, taps=('stages/*', 'stages/0/*'), remat=remat)
    variables = net.init(KEY)

    def loss(params, net=net, state=variables['state']):
      outputs, new = net.apply(
        {'params': params, 'state': state}, x, key=KEY, train=True
      )
      return (outputs['logits'] ** 2).sum(), (outputs, new)

    def pull(params, loss=loss):
      return jax.vjp(loss, params, has_aux=True)[1]

    residuals = jax.tree.leaves(jax.eval_shape(pull, variables['params']))
    kept.append(sum(leaf.size for leaf in residuals))
    grad = jax.jit(jax.grad(loss, has_aux=True))
    found.append(grad(variables['params']))
  chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-6)
  assert kept[1] < kept[0] / 2


def test_layers_to_be_computed_again_must_be_there():
  with pytest.raises(UserError, match="remat: there is no layer 'block'"):
    from_nnx(Toy, X, remat='block')


def test_variables_of_another_model_are_refused(toy):
  net, variables = toy
  params = variables['params']
  with pytest.raises(UserError, match=r'params/head/bias is missing there'):
    net.apply({**variables, 'params': {'blocks': params['blocks']}}, X)
  head = {**params['head'], 'bias': jnp.zeros(3)}
  with pytest.raises(UserError, match=r'params/head/bias is \(3,\) there'):
    net.apply({**variables, 'params': {**params, 'head': head}}, X)
  with pytest.raises(UserError, match=r'params/more is \(\) there'):
    net.apply({**variables, 'params': {**params, 'more': jnp.ones(())}}, X)


def test_bare_arrays_in_modules_are_refused():
  class Bare(nnx.Module):
    def __init__(self, rngs):
      self.scale = jnp.ones(4)

  with pytest.raises(UserError, match=r"bare array 'scale'.*nnx.Variable"):
    from_nnx(Bare, X)


@pytest.mark.parametrize('path', ['noise/key', 'key'])
def test_random_keys_in_the_state_are_refused(path):
  class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
      self.variable('noise', 'key', lambda: jax.random.key(0))
      return linen.Dense(2)(x)

  class Nnx(nnx.Module):
    def __init__(self, rngs):
      self.key = nnx.Variable(jax.random.key(0))
      self.layer = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
      return self.layer(x)

  with pytest.raises(UserError, match=rf'state/{path}, .*random.key_data'):
    from_linen(Linen(), X) if '/' in path else from_nnx(Nnx, X)


class Codes(nnx.Module):
  """Remembers the mean of what goes through it."""

  def __init__(self, rngs, kind):
    self.layer = nnx.Linear(4, 2, rngs=rngs)
    self.mean = kind(jnp.zeros(2))

  def __call__(self, x):
    y = self.layer(x)
    self.mean[...] = 0.5 * self.mean[...] + 0.5 * y.mean(0)
    return y


def test_parameters_that_follow_the_inputs_are_refused():
  net = from_nnx(lambda rngs: Codes(rngs, nnx.Param), X)
  variables = net.init(KEY)
  with pytest.raises(UserError, match=r'parameter mean .*Codes.*no nnx.Param'):
    net.apply(variables, X, train=True)
  net = from_nnx(lambda rngs: Codes(rngs, nnx.Variable), X)
  outputs, state = net.apply(net.init(KEY), X, train=True)
  want = 0.5 * outputs['logits'].mean(0)
  np.testing.assert_allclose(state['mean'], want, rtol=1e-6)


def test_weights_that_are_normalised_in_a_call_train_as_they_are():
  class Normed(nnx.Module):
    def __init__(self, rngs):
      linear = nnx.Linear(4, 2, rngs=rngs)
      self.norm = nnx.SpectralNorm(linear, rngs=rngs)

    def __call__(self, x):
      return self.norm(x)

  net = from_nnx(Normed, X)
  variables = net.init(KEY)
  own = variables['params']['norm']['layer_instance']
  outputs, state = net.apply(variables, X, train=True)
  sigma = next(x for x in jax.tree.leaves(state) if not x.ndim)
  want = X @ (own['kernel'] / sigma) + own['bias'][None]
  np.testing.assert_allclose(outputs['logits'], want, rtol=1e-5, atol=1e-6)
  assert sigma != 1  # as it is before the first call


def test_more_than_ten_layers_and_whole_numbers_come_back_as_they_were(
  tmp_path,
):
  class Deep(nnx.Module):
    def __init__(self, rngs):
      self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(12)])
      self.calls = nnx.Variable(jnp.int32(2**24 + 1))  # no float32

    def __call__(self, x):
      self.calls[...] = self.calls[...] + 1
      for i, layer in enumerate(self.layers):
        x = jnp.tanh(layer(x)) + i
      return x

  net = from_nnx(Deep, X, taps=('layers/*',))
  variables = net.init(jax.random.key(0))
  checkpoint.export(tmp_path, variables, {})
  loaded, _ = checkpoint.load(tmp_path)
  given, again = (net.apply(v, X, train=True) for v in (variables, loaded))
  jax.tree.map(np.testing.assert_array_equal, given, again)
  assert again[1]['calls'] == 2**24 + 2


def test_half_precision_computes_but_does_not_store():
  net = from_nnx(
    lambda rngs: nnx.Linear(4, 2, dtype=jnp.bfloat16, rngs=rngs), X
  )
  variables = net.init(KEY)
  chex.assert_type(jax.tree.leaves(variables), jnp.float32)
  outputs, _ = net.apply(variables, X)
  chex.assert_type(outputs['logits'], jnp.float32)
  rounded = outputs['logits'].astype(jnp.bfloat16).astype(jnp.float32)
  np.testing.assert_array_equal(outputs['logits'], rounded)


def test_layers_that_are_computed_again_need_no_key_in_evaluation():
  net = from_nnx(Toy, X, remat='blocks/*')
  shapes = jax.eval_shape(net.init, KEY)
  outputs, _ = jax.eval_shape(net.apply, shapes, X)
  assert outputs['logits'].shape == (3, 2)


def test_what_goes_into_layers_and_comes_out_can_be_changed():
  """The first block halves its input, and both triple what they give."""

  def make(rngs):
    return Toy(rngs, dropout=0.0)

  changed = from_nnx(
    make,
    X,
    taps=('blocks/*', 'blocks/0/linear'),
    before=(('blocks/0/linear', lambda x: x / 2),),
    after=(('blocks/*', lambda x: 3 * x),),
    remat='blocks/*',
  )
  plain = from_nnx(make, X, taps=('blocks/*', 'blocks/0/linear'))
  variables = plain.init(KEY)
  chex.assert_trees_all_equal(variables, changed.init(KEY))
  outputs, _ = changed.apply(variables, X)
  kernel = variables['params']['blocks']['0']['linear']['kernel']
  bias = variables['params']['blocks']['0']['linear']['bias']
  np.testing.assert_allclose(
    outputs['blocks/0/linear'],
    X / 2 @ kernel + bias[None],
    rtol=1e-5,
    atol=1e-6,
  )
  head = variables['params']['head']
  np.testing.assert_allclose(
    outputs['logits'],
    outputs['blocks/1'] @ head['kernel'] + head['bias'][None],
    rtol=1e-5,
    atol=1e-6,
  )
  alone, _ = plain.apply(variables, X)
  assert not np.allclose(alone['blocks/0'], outputs['blocks/0'])
  for hooks in ('before', 'after'):
    with pytest.raises(UserError, match="there is no layer 'block'"):
      from_nnx(make, X, **{hooks: (('block', jnp.tanh),)})


class LinenToy(linen.Module):
  width: int = 2

  @linen.compact
  def __call__(self, x, train: bool):
    x = linen.Dense(4, name='first')(x)
    self.sow('intermediates', 'sown', x)
    x = linen.BatchNorm(use_running_average=not train, name='norm')(x)
    x = linen.Dropout(0.5, deterministic=not train)(x)
    return linen.Dense(self.width, name='head')(x)


class LinenDropout(linen.Module):
  @linen.compact
  def __call__(self, x, *, deterministic):
    return linen.Dropout(0.5)(x, deterministic=deterministic)


@pytest.fixture(scope='module')
def linen_toy():
  shape = jax.ShapeDtypeStruct((1, 4), jnp.float32)
  net = from_linen(LinenToy(), shape, taps=('head', 'n*'))
  return net, net.init(KEY)


def test_linen_collections_become_params_and_state(linen_toy):
  net, variables = linen_toy
  assert set(variables['params']) == {'first', 'norm', 'head'}
  assert set(variables['state']) == {'batch_stats'}
  outputs, state = net.apply(variables, X)
  assert set(outputs) == {'logits', 'head', 'norm'}
  np.testing.assert_array_equal(outputs['head'], outputs['logits'])
  chex.assert_trees_all_equal(state, variables['state'])
  assert 'Dropout_0' in tap_shapes(LinenToy(), X)


class Sows(linen.Module):
  """Keeps what it sows in several collections, and a pair of its own."""

  @linen.compact
  def __call__(self, data, train=False):
    x = linen.Dense(2)(data)
    self.sow('intermediates', 'hidden', x)
    self.sow('losses', 'size', (x**2).mean())
    x = self.perturb('change', x)
    pair = self.variable('own', 'pair', lambda: (jnp.zeros(()), jnp.ones(())))
    if train:
      pair.value = (pair.value[0] + 1, pair.value[1])
    return x


def test_what_linen_modules_sow_is_no_state():
  net = from_linen(Sows(), X, taps=('Dense_0',))
  variables = net.init(KEY)
  assert set(variables['state']) == {'own'}
  for batch in (X, X[:2]):
    outputs, state = net.apply(variables, batch, key=KEY, train=True)
    assert outputs['logits'].shape == (len(batch), 2)
    assert [float(x) for x in state['own']['pair']] == [1, 1]
    assert jax.tree.structure(state) == jax.tree.structure(variables['state'])


def test_linen_modules_train(linen_toy):
  net, variables = linen_toy
  with pytest.raises(UserError, match='apply a key'):
    net.apply(variables, X, train=True)
  first, state = net.apply(variables, X, key=KEY, train=True)
  chex.assert_trees_all_equal_shapes(state, variables['state'])
  assert (state['batch_stats']['norm']['mean'] != 0).all()
  again, _ = net.apply(variables, X, key=KEY, train=True)
  chex.assert_trees_all_equal(first, again)


def test_linen_modules_that_take_deterministic():
  net = from_linen(LinenDropout(), X)
  variables = net.init(KEY)
  assert variables == {'params': {}, 'state': {}}
  outputs, _ = net.apply(variables, X)
  np.testing.assert_array_equal(outputs['logits'], X)
  outputs, _ = net.apply(variables, X, key=KEY, train=True)
  assert (outputs['logits'] == 0).any()


def test_linen_taps_are_checked():
  with pytest.raises(UserError, match="'haed'; did you mean 'head'"):
    from_linen(LinenToy(), X, taps=('haed',))
  with pytest.raises(UserError, match='belong to another model'):
    from_linen(LinenToy(), X).apply({'params': {}, 'state': {}}, X)


TREE_MODE = """
import jax, jax.numpy as jnp
import flax
from jaxkd import models

assert not (flax.config.nnx_graph_mode or flax.config.nnx_graph_updates)
net = models.build(
  'wrn', depth=10, width=1, dropout=0.5, num_classes=3, input_shape=(8, 8, 1),
  taps=('stages/*/blocks/*/norm1',),
)
variables = jax.eval_shape(net.init, jax.random.key(0))
x, key = jnp.ones((2, 8, 8, 1)), jax.random.key(1)

def loss(params, state):
  outputs, state = net.apply(
    {'params': params, 'state': state}, x, key=key, train=True
  )
  return sum(output.sum() for output in outputs.values()), state

gradient = jax.grad(loss, has_aux=True)
shapes, state = jax.eval_shape(gradient, *variables.values())
assert jax.tree.structure(shapes) == jax.tree.structure(variables['params'])
assert jax.tree.structure(state) == jax.tree.structure(variables['state'])
small = models.build(
  'mlp', num_classes=3, input_shape=(4,), widths=(5,), dropout=0.5,
  taps=('layers/*',), remat='layers/*'
)
variables = small.init(jax.random.key(0))
outputs, _ = small.apply(variables, jnp.ones((2, 4)), key=key, train=True)
print(*outputs['logits'].ravel().tolist())
"""


def test_flax_without_graph_mode():
  env = {'NNX_GRAPH_MODE': 'false', 'NNX_GRAPH_UPDATES': 'false'}
  run = subprocess.run(
    [sys.executable, '-W', 'error', '-c', TREE_MODE],
    env={**os.environ, **env},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  from jaxkd import models

  net = models.build(
    'mlp', num_classes=3, input_shape=(4,), widths=(5,), dropout=0.5
  )
  variables = net.init(jax.random.key(0))
  outputs, _ = net.apply(
    variables, jnp.ones((2, 4)), key=jax.random.key(1), train=True
  )
  np.testing.assert_allclose(
    [float(x) for x in run.stdout.split()], outputs['logits'].ravel(), rtol=1e-5
  )
