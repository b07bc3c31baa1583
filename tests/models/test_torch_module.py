"""PyTorch modules through torchax; most are skipped where it is not installed.

``PYTHON -m pytest tests/models/test_torch_module.py`` runs them with a Python
that has the extra ``torch``.
"""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import given
from jaxkd.run import checks, config
from jaxkd.source_code import named

needs_torch = pytest.mark.skipif(
  importlib.util.find_spec('torchax') is None, reason='torchax is not installed'
)
SHAPE = (8, 8, 3)
CODE = """
import torch
from torch import nn


class Of(nn.Module):
  def __init__(self, function, **layers):
    super().__init__()
    self.function = function
    for name, layer in layers.items():
      setattr(self, name, layer)

  def forward(self, x):
    return self.function(self, x)


def mean(x):
  return x.mean((2, 3))


def linear():
  torch.manual_seed(0)
  return nn.Linear(3, 4)


def conv(width=6):
  torch.manual_seed(0)
  net = nn.Sequential(
    nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(width, 4),
  )
  net[1].running_mean += torch.arange(float(width))
  return net


def group():
  first, second = conv(), conv()
  second[6].bias.data += 1
  return [first, second]


def unlike():
  return [conv(6), conv(7)]


def outputs():
  return Of(
    lambda net, x: {'logits': net.l(mean(x)), 'maps': x, 'none': None,
                    'states': (x, mean(x))},
    l=linear(),
  )


def last():
  return Of(lambda net, x: net.l(x.mean((1, 2))), l=linear())


def tokens():
  torch.manual_seed(0)
  return Of(lambda net, x: net.e(x).mean(1), e=nn.Embedding(9, 4))


def made_inside():
  return Of(lambda net, x: net.l(mean(x)) + torch.arange(4), l=linear())


def half():
  return conv().half()


def branch():
  return Of(lambda net, x: net.l(mean(x)) if x.sum() > 0 else x, l=linear())


def attribute():
  net = Of(lambda net, x: net.l(mean(x)) + net.shift, l=linear())
  net.shift = torch.ones(4)
  return net


def batch():
  norm = nn.BatchNorm2d(3, track_running_stats=False)
  return Of(lambda net, x: net.l(mean(net.n(x))), l=linear(), n=norm)


def trains():
  def forward(net, x):
    net.n.train()
    return net.l(mean(net.n(x)))
  return Of(forward, l=linear(), n=nn.BatchNorm2d(3))


def draws():
  return Of(lambda net, x: nn.functional.dropout(net.l(mean(x))), l=linear())


def pair():
  return Of(lambda net, x: (net.l(mean(x)), x), l=linear())


def channels(channels):
  return linear()


def number():
  return 3


def digits():
  torch.manual_seed(0)
  return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
  """A module of functions, which can be imported as ``torch_nets``."""
  (tmp_path / 'torch_nets.py').write_text(CODE)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, 'torch_nets', raising=False)
  return importlib.import_module('torch_nets')


def build(name, shape=SHAPE, **kw):
  net = models.build(
    f'torch:torch_nets:{name}', num_classes=4, input_shape=shape, **kw
  )
  return net, net.init(jax.random.key(0))


def images(count=3):
  return np.random.default_rng(0).uniform(size=(count, *SHAPE)).astype('f')


def in_torch(module, x):
  import torch

  with torch.no_grad():
    return module.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))


@needs_torch
def test_gives_what_pytorch_gives_compiled_and_batched(nets):
  net, variables = build('conv')
  found = jax.jit(net.apply)(variables, images())[0]['logits']
  np.testing.assert_allclose(found, in_torch(nets.conv(), images()), atol=1e-6)
  assert set(variables) == {'params', 'state'}
  assert variables['params']['0']['weight'].shape == (6, 3, 3, 3)
  several = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), variables)
  apply = jax.jit(jax.vmap(net.apply, in_axes=(0, None)))
  batched = apply(several, images())[0]['logits']
  np.testing.assert_allclose(batched[0], found, atol=1e-6)
  assert not np.allclose(batched[1], found, atol=1e-2)


@needs_torch
def test_it_is_in_evaluation_mode_whoever_calls_it(nets):
  net, variables = build('conv')
  key = jax.random.key(1)
  a, _ = net.apply(variables, images())
  b, state = net.apply(variables, images(), key=key, train=True)
  np.testing.assert_array_equal(a['logits'], b['logits'])
  jax.tree.map(np.testing.assert_array_equal, state, variables['state'])


@needs_torch
def test_layers_are_tapped_by_path_with_channels_last(nets):
  net, variables = build('conv', taps=('0', '1', '2'))
  outputs, _ = net.apply(variables, images())
  assert outputs['0'].shape == (3, 6, 6, 6)
  module = nets.conv()
  norm = in_torch(module[:2], images()).permute(0, 2, 3, 1).numpy()
  # As it was before the ReLU, which changes it in place, in PyTorch.
  np.testing.assert_allclose(outputs['1'], norm, atol=1e-5)
  np.testing.assert_allclose(outputs['2'], np.maximum(norm, 0), atol=1e-5)
  with pytest.raises(UserError, match=r"no layer 'conv1'.*known: 0, 1"):
    build('conv', taps=('conv1',))
  shapes = models.tap_shapes(
    'torch:torch_nets:conv', num_classes=4, input_shape=SHAPE
  )
  assert shapes['3'].shape == (1, 1, 1, 6)


@needs_torch
def test_outputs_go_by_name_and_maps_have_their_channels_last(nets):
  net, variables = build('outputs')
  outputs, _ = net.apply(variables, images())
  assert set(outputs) == {'logits', 'maps', 'states/0', 'states/1'}
  np.testing.assert_allclose(outputs['maps'], images())


@needs_torch
def test_inputs_are_given_as_they_are_where_channels_are_last(nets):
  net, variables = build('last', channels='last')
  found = net.apply(variables, images())[0]['logits']
  module = nets.linear()
  expected = images().mean((1, 2)) @ module.weight.detach().numpy().T
  np.testing.assert_allclose(
    found, expected + module.bias.detach().numpy(), atol=1e-6
  )
  with pytest.raises(UserError, match="no place of channels 'middle'"):
    build('last', channels='middle')


@needs_torch
def test_tokens_and_tensors_made_in_forward(nets):
  shape = jax.ShapeDtypeStruct((5,), jnp.int32)
  net, variables = build('tokens', shape)
  x = np.arange(10, dtype=np.int32).reshape(2, 5) % 9
  expected = nets.tokens().e.weight.detach().numpy()[x].mean(1)
  found = jax.jit(net.apply)(variables, x)[0]['logits']
  np.testing.assert_allclose(found, expected, atol=1e-6)
  net, variables = build('made_inside')
  plain = in_torch(nets.made_inside(), images())
  found = net.apply(variables, images())[0]['logits']
  np.testing.assert_allclose(found, plain, atol=1e-6)


@needs_torch
def test_weights_are_float32_and_bfloat16_is_for_computing(nets):
  _, variables = build('half')
  assert {x.dtype for x in jax.tree.leaves(variables['params'])} == {
    np.dtype('float32')
  }
  rounded, _ = build('conv', dtype='bfloat16')
  exact, _ = build('conv')
  a, b = (n.apply(variables, images())[0]['logits'] for n in (rounded, exact))
  assert a.dtype == np.float32
  assert 1e-5 < np.abs(a - b).max() < 0.1


@needs_torch
@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('branch', 'JAX cannot trace the PyTorch module Of .*no branch that depe'),
    ('attribute', 'JAX cannot trace .*on its inputs, parameters and buffers'),
    ('batch', 'the layer n of Of has no running statistics'),
    ('trains', "the layer 'n' of Of is set to training"),
    ('draws', "the layer 'Of' draws random numbers in evaluation"),
    ('pair', 'model Of returns a tuple of 2, the first an array'),
    ('channels', "'torch_nets:channels' takes an argument channels"),
    ('number', 'returns 3, which is no torch.nn.Module'),
    ('absent', "there is no PyTorch module 'absent'"),
  ],
)
@pytest.mark.usefixtures('nets')
def test_refuses_what_cannot_be_a_teacher(name, message):
  def use():
    net, variables = build(name)
    jax.jit(net.apply)(variables, images())

  with pytest.raises(UserError, match=message) as error:
    use()
  assert '\n' not in str(error.value)


@needs_torch
@pytest.mark.usefixtures('nets')
def test_one_entry_is_named():
  own = dict(num_classes=4, input_shape=SHAPE)
  for name, kw in (('batch', {}), ('number', {}), ('conv', {'channels': 'x'})):
    with pytest.raises(UserError) as error:
      given.find(f'torch:torch_nets:{name}', **own, **kw)
    said = str(error.value)
    assert said.startswith('teachers.main.restore: ')
    assert said.count('teachers.main') == 1


@needs_torch
@pytest.mark.usefixtures('nets')
def test_a_list_of_modules_is_a_group():
  def find(name):
    return given.find(
      f'torch:torch_nets:{name}', num_classes=4, input_shape=SHAPE
    )

  found = find('group')
  bias = found.variables['params']['6']['bias']
  np.testing.assert_allclose(bias[1], bias[0] + 1)
  assert len(found.checksum) == 64
  with pytest.raises(UserError, match=r'net 1 of those .* is built otherwise'):
    find('unlike')


def small(**teacher):
  return config.complete(
    dict(
      data=dict(source='digits'),
      teachers=dict(main=teacher),
      students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
      distill=dict(
        labels=dict(loss='cross_entropy'), soft=dict(loss='kl', teacher='main')
      ),
      arms=dict(
        student=dict(distill=dict(soft=dict(weight=0.0))), distilled={}
      ),
      train=dict(steps=2, seeds=1),
    )
  )


@needs_torch
@pytest.mark.usefixtures('nets')
def test_in_a_config_the_model_is_restored_with_its_weights(tmp_path):
  name = 'torch:torch_nets:digits'
  for teacher in (dict(model=name), dict(restore=name)):
    made = small(**teacher).teachers.main
    assert (made.model, made.restore) == (name, name)
    assert made.kw.to_dict() == {'channels': 'first'}
  whole = config.plain(small(model=name))
  source, rounds = checks.prepare(whole, tmp_path / 'run')
  assert any(f'nets that {name} gives' in note for note in source.notes)
  assert rounds[0].teachers['main'].given
  whole['students']['student'] |= {'model': name, 'kw': {}}
  with pytest.raises(UserError, match='is a net with its weights, which does'):
    checks.prepare(whole, tmp_path / 'run')


def test_other_weights_than_those_of_the_module_are_refused():
  with pytest.raises(UserError, match="comes with its weights, and 'x' is som"):
    small(model='torch:torch_nets:conv', restore='x')


def test_a_failing_import_is_one_sentence(tmp_path, monkeypatch):
  for name, text in (('torch', ''), ('torchax', 'import torch; torch.gone()')):
    (tmp_path / f'{name}.py').write_text(text)
    # What is imported here is gone behind the test, even if nothing was before.
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]
  monkeypatch.syspath_prepend(tmp_path)
  message = (
    r'teachers.main.restore: PyTorch modules need torchax, which cannot be '
    r"imported \(AttributeError: .*gone.*\); pip install 'jaxkd\[torch\]'"
  )
  with pytest.raises(UserError, match=message) as error:
    small(model='torch:torch_nets:conv')
  assert '\n' not in str(error.value)


def test_code_behind_torch_has_a_checksum(tmp_path, monkeypatch):
  (tmp_path / 'behind_torch.py').write_text('def net():\n  return 1\n')
  monkeypatch.syspath_prepend(tmp_path)
  assert 'behind_torch' in named({'model': 'torch:behind_torch:net'})
