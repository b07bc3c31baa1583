"""Every family of models, and how models are found by name."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.types import Idle

# These classify no images, as one reads another net's features, one embeds, two
# translate, one transcribes, two are of language and two classify each pixel;
# one detects objects, branches have several heads, a critic scores, two see
# clips, and machines are not trained.
OTHERS = {'paraphraser', 'embedder', 'branches', 'critic', 'svm'}
OTHERS |= {'seq2seq', 'transformer_seq2seq', 'speech_transformer'}
OTHERS |= {'lstm_language', 'decoder', 'segmenter', 'unet', 'detector'}
OTHERS |= {'late_fusion', 'lrcn'}
FAMILIES = sorted(set(models.families()) - OTHERS)
KEY = jax.random.key(0)

# Options that make each family small enough to run, where it has any.
SMALL = {
  'classics': {'features': ((0, 4, 3, 2), 2), 'side': 3, 'width': 8},
  'convnet': {'stages': ((4, 4), (6,)), 'hidden': (8,), 'dropout': 0.5},
  'densenet': {'depth': 10, 'growth': 2},
  'mixer': {'width': 8, 'depth': 1},
  'mlp': {'widths': (8, 6), 'dropout': 0.5},
  'mobilenetv2': {'stages': ((8, 1, 1), (12, 2, 2)), 'width': 0.5},
  'preact_resnet': {'depth': 11},
  'resnet': {'depth': 8, 'widths': (4, 4, 8, 8)},
  'resnet_imagenet': {'sizes': (1, 1), 'width': 4},
  'shufflenetv1': {'widths': (48, 96), 'sizes': (1, 1), 'groups': 2},
  'shufflenetv2': {'widths': (8, 8), 'sizes': (1,)},
  'vgg': {'widths': (4, 8), 'sizes': (1, 2)},
  'vit': {'width': 8, 'depth': 1, 'heads': 2, 'dropout': 0.1},
  'wrn': {'depth': 10, 'width': 1, 'dropout': 0.1},
}

# Parameters as published, or counted from the definitions that published
# distillation results come from; the latter with 100 classes of 32x32 images.
COUNTS = [
  ('resnet8', 100, (32, 32, 3), 83_892),
  ('resnet20', 100, (32, 32, 3), 278_324),
  ('resnet56', 100, (32, 32, 3), 861_620),
  ('resnet8x4', 100, (32, 32, 3), 1_233_540),
  ('resnet32x4', 100, (32, 32, 3), 7_433_860),
  ('wrn_16_1', 100, (32, 32, 3), 180_916),
  ('wrn_16_2', 100, (32, 32, 3), 703_284),
  ('wrn_40_2', 100, (32, 32, 3), 2_255_156),
  ('vgg8', 100, (32, 32, 3), 3_965_028),
  ('vgg13', 100, (32, 32, 3), 9_462_180),
  ('vgg19', 100, (32, 32, 3), 20_086_692),
  ('mobilenetv2_half', 100, (32, 32, 3), 812_836),
  ('shufflenetv1', 100, (32, 32, 3), 949_258),
  ('shufflenetv2', 100, (32, 32, 3), 1_355_528),
  ('resnet18_cifar', 100, (32, 32, 3), 11_220_132),
  ('resnet50_cifar', 100, (32, 32, 3), 23_705_252),
  ('resnet18', 1000, (224, 224, 3), 11_689_512),
  ('resnet50', 1000, (224, 224, 3), 25_557_032),
  ('resnet152', 1000, (224, 224, 3), 60_192_808),
  ('densenet_100_12', 10, (32, 32, 3), 769_162),
  ('preact_resnet164', 10, (32, 32, 3), 1_703_258),
  ('vit_ti_16', 1000, (224, 224, 3), 5_717_416),
  ('mixer_b_16', 1000, (224, 224, 3), 59_880_472),
  ('lenet5', 10, (28, 28, 1), 61_706),
  ('lenet5', 10, (32, 32, 1), 61_706),
  ('alexnet', 10, (32, 32, 3), 1_659_178),
  ('polino2018_teacher', 10, (32, 32, 3), 5_339_350),
  ('polino2018_student1', 10, (32, 32, 3), 998_835),
  ('polino2018_student2', 10, (32, 32, 3), 317_395),
  ('polino2018_student3', 10, (32, 32, 3), 111_235),
  ('alexnet_imagenet', 1000, (224, 224, 3), 61_100_840),
  ('vgg16_imagenet', 1000, (224, 224, 3), 138_357_544),
]


def draw(shapes):
  """Small values, so that nothing has to compile ``init``."""
  generator = np.random.default_rng(0)

  def uniform(x):
    assert x.dtype == jnp.float32
    return generator.uniform(-0.05, 0.1, x.shape).astype(np.float32)

  return jax.tree.map(uniform, shapes)


def lower(net, images, **kw):
  """The lowered forward pass and the variables for it."""
  variables = draw(jax.eval_shape(net.init, KEY))
  variables['state'] = jax.tree.map(np.abs, variables['state'])
  forward = jax.jit(
    lambda *args: net.apply(*args, **kw),
    compiler_options={'xla_backend_optimization_level': 0},  # compiles faster
  )
  return forward.lower(variables, images), variables


@pytest.mark.parametrize(('name', 'classes', 'input_shape', 'number'), COUNTS)
def test_parameter_counts(name, classes, input_shape, number):
  net = models.build(name, num_classes=classes, input_shape=input_shape)
  variables = jax.eval_shape(net.init, KEY)
  assert models.count(variables['params']) == number


@pytest.mark.parametrize('family', FAMILIES)
def test_families(family):
  """In training, in bfloat16: names, shapes, types, and what moves."""
  net = models.build(
    family,
    num_classes=3,
    input_shape=(16, 16, 1),
    dtype='bfloat16',
    **SMALL.get(family, {}),
  )
  assert net.idle() == Idle()
  images = np.random.default_rng(1).normal(size=(4, 16, 16, 1))
  images = images.astype(np.float32)
  lowered, variables = lower(net, images, key=KEY, train=True)
  products = re.findall(
    r'stablehlo\.(?:convolution|dot_general).*', lowered.as_text()
  )
  assert len([line for line in products if 'bf16' not in line]) == 1  # head

  outputs, state = lowered.compile()(variables, images)
  width, _ = variables['params']['head']['kernel'].shape
  assert {name: x.shape for name, x in outputs.items()} == {
    'logits': (4, 3),
    'embedding': (4, width),
  }
  chex.assert_tree_all_finite((outputs, state))
  chex.assert_type(jax.tree.leaves((outputs, state)), jnp.float32)
  for old, new in zip(
    *map(jax.tree.leaves, (variables['state'], state)), strict=True
  ):
    assert (old != new).any()


def test_published_names_fix_options_that_exist():
  for family, module in models.families().items():
    for name, fixed in getattr(module, 'NAMED', {}).items():
      constructor, options = models.resolve(name)
      assert (constructor, options) == (module.Model, fixed)
      assert fixed.keys() <= models.defaults(family).keys()
      assert not fixed.keys() & models.defaults(name).keys()
      assert name not in models.families()


def test_stages_and_what_comes_before_their_last_relu():
  taps = ('stem', 'stages/*', 'stages/*/preactivation')
  options = {'num_classes': 3, 'input_shape': (8, 8, 1), 'taps': taps}
  net = models.build('resnet', **SMALL['resnet'], **options)
  images = np.ones((2, 8, 8, 1), np.float32)
  lowered, variables = lower(net, images)
  outputs, _ = lowered.compile()(variables, images)
  for i, side in enumerate((8, 4, 2)):
    stage = outputs[f'stages/{i}']
    before = outputs[f'stages/{i}/preactivation']
    assert stage.shape == (2, side, side, SMALL['resnet']['widths'][i + 1])
    assert (before < 0).any()
    np.testing.assert_array_equal(stage, jnp.maximum(before, 0))
  np.testing.assert_allclose(
    outputs['embedding'], outputs['stages/2'].mean((1, 2)), rtol=1e-6
  )


def test_attention_probabilities_sum_to_one():
  net = models.build(
    'vit',
    num_classes=3,
    input_shape=(8, 8, 1),
    taps=('blocks/*/attention/probabilities',),
    pool='token',
    **SMALL['vit'],
  )
  images = np.ones((2, 8, 8, 1), np.float32)
  lowered, variables = lower(net, images)
  outputs, _ = lowered.compile()(variables, images)
  p = outputs['blocks/0/attention/probabilities']
  assert p.shape == (2, 2, 5, 5)
  np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-5)


def test_channels_are_shuffled_between_groups():
  from jaxkd.models.layers import shuffle_channels

  x = jnp.arange(6)[None]
  assert shuffle_channels(x, 2).tolist() == [[0, 3, 1, 4, 2, 5]]
  assert shuffle_channels(x, 1).tolist() == x.tolist()


def test_tap_shapes():
  options = {'num_classes': 3, 'input_shape': (4,), 'widths': (5,)}
  found = models.tap_shapes('mlp', **options)
  assert {name: x.shape for name, x in found.items()} == {
    'layers/0': (1, 5),
    'layers/0/linear': (1, 5),
    'layers/0/dropout': (1, 5),
    'head': (1, 3),
  }


def test_defaults_are_what_a_name_leaves_open():
  assert models.defaults('mlp') == {'widths': (256, 256), 'dropout': 0.0}
  assert models.defaults('wrn') == {'depth': 16, 'width': 2, 'dropout': 0.0}
  assert models.defaults('wrn_40_2') == {'dropout': 0.0}
  assert models.defaults('resnet8x4') == {'neck': 0}


OWN = """
import jax.numpy as jnp
from flax import linen, nnx
from jaxkd.types import Net

