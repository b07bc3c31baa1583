"""A generalist, its specialists, and what they are together, in a whole run."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxkd
from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.run import checks, overview, pipeline
from jaxkd.run import config as configs
from jaxkd.teachers import specialists
from jaxkd.train import checkpoint

DATA = dict(
  source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=5, size=200)
)
K, COUNT, SEEDS = 5, 2, 2


def config(**changes):
  """Entries of teachers change as `GROUP__ENTRY`."""
  net = dict(model='mlp', kw=dict(widths=(8,)), per_seed=True)
  special = dict(of='generalist', size=2)
  teachers = dict(
    generalist=dict(**net, train=dict(steps=8)),
    few=dict(**net, count=COUNT, init='generalist', specialize=special),
    system=dict(made_of=('generalist', 'few'), fuse='specialists'),
  )
  for entry, value in changes.items():
    group, name = entry.split('__')
    teachers[group] = {**teachers[group], name: value}
  return configs.plain(
    configs.complete(
      dict(
        name='small',
        data=DATA,
        teachers=teachers,
        students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
        distill=dict(
          labels=dict(loss='cross_entropy'),
          soft=dict(loss='kl', teacher='system'),
        ),
        report=dict(
          compare=dict(better='teacher system', than='teacher generalist')
        ),
        train=dict(
          steps=4, seeds=SEEDS, batch_size=16, members='vmap',
          learning_rate=0.05,
        ),
      )
    )
  )  # fmt: skip


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  directory = tmp_path_factory.mktemp('system')
  return directory, pipeline.run(
    config(), directory, console=Console(file=io.StringIO())
  )


def test_specialists_keep_their_classes_and_start_from_the_generalist(finished):
  directory, _ = finished
  few, spec = checkpoint.load(directory / 'nets' / 'teachers' / 'few')
  assert spec['members'] == SEEDS * COUNT
  subset = np.asarray(few['state']['specialist']['subset'])
  assert subset.shape == (SEEDS * COUNT, K)
  assert set(np.unique(subset)) == {0, 1}
  np.testing.assert_array_equal(subset.sum(1), 2)
  # No class of a seed has two specialists.
  assert subset.reshape(SEEDS, COUNT, K).sum(1).max() == 1
  source = sources.load(DATA['source'], **DATA['kw'])
  labels = source.splits['train'].labels
  want = specialists.dustbin_bias(labels, subset > 0)
  got = few['state']['specialist']['dustbin']
  np.testing.assert_allclose(got, want, rtol=1e-6)
  generalist, _ = checkpoint.load(
    directory / 'nets' / 'teachers' / 'generalist'
  )
  # Four steps lead less far from it than random values would be.
  near = np.asarray(few['params']['layers']['0']['linear']['kernel'])
  own = np.asarray(generalist['params']['layers']['0']['linear']['kernel'])
  gaps = np.abs(near[:, None] - own[None]).mean((2, 3))
  assert (gaps.argmin(1) == [0, 0, 1, 1]).all()
  assert gaps.min(1).max() < 0.5 * gaps.max(1).min()


def test_the_system_is_measured_as_its_parts_predict(finished):
  directory, row = finished
  source = sources.load(DATA['source'], **DATA['kw'])
  test = source.splits['test']
  fields = test.fetch(np.arange(len(test)))

  def outputs(group, member):
    folder = directory / 'nets' / 'teachers' / group
    net, variables = jaxkd.load(folder, member=member)
    return net.apply(variables, fields['inputs'])[0]

  accuracies, covered = [], []
  for seed in range(SEEDS):
    generalist = outputs('generalist', seed)['logits']
    parts = [outputs('few', seed * COUNT + i) for i in range(COUNT)]
    group = jax.tree.map(lambda *x: jnp.stack(x), *parts)
    found = specialists.fuse(generalist, group)
    right = found['logits'].argmax(-1) == fields['labels']
    accuracies.append(float(right.mean()))
    covered.append(float((found['covered'] > 0).mean()))
  assert row['arms']['teacher system']['values'] == pytest.approx(accuracies)
  measured = row['metrics']['teacher system']
  assert measured['covered'] == pytest.approx(covered)
  assert set(measured) >= {'top1_covered', 'generalist_top1_covered'}
  assert 'teacher few' not in row['arms']  # alone they name no class


def test_restored_specialists_share_no_more_than_is_said(finished, tmp_path):
  """Or some that should be asked about an example would be left out."""
  directory, _ = finished
  folder = directory / 'nets' / 'teachers' / 'few'
  kept = dict(few__restore=str(folder))
  checks.prepare(config(**kept), tmp_path)
  variables, spec = checkpoint.load(folder)
  own = variables['state']['specialist']
  own['subset'] = jnp.ones_like(own['subset'])
  checkpoint.export(tmp_path / 'alike', variables, spec)
  kept = dict(few__restore=str(tmp_path / 'alike'))
  with pytest.raises(UserError, match=r'few\.restore: .*\.specialize\.overlap'):
    checks.prepare(config(**kept), tmp_path)


@pytest.mark.parametrize(
  ('changes', 'parts'),
  [
    (dict(few__specialize=dict(of='generalist', size=5)),
     ('teachers.few.specialize', '5 of 5 classes')),
    (dict(few__count=9), ('teachers.few.specialize', '9 specialists')),
    (dict(few__specialize=dict(of='genralist')),
     ('teachers.few.specialize.of', "'generalist'")),
    (dict(few__specialize=dict(of='generalist', cover=True)),
     ('teachers.few.specialize.cover', 'of 5 to the generalist alone')),
    (dict(few__specialize=dict(of='generalist', overlap=3)),
     ('teachers.few.specialize.overlap', '3 of 2 subsets')),
    (dict(few__per_seed=False), ('teachers.few.per_seed',)),
    (dict(generalist__count=2), ('generalist', 'one')),
    (dict(system__made_of=('few', 'generalist')), ('teachers.system.made_of',)),
    (dict(system__made_of=('generalist', 'fwe')),
     ('teachers.system.made_of', "'few'")),
    (dict(system__fuse='mean_probabilities'), ('teachers.system.fuse',)),
    (dict(system__fuse='special'), ('teachers.system.fuse', "'specialists'")),
    (dict(few__specialize=dict(of='generalist', own=1.0)),
     ('teachers.few.specialize.own', 'below 1')),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes, parts, tmp_path):
  with pytest.raises(UserError) as error:
    checks.prepare(config(**changes), tmp_path)
  for part in parts:
    assert part in str(error.value)


def test_what_it_is_made_of_is_explained(tmp_path):
  console = Console(record=True, width=100, file=io.StringIO())
  source, rounds = checks.prepare(config(), tmp_path)
  overview.describe(console, source, rounds)
  overview.explain(console, source, rounds)
  text = console.export_text()
  made = 'specialists of generalist + few'
  (line,) = (x for x in text.splitlines() if x.startswith('teacher system'))
  assert line.removeprefix('teacher system').strip().startswith(made)
  layers = dict(part.split('\n', 1) for part in text.split('\n\n')[-4:])
  assert '[B, 5]' in layers['teachers.generalist: layers of mlp']
  few = layers['teachers.few: layers of mlp'].splitlines()
  assert few[0].split() == ['head', '[B,', '6]']  # with the dustbin
  system = layers[f'teachers.system: outputs of {made}']
  assert 'covered' in system
  assert 'layers/0' not in system


def test_what_does_not_train_leaves_nothing_to_later_rounds(tmp_path):
  given = config()
  again = dict(generalist=dict(restore='r01/teachers/system'))
  given['rounds'] = dict(r01={}, r02=dict(teachers=again))
  pair = dict(better='r02/teacher system', than='r02/teacher generalist')
  given['report']['compare'] = pair
  with pytest.raises(UserError) as error:
    checks.prepare(configs.plain(configs.complete(given)), tmp_path)
  said = str(error.value)
  assert said.startswith('teachers.generalist.restore: there is no folder or')
  assert 'r01/teachers/few' in said.partition('known')[2]
  assert 'r01/teachers/system' not in said.partition('known')[2]
