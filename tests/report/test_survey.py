"""The survey's pages: its file, our cells, and verdicts from rows alone."""

import io
import json
import pathlib
import tomllib

import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.report import rows, statistics, survey, terminal
from jaxkd.report.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
CLAIMS = [
  *('A1', 'A2', 'A3', 'A4', 'A5', 'A6', 'B1', 'B2', 'B3', 'B4', 'B5'),
  *('C1', 'C2', 'C3', 'D1', 'D2', 'D3', 'D4', 'E1'),
]
CELLS = {'objective': 'Accuracy', 'data': '-', 'teacher': 'Single, Simple',
         'knowledge': 'Soft labels', 'method': 'Permuted Distillation',
         'student': 'Implicit student', 'dataset': 'JFT'}  # fmt: skip


@pytest.fixture
def held():
  """A survey of one work and one claim."""
  return {
    'cite': 'We, 2020',
    'title': 'On all',
    'url': 'https://example.org',
    'tables': {'I': [1]},
    'word': [{'survey': 'permuted', 'ours': 'plain'}],
    'work': [
      {
        'number': 1,
        'cite': 'They, 2015',
        'title': 'One',
        'configs': ['mine', 'yours'],
        'notes': ['It was two.'],
        'cells': [{'experiment': 'Ex. 1', **CELLS}],
      },
      {'number': 'section VI', 'cite': 'a thought', 'configs': []},
    ],
    'claim': [
      {
        'id': 'A1',
        'works': [1],
        'short': 'soft targets help',
        'survey': 'They help by 3 %.',
        'source': {'read': 'By 2 %.', 'memory': 'Not always.'},
        'needs': [
          {'row': 'mine', 'asks': 'soft beats hard'},
          {'row': 'mine', 'compare': 'all_data', 'asks': 'with all data too'},
        ],
      }
    ],
  }


@pytest.fixture
def configs():
  said = {'work': 1, 'objective': 'accuracy', 'data': 'none',
          'teacher': 'single', 'knowledge': 'soft labels', 'method': 'plain',
          'student': 'single'}  # fmt: skip
  return {'mine': survey.Config(said, 'digits', ('all_data',))}


def row(soft, hard, **controls):
  """A row of two arms, and of two more for each control."""
  arms = {'soft': soft, 'hard': hard}
  higher = controls.pop('higher', True)

  def compared(better, than):
    found = statistics.paired(arms[better], arms[than], higher_is_better=higher)
    return {'claim': better, 'better': better, 'than': than, **found}

  pairs = {}
  for name, values in controls.items():
    one, other = arms[name], arms[f'no {name}'] = values
    assert one and other
    pairs[name] = compared(name, f'no {name}')
  made = {
    'system': 'mine', 'survey': {'work': 1}, 'dataset': 'digits',
    'metric': 'top1' if higher else 'nll', 'higher_is_better': higher,
    'arms': {name: {'values': values} for name, values in arms.items()},
    'comparison': compared('soft', 'hard'), 'comparisons': pairs,
    'params': {}, 'cost': {}, 'wall_s': 1.0, 'device': 'CPU', 'versions': {},
    'commit': None, 'config_sha256': '0', 'command': 'x',
  }  # fmt: skip
  rows.check(made, 'row')
  return made


LOW, HIGH = [0.50, 0.52, 0.51, 0.50, 0.52], [0.61, 0.60, 0.62, 0.60, 0.62]
ALIKE = [0.51, 0.50, 0.53, 0.50, 0.51]  # as LOW, within its interval


def claimed(held, *made):
  """The page, and the verdict in its overview."""
  page = survey.claims_md(held, made)
  (line,) = (line for line in page.splitlines() if line.startswith('| A1'))
  return page, line.split(' | ')[-1].removesuffix(' |')


def test_the_survey_has_every_work_and_claim():
  held = survey.load()
  numbers = [work['number'] for work in held['work']]
  assert numbers == [*range(1, 19), 'section VI', 'section VIII']
  assert [claim['id'] for claim in held['claim']] == CLAIMS
  tabled = [n for numbers in held['tables'].values() for n in numbers]
  assert sorted(tabled) == [n for n in range(1, 19) if n != 3]
  for work in held['work']:
    assert ('cells' in work) == (work['number'] in tabled)
    assert work['configs']
  first = held['work'][0]
  assert [cells['experiment'] for cells in first['cells']] == ['Ex. 1', 'Ex. 2']
  assert held['work'][12]['cells'][0]['student'] == 'Implicit student'
  assert 'Permuted Distillation' in held['work'][5]['cells'][0]['method']
  assert '\n' not in json.dumps(held, ensure_ascii=False).replace(r'\n', '\n')


def test_the_survey_and_the_configs_know_each_other():
  """Every comparison that a claim names is made by its config, if it is here.

  And the file is found where it is installed.
  """
  held, configs = survey.load(), survey.read_configs(ROOT / 'configs')
  survey.check(held, configs)
  assert configs['hinton2015_soft_targets'].dataset == 'digits'
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  shipped = project['tool']['setuptools']['package-data']['jaxkd.report']
  assert any(survey.FILE.match(pattern) for pattern in shipped)


