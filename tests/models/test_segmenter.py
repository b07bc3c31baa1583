"""Nets that give a class for each pixel."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import layers, segmenter
from jaxkd.models.segmenter import upsampled

KEY = jax.random.key(0)
SMALL = {'num_classes': 5, 'input_shape': (20, 24, 3)}


def shapes(name, taps=(), **options):
  net = models.build(name, taps=taps, **{**SMALL, **options})
  images = jax.ShapeDtypeStruct((2, *SMALL['input_shape']), jnp.float32)
  outputs = jax.eval_shape(lambda x: net.apply(net.init(KEY), x)[0], images)
  return {name: x.shape for name, x in outputs.items()}


# Counted layer by layer from the authors' definitions, with 19 classes.
@pytest.mark.parametrize(
  ('name', 'number'),
  [
    ('pspnet_resnet101', 70_437_350),
    ('pspnet_resnet18', 13_068_262),
    ('pspnet_resnet18_half', 3_271_686),
  ],
)
def test_published_nets(name, number):
  net = models.build(name, num_classes=19, input_shape=(512, 512, 3))
  variables = jax.eval_shape(net.init, KEY)
  assert models.count(variables['params']) == number
  images = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
  found, _ = jax.eval_shape(net.apply, variables, images)
  assert {name: x.shape for name, x in found.items()} == {
    'logits': (2, 512, 512, 19),
    'scores': (2, 64, 64, 19),
    'auxiliary': (2, 512, 512, 19),
  }


@pytest.mark.parametrize(
  ('options', 'sides'),
  [
    ({}, (5, 6)),
    ({'stride': 2}, (10, 12)),
    ({'stem': 'deep', 'bins': (1, 2)}, (5, 6)),
    ({'stem': 'deep', 'stride': 8, 'bins': (1, 2)}, (3, 3)),
    ({'block': 'bottleneck', 'sizes': (1,), 'stride': 2}, (10, 12)),
  ],
)
def test_sizes_follow_the_stride(options, sides):
  bins = {'bins': (1, 2, 5)} | options
  found = shapes('segmenter', ('features', 'stages/0'), pyramid=7, **bins)
  assert found['logits'] == (2, 20, 24, 5)
  assert found['scores'] == (2, *sides, 5)
  assert found['features'] == (2, *sides, 7)


def test_dilated_convolutions_see_every_other_pixel():
  options = {'dilation': 2, 'bias': True, 'rngs': nnx.Rngs(0)}
  layer = layers.conv(2, 3, 3, **options)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 2)), 'f')
  found = layer(x)
  assert found.shape == (2, 8, 6, 3)
  want = jax.lax.conv_general_dilated(
    x[:, ::2, ::2],
    layer.kernel[...],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  np.testing.assert_allclose(found[:, ::2, ::2], want, atol=1e-5)


@pytest.mark.parametrize(
  ('stem', 'stride', 'strides', 'dilations'),
  [
    ('small', 2, [1, 1, 1, 1], [1, 2, 4, 8]),
    ('small', 4, [1, 2, 1, 1], [1, 1, 2, 4]),
    ('deep', 8, [1, 2, 1, 1], [1, 1, 2, 4]),
    ('deep', 32, [1, 2, 2, 2], [1, 1, 1, 1]),
  ],
)
def test_stages_are_dilated_where_they_do_not_halve(
  stem, stride, strides, dilations
):
  model = nnx.eval_shape(
    lambda: segmenter.Model(
      num_classes=2,
      input_shape=(64, 64, 3),
      sizes=(2, 1, 2, 1),
      width=2,
      stem=stem,
      stride=stride,
      bins=(1, 2),
      rngs=nnx.Rngs(0),
    )
  )
  for stage, step, dilation in zip(
    model.stages, strides, dilations, strict=True
  ):
    first, *others = [block.conv1.conv for block in stage.blocks]
    assert first.strides == step
    assert all(conv.strides == 1 for conv in others)
    for block in stage.blocks:
      for layer in (block.conv1, block.conv2):
        assert layer.conv.kernel_dilation == dilation


def test_logits_are_the_scores_between_pixels():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype(np.float32)
  found = np.asarray(upsampled(jnp.asarray(x), (9, 8)))
  place = [
    np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    for n, m in ((3, 9), (4, 8))
  ]
  down = np.stack(
    [
      [np.interp(place[0], np.arange(3), column) for column in image[..., 0].T]
      for image in x
    ]
  )
  want = np.stack(
    [
      [np.interp(place[1], np.arange(4), row) for row in image.T]
      for image in down
    ]
  )
  np.testing.assert_allclose(found[..., 0], want, atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    (
      'segmenter',
      {'width': 2, 'sizes': (1, 1), 'pyramid': 3, 'bins': (1, 2),
       'dropout': 0.5, 'auxiliary': True},
    ),
    ('unet', {'width': 2, 'depth': 2}),
  ],
)  # fmt: skip
def test_nets_train_in_half_precision(name, options):
  net = models.build(name, dtype='bfloat16', **SMALL, **options)
  variables = jax.eval_shape(net.init, KEY)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: jnp.asarray(draw.uniform(0.05, 0.1, x.shape), x.dtype), variables
  )
  images = draw.normal(size=(2, *SMALL['input_shape'])).astype(np.float32)

  @jax.jit
  def gradients(params):
    def loss(params):
      outputs, state = net.apply(
        {**variables, 'params': params}, images, key=KEY, train=True
      )
      return sum(jnp.square(x - 1).sum() for x in outputs.values()), (
        outputs,
        state,
      )

    return jax.grad(loss, has_aux=True)(params)

  found, (outputs, state) = gradients(variables['params'])
  chex.assert_tree_all_finite((found, outputs, state))
  chex.assert_type(jax.tree.leaves((outputs, state)), jnp.float32)
  assert outputs['logits'].shape == (2, 20, 24, 5)
  assert all((x != 0).any() for x in jax.tree.leaves(found['head']))


def test_a_unet_halves_and_brings_back_any_size():
  taps = ('encoder/*', 'decoder/*', 'features')
  found = shapes('unet', taps, width=3, depth=3)
  sides = [(20, 24), (10, 12), (5, 6), (2, 3)]
  for i, size in enumerate(sides):
    assert found[f'encoder/{i}'] == (2, *size, 3 * 2**i)
  for i, size in enumerate(sides[2::-1]):
    assert found[f'decoder/{i}'] == (2, *size, 3 * 2 ** (2 - i))
  assert found['features'] == (2, 20, 24, 3)
  assert found['logits'] == (2, 20, 24, 5)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('segmenter', {'block': 'base'}, "no block 'base'; did you mean 'basic'"),
    ('segmenter', {'stem': 'deap'}, "did you mean 'deep'"),
    ('segmenter', {'stride': 16}, 'stride=16 cannot .*; use one of 2, 4, 8'),
    ('segmenter', {'stride': 2, 'stem': 'deep'}, 'use one of 4, 8, 16'),
    ('segmenter', {'bins': (1, 6)}, '20 by 24 pixels do not fill 6 bins'),
    (
      'segmenter',
      {'sizes': (1,), 'stride': 2, 'auxiliary': True},
      'auxiliary=True needs two stages',
    ),
    ('segmenter', {'input_shape': (64,)}, 'images of shape'),
    ('segmenter', {'sizes': (1, 0)}, r'sizes=\(1, 0\) should be one number or'),
    ('segmenter', {'bins': ()}, r'bins=\(\) should be one number or more'),
    ('unet', {'depth': 5}, 'cannot be halved depth=5 times'),
    ('unet', {'depth': 0}, 'kw.depth: 0 should be a whole number above 0'),
  ],
)
def test_mistakes_are_one_clear_sentence(name, options, message):
  with pytest.raises(UserError, match=message):
    shapes(name, **options)