class NNX(nnx.Module):
  def __init__(me, *, num_classes, scale, rngs):  # no self
    me.linear = nnx.Linear(4, num_classes, rngs=rngs)
    me.scale = scale

  def __call__(self, x):
    return self.scale * self.linear(x)

class Linen(linen.Module):
  num_classes: int
  input_shape: tuple
  scale: float = 1.0

  @linen.compact
  def __call__(self, x):
    return self.scale * linen.Dense(self.num_classes, name='linear')(x)

made = Linen(3, (4,))

def identity():
  return Net(
    lambda key: {'params': {}, 'state': {}},
    lambda variables, x, *, key=None, train=False: ({'logits': x}, {}),
  )

class Tokens(nnx.Module):
  def __init__(self, *, input_shape, rngs):
    self.embed = nnx.Embed(9, 3, rngs=rngs)

  def __call__(self, x):
    return {'logits': self.embed(x['source']) + x['bias'][:, None]}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  (tmp_path / 'own_models.py').write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  return {'num_classes': 3, 'input_shape': (4,)}


@pytest.mark.parametrize('name', ['NNX', 'Linen'])
def test_your_own_module(own, name):
  net = models.build(f'own_models:{name}', scale=2.0, taps=('linear',), **own)
  variables = net.init(KEY)
  assert models.count(variables['params']) == 15
  outputs, _ = net.apply(variables, jnp.ones((2, 4)))
  np.testing.assert_array_equal(outputs['logits'], 2 * outputs['linear'])
  assert set(models.tap_shapes(f'own_models:{name}', scale=2.0, **own)) == {
    'linear'
  }


