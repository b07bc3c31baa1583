"""Grids: what may be tuned, and what becomes of trials that fail."""

import io
import json
import pathlib

import numpy as np
import pytest
from absl import logging
from flax import nnx
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import arms, jobs, pipeline, tuning
from jaxkd.run import config as configs
from jaxkd.run.plan import configs_of

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def small(**changes):
  """A run of a second or two; changes are entries of the config."""
  given = dict(
    name='small',
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
    ),
    teachers=dict(
      main=dict(model='mlp', kw=dict(widths=(8,)), train=dict(steps=3))
    ),
    students=dict(student=dict(model='mlp', kw=dict(widths=(8,)))),
    distill=dict(
      labels=dict(loss='cross_entropy'),
      soft=dict(loss='kl', teacher='main'),
      hint=dict(
        loss='hint', at=('layers/0', 'layers/0'), teacher='main', weight=0.0
      ),
    ),
    arms=dict(student=dict(distill=dict(soft=dict(weight=0.0))), distilled={}),
    train=dict(
      optimizer=dict(name='sgd'),
      steps=4,
      seeds=2,
      batch_size=8,
      members='vmap',
      learning_rate=0.01,
    ),
  )
  return configs.plain(configs.complete({**given, **changes}))


def run(config, directory, out=None, **kw):
  console = Console(file=out or io.StringIO(), width=120)
  return pipeline.run(config, directory, console=console, **kw)


ALONE = dict(
  teachers={},
  distill=dict(labels=dict(loss='cross_entropy')),
  arms=dict(student={}, distilled={}),
)


@pytest.fixture
def warnings(monkeypatch):
  said = []
  keep = lambda text, *values: said.append(text % values)  # noqa: E731
  monkeypatch.setattr(logging, 'warning', keep)
  return said


def test_a_trial_that_diverges_is_worse_than_any_other(tmp_path, warnings):
  out = io.StringIO()
  row = run(
    small(**ALONE), tmp_path, out, tune=('train.learning_rate=1e30,0.01,0.1',)
  )  # fmt: skip
  told = [
    line
    for line in out.getvalue().splitlines()
    if line.startswith('tuning/') and ' to ' in line
  ]
  assert len(told) == 4  # the first and the last of two arms
  assert all('over 3 trials' in line for line in told)
  tuned = row['tuning']['distilled']
  assert tuned['values'][0] is None
  assert np.isfinite(tuned['values'][1:]).all()
  assert tuned['chosen'] != {'train.learning_rate': 1e30}
  assert tuned['trials'] == 3
  assert any("'train.learning_rate': 1e+30" in text for text in warnings)
  assert json.loads((tmp_path / 'tuning.json').read_text()) == row['tuning']


def test_where_every_trial_diverges_the_arm_is_named(tmp_path):
  with pytest.raises(UserError, match='of the grid of the arm distilled'):
    run(small(**ALONE), tmp_path, tune=('train.learning_rate=1e37,1e38',))


def test_outside_of_tuning_what_diverges_is_named_with_its_stage(tmp_path):
  teacher = dict(kw=dict(widths=(8,)), train=dict(learning_rate=1e30))
  with pytest.raises(
    UserError,
    match=r'^teachers/main: .* lower teachers.main.train.learning_rate',
  ):
    run(small(teachers=dict(main=teacher)), tmp_path)


@pytest.mark.parametrize(
  'change',
  [
    lambda found: {'distilled': {}},
    lambda found: [found],
    lambda found: {**found, 'other': found['student']},
    lambda found: {**found, 'student': {**found['student'], 'chosen': {}}},
    lambda found: None,
  ],
)
def test_a_damaged_file_is_made_anew(tuned, change, tmp_path, warnings):
  grids, found = tuned
  file = tmp_path / 'tuning.json'
  text = json.dumps(change(found)) if change(found) else '{"distilled": {'
  file.write_text(text)
  assert tuning._found(file, grids, OWN) == {}
  assert 'is damaged' in warnings[0]
  file.write_text(json.dumps(found))
  assert tuning._found(file, grids, OWN) == found


OWN = dict(student={}, b={})


@pytest.fixture(scope='module')
def tuned():
  grids = {name: {'train.clip': (0.0, 1.0)} for name in OWN}
  result = {
    'grid': {'train.clip': [0.0, 1.0]},
    'trials': 2,
    'values': [None, 0.5],
    'chosen': {'train.clip': 1.0},
    'split': 'validation',
  }
  return grids, {'student': result}


