"""The pairs of configs/cifar100: complete, alike, and they can be traced."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from jaxkd import models
from jaxkd.report import rows
from jaxkd.run import arms, checks, pipeline
from jaxkd.run import config as configs
from jaxkd.train import optimizer

FOLDER = Path(__file__).parents[1] / 'configs' / 'cifar100'
PAIRS = [
  ('resnet110', 'resnet20'),
  ('resnet110', 'resnet32'),
  ('resnet32x4', 'resnet8x4'),
  ('resnet32x4', 'shufflenetv1'),
  ('resnet32x4', 'shufflenetv2'),
  ('resnet50', 'mobilenetv2'),
  ('resnet50', 'vgg8'),
  ('resnet56', 'resnet20'),
  ('vgg13', 'mobilenetv2'),
  ('vgg13', 'vgg8'),
  ('wrn_40_2', 'shufflenetv1'),
  ('wrn_40_2', 'wrn_16_2'),
  ('wrn_40_2', 'wrn_40_1'),
]
PUBLISHED = {'resnet50': 'resnet50_cifar', 'mobilenetv2': 'mobilenetv2_half'}
METHODS = {'fitnet', 'contrastive', 'decoupled', 'review'}


def load(pair, size=''):
  return configs.plain(configs.load(f'{FOLDER / "_".join(pair)}.py{size}'))


def nets(config):
  teacher = config['teachers']['main']['model']
  return teacher, config['students']['student']['model']


def family(name):
  return models.resolve(name)[0].__module__


def terms(config, arm):
  """The terms of an arm that count."""
  distill = arms.configs_of(config)[arm]['distill'].items()
  return {name: term for name, term in distill if term['weight']}


def test_all_pairs_are_there():
  names = ['_'.join(pair) for pair in PAIRS]
  assert names == sorted(file.stem for file in FOLDER.glob('*.py'))


@pytest.mark.parametrize('pair', PAIRS, ids='_'.join)
def test_a_pair_is_the_recipe_on_two_nets(pair):
  config, tiny, base = load(pair), load(pair, ':tiny'), load(PAIRS[2])
  assert nets(config) == tuple(PUBLISHED.get(name, name) for name in pair)
  assert [*map(family, nets(config))] == [*map(family, nets(tiny))]
  assert load(pair, ':paper') == {**config, 'name': config['name'] + '_paper'}
  for entry in ('data', 'task', 'survey', 'report', 'rounds', 'tune'):
    assert config[entry] == base[entry]
  teacher, own = config['teachers']['main'], config['train']
  assert teacher['train'] == base['teachers']['main']['train']
  light = pair[1].startswith(('mobilenet', 'shufflenet'))
  assert own['learning_rate'] == (0.01 if light else 0.05)
  assert {**own, 'learning_rate': 0.05} == base['train']
  assert teacher['views'] == base['teachers']['main']['views']
  for c in (config, tiny):
    assert set(c['arms']) == {'student', 'distilled'} | METHODS
    assert set(terms(c, 'student')) == {'labels'}
    assert set(terms(c, 'distilled')) == {'labels', 'soft'}
    for name in METHODS:
      assert set(terms(c, name)) == {'labels', name}
      assert terms(c, name)['labels']['weight'] == 1.0
  said = (FOLDER / f'{"_".join(pair)}.py').read_text()
  assert f'--config configs/cifar100/{"_".join(pair)}.py' in said


def test_the_recipe():
  config = load(PAIRS[2])
  train, epoch = config['train'], 49_000 / 64
  assert train['batch_size'] == 64 and train['weight_decay'] == 5e-4
  assert train['optimizer'] == dict(name='sgd', kw=dict(momentum=0.9))
  assert train['steps'] == 240 * epoch
  rate = optimizer.schedule(
    train['schedule'], 0.05, train['steps'], train['schedule_kw'], at='here'
  )
  for after, value in (
    *((0, 0.05), (149, 0.05), (151, 5e-3), (179, 5e-3)),
    *((181, 5e-4), (209, 5e-4), (211, 5e-5), (240, 5e-5)),
  ):
    assert float(rate(int(after * epoch))) == pytest.approx(value)
  views = config['students']['student']['views']
  assert views['train'] == f'pad_and_crop(4)|flip|{views["eval"]}'


def test_every_pair_can_be_traced_tiny(tmp_path):
  """All side by side in one step, so that each net is built once.

  Terms of logits and embeddings, which all nets have, are traced for one pair.
  """
  made = load(PAIRS[2], ':tiny')
  made |= {'teachers': {}, 'students': {}, 'distill': {}}
  for pair in PAIRS:
    config = load(pair, ':tiny')
    teacher, student = (
      name.replace('resnet_', 'the_') for name in nets(config)
    )
    made['teachers'][f't_{teacher}'] = config['teachers']['main']
    made['students'][f's_{student}'] = config['students']['student']
    for arm in config['arms']:
      for name, term in terms(config, arm).items():
        if pair != PAIRS[2] and name in ('soft', 'decoupled', 'contrastive'):
          continue
        taught = {'teacher': f't_{teacher}'} if term['teacher'] else {}
        key = f'{teacher}_{student}_{name}'
        made['distill'][key] = {**term, **taught, 'of': f's_{student}'}
  made['arms'] = {'distilled': {}}
  made['report']['compare']['than'] = 'distilled'
  made['report']['controls'] = {}
  _, (part,) = checks.prepare(made, tmp_path)
  assert len(part.teachers) == 4 and len(part.students['distilled']) == 6
  assert len(made['distill']) == 9 * 3 + 3


def test_a_pair_runs_tiny_with_a_teacher_from_pytorch(tmp_path):
  config = load(('vgg13', 'vgg8'), ':tiny')
  config['arms'] = {'student': {}, 'distilled': {}}  # what is equal runs once
  config['report']['controls'] = {}
  draw = np.random.default_rng(0).random
  state = {'classifier.weight': draw((4, 8)) - 0.5, 'classifier.bias': draw(4)}
  below = 3
  for i, width in enumerate(config['teachers']['main']['kw']['widths']):
    state[f'block{i}.0.weight'] = draw((width, below, 3, 3)) - 0.5
    state[f'block{i}.0.bias'] = draw(width)
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
      state[f'block{i}.1.{name}'] = draw(width)
    below = width
  save_file(state, tmp_path / 'x.safetensors')
  restore = f'pytorch:{tmp_path / "x.safetensors"}'
  config = configs.put(config, 'teachers.main.restore', restore)
  console = Console(file=io.StringIO())
  row = pipeline.run(config, tmp_path / 'run', console=console)
  rows.check(row, at='vgg13_vgg8')
  assert set(row['arms']) == {'teacher', 'student', 'distilled'}
  assert not (tmp_path / 'run' / 'nets' / 'teachers').exists()
