"""Classifiers of images as folders of Hugging Face: ViT and ResNet.

These are the two families here that compute what one of transformers does:
``vit`` with a class token, and ``resnet_imagenet`` with the stem for large
images. Tensors have the names that all versions of transformers know. What is
written here, `jaxkd.models.hugging_face_vision` reads.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.data import views
from jaxkd.errors import UserError
from jaxkd.paths import by_path

FAMILIES = ('vit', 'resnet_imagenet')

_VIT = {
  'params/token': 'vit.embeddings.cls_token',
  'params/position': 'vit.embeddings.position_embeddings',
  'params/patches/conv': 'vit.embeddings.patch_embeddings.projection',
  'params/norm': 'vit.layernorm',
  'params/head': 'classifier',
}
_IN_LAYER = {
  'norm1': 'layernorm_before',
  'attention/project_out': 'attention.output.dense',
  'norm2': 'layernorm_after',
  'mlp/linear1': 'intermediate.dense',
  'mlp/linear2': 'output.dense',
}
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
_LEAVES |= {'mean': 'running_mean', 'var': 'running_var'}
_KIND = {'conv': 'convolution', 'norm': 'normalization'}


def config_of(
  family: str,
  kw: Mapping[str, Any],
  shape: Sequence[int],
  classes: Sequence[str],
  *,
  at: str,
) -> dict[str, Any]:
  """What ``config.json`` says of a classifier.

  Args:
    family: one of `FAMILIES`.
    kw: all options of the model.
    shape: of the images that it sees, (H, W, C).
    classes: the names of its classes.
    at: what is exported, for errors.

  Raises:
    UserError: options that transformers does not have.
  """
  height, width, channels = shape
  found = {
    'num_channels': channels,
    'id2label': dict(enumerate(classes)),
    'label2id': {name: i for i, name in enumerate(classes)},
    'torch_dtype': 'float32',
  }
  if family == 'vit':
    if kw['pool'] != 'token':
      raise UserError(
        f'{at}: it has pool={kw["pool"]!r}, and a ViT of transformers '
        "classifies its class token, pool='token'; export it with --to onnx"
      )
    return found | {
      'architectures': ['ViTForImageClassification'],
      'model_type': 'vit',
      'image_size': height if height == width else [height, width],
      'patch_size': kw['patch'],
      'hidden_size': kw['width'],
      'num_hidden_layers': kw['depth'],
      'num_attention_heads': kw['heads'],
      'intermediate_size': int(kw['mlp_ratio'] * kw['width']),
      'hidden_act': 'gelu',
      'layer_norm_eps': kw['norm_eps'],
      'qkv_bias': True,
    }
  if kw['stem'] != 'imagenet':
    raise UserError(
      f'{at}: it has stem={kw["stem"]!r}, and a ResNet of transformers has the '
      "one for large images, stem='imagenet'; export it with --to onnx"
    )
  wider = 4 if kw['block'] == 'bottleneck' else 1
  return found | {
    'architectures': ['ResNetForImageClassification'],
    'model_type': 'resnet',
    'embedding_size': kw['width'],
    'hidden_sizes': [
      wider * kw['width'] * 2**i for i in range(len(kw['sizes']))
    ],
    'depths': list(kw['sizes']),
    'layer_type': kw['block'],
    'hidden_act': 'relu',
    'downsample_in_first_stage': False,
    'downsample_in_bottleneck': False,
  }


def preprocessor_of(
  view: str, shape: Sequence[int], *, at: str
) -> dict[str, Any]:
  """What ``preprocessor_config.json`` says: images of bytes to what it sees.

  Args:
    view: of evaluation, as a text.
    shape: of the images, (H, W, C).
    at: what is exported, for errors.

  Raises:
    UserError: a view that does more than to standardise.
  """
  ops = views.parse(view, stored=True).ops
  if len(ops) > 1 or any(op.name != 'standardize' for op in ops):
    raise UserError(
      f'{at}: its view of evaluation is {view!r}, and such a folder can say '
      'standardize alone; export it with --to onnx, which has the view within'
    )
  height, width, channels = shape
  found = {
    'image_processor_type': 'ViTImageProcessor',
    'do_resize': True,
    'size': {'height': height, 'width': width},
    'resample': 2,  # bilinear
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': bool(ops),
  }
  for op in ops:
    for name in ('mean', 'std'):
      value = op.apply.keywords[name]
      values = value if isinstance(value, tuple) else (value,)
      each = values * (channels // len(values))
      found[f'image_{name}'] = [float(x) for x in each]
  return found


def tensors_of(
  family: str, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The tensors of a classifier by their names there, in PyTorch's layout."""
  name_of: Callable = _vit if family == 'vit' else _resnet
  found = {}
  for path, value in by_path(variables).items():
    value = np.asarray(value, np.float32)
    if '/project_in/' in path:
      # Queries, keys and values of all heads, side by side in the last axis.
      layer = _number(path)
      leaf = _LEAVES[path.rpartition('/')[2]]
      names = ('query', 'key', 'value')
      for name, part in zip(names, np.split(value, 3, -1), strict=True):
        target = f'vit.encoder.layer.{layer}.attention.attention.{name}.{leaf}'
        found[target] = part.T
    elif value.ndim == 4:
      found[name_of(path)] = value.transpose(3, 2, 0, 1)
    else:
      is_kernel = path.endswith('kernel')
      found[name_of(path)] = value.T if is_kernel else value
    if path.endswith('/var'):  # BatchNorm of PyTorch counts batches too
      target = name_of(path).replace('running_var', 'num_batches_tracked')
      found[target] = np.zeros((), np.int64)
  return {name: np.asarray(x, order='C') for name, x in found.items()}


def _vit(path: str) -> str:
  if path in _VIT:
    return _VIT[path]
  layer, _, leaf = path.rpartition('/')
  if layer.startswith('params/blocks/'):
    inner = layer.split('/', 3)[3]
    return (
      f'vit.encoder.layer.{_number(path)}.{_IN_LAYER[inner]}.' + (_LEAVES[leaf])
    )
  return f'{_VIT[layer]}.{_LEAVES[leaf]}'


def _resnet(path: str) -> str:
  _, *layers, leaf = path.split('/')
  match layers:
    case ['head']:
      where = 'classifier.1'
    case ['stem', kind]:
      where = f'resnet.embedder.embedder.{_KIND[kind]}'
    case ['stages', i, 'blocks', j, 'shortcut', kind]:
      where = f'resnet.encoder.stages.{i}.layers.{j}.shortcut.{_KIND[kind]}'
    case ['stages', i, 'blocks', j, conv, kind]:
      k = int(conv.removeprefix('conv')) - 1
      where = f'resnet.encoder.stages.{i}.layers.{j}.layer.{k}.{_KIND[kind]}'
  return f'{where}.{_LEAVES[leaf]}'


def _number(path: str) -> str:
  """The number of a block."""
  return re.search(r'blocks/(\d+)/', path)[1]
