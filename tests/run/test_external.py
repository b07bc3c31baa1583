"""Runs whose teachers exist already: as nets, as files, as functions."""

import gc
import io
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.run import checks, pipeline, provenance
from jaxkd.run import config as configs
from jaxkd.teachers import groups, recorded

W = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
DATA = dict(shape=(4, 4, 1), num_classes=3, size=90)
OTHER = dict(restore='', model='mlp', kw=dict(widths=(3,)))


class Module(nnx.Module):
  def __init__(self):
    rngs = nnx.Rngs(0)
    self.norm = nnx.BatchNorm(16, rngs=rngs)
    self.head = nnx.Linear(16, 3, rngs=rngs)
    self.head.kernel.set_value(jnp.asarray(W))

  def __call__(self, x):
    return self.head(self.norm(x.reshape(len(x), -1)))


def logits(images):
  """What the module gives, by NumPy."""
  return images.reshape(len(images), -1) / np.sqrt(1 + 1e-5) @ W


class Mine(types.ModuleType):
  """A module of one's own, whose function counts its calls."""

  def __init__(self):
    super().__init__('mine')
    self.scale, self.calls, self.fails = 1.0, 0, False
    self.module = self._module
    self.host = self._host

  def _module(self):
    made = Module()
    made.head.kernel.set_value(self.scale * made.head.kernel.get_value())
    return made

  def _host(self, images):
    self.calls += 1
    if self.fails and len(images) > 4:
      raise RuntimeError('no device')
    return {'logits': self.scale * logits(images), 'layer': images[:, 0, :, 0]}


@pytest.fixture
def mine(monkeypatch):
  made = Mine()
  monkeypatch.setitem(sys.modules, 'mine', made)
  return made


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('files')
  source = sources.load('synthetic', **DATA)
  for split, examples in source.splits.items():
    images = examples.fetch(np.arange(len(examples)))['inputs']
    outputs = {'logits': logits(images), 'layer': images[:, 0, :, 0]}
    recorded.save(folder / f'{split}.npz', examples, outputs)
  return folder


def small(restore, terms=None, student=None, more=None, **teacher):
  given = dict(
    data=dict(source='synthetic', kw=DATA),
    teachers=dict(main=dict(restore=restore, **teacher), **(more or {})),
    students=dict(
      student=dict(model='mlp', kw=dict(widths=(4,))) | (student or {})
    ),
    distill=dict(
      labels=dict(loss='cross_entropy'),
      soft=dict(loss='kl', teacher='main'), **(terms or {}),
    ),
    train=dict(
      steps=4, seeds=2, batch_size=8, members='vmap', save_every=2,
      learning_rate=0.05,
    ),
    report=dict(compare=dict(better='student', than='student')),
  )  # fmt: skip
  return configs.plain(configs.complete(given))


def run(config, directory, **kw):
  console = Console(file=io.StringIO(), width=300)
  row = pipeline.run(config, directory, console=console, **kw)
  return row, console.file.getvalue()


def test_the_three_ways_teach_the_same(mine, files, tmp_path):
  ways = {
    'mine:module': 'are nets that mine:module gives with their weights',
    f'outputs:{files}': 'its rows are matched by the checksum of the inputs',
    'host:mine:host': 'no net computes them',
  }
  rows = []
  for number, (restore, said) in enumerate(ways.items()):
    row, text = run(small(restore), tmp_path / str(number))
    assert any(said in note for note in row['notes']) and said in text
    known = 'code of mine' if 'host' in restore else 'teachers.main.restore'
    assert len(row['provenance'][known]) == 64
    rows.append(row)
  for row in rows[1:]:
    assert row['metrics'].keys() == rows[0]['metrics'].keys()
    for arm, metrics in rows[0]['metrics'].items():
      for metric, values in metrics.items():
        np.testing.assert_allclose(
          row['metrics'][arm][metric], values, rtol=1e-3, atol=1e-4
        )
  assert 'agreement' in rows[0]['metrics']['student']
  assert not (tmp_path / '0' / 'nets' / 'teachers').exists()
  # What is finished asks for no outputs again.
  calls = mine.calls
  _, text = run(small('host:mine:host'), tmp_path / '2')
  assert 'not run again' in text and mine.calls == calls


