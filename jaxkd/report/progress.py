"""What the stages of a run tell as they go on, and to whom."""

import contextlib
import functools
import hashlib
import json
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console

from jaxkd import files, lookup, run_files
from jaxkd.data import passes
from jaxkd.errors import Stopped, UserError, blamed, writing
from jaxkd.report import displays, time_left
from jaxkd.run import config as configs
from jaxkd.run import programs

COPIED = 15.0  # seconds between copies of events to a bucket
LOWEST, HIGHEST = '/lowest', '/highest'  # of the members, behind a value's name


class Reporter:
  """Shows what the stages do, and writes it to TensorBoard event files.

  Several may be at work at the same time, each in a thread.

  Args:
    console: where to.
    metric: the metric to show beside the loss.
    writers: ``(stage) -> context manager``, each of which gives a function
      that is called with the steps taken and ``{name: values of the members}``,
      or of a grid ``{name/lowest: value, name/highest: value}``.
      One may have ``tested(stage, values)`` too, for those on the test split.
  """

  def __init__(self, console: Console, metric: str, writers=()):
    self._console = console
    self._metric = metric
    self._writers = list(writers)
    self._display = displays.of(console)
    self._run = time_left.OfRun({})

  def expect(self, stages: Mapping[str, int]) -> None:
    """Takes note of the stages to come, for the time left.

    Args:
      stages: the steps of each, by name.
    """
    self._run = time_left.OfRun(stages)

  def say(self, text: str) -> None:
    """Prints a line."""
    self._console.print(text, style='dim', highlight=False, soft_wrap=True)

  @contextlib.contextmanager
  def stage(self, name: str, steps: int, over: str = '') -> Iterator[Callable]:
    """The function to call with the steps taken and the newest values.

    Args:
      name: of the stage.
      steps: how many it takes.
      over: what the members are seeds of where their mean says nothing, e.g.
        '4 trials' of a grid; the lowest and highest of them are told instead.
    """
    news = {}
    with contextlib.ExitStack() as opened, programs.counted() as made:
      writes = [opened.enter_context(open_(name)) for open_ in self._writers]
      show = opened.enter_context(self._display(name, steps))
      left = time_left.OfStage(steps)
      self._run.begin(name, left)
      opened.callback(self._run.end, name)

      def on_log(step, values):
        if over:
          values = _ranges(values)
        for write in writes:
          write(step, values)
        news.update(self._news(values, over))
        left.news(
          step,
          evaluated=any(name.startswith('validation/') for name in values),
          compiled=made.total,
        )
        words = functools.partial(time_left.said, left, self._run)
        show(step, '  '.join(news.values()), words)

      yield on_log
    if made.compiled:
      self.say(f'{name}: {made}')

  def tested(self, name: str, values: Mapping[str, np.ndarray]) -> None:
    """Writes the metrics of a stage on the test split."""
    for writer in self._writers:
      if hasattr(writer, 'tested'):
        writer.tested(name, values)

  def _news(self, values, over):
    """The newest values that are shown beside the bar, by name."""
    metric = f'validation/{self._metric}'
    found = {}
    for shown, names in (
      ('loss', ('loss', 'train/loss')),
      (self._metric, (metric,)),
    ):
      for name in names:
        if name in values:
          found[shown] = f'{shown} {np.mean(values[name]):.4f}'
    if metric + LOWEST in values:  # trials may have losses of other weights
      lowest, highest = values[metric + LOWEST], values[metric + HIGHEST]
      range_ = f'{lowest:.3f} to {highest:.3f}'
      found[self._metric] = f'{self._metric} {range_} over {over}'
    return found


def writers(
  config: Mapping[str, Any],
  directory: Path,
  check: Callable[[], None] = lambda: None,
) -> list:
  """The writers that a config asks for.

  Args:
    config: of the run.
    directory: their files are below it.
    check: called before each of them writes; raises where the run should end,
      as when it has lost its lock.
  """

  @contextlib.contextmanager
  def checked(stage):
    yield lambda step, values: check()

  events, project = directory / run_files.EVENTS, config['report']['wandb']
  found = [checked, tensorboard(events)]
  if project:
    found.append(wandb(project, events, dict(config)))
  return found


def tensorboard(directory: Path) -> Callable:
  """A writer of TensorBoard event files; no TensorFlow is needed.

  It writes at once: the thread of tensorboardX's own writer would die of a
  full disk without a word, and then nobody empties its queue. Nothing can be
  added to a file in a bucket: there it is written on a local disk and copied
  whole, at most every `COPIED` seconds and at the end.
  """

  @contextlib.contextmanager
  def open_(stage):
    from tensorboardX import RecordWriter  # slow to import
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    folder = directory / stage
    name = f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}'

    def add(**fields):
      with writing(folder):
        writer.write(Event(wall_time=time.time(), **fields).SerializeToString())
        writer.flush()
        copy()

    def write(step, values):
      found = [
        Summary.Value(tag=name, simple_value=value)
        for name, value in _means(values).items()
      ]
      add(step=step, summary=Summary(value=found))

    with contextlib.ExitStack() as opened:
      with writing(folder):
        place, copy = opened.enter_context(_events_file(folder / name))
        writer = RecordWriter(str(place))
      try:
        add(file_version='brain.Event:2')
        yield write
      finally:
        with contextlib.suppress(OSError):  # all that counts is flushed
          writer.close()

  return open_


