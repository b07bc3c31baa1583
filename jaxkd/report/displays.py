"""How progress is shown: on a terminal, in a notebook, in a file of lines.

A display is ``display(name, steps) -> context manager``, which gives a function
``show(step, news, left)``: the steps taken, the newest values in words, and a
function that gives the time left in words. Several may be open at the same
time, each in a thread.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  ProgressColumn,
  TextColumn,
)
from rich.table import Column
from rich.text import Text

EVERY = 30.0  # seconds between two lines of a stage, at least
_BAR = 24  # characters
_DONE_BEFORE = 'done before'


def of(console: Console) -> Callable:
  """The display that suits what a console writes to."""
  if console.is_jupyter and (shown := _notebook()):
    return Notebook(shown)
  if console.is_terminal and not console.is_dumb_terminal:
    return Bars(console)
  return Lines(console)


class Lines:
  """A line now and then, without control codes.

  There is one when a stage is first heard of, one every `EVERY` seconds and one
  at its end.
  """

  def __init__(
    self, console: Console, clock: Callable[[], float] = time.perf_counter
  ):
    self._console, self._clock = console, clock

  @contextlib.contextmanager
  def __call__(self, name: str, steps: int) -> Iterator[Callable]:
    """Shows a stage."""
    begun, last, unsaid = self._clock(), None, None

    def say(step, news, left):
      seconds = self._clock() - begun
      self._console.print(
        f'{name:<24} {step:>6}/{steps}  {_said(news, seconds, left)}',
        highlight=False,
        markup=False,
        soft_wrap=True,
      )

    def show(step, news, left):
      nonlocal last, unsaid
      now = self._clock()
      if last is not None and now - last < EVERY and step < steps:
        unsaid = step, news
        return
      last, unsaid = now, None
      say(step, news, left)

    yield show
    if unsaid:  # it has ended before its last step
      say(*unsaid, str)


class Bars:
  """Bars at the bottom of a terminal; all stages share one display."""

  def __init__(self, console: Console):
    self._console, self._lock = console, threading.Lock()
    self._bars, self._shown = None, 0

  @contextlib.contextmanager
  def __call__(self, name: str, steps: int) -> Iterator[Callable]:
    """Shows a stage."""
    with self._display() as bars:
      task = bars.add_task(name, total=steps, news='compiling', left=str)

      def show(step, news, left):
        bars.update(task, completed=step, news=news, left=left)

      yield show
      if not bars.tasks[task].completed:
        bars.update(task, completed=steps, news=_DONE_BEFORE)
      bars.update(task, left=str)  # none, also if it has ended early

  @contextlib.contextmanager
  def _display(self):
    with self._lock:
      if not self._shown:
        self._bars = Progress(
          TextColumn('{task.description:<20}'),
          BarColumn(bar_width=_BAR),
          MofNCompleteColumn(table_column=Column(no_wrap=True)),
          TextColumn('{task.fields[news]}'),
          _Left(table_column=Column(no_wrap=True)),
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


class _Left(ProgressColumn):
  """The time left, asked for whenever the bars are drawn."""

  def render(self, task: Any) -> Text:
    return Text(task.fields['left'](), style='progress.remaining')


class Notebook:
  """A line for each stage, written again as it goes on; no widgets.

  Args:
    display: ``(text) -> handle``, whose ``update(text)`` replaces the text.
  """

  def __init__(
    self,
    display: Callable,
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._display, self._clock = display, clock

  @contextlib.contextmanager
  def __call__(self, name: str, steps: int) -> Iterator[Callable]:
    """Shows a stage."""
    begun, last, newest = self._clock(), -1.0, None
    handle = self._display(f'{name:<24} {"":{_BAR}}  compiling')

    def say(step, news, left):
      full = _BAR * step // steps
      bar = f'{"━" * full}{"╌" * (_BAR - full)}'
      words = _said(news, self._clock() - begun, left)
      handle.update(f'{name:<24} {bar}  {step}/{steps}  {words}')

    def show(step, news, left):
      nonlocal last, newest
      now, newest = self._clock(), (step, news)
      if now - last < 0.5 and step < steps:  # a browser can take no more
        return
      last = now
      say(step, news, left)

    yield show
    if not newest:
      handle.update(f'{name:<24} {"━" * _BAR}  {_DONE_BEFORE}')
    elif newest[0] < steps:  # it has ended before its last step
      say(*newest, str)


def _said(news: str, seconds: float, left: Callable[[], str]) -> str:
  """The newest values, and the times that are known."""
  times = ', '.join(filter(None, (f'{seconds:.0f} s', left())))
  return f'{news}  {times}' if news else times


def _notebook() -> Callable | None:
  """Displays a text in a notebook, to be replaced; None without IPython."""
  try:
    from IPython import display
  except ImportError:
    return None

  class Handle:
    def __init__(self, text):
      self._handle = display.display(self._bundle(text), raw=True,
                                     display_id=True)  # fmt: skip

    @staticmethod
    def _bundle(text):
      return {'text/plain': text}

    def update(self, text):
      self._handle.update(self._bundle(text), raw=True)

  return Handle
