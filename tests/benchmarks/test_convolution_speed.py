"""The benchmark of convolutions, on two small layers."""

import io
import threading

import pytest
from rich.console import Console

from benchmarks import convolution_speed
from benchmarks.convolution_speed import Layer
from jaxkd.errors import Stopped

LAYERS = (
  Layer(4, 2, 4, stride=2),
  Layer(4, 2, 2, groups=2),
  Layer(4, 2, None, kernel=2, stride=2),
  Layer(4, 2, 3, kernel=convolution_speed.TOKENS),
)


@pytest.fixture(scope='module')
def measured():
  return convolution_speed.measure(5, layers=LAYERS, batch=2, seconds=1)


def test_a_row_compares_ours_with_xlas_in_three_places(measured):
  row, depthwise, pooling, linear = measured['rows']
  assert row['layer'] == '3×3, 2 → 4, stride 2'
  assert depthwise['layer'] == '3×3, 2 → 2, 2 groups'
  assert pooling['layer'] == '2×2 max pooling, 2, stride 2'
  assert linear['layer'] == 'linear, 2 → 3'
  assert row['shapes'] == '2×4×4×2'
  assert linear['shapes'] == '2×4×2'
  for place in 'alone', 'loop', 'members':
    for what in 'XLA ms', 'ours ms', 'ratio':
      assert row[f'{place}, {what}'] > 0


def test_it_is_shown(measured):
  output = io.StringIO()
  Console(file=output, width=200).print(convolution_speed.table(measured))
  assert '3×3, 2 → 4, stride 2' in output.getvalue()


def test_it_can_be_stopped():
  stop = threading.Event()
  stop.set()
  with pytest.raises(Stopped):
    convolution_speed.measure(5, stop, layers=LAYERS)
