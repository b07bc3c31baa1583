"""The pages that are made of rows, and the command that makes them."""

import json
import pathlib
import subprocess
import sys

import pytest

from jaxkd.errors import UserError
from jaxkd.report import arms, benchmarks, rows, speed, system, wording
from jaxkd.report.__main__ import main

GOLDEN = pathlib.Path(__file__).parent / 'golden'


SPEED = [
  {
    'name': 'resnet20 → resnet8',
    'device': 'one GPU',
    'rows': [
      {'terms': 'soft', 'step ms': 1.23456, 'ratio': 1.01, 'traces': 1},
      {'terms': 'soft + hint', 'step ms': 1234.56, 'traces': 1, 'note': None},
    ],
  }
]


def test_pages_are_as_they_were(row, plain_row):
  """After a change that is meant, look at it and write it to the files."""
  for held in (row, plain_row):
    rows.check(held, held['system'])
  pages = benchmarks.pages([row, plain_row], SPEED)
  assert {str(path) for path in pages} == {
    'BENCHMARKS.md',
    'docs/benchmarks/speed.md',
    *(f'docs/benchmarks/claims_{p}.svg' for p in ('light', 'dark')),
    *(f'docs/benchmarks/{held["system"]}.md' for held in (row, plain_row)),
    *(
      f'docs/benchmarks/{held["system"]}/arms_{palette}.svg'
      for held in (row, plain_row)
      for palette in ('light', 'dark')
    ),
  }
  for golden in GOLDEN.iterdir():
    (made,) = (p for path, p in pages.items() if path.name == golden.name)
    assert made == golden.read_text(), golden


def test_a_row_without_a_claim_has_no_heading_for_it(row):
  row['comparison']['claim'] = ''
  page = system.page(row)
  assert '\n- distilled beats student by 4.00 ± 0.88 points' in page
  assert '****' not in page
  assert '| distilled - student |' in benchmarks.overview([row])


def test_what_should_fall_is_drawn_as_a_decrease(row):
  own = dict(metric='nll', higher_is_better=False)
  pair = row['comparison'] | own
  pair |= dict(mean_difference=-0.2, ci95=[-0.3, -0.1], holds=True)
  rise, fall = arms.differences(
    [('top1', row['comparison'], row), ('nll', pair, row)]
  )
  assert rise.title == 'difference in points, what is better to the right'
  assert fall.title.startswith('decrease in nll')
  assert 'the figures have the opposite sign' in fall.title
  (line,) = fall.lines
  assert line[1:4] == (0.2, 0.1, 0.3)
  assert line.words == '-0.200 ± 0.100 nll'


def test_a_page_says_whether_steps_were_chosen(row):
  assert 'no step was chosen by them.' in system.page(row)
  row['best_steps'] = {'student': [100] * 5}
  assert 'each net is from the step that the notes name.' in system.page(row)


def folders(tmp_path, *held):
  for name in ('rows', 'speed'):
    (tmp_path / name).mkdir()
  for i, row in enumerate(held):
    rows.save(tmp_path / 'rows' / f'{i}.json', row)
  return ['--rows', str(tmp_path / 'rows'), '--speed', str(tmp_path / 'speed'),
          '--out', str(tmp_path / 'out')]  # fmt: skip


def test_write_then_check(tmp_path, row, plain_row, capsys):
  flags = folders(tmp_path, plain_row, row)
  (tmp_path / 'speed' / 'a.json').write_text(json.dumps(SPEED))
  assert main([*flags, '--check']) == 1
  assert main(flags) == 0
  made = tmp_path / 'out' / 'BENCHMARKS.md'
  assert made.read_text() == (GOLDEN / made.name).read_text()
  capsys.readouterr()
  assert main([*flags, '--check']) == 0
  assert capsys.readouterr() == ('', '')
  row['wall_s'] = 2.0
  rows.save(tmp_path / 'rows' / '1.json', row)
  (tmp_path / 'rows' / '0.json').unlink()
  assert main([*flags, '--check']) == 1
  stale = capsys.readouterr().err.splitlines()
  folder = tmp_path / 'out' / 'docs' / 'benchmarks'
  assert (
    f'{folder}/{row["system"]}.md is stale: run python -m jaxkd.report and '
    'commit what it writes'
  ) in stale
  of_no_row = folder / 'at' / 'arms_dark.svg'
  assert any(line.startswith(f'{of_no_row} is stale') for line in stale)
  assert main(flags) == 0
  assert not of_no_row.exists()
  assert main([*flags, '--check']) == 0


