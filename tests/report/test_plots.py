"""The picture of a run's curves."""

import math

import numpy as np
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


@pytest.fixture(autouse=True)
def _fine(monkeypatch):
  """Pictures as users get them: `conftest.py` makes those of runs coarse."""
  monkeypatch.setattr(plots, 'DPI', 150)
  monkeypatch.setattr(plots, 'LAYOUT', 'constrained')


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


def test_metrics_with_a_picture_of_their_own_are_left_out():
  panels = plots.draw(HISTORIES, {'top1', 'soft'}).axes
  assert [axes.get_title() for axes in panels] == ['train/loss']


LATER = ('hint_tuned', 'lost')


@pytest.fixture
def costly():
  return {
    'metric': 'top1',
    'arms': {
      'teacher': {'values': [0.9]},
      'student': {'values': [0.5, 0.6, 0.7]},
      'hint': {'values': [0.6, 0.6, 0.6]},
      'hint_tuned': {'values': [0.7, 0.8, 0.9]},
      'lost': {'values': [None, 0.8, 0.9]},
    },
    'comparison': {'than': 'student'},
    'summary': [
      {
        'step': [10, 100],
        'arms': {arm: [0.1] for arm in ('student', 'hint', *LATER)},
      }
    ],
    'cost': {
      'train_s': {'teacher': 9, 'student': 3, 'hint': 6, 'hint_tuned': 6}
      | {'lost': 6}
    },
    'device': 'CPU',
  }


def test_a_metric_against_the_time_of_a_step(costly):
  """Of arms with steps and a mean; of tuned methods the tuned arm alone."""
  (axes,) = plots.draw_costs(costly).axes
  drawn = {text.get_text(): text.xy for text in axes.texts}
  assert drawn == {
    'student': pytest.approx((10, 60)),
    'hint': pytest.approx((20, 80)),
  }
  # The intervals of both: Student's t of three, 4.303 / √3 deviations of 10.
  for container, (_, mean) in zip(axes.containers, drawn.values(), strict=True):
    ((low, high),) = container[2][0].get_segments()
    assert high[1] - mean == pytest.approx(mean - low[1])
    assert high[1] - mean == pytest.approx(24.84, abs=0.01)
  assert axes.get_ylabel() == 'top1 (%)'


def test_names_of_near_points_stand_apart(costly):
  costly['arms']['student'] = costly['arms']['hint_tuned']
  costly['cost']['train_s']['student'] = 6
  (axes,) = plots.draw_costs(costly).axes
  first, second = (text.get_window_extent() for text in axes.texts)
  assert axes.texts[0].xy == axes.texts[1].xy
  assert not first.overlaps(second)


def test_a_picture_of_costs(costly, tmp_path):
  plots.costs(costly, tmp_path / 'costs.png')
  assert (tmp_path / 'costs.png').read_bytes().startswith(b'\x89PNG')


def test_the_file(tmp_path):
  plots.curves(HISTORIES, tmp_path / 'curves.png')
  assert [p.name for p in tmp_path.iterdir()] == ['curves.png']
  assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')
  plots.curves({}, tmp_path / 'curves.png')  # nothing was evaluated
  with pytest.raises(UserError, match='cannot be written: Not a directory'):
    plots.curves(HISTORIES, tmp_path / 'curves.png' / 'x.png')


def test_a_line_of_metrics_for_each_arm(costly, tmp_path):
  """In per cent, with intervals; arms without the metrics are left out."""
  named = {10: 'at_10', 50: 'at_50', 100: 'top1'}
  costly['metrics'] = {
    'student': {'at_10': [0.1, 0.2, 0.3], 'at_50': [0.4, 0.4, 0.4]},
    'hint': {'at_10': [0.2, 0.2, 0.2], 'at_50': [None, 0.4, 0.4]},
  }
  of = {'top1': ('observed share (%)', named)}
  (axes,) = plots.draw_series(costly, of).axes
  assert axes.get_xlabel() == 'observed share (%)'
  assert axes.get_ylabel() == 'top1 (%)'
  lines = dict(
    zip(axes.get_legend_handles_labels()[1], axes.containers, strict=True)
  )
  assert list(lines['student'][0].get_xdata()) == [10, 50, 100]
  np.testing.assert_allclose(lines['student'][0].get_ydata(), [20, 40, 60])
  np.testing.assert_allclose(lines['hint'][0].get_ydata(), [20, np.nan, 60])
  ((low, high), *_) = lines['student'][2][0].get_segments()
  assert high[1] - low[1] == pytest.approx(2 * 24.84, abs=0.01)
  plots.series(costly, of, tmp_path / 'series.png')
  assert (tmp_path / 'series.png').read_bytes().startswith(b'\x89PNG')
