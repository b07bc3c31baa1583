"""Nets that exist with their weights, in every form that a function gives."""

import gc
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import given
from jaxkd.types import Net

X = jnp.linspace(-1.0, 1.0, 12, dtype=jnp.float32).reshape(3, 4)


class Module(nnx.Module):
  def __init__(self, classes, seed=0, width=5, activation=nnx.relu):
    rngs = nnx.Rngs(seed)
    self.first = nnx.Linear(4, width, rngs=rngs)
    self.norm = nnx.BatchNorm(width, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.head = nnx.Linear(width, classes, rngs=rngs)
    self.activation = activation

  def __call__(self, x):
    x = self.activation(self.norm(self.first(x)))
    return self.head(self.dropout(x))


class Linen(linen.Module):
  @linen.compact
  def __call__(self, x, train: bool = False):
    x = linen.BatchNorm(use_running_average=not train)(linen.Dense(5)(x))
    return {'logits': linen.Dense(3)(x), 'embedding': x}


CALLS = []


def module(num_classes, seed: int = 0):
  CALLS.append(seed)
  return Module(num_classes, seed)


def of_linen(input_shape):
  net = Linen()
  return net, net.init(jax.random.key(1), jnp.zeros((1, *input_shape)))


def of_net(num_classes):
  net = models.build('mlp', num_classes=num_classes, input_shape=(4,))
  return net, net.init(jax.random.key(2))


def of_function(dtype):
  weights = np.arange(12, dtype=np.float32).reshape(4, 3)
  function = lambda v, x: (x @ v['w'][0]).astype(dtype)  # noqa: E731
  return function, {'w': [weights]}


def several(num_classes):
  return [Module(num_classes, seed) for seed in range(3)]


@pytest.fixture(autouse=True)
def named(monkeypatch):
  """This file under a name that a config can have."""
  own = types.ModuleType('mine')
  own.__dict__.update(
    {k: v for k, v in globals().items() if not k.startswith('__')}
  )
  monkeypatch.setitem(sys.modules, 'mine', own)
  return own


def found(name, **kw):
  return given.find(f'mine:{name}', num_classes=3, input_shape=(4,), **kw)


def net_of(own, **kw):
  return models.build(
    own.name, num_classes=3, input_shape=(4,), made=own.made, **kw
  )


def outputs(own, **kw):
  return net_of(own, **kw).apply(own.first, X)


@pytest.mark.parametrize(
  'name', ['module', 'of_linen', 'of_net', 'of_function', 'several']
)
def test_every_form_gives_what_it_gave_before(name):
  own = found(name)
  made = globals()[name]
  if name == 'of_function':
    function, variables = made(jnp.float32)
    wanted = function(variables, X)
  elif name == 'of_linen':
    net, variables = made((4,))
    wanted = net.apply(variables, X)['logits']
  elif name == 'of_net':
    net, variables = made(3)
    wanted = net.apply(variables, X)[0]['logits']
  else:
    net = made(3)
    net = net[0] if name == 'several' else net
    net.eval()
    wanted = net(X)
  got, state = outputs(own)
  np.testing.assert_allclose(got['logits'], wanted, rtol=1e-6, atol=1e-6)
  # Nothing moves: BatchNorm uses the statistics that it has.
  jax.tree.map(np.testing.assert_array_equal, state, own.first['state'])
  members = {len(x) for x in jax.tree.leaves(own.variables)}
  assert members == {3 if name == 'several' else 1}


def test_layers_of_modules_can_be_looked_at():
  own = found('module')
  got, _ = outputs(own, taps=('first',))
  assert got['first'].shape == (3, 5)
  shapes = models.tap_shapes(
    own.name, num_classes=3, input_shape=(4,), made=own.made
  )
  assert 'norm' in shapes
  with pytest.raises(UserError, match="at: 'mine:of_function' gives a Net"):
    outputs(found('of_function'), taps=('first',), at='at')


def test_a_function_is_called_once_while_its_nets_are_in_use(named):
  CALLS.clear()
  first = found('module', seed=4)
  assert found('module', seed=4) is first
  assert found('module', seed=5) is not first
  assert CALLS == [4, 5]
  assert first.checksum != found('module', seed=5).checksum
  kept = first.checksum
  del first
  gc.collect()
  assert found('module', seed=4).checksum == kept
  assert CALLS.count(4) == 2


@pytest.mark.parametrize(
  ('returned', 'said'),
  [
    (3, r'returns 3, which is no net with its weights; return an nnx\.Module'),
    ([], 'returns no net'),
    ((1, 2, 3), 'no net with its weights'),
    (Module(3).__class__, 'no net with its weights'),
    ([Module(3), Module(3, width=6)], 'net 1 of those .* is built otherwise'),
    (
      [Module(3), Module(3, activation=nnx.gelu)],
      'net 1 of those .* is built otherwise',
    ),
    ((Linen().bind({}), {}), 'is bound; return what its unbind'),
    ((Linen(), None), 'variables of a Linen module are None; give a dict'),
    ((Linen(), {'params': {}}), 'batch_stats'),
    ((lambda v, x: x, {'a': 'text'}), 'text'),
  ],
)
def test_what_is_no_net_is_refused(named, returned, said):
  named.returned = lambda: returned
  with pytest.raises(UserError, match=rf'^teachers\.main\.restore: .*{said}'):
    found('returned')


def test_what_fails_is_blamed_on_the_entry(named):
  def fails():
    raise FileNotFoundError('no weights')

  named.fails = fails
  with pytest.raises(UserError, match=r'^teachers\.main\.restore: .*no weigh'):
    found('fails')
  with pytest.raises(UserError, match=r'^teachers\.main\.kw: .*depth'):
    found('module', depth=3)
  with pytest.raises(UserError, match='Linen is a class, whose weights would'):
    found('Linen')
  with pytest.raises(UserError, match=r'no argument dtype.*train\.dtype'):
    found('module', dtype='bfloat16')
  assert found('of_function', dtype='bfloat16').variables


def test_a_pure_function_has_outputs_by_name(named):
  named.wrong = lambda: (lambda v, x: (x, x), {})
  with pytest.raises(UserError, match='mine:wrong returns a tuple of 2'):
    outputs(found('wrong'))


def test_names_of_functions_are_no_paths():
  for name in ('mine:net', 'a.b.c:net', 'torch:a:b', 'torch:', 'torch:./a:b'):
    assert given.is_function(name)
  for name in (
    *('runs/a', 'pytorch:net', 'hf:folder', 'outputs:file', 'host:a:b'),
    *('./a:b', 'r01/teachers/main', '', 'a:b:c'),
  ):
    assert not given.is_function(name)
  assert isinstance(net_of(found('module')), Net)


def test_the_example_on_the_page_gives_a_net(named, tmp_path):
  page = pathlib.Path(__file__).parents[2] / 'docs' / 'teachers.md'
  code = re.findall(r'```python\n(.*?)```', page.read_text('utf-8'), re.DOTALL)
  own = next(x for x in code if x.startswith('# mine.py') and 'nnx' in x)
  exec(own, named.__dict__)
  sizes = {'first': (64, 32), 'head': (32, 3)}
  arrays = {f'{k}.kernel': np.ones(size) for k, size in sizes.items()}
  arrays |= {f'{k}.bias': np.ones(size[1]) for k, size in sizes.items()}
  np.savez(tmp_path / 'net.npz', **arrays)
  weights = str(tmp_path / 'net.npz')
  net = given.find(
    'mine:teacher', num_classes=3, input_shape=(8, 8, 1), weights=weights
  )
  assert (net.first['params']['head']['kernel'] == 1).all()
