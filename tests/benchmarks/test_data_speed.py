"""What is measured of starts, not how fast they are."""

import io
import threading

import pytest
from rich.console import Console

from benchmarks import data_speed
from jaxkd.errors import Stopped, UserError
from jaxkd.report import made_with, rows
from jaxkd.report import speed as report


@pytest.fixture(scope='module')
def measured():
  return data_speed.starts((4, 8), count=40, repeats=1)


def test_each_folder_starts_for_the_first_time_and_again(measured):
  found = [(row['images'], row['start']) for row in measured['rows']]
  sizes = ('4×4×3', '8×8×3')
  assert found == [(size, kind) for size in sizes for kind in ('first', 'next')]
  assert measured['device'] == made_with.device()
  for row in measured['rows']:
    assert 0 < row['lower quartile'] <= row['s'] <= row['upper quartile']
    assert row['memory, MB'] >= 0
    assert row['examples'] == 'in memory'
  assert measured['rows'][0]['pixels, MB'] == pytest.approx(40 * 48 / 1e6)


def test_has_the_form_of_the_other_figures(measured):
  held = rows.plain([measured])
  rows.check_shape(held, report.SCHEMA, 'x')
  assert '## Starts: 40 images in a folder' in report.page(held)
  output = io.StringIO()
  Console(file=output, width=120).print(data_speed.table(measured))
  assert 'in memory' in output.getvalue()


def test_ends_when_asked_or_when_a_start_fails(tmp_path):
  stop = threading.Event()
  stop.set()
  with pytest.raises(Stopped):
    data_speed.starts((4,), count=10, stop=stop)
  with pytest.raises(UserError, match=r'--data: a start failed: .*no folder'):
    data_speed._start(tmp_path / 'none', tmp_path)
