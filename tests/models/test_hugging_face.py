"""Folders of Hugging Face: what transformers computes, both ways, refusals.

What it computes was written by tools/decoder_reference.py, see there. With
``TORCH_PYTHON=PYTHON``, one that has PyTorch and transformers, nets with random
weights are compared too.
"""

import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import decoder, hugging_face
from jaxkd.paths import by_path
from jaxkd.run import config

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'decoder_reference.py'
REFERENCE = config.beside(TOOL)
LINES = Path(__file__).with_name('decoder_reference.jsonl').read_text()
STORED = {n['name']: n['logits'] for n in map(json.loads, LINES.splitlines())}
TOKENS = REFERENCE.TOKENS.astype(np.int32)
SHAPE = jax.ShapeDtypeStruct(TOKENS.shape[1:], jnp.int32)
VOCABULARY = REFERENCE.SMALL['vocab_size']


def build(folder, num_classes=VOCABULARY, **kw):
  """The net of a folder and the shapes of its variables."""
  net = models.build(
    f'hf:{folder}', num_classes=num_classes, input_shape=SHAPE, **kw
  )
  return net, jax.eval_shape(net.init, jax.random.key(0))


def logits(net, variables):
  forward = jax.jit(
    lambda *args: net.apply(*args)[0]['logits'],
    compiler_options={'xla_backend_optimization_level': 0},  # compiles faster
  )
  return forward(variables, TOKENS)


def written(folder, name='llama3'):
  """A folder with weights that are a closed formula."""
  folder.mkdir(exist_ok=True)
  text = json.dumps(REFERENCE.CONFIGS[name])
  (folder / 'config.json').write_text(text)
  params = by_path(build(folder)[1]['params'])
  names = hugging_face.tensor_names(params)
  shapes = {
    names[path]: x.shape[::-1] if path.endswith('kernel') else x.shape
    for path, x in params.items()
  }
  save_file(REFERENCE.fill(shapes), folder / 'model.safetensors')
  return folder


@pytest.fixture
def folder(tmp_path):
  return written(tmp_path / 'net')


@pytest.mark.parametrize('name', REFERENCE.CONFIGS)
def test_gives_the_logits_of_transformers(name, tmp_path):
  net, like = build(written(tmp_path, name))
  found = logits(net, hugging_face.load(tmp_path, like))[0]
  np.testing.assert_allclose(found, STORED[name], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
  ('name', 'dtype', 'shard'),
  [
    ('llama3', 'float32', 10**9),
    ('qwen2', 'bfloat16', 1000),
    ('gemma3', 'float32', 10**9),
    ('gemma3_scaled', 'float32', 10**9),
  ],
)
def test_what_is_written_is_what_is_read(name, dtype, shard, tmp_path):
  _, like = build(written(tmp_path / 'a', name))
  variables = hugging_face.load(tmp_path / 'a', like, dtype=dtype)
  _, kw = models.explicit(f'hf:{tmp_path / "a"}', {})
  kw = {**models.defaults('decoder'), **kw, 'pad': 4, 'eos': 5}
  hugging_face.write(
    tmp_path / 'b', kw, variables['params'], length=9, dtype=dtype, shard=shard
  )
  a, b = (json.loads((tmp_path / x / 'config.json').read_text()) for x in 'ab')
  assert a.items() <= {k: v for k, v in b.items() if k in a}.items()
  assert (b['pad_token_id'], b['eos_token_id']) == (4, 5)
  assert b['max_position_embeddings'] == 64  # not the length of our rows
  files = hugging_face.weight_files(tmp_path / 'b')
  assert len(files) == 1 or all(f.stat().st_size < 3 * shard for f in files)
  assert (len(files) > 1) == (shard < 10**6)
  again = hugging_face.load(tmp_path / 'b', like, dtype=dtype)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert {x.dtype.name for x in jax.tree.leaves(again)} == {dtype}
  with pytest.raises(UserError, match='exists already'):
    hugging_face.write(tmp_path / 'b', kw, variables['params'], length=9)


def test_padded_heads_are_cut_to_the_tokens_of_the_data(folder):
  net, like = build(folder, num_classes=10)
  found = logits(net, hugging_face.load(folder, like))
  np.testing.assert_allclose(
    found[0], np.array(STORED['llama3'])[:, :10], rtol=1e-5, atol=2e-5
  )
  with pytest.raises(UserError, match='the head has 13 rows, and there are 14'):
    build(folder, num_classes=14)


def changed(**entries):
  def change(folder):
    file = folder / 'config.json'
    held = {**json.loads(file.read_text()), **entries}
    file.write_text(json.dumps({k: v for k, v in held.items() if v != '-'}))

  return change


def cut_short(folder):
  file = folder / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:-4])


def tensors(change):
  def apply(folder):
    file = folder / 'model.safetensors'
    held = load_file(file)
    change(held)
    save_file(held, file)

  return apply


