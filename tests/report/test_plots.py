"""The picture of a run's curves."""

import math

import pytest

from jaxkd.errors import UserError
from jaxkd.report import plots

HISTORIES = {
  'teachers/main': {
    'step': [10, 20],
    'metrics': {'validation/top1': [[0.5], [0.9]], 'train/loss': [[2.0], [1]]},
  },
  'students/distilled': {
    'step': [10, 20, 30],
    'metrics': {
      'validation/top1': [[0.5, 0.6], [0.7, 0.8], [0.8, 0.8]],
      'train/loss/soft': [[2.0, 3.0], [1.0, math.nan], [1.0, None]],
    },
  },
  'students/short': {'step': [5], 'metrics': {'validation/top1': [[0.5, 0.6]]}},
}


def test_panels_lines_bands_and_legend():
  figure = plots.draw(HISTORIES)
  panels = {axes.get_title(): axes for axes in figure.axes}
  assert list(panels) == ['train/loss', 'train/loss/soft', 'validation/top1']
  for title, axes in panels.items():
    assert axes.get_xlabel() == 'step'
    assert axes.get_ylabel() == title.rpartition('/')[2]
  teacher, distilled, short = panels['validation/top1'].lines
  assert list(teacher.get_xdata()) == [10, 20]
  assert list(teacher.get_ydata()) == [0.5, 0.9]
  assert list(distilled.get_ydata()) == pytest.approx([0.55, 0.75, 0.8])
  assert short.get_marker() == 'o'  # a single point is seen
  bands = panels['validation/top1'].collections
  reach = [tuple(b.get_paths()[0].get_extents().intervaly) for b in bands]
  assert reach == [(0.5, 0.9), (0.5, 0.8), (0.5, 0.6)]
  (loss,) = panels['train/loss'].lines
  assert loss.get_color() == teacher.get_color() != distilled.get_color()
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.texts] == list(HISTORIES)


def test_the_file(tmp_path):
  plots.curves(HISTORIES, tmp_path / 'curves.png')
  assert [p.name for p in tmp_path.iterdir()] == ['curves.png']
  assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')
  plots.curves({}, tmp_path / 'curves.png')  # nothing was evaluated
  with pytest.raises(UserError, match='cannot be written: Not a directory'):
    plots.curves(HISTORIES, tmp_path / 'curves.png' / 'x.png')
