"""Pictures of means with their intervals, as SVG in light and in dark."""

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

PLOT, WORDS = 400, 210  # widths of columns, in pixels; the latter at least
LETTER = 7  # and of a letter of a label, which none is wider than on average
LINE, HEAD, FOOT = 22, 30, 26  # heights
APART = 48  # the least distance of two ticks


class Line(NamedTuple):
  """One interval.

  Attributes:
    label: what it is of.
    mean: its middle; nan where there is none.
    low: its lower end; nan where there is no interval.
    high: its upper end.
    holds: True and False have colours of their own, None is neither.
    words: what stands behind it, such as its figures.
  """

  label: str
  mean: float
  low: float
  high: float
  holds: bool | None = None
  words: str = ''


class Panel(NamedTuple):
  """Intervals on one axis.

  Attributes:
    title: above it; what the axis is.
    lines: from the top.
    signed: whether zero is what matters: it is drawn, and the axis is linear
      near it and logarithmic far from it, so that large differences leave room
      for small ones.
  """

  title: str
  lines: Sequence[Line]
  signed: bool = False


class Palette(NamedTuple):
  """Colours of a picture."""

  text: str
  faint: str
  grid: str
  holds: str
  fails: str


PALETTES = {
  'light': Palette('#1f2328', '#59636e', '#d1d9e0', '#0969da', '#bc4c00'),
  'dark': Palette('#e6edf3', '#9198a1', '#3d444d', '#58a6ff', '#f0883e'),
}


def draw(panels: Sequence[Panel], palette: Palette) -> str:
  """The picture, the same text for the same figures.

  Args:
    panels: from the top; those without lines are left out.
    palette: its colours.
  """
  panels = [panel for panel in panels if panel.lines]
  lines = [line for panel in panels for line in panel.lines]
  left = _column([line.label for line in lines])
  drawn, top = [], 0
  for panel in panels:
    drawn += _panel(panel, top, left, palette)
    top += HEAD + LINE * len(panel.lines) + FOOT
  width = left + PLOT + max(WORDS, _column([line.words for line in lines]))
  head = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
    f'width="{width}" height="{top}" font-size="12" '
    'font-family="system-ui, -apple-system, Segoe UI, Helvetica, sans-serif">'
  )
  return '\n'.join([head, *drawn, '</svg>', ''])


def _column(texts: Sequence[str]) -> int:
  """The width of a column in which these texts have room."""
  return 16 + LETTER * max(map(len, texts), default=0)


def _panel(
  panel: Panel, top: int, left: int, palette: Palette
) -> Iterator[str]:
  scale, ticks = _axis(panel, left)
  first = top + HEAD
  last = first + LINE * len(panel.lines)
  yield _text(left, top + 18, panel.title, palette.text, weight='600')
  for value in ticks:
    x = scale(value)
    strong = panel.signed and value == 0
    yield _rule(x, first, x, last, palette.faint if strong else palette.grid)
    yield _text(x, last + 15, f'{value:g}', palette.faint, anchor='middle')
  for i, line in enumerate(panel.lines):
    yield from _line(line, first + LINE * (i + 0.5), left, scale, palette)


def _line(
  line: Line, y: float, left: int, scale, palette: Palette
) -> Iterator[str]:
  colours = {True: palette.holds, False: palette.fails, None: palette.faint}
  colour = colours[line.holds]
  yield _text(left - 12, y + 4, line.label, palette.text, anchor='end')
  if math.isfinite(line.low) and math.isfinite(line.high):
    yield _rule(scale(line.low), y, scale(line.high), y, colour, width=2)
  if math.isfinite(line.mean):
    fill = 'none' if line.holds is None else colour
    yield (
      f'<circle cx="{scale(line.mean):.1f}" cy="{y:.1f}" r="4" fill="{fill}" '
      f'stroke="{colour}" stroke-width="1.5"/>'
    )
  if line.words:
    yield _text(left + PLOT + 16, y + 4, line.words, palette.faint)


def _axis(panel: Panel, left: int):
  """What puts a value on the axis, in pixels, and its ticks."""
  values = [
    x for line in panel.lines for x in line[1:4] if math.isfinite(x)
  ] or [0.0]
  bend = _bend(panel) if panel.signed else None
  low, high = min(values), max(values)
  if panel.signed:
    low, high = min(low, 0.0), max(high, 0.0)
  if low == high:
    low, high = low - 1, high + 1

  def bent(x):
    return math.asinh(x / bend) if bend else x

  start, end = bent(low), bent(high)
  margin = 0.03 * (end - start)
  start, end = start - margin, end + margin

  def scale(x):
    return left + PLOT * (bent(x) - start) / (end - start)

  return scale, _ticks(low, high, scale, panel.signed)


def _bend(panel: Panel) -> float:
  """Where the axis turns from linear to logarithmic: half a usual interval."""
  halves = sorted(
    (line.high - line.low) / 2
    for line in panel.lines
    if math.isfinite(line.high - line.low) and line.high > line.low
  )
  return halves[len(halves) // 2] if halves else 1.0


def _ticks(low: float, high: float, scale, signed: bool) -> list[float]:
  """Round values, from the middle outwards, none too near to another."""
  largest = max(abs(low), abs(high))
  top = math.floor(math.log10(largest)) if largest else 0
  if signed:
    sizes = [m * 10.0**e for e in range(top, top - 5, -1) for m in (5, 2, 1)]
    candidates = [0.0, *itertools.chain(*((x, -x) for x in sizes))]
  else:
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 6)
    first = math.ceil(low / step)
    candidates = [i * step for i in range(first, int(high // step) + 1)]
  chosen = []
  for value in candidates:
    value = float(f'{value:.6g}')
    near = any(abs(scale(value) - scale(other)) < APART for other in chosen)
    if low <= value <= high and not near:
      chosen.append(value)
  return sorted(chosen)


def _text(
  x: float,
  y: float,
  text: str,
  colour: str,
  *,
  anchor: str = 'start',
  weight: str = '400',
) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" '
    f'font-weight="{weight}">{escape(text)}</text>'
  )


def _rule(
  x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1
) -> str:
  return (
    f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" '
    f'stroke="{colour}" stroke-width="{width:g}"/>'
  )
