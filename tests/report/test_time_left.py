"""The time left is right, by a clock that the tests turn."""

import pytest

from jaxkd.report import time_left


class Clock:
  now = 1000.0

  def __call__(self):
    return self.now


class Training:
  """A stage whose steps, evaluations and compiling take known times."""

  def __init__(self, clock, steps, *, step_s=0.1, evaluation_s=0.0, every=0,
               log=10, compile_s=0.0):  # fmt: skip
    self.clock, self.steps, self.log = clock, steps, log
    self.step_s, self.evaluation_s, self.every = step_s, evaluation_s, every
    self.compile_s, self.compiled = compile_s, 0.0
    self.stage = time_left.OfStage(steps, clock)

  def take(self, upto, start=0):
    """Trains; yields the step, the estimate and the truth at each news."""
    told = []
    for step in range(start + 1, upto + 1):
      evaluates = self.every and (step % self.every == 0 or step == self.steps)
      if not self.compiled:
        self.compiled = self.compile_s
        self.clock.now += self.compile_s
      self.clock.now += self.step_s + evaluates * self.evaluation_s
      if step % self.log == 0 or evaluates:
        self.stage.news(step, evaluated=bool(evaluates), compiled=self.compiled)
        told.append((step, self.stage.seconds, self.truth(step)))
    return told

  def truth(self, step):
    evaluations = sum(
      bool(self.every) and (s % self.every == 0 or s == self.steps)
      for s in range(step + 1, self.steps + 1)
    )
    return (self.steps - step) * self.step_s + evaluations * self.evaluation_s


def test_nothing_is_said_before_anything_is_known():
  clock = Clock()
  training = Training(clock, 100, compile_s=60.0)
  assert training.stage.seconds is None
  ((_, seconds, _),) = training.take(10)
  assert seconds is None


def test_compiling_does_not_count():
  training = Training(Clock(), 1000, compile_s=60.0)
  for step, seconds, truth in training.take(1000)[1:]:
    assert seconds == pytest.approx(truth, abs=1e-6), step


def test_what_is_compiled_later_does_not_count_either():
  clock = Clock()
  stage = time_left.OfStage(30, clock)
  for step, seconds, compiled in ((10, 50, 40), (20, 21, 60), (25, 0.5, 60)):
    clock.now += seconds
    stage.news(step, evaluated=step == 20, compiled=float(compiled))
  assert stage.seconds == pytest.approx(0.5)


@pytest.mark.parametrize('every', [10, 70, 100, 250, 1000])
@pytest.mark.parametrize('start', [0, 40])
def test_evaluations_count_as_often_as_they_come(every, start):
  training = Training(Clock(), 1000, every=every, evaluation_s=7.0)
  seen = 0
  for step, seconds, truth in training.take(1000, start)[2:]:
    seen += step % every == 0
    if seen >= 2:
      assert seconds == pytest.approx(truth, abs=1e-6), step


def test_between_news_the_time_goes_on():
  clock = Clock()
  training = Training(clock, 100)
  training.take(50)
  clock.now += 2.0
  assert training.stage.seconds == pytest.approx(3.0)
  clock.now += 20.0
  assert training.stage.seconds == 0.0


def test_the_time_of_a_run_of_several_stages():
  clock = Clock()
  planned = {'teachers/main': 100, 'students/a': 200, 'students/b': 400}
  run = time_left.OfRun(planned, clock)
  teacher = Training(clock, 100, step_s=1.0)
  run.begin('teachers/main', teacher.stage)
  assert time_left.said(teacher.stage, run) == ''
  teacher.take(50)
  # Nobody knows yet how long students take.
  said = time_left.said(teacher.stage, run)
  assert said == '50 s left, then 2 more stages'
  teacher.take(100, 50)
  run.end('teachers/main')
  clock.now += 5.0  # the teachers are tested
  one = Training(clock, 200, step_s=0.5, compile_s=20.0)
  run.begin('students/a', one.stage)
  one.take(100)
  # 50 s of its own, and twice what it takes with its compiling.
  said = time_left.said(one.stage, run)
  assert said == '50 s left, 5 min of the run'
  assert run.seconds == pytest.approx(50.0 + 2 * 120.0)
  one.take(200, 100)
  run.end('students/a')
  clock.now += 10.0
  two = Training(clock, 400, step_s=0.5)
  run.begin('students/b', two.stage)
  two.take(220)
  assert time_left.said(two.stage, run) == '90 s left'
  two.take(400, 220)
  assert time_left.said(two.stage, run) == ''


def test_stages_that_were_done_before_say_nothing_of_others():
  clock = Clock()
  run = time_left.OfRun({'students/a': 100, 'students/b': 100}, clock)
  run.begin('students/a', time_left.OfStage(100, clock))
  run.end('students/a')
  two = Training(clock, 100)
  run.begin('students/b', two.stage)
  two.take(50)
  assert run.seconds == pytest.approx(5.0)
  run.begin('outputs/main', two.stage)  # which was not planned
  run.end('outputs/main')
  assert run.seconds == pytest.approx(5.0)


@pytest.mark.parametrize('open_', [True, False])
def test_a_resumed_stage_is_not_taken_for_a_short_one(open_):
  clock = Clock()
  run = time_left.OfRun({'students/a': 1000, 'students/b': 1000}, clock)
  one = Training(clock, 1000, compile_s=60.0)
  run.begin('students/a', one.stage)
  one.take(950 if open_ else 1000, 900)
  if not open_:
    run.end('students/a')
  # The second takes 1000 steps of 0.1 s, and compiles too.
  assert run.seconds == pytest.approx(5.0 * open_ + 100.0 + 60.0)


def test_of_stages_at_the_same_time_the_longest_counts():
  clock = Clock()
  run = time_left.OfRun({'teachers/a': 100, 'teachers/b': 100}, clock)
  slow, fast = Training(clock, 100, step_s=2.0), Training(clock, 100)
  run.begin('teachers/a', slow.stage)
  run.begin('teachers/b', fast.stage)
  slow.take(20)
  fast.take(20)
  assert run.seconds == pytest.approx(160.0 - 2.0)


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [
    (0, '0 s'),
    (99, '99 s'),
    (100, '2 min'),
    (5999, '100 min'),
    (9e4, '25.0 h'),
  ],
)
def test_durations_in_words(seconds, words):
  assert time_left.duration(seconds) == words
