"""How long training will still take: the stage at hand, and the run."""

import math
import threading
import time
from collections.abc import Callable, Mapping

_MINUTES, _HOURS = 100.0, 100 * 60.0  # seconds from which on we count in these


class OfStage:
  """The time that a stage has left, from the times at which it was heard of.

  A step takes the mean of the steps so far, saving them included. An evaluation
  takes what it adds to its steps, the mean of those so far, and is expected as
  often as it has come. What comes before the first news, and what the compiler
  takes, says nothing of the steps to come and is left out.

  Args:
    steps: how many the stage takes.
    clock: gives seconds.
  """

  def __init__(
    self, steps: int, clock: Callable[[], float] = time.perf_counter
  ):
    self.steps, self._clock = steps, clock
    self.step, self._at, self._compiled = 0, None, 0.0
    self._plain, self._evaluated = [], []  # (steps, seconds) between news
    self._period = 0  # steps from an evaluation to the next
    self._before = 0  # steps that an earlier process has done, about

  def news(self, step: int, *, evaluated: bool, compiled: float) -> None:
    """Takes note that some steps are done.

    Args:
      step: how many, from the beginning.
      evaluated: whether the nets were evaluated after the last of them.
      compiled: the seconds of compiling in this stage so far.
    """
    now = self._clock()
    if self._at is not None:
      seconds = now - self._at - (compiled - self._compiled)
      found = step - self.step, max(seconds, 0.0)
      if not self._plain and not self._evaluated:
        self._before = max(0, self.step - found[0])
      (self._evaluated if evaluated else self._plain).append(found)
    self.step, self._at, self._compiled = step, now, compiled
    if evaluated and step < self.steps:  # the last may come out of turn
      self._period = math.gcd(self._period, step)

  @property
  def seconds(self) -> float | None:
    """The time left from now on; None if nothing is known yet."""
    intervals = self._plain + self._evaluated
    taken = sum(steps for steps, _ in intervals)
    if not taken:
      return None
    each, extra = sum(seconds for _, seconds in intervals) / taken, 0.0
    if self._plain and self._evaluated:
      taken = sum(steps for steps, _ in self._plain)
      each = sum(seconds for _, seconds in self._plain) / taken
      added = [seconds - steps * each for steps, seconds in self._evaluated]
      extra = max(0.0, sum(added) / len(added))
    left = each * (self.steps - self.step) + extra * self._evaluations()
    return max(0.0, left - (self._clock() - self._at))

  @property
  def seconds_before(self) -> float:
    """What the steps of an earlier process would have taken in this one."""
    intervals = self._plain + self._evaluated
    taken = sum(steps for steps, _ in intervals)
    seconds = sum(seconds for _, seconds in intervals)
    return self._before * seconds / taken if taken else 0.0

  def _evaluations(self) -> int:
    """How many are to come; there is one at the end in any case."""
    if self.step >= self.steps:
      return 0
    if not self._period:
      return 1
    whole = self.steps // self._period - self.step // self._period
    return whole + (self.steps % self._period > 0)


class OfRun:
  """The time that a run has left, whose stages are known before.

  A stage that has not begun takes as long for each of its steps as the stages
  of its kind have taken so far, teachers or students, with all that comes
  before the steps and after them: compiling, tests, files.

  Args:
    planned: the steps of each stage, by name.
    clock: gives seconds.
  """

  def __init__(
    self,
    planned: Mapping[str, int],
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._waiting, self._clock = dict(planned), clock
    self._open: dict[str, tuple[OfStage, float]] = {}
    self._taken: dict[str, list[float]] = {}  # kind -> steps, seconds
    self._last = '', 0.0  # the kind of the last stage, and when it ended
    self._lock = threading.RLock()  # stages may train side by side

  def begin(self, name: str, stage: OfStage) -> None:
    """Takes note of a stage that begins; others are ignored."""
    if name not in self._waiting:
      return
    now = self._clock()
    with self._lock:
      kind, ended = self._last
      if kind in self._taken and not self._open:
        self._taken[kind][1] += now - ended
      del self._waiting[name]
      self._open[name] = stage, now

  def end(self, name: str) -> None:
    """Takes note of the end of a stage."""
    if name not in self._open:
      return
    now = self._clock()
    with self._lock:
      stage, begun = self._open.pop(name)
      self._last = _kind(name), now
      if stage.step:  # else it was done by an earlier process
        taken = self._taken.setdefault(_kind(name), [0.0, 0.0])
        taken[0] += stage.steps
        taken[1] += now - begun + stage.seconds_before

  @property
  def stages(self) -> int:
    """How many have not begun."""
    return len(self._waiting)

  @property
  def seconds(self) -> float | None:
    """The time left from now on; None if a part of it is not known."""
    with self._lock:
      left = [stage.seconds for stage, _ in self._open.values()]
      waiting = [
        self._each(_kind(name)) * steps for name, steps in self._waiting.items()
      ]
    if None in left or any(math.isnan(each) for each in waiting):
      return None
    return max(left, default=0.0) + sum(waiting)

  def _each(self, kind: str) -> float:
    """The seconds of a step of a kind; NaN if they are not known."""
    if kind in self._taken:
      steps, seconds = self._taken[kind]
      return seconds / steps
    for name, (stage, begun) in self._open.items():
      if _kind(name) == kind and stage.seconds is not None:
        seconds = self._clock() - begun + stage.seconds
        return (seconds + stage.seconds_before) / stage.steps
    return math.nan


def said(stage: OfStage, run: OfRun) -> str:
  """The time left in words; empty where nothing is known.

  Examples::

    40 s left
    40 s left, 12 min of the run
    40 s left, then 3 more stages
  """
  seconds = stage.seconds
  if seconds is None or stage.step >= stage.steps:
    return ''
  words = f'{duration(seconds)} left'
  whole = run.seconds
  if not run.stages:
    return words
  if whole is None:
    more = 'stage' if run.stages == 1 else 'stages'
    return f'{words}, then {run.stages} more {more}'
  return f'{words}, {duration(whole)} of the run'


def duration(seconds: float) -> str:
  """A time in a unit that suits it.

  Examples:
    >>> duration(42.3), duration(600), duration(3 * 3600)
    ('42 s', '10 min', '3.0 h')
  """
  if seconds < _MINUTES:
    return f'{seconds:.0f} s'
  if seconds < _HOURS:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def _kind(name: str) -> str:
  """What a stage trains, 'teachers' or 'students'."""
  return name.split('/')[-2] if '/' in name else name
