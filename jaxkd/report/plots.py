"""Pictures of a run: curves of training, and accuracy against cost."""

import itertools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from jaxkd import files
from jaxkd.report import arms, rows, statistics, wording

DPI, LAYOUT = 150, 'constrained'  # of all pictures
_COLUMNS = 3


def curves(
  histories: Mapping[str, Mapping[str, Any]],
  path: str | Path,
  *,
  without: Collection[str] = (),
) -> None:
  """Draws one panel for each metric, one colour for each stage.

  The line is the mean over the members, the band reaches from the lowest to
  the highest. Values that are not finite leave a gap.

  Args:
    histories: stage -> ``{'step': [P], 'metrics': {name: [P][members]}}``.
    path: the PNG file to write.
    without: metrics that have a picture of their own.

  Raises:
    UserError: the file cannot be written.
  """
  _save(draw(histories, without), path)


def costs(row: Mapping[str, Any], path: str | Path) -> None:
  """Draws each arm's metric against the time of its step.

  A point is the mean over the seeds, with its 95 % interval. Of methods that
  were tuned beside their published weights, the tuned arm alone is drawn.

  Args:
    row: a valid row.
    path: the PNG file to write.

  Raises:
    UserError: the file cannot be written.
  """
  _save(draw_costs(row), path)


def draw_costs(row: Mapping[str, Any]) -> Figure:
  """The picture of `costs`."""
  figure = Figure(figsize=(9, 6.5), layout=LAYOUT)
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  scale = 100 if wording.is_fraction(row['metric']) else 1
  points, colors = {}, {}
  for arm in wording.arms(row):
    time = rows.step_ms(row, arm)
    if time is None or f'{arm}{arms.TUNED}' in row['arms']:
      continue
    values = rows.values_of(row, arm, row['metric'])
    mean, half = (scale * x for x in statistics.interval(values))
    if not math.isfinite(mean):
      continue
    error = half if math.isfinite(half) else None
    drawn = axes.errorbar(
      time, mean, error, fmt='o', markersize=4, linewidth=0.8
    )
    name = arm.removesuffix(arms.TUNED)
    points[name], colors[name] = (time, mean), drawn.lines[0].get_color()
  axes.set_xscale('log')
  for formatter in (
    axes.xaxis.set_major_formatter,
    axes.xaxis.set_minor_formatter,
  ):
    formatter('{x:g}')
  axes.set_xlabel(f'milliseconds of a step of one seed ({row["device"]})')
  axes.set_ylabel(wording.heading(row['metric']))
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25, linewidth=0.6)
  _name_points(axes, points, colors)
  return figure


def _name_points(
  axes, points: Mapping[str, tuple[float, float]], colors: Mapping[str, str]
) -> None:
  """Writes a name at each point, off the other names and points if it can.

  Nor does it leave the axes if there is room within.
  """
  # Places are known once the limits of the axes are.
  axes.figure.draw_without_rendering()
  axes.set_autoscale_on(False)
  taken = [
    Bbox.from_extents(x - 4, y - 4, x + 4, y + 4)
    for x, y in axes.transData.transform([*points.values()] or np.empty((0, 2)))
  ]
  beside = (('left', 4), ('right', -4))
  above = (3, -9, 12, -18, 21, -27, 30, -36)
  for name, point in points.items():
    text = axes.annotate(
      name,
      point,
      xytext=(0, 0),
      textcoords='offset points',
      fontsize='x-small',
      color=colors[name],
    )
    best = None
    for y, (side, x) in itertools.product(above, beside):
      text.xyann = x, y
      text.set_horizontalalignment(side)
      box = text.get_window_extent()
      overlaps = sum(box.overlaps(other) for other in taken)
      leaves = box.x0 < axes.bbox.x0 or box.x1 > axes.figure.bbox.x1
      overlaps += len(taken) * leaves
      if best is None or overlaps < best[0]:
        best = overlaps, (x, y), side, box
    _, text.xyann, side, box = best
    text.set_horizontalalignment(side)
    taken.append(box)