def test_several_nets_are_a_group(mine, tmp_path):
  def several():
    return [mine._module(), mine._module()]

  mine.several = several
  _, (part,) = checks.prepare(small('mine:several', count=2), tmp_path)
  role, entry = part.teachers['main'], part.config['teachers']['main']
  found = groups.restore('main', entry, role, 2, role.given)
  assert {len(x) for x in jax.tree.leaves(found)} == {2}
  with pytest.raises(UserError, match='gives 2 nets and 1 are wanted'):
    checks.prepare(small('mine:several'), tmp_path)


@pytest.fixture
def uncollected():
  """What earlier runs leave in cycles stays as long as the test."""
  gc.disable()
  yield
  gc.enable()


@pytest.mark.usefixtures('uncollected')
def test_changed_weights_are_another_run(mine, tmp_path):
  """Of a finished run, and of one that was cut short."""
  config = small('mine:module')
  run(config, tmp_path / 'done')
  stop = threading.Event()
  stop.set()
  with pytest.raises(pipeline.Stopped):
    run(config, tmp_path / 'half', stop=stop)
  mine.scale = 2.0
  for folder in ('done', 'half'):
    with pytest.raises(
      UserError, match=r'teachers\.main\.restore has changed since'
    ):
      run(config, tmp_path / folder)
  mine.scale = 1.0
  assert 'not run again' in run(config, tmp_path / 'done')[1]


def test_a_changed_file_is_another_run(files, tmp_path):
  np.savez(tmp_path / 'a.npz', **np.load(files / 'train.npz'))
  config = small(f'outputs:{tmp_path}/a.npz')
  row, _ = run(config, tmp_path / 'run')
  assert 'teacher' not in row['arms'] and 'agreement' not in row['metrics']
  values = dict(np.load(files / 'train.npz'))
  np.savez(tmp_path / 'a.npz', **values | {'logits': 2 * values['logits']})
  with pytest.raises(UserError, match=r'teachers\.main\.restore has changed'):
    run(config, tmp_path / 'run')


def test_a_plan_that_has_read_a_file_says_its_checksum(
  files, tmp_path, monkeypatch
):
  config = small(f'outputs:{files}')
  source, rounds = checks.prepare(config, tmp_path)
  alone = provenance.of(config, source)
  monkeypatch.setattr(recorded, 'checksum', None)  # would read it once more
  assert provenance.of(config, source, rounds) == alone


def test_a_function_that_fails_goes_on_where_it_was(mine, tmp_path):
  views = dict(train='noise(0.3)', eval='')
  config = small('host:mine:host', views=views)
  mine.fails = True
  with pytest.raises(UserError, match=r'^teachers\.main\.restore: .*no device'):
    run(config, tmp_path / 'a')
  mine.fails = False
  row, text = run(config, tmp_path / 'a')
  # A view that draws has rows for each epoch of each seed.
  assert 'logits of 2 × 32 views of examples' in text
  net, _ = run(small('mine:module', views=views), tmp_path / 'b')
  for arm, values in net['metrics'].items():
    np.testing.assert_allclose(
      row['metrics'][arm]['nll'], values['nll'], rtol=1e-3
    )


def test_outputs_can_be_read_and_kept_sparse(files, tmp_path):
  reader = dict(reads=('main', 'layer'))
  cache = dict(outputs=('logits', 'layer'), top=2)
  restore = f'outputs:{files}'
  row, text = run(small(restore, student=reader, cache=cache), tmp_path / 'a')
  assert 'logits (the 2 largest), layer of ' in text
  assert row['arms']['student']
  with pytest.raises(UserError, match=r'cache\.outputs: distill.soft looks at'):
    checks.prepare(small(restore, cache=dict(outputs=('layer',))), tmp_path)
  with pytest.raises(UserError, match=r'^students\.student\.reads: main has '):
    checks.prepare(
      small(f'outputs:{files}/train.npz', student=reader), tmp_path
    )


