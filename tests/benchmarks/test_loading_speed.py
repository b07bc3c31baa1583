"""What is measured of loaders, not how fast they are."""

import io
import sys

import pytest
from rich.console import Console

from benchmarks import loading_speed
from jaxkd.errors import UserError
from jaxkd.report import rows
from jaxkd.report import speed as report


@pytest.fixture(scope='module')
def measured():
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(loading_speed, 'BATCH', 4)
    patched.setattr(loading_speed, 'SIDE', 16)
    patched.setattr(loading_speed, 'SIZE', (40, 30))
    return loading_speed.measure(count=9, repeats=1)


def test_without_another_python_ours_is_measured_alone(measured):
  (row,) = measured['rows']
  assert row['loader'] == 'jaxkd, Grain'
  assert row['workers'].endswith(' threads')
  assert 0 < row['lower quartile'] <= row['images/s'] <= row['upper quartile']
  left_out = [note for note in measured['notes'] if 'left out: no P' in note]
  assert len(left_out) == 2


def test_has_the_form_of_the_other_figures(measured):
  held = rows.plain([measured])
  rows.check_shape(held, report.SCHEMA, 'x')
  assert '## Loading: 9 JPEGs at ' in report.page(held)
  output = io.StringIO()
  Console(file=output, width=120).print(loading_speed.table(measured))
  assert 'jaxkd, Grain' in output.getvalue()


def test_a_python_that_cannot_be_run_and_a_loader_that_fails(tmp_path):
  with pytest.raises(UserError, match=r'^--torch_python: no_python cannot be'):
    loading_speed.measure('no_python', count=4, repeats=1)
  with pytest.raises(
    UserError, match=r'^--data: jaxkd, Grain failed: .* fewer than 64'
  ):
    loading_speed._pass(sys.executable, 'jaxkd', str(tmp_path / 'none'))