def series(
  row: Mapping[str, Any],
  metrics: Mapping[str, tuple[str, Mapping[float, str]]],
  path: str | Path,
) -> None:
  """Draws a line for each arm through the metrics of a series.

  A point is the mean over the seeds, with its 95 % interval. Where a value of
  some seed is missing, the line has a gap.

  Args:
    row: a valid row.
    metrics: what the y axis is called -> a text for the x axis, and the metric
      at each x; a panel for each.
    path: the PNG file to write.

  Raises:
    UserError: the file cannot be written.
  """
  _save(draw_series(row, metrics), path)


def draw_series(
  row: Mapping[str, Any],
  metrics: Mapping[str, tuple[str, Mapping[float, str]]],
) -> Figure:
  """The picture of `series`."""
  figure = Figure(figsize=(7.5 * len(metrics), 5), layout=LAYOUT)
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, len(metrics), squeeze=False)[0]
  for axes, (name, found) in zip(panels, metrics.items(), strict=True):
    text, named = found
    for arm in wording.arms(row):
      own = {x: _interval(row, arm, each) for x, each in named.items()}
      if not any(math.isfinite(mean) for mean, _ in own.values()):
        continue
      means, halves = np.array([*own.values()]).T
      halves = np.where(np.isfinite(halves), halves, 0)
      axes.errorbar(
        *([*own], means, halves), label=arm, marker='o', markersize=3
      )
    axes.set_xlabel(text)
    axes.set_ylabel(wording.heading(name))
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize='small')
  return figure


def _interval(row: Mapping, arm: str, metric: str) -> tuple[float, float]:
  """Mean of an arm's metric and half its interval, in per cent if a share."""
  values = rows.values_of(row, arm, metric)
  if not values:
    return math.nan, math.nan
  scale = 100 if wording.is_fraction(metric) else 1
  return tuple(scale * x for x in statistics.interval(values))


def _save(figure: Figure, path: str | Path) -> None:
  """Writes a picture as PNG; 256 colours are enough, and a third as large."""
  figure.dpi = DPI
  figure.canvas.draw()
  picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))
  picture = picture.convert('RGB').quantize(256, dither=Image.Dither.NONE)
  with files.replacing(path) as draft:
    picture.save(draft, format='png')


def draw(
  histories: Mapping[str, Mapping[str, Any]], without: Collection[str] = ()
) -> Figure:
  """The picture of `curves`."""
  known = {m for h in histories.values() for m in h['metrics']}
  metrics = sorted(m for m in known if m.rpartition('/')[2] not in without)
  columns = max(1, min(_COLUMNS, len(metrics)))
  lines = max(1, math.ceil(len(metrics) / columns))
  figure = Figure(figsize=(4.2 * columns, 2.9 * lines + 0.5), layout=LAYOUT)
  FigureCanvasAgg(figure)
  palette = matplotlib.color_sequences[
    'tab10' if len(histories) <= 10 else 'tab20'
  ]
  colours = {
    stage: palette[i % len(palette)] for i, stage in enumerate(histories)
  }
  drawn = {}
  for place, metric in enumerate(metrics, start=1):
    axes = figure.add_subplot(lines, columns, place)
    for stage, history in histories.items():
      if metric in history['metrics']:
        drawn[stage] = _draw_stage(axes, history, metric, colours[stage])
    axes.set_title(metric, fontsize='medium')
    axes.set_xlabel('step')
    axes.set_ylabel(metric.rpartition('/')[2])
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
  if drawn:
    stages = [stage for stage in histories if stage in drawn]
    figure.legend(
      [drawn[stage] for stage in stages],
      stages,
      title='mean and range of the members',
      title_fontsize='small',
      loc='outside lower center',
      ncols=min(len(stages), 2 * columns),
      frameon=False,
      fontsize='small',
    )
  return figure


def _draw_stage(axes, history: Mapping, metric: str, colour):
  """One line with its band; returns what stands for it in the legend."""
  steps = history['step']
  values = np.array(history['metrics'][metric], float)  # None becomes nan
  values[~np.isfinite(values)] = np.nan
  marker = 'o' if len(steps) == 1 else None
  (line,) = axes.plot(
    steps, values.mean(1), color=colour, marker=marker, markersize=4
  )
  axes.fill_between(
    steps, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0
  )
  return line