def test_your_own_net(own):
  net = models.build('own_models:identity', **own)
  outputs, _ = net.apply(net.init(KEY), jnp.ones((2, 3)))
  np.testing.assert_array_equal(outputs['logits'], jnp.ones((2, 3)))
  assert models.tap_shapes('own_models:identity', **own) == {}
  with pytest.raises(UserError, match='layers cannot be reached'):
    models.build('own_models:identity', taps=('linear',), **own)


def test_inputs_may_be_a_pytree(own):
  tree = {'source': jax.ShapeDtypeStruct((5,), jnp.int32), 'bias': (3,)}
  net = models.build(
    'own_models:Tokens', num_classes=3, input_shape=tree, taps=('embed',)
  )
  inputs = {'source': jnp.zeros((2, 5), jnp.int32), 'bias': jnp.ones((2, 3))}
  outputs, _ = net.apply(net.init(KEY), inputs)
  np.testing.assert_array_equal(outputs['logits'], outputs['embed'] + 1)


def test_options_of_your_own_module(own):
  assert models.defaults('own_models:Linen') == {'scale': 1.0}
  assert models.defaults('own_models:NNX') == {}
  with pytest.raises(UserError, match="needs the option 'scale'"):
    models.build('own_models:NNX', **own)
  with pytest.raises(UserError, match='cannot compute in bfloat16'):
    models.build('own_models:Linen', dtype='bfloat16', **own)
  with pytest.raises(UserError, match='is made already; name its class, or a'):
    models.build('own_models:made', **own)
  with pytest.raises(UserError, match="'Linnen'; did you mean 'Linen'"):
    models.build('own_models:Linnen', **own)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('resnet8x5', {}, "m: there is no model 'resnet8x5'; did you mean"),
    ('mlp', {'width': 3}, "'width'; did you mean 'widths'"),
    ('wrn_16_2', {'depth': 22}, "m: 'wrn_16_2' means depth=16"),
    ('mlp', {'dtype': 'bf16'}, "floating-point type 'bf16'"),
    ('mlp', {'taps': ('layer/0',)}, "did you mean 'layers/0'"),
    ('resnet', {'depth': 21}, r'depth must be 8, 14, 20... \(6n'),
    ('wrn', {'depth': 18}, r'depth must be 10, 16, 22... \(6n'),
    ('preact_resnet', {'depth': 18}, r'depth must be 11, 20, 29... \(9n'),
    ('vit', {'pool': 'max'}, "no pooling 'max'"),
    ('vit', {'heads': 5}, 'heads=5 does not divide width=192'),
    ('mixer', {'patch': 5}, 'patch=5 does not divide images of 8 by 8'),
    ('resnet_imagenet', {'block': 'wide'}, "no block 'wide'"),
    ('resnet_imagenet', {'stem': 'cifra'}, "did you mean 'cifar'"),
    ('lenet', {}, 'at least 12 by 12 pixels, not 8 by 8'),
    ('alexnet', {}, 'at least 15 by 15 pixels, not 8 by 8'),
    ('convnet', {'pools': 4}, 'at least 16 by 16 pixels, not 8 by 8'),
    ('vgg16_imagenet', {}, 'resize them to 224'),
    ('vgg', {'input_shape': (64,)}, r'images of shape \(height, width'),
  ],
)
def test_mistakes_are_one_clear_sentence(name, options, message):
  options = {'num_classes': 3, 'input_shape': (8, 8, 1), **options}
  with pytest.raises(UserError, match=message):
    models.build(name, at='m', **options)


