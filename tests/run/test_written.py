"""Texts of a teacher become those of students with another tokenizer."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxkd import models, shapes
from jaxkd.data import inputs, sources
from jaxkd.errors import UserError
from jaxkd.models import hugging_face
from jaxkd.paths import by_path
from jaxkd.run import config as configs
from jaxkd.run import written
from jaxkd.students import stored

pytest.importorskip('jaxkd.tasks.on_policy')
pytest.importorskip('jaxkd.data.text.vocabulary')
SIZES = dict(width=8, depth=1, heads=2, mlp_width=8, init=0.5)
KW = dict(tokens='bytes', length=16, packing='none')
TEXTS = ['ab ba', 'abba', 'a b a', 'bb aa', 'ba ab', 'ab ab a'] * 3


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Texts, and a net of their bytes that has learnt nothing."""
  place = tmp_path_factory.mktemp('written')
  lines = [json.dumps({'text': text}) for text in TEXTS]
  (place / 'texts.jsonl').write_text('\n'.join(lines))
  source = sources.load(f'text:{place}/texts.jsonl', **KW)
  net = models.build(
    'decoder',
    num_classes=source.num_classes,
    input_shape=source.input_shape,
    **SIZES,
  )
  variables = jax.jit(net.init)(jax.random.key(0))
  spec = {
    'model': 'decoder',
    'kw': SIZES,
    'num_classes': source.num_classes,
    'classes': list(source.classes),
    'inputs': inputs.as_json(inputs.of(source)),
    'input_shape': shapes.as_json(source.input_shape),
    'dtype': 'float32',
    'view': '',
    'members': 1,
  }
  stored.export(place / 'net', jax.tree.map(lambda x: x[None], variables), spec)
  return place


def data(folder, kw=(), **options):
  generated = dict(kw=dict(length=6, prompt=3) | options)
  given = dict(
    source=f'text:{folder}/texts.jsonl', kw=KW | dict(kw), generated=generated
  )
  return configs.plain(configs.complete(dict(data=given)))['data']


def test_what_is_written_is_read_as_text_again(folder):
  said = []
  path = written.write(
    data(folder), str(folder / 'net'), f'{folder}/out.jsonl', say=said.append
  )
  lines = [json.loads(x) for x in path.read_text().splitlines()]
  source = sources.load(f'text:{folder}/texts.jsonl', **KW)
  train = source.splits['train']
  assert 0 < len(lines) <= len(train)
  tokens = train.fetch(np.arange(len(train)))['inputs']
  prompts = {source.tokenizer.decode(row[:3]) for row in tokens}
  for line in lines:
    assert line['prompt'] in prompts
    assert line['completion'].strip()
  assert f'{len(lines)} texts in' in said[0]
  read = sources.load(
    f'text:{path}', format='completions', tokens='bytes', length=64,
    packing='none',
  )  # fmt: skip
  assert sum(len(split) for split in read.splits.values()) == len(lines)
  again = written.write(data(folder), str(folder / 'net'), f'{folder}/b.jsonl')
  assert again.read_text() == path.read_text()
  assert not [*folder.glob('*.draft')]


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """A folder of Hugging Face whose rows are filled up with its last token."""
  tokenizers = pytest.importorskip('tokenizers')
  place = tmp_path_factory.mktemp('published')
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  pieces = {piece: i for i, piece in enumerate(alphabet)}
  made = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, []))
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  made.decoder = tokenizers.decoders.ByteLevel()
  made.add_special_tokens(['<end>', '<pad>'])
  said = {'eos_token': '<end>', 'pad_token': '<pad>'}
  config = dict(
    architectures=['LlamaForCausalLM'], vocab_size=258, hidden_size=16,
    num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    tie_word_embeddings=True, hidden_act='silu',
  )  # fmt: skip
  (place / 'config.json').write_text(json.dumps(config))
  net = models.build(
    f'hf:{place}',
    num_classes=258,
    input_shape=jax.ShapeDtypeStruct((16,), np.int32),
    init=1.0,
  )
  params = by_path(jax.jit(net.init)(jax.random.key(0))['params'])
  names = hugging_face.tensor_names(params)
  tensors = {
    names[path]: np.ascontiguousarray(x.T if path.endswith('kernel') else x)
    for path, x in jax.device_get(params).items()
  }
  save_file(tensors, place / 'model.safetensors')
  made.save(str(place / 'tokenizer.json'))
  (place / 'tokenizer_config.json').write_text(json.dumps(said))
  return place


def test_it_goes_on_where_a_prompt_ends_whatever_fills_it_up(folder, published):
  kw = dict(tokens=f'tokenizer:{published}')
  path = written.write(
    data(folder, kw, temperature=0.0), f'hf:{published}', f'{folder}/c.jsonl'
  )
  source = sources.load(f'text:{folder}/texts.jsonl', **KW | kw)
  special = source.tokenizer.special
  assert special.pad == 257
  net = models.build(
    f'hf:{published}', num_classes=258, input_shape=source.input_shape
  )
  like = jax.eval_shape(net.init, jax.random.key(0))
  variables = hugging_face.load(published, like)
  apply = jax.jit(lambda x: net.apply(variables, x)[0]['logits'])
  rows = source.splits['train'].fetch(np.arange(len(source.splits['train'])))
  wanted = set()
  for row in rows['inputs']:
    tokens = np.full((1, 16), special.pad)
    tokens[0, :3] = row[:3]
    for end in range(3, 9):
      tokens[0, end] = apply(tokens)[0, end - 1].argmax()
    text = source.tokenizer.decode(tokens[0, 3:9])
    wanted.add((source.tokenizer.decode(row[:3]), text))
  lines = [json.loads(x) for x in path.read_text().splitlines()]
  assert len(lines) > 5
  assert {(x['prompt'], x['completion']) for x in lines} <= wanted


def test_weights_that_are_not_finite(folder, published, tmp_path):
  broken = shutil.copytree(published, tmp_path / 'broken')
  tensors = load_file(broken / 'model.safetensors')
  tensors['model.norm.weight'][0] = np.inf
  save_file(tensors, broken / 'model.safetensors')
  with pytest.raises(UserError, match=r'^--net: .* infinite .*norm/scale'):
    written.write(
      data(folder, dict(tokens=f'tokenizer:{broken}')),
      f'hf:{broken}',
      f'{folder}/none.jsonl',
    )


@pytest.mark.parametrize(
  ('kw', 'options', 'message'),
  [
    (
      dict(tokens='pieces', vocabulary=270),
      {},
      r'^--net: .* has other tokens than text',
    ),
    ({}, dict(lenght=6), r"^data\.generated\.kw.* 'lenght'"),
    ({}, dict(length=99), r'^data\.generated\.kw\.length: 99 tokens'),
    (dict(packing='packed'), {}, r'^data\.source: rows of .* are packed'),
  ],
)
def test_what_cannot_be_written(folder, kw, options, message):
  with pytest.raises(UserError, match=message):
    written.write(
      data(folder, kw, **options), str(folder / 'net'), f'{folder}/none.jsonl'
    )
  assert not (folder / 'none.jsonl').exists()


def test_a_file_that_would_be_read_as_plain_text(folder):
  with pytest.raises(UserError, match=r'^--out: .*; call it out\.jsonl$'):
    written.write(data(folder), str(folder / 'net'), f'{folder}/out.txt')


def test_data_without_a_tokenizer_is_refused(folder):
  digits = configs.plain(configs.complete({}))['data']
  with pytest.raises(UserError, match=r'^data\.source: the tokens of digits'):
    written.write(digits, str(folder / 'net'), f'{folder}/none.jsonl')
