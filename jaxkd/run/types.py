"""The types of a run: its session, a job, and what came of it."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxkd import run_files
from jaxkd.data.augment import Augment
from jaxkd.data.examples import Examples
from jaxkd.data.sources import Source
from jaxkd.distill.roles import Group, Role
from jaxkd.memo import Memo
from jaxkd.train.execution import Execution
from jaxkd.types import Metric


class Session(NamedTuple):
  """What all stages of a run have in common.

  Attributes:
    source: the data.
    metrics: the metrics of every net, by name.
    directory: of the checkpoints of all stages.
    progress: ``(stage, steps, over='') -> context manager`` giving the
      function that is called with the steps taken and the newest values; see
      `jaxkd.report.progress.Reporter.stage`.
    stop: set when the run should save its state and leave.
    say: prints a line.
    learners: what was made so far: learners, of which equal jobs share one, so
      that its step is traced once, and what else is dear to make again.
    decode: a further measurement of nets, e.g. BLEU of decoded text; see
      `jaxkd.tasks`.
    logits: what the logits of the task are; see there.
  """

  source: Source
  metrics: Mapping[str, Metric]
  directory: Path
  progress: Callable
  stop: threading.Event | None = None
  say: Callable[[str], None] = lambda text: None
  learners: Memo | None = None
  decode: Callable[..., dict] | None = None
  logits: str = 'softmax'

  @property
  def outputs(self) -> Path:
    """The folder for cached outputs whose entry names none."""
    return self.directory.parent / run_files.OUTPUTS

  @property
  def memo(self) -> Memo:
    """What was made so far; an empty one where nothing is kept."""
    return Memo() if self.learners is None else self.learners


class Job(NamedTuple):
  """One population to train.

  Attributes:
    stage: its name, e.g. 'students/distilled'.
    students: the roles that train.
    groups: the frozen groups of teachers.
    distill: the complete terms.
    train: the complete section of how to train.
    seeds: of each member.
    weights: sampling weights over the training examples, [members, N].
    order: 'own' or 'shared'.
    together: how many examples of a class follow one another.
    augment: what is done to the examples of a batch before all views.
    rollout: the config entry `data.rollout`; empty for none.
    hyper: config entry -> the value of each member.
    at: the entry of the config whose `train` this is, e.g. 'teachers.main.'.
    given: net -> values of its initial state for each member, [members, ...].
    examples: generated examples, which replace the data; None for the data.
    over: for messages, what its members vary besides the seed, e.g. trials.
  """

  stage: str
  students: dict[str, Role]
  groups: dict[str, Group]
  distill: dict[str, Any]
  train: dict[str, Any]
  seeds: list[int]
  weights: np.ndarray
  order: str = 'own'
  together: int = 1
  augment: Augment = Augment()
  rollout: Mapping[str, Any] = MappingProxyType({})
  hyper: dict[str, list[float]] | None = None
  at: str = ''
  given: Mapping[str, dict] = MappingProxyType({})
  examples: Examples | None = None
  over: str = ''


class BestSteps(NamedTuple):
  """At which steps the nets of a population were best on the validation split.

  Attributes:
    metric: by which.
    steps: of each member, at which step.
    ended: the last step that was taken.
    of: how many were to be.
  """

  metric: str
  steps: tuple[int, ...]
  ended: int
  of: int


class Trained(NamedTuple):
  """A population that has been trained.

  Attributes:
    stored: net -> variables with a leading axis of members, as they are
      stored; see `jaxkd.students.stored`.
    history: the metrics along the way; see `jaxkd.train.fit.Result`.
    seconds: time spent in steps.
    execution: how it ran.
    best: at which steps the nets were best; None for those of the last step.
    notes: for the row.
  """

  stored: dict[str, dict]
  history: dict
  seconds: float
  execution: Execution
  best: BestSteps | None = None
  notes: tuple[str, ...] = ()


class Stage(NamedTuple):
  """A finished population and its results.

  Attributes:
    name: of the arm, or of the teachers, in the row.
    history: metrics along the way.
    seconds: time spent in its steps.
    execution: how it ran.
    test: metric -> the value of each member.
    bytes: the size of each of its nets that is quantised or pruned.
    job: the name of the job that trained it; empty if none did.
    best: see `Trained`.
    notes: for the row.
  """

  name: str
  history: dict
  seconds: float
  execution: Execution
  test: dict[str, np.ndarray]
  bytes: Mapping[str, int] = MappingProxyType({})
  job: str = ''
  best: BestSteps | None = None
  notes: tuple[str, ...] = ()
