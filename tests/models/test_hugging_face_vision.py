"""Nets for images of transformers, timm and torchvision, and refusals.

What they compute was written by tools/vision_reference.py, see there.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import hugging_face, pytorch
from jaxkd.models import hugging_face_vision as vision
from jaxkd.run import checks, config

ROOT = Path(__file__).parents[2]
TOOL = config.beside(ROOT / 'tools' / 'vision_reference.py')
LINES = Path(__file__).with_name('vision_reference.jsonl').read_text()
NETS = [json.loads(line) for line in LINES.splitlines()]
SHAPE = (TOOL.SIDE, TOOL.SIDE, 3)
FOLDERS = [net for net in NETS if 'config' in net]
VIT = FOLDERS[0]


def build(name, kw=None):
  net = models.build(
    name, num_classes=TOOL.CLASSES, input_shape=SHAPE, **(kw or {})
  )
  return net, jax.eval_shape(net.init, jax.random.key(0))


def written(folder, given=VIT, **changes):
  """A folder with weights that are a closed formula."""
  folder.mkdir(exist_ok=True)
  entries = {**given['config'], **changes}
  (folder / 'config.json').write_text(json.dumps(entries))
  tensors = TOOL.fill(given['tensors'])
  tensors['bn1.num_batches_tracked'] = np.array(7)  # as BatchNorm's are there
  save_file(tensors, folder / 'model.safetensors')
  return folder


def logits(net, variables):
  forward = jax.jit(
    lambda *args: net.apply(*args)[0]['logits'],
    compiler_options={'xla_backend_optimization_level': 0},  # compiles faster
  )
  return forward(variables, TOOL.images(TOOL.SIDE))


@pytest.mark.parametrize(
  'given',
  NETS,
  ids=lambda n: f'{n["library"]}-{n.get("model") or n["config"]["model_type"]}',
)
def test_gives_the_logits_of_the_original(given, tmp_path):
  if 'config' in given:
    name, folder = f'hf:{tmp_path / "net"}', written(tmp_path / 'net', given)
    net, like = build(name)
    vision.check(folder, SHAPE, TOOL.CLASSES)
    tensors = dict(hugging_face.tensors(folder))
    variables = pytorch.placed(tensors, name, like, folder)
  else:
    net, like = build(given['model'], given['kw'])
    file = tmp_path / 'x.safetensors'
    save_file(TOOL.fill(given['tensors']), file)
    variables = pytorch.load(file, given['model'], like)
  np.testing.assert_allclose(
    logits(net, variables), given['logits'], rtol=1e-4, atol=1e-6
  )


def test_names_within_transformers_5_are_read_too(tmp_path):
  folder = written(tmp_path / 'net')
  _, like = build(f'hf:{folder}')
  in_file = dict(hugging_face.tensors(folder))
  renamed = {}
  for name, x in in_file.items():
    for old, new in (
      ('encoder.layer.', 'layers.'),
      ('attention.attention.query', 'attention.q_proj'),
      ('attention.attention.key', 'attention.k_proj'),
      ('attention.attention.value', 'attention.v_proj'),
      ('attention.output.dense', 'attention.o_proj'),
      ('intermediate.dense', 'mlp.fc1'),
      ('output.dense', 'mlp.fc2'),
    ):
      name = name.replace(old, new)
    renamed[f'module.{name}'] = x
  assert 'module.vit.layers.1.attention.q_proj.bias' in renamed
  a, b = (pytorch.placed(x, 'vit', like, folder) for x in (in_file, renamed))
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_part_of_a_map_that_is_missing_is_refused(tmp_path):
  folder = written(tmp_path / 'net')
  _, like = build(f'hf:{folder}')
  tensors = dict(hugging_face.tensors(folder))
  del tensors['vit.encoder.layer.1.attention.attention.key.weight']
  message = (
    r'query.weight \[8, 8\] and .*value.weight \[8, 8\] would be '
    r'params/blocks/1/attention/project_in/kernel \[8, 16\].*has \[8, 24\]'
  )
  with pytest.raises(UserError, match=message):
    pytorch.placed(tensors, 'vit', like, folder)


def test_queries_keys_and_values_of_torch_nn_are_wrapped_in_any_way(tmp_path):
  given = NETS[0]
  _, like = build(given['model'], given['kw'])
  state = TOOL.fill(given['tensors'])
  assert 'class_token' in state
  wrapped = {f'module.model.{name}': x for name, x in state.items()}
  a, b = (pytorch.placed(x, 'vit', like, tmp_path) for x in (state, wrapped))
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'architectures': ['ViTModel']}, r'no architecture .ViTModel.*ResNetForI'),
    ({'hidden_act': 'quick_gelu'}, r"hidden_act is 'quick_gelu', which is not"),
    ({'qkv_bias': False}, 'qkv_bias is False, which is not computed here'),
    ({'patch_size': None}, 'patch_size is missing or no whole number'),
    ({'intermediate_size': 13}, r'would be params/blocks/0/mlp/linear1'),
    ({'num_hidden_layers': 3}, 'no tensor there gives params/blocks/2/'),
    ({'image_size': 32}, r'images of 32 × 32, .*write resize\(32\) into both'),
    ({'num_channels': 1}, 'images of 1 channels, and is shown'),
    (
      {'id2label': {str(i): str(i) for i in range(9)}},
      'it tells 9 classes apart, and 4 are wanted; set classes=9',
    ),
  ],
)
def test_refuses_what_a_vit_is_not_here(changes, message, tmp_path):
  folder = written(tmp_path / 'net', **changes)

  def restore():
    _, like = build(f'hf:{folder}')
    vision.check(folder, SHAPE, TOOL.CLASSES)
    pytorch.placed(dict(hugging_face.tensors(folder)), 'vit', like, folder)

  with pytest.raises(UserError, match=message):
    restore()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'hidden_act': 'gelu'}, "hidden_act is 'gelu'"),
    ({'downsample_in_bottleneck': True}, 'downsample_in_bottleneck is True'),
    ({'hidden_sizes': [32, 48]}, r'hidden_sizes is \[32, 48\]'),
  ],
)
def test_refuses_what_a_resnet_is_not_here(changes, message, tmp_path):
  folder = written(tmp_path / 'net', FOLDERS[1], **changes)
  with pytest.raises(UserError, match=message):
    build(f'hf:{folder}')


def test_an_option_that_the_folder_fixes_is_refused(tmp_path):
  folder = written(tmp_path / 'net')
  with pytest.raises(UserError, match='means width=8; drop the option'):
    build(f'hf:{folder}', {'width': 16})


def test_a_folder_of_another_family_or_without_its_prefix_is_refused(tmp_path):
  folder = written(tmp_path / 'net')

  def check(restore, model):
    size = dict(shape=SHAPE, num_classes=TOOL.CLASSES, size=60)
    given = dict(
      data=dict(source='synthetic', kw=size),
      teachers=dict(main=dict(restore=restore, model=model)),
      students=dict(student=dict(model='mlp')),
      distill=dict(soft=dict(loss='kl', teacher='main')),
      report=dict(compare=dict(better='student', than='student')),
    )
    checks.prepare(config.plain(config.complete(given)), tmp_path)

  with pytest.raises(
    UserError, match=r"^teachers.main.model: mlp .* than the vit in 'hf:"
  ):
    check(f'hf:{folder}', 'mlp')
  with pytest.raises(UserError, match=r"^teachers.main.restore: .*write 'hf:"):
    check(str(folder), 'vit')


@pytest.mark.parametrize(('hidden', 'width'), [(12, 8), (37, 29), (3, 7)])
def test_the_width_of_a_vits_mlp_is_the_folders(hidden, width, tmp_path):
  folder = written(
    tmp_path / 'net', intermediate_size=hidden, hidden_size=width
  )
  assert int(vision.options(folder)['mlp_ratio'] * width) == hidden


def timm(name, **changes):
  return {
    'architecture': name,
    'num_classes': TOOL.CLASSES,
    'global_pool': 'token' if name.startswith('vit') else 'avg',
    'pretrained_cfg': {
      'input_size': [3, 224, 224],
      'interpolation': 'bicubic',
      'crop_pct': 0.875,
      'mean': [0.5, 0.4, 0.3],
      'std': [0.25, 0.25, 0.25],
    },
    **changes,
  }


def test_folders_of_timm_are_what_their_names_say(tmp_path):
  def options(**entries):
    (tmp_path / 'config.json').write_text(json.dumps(entries))
    return models.explicit(f'hf:{tmp_path}', {})

  family, kw = options(**timm('vit_small_patch16_224'))
  assert family == 'vit'
  own = {**kw, 'norm_eps': 1e-6}
  assert own == {**models.resolve('vit_s_16')[1], 'norm_eps': 1e-6}
  family, kw = options(**timm('resnet50'))
  assert (family, kw) == ('resnet_imagenet', models.resolve('resnet50')[1])
  assert vision.view(tmp_path) == (
    'resize(256)|centre(224)|standardize((0.5, 0.4, 0.3), (0.25, 0.25, 0.25))',
    ('was shown images that were resized in another way (bicubic) than here',),
  )
  with pytest.raises(UserError, match='the architecture resnet50d of timm'):
    options(**timm('resnet50d'))
  with pytest.raises(UserError, match='model_args has act_layer'):
    options(**timm('resnet50', model_args={'act_layer': 'gelu'}))
  with pytest.raises(UserError, match="global_pool is 'avg'"):
    options(**timm('vit_tiny_patch16_224', global_pool='avg'))


HALF = [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
  ('entries', 'text', 'notes'),
  [
    (None, '', 1),
    (
      {'size': {'height': 32, 'width': 32}, 'image_mean': HALF},
      'resize(32)|standardize((0.5, 0.5, 0.5), 1.0)',
      0,
    ),
    ({'size': 32, 'resample': 3, 'do_normalize': False}, 'resize(32)', 1),
    (
      {'size': {'shortest_edge': 224}, 'crop_pct': 0.875},
      'resize(256)|centre(224)',
      0,
    ),
    (
      {
        'size': {'shortest_edge': 36},
        'do_center_crop': True,
        'crop_size': {'height': 32, 'width': 32},
      },
      'resize(36)|centre(32)',
      0,
    ),
    ({'size': {'height': 32, 'width': 24}}, '', 1),
    (  # raw values over 127.5, less 1
      {'do_resize': False, 'rescale_factor': 2 / 255, 'image_mean': [1.0]},
      'standardize(0.5, 0.5)',
      0,
    ),
    (
      {'do_resize': False, 'do_rescale': False, 'image_std': [51.0]},
      'standardize(0.0, 0.2)',
      0,
    ),
  ],
)
def test_the_view_is_what_the_preprocessor_does(entries, text, notes, tmp_path):
  folder = written(tmp_path / 'net')
  if entries is not None:
    (folder / 'preprocessor_config.json').write_text(json.dumps(entries))
  found = vision.view(folder)
  assert found.text == text
  assert len(found.notes) == notes


def test_classes_are_the_labels_that_have_names(tmp_path):
  names = {'1': 'cat', '0': 'dog'}
  assert vision.classes(written(tmp_path / 'net', id2label=names)) == (
    'dog',
    'cat',
  )
  folder = written(tmp_path / 'net')
  assert vision.classes(folder) == ('0', '1', '2', '3')


@pytest.mark.parametrize(
  ('problem', 'wanted'),
  [
    ('single_label_classification', 'softmax'),
    ('multi_label_classification', 'sigmoids'),
    ('regression', 'values'),
    (None, ''),
  ],
)
def test_logits_are_what_the_net_was_trained_for(problem, wanted, tmp_path):
  assert vision.kind(written(tmp_path / 'net', problem_type=problem)) == wanted
