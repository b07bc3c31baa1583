"""State dicts of PyTorch: what the original modules compute, and refusals.

What they compute was written by tools/pytorch_reference.py, see there.
"""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import pytorch
from jaxkd.run import config

ROOT = Path(__file__).parents[2]
REFERENCE = config.beside(ROOT / 'tools' / 'pytorch_reference.py')
LINES = Path(__file__).with_name('pytorch_reference.jsonl').read_text()
NETS = [json.loads(line) for line in LINES.splitlines()]
SMALL = NETS[0]


def build(name, kw=None, side=32):
  """A net and the shapes of its variables."""
  net = models.build(
    name,
    num_classes=REFERENCE.CLASSES,
    input_shape=(side, side, 3),
    **(kw or {}),
  )
  return net, jax.eval_shape(net.init, jax.random.key(0))


def filled(net):
  return REFERENCE.fill(net['layers'], net['conv_bias'])


@pytest.mark.parametrize(
  'given',
  NETS,
  ids=lambda n: '-'.join([n['model'], *map(str, n['kw'].values())]),
)
def test_gives_the_logits_of_the_original(given, tmp_path):
  net, shapes = build(given['model'], given['kw'], given['side'])
  file = tmp_path / 'x.safetensors'
  save_file(filled(given), file)
  variables = pytorch.load(file, given['model'], shapes)
  assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
  forward = jax.jit(
    lambda *args: net.apply(*args)[0]['logits'],
    compiler_options={'xla_backend_optimization_level': 0},  # compiles faster
  )
  logits = forward(variables, REFERENCE.images(given['side']))
  np.testing.assert_allclose(logits, given['logits'], rtol=1e-4)


def test_every_family_with_rules_is_compared():
  families = {n for n, m in models.families().items() if hasattr(m, 'PYTORCH')}
  compared = {models.resolve(net['model'])[0].__module__ for net in NETS}
  compared.add('jaxkd.models.classics')  # with NumPy, below
  compared.add('jaxkd.models.vit')  # in test_hugging_face_vision.py
  assert compared == {f'jaxkd.models.{name}' for name in families}


def test_classics_compute_what_their_layers_say_in_pytorchs_layout(tmp_path):
  kw = dict(
    features=((0, 3, 5, 2), 2, (3, 5, 3, 1), 5), window=2, side=2, width=6
  )
  net = models.build('classics', num_classes=4, input_shape=(16, 16, 3), **kw)
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  layers = {
    'features.0': (3, 3, 5, 5),
    'features.3': (5, 3, 3, 3),
    'classifier.1': (6, 20),
    'classifier.4': (6, 6),
    'classifier.6': (4, 6),
  }
  state, file = REFERENCE.fill(layers, True), tmp_path / 'x.safetensors'
  save_file(state, file)
  variables = pytorch.load(file, 'classics', shapes)
  images = REFERENCE.images(16)

  def convolved(x, name, stride, padding):
    kernel = state[f'{name}.weight']
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    patches = np.lib.stride_tricks.sliding_window_view(
      x, kernel.shape[2:], (2, 3)
    )[:, :, ::stride, ::stride]
    x = np.einsum('bihwkl,oikl->bohw', patches, kernel)
    return np.maximum(x + state[f'{name}.bias'][:, None, None], 0)

  def pooled(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).max((3, 5))

  x = pooled(convolved(images.transpose(0, 3, 1, 2), 'features.0', 2, 2))
  x = pooled(convolved(x, 'features.3', 1, 1)).reshape(2, -1)
  for name in ('classifier.1', 'classifier.4', 'classifier.6'):
    x = x @ state[f'{name}.weight'].T + state[f'{name}.bias']
    x = x if name.endswith('6') else np.maximum(x, 0)
  logits = jax.jit(net.apply)(variables, images)[0]['logits']
  np.testing.assert_allclose(logits, x, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope='module')
def small():
  return build(SMALL['model'])[1]


def prefixed(prefix, skip='-'):
  """Names as a wrapper makes them, all but those of what it leaves alone."""
  return lambda s: {
    k if k.startswith(skip) else f'{prefix}{k}': x for k, x in s.items()
  }


