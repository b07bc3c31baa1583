"""The methods of configs/methods: comparable, and all of them can be traced."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from jaxkd.report import rows
from jaxkd.run import arms, checks, pipeline, terms, tuning
from jaxkd.run import config as configs

FOLDER = Path(__file__).parents[1] / 'configs'
COMPARED = FOLDER / 'methods_compared.py'
METHODS = sorted(file.stem for file in (FOLDER / 'methods').glob('*.py'))
BASELINE = 'soft_targets'
SIZES = ('', ':tiny')


def load(file, size=''):
  return configs.plain(configs.load(f'{file}{size}'))


def method(name, size=''):
  return load(FOLDER / 'methods' / f'{name}.py', size)


def in_use(arm):
  """The terms of an arm that count."""
  distill = arm['distill'].items()
  return {n: term for n, term in distill if not terms.is_zero(term['weight'])}


@pytest.fixture(scope='module', params=SIZES, ids=('full', 'tiny'))
def size(request):
  return request.param


@pytest.fixture(scope='module')
def baseline(size):
  return method(BASELINE, size)


@pytest.fixture(scope='module')
def compared(size):
  return load(COMPARED, size)


@pytest.mark.parametrize('name', METHODS)
def test_a_method_is_compared_with_the_same_student_alone(name, size, baseline):
  """It differs from the others in what it says, and in nothing else."""
  config = method(name, size)
  for entry in ('data', 'task', 'report', 'tune', 'rounds'):
    assert config[entry] == baseline[entry]
  assert config['teachers']['main'] == baseline['teachers']['main']
  own, theirs = map(arms.configs_of, (config, baseline))
  assert set(own) == {'student', 'distilled'}
  assert own['student']['students'] == theirs['student']['students']
  assert in_use(own['student']) == in_use(theirs['student'])
  assert list(in_use(own['student'])) == ['labels']
  # Parts, which an arm cannot take back, do nothing for an optimiser without.
  train = {**own['student']['train'], 'parts': {}}
  assert train == theirs['student']['train']
  for entry in ('steps', 'batch_size', 'seeds', 'seed', 'dtype'):
    assert own['distilled']['train'][entry] == train[entry]
  distilled, student = own['distilled'], own['student']
  assert in_use(distilled) != in_use(student)
  if name != BASELINE:
    parts = ('distill', 'students', 'train', 'teachers')
    assert any(distilled[p] != theirs['distilled'][p] for p in parts)


@pytest.mark.parametrize('file', [*METHODS, None])
def test_what_is_changed_for_all_reaches_every_arm(file):
  """As on the command line: a method keeps only what is its own."""
  config = method(file) if file else load(COMPARED)
  halved = 'multi_level_logits'  # its authors have another learning rate
  for entry, value in (
    ('train.steps', 7),
    ('train.seeds', 2),
    ('train.learning_rate', 0.5),
    ('train.eval_every', 3),
    ('train.weight_decay', 0.25),
  ):
    config = configs.put(config, entry, value)
    for name, arm in arms.configs_of(config).items():
      if entry == 'train.learning_rate' and (
        halved in (file, name.removesuffix('_tuned'))
      ):
        continue
      assert configs.get(arm, entry) == value


@pytest.mark.parametrize('name', METHODS)
def test_a_method_says_where_it_is_from(name):
  config = method(name)
  survey = config['survey']
  for entry in ('knowledge', 'claim', 'cite', 'url', 'objective', 'teacher'):
    assert survey[entry]
  said = (FOLDER / 'methods' / f'{name}.py').read_text()
  assert f'--config configs/methods/{name}.py' in ' '.join(said.split())
  year = survey['cite'].split()[-1]
  assert year.isdecimal() and year in said.split('"""')[1]
  if name != BASELINE:
    claims = method(BASELINE)['survey']
    assert survey['claim'] != claims['claim']
    assert survey['url'] != claims['url']


OF_CACHING = ('cache', 'data')


def test_side_by_side_they_are_what_they_are_alone(size, compared):
  """Each with its own weights and once more, to be tuned."""
  own = arms.configs_of(compared)
  tuned = {f'{name}_tuned' for name in METHODS}
  assert set(own) == {'student', *METHODS, *tuned}
  for name in METHODS:
    alone = method(name, size)
    for role, teacher in alone['teachers'].items():
      # But for what is cached, and of which examples.
      same = compared['teachers'][role] | {k: teacher[k] for k in OF_CACHING}
      assert same == teacher
    want = arms.configs_of(alone)['distilled']
    for arm in (own[name], own[f'{name}_tuned']):
      assert in_use(arm) == in_use(want)
      assert arm['students'] == want['students']
      assert arm['train'] == want['train']
  want = arms.configs_of(method(BASELINE, size))['student']
  assert in_use(own['student']) == in_use(want)
  assert own['student']['students'] == want['students']
  assert own['student']['train'] == want['train']


