"""Texts of a teacher become those of students with another tokenizer."""

import json

import jax
import numpy as np
import pytest

from jaxkd import models, shapes
from jaxkd.data import inputs, sources
from jaxkd.errors import UserError
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


def test_data_without_a_tokenizer_is_refused(folder):
  digits = configs.plain(configs.complete({}))['data']
  with pytest.raises(UserError, match=r'^data\.source: the tokens of digits'):
    written.write(digits, str(folder / 'net'), f'{folder}/none.jsonl')