@contextlib.contextmanager
def _events_file(file: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
  """Where to write a file that grows, and what to call after each addition."""
  if not files.is_remote(file):
    files.make_folder(file.parent)
    yield file, lambda: None
    return
  with tempfile.TemporaryDirectory(prefix='jaxkd-') as folder:
    draft, copied = Path(folder, file.name), -COPIED

    def copy():
      nonlocal copied
      if time.monotonic() - copied >= COPIED:
        file.write_bytes(draft.read_bytes())
        copied = time.monotonic()

    yield draft, copy
    copied = -COPIED
    with writing(file):
      copy()


def check_wandb(project: str) -> ModuleType | None:
  """The package wandb where a project is named.

  Raises:
    UserError: it is not installed.
  """
  if not project:
    return None
  client = lookup.package('wandb', extra='wandb', at='report.wandb')
  if not hasattr(client, 'init'):  # a folder of that name, as wandb makes them
    raise UserError(
      'report.wandb: a folder wandb/ is found in place of the package; pip '
      "install 'jaxkd[wandb]', or leave the entry empty"
    )
  return client


def wandb(project: str, directory: Path, config: dict) -> '_Wandb':
  """A writer to Weights & Biases, one run for each population that trains.

  Args:
    project: of Weights & Biases.
    directory: for its files; a run that goes on finds there which one it is.
    config: of the run of jaxkd.

  Raises:
    UserError: the package is not installed.
  """
  return _Wandb(check_wandb(project), project, directory, config)


class _Wandb:
  """Writes to Weights & Biases.

  The runs of a workdir are a group. A run that was cut short goes on as the
  same one, by a key that lies with the files: without it, they begin anew.
  Beside the mean over the members stands each of them, as ``train/loss/0``, in
  the order of the seeds.
  """

  def __init__(self, client, project: str, directory: Path, config: dict):
    self._client, self._project = client, project
    self._directory, self._config = directory, config

  @contextlib.contextmanager
  def __call__(self, stage: str) -> Iterator[Callable]:
    if not _JOBS.match(stage):  # what only counts, such as cached outputs
      yield lambda step, values: None
      return
    with self._run(stage) as run:
      first = run.step  # what was written before the run was cut short stays

      def write(step, values):
        if step >= first:
          run.log(self._flat(values), step=step)

      yield write

  def tested(self, stage: str, values: Mapping[str, np.ndarray]) -> None:
    """Puts the metrics of a population on the test split into its summary."""
    with self._run(stage) as run:
      run.summary.update(self._flat(values))

  def _run(self, stage: str):
    """The run of a population, new or as it was left."""
    key = self._key()
    kind = _JOBS.match(stage)[1]
    with blamed('report.wandb'):
      return self._client.init(
        project=self._project,
        id=hashlib.sha256(f'{key}/{stage}'.encode()).hexdigest()[:16],
        name=f'{self._config["name"]}/{stage}',
        group=f'{self._config["name"]}-{key}',
        job_type=kind,
        resume='allow',
        reinit='create_new',  # beside those of jobs at the same time
        dir=None if files.is_remote(self._directory) else str(self._directory),
        config={**json.loads(configs.as_json(self._config)), 'job': stage},
      )

  def _key(self) -> str:
    """What tells the runs of a workdir from all others."""
    file = self._directory / 'wandb' / 'key'
    with _LOCK, writing(file.parent):
      if not file.exists():
        files.write_text(file, uuid.uuid4().hex[:8])
      return file.read_text()

  @staticmethod
  def _flat(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over the members of each value, and each by its number."""
    found = _means(values)
    for name, value in values.items():
      members = np.ravel(value)
      if len(members) > 1:
        found |= {f'{name}/{i}': float(x) for i, x in enumerate(members)}
    return found


# Stages that are populations, of a round or of the only one.
_JOBS = re.compile(
  r'(?!outputs/|generated/)(?:\w+/)?(teachers|students|tuning)/'
)
_LOCK = threading.Lock()


def _ranges(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {
    name + end: of(value)
    for name, value in values.items()
    for end, of in ((LOWEST, np.min), (HIGHEST, np.max))
  }


def _means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
  return {name: float(np.mean(value)) for name, value in values.items()}


def shows_passes(
  console: Console, stop: threading.Event | None = None
) -> contextlib.AbstractContextManager:
  """Shows the progress of reading all data before anything trains.

  Args:
    console: where to print.
    stop: when set, a pass that takes long raises `jaxkd.errors.Stopped`.
  """
  stage = Reporter(console, '').stage

  @contextlib.contextmanager
  def stoppable(name, steps):
    with stage(name, steps) as show:

      def taken(step, values):
        show(step, values)
        if stop is not None and stop.is_set():
          raise Stopped(f'stopped while {name}')

      yield taken

  return passes.shown_by(stoppable)
