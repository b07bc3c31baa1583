"""What is looked up of teachers is what they would have given."""

import contextlib
import io
import re
import threading

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxkd.data import cache
from jaxkd.data.examples import StreamedExamples
from jaxkd.errors import Stopped, UserError
from jaxkd.run import (
  cached_outputs,
  checks,
  job_groups,
  jobs,
  overview,
  train_job,
)
from jaxkd.run import config as configs
from jaxkd.teachers import groups as teachers

LOGITS = dict(outputs=('logits',))
NET = dict(model='mlp', kw=dict(widths=(8,)))
READER = dict(
  model='mlp', kw=dict(widths=(4,)), reads=('main', 'layers/0'),
  distill=dict(labels=dict(loss='cross_entropy')),
)  # fmt: skip
HINT = dict(
  loss='hint', at=('layers/0', 'layers/0'), teacher='main', adapter='linear'
)


def config(data=None, terms=None, student=None, train=None, **teachers):
  """Two seeds that see 24 examples of their own for three epochs."""
  soft = dict(loss='kl', teacher='main', kw=dict(temperature=2.0))
  given = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=5, size=80),
      **dict(fraction=dict(students=0.5)) | (data or {}),
    ),
    teachers=teachers,
    students=dict(
      student=dict(model='mlp', kw=dict(widths=(4,))) | (student or {})
    ),
    distill=dict(
      labels=dict(loss='cross_entropy'), **({'soft': soft} | (terms or {}))
    ),
    train=dict(
      optimizer=dict(name='sgd'), steps=9, seeds=2, batch_size=8,
      members='vmap', learning_rate=0.1,
    ) | (train or {}),
    report=dict(compare=dict(better='student', than='student')),
  )  # fmt: skip
  return configs.plain(configs.complete(given))


class Run:
  """Populations of students, of groups with arbitrary parameters."""

  def __init__(self, given, directory, teacher=0, stop=None):
    self.said, self.parts = [], 0
    self.source, (self.part,) = checks.prepare(given, directory)
    self.session = jobs.session_of(
      self.part, self.source, directory, self._progress, stop, self.said.append
    )
    random = np.random.default_rng(teacher)
    self.groups = {}
    for name, group in jobs.shapes_of(self.part).items():
      if parts := given['teachers'][name]['made_of']:
        parts = {part: self.groups[part] for part in parts}
        self.groups[name] = teachers.join(group.role, parts, 2)
        continue
      variables = jax.tree.map(
        lambda s: random.normal(size=s.shape).astype(s.dtype), group.variables
      )
      self.groups[name] = group._replace(variables=variables)

  @contextlib.contextmanager
  def _progress(self, name, steps, over=''):
    self.parts += steps * name.startswith('outputs')
    yield lambda step, values: None

  def job(self, arm=''):
    arm = arm or next(iter(self.part.arms))
    return jobs.of_arm(self.part, arm, self.source, self.groups)

  def train(self, arm=''):
    return train_job.train(self.session, self.job(arm))


def outputs(run, arm=''):
  """What is looked up for the job of an arm, ready."""
  batches = train_job.batches_of(run.session, run.job(arm))
  batches.keep(run.session.progress, run.session.say)
  return batches


def same(live, kept, **tolerance):
  assert live.history['step'] == kept.history['step']
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **tolerance),
    (live.stored, live.history['metrics']),
    (kept.stored, kept.history['metrics']),
  )


def keep(given, name='main', **changes):
  for entry, value in changes.items():
    given = configs.put(given, f'teachers.{name}.cache.{entry}', value)
  return given


NOISE = dict(views=dict(train='noise(0.3)', eval=''))
CASES = {
  'examples': (config(main=NET), LOGITS),
  'views': (config(main=NET | NOISE), LOGITS),
  'top of all': (config(main=NET | NOISE), dict(outputs=('logits',), top=5)),
  'three teachers': (config(main=NET | NOISE | dict(count=3)), LOGITS),
  'of each seed': (config(main=NET | dict(count=2, per_seed=True)), LOGITS),
  'of each seed, views': (
    config(main=NET | NOISE | dict(per_seed=True)), LOGITS,
  ),
  'shared': (
    config(dict(order='shared', fraction=dict(students=1.0)), main=NET), LOGITS,
  ),
  'shared, views': (
    config(
      dict(order='shared', fraction=dict(students=1.0)), main=NET | NOISE,
    ),
    LOGITS,
  ),
  'unequal weights': (
    config(dict(partition=dict(students='bootstrap')), main=NET | NOISE),
    LOGITS,
  ),
  'a layer': (
    config(terms=dict(hint=HINT), main=NET | NOISE),
    dict(outputs=('logits', 'layers/0')),
  ),
  'in sequence, in parts': (
    config(train=dict(members='sequence', accumulate=2), main=NET | NOISE),
    LOGITS,
  ),
  'a student that starts from it': (
    config(
      student=dict(init='main/head', kw=dict(widths=(8,))), main=NET | NOISE
    ),
    LOGITS,
  ),
}  # fmt: skip