def test_a_term_that_is_only_in_the_grid_has_its_layers(tmp_path):
  tune = ('distill.hint.weight=0.0,1.0',)
  tuning.prepare(small(), tmp_path, tune)
  with pytest.raises(UserError, match="'layers/9'"):
    tuning.prepare(
      small(
        distill=dict(
          labels=dict(loss='cross_entropy'),
          soft=dict(loss='kl', teacher='main'),
          hint=dict(loss='hint', at=('layers/0', 'layers/9'), teacher='main',
                    weight=0.0),
        )
      ),
      tmp_path,
      tune,
    )  # fmt: skip


def test_an_arm_without_the_term_is_not_tuned_by_it():
  grids = tuning.parse(
    ('distill.soft.kw.temperature=1.0,2.0', 'train.clip=0.0,1.0'),
    small(),
    arms.configs_of(small()),
  )
  clip = {'train.clip': (0.0, 1.0)}
  soft = {'distill.soft.kw.temperature': (1.0, 2.0)}
  assert grids == {'distilled': soft | clip, 'student': clip}


def test_an_arm_that_uses_a_term_elsewhere_is_tuned_by_it():
  config = small(
    distill=dict(
      labels=dict(loss='cross_entropy'),
      soft=dict(
        loss='kl',
        teacher='main',
        when='teacher_is_correct',
        otherwise='rest',
      ),
      rest=dict(loss='reverse_kl', teacher='main', weight=0.0),
    )
  )
  text = 'distill.rest.kw.temperature=1.0,2.0'
  own = arms.configs_of(config)
  assert tuning.parse((text,), config, own).keys() == {'distilled'}


@pytest.mark.parametrize(
  ('texts', 'message'),
  [
    (('distill.hint.fuse=mean_logits,sampled',), 'no arm uses the term'),
    (('train.clip=1.0,1',), 'every value once'),
    (('train.clip=1.0,2.0', 'student:train.clip=3.0'), 'student is given tw'),
  ],
)
def test_grids_that_are_refused(texts, message):
  with pytest.raises(UserError, match=message):
    tuning.parse(texts, small(), arms.configs_of(small()))


def test_a_grid_is_explained(tmp_path):
  console = Console(record=True, width=100, file=io.StringIO())
  texts = ('train.clip=0.0,1.0', 'distill.soft.weight=0.5,1,2')
  tuning.explain(console, tuning.prepare(small(), tmp_path, texts)[2])
  text = console.export_text()
  assert 'distilled is tuned in 6 trials' in text
  assert 'distill.soft.weight = 0.5, 1.0, 2.0' in text


def test_each_point_has_as_many_seeds_as_the_config_says(tmp_path):
  grid = ('train.learning_rate=0.1,0.2,0.3',)
  source, (part,), grids = tuning.prepare(small(tune_seeds=2), tmp_path, grid)
  session = jobs.session_of(part, source, tmp_path, None)
  found = tuning._jobs(
    session, part, 'distilled', grids['distilled'], jobs.shapes_of(part)
  )
  ((members, _, job),) = found
  assert members == [0, 1, 2]
  first, second, *others = job.seeds
  assert others == 2 * [first, second] and first != second
  assert not {first, second} & set(part.seeds)
  assert job.hyper == {'train.learning_rate': [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]}
  with pytest.raises(UserError, match=r'^tune_seeds: 0 should be 1 or more'):
    tuning.prepare(small(tune_seeds=0), tmp_path, grid)


def test_a_rate_that_cannot_be_mapped_has_a_population_for_each_value(tmp_path):
  warm = dict(schedule='warmup_cosine', schedule_kw=dict(warmup_steps=1))
  config = small(train={**small()['train'], **warm}, **ALONE)
  found = run(config, tmp_path, tune=('train.learning_rate=0.01,0.1',))
  values = found['tuning']['student']['values']
  assert len(values) == 2 and values[0] != values[1]
  folders = tmp_path / 'checkpoints/tuning/student'
  assert sorted(each.name for each in folders.iterdir()) == ['0', '1']


def test_grids_are_those_of_the_first_round(tmp_path):
  config = small(
    rounds=dict(r01=dict(arms=dict(more={})), r02={}),
    report=dict(compare=dict(better='r02/distilled', than='r01/student')),
  )
  _, rounds, grids = tuning.prepare(config, tmp_path, ('train.clip=0.0,1.0',))
  assert set(grids) == set(rounds[0].arms) == {'student', 'distilled', 'more'}
  assert list(configs_of(config)) == ['r01/', 'r02/']


WEIGHTS = 'distill.soft.weight,distill.hint.weight'


def weighted(**changes):
  """Both terms of distillation count, the hint for a quarter of the other."""
  terms = small()['distill']
  terms['soft']['weight'], terms['hint']['weight'] = 2.0, 0.5
  off = {name: dict(weight=0.0) for name in ('soft', 'hint')}
  three = dict(student=dict(distill=off), distilled={}, more={})
  return small(**{'distill': terms, 'arms': three} | changes)