def test_entries_that_need_a_net_are_refused(mine, files, tmp_path):
  host, file = 'host:mine:host', f'outputs:{files}'
  hint = dict(hint=dict(loss='hint', at=('head', 'stem'), teacher='main'))
  both = dict(loss='kl', teacher=('main', 'other'), fuse='mean_logits')
  weighed = dict(both=both | dict(fuse_weights='validation'))
  other = dict(other=OTHER)
  named = tmp_path / 'named.npz'
  with np.load(files / 'train.npz') as known:
    np.savez(named, predicted=known['logits'])
  for config, said in (
    (small(host, count=2), r'teachers\.main\.count: '),
    (small(host, per_seed=True), r'teachers\.main\.per_seed: '),
    (small(host, quantize='uniform(4)'), r'teachers\.main\.quantize: '),
    (small(file, views=dict(train='flip')), r'teachers\.main\.views\.train: '),
    (
      small(host, views=dict(eval='noise(0.1)')),
      r'teachers\.main\.views\.eval: it is random',
    ),
    (small(file, kw=dict(a=1)), r'teachers\.main\.kw: .*a'),
    (small(host, kw=dict(a=1)), r'teachers\.main\.kw: .*a'),
    (
      small(host, student=dict(init='main')),
      r'students\.student\.init: main has',
    ),
    (small(file, terms=hint), r"distill\.hint\.at: .*no layer 'stem'"),
    (
      small(f'outputs:{named}'),
      r'distill\.soft\.at: teachers\.main\.restore: .*known: predicted',
    ),
    (small(file, terms=weighed, more=other), r'distill\.both\.fuse_weights: '),
    (
      small(file, more=dict(both=dict(made_of=('main', 'other')), **other)),
      r'teachers\.both\.made_of: main has only outputs',
    ),
    (
      configs.put(small(file), 'data.augment.students', 'flip'),
      r'data\.augment\.students: .*or name a teacher that is a net',
    ),
    (
      configs.put(small(file), 'data.generated.name', 'noise'),
      r'teachers\.main\.restore: cached outputs are of the data',
    ),
    (
      small('mine:module', reads=('other', 'head'), more=other),
      r'teachers\.main\.reads: mine:module returns finished nets',
    ),
    (
      configs.put(small(host), 'teachers.main.model', 'mlp'),
      r"teachers\.main\.model: it is 'mlp'",
    ),
    (small('', more={}, model=host), r'teachers\.main\.model: .* no net that'),
  ):
    with pytest.raises(UserError, match=f'^{said}') as error:
      checks.prepare(config, tmp_path / 'run')
    assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_a_file_needs_no_logits_where_nothing_looks_at_them(files, tmp_path):
  with np.load(files / 'train.npz') as known:
    np.savez(tmp_path / 'layer.npz', layer=known['layer'])
  hint = dict(hint=dict(loss='hint', at=('layers/0', 'layer'), teacher='main'))
  config = small(f'outputs:{tmp_path}/layer.npz', terms=hint)
  config = configs.put(config, 'distill.soft.weight', 0.0)
  _, (part,) = checks.prepare(config, tmp_path / 'run')
  assert part.teachers['main'].cache.outputs == ('layer',)


def test_a_model_that_another_replaces_leaves_its_options(mine):
  """As flags have it, which change a config that is complete."""
  config = small('', model='mlp')
  changed = configs.put(config, 'teachers.main.restore', 'mine:module')
  entry = configs.plain(configs.complete(changed))['teachers']['main']
  assert (entry['model'], entry['kw']) == ('mine:module', {})
  again = configs.plain(configs.complete(changed))
  assert again == configs.plain(configs.complete(again))
  config = small('', model='mlp', kw=dict(widths=(9,)))
  changed = configs.put(config, 'teachers.main.restore', 'mine:module')
  with pytest.raises(
    UserError, match=r"main\.kw: widths .*model='mine:module'"
  ):
    configs.complete(changed)


def test_students_that_see_something_else_are_told_of(files, tmp_path):
  views = dict(views=dict(train='noise(0.1)'))
  source, _ = checks.prepare(small(f'outputs:{files}', student=views), tmp_path)
  assert any(
    'the students of student see noise(0.1), and the outputs of main are for '
    'the examples without it' in note
    for note in source.notes
  )