@pytest.mark.parametrize(('given', 'kept'), CASES.values(), ids=CASES.keys())
def test_a_run_is_the_same_with_and_without(given, kept, tmp_path):
  live = Run(given, tmp_path / 'live')
  looked_up = Run(keep(given, **kept), tmp_path / 'kept')
  same(live.train(), looked_up.train(), rtol=2e-4, atol=2e-5)
  assert [len(run.said) for run in (looked_up, live)] == [2, 0]  # and bytes
  starts = given['students']['student']['init'] != 'random'
  assert set(job_groups.used_groups(live.job())) == {'main'}
  assert set(job_groups.used_groups(looked_up.job())) == {'main'} & {
    'main' if starts else ''
  }


def test_what_groups_are_together_is_kept(tmp_path):
  """The parts of the group take no part in the step."""
  given = config(
    terms=dict(soft=dict(loss='kl', teacher='system')),
    one=NET | dict(per_seed=True),
    two=NET | dict(kw=dict(widths=(6,)), count=2),
    system=dict(made_of=('one', 'two')),
  )
  live = Run(given, tmp_path / 'live')
  kept = Run(keep(given, 'system', **LOGITS), tmp_path / 'kept')
  same(live.train(), kept.train(), rtol=2e-4, atol=2e-5)
  assert not job_groups.used_groups(kept.job())


def test_a_group_that_reads_another_is_kept_without_it(tmp_path):
  soft = dict(loss='kl', teacher='reader')
  given = config(terms=dict(soft=soft), main=NET | NOISE, reader=READER)
  live = Run(given, tmp_path / 'live')
  kept = Run(keep(given, 'reader', **LOGITS), tmp_path / 'kept')
  same(live.train(), kept.train(), rtol=2e-4, atol=2e-5)
  assert set(job_groups.used_groups(live.job())) == {'main', 'reader'}
  assert not job_groups.used_groups(kept.job())


def test_a_group_that_is_kept_can_be_read(tmp_path):
  soft = dict(loss='kl', teacher='reader')
  given = config(
    terms=dict(soft=soft),
    student=dict(reads=('main', 'layers/0')),
    main=NET | NOISE,
    reader=READER,
  )
  live = Run(given, tmp_path / 'live')
  layer = dict(outputs=('layers/0',))
  kept = Run(keep(given, **layer), tmp_path / 'kept')
  same(live.train(), kept.train(), rtol=2e-4, atol=2e-5)
  assert set(job_groups.used_groups(kept.job())) == {'reader'}


@pytest.mark.all_devices
def test_all_devices_write_what_one_would(tmp_path, monkeypatch):
  given = keep(config(main=NET | NOISE | dict(count=2)), **LOGITS)
  many = outputs(Run(given, tmp_path / 'many')).batch(3)
  monkeypatch.setattr(
    cached_outputs.sharding, 'devices', lambda: jax.devices()[:1]
  )
  one = outputs(Run(given, tmp_path / 'one')).batch(3)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    many, one,
  )  # fmt: skip


def test_arms_and_sizes_of_batches_share_what_is_kept(tmp_path):
  given = keep(config(main=NET | NOISE), dir=str(tmp_path / 'kept'), **LOGITS)
  given['arms'] = dict(
    student={}, colder=dict(distill=dict(soft=dict(weight=0.5)))
  )
  given['report']['compare']['better'] = 'colder'
  run = Run(given, tmp_path / 'a')
  first, second = outputs(run, 'student'), outputs(run, 'colder')
  np.testing.assert_equal(first.batch(2), second.batch(2))
  assert len(run.said) == 2  # what is kept, and its bytes
  shorter = dict(steps=6, batch_size=12)
  for entry, value in shorter.items():
    given = configs.put(given, f'train.{entry}', value)
  other = Run(given, tmp_path / 'b')
  looked_up = outputs(other).batch(1)['cached_outputs']['main']['logits']
  assert not other.said
  each = [
    first.batch(step)['cached_outputs']['main']['logits'] for step in range(3)
  ]
  np.testing.assert_array_equal(looked_up, np.hstack(each)[:, 12:24])