def indexed(folder):
  places = {'model.norm.weight': 'a.safetensors', 'x': 'model.safetensors'}
  text = json.dumps({'weight_map': places})
  (folder / 'model.safetensors.index.json').write_text(text)


def stale(folder):
  text = json.dumps({'weight_map': {'model.norm.weight': 'a.safetensors'}})
  (folder / 'model.safetensors.index.json').write_text(text)


def numbered(folder):
  text = json.dumps({'weight_map': {'model.norm.weight': 3}})
  (folder / 'model.safetensors.index.json').write_text(text)


def pickled(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


NORM = 'model.norm.weight'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda f: (f / 'config.json').unlink(), 'there is no config.json; name a'),
    (lambda f: (f / 'config.json').write_text('{'), 'config.json is not JSON'),
    (changed(architectures=['OPTForCausalLM']), 'no architecture .OPTForCau'),
    (changed(hidden_size='-'), 'hidden_size is missing or no whole number'),
    (changed(num_attention_heads=0), 'num_attention_heads is missing or no'),
    (changed(num_hidden_layers=True), 'num_hidden_layers is missing or no'),
    (changed(num_key_value_heads='2'), 'num_key_value_heads is missing or no'),
    (changed(rms_norm_eps='1e-6'), 'rms_norm_eps is missing or no number'),
    (changed(rope_scaling=['llama3']), 'rope_scaling is missing or no object'),
    (
      changed(rope_parameters={'rope_type': 'default', 'rope_theta': None}),
      'rope_theta is None, no number',
    ),
    (changed(hidden_act='gelu'), "hidden_act is 'gelu', which is not computed"),
    (changed(attention_bias=True), 'attention_bias is True'),
    (changed(quantization_config={}), 'quantization_config is {}'),
    (
      changed(layer_types=['sliding_attention']),
      'has sliding_attention, which',
    ),
    (changed(rope_scaling={'type': 'yarn'}), "no rope_type 'yarn'"),
    (
      changed(
        rope_scaling={'type': 'linear', 'factor': 2.0},
        rope_parameters={'rope_type': 'default', 'rope_theta': 1e4},
      ),
      'rope_parameters and rope_scaling differ, of which',
    ),
    (
      changed(rope_scaling={'factor': 8.0}),
      'the scaling of RoPE has factor and no rope_type; copy',
    ),
    (changed(tie_word_embeddings='no'), 'tie_word_embeddings is missing or no'),
    (changed(partial_rotary_factor=0.5), 'partial_rotary_factor is 0.5'),
    (
      changed(
        rope_parameters={'rope_type': 'default', 'partial_rotary_factor': 0.5}
      ),
      'partial_rotary_factor is not 1',
    ),
    (changed(num_hidden_layers=1), 'no place for the tensor model.layers.1.'),
    (changed(num_hidden_layers=3), 'no tensor model.layers.2.self_attn.k_proj'),
    (changed(intermediate_size=8), 'would be blocks/0/mlp/down/kernel, which'),
    (changed(max_position_embeddings=9), 'reads rows of 9 tokens, and those'),
    (cut_short, 'model.safetensors is damaged or cut short'),
    (indexed, 'a.safetensors of the 2 files that .* lists are missing'),
    (
      lambda f: (f / 'model.safetensors').unlink(),
      'there are no weights in .* or .*index.json; download',
    ),
    (numbered, 'index.json has no weight_map of names of files'),
    (stale, 'has both model.safetensors and model.safetensors.index.json, w'),
    (
      lambda f: (f / 'adapter_config.json').write_text('{}'),
      'adapter_config.json says that an adapter belongs to the weights',
    ),
    (pickled, 'no weights in .*, and pytorch_model.bin is a pickle'),
    (tensors(lambda t: t.pop(NORM)), 'no tensor model.norm.weight is there'),
    (
      tensors(lambda t: t.update({NORM: np.zeros(16, np.int8)})),
      'holds I8 in model.norm.weight, and quantised',
    ),
    (
      tensors(lambda t: t.update({NORM: np.zeros(16, jnp.float8_e4m3fn)})),
      'holds F8_E4M3 in model.norm.weight, and quantised',
    ),
  ],
)
def test_refuses_what_is_not_whole_or_not_computed(folder, change, message):
  change(folder)
  with pytest.raises(UserError, match=message):
    hugging_face.load(folder, build(folder)[1])


def test_weights_have_no_adapters(folder):
  _, like = build(folder, lora={'rank': 2})
  with pytest.raises(UserError, match=r'have no adapters; remove kw\.lora'):
    hugging_face.load(folder, like)


