"""What a run prints at its end."""

import io

import pytest
from rich.console import Console

from jaxkd.report import rows, terminal, wording


def shown(row, width=100, **options):
  output = io.StringIO()
  Console(file=output, width=width).print(terminal.console(row, **options))
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
  assert 'runs/demo/ with report.html, row.json, curves.png' in text
  assert "jaxkd.load('runs/demo')" in text
  assert 'python -m jaxkd.report --add runs/demo' in text
  assert str(tmp_path) not in text
  assert '…' not in shown(row, width=60)  # nothing is cut off


def test_an_arm_is_not_compared_with_itself(row, comparison):
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
      'mean ± half the width of its 95 % interval; with fewer than 3 seeds, '
      'the value of each is shown',
    ),
    ((1, 2), 'with fewer than 3 seeds, the value of each is shown'),
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
  assert 'jaxkd.report --add' in shown(row, directory='runs/demo')
  row['notes'] = [wording.TINY]
  text = shown(row, directory='runs/demo')
  assert 'numbers mean nothing' in text
  assert 'jaxkd.report' not in text


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
  ('metric', 'found', 'other', 'said'),
  [
    ('top1', (0.04, 0.006, True), {},
     'a beats b by 4.00 ± 0.60 points (95 % interval, 5 paired seeds)'),
    ('top1', (-0.04, 0.006, False), {},
     'a loses to b by 4.00 ± 0.60 points (95 % interval, 5 paired seeds)'),
    ('top1', (-0.04, 0.05, None), {},
     'a and b cannot be told apart: -4.00 ± 5.00 points '
     '(95 % interval, 5 paired seeds)'),
    ('nll', (-0.25, 0.05, True), {},
     'a beats b by 0.250 ± 0.050 nll (95 % interval, 5 paired seeds)'),
    ('top1', (-250.0, 50.0, True), {'metric': 'steps_to_0.8'},
     'a beats b by 250 ± 50 steps (95 % interval, 5 paired seeds)'),
    ('top1', (0.04, None, None), {'seeds': 2},
     'too few seeds (2): a - b is +4.00 points'),
    ('top1', (None, None, None), {},
     'a and b cannot be compared: a value is not finite'),
  ],
)  # fmt: skip
def test_verdicts(comparison, metric, found, other, said):
  pair = comparison('a', 'b', *found) | other
  assert wording.verdict(pair, {'metric': metric}) == said


def test_what_tuning_chose_is_told_with_what_it_gained(row):
  tuned = {'grid': {'train.clip': [0, 1, 2, 3]}, 'trials': 4,
           'values': [0.9, None, 0.95, 0.8], 'chosen': {'train.clip': 2},
           'split': 'validation'}  # fmt: skip
  row['tuning'] = {'distilled': tuned}
  assert terminal._chosen(row) == [
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