def test_an_embedder_is_a_model_whose_last_layer_embeds():
  images = np.random.default_rng(1).normal(size=(4, 6, 6, 1))
  images = images.astype(np.float32)
  options = dict(num_classes=7, input_shape=(6, 6, 1), size=3)
  base = models.build(
    'mlp', num_classes=3, input_shape=(6, 6, 1), widths=(8, 5)
  )
  for normalize in (False, True):
    net = models.build(
      'embedder',
      of_kw={'widths': (8, 5)},
      normalize=normalize,
      taps=('base/layers/0',),
      **options,
    )
    variables = draw(jax.eval_shape(net.init, KEY))
    outputs, _ = net.apply(variables, images)
    inner = {kind: variables[kind].get('base', {}) for kind in variables}
    want, _ = base.apply(inner, images)
    embedding = np.asarray(want['logits'])
    if normalize:
      embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs['embedding'], embedding, rtol=1e-5)
    np.testing.assert_array_equal(outputs['features'], want['embedding'])
    assert set(outputs) == {'embedding', 'features', 'base/layers/0'}

  def total(images):
    return net.apply(variables, images)[0]['embedding'].sum()

  variables = jax.tree.map(np.zeros_like, variables)
  assert not jax.grad(total)(images).any()  # and is finite
  with pytest.raises(UserError, match=r"^embedder: of: .*'mpl'"):
    models.build('embedder', of='mpl', **options)


def test_branches():
  """The first is an MLP with the trunk; a gate mixes the logits of all."""
  sizes = dict(trunk=(6,), widths=(5, 4), count=3)
  given = dict(num_classes=3, input_shape=(2, 2, 1))
  net = models.build('branches', **given, **sizes, taps=('branches/*',))
  variables = draw(jax.eval_shape(net.init, KEY))
  images = np.random.default_rng(1).normal(size=(4, 2, 2, 1))
  images = images.astype(np.float32)
  outputs, _ = net.apply(variables, images)
  each = [outputs[f'branches/{i}'] for i in range(3)]
  np.testing.assert_array_equal(outputs['logits'], each[0])
  assert not np.allclose(each[0], each[1])

  params = variables['params']
  first = params['branches']['0']
  alone = models.build('mlp', **given, widths=(6, 5, 4))
  hidden = [params['trunk']['0'], first['layers']['0'], first['layers']['1']]
  same = {
    'layers': {str(i): layer for i, layer in enumerate(hidden)},
    'head': first['head'],
  }
  want, _ = alone.apply({'params': same, 'state': {}}, images)
  np.testing.assert_allclose(outputs['logits'], want['logits'], rtol=1e-6)

  gate = params['gate']
  scores = outputs['embedding'] @ gate['kernel'] + gate['bias'][None]
  weights = jax.nn.softmax(scores)
  mixed = sum(weights[:, i, None] * x for i, x in enumerate(each))
  np.testing.assert_allclose(outputs['ensemble'], mixed, rtol=1e-5, atol=1e-7)
