"""Decoders from a folder of Hugging Face, through a run, to another folder."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

import jaxkd
from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import hugging_face
from jaxkd.paths import by_path
from jaxkd.run import checks, overview
from jaxkd.run import config as configs

ROOT = Path(__file__).parents[2]
REFERENCE = configs.beside(ROOT / 'tools' / 'decoder_reference.py')
SHAPE = jax.ShapeDtypeStruct((8,), jnp.int32)
TOKENS = np.array([[2, 4, 5, 6, 7, 8, 9, 4]], np.int32)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A model with more rows in its head than there are tokens."""
  path = tmp_path_factory.mktemp('hf') / 'base'
  path.mkdir()
  config = {**REFERENCE.CONFIGS['qwen2'], 'vocab_size': 16}
  (path / 'config.json').write_text(json.dumps(config))
  net = models.build(f'hf:{path}', num_classes=9, input_shape=SHAPE)
  params = by_path(jax.eval_shape(net.init, jax.random.key(0))['params'])
  names = hugging_face.tensor_names(params)
  shapes = {
    names[name]: x.shape[::-1] if name.endswith('kernel') else x.shape
    for name, x in params.items()
  }
  save_file(REFERENCE.fill(shapes), path / 'model.safetensors')
  return path


def config(folder, **student):
  adapters = dict(rank=2, targets=('query', 'value', 'down'))
  given = dict(model=f'hf:{folder}', init='base', kw=dict(lora=adapters))
  return dict(
    task='language',
    data=dict(
      source='markov', kw=dict(size=40, words=8, branching=3, length=8)
    ),
    teachers=dict(
      main=dict(restore=f'hf:{folder}'), base=dict(restore=f'hf:{folder}')
    ),
    students=dict(student={**given, **student}),
    distill=dict(
      labels=dict(loss='cross_entropy', mask='valid'),
      soft=dict(loss='kl', teacher='main', mask='valid'),
    ),
    train=dict(steps=3, batch_size=4, seeds=1, learning_rate=0.05),
    report=dict(
      metric='perplexity',
      compare=dict(better='student', than='teacher main'),
    ),
  )


@pytest.fixture(scope='module')
def ran(folder, tmp_path_factory):
  directory = tmp_path_factory.mktemp('run')
  row = jaxkd.run(config(folder), directory, console=Console(quiet=True))
  return directory, row


def test_adapters_alone_are_trained_and_are_merged(folder, ran):
  directory, row = ran
  assert (
    row['metrics']['teacher main'].keys() <= row['metrics']['student'].keys()
  )
  assert [n for n in row['notes'] if 'have 16 rows, of which the first 12' in n]
  net, variables = jaxkd.load(directory)
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
  before = by_path(hugging_face.load(folder, shapes)['params'])
  for path, now in by_path(variables['params']).items():
    if path.split('/')[-2] in ('query', 'value', 'down') and 'kernel' in path:
      singular = np.linalg.svd(now - before[path], compute_uv=False)
      assert singular[1] > 1e-4 and singular[2:].max() < 1e-6
    else:
      np.testing.assert_array_equal(now, before[path])


def test_a_step_takes_no_group_that_nets_only_start_from(folder, ran, tmp_path):
  _, row = ran
  assert {'agreement', 'teacher_kl'} <= row['metrics']['student'].keys()
  assert not [name for name in row['metrics']['student'] if ':' in name]
  complete = configs.plain(configs.complete(config(folder)))
  source, (part,) = checks.prepare(complete, tmp_path)
  needs = overview.memory(part, source, 'student')
  one = jax.eval_shape(part.teachers['main'].net.init, jax.random.key(0))
  assert needs['frozen teachers'] == 4 * models.count(one['params'])


def test_what_is_exported_gives_the_same_logits(ran, tmp_path):
  directory, _ = ran
  net, variables = jaxkd.load(directory)
  found = jaxkd.export(directory, f'hf:{tmp_path / "out"}')
  assert found == tmp_path / 'out'
  assert {p.name for p in found.iterdir()} == {
    *('config.json', 'model.safetensors')
  }
  other = models.build(
    f'hf:{found}', num_classes=len(net.classes), input_shape=SHAPE
  )
  like = jax.eval_shape(other.init, jax.random.key(0))
  again = hugging_face.load(found, like)
  np.testing.assert_array_equal(
    net.apply(variables, TOKENS)[0]['logits'],
    other.apply(again, TOKENS)[0]['logits'],
  )
  half = jaxkd.export(directory, f'hf:{tmp_path / "half"}', dtype='bfloat16')
  size = [(p / 'model.safetensors').stat().st_size for p in (found, half)]
  assert size[1] < 0.7 * size[0]