WINDOW = {'full_attention': {}, 'sliding_attention': {'rope_type': 'linear'}}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(final_logit_softcapping=30.0), 'final_logit_softcapping is 30.0'),
    (dict(attn_logit_softcapping=50.0), 'attn_logit_softcapping is 50.0'),
    (dict(use_bidirectional_attention=True), 'use_bidirectional_attention is'),
    (dict(hidden_activation='silu'), "hidden_activation is 'silu', which is"),
    (dict(sliding_window=None), 'sliding_window is None, not a number from 1'),
    (dict(query_pre_attn_scalar=0), 'query_pre_attn_scalar is 0, not a'),
    (dict(rope_parameters=WINDOW), 'rope_parameters scale sliding_attention'),
    (dict(rope_parameters={'rope_theta': 1e6}), 'should have an object for f'),
    (dict(rope_parameters={'full_attention': 1}), 'should have an object for'),
    (dict(layer_types='full_attention'), 'layer_types is missing or no list'),
    (dict(architectures=3), "no architecture '3'"),
    (dict(layer_types=['full_attention']), 'layer_types should be .* all 3'),
    (
      dict(layer_types=['sliding_attention', *['full_attention'] * 2]),
      'layer_types should be sliding_attention for all 3 layers but each n-th',
    ),
  ],
)
def test_refuses_a_gemma_that_is_not_computed(change, message, tmp_path):
  text = json.dumps({**REFERENCE.CONFIGS['gemma3'], **change})
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(UserError, match=message):
    hugging_face.options(tmp_path)


def test_gemma_takes_what_its_config_leaves_out(tmp_path):
  """As that of the published 4B does."""
  text = {'hidden_size': 2560, 'intermediate_size': 10240}
  text |= {'num_hidden_layers': 34, 'sliding_window': 1024}
  text |= {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}
  name = hugging_face.GEMMA3_IMAGES
  config = {'architectures': [name], 'text_config': text}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  found = hugging_face.options(tmp_path)
  assert found['vocabulary'] == 262_208
  for option, value in decoder.NAMED['gemma3_4b'].items():
    assert found[option] == value, option
  assert found['query_scalar'] == found['head_width'] == 256
  assert (found['window_period'], found['window_theta']) == (6, 1e4)


@pytest.mark.parametrize(
  'renamed',
  [
    lambda name: f'language_model.{name}',
    lambda name: name.replace('model.', 'model.language_model.', 1),
  ],
)
def test_reads_the_language_model_of_a_gemma_with_images(renamed, tmp_path):
  _, like = build(written(tmp_path, 'gemma3_scaled'))
  wanted = hugging_face.load(tmp_path, like)
  config = {'architectures': [hugging_face.GEMMA3_IMAGES]}
  config['text_config'] = REFERENCE.CONFIGS['gemma3_scaled']
  (tmp_path / 'config.json').write_text(json.dumps(config))

  def change(held):
    for name in list(held):
      held[renamed(name)] = held.pop(name)
    held['vision_tower.x.weight'] = np.zeros(2, np.float32)
    held['model.multi_modal_projector.x.weight'] = np.zeros(2, np.float32)

  tensors(change)(tmp_path)
  _, like = build(tmp_path)
  found = hugging_face.load(tmp_path, like)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_an_option_that_the_folder_fixes_is_refused(folder):
  with pytest.raises(UserError, match='means width=16; drop the option'):
    build(folder, width=32)
  build(folder, dropout=0.1)


def test_a_tied_head_that_is_written_too_is_the_embedding(folder):
  embedding = load_file(folder / 'model.safetensors')[hugging_face._EMBEDDING]
  tensors(lambda t: t.update({'lm_head.weight': embedding}))(folder)
  hugging_face.load(folder, build(folder)[1])
  tensors(lambda t: t.update({'lm_head.weight': embedding + 1}))(folder)
  with pytest.raises(UserError, match=r'lm_head.* differs from'):
    hugging_face.load(folder, build(folder)[1])


@pytest.mark.skipif(
  'TORCH_PYTHON' not in os.environ, reason='TORCH_PYTHON names no Python'
)
def test_transformers_computes_the_same_both_ways(tmp_path):
  def run(mode, folder):
    command = [os.environ['TORCH_PYTHON'], TOOL, mode, folder]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((folder / 'logits.json').read_text())
    assert found.keys() == REFERENCE.CONFIGS.keys()
    return found

  theirs, ours = tmp_path / 'theirs', tmp_path / 'ours'
  theirs.mkdir()
  ours.mkdir()
  wanted, computed = run('make', theirs), {}
  for name in REFERENCE.CONFIGS:
    net, like = build(theirs / name)
    variables = hugging_face.load(theirs / name, like)
    computed[name] = logits(net, variables)[0]
    _, kw = models.explicit(f'hf:{theirs / name}', {})
    kw = {**models.defaults('decoder'), **kw}
    hugging_face.write(ours / name, kw, variables['params'], length=24)
  read = run('read', ours)
  for name, found in computed.items():
    spread = np.abs(wanted[name]).max()
    for other in (wanted, read):
      np.testing.assert_allclose(found, other[name], atol=1e-5 * spread)
