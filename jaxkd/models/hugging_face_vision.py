"""Folders of Hugging Face with nets for images: which net, shown what.

``config.json`` says what is computed: a ``ViTForImageClassification`` is a
`jaxkd.models.vit`, a ``ResNetForImageClassification`` a
`jaxkd.models.resnet_imagenet`, and so are the plain ones of timm. What would be
computed in another way than here is refused. ``preprocessor_config.json``, or
``config.json`` in folders of timm, says how inputs are made, here as a view.

Their weights are placed by the names that the families know, see
`jaxkd.models.pytorch`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxkd.errors import UserError
from jaxkd.models import hugging_face
from jaxkd.models.hugging_face import CONFIG

PREPROCESSOR = 'preprocessor_config.json'
_BILINEAR, _RESAMPLINGS = 2, ('nearest', 'lanczos', 'bilinear', 'bicubic')
# The widths and heads of timm's names; the rest of a ViT is that of `vit.BASE`.
_SIZES = {
  'tiny': {'width': 192, 'depth': 12, 'heads': 3},
  'small': {'width': 384, 'depth': 12, 'heads': 6},
  'base': {'width': 768, 'depth': 12, 'heads': 12},
  'large': {'width': 1024, 'depth': 24, 'heads': 16},
}
_TIMM_VIT = re.compile(r'vit_(tiny|small|base|large)_patch(\d+)_\d+')
_TIMM_RESNET = re.compile(r'resnet(18|34|50|101|152)')


class View(NamedTuple):
  """What a net is to be shown.

  Attributes:
    text: the view, as in a config.
    notes: what it cannot say, as the ends of sentences about the net.
  """

  text: str
  notes: tuple[str, ...] = ()


def family(path: Path) -> str:
  """The family of the net for images in a folder; empty for another net.

  Raises:
    UserError: there is no config.json, or a net of timm that is not ours.
  """
  config = hugging_face.read_config(path)
  found = _find(config)
  if not found and 'pretrained_cfg' in config:
    raise UserError(
      f'{path / CONFIG}: the architecture {config.get("architecture")} of timm '
      'is not computed here; take a vit_*_patch*_* or a resnet18 to resnet152, '
      'or let a function give the net, torch:package.module:function'
    )
  return found[0] if found else ''


def options(path: Path) -> dict[str, Any]:
  """The options of the net's family that a folder fixes.

  Raises:
    UserError: there is no config.json, or what it says is not computed here.
  """
  config = hugging_face.read_config(path)
  return _find(config)[1](config, path / CONFIG)


def classes(path: Path) -> tuple[str, ...]:
  """The names of the classes; numbers where the folder names none."""
  config = hugging_face.read_config(path)
  count = config.get('num_classes') or config.get('num_labels') or 2
  named = config.get('id2label') or {str(i): f'LABEL_{i}' for i in range(count)}
  names = config.get('label_names') or [
    named.get(str(i), named.get(i, f'LABEL_{i}')) for i in range(len(named))
  ]
  if all(name == f'LABEL_{i}' for i, name in enumerate(names)):
    return tuple(map(str, range(len(names))))
  return tuple(map(str, names))


def kind(path: Path) -> str:
  """What its logits are, see `jaxkd.tasks`; empty where it does not say."""
  return _KINDS.get(hugging_face.read_config(path).get('problem_type'), '')


def check(path: Path, shape: Sequence[int], count: int) -> None:
  """Refuses images, or numbers of classes, that are not those of the folder.

  Args:
    path: the folder.
    shape: of an image as the net is shown it, (H, W, C).
    count: how many logits are wanted.

  Raises:
    UserError: others are wanted.
  """
  config, names = hugging_face.read_config(path), classes(path)
  if len(names) != count:
    raise UserError(
      f'{path}: it tells {len(names)} classes apart, and {count} are wanted; '
      f'set classes={len(names)} beside restore for a teacher of other classes '
      'than those of the data, or take another model'
    )
  channels = _channels(config)
  if shape[-1] != channels:
    raise UserError(
      f'{path}: it takes images of {channels} channels, and is shown '
      f'{tuple(shape)}; give it such images'
    )
  size = _image_size(config, path / CONFIG)
  if size and tuple(shape[:2]) != size:
    remedy = f'write resize({size[0]}) into both of its views'
    if size[0] != size[1]:  # which no view makes
      remedy = 'give it such images'
    raise UserError(
      f'{path}: it takes images of {size[0]} × {size[1]}, of which it has the '
      f'positions of patches, and is shown {shape[0]} × {shape[1]}; {remedy}'
    )


def view(path: Path) -> View:
  """What the folder's net was shown in evaluation.

  Images come as numbers from 0 to 1 and are resized to squares.
  """
  config = hugging_face.read_config(path)
  if 'architecture' in config:
    return _timm_view(config.get('pretrained_cfg') or {})
  if not (path / PREPROCESSOR).is_file():
    return View(
      '', (f'has no {PREPROCESSOR} that says how its inputs were standardised',)
    )
  given, ops, notes = hugging_face.read_json(path / PREPROCESSOR), [], []
  size = given.get('size') if given.get('do_resize', True) else None
  if isinstance(size, Mapping):
    height, width = size.get('height'), size.get('width')
    edge = size.get('shortest_edge')
    if height != width:
      notes.append(f'was shown images of {height} × {width}')
    size = edge or (height if height == width else None)
    crop = given.get('crop_pct')
    if edge and crop and edge < 384:  # as transformers' ConvNext resizes
      ops += [f'resize({int(edge / crop)})', f'centre({edge})']
      size = None
  if size:
    ops.append(f'resize({size})')
  if given.get('do_center_crop'):
    crop = given.get('crop_size', size)
    crop = crop.get('height') if isinstance(crop, Mapping) else crop
    ops.append(f'centre({crop})')
  number = given.get('resample', _BILINEAR)
  if ops and number != _BILINEAR:
    known = isinstance(number, int) and 0 <= number < len(_RESAMPLINGS)
    notes.append(_resized(_RESAMPLINGS[number] if known else str(number)))
  # Values there are raw ones times a factor, and here raw ones over 255.
  factor = given.get('rescale_factor', 1 / 255)
  scale = 255 * factor if given.get('do_rescale', True) else 255.0
  mean, std = [0.0], [1.0]
  if given.get('do_normalize', True):
    mean, std = given.get('image_mean', mean), given.get('image_std', std)
  return View('|'.join([*ops, *_standardize(mean, std, scale)]), tuple(notes))


def _timm_view(given: Mapping[str, Any]) -> View:
  ops, notes = [], []
  if size := given.get('input_size'):
    whole = math.floor(size[-1] / given.get('crop_pct', 0.875))
    ops += [f'resize({whole})'] + [f'centre({size[-1]})'] * (whole != size[-1])
  if (how := given.get('interpolation', 'bilinear')) != 'bilinear':
    notes.append(_resized(how))
  mean, std = given.get('mean', [0.0]), given.get('std', [1.0])
  return View('|'.join([*ops, *_standardize(mean, std, 1)]), tuple(notes))


def _resized(how: str) -> str:
  return f'was shown images that were resized in another way ({how}) than here'


def _standardize(mean: Any, std: Any, scale: float) -> list[str]:
  """The op of a view for values that were multiplied by ``scale`` first."""
  mean, std = (
    [round(float(value) / scale, 8) for value in each]
    if isinstance(each, Sequence)
    else [round(float(each) / scale, 8)]
    for each in (mean, std)
  )
  if not any(mean) and set(std) == {1.0}:
    return []
  mean, std = (
    each[0] if len(each) == 1 else tuple(each) for each in (mean, std)
  )
  return [f'standardize({mean}, {std})']


def _find(config: Mapping[str, Any]) -> tuple[str, Callable] | None:
  """The family of a config's net, and what reads its options."""
  names = config.get('architectures') or ()
  name = names[0] if names else config.get('architecture', '')
  if name in _ARCHITECTURES:
    return _ARCHITECTURES[name]
  if 'architecture' not in config:
    return None
  if _TIMM_RESNET.fullmatch(name):
    return 'resnet_imagenet', _timm_resnet
  return ('vit', _timm_vit) if _TIMM_VIT.fullmatch(name) else None


