"""What a reader sees: the table of a run, and BENCHMARKS.md."""

import io
import json
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.report import rows, statistics, tables, wording
from jaxkd.report.__main__ import main

GOLDEN = pathlib.Path(__file__).with_name('golden_benchmarks.md')


def comparison(better, than, mean, half, holds, **other):
  ci95 = None if half is None else [mean - half, mean + half]
  return {'claim': f'{better} beats {than}', 'better': better, 'than': than,
          'mean_difference': mean, 'ci95': ci95, 'seeds': 5,
          'holds': holds, **other}  # fmt: skip


@pytest.fixture
def row():
  """A row with everything that a row can have."""
  return {
    'system': 'hinton2015_soft_targets',
    'survey': {
      'work': 1,
      'objective': 'limited data',
      'data': 'decrease | training data',
      'teacher': 'single',
      'knowledge': 'soft labels',
      'method': 'plain',
      'student': 'single, simplified',
      'claim': 'soft targets',
      'cite': 'Hinton et al., 2015',
      'url': 'https://arxiv.org/abs/1503.02531',
    },
    'dataset': 'digits',
    'metric': 'top1',
    'higher_is_better': True,
    'arms': {
      'distilled': {'values': [0.96, 0.95, 0.97, 0.96, 0.96]},
      'shuffled': {'values': [0.96, 0.94, 0.96, None, 0.95]},
      'student': {'values': [0.91, 0.92, 0.93, 0.92, 0.92]},
      'teacher': {'values': [0.985]},
    },
    'comparison': {
      'claim': 'soft targets beat hard labels on few labels',
      'better': 'distilled',
      'than': 'student',
      **statistics.paired(
        [0.96, 0.95, 0.97, 0.96, 0.96], [0.91, 0.92, 0.93, 0.92, 0.92]
      ),
    },
    'comparisons': {
      'shuffled targets': comparison('distilled', 'shuffled', None, None, None),
    },
    'metrics': {
      'student': {'nll': [0.31, 0.3, 0.29, 0.3, 0.3]},
      'distilled': {
        'nll': [0.21, 0.2, 0.19, 0.2, 0.2],
        'agreement': [0.97, 0.96, 0.97, 0.97, 0.97],
      },
    },
    'sweep': [
      {'temperature': 1.0, 'distilled': [0.93, 0.94], 'best': False},
      {'temperature': 4.0, 'distilled': [0.95, 0.96], 'best': True},
    ],
    'summary': [
      {
        'metric': 'validation/top1',
        'higher_is_better': True,
        'step': [100, 2000, 3000],
        'arms': {
          'student': [0.90, 0.93, 0.915],
          'distilled': [0.9, None, 0.96],
        },
      }
    ],
    'notes': ['One teacher is shared by all seeds.', 'Tried:\nT=1 and T=20.'],
    'tuning': {
      'student': {
        'grid': {'train.learning_rate': [0.001, 0.003]},
        'trials': 2,
        'chosen': {'train.learning_rate': 0.003},
        'split': 'validation',
      },
      'distilled': {
        'grid': {'train.learning_rate': [0.001, 0.003, 0.01]},
        'trials': 3,
        'chosen': {'train.learning_rate': 0.001},
        'split': 'validation',
      },
    },
    'params': {'teacher': 85002, 'student': 2410},
    'cost': {
      'step_ms': 1.2345,
      'teacher_share': 0.312,
      'flops': {'teacher': 170000, 'student': 4800.5},
      'latency_ms': {'student': 0.03125},
    },
    'wall_s': 93.4,
    'device': '2 cores of a CPU',
    'versions': {'jax': '0.10.2', 'flax': '0.12.8'},
    'commit': '0123456789abcdef',
    'config_sha256': 'fedcba9876543210',
    'command': 'python experiments/distill.py --config configs/x.py',
  }


@pytest.fixture
def plain_row(row):
  """One with only what a row must have; a method, not a work."""
  optional = {name.rstrip('?') for name in rows.SCHEMA if name.endswith('?')}
  kept = {name: value for name, value in row.items() if name not in optional}
  return kept | {
    'system': 'at',
    'survey': {},
    'metric': 'nll',
    'higher_is_better': False,
    'arms': {
      'student': {'values': [0.31, 0.3, 0.29]},
      'distilled': {'values': [0.22, 0.2, 0.18]},
    },
    'comparison': {
      'claim': 'distilled beats student',
      'better': 'distilled',
      'than': 'student',
      **statistics.paired(
        [0.22, 0.2, 0.18], [0.31, 0.3, 0.29], higher_is_better=False
      ),
    },
    'cost': {},
    'wall_s': 7260,
    'commit': None,
  }


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


def shown(row, width=100, **options):
  output = io.StringIO()
  Console(file=output, width=width).print(tables.console(row, **options))
  return output.getvalue()