def test_a_tokenizer_goes_with_the_net(ran, folder, tmp_path):
  copied = shutil.copytree(ran[0], tmp_path / 'run')
  held = json.loads((copied / 'config.json').read_text())
  held['data']['kw']['tokens'] = f'tokenizer:{tmp_path}'
  (copied / 'config.json').write_text(json.dumps(held))
  for name in ('tokenizer.json', 'tokenizer_config.json', 'other.json'):
    (tmp_path / name).write_text('{}')
  found = jaxkd.export(copied, f'hf:{tmp_path / "out"}')
  assert {p.name for p in found.iterdir()} == {
    *('config.json', 'model.safetensors'),
    *('tokenizer.json', 'tokenizer_config.json'),
  }


@pytest.mark.parametrize(
  ('to', 'options', 'message'),
  [
    ('out', {}, "'out' does not say the format"),
    ('hf:out', {'dtype': 'int8'}, r"no type of weights 'int8'"),
    ('hf:out', {'member': 3}, 'holds 1 members, so member 3 is not'),
    ('hf:out', {'arm': 'x'}, "no arm 'x'"),
  ],
)
def test_exports_that_cannot_be_are_refused(
  ran, tmp_path, to, options, message
):
  to = to.replace('out', str(tmp_path / 'out')) if ':' in to else to
  with pytest.raises(UserError, match=message):
    jaxkd.export(ran[0], to, **options)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('student', 'message'),
  [
    (
      dict(init='random'),
      r'^students\.student\.kw\.lora: .* stay random; name',
    ),
    (
      dict(quantize='*:uniform(bits=4)'),
      r'^students\.student\.quantize: adapt',
    ),
    (dict(kw=dict(lora=dict(rank=0))), r'lora\.rank: 0 should be a whole'),
    (dict(kw=dict(lora=dict(r=2))), r"no option 'r'"),
    (
      dict(kw=dict(lora=dict(rank=1, targets=('q',)))),
      r"lora\.targets: there is no linear map 'q'",
    ),
    (dict(kw=dict(width=8)), 'means width=16; drop the option'),
  ],
)
def test_adapters_that_cannot_be_are_refused(
  folder, tmp_path, student, message
):
  with pytest.raises(UserError, match=message):
    jaxkd.run(config(folder, **student), tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_tokenizer_beyond_the_head_is_refused(folder, tmp_path):
  given = config(folder)
  given['data']['kw'] |= dict(words=20, size=80)
  with pytest.raises(UserError, match='the head has 16 rows, and there are 2'):
    jaxkd.run(given, tmp_path)


def test_a_step_is_planned_from_shapes_alone(folder, tmp_path, capsys):
  """Adapters need gradients and an optimiser for themselves alone."""
  given = config(folder)
  given['teachers']['main']['train'] = dict(param_dtype='bfloat16')
  source, rounds = checks.prepare(
    configs.plain(configs.complete(given)), tmp_path
  )
  found = overview.memory(rounds[0], source, 'student')
  net = models.build(
    f'hf:{folder}',
    num_classes=9,
    input_shape=SHAPE,
    lora=given['students']['student']['kw']['lora'],
  )
  shapes = by_path(jax.eval_shape(net.init, jax.random.key(0))['params'])
  adapters = sum(x.size for path, x in shapes.items() if '/lora_' in path)
  every = sum(x.size for x in shapes.values())
  assert found['parameters'] == 4 * every
  assert found['gradients'] == 4 * adapters
  assert 8 * adapters <= found['optimiser'] < 8 * adapters + 32  # and a count
  assert found['frozen teachers'] == 2 * (every - adapters)
  assert found['activations, estimated'] > 4 * 4 * 8 * 9  # the logits
  overview.explain(Console(), source, rounds)
  assert 'for a step of 4 examples, of one member' in capsys.readouterr().out
