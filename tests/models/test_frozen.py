"""Frozen layers: what they give in training is what they give without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import frozen
from jaxkd.models.net import from_linen, from_nnx
from jaxkd.paths import by_path, replaced
from jaxkd.types import Net

INPUTS = np.random.default_rng(0).normal(2.0, 3.0, (8, 4)).astype(np.float32)


class Block(nnx.Module):
  """A layer, BatchNorm and dropout, told by attributes or in the call."""

  def __init__(self, width_in, width, *, called, rngs):
    self.linear = nnx.Linear(width_in, width, rngs=rngs)
    self.norm = nnx.BatchNorm(width, momentum=0.5, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.calls = nnx.Variable(jnp.zeros(()))
    self.called = called

  def __call__(self, x, train=None):
    self.calls.set_value(self.calls.get_value() + 1)
    if not self.called:
      return self.drop(nnx.relu(self.norm(self.linear(x))))
    x = self.norm(self.linear(x), use_running_average=not train)
    return self.drop(nnx.relu(x), deterministic=not train)


class Nnx(nnx.Module):
  def __init__(self, rngs, called=None):
    self.stages = nnx.List(
      Block(a, b, called=called, rngs=rngs) for a, b in ((4, 5), (5, 3))
    )
    self.called = called
    self.deterministic = False  # which train() and eval() set

  def __call__(self, x):
    for stage in self.stages:
      if self.called == 'position':
        x = stage(x, not self.deterministic)
      elif self.called == 'name':
        x = stage(x, train=not self.deterministic)
      else:
        x = stage(x)
    return {'logits': x}


class LinenBlock(linen.Module):
  """The same, told by its call, by a field or by what makes its BatchNorm."""

  width: int
  train: bool | None = None
  norm: type | functools.partial = linen.BatchNorm

  @linen.compact
  def __call__(self, x, deterministic=None):
    given = self.norm is not linen.BatchNorm
    train = self.train if deterministic is None else not deterministic
    norm = self.norm(momentum=0.5, name='norm')
    x = linen.Dense(self.width, name='linear')(x)
    x = norm(x) if given else norm(x, use_running_average=not train)
    calls = self.variable('calls', 'count', lambda: jnp.zeros(()))
    if train:
      calls.value = calls.value + 1
    return linen.Dropout(0.5, deterministic=not train)(linen.relu(x))


class Linen(linen.Module):
  way: str

  @linen.compact
  def __call__(self, x, train):
    norm = functools.partial(linen.BatchNorm, use_running_average=not train)
    for i, width in enumerate((5, 3)):
      name = f'stages_{i}'
      if self.way == 'call':
        x = LinenBlock(width, name=name)(x, deterministic=not train)
      elif self.way == 'remat':
        block = linen.remat(LinenBlock, static_argnums=(2,))
        x = block(width, name=name)(x, not train)
      elif self.way == 'field':
        x = LinenBlock(width, train=train, name=name)(x)
      else:
        x = LinenBlock(width, train=train, norm=norm, name=name)(x)
    return {'logits': x}


def of_nnx(called):
  return lambda **kw: from_nnx(
    lambda rngs: Nnx(rngs, called), INPUTS, taps=('stages/0',), **kw
  )


def of_linen(way):
  return lambda **kw: from_linen(Linen(way), INPUTS, taps=('stages_0',), **kw)


NETS = {
  'attributes': of_nnx(None),
  'by position': of_nnx('position'),
  'by name': of_nnx('name'),
  'remat': lambda **kw: from_nnx(
    lambda rngs: Nnx(rngs), INPUTS, taps=('stages/0',), remat='stages/*', **kw
  ),
  **{f'linen {way}': of_linen(way)
     for way in ('call', 'remat', 'field', 'partial')},
}  # fmt: skip


def trained(net, variables, key=1):
  return net.apply(variables, INPUTS, key=jax.random.key(key), train=True)


@pytest.mark.parametrize('name', NETS)
def test_a_frozen_layer_is_as_in_evaluation(name):
  make = NETS[name]
  first = 'stages_0' if name.startswith('linen') else 'stages/0'
  free, net = make(), make(freeze=first)
  variables = net.init(jax.random.key(0))
  _, state = trained(free, variables)  # statistics that are not the first ones
  variables = {**variables, 'state': state}
  want, _ = net.apply(variables, INPUTS)
  got, new = trained(net, variables)
  np.testing.assert_array_equal(got[first], want[first])
  assert np.abs(trained(free, variables)[0][first] - want[first]).max() > 0.1
  # Its state stays, of whatever kind; that of the other layers moves.
  moved = set(replaced(variables['state'], new))
  assert moved == {path for path in by_path(state) if first not in path}
  assert len(moved) == 3
  # The other layers still draw, and look at the batch.
  assert np.abs(got['logits'] - want['logits']).max() > 0.1
  other = trained(net, variables, key=2)[0]['logits']
  assert np.abs(got['logits'] - other).max() > 0.1


@pytest.mark.parametrize('name', NETS)
def test_all_of_a_net_can_be_frozen(name):
  net = NETS[name](freeze='*')
  variables = net.init(jax.random.key(0))
  want, _ = net.apply(variables, INPUTS)
  got, new = net.apply(variables, INPUTS, train=True)  # and draws nothing
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert not replaced(variables['state'], new)


def block(i):
  parts = ('', '/linear', '/norm', '/drop')
  return {f'stages/{i}{part}' for part in parts}


@pytest.mark.parametrize(
  ('pattern', 'want'),
  [
    ('stages/0', block(0)),
    ('stages/0/*', block(0)),
    ('stages/0/norm', {'stages/0/norm'}),
    ('stages/0/norm|stages/0/drop', {'stages/0/norm', 'stages/0/drop'}),
    ('stages/?/norm/scale|stages/?/norm/bias',
     {'stages/0/norm', 'stages/1/norm'}),
    ('*norm*', {'stages/0/norm', 'stages/1/norm'}),
    ('stages/0/linear|stages/0/norm', block(0)),
    ('*', {'', 'stages', *block(0), *block(1)}),
    ('stages', {'', 'stages', *block(0), *block(1)}),
    # Parts of a layer alone do not freeze it.
    ('*/kernel|*/scale', set()),
    ('stages/0/linear/kernel', set()),
    ('', set()),
  ],
)  # fmt: skip
def test_which_layers_are_frozen(pattern, want):
  params = [
    f'stages/{i}/{name}'
    for i in (0, 1)
    for name in ('linear/kernel', 'linear/bias', 'norm/scale', 'norm/bias')
  ]
  is_frozen = frozen.layers(params, pattern) or (lambda layer: False)
  every = ('', 'stages', *block(0), *block(1))
  assert {layer for layer in every if is_frozen(layer)} == want


def test_a_layer_of_which_a_part_trains_does_too():
  net = NETS['attributes'](freeze='*/kernel|stages/0/norm/scale')
  variables = net.init(jax.random.key(0))
  free = NETS['attributes']()
  jax.tree.map(
    np.testing.assert_array_equal,
    trained(net, variables),
    trained(free, variables),
  )


class Tied(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Linear(4, 4, rngs=rngs)
    self.last = nnx.Linear(4, 4, rngs=rngs)
    self.last.kernel = self.first.kernel

  def __call__(self, x):
    return self.last(nnx.relu(self.first(x)))


def test_a_parameter_that_two_layers_share_is_frozen_in_both_or_refused():
  with pytest.raises(
    UserError, match=r"^freeze: last/kernel is .* as first/kernel, .* 'last\|fi"
  ):
    from_nnx(Tied, INPUTS, freeze='last')
  for pattern in ('first', 'last|first/kernel', '*'):
    from_nnx(Tied, INPUTS, freeze=pattern)


def bare(num_classes, input_shape, does='counts'):
  """A Net that in training counts its calls, or draws, or does neither."""

  def init(key):
    params = {'a': jax.random.normal(key, (4, 3)), 'b': jnp.ones((3,))}
    return {'params': params, 'state': {'calls': jnp.zeros(())}}

  def apply(variables, inputs, *, key=None, train=False):
    state, logits = variables['state'], inputs @ variables['params']['a']
    if train:
      logits = logits + 1
    if train and does == 'draws':
      logits = logits + jax.random.normal(key, logits.shape)
    if does == 'counts':
      state = {'calls': state['calls'] + 1}
    return {'logits': logits}, state

  return Net(init, apply)


def test_a_net_without_layers_is_frozen_as_a_whole():
  build = functools.partial(
    models.build,
    f'{__name__}:bare',
    num_classes=3,
    input_shape=(4,),
    at='students.s.model',
  )
  for does in ('counts', 'draws'):
    net = build(does=does, freeze='*')
    variables = net.init(jax.random.key(0))
    outputs, state = net.apply(variables, INPUTS, train=True)
    np.testing.assert_array_equal(
      outputs['logits'], INPUTS @ variables['params']['a']
    )
    assert state['calls'] == 0
  for does, said in (('counts', "moves 'calls'"), ('draws', 'draws')):
    message = f'^students\\.s\\.freeze: .*in training it {said}'
    with pytest.raises(UserError, match=message):
      build(does=does, freeze='a')
  build(does='neither', freeze='a').apply(variables, INPUTS, train=True)


@pytest.mark.parametrize('name', ['attributes', 'linen call'])
def test_frozen_layers_are_not_idle(name):
  """They are meant to be still; a layer that hears of nothing is told of."""
  free = NETS[name]().idle()
  assert free == NETS[name](freeze='*').idle() == ((), ())