def _vit(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
  numbers = {
    'hidden_size': 'width',
    'num_hidden_layers': 'depth',
    'num_attention_heads': 'heads',
    'patch_size': 'patch',
    'intermediate_size': 'hidden',
  }
  _whole_numbers(config, numbers, file)
  _sides(config, file)
  _neutral(
    config,
    {'hidden_act': 'gelu', 'qkv_bias': True},
    file,
  )
  found = {ours: config[theirs] for theirs, ours in numbers.items()}
  hidden = found.pop('hidden')
  ratio = hidden / found['width']
  if int(ratio * found['width']) != hidden:  # rounded down
    ratio = math.nextafter(ratio, math.inf)
  return {
    **found,
    'mlp_ratio': ratio,
    'pool': 'token',
    'norm_eps': float(config.get('layer_norm_eps', 1e-12)),
  }


def _resnet(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
  _neutral(
    config,
    {
      'hidden_act': 'relu',
      'downsample_in_first_stage': False,
      'downsample_in_bottleneck': False,
    },
    file,
  )
  block, width = (
    config.get('layer_type', 'bottleneck'),
    config['embedding_size'],
  )
  sizes, widths = config['depths'], list(config['hidden_sizes'])
  first = width * (4 if block == 'bottleneck' else 1)
  if widths != [first * 2**i for i in range(len(sizes))]:
    raise UserError(
      f'{file}: hidden_sizes is {widths}, which is not computed here; take a '
      f'model whose widths double with each stage, from {first} on where '
      f'embedding_size is {width}'
    )
  return {
    'block': block, 'sizes': tuple(sizes), 'width': width, 'stem': 'imagenet'
  }  # fmt: skip


def _timm_vit(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
  _timm_neutral(config, {'global_pool': 'token'}, file)
  size, patch = _TIMM_VIT.fullmatch(config['architecture']).groups()
  return {
    'patch': int(patch), **_SIZES[size], 'mlp_ratio': 4.0, 'pool': 'token',
    'norm_eps': 1e-6,
  }  # fmt: skip


def _timm_resnet(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
  from jaxkd.models import resnet_imagenet  # where it is needed: a family

  _timm_neutral(config, {'global_pool': 'avg'}, file)
  return dict(resnet_imagenet.NAMED[config['architecture']])


def _timm_neutral(
  config: Mapping[str, Any], neutral: Mapping[str, Any], file: Path
) -> None:
  """Refuses a net of timm that was changed from what its name means."""
  _neutral(config, neutral, file)
  plain = {'img_size', 'num_classes', 'in_chans', 'global_pool'}
  for name in (config.get('model_args') or {}).keys() - plain:
    raise UserError(
      f'{file}: model_args has {name}, which is not read here; take a model as '
      'its name says, or name one of jaxkd with those options and restore '
      'pytorch:FILE'
    )


def _neutral(
  config: Mapping[str, Any], neutral: Mapping[str, Any], file: Path
) -> None:
  """Refuses entries that change what is computed."""
  for entry, value in neutral.items():
    if config.get(entry, value) != value:
      raise UserError(
        f'{file}: {entry} is {config[entry]!r}, which is not computed here; '
        f'take a model in which it is {value!r}'
      )


def _whole_numbers(
  config: Mapping[str, Any], entries: Iterable[str], file: Path
) -> None:
  for entry in entries:
    if not isinstance(config.get(entry), int):
      raise _no_whole_number(entry, file)


def _channels(config: Mapping[str, Any]) -> int:
  if size := (config.get('pretrained_cfg') or {}).get('input_size'):
    return size[0]
  return config.get('num_channels', 3)


def _image_size(
  config: Mapping[str, Any], file: Path
) -> tuple[int, int] | None:
  """The height and width that a ViT has positions for."""
  if _find(config)[0] != 'vit':
    return None
  if size := (config.get('pretrained_cfg') or {}).get('input_size'):
    return size[1], size[2]
  return _sides(config, file)


def _sides(config: Mapping[str, Any], file: Path) -> tuple[int, int]:
  """The height and width in ``image_size``, a number or both."""
  match config.get('image_size'):
    case int(side):
      return side, side
    case [int(height), int(width)]:
      return height, width
  raise _no_whole_number('image_size', file)


def _no_whole_number(entry: str, file: Path) -> UserError:
  return UserError(
    f'{file}: {entry} is missing or no whole number; copy the file again '
    'from where the model comes from'
  )


_KINDS = {
  'single_label_classification': 'softmax',
  'multi_label_classification': 'sigmoids',
  'regression': 'values',
}
_ARCHITECTURES = {
  'ViTForImageClassification': ('vit', _vit),
  'ResNetForImageClassification': ('resnet_imagenet', _resnet),
}
