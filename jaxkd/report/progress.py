"""Progress of the stages: bars on a terminal, a line now and then elsewhere."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

from jaxkd.errors import UserError, blamed

LINES = 4  # of each stage, where there is no terminal


class Reporter:
  """Shows what the stages do, and writes it to TensorBoard event files.

  Several may be at work at the same time, each in a thread.

  Args:
    console: where to.
    metric: the metric to show beside the loss.
    writers: ``(stage) -> context manager``, each of which gives a function
      that is called with the steps taken and ``{name: mean over members}``.
  """

  def __init__(self, console: Console, metric: str, writers=()):
    self._console = console
    self._metric = metric
    self._writers = list(writers)
    self._lock = threading.Lock()
    self._bars, self._shown = None, 0

  def say(self, text: str) -> None:
    """Prints a line."""
    self._console.print(text, style='dim', highlight=False, soft_wrap=True)

  @contextlib.contextmanager
  def stage(self, name: str, steps: int) -> Iterator[Callable]:
    """The function to call with the steps taken and the newest values."""
    with contextlib.ExitStack() as opened:
      writes = [opened.enter_context(open_(name)) for open_ in self._writers]
      shown = self._bar if self._console.is_terminal else self._lines
      writes.append(opened.enter_context(shown(name, steps)))

      def on_log(step, values):
        means = {name: float(np.mean(value)) for name, value in values.items()}
        for write in writes:
          write(step, means)

      yield on_log

  @contextlib.contextmanager
  def _bar(self, name, steps):
    with self._display() as bars:
      task = bars.add_task(name, total=steps, news='compiling')
      news = {}

      def show(step, values):
        news.update(self._news(values))
        text = '  '.join(news.values())
        bars.update(task, completed=step, news=text)

      yield show
      if not bars.tasks[task].completed:
        bars.update(task, completed=steps, news='done before')

  @contextlib.contextmanager
  def _display(self):
    """The bars on the terminal, which has room for one display at a time."""
    with self._lock:
      if not self._shown:
        self._bars = Progress(
          TextColumn('{task.description:<24}'),
          BarColumn(bar_width=24),
          MofNCompleteColumn(),
          TextColumn('{task.fields[news]}'),
          TimeRemainingColumn(),
          console=self._console,
        )
        self._bars.start()
      self._shown += 1
    try:
      yield self._bars
    finally:
      with self._lock:
        self._shown -= 1
        if not self._shown:
          self._bars.stop()

  @contextlib.contextmanager
  def _lines(self, name, steps):
    begun = time.perf_counter()
    news = {}
    due = iter([steps * part // LINES for part in range(1, LINES + 1)])
    following = [next(due)]

    def show(step, values):
      news.update(self._news(values))
      if step < following[0]:
        return
      while step >= following[0] and step < steps:
        following[0] = next(due)
      text = '  '.join(news.values())
      seconds = time.perf_counter() - begun
      self._console.print(
        f'{name:<24} {step:>6}/{steps}  {text}  {seconds:.0f} s',
        highlight=False,
        soft_wrap=True,
      )

    yield show

  def _news(self, values):
    """What is worth showing of the newest values."""
    found = {}
    for shown, names in (
      ('loss', ('loss', 'train/loss')),
      (self._metric, (f'validation/{self._metric}',)),
    ):
      for name in names:
        if name in values:
          found[shown] = f'{shown} {values[name]:.4f}'
    return found


def tensorboard(directory: Path) -> Callable:
  """A writer of TensorBoard event files; no TensorFlow is needed.

  It writes at once: the thread of tensorboardX's own writer would die of a
  full disk without a word, and then nobody empties its queue.
  """

  @contextlib.contextmanager
  def open_(stage):
    from tensorboardX import RecordWriter  # slow to import
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    folder = directory / stage
    name = f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}'

    def add(**fields):
      with _can_be_written(folder):
        writer.write(Event(wall_time=time.time(), **fields).SerializeToString())
        writer.flush()

    def write(step, values):
      found = [
        Summary.Value(tag=name, simple_value=value)
        for name, value in values.items()
      ]
      add(step=step, summary=Summary(value=found))

    with _can_be_written(folder):
      folder.mkdir(parents=True, exist_ok=True)
      writer = RecordWriter(str(folder / name))
    try:
      add(file_version='brain.Event:2')
      yield write
    finally:
      with contextlib.suppress(OSError):  # all that counts is flushed
        writer.close()

  return open_


@contextlib.contextmanager
def _can_be_written(folder: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{folder} cannot be written: {error.strerror}; make room there or '
      'choose another directory'
    ) from error


def wandb(project: str, directory: Path, config: dict) -> Callable:
  """A writer to Weights & Biases, one run for each stage.

  Raises:
    UserError: the package is not installed.
  """
  try:
    import wandb as client
  except ImportError as error:
    raise UserError(
      "report.wandb: the package wandb is not installed; pip install 'jaxkd"
      "[wandb]', or leave the entry empty"
    ) from error

  @contextlib.contextmanager
  def open_(stage):
    with blamed('report.wandb'):
      run = client.init(
        project=project,
        name=f'{config["name"]}/{stage}',
        dir=str(directory),
        config=config,
        reinit='create_new',  # beside those of stages at the same time
      )
    with run:
      yield lambda step, values: run.log(values, step=step)

  return open_