def test_seeds_of_one_number_share_a_line(tmp_path):
  """As the trials of a grid do."""
  run = Run(keep(config(main=NET | NOISE), **LOGITS), tmp_path)
  job = run.job()
  twice = job._replace(
    seeds=[*job.seeds, *job.seeds],
    weights=np.concatenate([job.weights, job.weights]),
  )
  batches = train_job.batches_of(run.session, twice)
  batches.keep(run.session.progress, run.session.say)
  logits = batches.batch(4)['cached_outputs']['main']['logits']
  np.testing.assert_array_equal(logits[:2], logits[2:])
  assert (logits[0] != logits[1]).any()
  assert batches.outputs['main'].lines == 2


@pytest.mark.parametrize('views', [NOISE, {}], ids=['views', 'examples'])
def test_what_is_too_large_for_memory_is_read_from_disk(
  views, tmp_path, monkeypatch
):
  given = keep(config(main=NET | views), dir=str(tmp_path / 'kept'), **LOGITS)
  held = list(outputs(Run(given, tmp_path)).iterate(2, 7))
  monkeypatch.setattr(cache, 'IN_MEMORY', 0)
  run = Run(given, tmp_path)
  train = run.source.splits['train']
  run.source.splits['train'] = StreamedExamples(
    len(train), train.fetch, lambda: train.labels
  )
  batches = outputs(run)
  assert not batches.outputs['main'].in_memory
  for one, other in zip(held, batches.iterate(2, 7), strict=True):
    np.testing.assert_equal(one, other)
  assert not run.said


def test_the_largest_logits_stay_sparse(tmp_path):
  given = config(main=NET)
  whole = outputs(Run(keep(given, **LOGITS), tmp_path / 'a')).batch(0)
  logits = whole['cached_outputs']['main']['logits']
  p = np.sort(jax.nn.softmax(logits / 2), axis=-1)[..., ::-1]
  kept = keep(given, **LOGITS, top=2, temperature=2.0)
  batches = outputs(Run(kept, tmp_path / 'b'))
  found = batches.batch(0)['cached_outputs']['main']['logits']
  assert found.shape == logits.shape
  assert (found.log_probs.dtype, found.ids.dtype) == (np.float16, np.uint8)
  np.testing.assert_allclose(np.exp(found.log_probs), p[..., :2], rtol=2e-3)
  np.testing.assert_allclose(np.exp(found.rest), p[..., 2:].sum(-1), rtol=1e-5)
  order = np.argsort(-logits, axis=-1)
  np.testing.assert_array_equal(found.ids, order[..., :2])
  like = jax.tree.map(np.shape, batches.example()['cached_outputs'])
  assert like == jax.tree.map(np.shape, {'main': {'logits': found}})


@pytest.mark.parametrize('tail', ['', 'renormalize', 'uniform', 'drop'])
def test_a_teacher_that_runs_gives_what_its_cached_logits_give(tail, tmp_path):
  """In the steps; evaluation takes the teacher itself in both."""
  given = config(train=dict(accumulate=2), main=NET | NOISE | dict(count=2))
  given = configs.put(given, 'distill.soft.tail', tail)
  live = Run(configs.put(given, 'distill.soft.top', 2), tmp_path / 'live')
  kept = keep(given, **LOGITS, top=2, temperature=2.0, dtype='float32')
  looked_up = Run(kept, tmp_path / 'kept')
  same(live.train(), looked_up.train(), rtol=2e-4, atol=2e-5)


def test_a_nucleus_is_kept(tmp_path):
  given = keep(config(main=NET), **LOGITS, top=4, top_p=0.6, temperature=2.0)
  run = Run(given, tmp_path)
  found = outputs(run).batch(0)['cached_outputs']['main']['logits']
  kept = np.asarray(found.kept)
  p = np.exp(np.asarray(found.log_probs, np.float32))
  assert kept[..., 0].all()
  assert not kept.all()
  before = np.cumsum(p, axis=-1) - p
  assert (before[kept] < 0.6).all()
  assert (p.sum(-1) > 0.6).all()
  np.testing.assert_allclose(p.sum(-1) + np.exp(found.rest), 1, rtol=2e-3)
  size, note = run.train().notes  # of the row; they are printed too
  # 4 · 2 + 4 · 1 + 4 bytes.
  assert size == (
    'outputs of the teachers main take up to 16 bytes an example on disk'
  )
  said = 'of the teachers main, (.*) classes are kept on average .at most 4, '
  assert float(re.match(said, note)[1]) == pytest.approx(
    kept.sum(-1).mean(), rel=0.2
  )
  assert run.said[-1] == f'teachers.main.cache: {note}'


