"""Pictures of intervals: where things stand on them."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from jaxkd.report import intervals
from jaxkd.report.intervals import Line, Panel

LIGHT = intervals.PALETTES['light']
LINES = [
  Line('a < b', 0.5, 0.2, 0.8, True, '+0.5'),
  Line('far', 40.0, 30.0, 50.0, True),
  Line('below', -1.0, -1.5, -0.5, False),
  Line('none', 0.1, math.nan, math.nan),
  Line('not finite', math.nan, math.nan, math.nan),
]


def drawn(*panels):
  text = intervals.draw(panels, LIGHT)
  assert 'nan' not in text
  return ElementTree.fromstring(text)


def of(tree, tag):
  return [x.attrib for x in tree.iter(f'{{http://www.w3.org/2000/svg}}{tag}')]


@pytest.mark.parametrize('signed', [True, False])
def test_values_keep_their_order_and_stay_on_the_axis(signed):
  tree = drawn(Panel('points', LINES, signed))
  x = [float(circle['cx']) for circle in of(tree, 'circle')]
  assert len(x) == 4  # one is not finite
  assert x[2] < x[3] < x[0] < x[1]
  left = 16 + intervals.LETTER * len('not finite')
  right = left + intervals.PLOT
  ends = [float(line[e]) for line in of(tree, 'line') for e in ('x1', 'x2')]
  assert all(left <= end <= right for end in (*x, *ends))


def test_colours_and_rings_tell_the_verdict():
  tree = drawn(Panel('points', LINES, signed=True))
  found = [(c['fill'], c['stroke']) for c in of(tree, 'circle')]
  assert found[0] == (LIGHT.holds, LIGHT.holds)
  assert found[2] == (LIGHT.fails, LIGHT.fails)
  assert found[3] == ('none', LIGHT.faint)


def test_ticks_are_round_apart_and_have_zero():
  text = intervals.draw([Panel('points', LINES, signed=True)], LIGHT)
  ticks = re.findall(r'text-anchor="middle"[^>]*>([^<]+)<', text)
  assert '0' in ticks
  assert [float(t) for t in ticks] == sorted(map(float, ticks))
  x = re.findall(r'<text x="([\d.]+)"[^>]*middle', text)
  gaps = [float(b) - float(a) for a, b in itertools.pairwise(x)]
  assert min(gaps) >= intervals.APART - 0.1
  assert len(ticks) >= 4


@pytest.mark.parametrize('value', [0.0, 3.0, -2e-7, 5e8])
@pytest.mark.parametrize('signed', [True, False])
def test_a_single_value_has_an_axis(value, signed):
  (circle,) = of(
    drawn(Panel('x', [Line('a', value, value, value)], signed)), 'circle'
  )
  assert math.isfinite(float(circle['cx']))


def test_panels_without_lines_are_left_out():
  text = intervals.draw([Panel('gone', []), Panel('there', LINES)], LIGHT)
  assert 'gone' not in text
  assert 'there' in text
  assert 'a &lt; b' in text
