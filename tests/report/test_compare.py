"""Several runs in one table, for readers, programs and papers."""

import csv
import io

import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.report import compare, rows
from jaxkd.report.__main__ import main


@pytest.fixture
def found(row, plain_row):
  return compare.compared({'runs/a': row, 'b_%': plain_row})


def test_each_run_shows_its_own_metric(found, row):
  assert found.metrics == ('top1', 'nll')
  arms = [line[:3] for line in found.lines]
  assert arms[0] == ('runs/a', 'digits', 'teacher')
  assert arms[-1] == ('b_%', 'digits', 'distilled')
  assert [len(line[4]) for line in found.lines] == [0, 5, 5, 0, 3, 3]
  with pytest.raises(UserError, match=r'--metric.*topl.*top1'):
    compare.compared({'a': row}, ['topl'])


def test_csv_has_numbers_in_the_units_of_the_rows(found):
  (teacher, *_, distilled) = csv.DictReader(io.StringIO(compare.as_csv(found)))
  assert teacher['top1'] == '0.985'
  assert teacher['top1_half_width'] == ''  # of one seed
  assert teacher['nll'] == ''
  assert distilled['run'] == 'b_%'
  assert float(distilled['nll']) == pytest.approx(0.2)
  assert float(distilled['nll_half_width']) == pytest.approx(0.0497, abs=1e-4)
  assert distilled['seeds'] == '3'


def test_latex_compiles_to_a_table(found):
  text = compare.latex(found)
  assert text.startswith('\\begin{tabular}{lllrrr}\n\\toprule\n')
  assert 'b\\_\\% & digits & distilled & – & 0.200 $\\pm$ 0.050' in text
  body = text.split('\\midrule\n')[1].split('\\bottomrule')[0]
  for line in body.splitlines():
    assert line.endswith(r' \\')
    assert line.count(' & ') == 5


def test_the_command_takes_workdirs_and_rows(tmp_path, row, plain_row, capsys):
  for name, held in (('one', row), ('two', plain_row)):
    (tmp_path / name).mkdir()
    rows.save(tmp_path / name / 'row.json', held)
  one, two = tmp_path / 'one', tmp_path / 'two' / 'row.json'
  assert main(['compare', str(one), str(two), '--format', 'csv']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].startswith('one,digits,teacher,1,')
  assert lines[-1].startswith('row.json,digits,distilled,3,')
  assert main(['compare', str(one), '--metric', 'all']) == 0
  assert 'agreement (%)' in capsys.readouterr().out
  assert main(['compare', str(one), str(one)]) == 2
  assert capsys.readouterr().err.startswith('RUN: a run is named twice')
  assert main(['compare', str(tmp_path / 'three')]) == 2
  assert 'cannot be read' in capsys.readouterr().err


def test_a_file_has_names_and_numbers_whole(row, plain_row):
  long, tagged = 'soft_targets ' * 12, 'runs[b]/mine'
  found = compare.compared({long: row, tagged: plain_row})
  out = io.StringIO()
  compare.show(found, 'text', Console(file=out, width=80))
  lines = out.getvalue().splitlines()
  assert len(lines) == 1 + len(found.lines)
  assert lines[1].startswith(long)
  assert lines[-1].startswith(tagged)
  terminal = Console(file=io.StringIO(), width=80, force_terminal=True)
  compare.show(found, 'text', terminal)
  assert terminal.width == 80


def test_what_a_sweep_saves(found, tmp_path):
  compare.save(found, tmp_path)
  assert (tmp_path / 'table.csv').read_text() == compare.as_csv(found)
  assert (tmp_path / 'table.tex').read_text() == compare.latex(found)
  with pytest.raises(UserError, match=r'table\.csv cannot be written'):
    compare.save(found, tmp_path / 'table.csv')
  compare.show(found, 'text', Console(file=io.StringIO()))
