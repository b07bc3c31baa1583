"""Classifiers as transformers has them: names, layouts, and what it lacks."""

import json

import jax
import numpy as np
import pytest

import jaxkd
from jaxkd import models
from jaxkd.data import inputs, views
from jaxkd.errors import UserError
from jaxkd.export import hf, hf_images
from jaxkd.models import hugging_face, pytorch
from jaxkd.models import hugging_face_vision as vision
from jaxkd.students import stored

SHAPE = (16, 16, 3)
VIT = dict(patch=8, width=8, depth=2, heads=2, pool='token')
VIEW = 'standardize(0.3, 0.2)'
RESNET = dict(block='bottleneck', sizes=(1, 1), width=4)


def tensors(family, **kw):
  net = models.build(family, num_classes=3, input_shape=SHAPE, **kw)
  variables = net.init(jax.random.key(0))
  return variables, hf_images.tensors_of(family, variables)


def config(family, **kw):
  kw = {**models.defaults(family), **kw}
  return hf_images.config_of(family, kw, SHAPE, 'abc', at='net')


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
  assert said['image_size'] == 16 and said['intermediate_size'] == 32
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
  said = hf_images.preprocessor_of(
    'standardize((0.1, 0.2, 0.3), 0.5)', SHAPE, at=''
  )
  assert said['image_mean'] == [0.1, 0.2, 0.3] and said['do_normalize']
  assert said['image_std'] == [0.5, 0.5, 0.5]
  assert said['size'] == {'height': 16, 'width': 16}
  assert not hf_images.preprocessor_of('', SHAPE, at='')['do_normalize']


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: config('vit', pool='mean'), "net: it has pool='mean'"),
    (lambda: config('resnet_imagenet', stem='cifar'), "has stem='cifar'"),
    (
      lambda: hf_images.preprocessor_of('resize(8)', SHAPE, at='net'),
      r"net: its view of evaluation is 'resize\(8\)'",
    ),
  ],
)
def test_what_transformers_lacks_is_refused(make, message):
  with pytest.raises(UserError, match=message):
    make()


def folder_of_a_run(directory, family, kw, shape, **more):
  """A folder as a run leaves it, of a net whose variables are all drawn."""
  net = models.build(family, num_classes=3, input_shape=shape, **kw)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(  # variances are above 0
    lambda x: draw.uniform(0.01, 0.1, (1, *x.shape)).astype(np.float32),
    jax.eval_shape(net.init, jax.random.key(0)),
  )
  images = inputs.Array(shape, 'float32', 0.0, 1.0)
  taken = inputs.unknown(shape)._replace(arrays=images)
  spec = dict(model=family, kw=kw, num_classes=3, classes=['a', 'b', 'c'])
  spec |= dict(inputs=inputs.as_json(taken), input_shape=list(shape))
  spec |= dict(dtype='float32', param_dtype='float32', members=1)
  spec |= dict(specialist=False, quantize='', logit_shift=False)
  stored.export(directory, variables, {**spec, 'view': VIEW, **more})
  return directory


@pytest.mark.parametrize(
  ('family', 'kw', 'shape'),
  [
    ('vit', {**VIT, 'mlp_ratio': 1.7, 'norm_eps': 1e-3}, SHAPE),
    ('vit', VIT, (16, 24, 1)),
    ('resnet_imagenet', RESNET, SHAPE),
  ],
)
def test_a_folder_is_read_as_it_was_written(
  family, kw, shape, tmp_path, monkeypatch
):
  monkeypatch.setattr(hf, 'TRANSFORMERS', ('no_such_package',))
  run = folder_of_a_run(tmp_path / 'net', family, kw, shape)
  out = jaxkd.export(run, f'hf:{tmp_path / "out"}')
  net, variables = jaxkd.load(run)
  again = models.build(f'hf:{out}', num_classes=3, input_shape=shape)
  vision.check(out, shape, 3)
  assert vision.classes(out) == ('a', 'b', 'c')
  like = jax.eval_shape(again.init, jax.random.key(0))
  tensors = dict(hugging_face.tensors(out))
  read = pytorch.placed(tensors, f'hf:{out}', like, out)
  jax.tree.map(np.testing.assert_array_equal, read, variables)
  view = vision.view(out).text
  assert ('resize(16)|' in view) == (shape[0] == shape[1])
  each = np.random.default_rng(1).uniform(size=(2, *shape)).astype(np.float32)
  seen = views.apply(
    views.parse(view), each, seed=0, epoch=np.zeros(2, int), id=np.arange(2)
  )
  np.testing.assert_allclose(
    again.apply(read, seen)[0]['logits'],
    net.apply(variables, each)[0]['logits'],
    rtol=1e-4,
  )


def test_what_logits_are_is_said_or_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(hf, 'TRANSFORMERS', ('no_such_package',))
  net = folder_of_a_run(tmp_path / 'a', 'vit', VIT, SHAPE, logits='sigmoids')
  out = jaxkd.export(net, f'hf:{tmp_path / "out"}')
  found = json.loads((out / 'config.json').read_text())
  assert found['problem_type'] == 'multi_label_classification'
  net = folder_of_a_run(tmp_path / 'b', 'vit', VIT, SHAPE, logits='values')
  with pytest.raises(UserError, match='it predicts standardised values'):
    jaxkd.export(net, f'hf:{tmp_path / "none"}')
  assert not (tmp_path / 'none').exists()