def test_a_comparison_that_its_config_does_not_make(held, configs):
  survey.check(held, configs)
  held['claim'][0]['needs'][1]['compare'] = 'all_dat'
  with pytest.raises(UserError, match=r"claim A1: mine: .*'all_dat'; did you"):
    survey.check(held, configs)
  survey.check(held, {})  # a config that is not here may come with it


def test_a_config_of_a_work_that_is_not_there(held, configs):
  configs['new'] = configs['mine']._replace(survey={'work': 19})
  with pytest.raises(UserError, match=r'new.py: survey.work: .*no work 19'):
    survey.check(held, configs)


@pytest.mark.parametrize(
  ('old', 'new', 'said'),
  [
    ('compare = ', 'compares = ', 'there is no entry'),
    ("row = 'nayak2019_zero_shot'", "row = 'nayak'", "no config 'nayak'"),
    ('works = [9]', 'works = [90]', 'claim C1: there is no work 90'),
    ('II = [14, ', 'II = [140, ', 'tables.II: there is no work 140'),
    ("id = 'A2'", "id = 'A1'", 'the claim A1 is there twice'),
    ("'not identified'", '3', r'work\[2\].cite must be text'),
    ("memory = '", "memory = '59.5 %. ", 'source.memory has a figure'),
    ("title = '", 'title = ', 'is not TOML'),
  ],
)
def test_a_survey_that_is_not_right(tmp_path, old, new, said):
  path = tmp_path / 'survey.toml'
  text = survey.FILE.read_text('utf-8')
  path.write_text(text, 'utf-8')
  assert survey.load(path) == survey.load()
  assert old in text
  path.write_text(text.replace(old, new, 1), 'utf-8')
  with pytest.raises(UserError, match=said):
    survey.load(path)


def test_a_claim_that_needs_nothing(tmp_path):
  path = tmp_path / 'survey.toml'
  text = survey.FILE.read_text('utf-8')
  last = text.rindex('[[claim]]')
  text = text[: text.index('[[claim.needs]]', last)] + 'needs = []\n'
  path.write_text(text, 'utf-8')
  with pytest.raises(UserError, match='E1 needs nothing; say which row'):
    survey.load(path)


def test_a_survey_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match='cannot be read: No such file'):
    survey.load(tmp_path / 'none.toml')


def test_the_tables(held, configs):
  configs['theirs'] = configs['mine']  # not listed, but of the work
  page = survey.survey_md(held, configs)
  cells = 'accuracy | digits | single | soft labels; plain | single |'
  expected = [
    '| **[1]** They, 2015 (Ex. 1) | Accuracy | JFT | Single, Simple | '
    'Soft labels; Permuted Distillation | Implicit student |',
    f'| [mine](../configs/mine.py) | {cells}',
    f'| [theirs](../configs/theirs.py) | {cells}',
    '| yours | not yet here |  |  |  |  |',
  ]
  assert '\n'.join(expected) in page
  assert '| permuted | plain |' in page
  assert '- **[1]** It was two.' in page
  assert '- **[1]** They, 2015, One' in page
  assert '| **section VI** a thought |' in page.split('## In neither')[1]


def test_works_without_a_config_are_not_yet_here(held):
  page = survey.survey_md(held, {})
  assert '| mine, yours | not yet here |  |  |  |  |' in page


def test_a_claim_without_its_row(held):
  page, said = claimed(held)
  assert said == 'not yet here'
  assert 'soft beats hard: not yet here (mine)' in page
  assert 'with all data too: not yet here (mine, all_data)' in page
  assert 'holds 0, does not hold 0, cannot be told 0, not yet here 1.' in page
  assert '- The source ([1] They, 2015): By 2 %. *(read)* Not always.' in page


def test_a_row_that_does_not_have_the_comparison_yet(held):
  page, said = claimed(held, row(HIGH, LOW))
  assert said == 'not yet here'
  link = '[mine](benchmarks/mine.md)'
  assert f'with all data too: not yet here ({link}, all_data)' in page


def test_a_claim_that_holds(held):
  page, said = claimed(held, row(HIGH, LOW, all_data=(HIGH, LOW)))
  assert said == 'holds'
  assert (
    'soft beats hard: **holds**, soft - hard is +10.00 ± 1.52 points on 5 '
    'paired seeds ([mine](benchmarks/mine.md))'
  ) in page


@pytest.mark.parametrize('first', [HIGH, ALIKE])
def test_all_that_a_claim_needs_must_hold(held, first):
  _, said = claimed(held, row(first, LOW, all_data=(LOW, HIGH)))
  assert said == 'does not hold'


def test_what_does_not_hold_decides_though_more_is_to_come(held):
  assert claimed(held, row(LOW, HIGH))[1] == 'does not hold'


def test_a_claim_that_cannot_be_told(held):
  made = row(HIGH, LOW, all_data=(ALIKE, LOW))
  page, said = claimed(held, made)
  assert said == 'cannot be told'
  assert '**cannot be told**, all_data - no all_data is +0.00 ± 1.96' in page