class After(threading.Event):
  """Set once it has been looked at so many times."""

  def __init__(self, looks):
    super().__init__()
    self.looks = looks

  def is_set(self):
    self.looks -= 1
    return self.looks < 0


def test_cut_short_anywhere_it_ends_as_an_unbroken_run(tmp_path, monkeypatch):
  monkeypatch.setattr(cache, 'BLOCK', 16)
  monkeypatch.setattr(cache, '_SHARD', 1)
  monkeypatch.setattr(cached_outputs, '_NEAR', 4)
  given = keep(config(main=NET | NOISE), **LOGITS)
  whole = Run(given, tmp_path / 'whole')
  unbroken = whole.train()
  assert whole.parts == 10
  with pytest.raises(Stopped, match=r'^outputs/\S+ stopped with 4 of 10'):
    Run(given, tmp_path / 'broken', stop=After(4)).train()
  again = Run(given, tmp_path / 'broken', stop=After(6 + 3))
  with pytest.raises(Stopped, match=r'^students/\S+ stopped after step 4 of 9'):
    again.train()
  assert again.parts == 6
  last = Run(given, tmp_path / 'broken')
  same(unbroken, last.train(), rtol=0)
  assert not last.parts


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'teachers.main.views.train': 'noise(0.2)'}, 'another view'),
    ({'teachers.main.kw.widths': (8, 8)}, 'another model'),
    ({'teachers.main.train.dtype': 'bfloat16'}, 'another model'),
    ({'teachers.main.train.param_dtype': 'bfloat16'}, 'another model'),
    ({'data.kw.seed': 1}, 'another data'),
    (
      {'teachers.main.cache.top': 2, 'teachers.main.cache.temperature': 2.0},
      'another top',
    ),
    ({'teachers.main.cache.outputs': ('logits', 'head')}, 'another outputs'),
    ({'train.steps': 10}, 'keeps 72 rows'),
  ],
)
def test_what_is_kept_of_another_run_is_refused_before_anything_trains(
  changes, said, tmp_path
):
  given = config(dict(fraction=dict(students=1.0)), main=NET | NOISE)
  given = configs.put(given, 'data.kw', {**given['data']['kw'], 'seed': 0})
  given = keep(given, dir=str(tmp_path / 'kept'), **LOGITS)
  outputs(Run(given, tmp_path))
  for entry, value in changes.items():
    given = configs.put(given, entry, value)
  with pytest.raises(UserError, match=rf'^teachers\.main\.cache: .*{said}'):
    checks.prepare(given, tmp_path)


def test_what_is_kept_of_another_teacher_is_refused(tmp_path):
  given = keep(config(main=NET), **LOGITS)
  outputs(Run(given, tmp_path))
  with pytest.raises(
    UserError, match=r'another teacher, .* remove that folder'
  ):
    outputs(Run(given, tmp_path, teacher=1))


def test_other_seeds_and_shares_of_the_data_are_kept_beside(tmp_path):
  given = keep(config(main=NET | NOISE), dir=str(tmp_path / 'kept'), **LOGITS)
  for entry, value in (('train.seed', 7), ('data.fraction.students', 0.4)):
    changed = configs.put(given, entry, value)
    for run in (Run(given, tmp_path), Run(changed, tmp_path)):
      outputs(run)
  assert len(list((tmp_path / 'kept' / 'main').iterdir())) == 3


def test_several_hosts_are_refused(tmp_path, monkeypatch):
  run = Run(keep(config(main=NET), **LOGITS), tmp_path)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(
    UserError, match=r'teachers\.main\.cache\.outputs: caching'
  ):
    train_job.batches_of(run.session, run.job())


def test_it_is_said_what_is_kept(tmp_path):
  given = keep(config(main=NET | NOISE), **LOGITS, top=2, temperature=2.0)
  run = Run(given, tmp_path)
  console = Console(record=True, width=200, file=io.StringIO())
  overview.explain(console, run.source, [run.part])
  outputs(run)
  found = console.export_text()
  # Two seeds that see 24 examples three times; 2 · 2 + 2 · 1 + 4 bytes each.
  kept, size = run.said
  assert size.endswith('teachers main take 10 bytes an example on disk')
  for text in (kept, found):
    assert (
      'teachers.main.cache: logits (the 2 largest) of 2 × 72 views of '
      "examples, 2.8 kB, in the workdir's outputs/main/"
    ) in text
  assert found.count('outputs/main') == 1