def test_the_table_of_a_run(row, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  rows.check(row, 'row')
  text = shown(row, directory=tmp_path / 'runs' / 'demo')
  order = [text.index(f'│ {arm} ')
           for arm in ('teacher', 'student', 'distilled')]  # fmt: skip
  assert order == sorted(order)
  assert '96.00 ± 0.88' in text
  assert 'not finite' in text
  assert (
    'distilled beats student by 4.00 ± 0.88 points '
    '(95 % interval, 5 paired seeds)'
  ) in text
  assert 'runs/demo/ with row.json, curves.png' in text
  assert "jaxkd.load('runs/demo')" in text
  assert 'benchmarks/rows/hinton2015_soft_targets.json' in text
  assert str(tmp_path) not in text
  assert '…' not in shown(row, width=60)  # nothing is cut off


def test_an_arm_is_not_compared_with_itself(row):
  assert 'paired seeds' in shown(row)
  row['arms'] = {'student': row['arms']['student']}
  row['comparison'] = comparison('student', 'student', 0.0, 0.0, None)
  row['comparisons'] = {}
  assert 'paired seeds' not in shown(row)


@pytest.mark.parametrize(
  ('seeds', 'said'),
  [
    ((5, 5), 'mean ± half the width of its 95 % interval'),
    (
      (1, 5),
      'mean ± half the width of its 95 % interval; of fewer than 3 seeds, the '
      'value of each',
    ),
    ((1, 2), 'of fewer than 3 seeds, the value of each'),
  ],
)
def test_what_the_cells_hold_is_said(seeds, said):
  arms = {str(i): {'values': [0.5] * n} for i, n in enumerate(seeds)}
  assert wording.cells([{'arms': arms}]) == said


def test_notes_are_told_apart_and_none_drowns_the_table(row):
  fonts = f'fonts: {", ".join(map(str, range(1000)))}'
  row['notes'] = ['one teacher', fonts]
  text = shown(row, directory='runs/demo', width=300)
  assert '- one teacher\n' in text
  (line,) = (line for line in text.splitlines() if 'fonts' in line)
  assert line.startswith('- fonts: 0, 1, 2,')
  assert line.rstrip().endswith('... (the row has it all)')
  assert len(line.rstrip()) < 250


def test_the_row_of_a_tiny_run_is_not_for_benchmarks(row):
  assert 'BENCHMARKS.md' in shown(row, directory='runs/demo')
  row['notes'] = [wording.TINY]
  text = shown(row, directory='runs/demo')
  assert 'numbers mean nothing' in text
  assert 'BENCHMARKS.md' not in text


def test_what_is_too_wide_is_in_several_tables(row):
  metrics = [f'bleu_of_many_references_{i}' for i in range(4)]
  row['metrics'] = {
    arm: dict.fromkeys(metrics, [0.1] * len(found['values']))
    for arm, found in row['arms'].items()
  }
  text = shown(row, width=50)
  assert '…' not in text
  assert max(map(len, text.splitlines())) <= 50
  tables_ = [table.partition('└')[0] for table in text.split('┏')[1:]]
  assert len(tables_) > 1
  for table in tables_:
    assert {*metrics, 'seeds'} < {*table.split()}
  for arm in row['arms']:
    assert sum(f' {arm} ' in table for table in tables_) == 1


def test_more_metrics_than_arms_are_shown_side_by_side(row):
  row['arms'] = {name: row['arms'][name] for name in ('student', 'distilled')}
  del row['comparisons']
  text = shown(row)
  assert [line.split()[1] for line in text.splitlines() if '│' in line] == [
    'top1', 'nll', 'agreement', 'seeds'
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('metric', 'pair', 'said'),
  [
    ('top1', comparison('a', 'b', 0.04, 0.006, True),
     'a beats b by 4.00 ± 0.60 points (95 % interval, 5 paired seeds)'),
    ('top1', comparison('a', 'b', -0.04, 0.006, False),
     'a loses to b by 4.00 ± 0.60 points (95 % interval, 5 paired seeds)'),
    ('top1', comparison('a', 'b', -0.04, 0.05, None),
     'a and b cannot be told apart: -4.00 ± 5.00 points '
     '(95 % interval, 5 paired seeds)'),
    ('nll', comparison('a', 'b', -0.25, 0.05, True),
     'a beats b by 0.250 ± 0.050 nll (95 % interval, 5 paired seeds)'),
    ('top1', comparison('a', 'b', -250.0, 50.0, True, metric='steps_to_0.8'),
     'a beats b by 250 ± 50 steps (95 % interval, 5 paired seeds)'),
    ('top1', comparison('a', 'b', 0.04, None, None) | {'seeds': 2},
     'too few seeds (2): a - b is +4.00 points'),
    ('top1', comparison('a', 'b', None, None, None),
     'a and b cannot be compared: a value is not finite'),
  ],
)  # fmt: skip
def test_verdicts(metric, pair, said):
  assert wording.verdict(pair, {'metric': metric}) == said


def test_what_tuning_chose_is_told_with_what_it_gained(row):
  tuned = {'grid': {'train.clip': [0, 1, 2, 3]}, 'trials': 4,
           'values': [0.9, None, 0.95, 0.8], 'chosen': {'train.clip': 2},
           'split': 'validation'}  # fmt: skip
  row['tuning'] = {'distilled': tuned}
  assert tables._chosen(row) == [
    'distilled was tuned: train.clip=2 is best, with top1 (%) 95.00 on '
    'validation; next 90.00; worst of 4 points 80.00; 1 diverged'
  ]


def test_the_values_of_few_seeds_stand_in_place_of_a_mean():
  assert wording.mean([0.63], 'top1') == '63.00'
  assert wording.mean([0.63, 0.45], 'top1') == '63.00, 45.00'
  assert wording.mean([0.63, 0.45, 0.6], 'top1') == '56.00 ± 23.96'
  assert wording.judgement({'holds': None, 'seeds': 2}) == 'too few seeds (2)'


def test_numbers():
  assert wording.number(-0.000001, 'top1') == '0.00'
  assert wording.number(-0.000001, 'top1', sign=True) == '+0.00'
  assert wording.number(-1.5, 'nll') == '-1.500'
  assert wording.plain(1e9) == '1,000,000,000'
  assert wording.plain(0.000123456) == '0.0001235'
  assert wording.plain(True) == 'true'
  assert wording.heading('validation/top5') == 'validation/top5 (%)'
  assert wording.heading('teacher_kl') == 'teacher_kl'


def test_benchmarks_md_is_as_it_was(row, plain_row):
  """After a change that is meant, look at it and write it to the file."""
  for held in (row, plain_row):
    rows.check(held, held['system'])
  assert tables.benchmarks_md([row, plain_row], SPEED) == GOLDEN.read_text()


def test_a_row_without_a_claim_has_no_heading_for_it(row):
  row['comparison']['claim'] = ''
  page = tables.benchmarks_md([row])
  assert '\n- distilled beats student by 4.00 ± 0.88 points' in page
  assert '| distilled - student |' in page
  assert '****' not in page


def folders(tmp_path, *held):
  for name in ('rows', 'speed'):
    (tmp_path / name).mkdir()
  for i, row in enumerate(held):
    rows.save(tmp_path / 'rows' / f'{i}.json', row)
  return ['--rows', str(tmp_path / 'rows'), '--speed', str(tmp_path / 'speed'),
          '--out', str(tmp_path / 'PAGE.md')]  # fmt: skip


def test_write_then_check(tmp_path, row, plain_row, capsys):
  flags = folders(tmp_path, plain_row, row)
  (tmp_path / 'speed' / 'a.json').write_text(json.dumps(SPEED))
  assert main([*flags, '--check']) == 1
  assert main(flags) == 0
  assert (tmp_path / 'PAGE.md').read_text() == GOLDEN.read_text()
  capsys.readouterr()
  assert main([*flags, '--check']) == 0
  assert capsys.readouterr() == ('', '')
  row['wall_s'] = 2.0
  rows.save(tmp_path / 'rows' / '1.json', row)
  assert main([*flags, '--check']) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line == (
    f'{tmp_path}/PAGE.md is stale: run python -m jaxkd.report and commit what '
    'it writes'
  )


def test_without_any_rows(tmp_path):
  flags = folders(tmp_path)
  assert main(flags) == 0
  assert main([*flags, '--check']) == 0
  page = (tmp_path / 'PAGE.md').read_text()
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
  (tmp_path / 'PAGE.md').write_bytes(b'\xff')
  assert main([*flags, '--check']) == 1
  assert 'PAGE.md is stale' in capsys.readouterr().err
  (tmp_path / 'file').write_text('')
  assert main([*flags, '--out', str(tmp_path / 'file' / 'PAGE.md')]) == 2
  assert 'PAGE.md cannot be written: Not a' in capsys.readouterr().err


def test_load_speed_of_no_directory(tmp_path):
  assert tables.load_speed(tmp_path / 'none') == []
  (tmp_path / 'a.json').write_text('{}')
  with pytest.raises(UserError, match='the file must be a list'):
    tables.load_speed(tmp_path)


def test_the_report_needs_neither_jax_nor_matplotlib(tmp_path):
  code = (
    'import sys, runpy\n'
    'from jaxkd.report import rows, statistics, tables\n'
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


def test_methods_stand_beside_their_tuned_selves(row):
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
  page = tables.benchmarks_md([row]).partition('### [1]')[2]
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