@pytest.mark.parametrize(
  ('given', 'kept'),
  [
    ('/opt/x/bin/python3 a.py /b', 'python3 a.py /b'),
    ("'/opt/my x/bin/python' a.py", 'python a.py'),
    ('.venv/bin/python a.py', '.venv/bin/python a.py'),
    ('jaxkd distill /b', 'jaxkd distill /b'),
  ],
)
def test_a_command_is_added_without_the_folder_of_its_python(
  given, kept, tmp_path, row
):
  flags, run = folders(tmp_path), tmp_path / 'run'
  run.mkdir()
  rows.save(run / 'row.json', {**row, 'command': given})
  assert main([*flags, '--add', str(run)]) == 0
  added = rows.load(tmp_path / 'rows' / f'{row["system"]}.json')
  assert added['command'] == kept


def test_a_run_is_added_with_its_pictures(tmp_path, row, capsys):
  flags, run = folders(tmp_path), tmp_path / 'run'
  (run / 'shown').mkdir(parents=True)
  assert main([*flags, '--add', str(run)]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'--add: there is no row.json in {run}; ')
  command = row['command']
  row['command'] = f"{command} --workdir='{run} 2' --x"
  rows.save(run / 'row.json', row)
  for name in ('curves.png', 'shown/first_boxes.png', 'shown/text.txt'):
    (run / name).write_bytes(b'x')
  assert main([*flags, '--add', str(run)]) == 0
  kept = rows.load(tmp_path / 'rows' / f'{row["system"]}.json')
  assert kept['command'] == f'{command} --workdir=runs/{row["system"]} --x'
  folder = tmp_path / 'out' / 'docs' / 'benchmarks'
  page = (folder / f'{row["system"]}.md').read_text()
  assert f']({row["system"]}/curves.png)' in page
  assert f'![Examples: first boxes]({row["system"]}/first_boxes.png)' in page
  (run / 'curves.png').unlink()  # what an earlier run drew does not stay
  assert main([*flags, '--add', str(run)]) == 0
  assert not (folder / row['system'] / 'curves.png').exists()
  row['notes'] = [wording.TINY]
  rows.save(run / 'row.json', row)
  assert main([*flags, '--add', str(run)]) == 2
  assert 'is of a :tiny form' in capsys.readouterr().err
  row['notes'], row['system'] = [], ''
  rows.save(run / 'row.json', row)
  assert main([*flags, '--add', str(run)]) == 2
  assert "has no system; set the config's name" in capsys.readouterr().err


def test_without_any_rows(tmp_path):
  flags = folders(tmp_path)
  assert main(flags) == 0
  assert main([*flags, '--check']) == 0
  page = (tmp_path / 'out' / 'BENCHMARKS.md').read_text()
  assert page.startswith('# Benchmarks\n')
  assert page.endswith('There are no rows yet.\n')


def test_bad_rows_are_one_sentence(tmp_path, row, capsys):
  flags = folders(tmp_path, row)
  (tmp_path / 'speed' / 'a.json').write_text('[{"name": "x"}]')
  assert main(flags) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.endswith('a.json: [0].device is missing; add it')
  (tmp_path / 'rows' / '1.json').write_text('{')
  assert main(flags) == 2
  assert '1.json is not JSON' in capsys.readouterr().err
  assert main(['--rows', str(tmp_path / 'x')]) == 2
  assert '--rows' in capsys.readouterr().err
  assert main([*flags, '--speed', str(tmp_path / 'x')]) == 2
  assert '--speed: there is no directory' in capsys.readouterr().err


