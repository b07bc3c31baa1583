"""Classifiers as transformers has them: names, layouts, and what it lacks."""

import jax
import numpy as np
import pytest

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import hugging_face_images as images

SHAPE = (16, 16, 3)
VIT = dict(patch=8, width=8, depth=2, heads=2, pool='token')
RESNET = dict(block='bottleneck', sizes=(1, 1), width=4)


def tensors(family, **kw):
  net = models.build(family, num_classes=3, input_shape=SHAPE, **kw)
  variables = net.init(jax.random.key(0))
  return variables, images.tensors_of(family, variables)


def config(family, **kw):
  kw = {**models.defaults(family), **kw}
  return images.config_of(family, kw, SHAPE, 'abc', at='net')


def test_a_vit_has_the_tensors_of_transformers():
  variables, found = tensors('vit', **VIT)
  layer = 'vit.encoder.layer.1'
  inner = ('attention.attention.query', 'attention.attention.key')
  inner += ('attention.attention.value', 'attention.output.dense')
  inner += ('layernorm_before', 'layernorm_after')
  inner += ('intermediate.dense', 'output.dense')
  embeddings = 'vit.embeddings'
  layers = {f'vit.encoder.layer.{i}.{name}' for i in (0, 1) for name in inner}
  layers |= {'vit.layernorm', 'classifier'}
  layers |= {f'{embeddings}.patch_embeddings.projection'}
  assert found.keys() == {
    f'{embeddings}.cls_token',
    f'{embeddings}.position_embeddings',
    *(f'{name}.{leaf}' for name in layers for leaf in ('weight', 'bias')),
  }
  own = variables['params']['blocks']['1']['attention']['project_in']['kernel']
  key = found[f'{layer}.attention.attention.key.weight']
  np.testing.assert_array_equal(key, own[:, 8:16].T)
  projection = found[f'{embeddings}.patch_embeddings.projection.weight']
  kernel = variables['params']['patches']['conv']['kernel']
  assert projection.shape == (8, 3, 8, 8)
  np.testing.assert_array_equal(projection[1, 2, 3, 4], kernel[3, 4, 2, 1])
  said = config('vit', **VIT)
  assert said['image_size'] == [16, 16] and said['intermediate_size'] == 32
  assert said['label2id'] == {'a': 0, 'b': 1, 'c': 2}


def test_a_resnet_has_the_tensors_of_transformers():
  variables, found = tensors('resnet_imagenet', **RESNET)
  block = 'resnet.encoder.stages.1.layers.0'
  assert {
    'resnet.embedder.embedder.convolution.weight',
    'resnet.embedder.embedder.normalization.running_var',
    f'{block}.shortcut.convolution.weight',
    f'{block}.layer.2.normalization.bias',
    'classifier.1.weight',
  } <= found.keys()
  counts = [x for name, x in found.items() if name.endswith('batches_tracked')]
  assert len(counts) == 9 and {x.shape for x in counts} == {()}
  assert len(found) == 9 + len(jax.tree.leaves(variables))
  said = config('resnet_imagenet', **RESNET)
  assert said['hidden_sizes'] == [16, 32] and said['depths'] == [1, 1]


def test_standardize_is_the_processor_of_images():
  said = images.preprocessor_of(
    'standardize((0.1, 0.2, 0.3), 0.5)', SHAPE, at=''
  )
  assert said['image_mean'] == [0.1, 0.2, 0.3] and said['do_normalize']
  assert said['image_std'] == [0.5, 0.5, 0.5]
  assert said['size'] == {'height': 16, 'width': 16}
  assert not images.preprocessor_of('', SHAPE, at='')['do_normalize']


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: config('vit', pool='mean'), "net: it has pool='mean'"),
    (lambda: config('resnet_imagenet', stem='cifar'), "has stem='cifar'"),
    (
      lambda: images.preprocessor_of('resize(8)', SHAPE, at='net'),
      r"net: its view of evaluation is 'resize\(8\)'",
    ),
  ],
)
def test_what_transformers_lacks_is_refused(make, message):
  with pytest.raises(UserError, match=message):
    make()