def test_factors_multiply_several_entries_together(tmp_path):
  """Their proportion stays, and all trials train as one population."""
  own = arms.configs_of(weighted())['distilled']
  texts = (f'distilled:{WEIGHTS}*=0.1,1,10', 'student:train.clip=1.0,2.0,3.0')
  grid = tuning.parse(texts, weighted(), arms.configs_of(weighted()))
  assert grid['distilled'] == {f'{WEIGHTS}*': (0.1, 1.0, 10.0)}
  for trial, factor in zip(
    tuning._trials(grid['distilled'], own), (0.1, 1, 10), strict=True
  ):
    assert trial == pytest.approx(
      {'distill.soft.weight': 2 * factor, 'distill.hint.weight': factor / 2}
    )
  row = run(weighted(), tmp_path, tune=texts)
  tuned = row['tuning']['distilled']
  assert tuned['trials'] == len(tuned['values']) == 3
  assert tuned['grid'] == {f'{WEIGHTS}*': [0.1, 1.0, 10.0]}
  chosen = tuned['chosen']
  assert chosen['distill.soft.weight'] == pytest.approx(
    4 * chosen['distill.hint.weight']
  )
  trials = tmp_path / 'checkpoints' / 'tuning'
  assert len(list((trials / 'distilled').iterdir())) == 1
  # What was found is found again, products and all.
  assert (
    tuning._found(tmp_path / 'tuning.json', grid, arms.configs_of(weighted()))
    == row['tuning']
  )


class Scores(nnx.Module):
  """A critic of logits."""

  def __init__(self, *, input_shape, rngs):
    self.layer = nnx.Linear(*input_shape, 1, rngs=rngs)

  def __call__(self, x):
    return {'score': self.layer(x)[:, 0]}


def test_a_critics_rate_and_penalty_are_tuned(tmp_path):
  critic = dict(model=f'{__name__}:Scores', sees_inputs=False)
  game = dict(term='critic', teacher='main', kw=critic)
  config = small(
    distill=dict(labels=dict(loss='cross_entropy'), game=game),
    arms=dict(student={}, distilled={}),
    train=small()['train']
    | dict(by_path={'terms/game': dict(learning_rate=1)}),
  )
  rate, penalty = 'train.by_path.terms/game.learning_rate', 'kw.penalty'
  tune = (f'{rate}=1e30,0.01', f'distill.game.{penalty}=1.0,10.0')
  row = run(config, tmp_path, tune=tune)
  tuned = row['tuning']['distilled']
  assert tuned['trials'] == 4
  assert tuned['chosen'][rate] == 0.01
  assert tuned['values'].count(None) == 2


def test_factors_and_values_make_their_product():
  texts = (f'{WEIGHTS}*=1,3', 'train.learning_rate=0.1,0.2,0.3')
  own = arms.configs_of(weighted())
  grid = tuning.parse(texts, weighted(), own)['distilled']
  trials = tuning._trials(grid, own['distilled'])
  found = {(p['distill.soft.weight'], p['train.learning_rate']) for p in trials}
  assert found == {(w, r) for w in (2.0, 6.0) for r in (0.1, 0.2, 0.3)}
  assert all(len(trial) == 3 for trial in trials)


@pytest.mark.parametrize(
  ('texts', 'message'),
  [
    ((f'{WEIGHTS}=1,2',), r'several entries take factors; write \*= instead'),
    ((f'{WEIGHTS}*=1', 'distill.hint.weight=1'), 'weight .* is given twice'),
    (('distill.soft.weight,distill.sotf.weight*=1',), "'sotf'.*'soft'"),
    (('distill.soft.weight,train.steps*=1,2',), 'not the budget'),
    (('train.schedule*=cosine',), 'is no number; write = instead'),
    (('distill.soft.weight*=a',), 'should be a number'),
    (('distill.soft.weight*=-1,1',), r'weight: -2\.0 should be'),
  ],
)
def test_factors_that_are_refused(texts, message, tmp_path):
  with pytest.raises(UserError, match=message):
    tuning.prepare(weighted(), tmp_path, texts)


def test_only_arms_that_are_compared_need_as_many_trials():
  def parse(*texts, **controls):
    report = dict(
      compare=dict(better='distilled', than='student'), controls=controls
    )
    config = weighted(report=report)
    return tuning.parse(texts, config, arms.configs_of(config))

  alone = 'more:train.clip=1.0,2.0,3.0'
  assert set(parse(alone)) == {'more'}
  grids = parse(alone, 'student:train.clip=1.0', 'distilled:train.clip=2.0')
  assert [len(grids[n]['train.clip']) for n in ('more', 'student')] == [3, 1]
  with pytest.raises(UserError, match=r"equally many.*'more': 3, 'student': 0"):
    parse(alone, control=dict(better='more', than='student'))
  with pytest.raises(UserError, match='equally many trials'):
    parse('distilled:train.clip=1.0,2.0')


