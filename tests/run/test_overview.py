"""What is said of a run before it trains."""

import io

import pytest
from flax import linen, nnx
from rich.console import Console

from jaxkd.run import checks, overview, pipeline
from jaxkd.run import config as configs


class Still(linen.Module):
  """Never hears that it trains."""

  num_classes: int

  @linen.compact
  def __call__(self, x, enabled: bool = False):
    x = linen.Dense(self.num_classes, name='linear')(x)
    x = linen.BatchNorm(use_running_average=not enabled, name='norm')(x)
    return linen.Dropout(0.5, deterministic=not enabled, name='drop')(x)


class Told(nnx.Module):
  """Hears of it in both ways."""

  def __init__(self, num_classes, momentum=0.9, *, rngs):
    self.linear = nnx.Linear(4, num_classes, rngs=rngs)
    self.norm = nnx.BatchNorm(num_classes, momentum=momentum, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x, training):
    return self.dropout(self.norm(self.linear(x)), deterministic=not training)


def complete(student, **changes):
  arms = changes.get('arms', dict(student={}))
  given = dict(
    data=dict(source='synthetic', kw=dict(shape=(4,), num_classes=3, size=120)),
    students=dict(student=student),
    distill=dict(labels=dict(loss='cross_entropy')),
    arms=arms,
    train=dict(steps=2, seeds=2, batch_size=8, members='vmap'),
    report=dict(compare=dict(better=[*arms][-1], than='student')),
  )
  return configs.plain(configs.complete({**given, **changes}))


STATISTICS = 'students.student: the statistics of norm do not move in training;'
DROPOUT = 'students.student: no unit is dropped in training by drop;'


@pytest.mark.parametrize(
  ('student', 'said'),
  [
    (dict(model=f'{__name__}:Still'), [STATISTICS, DROPOUT]),
    (dict(model=f'{__name__}:Still', freeze='norm|linear/bias'), [DROPOUT]),
    (dict(model=f'{__name__}:Told'), []),
    (dict(model=f'{__name__}:Told', kw=dict(momentum=1.0)), []),
    (dict(model='mlp', kw=dict(dropout=0.1)), []),
  ],
)
def test_layers_that_are_not_told_that_they_train(student, said, tmp_path):
  _, rounds = checks.prepare(complete(student), tmp_path)
  lines = overview.idle(rounds)
  assert len(lines) == len(said)
  for line, start in zip(lines, said, strict=True):
    assert line.startswith(start)
    assert line.endswith('let the model take the argument train and pass it on')


def test_a_net_is_told_of_once_for_all_arms_and_in_the_row(tmp_path):
  config = complete(
    dict(model=f'{__name__}:Still'), arms=dict(student={}, again={})
  )
  printed = io.StringIO()
  console = Console(file=printed, width=60)
  row = pipeline.run(config, tmp_path / 'run', console=console)
  before = printed.getvalue().partition('students/')[0]
  for start in (STATISTICS, DROPOUT):
    assert before.count(start) == 1
    assert sum(note.startswith(start) for note in row['notes']) == 1


def test_parts_of_a_batch_are_told_once_for_all_that_take_it_so(tmp_path):
  config = complete(
    dict(model='mlp'),
    arms=dict(student={}, again={}, other=dict(train=dict(accumulate=1))),
    train=dict(steps=2, seeds=1, batch_size=8, accumulate=2),
  )
  _, rounds = checks.prepare(config, tmp_path)
  assert overview.notes(rounds) == [
    'students/again, students/student: a batch of 8 is taken in 2 parts; '
    'BatchNorm has the statistics of a part, and dropout draws for each part'
  ]