def variants():
  for prefix in (
    *('module.', '_orig_mod.', 'model.', 'backbone.', 'net.', 'student.'),
    *('module._orig_mod.', '_orig_mod.module.', 'module.model.'),
    *('model.net.module.', 'anything.of_ones.own.1.'),
  ):
    yield prefix, prefixed(prefix)
  yield 'backbone alone', prefixed('module.backbone.', skip='fc')
  yield (
    'backbone and head',
    lambda s: {
      f'{"head" if k.startswith("fc") else "backbone"}.{k}': x
      for k, x in s.items()
    },
  )
  yield (
    'layers that are wrapped',
    lambda s: {
      k.replace('layer1.', 'layer1._checkpoint_wrapped_module.').replace(
        '0.conv1', '_orig_mod.0.conv1'
      ): x
      for k, x in s.items()
    },
  )
  yield (
    'averaged',
    lambda s: {**prefixed('module.')(s), 'n_averaged': np.array(7)},
  )
  yield (
    'profiled',
    lambda s: {**s, 'total_ops': np.ones(1), 'conv1.total_params': np.ones(1)},
  )
  yield (
    'double',
    lambda s: {
      k: x.astype(np.float64) if x.dtype == np.float32 else x
      for k, x in s.items()
    },
  )
  yield (
    'no counts',
    lambda s: {
      k: x for k, x in s.items() if not k.endswith('num_batches_tracked')
    },
  )
  # The same shortcuts and head as others call them.
  yield (
    'names',
    lambda s: {
      k.replace('downsample', 'shortcut').replace('fc.', 'linear.'): x
      for k, x in s.items()
    },
  )


@pytest.mark.parametrize(
  'change', [f for _, f in variants()], ids=[n for n, _ in variants()]
)
def test_what_does_not_matter(change, small, tmp_path):
  state = filled(SMALL)
  for name, tensors in (('a', state), ('b', change(state))):
    save_file(tensors, tmp_path / name)
  a, b = (pytorch.load(tmp_path / n, 'resnet8', small) for n in 'ab')
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert {x.dtype for x in jax.tree.leaves(b)} == {np.dtype('float32')}


def test_half_precision_is_read(small, tmp_path):
  bfloat16 = jax.numpy.bfloat16
  state = {
    k: x.astype(bfloat16) if x.dtype == np.float32 else x
    for k, x in filled(SMALL).items()
  }
  save_file(state, tmp_path / 'x')
  variables = pytorch.load(tmp_path / 'x', 'resnet8', small)
  np.testing.assert_array_equal(
    variables['params']['head']['kernel'],
    state['fc.weight'].T.astype(np.float32),
  )


def without(name):
  return lambda s: {k: x for k, x in s.items() if k != name}


def with_tensor(name, x):
  return lambda s: {**s, name: x}


