"""On-policy distillation from a config: whole runs, and what is refused."""

import contextlib
import threading
from types import MappingProxyType

import jax
import numpy as np
import pytest

import jaxkd
from jaxkd.data import positions
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.source import make_source
from jaxkd.data.text.tokens import EOS
from jaxkd.errors import UserError
from jaxkd.run import checks, jobs, pipeline, stored_nets, train_job
from jaxkd.run import config as configs
from jaxkd.students import stored

SIZES = dict(width=8, depth=1, heads=2, mlp_width=8, init=0.3)
NET = dict(model='decoder', kw=SIZES)
WRITES = dict(name='on_policy', kw=dict(length=4, prompt=3, share=0.75))


def config(whole=MappingProxyType({}), **changes):
  """A student that learns from labels, and from two teachers what it writes.

  Args:
    whole: sections in place of these.
    **changes: entries, with __ for dots.
  """
  soft = dict(loss='jensen_shannon', teacher='main', mask='valid')
  given = dict(
    task='language',
    data=dict(
      source='markov',
      kw=dict(size=60, words=5, branching=3, length=10),
      rollout=WRITES,
    ),
    teachers=dict(main=dict(**NET, count=2, train=dict(steps=2))),
    students=dict(student=NET),
    distill=dict(
      labels=dict(loss='cross_entropy', mask='given', weight=0.5),
      soft=dict(**soft, kw=dict(beta=0.9), fuse='mean_probabilities'),
      sampled=dict(
        loss='sampled_reverse_kl', teacher='main', mask='written', weight=0.1
      ),
    ),
    train=dict(steps=4, batch_size=6, seeds=2, members='vmap', eval_every=2),
    report=dict(
      metric='perplexity', compare=dict(better='student', than='teacher')
    ),
  )
  given = configs.plain(configs.complete({**given, **whole}))
  for entry, value in changes.items():
    given = configs.put(given, entry.replace('__', '.'), value)
  return given


class After(threading.Event):
  """Set at one of the times that it is looked at."""

  def __init__(self, looks):
    super().__init__()
    self.looks = looks

  def is_set(self):
    self.looks -= 1
    return self.looks == 0


@contextlib.contextmanager
def silent(stage, steps, over=''):
  yield lambda step, values: None


def trained(given, directory, teachers=None, stop=None):
  """The students alone, as a run trains them, without what comes after.

  Args:
    given: the config.
    directory: of the checkpoints.
    teachers: the folder of their nets.
    stop: as of a run.
  """
  source, (part,) = checks.prepare(given, directory)
  session = jobs.session_of(part, source, directory, silent, stop)
  groups = {
    name: group._replace(variables=stored.load(teachers / name)[0])
    for name, group in jobs.shapes_of(part).items()
  }
  job = jobs.of_arm(part, 'student', source, groups)
  return train_job.train(session, job).stored['student']


def test_a_run_that_is_stopped_goes_on_to_the_last_bit(tmp_path):
  row = jaxkd.run(config(), tmp_path / 'whole')
  teachers = tmp_path / 'whole' / 'nets' / 'teachers'
  broken = config(), tmp_path / 'broken', teachers
  with pytest.raises(pipeline.Stopped, match='after step 1 of 4'):
    trained(*broken, stop=After(1))
  again = trained(*broken)
  whole, _ = stored.load(stored_nets.find_net(tmp_path / 'whole'))
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  (said,) = (n for n in row['notes'] if 'the student writes' in n)
  assert said == (
    'students/student: in each step the student writes up to 4 tokens to each '
    'of 6 rows, in 4 passes of one token each, of which 75% take the place of '
    'the data'
  )
  assert any('reached no stop token' in n for n in row['notes'])


def riddles():
  """Rows that repeat a token, which stands in front of them as a hint."""
  made, random = {}, np.random.default_rng(0)
  for split, size in (('train', 48), ('test', 24)):
    token = random.integers(4, 8, size=(size, 1)).astype(np.int32)
    # The hint, a question, and the answer, which nobody could guess.
    rows = np.concatenate(
      [token, token * 0 + 8, token, token, token * 0 + EOS], 1
    )
    inputs, labels = rows[:, :-1], rows[:, 1:]
    segments = np.ones_like(inputs)
    segments[:, 0] = 0
    place = np.maximum(np.arange(4, dtype=np.int32)[None] - 1, 0)
    made[split] = ArrayExamples(
      {
        'tokens': inputs,
        'segments': segments,
        'positions': np.broadcast_to(place, inputs.shape).copy(),
      },
      labels,
      valid=np.broadcast_to(np.arange(4) > 0, labels.shape).copy(),
      bytes=np.ones_like(labels),
    )
  source = make_source(
    'riddles',
    made,
    0.25,
    classes=tuple('pubeabcdq'),
    fields={'bytes': positions.FIXED},
  )
  return source._replace(vocabulary=9)


def test_a_student_teaches_itself_by_what_its_mean_sees(tmp_path):
  """Privileged information: its running mean is shown the hint."""
  rollout = dict(name='on_policy', kw=dict(length=3, stop=EOS))
  sections = dict(
    data=dict(source=f'{__name__}:riddles', rollout=rollout),
    distill=dict(itself=dict(loss='kl', teacher='average', mask='written')),
    teachers={},
    students=dict(student=dict(**NET, views=dict(average='with_hint'))),
    report=dict(metric='nll', compare=dict(better='student', than='student')),
  )
  own = config(sections, train__average=0.5)
  one = jax.tree.leaves(trained(own, tmp_path / 'own'))
  assert all(np.isfinite(x).all() for x in one)
  blind = configs.put(own, 'students.student.views.average', '')
  other = jax.tree.leaves(trained(blind, tmp_path / 'blind'))
  assert any((x != y).any() for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      dict(distill__labels__mask='valid'),
      r"^distill\.labels\.mask: 'valid' counts labels that the student itself",
    ),
    (
      dict(distill__sampled__mask='valid'),
      r"^distill\.sampled\.mask: 'valid' counts .* write 'written'",
    ),
    (
      dict(data__rollout__kw=dict(length=4, top_p=0.9)),
      r'^distill\.sampled\.loss: what cannot be drawn .* or take reverse_kl',
    ),
    (
      dict(data__rollout__kw=dict(length=11)),
      r'^data\.rollout\.kw\.length: 11 tokens after a prompt of 1 .* for 10',
    ),
    (
      dict(data__rollout__kw=dict(length=4, stop=(EOS, 70_000))),
      r'^data\.rollout\.kw\.stop: 70000 is no token of a vocabulary of',
    ),
    (
      dict(data__rollout__kw=dict(lenth=4)),
      r"^data\.rollout\.kw: there is no option of on_policy 'lenth'",
    ),
    (
      dict(data__rollout__kw=dict(drawn='row')),
      r"^data\.rollout\.kw\.drawn: 'row' should be",
    ),
    (
      dict(
        students__student__model='lstm_language',
        students__student__kw=dict(width=4),
      ),
      r'^data\.rollout\.name: the net .* cannot go on .*such as decoder',
    ),
    (
      dict(teachers__main__cache__outputs=('logits',)),
      r'^data\.rollout\.name: the cached outputs of main',
    ),
  ],
)
def test_what_cannot_be_is_refused_before_the_run(changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    jaxkd.run(config(**changes), tmp_path)
  assert not list(tmp_path.iterdir())
