"""Progress of the stages: bars on a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

LINES = 4  # of each stage, where there is no terminal


class Reporter:
  """Shows what the stages do, and writes it to TensorBoard event files.

  Args:
    console: where to.
    metric: the metric to show beside the loss.
    writers: ``(stage, step, {name: mean over the members})``, each called
      with all that is measured.
  """

  def __init__(self, console: Console, metric: str, writers=()):
    self._console = console
    self._metric = metric
    self._writers = list(writers)

  @contextlib.contextmanager
  def stage(self, name: str, steps: int) -> Iterator[Callable]:
    """The function to call with the steps taken and the newest values."""
    if self._console.is_terminal:
      with self._bar(name, steps) as show:
        yield self._wrap(name, show)
    else:
      yield self._wrap(name, self._lines(name, steps))

  def _wrap(self, stage, show):
    def on_log(step, values):
      means = {name: float(np.mean(value)) for name, value in values.items()}
      for write in self._writers:
        write(stage, step, means)
      show(step, means)

    return on_log

  @contextlib.contextmanager
  def _bar(self, name, steps):
    progress = Progress(
      TextColumn('{task.description:<24}'),
      BarColumn(bar_width=24),
      MofNCompleteColumn(),
      TextColumn('{task.fields[news]}'),
      TimeRemainingColumn(),
      console=self._console,
    )
    task = progress.add_task(name, total=steps, news='compiling')
    news = {}

    def show(step, values):
      news.update(self._news(values))
      text = '  '.join(news.values())
      progress.update(task, completed=step, news=text)

    with progress:
      yield show
      if not news:
        progress.update(task, completed=steps, news='done before')

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

    return show

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


def tensorboard(directory) -> Callable:
  """A writer of TensorBoard event files; no TensorFlow is needed."""
  from tensorboardX import SummaryWriter  # slow to import

  writers = {}

  def write(stage, step, values):
    if stage not in writers:
      writers[stage] = SummaryWriter(str(directory / stage))
    for name, value in values.items():
      writers[stage].add_scalar(name, value, step)
    writers[stage].flush()

  return write


def wandb(project: str, directory, config: dict) -> Callable:
  """A writer to Weights & Biases.

  Raises:
    UserError: the package is not installed.
  """
  from jaxkd.errors import UserError

  try:
    import wandb as client
  except ImportError as error:
    raise UserError(
      "report.wandb: the package wandb is not installed; pip install 'jaxkd"
      "[wandb]', or leave the entry empty"
    ) from error
  run = client.init(project=project, dir=str(directory), config=config)

  def write(stage, step, values):
    run.log({f'{stage}/{k}': v for k, v in values.items()} | {'step': step})

  return write