def test_a_page_that_cannot_be_written(tmp_path, capsys):
  flags = folders(tmp_path)
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'BENCHMARKS.md').write_bytes(b'\xff')
  assert main([*flags, '--check']) == 1
  assert 'BENCHMARKS.md is stale' in capsys.readouterr().err
  (tmp_path / 'file').write_text('')
  assert main([*flags, '--out', str(tmp_path / 'file')]) == 2
  assert 'BENCHMARKS.md cannot be written: ' in capsys.readouterr().err


def test_speeds_of_no_directory(tmp_path):
  assert speed.load(tmp_path / 'none') == []
  (tmp_path / 'a.json').write_text('{}')
  with pytest.raises(UserError, match='the file must be a list'):
    speed.load(tmp_path)


def test_the_report_needs_neither_jax_nor_matplotlib(tmp_path):
  code = (
    'import sys, runpy\n'
    'from jaxkd.report import benchmarks, terminal\n'
    f'sys.argv = ["x", "--rows", {str(tmp_path)!r}, "--check",'
    f' "--out", {str(tmp_path / "x")!r}]\n'
    'try:\n'
    '  runpy.run_module("jaxkd.report", run_name="__main__")\n'
    'except SystemExit as end:\n'
    '  assert end.code == 1\n'
    'print(sorted({"jax", "matplotlib", "flax"} & set(sys.modules)))\n'
  )
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert run.stdout == '[]\n'
  assert 'is stale' in run.stderr


def test_methods_stand_beside_their_tuned_selves(row, comparison):
  """The largest tuned gain first, with the factor that was chosen."""
  values = {
    'soft': [0.90, 0.91, 0.92, 0.93, 0.94],
    'soft_tuned': [0.92, 0.93, 0.94, 0.95, 0.96],
    'hint': [0.91, 0.92, 0.93, 0.94, 0.95],
    'hint_tuned': [0.93, 0.94, 0.95, 0.96, 0.97],
    'map': [0.89, 0.90, 0.91, 0.92, 0.93],
    'map_tuned': [0.95, 0.96, 0.97, 0.98, 0.99],
  }
  row['arms'] |= {arm: {'values': given} for arm, given in values.items()}
  row['comparisons'] = {
    'hint': comparison('hint', 'soft', 0.01, 0, True),
    'hint_tuned': comparison('hint_tuned', 'soft_tuned', 0.01, 0, True),
    'map': comparison('map', 'soft', -0.01, 0, False),
    'map_tuned': comparison('map_tuned', 'soft_tuned', 0.03, 0, True),
  }
  grid = {'distill.a.weight,distill.b.weight*': [0.1, 1.0, 10.0]}
  row['tuning'] = {
    'map_tuned': {
      'grid': grid,
      'trials': 3,
      'chosen': {'distill.a.weight': 0.5, 'distill.b.weight': 5.0},
      'values': [0.8, None, 0.9],
      'split': 'validation',
    }
  }
  row['arms']['student']['values'] = [0.5] * 5
  row['summary'][0]['arms']['map_tuned'] = [0.9, 0.95, 0.97]
  row['cost'] |= {
    'train_s': {'map_tuned': 30.0},
    'step_flops': {'map_tuned': 12_345_678},
    'step_bytes': {'map_tuned': 3 * 2**19},
  }
  page = system.page(row).partition('Each method with its published')[2]
  wide = [line for line in page.splitlines() if line.count('|') == 9][2:]
  wide, order = wide[:2], wide[4:]
  assert [line.split(' | ')[0] for line in wide] == ['| map', '| hint']
  assert '| -1.00 ± 0.00 points |' in wide[0]
  assert '| 10 (edge) | 97.00' in wide[0]
  assert '| +3.00 ± 0.00 points |' in wide[0]
  assert '| – | 95.00' in wide[1]
  assert [line.split(' | ')[:2] for line in order] == [
    ['| 1', 'map_tuned'], ['| 2', 'hint_tuned'], ['| 3', 'soft_tuned']
  ]  # fmt: skip
  # 30 s for 3,000 steps of five seeds; in every draw of seeds it is the first.
  assert order[0].endswith('| 1 to 1 | 100% | 2 | 12 | 1.50 |')
  assert order[1].endswith('| 2 to 2 | 100% | – | – | – |')
  assert 'control, ' not in page