@pytest.mark.parametrize(
  ('change', 'parts'),
  [
    (without('fc.weight'), ('no tensor', 'params/head/kernel [64, 4]')),
    (
      without('layer2.0.bn1.running_var'),
      ('no tensor', 'state/stages/1/blocks/0/conv1/norm/var [32]'),
    ),
    (
      with_tensor('layer4.0.conv1.weight', np.ones((8, 8, 3, 3))),
      ('layer4.0.conv1.weight [8, 8, 3, 3]', 'no such layer', 'name the model'),
    ),
    (
      with_tensor('classifier.weight', np.ones((4, 64))),
      ('it has no layer for classifier.weight [4, 64]', 'name the model'),
    ),
    (
      with_tensor('fc.weight_g', np.ones((4, 64))),
      ('its layer head has no place for fc.weight_g [4, 64]',),
    ),
    (
      with_tensor('fc.weight', np.ones((100, 64))),
      ('fc.weight [100, 64]', 'params/head/kernel [64, 100]', 'has [64, 4]'),
    ),
    (
      with_tensor('linear.weight', np.ones((4, 64))),
      ('fc.weight [4, 64] and linear.weight', 'both be params/head/kernel'),
    ),
    (
      with_tensor('fc.bias', np.array([0, 1, np.inf, 2])),
      ('fc.bias [4] has values that are not finite',),
    ),
    (
      with_tensor('fc.bias', np.arange(4)),
      ('int64 in fc.bias', 'floating-point'),
    ),
    (with_tensor('fc.bias', np.full(4, 1e300)), ('fc.bias [4] has values',)),
    (
      with_tensor('bn1.running_var', np.linspace(-0.1, 1, 16)),
      ('bn1.running_var [16] has variances below 0',),
    ),
    (
      lambda s: {**prefixed('student.')(s), **prefixed('teacher.')(s)},
      ('no layer for teacher.', '[16]'),
    ),
    (
      lambda s: {**s, **prefixed('model.')(s)},
      ('and model.', 'keep the tensors of one net'),
    ),
    (
      with_tensor('layer1.0.se.conv1.weight', np.ones((4, 16, 1, 1))),
      ('no layer for layer1.0.se.conv1.weight [4, 16, 1, 1]',),
    ),
    (lambda s: {'x': np.ones(1)}, ('no layer for x [1]',)),
    (lambda s: {}, ('holds no weights', 'state_dict()')),
    (lambda s: {'n_averaged': np.array(1)}, ('holds no weights',)),
  ],
)
def test_refuses_what_does_not_fit(change, parts, small, tmp_path):
  file = tmp_path / 'x.safetensors'
  save_file(change(filled(SMALL)), file)
  with pytest.raises(UserError) as error:
    pytorch.load(file, 'resnet8', small)
  for part in (str(file), *parts):
    assert part in str(error.value)
  assert r'(\d)' not in str(error.value)  # our rules are nobody's business


def test_a_deeper_net_is_not_taken_for_a_shallow_one(tmp_path):
  file = tmp_path / 'x.safetensors'
  save_file(filled(SMALL), file)
  with pytest.raises(UserError, match=r"model 'resnet14': no tensor.*blocks/1"):
    pytorch.load(file, 'resnet14', build('resnet14')[1])


@pytest.mark.parametrize('start', [b'PK\x03\x04', b'\x80\x02}q', b'', b'notes'])
def test_refuses_pickles_and_says_how_to_convert_them(start, small, tmp_path):
  file = tmp_path / 'ckpt.pth'
  file.write_bytes(start + b'-' * 9 * bool(start))
  with pytest.raises(UserError, match='not in the safetensors format') as error:
    pytorch.load(file, 'resnet8', small)
  assert '\n' not in str(error.value)  # the scripts print one line
  # tools/pytorch_checkpoints.py runs them, where PyTorch is.
  lines = re.findall('`(.*?)`', str(error.value))
  compile('\n'.join(lines), 'said', 'exec')
  assert lines[0].endswith(f'file = {str(file)!r}')
  assert lines[-1].endswith(f', {str(file.with_suffix(".safetensors"))!r})')
  assert 'weights_only=True' in str(error.value)


def test_refuses_what_cannot_be_read(small, tmp_path):
  with pytest.raises(UserError, match='there is no file'):
    pytorch.load(tmp_path / 'x', 'resnet8', small)
  file = tmp_path / 'x.safetensors'
  save_file(filled(SMALL), file)
  file.write_bytes(file.read_bytes()[:-7])
  with pytest.raises(UserError, match=r'x\.safetensors cannot be read'):
    pytorch.load(file, 'resnet8', small)


def test_refuses_models_of_which_no_names_are_known(tmp_path):
  with pytest.raises(UserError, match=r"'mlp' is not known; take one of .*vgg"):
    pytorch.load(tmp_path / 'x', 'mlp', {})


class Own:
  """A model outside of jaxkd, with names of its own."""


PYTORCH = {r'output': lambda: 'out'}


def test_a_model_of_ones_own(tmp_path, monkeypatch):
  monkeypatch.setattr(models, 'resolve', lambda name: (Own, {}))
  kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
  save_file({'output.weight': kernel}, tmp_path / 'x')
  like = {'params': {'out': {'kernel': jax.ShapeDtypeStruct((3, 2), 'f4')}}}
  got = pytorch.load(tmp_path / 'x', 'own.module:Own', like)
  np.testing.assert_array_equal(got['params']['out']['kernel'], kernel.T)
