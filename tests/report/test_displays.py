"""Progress on a terminal, in a notebook and in a file of lines."""

import contextlib
import io
import re
import sys
import types

import numpy as np
import pytest
from rich.console import Console

from jaxkd.report import displays, progress


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def run(display, clock, steps=100, seconds=4.0):
  with display('students/distilled', steps) as show:
    for step in range(1, steps + 1):
      clock.now += seconds
      show(step, f'loss {step}', lambda: '3 s left')


def test_a_line_now_and_then():
  out, clock = io.StringIO(), Clock()
  display = displays.Lines(Console(file=out, width=40), clock)
  run(display, clock)
  lines = out.getvalue().splitlines()
  shown = [int(re.search(r'(\d+)/100', line)[1]) for line in lines]
  # Eight steps, of four seconds each, are the first to take thirty.
  assert shown == [*range(1, 100, 8), 100]
  assert lines[0].split() == [
    'students/distilled', '1/100', 'loss', '1', '4', 's,', '3', 's', 'left',
  ]  # fmt: skip


def stop_early(display, clock):
  with display('students/distilled', 100) as show:
    for step in range(1, 4):
      clock.now += 0.1
      show(step, f'loss {step}', lambda: '3 s left')


def test_the_last_line_of_what_ended_early_is_its_last_step():
  out, clock = io.StringIO(), Clock()
  stop_early(displays.Lines(Console(file=out), clock), clock)
  lines = out.getvalue().splitlines()
  assert [line.split()[1] for line in lines] == ['1/100', '3/100']
  assert lines[1].split()[2:] == ['loss', '3', '0', 's']


@pytest.mark.parametrize('width', [80, 100])
def test_a_bar_has_one_line_on_a_narrow_terminal(width):
  out = io.StringIO()
  console = Console(
    file=out, force_terminal=True, width=width, color_system=None
  )
  display = displays.Bars(console)
  with display('students/distilled', 12000) as show:
    news = 'loss 0.2745  top1 0.9028'
    show(3000, news, lambda: '3 min left, 8 min of the run')
    display._bars.refresh()
  shown = re.findall(r'[^\r\n]*3 min left[^\r]*', out.getvalue())
  assert shown
  assert all('8 min of the r' in text for text in shown)


def test_what_ended_early_has_no_time_left_on_a_terminal():
  out = io.StringIO()
  console = Console(file=out, force_terminal=True, width=120)
  stop_early(displays.Bars(console), Clock())
  last = out.getvalue().rpartition('students/distilled')[2]
  assert '3/100' in last
  assert 'left' not in last


@pytest.mark.parametrize('kw', [{}, {'force_jupyter': True}])
def test_a_file_of_lines_has_no_control_codes(kw, monkeypatch):
  monkeypatch.setitem(sys.modules, 'IPython', None)
  out, clock = io.StringIO(), Clock()
  display = displays.of(Console(file=out, **kw))
  assert isinstance(display, displays.Lines)
  run(display, clock, steps=3)
  text = out.getvalue()
  assert text.isprintable() or set(filter(str.isspace, text)) <= {' ', '\n'}
  assert '\x1b' not in text and '\r' not in text


def test_a_terminal_that_can_do_nothing_has_lines(monkeypatch):
  console = Console(file=io.StringIO(), force_terminal=True)
  assert isinstance(displays.of(console), displays.Bars)
  monkeypatch.setenv('TERM', 'dumb')
  console = Console(file=io.StringIO(), force_terminal=True)
  assert isinstance(displays.of(console), displays.Lines)


@pytest.fixture
def shown(monkeypatch):
  """What a notebook shows, a text for each display; IPython is a stand-in."""
  texts = []

  def display(bundle, *, raw, display_id):
    assert raw and display_id
    place = len(texts)
    texts.append([bundle['text/plain']])

    def update(bundle, *, raw):
      assert raw
      texts[place].append(bundle['text/plain'])

    return types.SimpleNamespace(update=update)

  module = types.ModuleType('IPython')
  module.display = types.SimpleNamespace(display=display)
  monkeypatch.setitem(sys.modules, 'IPython', module)
  return texts


def test_a_notebook_has_one_line_for_each_stage(shown):
  console = Console(file=io.StringIO(), force_jupyter=True)
  reporter = progress.Reporter(console, 'top1')
  with contextlib.ExitStack() as opened:
    first, second = (
      opened.enter_context(reporter.stage(f'teachers/{name}', 4))
      for name in ('a', 'b')
    )
    first(2, {'loss': np.ones(1)})
    second(4, {'loss': np.zeros(1)})
    first(4, {'loss': np.full(1, 0.5)})
  with reporter.stage('students/s', 4):
    pass  # an earlier process has done it
  begun = [texts[0].split() for texts in shown]
  assert begun == [
    [name, 'compiling'] for name in ('teachers/a', 'teachers/b', 'students/s')
  ]
  last = [texts[-1] for texts in shown]
  assert last[0].split()[:3] == ['teachers/a', '━' * 24, '4/4']
  assert 'loss 0.5000' in last[0]
  assert 'loss 0.0000' in last[1]
  assert last[2].endswith('━  done before')


def test_a_notebook_is_not_told_of_every_step(shown):
  clock = Clock()
  run(displays.Notebook(displays._notebook(), clock), clock, seconds=0.01)
  (texts,) = shown
  assert 3 <= len(texts) <= 5
  assert '100/100' in texts[-1]


def test_a_notebook_ends_with_the_last_step_of_what_ended_early(shown):
  clock = Clock()
  stop_early(displays.Notebook(displays._notebook(), clock), clock)
  (texts,) = shown
  assert texts[-1].split()[2:] == ['3/100', 'loss', '3', '0', 's']