def test_arms_of_which_a_sum_is_compared_need_as_many_trials():
  gain = dict(gain=dict(more=1.0, student=-1.0))
  report = dict(
    compare=dict(better='distilled', than='student'),
    controls=dict(some=dict(better='gain', than='student')),
    derived=gain,
  )
  config = weighted(report=report)
  with pytest.raises(UserError, match=r"equally many.*'more': 2, 'student': 0"):
    tuning.parse(('more:train.clip=1.0,2.0',), config, arms.configs_of(config))


def test_grids_of_the_config_and_of_the_command_line_add_up(tmp_path):
  config = weighted(tune=('student:train.clip=0.0,1.0',))
  given = ('distilled:train.clip=0.0,5.0',)
  with pytest.raises(UserError, match='equally many trials'):
    tuning.prepare(config, tmp_path, ())
  with pytest.raises(UserError, match='student is given twice'):
    tuning.prepare(config, tmp_path, ('student:train.clip=2.0', *given))
  row = run(config, tmp_path, tune=given)
  assert set(row['tuning']) == {'student', 'distilled'}
  kept = json.loads((tmp_path / 'config.json').read_text())
  assert kept['tune'] == [*config['tune'], *given]
  # Said in another place it is the same run, and it is not done twice.
  assert run({**config, 'tune': (*config['tune'], *given)}, tmp_path) == row


def test_an_arm_that_tuning_leaves_equal_is_not_trained_twice(tmp_path):
  """It has a place of its own in the row, and the same nets."""
  arms = {**weighted()['arms'], 'other': {}}
  texts = (f'more:{WEIGHTS}*=1.0', f'other:{WEIGHTS}*=10.0')
  row = run(weighted(arms=arms), tmp_path, tune=texts)
  assert row['tuning']['more']['chosen'] == {
    'distill.soft.weight': 2.0, 'distill.hint.weight': 0.5,
  }  # fmt: skip
  folders = {p.name for p in (tmp_path / 'checkpoints/students').iterdir()}
  assert folders == {'student', 'distilled', 'other'}
  for part in ('arms', 'metrics'):
    assert row[part]['more'] == row[part]['distilled']
  assert row['metrics']['other'] != row['metrics']['distilled']
  for arm in ('more', 'distilled', 'other'):
    assert (tmp_path / f'nets/students/{arm}/student').is_dir()


EARLIER = {
  'distilled': {
    'grid': {'distill.soft.weight': [0.5, 1.0]},
    'trials': 2,
    'values': [0.25, None],
    'chosen': {'distill.soft.weight': 0.5},
    'split': 'validation',
  }
}


def test_what_an_earlier_run_found_is_not_searched_again(tmp_path):
  (tmp_path / 'found.json').write_text(json.dumps(EARLIER))
  found, out = configs.tuned(tmp_path / 'found.json'), io.StringIO()
  config = small(tune=('distill.soft.weight=0.5,1.0',), tuned=found)
  row = run(config, tmp_path / 'run', out)
  assert row['tuning'] == EARLIER
  assert 'distilled was tuned by an earlier run' in out.getvalue()
  assert not (tmp_path / 'run/checkpoints/tuning').exists()


@pytest.mark.parametrize(
  ('arm', 'changes', 'message'),
  [
    ('other', {}, r'^tuned\.other: .*arm with a grid'),
    ('distilled', {'best': 1}, r'^tuned\.distilled: it should have grid and'),
    ('distilled', {'grid': (('train.clip', (1.0,)),)}, 'of another grid'),
    ('distilled', {'values': (0.25,)}, 'it has 1 values of 2 trials'),
    ('distilled', {'values': (None, None)}, 'it has 0 values of 2 trials'),
  ],
)
def test_what_an_earlier_run_found_must_fit(arm, changes, message, tmp_path):
  found = {
    'grid': (('distill.soft.weight', (0.5, 1.0)),),
    'values': (0.25, None),
    **changes,
  }
  config = small(tune=('distill.soft.weight=0.5,1.0',), tuned={arm: found})
  with pytest.raises(UserError, match=message):
    tuning.prepare(config, tmp_path, ())


@pytest.mark.parametrize(
  'file', sorted(CONFIGS.glob('*.py')), ids=lambda f: f.stem
)
def test_the_grids_of_every_config_are_equal(file):
  """Also of those whose default form no other test has."""
  config = configs.plain(configs.complete(configs.beside(file).get_config('')))
  first = next(iter(configs_of(config).values()))
  tuning.parse(config['tune'], first, arms.configs_of(first))