def test_side_by_side_each_is_tuned_as_much_as_soft_targets(compared):
  grids = tuning.parse(compared['tune'], compared, arms.configs_of(compared))
  assert set(grids) == {f'{name}_tuned' for name in METHODS}
  for arm, grid in grids.items():
    ((entries, factors),) = grid.items()
    middle = factors[3]
    ratios = [factor / middle for factor in factors]
    assert ratios == pytest.approx([0.03, 0.1, 0.3, 1, 3, 10, 30])
    # The published weight is one of the points, and not at an end.
    assert 1.0 in map(pytest.approx, factors[1:-1])
    names = {e.split('.')[1] for e in entries.rstrip('*').split(',')}
    own = arms.configs_of(compared)[arm]
    kept = {'labels'} | ({'soft'} if arm == 'simple_recipe_tuned' else set())
    assert names == set(in_use(own)) - kept
  controls = compared['report']['controls']
  assert controls == {
    f'{name}{column}': dict(
      better=f'{name}{column}', than=f'{BASELINE}{column}'
    )
    for name in METHODS if name != BASELINE
    for column in ('', '_tuned')
  }  # fmt: skip


def test_what_was_found_is_of_the_same_grids():
  config = load(COMPARED, '')
  own = arms.configs_of(config)
  grids = tuning.parse(config['tune'], config, own)
  tuning.check_earlier(config['tuned'], grids)
  assert set(config['tuned']) == set(grids)


def test_a_step_of_every_method_can_be_traced(tmp_path):
  """All side by side, so that what they share is built once.

  No step runs a teacher whose outputs are cached.
  """
  config = load(COMPARED, ':tiny')
  config['arms'] = {
    name: arm
    for name, arm in config['arms'].items()
    if not name.endswith('_tuned')
  }
  controls = config['report']['controls'].items()
  config['report']['controls'] = {
    name: pair for name, pair in controls if not name.endswith('_tuned')
  }
  _, (part,) = checks.prepare({**config, 'tune': ()}, tmp_path)
  assert set(part.arms) == {'student', *METHODS}
  assert all(part.first(name) == name for name in METHODS)


@pytest.mark.parametrize(
  ('file', 'teacher'),
  [('methods_compared_vit', 'vit'), ('methods_compared_conv_to_vit', 'resnet')],
)
def test_transformers_are_compared_by_the_methods_that_fit(
  file, teacher, tmp_path
):
  """What they look at is there in any net; the rest is as it is for conv nets.

  One each of what looks at logits and at embeddings is traced.
  """
  config = load(FOLDER / f'{file}.py', ':tiny')
  own = arms.configs_of(config)
  fit = {name for name in own if f'{name}_tuned' in own}
  assert {'soft_targets', 'relational', 'mean_teacher'} < fit < set(METHODS)
  assert not fit & {'fitnet', 'review', 'reused_classifier', 'oriented_trainer'}
  assert config['teachers']['main']['model'] == teacher
  for name, arm in own.items():
    assert arm['students']['student']['model'] == 'vit'
    assert arm['train']['optimizer']['name'] == 'adamw'
    alone = name.removesuffix('_tuned')
    if alone in fit:
      want = arms.configs_of(method(alone, ':tiny'))['distilled']
      assert in_use(arm) == in_use(want)
  traced = ('student', 'soft_targets', 'relational')
  config['arms'] = {name: config['arms'][name] for name in traced}
  config['report']['controls'] = {}
  checks.prepare({**config, 'tune': ()}, tmp_path)


# One with a memory, one with a second teacher, one that teaches itself.
@pytest.mark.parametrize('name', ['contrastive', 'factor_transfer'])
def test_a_method_runs_tiny(name, seldom, tmp_path):
  config = seldom(method(name, ':tiny'))
  row = pipeline.run(config, tmp_path, console=Console(file=io.StringIO()))
  rows.check(row, at=name)
  assert set(row['arms']) == {'teacher', 'student', 'distilled'}
  assert row['arms']['student']['values'] != [None, None]
  differs = row['metrics']['student'] != row['metrics']['distilled']
  assert differs or row['arms']['student'] != row['arms']['distilled']