def test_one_seed_tells_nothing(held):
  page, said = claimed(held, row([0.6], [0.5], all_data=([0.6], [0.5])))
  assert said == 'cannot be told'
  assert 'is +10.00 points on only 1 paired seed (' in page


def test_a_metric_that_is_better_low(held):
  assert claimed(
    held, row(LOW, HIGH, higher=False, all_data=(LOW, HIGH))
  )[1] == 'holds'  # fmt: skip


def test_the_opposite_of_a_comparison(held):
  (claim,) = held['claim']
  claim['needs'] = [{'row': 'mine', 'asks': 'hard wins', 'opposite': True}]
  page, said = claimed(held, row(HIGH, LOW))
  assert said == 'does not hold'
  assert 'hard - soft is -10.00 ± 1.52 points' in page
  assert claimed(held, row(LOW, HIGH))[1] == 'holds'
  assert claimed(held, row(ALIKE, LOW))[1] == 'cannot be told'
  assert claimed(held, row([None], [0.1]))[1] == 'cannot be told'


@pytest.mark.parametrize('higher', [True, False])
@pytest.mark.parametrize(
  ('may_lose', 'said'),
  [(0.2, 'holds'), (0.1, 'cannot be told'), (0.02, 'does not hold')],
)
def test_what_may_be_lost(held, may_lose, said, higher):
  (claim,) = held['claim']
  claim['needs'] = [{'row': 'mine', 'asks': 'little', 'may_lose': may_lose}]
  worse, better = (LOW, HIGH) if higher else (HIGH, LOW)
  page, found = claimed(held, row(worse, better, higher=higher))
  assert found == said
  lost = f'{100 * may_lose:.2f} points' if higher else f'{may_lose:.3f} nll'
  assert f', where {lost} may be lost on 5 paired seeds' in page


@pytest.fixture
def repository(tmp_path, monkeypatch):
  """A folder like the repository's, with one config and its row."""
  for folder in ('benchmarks/rows', 'configs', 'docs'):
    (tmp_path / folder).mkdir(parents=True)
  name = 'hinton2015_soft_targets_fashion'
  (tmp_path / 'configs' / f'{name}.py').write_text(
    'def get_config(arg=None):\n'
    '  return dict(survey=dict(work=1, student="a small one"))\n'
  )
  made = row(HIGH, LOW) | {'system': name}
  rows.save(tmp_path / 'benchmarks' / 'rows' / f'{name}.json', made)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_write_then_check(repository, capsys):
  assert main(['--check']) == 1
  stale = capsys.readouterr().err.splitlines()
  stale = {line.split()[0] for line in stale}
  assert {'BENCHMARKS.md', 'docs/survey.md', 'docs/claims.md'} <= stale
  assert main([]) == 0
  assert main(['--check']) == 0
  assert 'a small one' in (repository / 'docs/survey.md').read_text('utf-8')
  claims = (repository / 'docs/claims.md').read_text('utf-8')
  assert '| D1 | [1] | 3 % of the data for the student | not yet' in claims
  assert (
    'with 3 % of the data, soft targets beat hard labels: **holds**' in claims
  )
  assert capsys.readouterr() == ('', '')
  config = repository / 'configs/hinton2015_soft_targets_fashion.py'
  config.write_text(config.read_text().replace('small', 'tiny'))
  assert main(['--check']) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('docs/survey.md is stale: run python -m jaxkd.report')
  (repository / 'benchmarks/rows/hinton2015_soft_targets_fashion.json').unlink()
  assert main(['--check']) == 1
  assert 'docs/claims.md is stale' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--survey', ['Table II', 'Implicit student', 'not yet here', 'a small']),
    ('--claims', ['A1: specialists', 'E1: more', '+10.00 ± 1.52 points']),
  ],
)
def test_what_is_printed(repository, capsys, monkeypatch, flag, said):
  monkeypatch.setenv('COLUMNS', '200')
  assert main([flag]) == 0
  printed = capsys.readouterr().out
  assert all(words in printed for words in said)
  assert '.md)' not in printed  # links that lead nowhere
  assert not (repository / 'docs/survey.md').exists()
  with pytest.raises(SystemExit):
    main([flag, '--out', 'x'])


def test_nothing_is_cut_where_the_terminal_is_narrow(held, configs):
  held['work'][0]['configs'] = ['a_config_of_a_very_long_name_indeed']
  console = Console(file=io.StringIO(), width=60)
  console.print(terminal.Page(survey.survey_md(held, configs)))
  printed = console.file.getvalue()
  assert '…' not in printed
  first = ''.join(line[1:10].strip() for line in printed.splitlines())
  assert 'a_config_of_a_very_long_name_indeed' in first
  start = printed.index('They')  # ruled off from the work above it alone
  assert '───' not in printed[start : printed.index('mine')]


def test_outside_of_the_repository(repository, capsys):
  (repository / 'configs/hinton2015_soft_targets_fashion.py').unlink()
  (repository / 'configs').rmdir()
  assert main(['--survey']) == 2
  assert 'no directory configs; run this where' in capsys.readouterr().err
