"""Modules that are told by their call whether they train, in every way."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxkd import losses, models
from jaxkd.distill.roles import Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.errors import UserError
from jaxkd.models import idle
from jaxkd.models.net import from_linen, from_nnx
from jaxkd.run import config, terms
from jaxkd.types import Idle, Net

X = jnp.asarray(np.random.default_rng(0).normal(1, 2, (8, 4)), jnp.float32)
KEY, OTHER = jax.random.split(jax.random.key(0))

# The arguments of a call, and what of them says that it trains.
CALLS = {
  'x, train': 'train',
  'x, train: bool = True': 'train',
  'x, *, training': 'training',
  'x, training=False': 'training',
  'x, *, is_training: bool = True': 'is_training',
  'x, deterministic: bool': 'not deterministic',
  'x, deterministic=False': 'not deterministic',
  'x, *, deterministic=True': 'not deterministic',
  'inputs, use_running_average=False': 'not use_running_average',
  'x, use_running_average: bool | None = None': 'not use_running_average',
  'x, *, train: bool, deterministic: bool': 'train and not deterministic',
  'x, train=False, deterministic=True': 'train and not deterministic',
  'x, mask=None, train=True, debug: bool = False, **kwargs': 'train',
  'train, x, /': 'train',
  'x, inference: bool = False': 'not inference',
  '*inputs, is_eval=False': 'not is_eval',
}


def call(arguments, told, body):
  """A ``__call__`` with these arguments, for the body of a module."""
  first = next(n for n in ('inputs', 'x') if n in arguments)
  x = 'inputs[0]' if '*inputs' in arguments else first
  found = {}
  text = f'def __call__(self, {arguments}): return body(self, {x}, {told})'
  exec(text, {'body': body}, found)
  return found['__call__']


def linen_net(arguments, told):
  def body(self, x, train):
    x = linen.Dense(4, name='linear')(x)
    x = linen.BatchNorm(
      use_running_average=not train, momentum=0.5, name='norm'
    )(x)
    return linen.Dropout(0.5, deterministic=not train)(x)

  fields = {'__call__': linen.compact(call(arguments, told, body))}
  return from_linen(type('Linen', (linen.Module,), fields)(), X)


def nnx_net(arguments, told):
  def init(self, rngs):
    self.linear = nnx.Linear(4, 4, rngs=rngs)
    self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def body(self, x, train):
    x = self.norm(self.linear(x), use_running_average=not train)
    return self.dropout(x, deterministic=not train)

  fields = {'__init__': init, '__call__': call(arguments, told, body)}
  return from_nnx(type('NNX', (nnx.Module,), fields), X)


MAKERS = {'linen': linen_net, 'nnx': nnx_net}


def moved(variables):
  """Variables whose running statistics are not those of the start."""
  state = jax.tree.map(lambda x: x + 0.5, variables['state'])
  return {**variables, 'state': state}


def evaluated(variables):
  """What the nets give in evaluation, by hand."""
  state = variables['state']
  norm = state.get('batch_stats', state)['norm']
  linear = variables['params']['linear']
  y = X @ linear['kernel'] + linear['bias'][None]
  return (y - norm['mean'][None]) / jnp.sqrt(norm['var'][None] + 1e-5)


@pytest.mark.parametrize('arguments', CALLS)
@pytest.mark.parametrize('maker', MAKERS)
def test_it_trains_in_training_and_in_evaluation_it_does_not(maker, arguments):
  net = MAKERS[maker](arguments, CALLS[arguments])
  variables = moved(net.init(KEY))
  for key in (None, KEY):
    outputs, state = net.apply(variables, X, key=key)
    np.testing.assert_allclose(
      outputs['logits'], evaluated(variables), rtol=1e-4, atol=1e-5
    )
    chex.assert_trees_all_equal(state, variables['state'])
  linear = variables['params']['linear']
  y = X @ linear['kernel'] + linear['bias'][None]
  trained = [net.apply(variables, X, key=k, train=True) for k in (KEY, OTHER)]
  for outputs, state in trained:
    norm = state.get('batch_stats', state)['norm']
    np.testing.assert_allclose(norm['mean'], (0.5 + y.mean(0)) / 2, rtol=1e-4)
    assert 0.1 < (outputs['logits'] == 0).mean() < 0.9
  zeros = [outputs['logits'] == 0 for outputs, _ in trained]
  assert (zeros[0] != zeros[1]).any()
  assert net.idle() == Idle()


@pytest.mark.parametrize(
  ('arguments', 'told'),
  [
    ('x, train=True', 'train'),
    ('x, *, training', 'training'),
    ('x, is_training=True', 'is_training'),
    ('x, deterministic=False', 'not deterministic'),
    ('x, use_running_average=False', 'not use_running_average'),
  ],
)
@pytest.mark.parametrize('maker', MAKERS)
def test_a_teacher_neither_drops_units_nor_uses_the_batch(
  maker, arguments, told
):
  teacher = MAKERS[maker](arguments, told)
  distill = dict(soft=dict(loss='logit_mse', teacher='main'))
  given = {'teachers': {'main': {}}, 'students': {'student': {}}}
  complete = config.plain(config.complete({**given, 'distill': distill}))
  student = Net(
    lambda key: {'params': {'w': jnp.zeros((4, 4))}, 'state': {}},
    lambda variables, x, **kw: ({'logits': x @ variables['params']['w']}, {}),
  )
  batch = {
    'inputs': X,
    'labels': jnp.zeros(8, jnp.int32),
    'id': jnp.arange(8),
    'epoch': jnp.zeros(8, jnp.int32),
  }
  made = learner(
    System(
      {'student': Role(student)},
      {'main': Role(teacher)},
      lambda hyper: Recipe(
        terms.build(complete['distill'], ['student']), optax.sgd(0.1)
      ),
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
    )
  )
  variables = moved(teacher.init(KEY))
  frozen = {'main': jax.tree.map(lambda x: x[None], variables)}
  carry = made.init(jnp.uint32(0), {}, frozen)
  _, measured = made.step(carry, batch, frozen, {})
  want = losses.logit_mse(0 * X, evaluated(variables)).mean()
  np.testing.assert_allclose(measured['loss'][0], want, rtol=1e-4)


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ('x, update_stats: bool', "needs the boolean 'update_stats'.*'train' or"),
    ('x, *, noisy: "bool | None"', "needs the boolean 'noisy'"),
    ('x, rngs', "needs 'rngs'.* drop the argument and"),
    ('x, key, train=False', "needs 'key'"),
    ('x, mask', "needs 'mask' beside its inputs: give it a default"),
    ('x, inference="greedy"', "takes inference='greedy'.* another name"),
    ('*, train', 'takes no inputs'),
  ],
)
@pytest.mark.parametrize('maker', MAKERS)
def test_what_nobody_gives_is_refused_by_name(maker, arguments, said):
  if 'x' not in arguments:
    call_of = {'__call__': lambda self, *, train: None}
  else:
    call_of = {'__call__': call(arguments, 'False', lambda *given: None)}
  if maker == 'linen':
    own, build = type('Own', (linen.Module,), call_of)(), from_linen
  else:
    fields = {'__init__': lambda self, rngs: None, **call_of}
    own, build = type('Own', (nnx.Module,), fields), from_nnx
  with pytest.raises(UserError, match=rf'the model Own {said}'):
    build(own, X)


def test_the_hint_for_random_numbers_is_for_the_kind_of_module():
  class Linen(linen.Module):
    def __call__(self, x, rngs):
      return x

  class NNX(nnx.Module):
    def __init__(self, rngs):
      pass

    def __call__(self, x, rngs):
      return x

  with pytest.raises(UserError, match=r"self\.make_rng\('dropout'\)"):
    from_linen(Linen(), X)
  with pytest.raises(UserError, match=r'nnx\.Dropout\(0\.5, rngs=rngs\)'):
    from_nnx(NNX, X)


class Attribute(linen.Module):
  num_classes: int
  train: bool

  @linen.compact
  def __call__(self, x):
    x = linen.BatchNorm(use_running_average=not self.train)(x)
    return linen.Dense(self.num_classes)(x)


class Merges(linen.Module):
  """May have its switch as an attribute or in its call."""

  num_classes: int
  deterministic: bool | None = None

  @linen.compact
  def __call__(self, x, deterministic: bool | None = None):
    still = linen.merge_param('it', self.deterministic, deterministic)
    return linen.BatchNorm(use_running_average=still)(x)


class Training(nnx.Module):
  """Has its switch as PyTorch has it."""

  def __init__(self, rngs):
    self.training = True
    self.norm = nnx.BatchNorm(4, rngs=rngs)

  def __call__(self, x):
    return self.norm(x, use_running_average=not self.training)


@pytest.mark.parametrize(
  'net',
  [
    f'{__name__}:Attribute',
    f'{__name__}:Merges',
    f'{__name__}:Training',
  ],
)
def test_a_switch_may_be_an_attribute(net):
  net = models.build(net, num_classes=4, input_shape=(4,))
  variables = net.init(KEY)
  _, state = net.apply(variables, X)
  chex.assert_trees_all_equal(state, variables['state'])
  assert net.idle() == Idle()


def test_a_switch_is_no_option_of_a_linen_model():
  with pytest.raises(UserError, match=r"no option of the model .* 'train'"):
    models.build(
      f'{__name__}:Attribute', num_classes=4, input_shape=(4,), train=True
    )
  assert 'train' not in models.defaults(f'{__name__}:Attribute')


class Idioms(linen.Module):
  """Sees by what it may do whether it trains, as some Linen modules do."""

  @linen.compact
  def __call__(self, x):
    x = linen.BatchNorm(
      use_running_average=not self.is_mutable_collection('batch_stats')
    )(x)
    return linen.Dropout(0.5, deterministic=not self.has_rng('dropout'))(x)


def test_linen_modules_that_look_at_their_scope():
  net = from_linen(Idioms(), X)
  variables = net.init(KEY)
  outputs, _ = net.apply(variables, X, key=KEY)
  np.testing.assert_allclose(outputs['logits'], X, rtol=1e-4)
  outputs, _ = net.apply(variables, X, key=KEY, train=True)
  assert (outputs['logits'] == 0).any()
  assert net.idle() == Idle()


class Noisy(linen.Module):
  @linen.compact
  def __call__(self, x, train):
    x = linen.Dense(3)(x)
    x = linen.Dropout(0.5, deterministic=not train)(x)
    if train:
      x += 10 + jax.random.normal(self.make_rng('noise'), x.shape)
    return x


def test_any_stream_of_a_linen_module_has_random_numbers():
  net = from_linen(Noisy(), X)
  variables = net.init(KEY)
  a, again, other = (
    net.apply(variables, X, key=key, train=True)[0]['logits']
    for key in (KEY, KEY, OTHER)
  )
  np.testing.assert_array_equal(a, again)
  assert (a != other).all()
  assert net.idle() == Idle()


def test_a_linen_dropout_draws_as_flax_alone_would():
  class Alone(linen.Module):
    @linen.compact
    def __call__(self, x, train):
      return linen.Dropout(0.5, deterministic=not train)(x)

  net = from_linen(Alone(), X)
  outputs, _ = net.apply(net.init(KEY), X, key=KEY, train=True)
  np.testing.assert_array_equal(
    outputs['logits'], Alone().apply({}, X, True, rngs={'dropout': KEY})
  )


class Late(linen.Module):
  @linen.compact
  def __call__(self, x, train):
    if train:
      self.put_variable('seen', 'x', x)
    return x


def test_a_state_that_is_there_in_training_alone_is_refused():
  net = from_linen(Late(), X)
  with pytest.raises(UserError, match='Late changes a state in training that'):
    net.apply(net.init(KEY), X, key=KEY, train=True)


class UsesTheBatch(linen.Module):
  @linen.compact
  def __call__(self, x):
    return linen.BatchNorm(use_running_average=False)(x)


class AlwaysDrops(linen.Module):
  @linen.compact
  def __call__(self, x, enabled: bool = True):
    return linen.Dropout(0.5, deterministic=not enabled)(x)


class Fixed(nnx.Module):
  """Layers that are told the same in training and in evaluation."""

  def __init__(self, rngs, training=True, momentum=0.9):
    self.norm = nnx.BatchNorm(4, momentum=momentum, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.told = training

  def __call__(self, x, norm=True, dropout=True):
    if norm:
      x = self.norm(x, use_running_average=not self.told)
    if dropout:
      x = self.dropout(x, deterministic=not self.told)
    return x


class FixedNorm(Fixed):
  def __call__(self, x):
    return super().__call__(x, dropout=False)


@pytest.mark.parametrize(
  ('net', 'said'),
  [
    (lambda: from_linen(UsesTheBatch(), X), 'UsesTheBatch changes its state'),
    (
      lambda: from_linen(AlwaysDrops(), X),
      'in evaluation; let __call__',
    ),
    (lambda: from_nnx(Fixed, X), "'dropout' draws .* in evaluation; leave"),
    (
      lambda: from_nnx(FixedNorm, X),
      'norm/mean of the model FixedNorm changes',
    ),
  ],
)
def test_who_trains_in_evaluation_is_refused(net, said):
  net = net()
  variables = net.init(KEY)
  for key in (None, KEY):
    with pytest.raises(UserError, match=said):
      net.apply(variables, X, key=key)


class NeverTrains(linen.Module):
  @linen.compact
  def __call__(self, x, enabled: bool = False):
    x = linen.BatchNorm(use_running_average=not enabled, name='norm')(x)
    return linen.Dropout(0.5, deterministic=not enabled, name='drop')(x)


def test_who_does_not_train_in_training_is_told_of():
  statistics = ('norm/mean', 'norm/var')
  net = from_linen(NeverTrains(), X)
  assert net.idle() == Idle(statistics, ('drop',))
  net = from_nnx(lambda rngs: Fixed(rngs, training=False), X)
  assert net.idle() == Idle(statistics, ('dropout',))


class Spectral(linen.Module):
  @linen.compact
  def __call__(self, x, train):
    norm = linen.SpectralNorm(linen.Dense(3), name='norm')
    return norm(x, update_stats=train)


class SpectralNNX(nnx.Module):
  def __init__(self, rngs):
    dense = nnx.Linear(X.shape[-1], 3, rngs=rngs)
    self.norm = nnx.SpectralNorm(dense, rngs=rngs)

  def __call__(self, x, train):
    return self.norm(x, update_stats=train)


@pytest.mark.parametrize(
  'net', [lambda: from_linen(Spectral(), X), lambda: from_nnx(SpectralNNX, X)]
)
def test_statistics_may_move_by_the_parameters_alone(net):
  assert net().idle() == Idle()


def test_idle_layers_are_told_of_in_sentences():
  assert idle.said(Idle()) == []
  found = Idle(('a/mean', 'a/var', 'mean'), tuple('bcdef'))
  still, dropout = idle.said(found)
  assert still.startswith('the statistics of a, the model do not move')
  assert 'dropped in training by b, c, d and 2 more; unless' in dropout


def test_a_momentum_of_one_is_no_fault():
  assert from_nnx(lambda rngs: FixedNorm(rngs, momentum=1.0), X).idle() == Idle(
    (), ('dropout',)
  )


class Part(nnx.Module):
  def __init__(self, num_classes, rngs):
    self.linear = nnx.Linear(4, num_classes, rngs=rngs)
    self.norm = nnx.BatchNorm(num_classes, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x, *, deterministic):
    x = self.norm(self.linear(x), use_running_average=deterministic)
    return self.dropout(x, deterministic=deterministic)


def test_a_part_of_a_model_is_told_too():
  net = models.build(
    'embedder',
    num_classes=3,
    input_shape=(4,),
    of=f'{__name__}:Part',
    size=4,
    taps=('base',),
  )
  variables = net.init(KEY)
  _, state = net.apply(variables, X)
  chex.assert_trees_all_equal(state, variables['state'])
  outputs, _ = net.apply(variables, X, key=KEY, train=True)
  assert (outputs['base'] == 0).any()
  assert net.idle() == Idle()


class Block(nnx.Module):
  def __init__(self, rngs):
    self.linear = nnx.Linear(4, 4, rngs=rngs)
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x, train):
    x = self.norm(self.linear(x), use_running_average=not train)
    return self.dropout(x, deterministic=not train)


class Blocks(nnx.Module):
  """One block is given the switch by position and one by name."""

  def __init__(self, rngs):
    self.blocks = nnx.List([Block(rngs), Block(rngs)])

  def __call__(self, x, train=True):
    first, second = self.blocks
    return second(first(x, train), train=train)


class ComputedAgain(Blocks):
  def __call__(self, x, train=True):
    for block in self.blocks:
      x = nnx.remat(lambda block, x: block(x, train))(block, x)
    return x


class Scanned(nnx.Module):
  def __init__(self, rngs):
    @nnx.split_rngs(splits=2)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make(rngs):
      return Block(rngs)

    self.blocks = make(rngs)

  def __call__(self, x, train=True):
    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def run(block, x):
      return block(x, train)

    return run(self.blocks, x)


@pytest.mark.parametrize('make', [ComputedAgain, Scanned])
def test_evaluation_may_be_computed_again_or_in_a_loop(make):
  net = from_nnx(make, X)
  variables = net.init(KEY)
  first, state = net.apply(variables, X)
  again, _ = net.apply(variables, X, key=KEY)
  np.testing.assert_array_equal(first['logits'], again['logits'])
  chex.assert_trees_all_equal(state, variables['state'])
  assert net.idle() == Idle()


def test_layers_that_are_computed_again_are_told_too():
  plain, again = (from_nnx(Blocks, X, remat=r) for r in ('', 'blocks/*'))
  variables = plain.init(KEY)
  for kw in ({}, {'key': KEY, 'train': True}):
    one, other = (net.apply(variables, X, **kw) for net in (plain, again))
    assert jax.tree.all(jax.tree.map(jnp.allclose, one, other))


class Bridged(nnx.Module):
  """A Linen module in an NNX module, by Flax's bridge."""

  def __init__(self, rngs, *, mutable):
    self.inner = nnx.bridge.ToNNX(NeverTrains(), rngs=rngs)
    nnx.bridge.lazy_init(self.inner, X)
    self.mutable = mutable

  def __call__(self, x, train):
    mutable = ['batch_stats'] if train and self.mutable else False
    return self.inner(x, enabled=train, mutable=mutable)


def test_a_linen_module_in_an_nnx_module_trains_or_says_what_it_needs():
  net = from_nnx(lambda rngs: Bridged(rngs, mutable=True), X)
  variables = net.init(KEY)
  one, state = net.apply(variables, X, key=KEY, train=True)
  other, _ = net.apply(variables, X, key=OTHER, train=True)
  assert np.abs(one['logits'] - other['logits']).max() > 0
  with pytest.raises(AssertionError):
    chex.assert_trees_all_close(state, variables['state'])
  assert net.idle() == Idle()
  net = from_nnx(lambda rngs: Bridged(rngs, mutable=False), X)
  with pytest.raises(UserError, match=r"Bridged may not .* mutable=.'batch_st"):
    net.apply(net.init(KEY), X, key=KEY, train=True)
