"""What is measured of populations, not how fast they are."""

import io
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import population_speed, speed
from jaxkd.errors import Stopped, UserError
from jaxkd.report import speed as report
from jaxkd.run import config as configs
from jaxkd.train import execution

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs' / 'hinton2015_soft_targets.py'
LONG = 1e6  # seconds, so that nothing is left out


@pytest.fixture(scope='module')
def cases():
  """One small net on small images."""
  case = population_speed._case(
    'tiny',
    {'source': 'synthetic', 'kw': {'shape': (4, 4, 1), 'size': 60}},
    {'model': 'mlp', 'kw': {'widths': (4,)}},
    {'batch_size': 4},
  )
  return {'tiny': case}


@pytest.fixture(scope='module')
def measured(cases):
  return population_speed.members(cases, 2, sizes=(1, 2), seconds=LONG)


def text(measured, width=80):
  output = io.StringIO()
  Console(file=output, width=width).print(population_speed.table(measured))
  return output.getvalue()


def test_every_way_to_run_members_has_its_rate(measured):
  assert [row['members'] for row in measured['rows']] == [1, 2]
  ways = 'one by one', 'vmap', 'unroll', 'sequence'
  for row in measured['rows']:
    assert (row['net'], row['shapes']) == ('tiny', '4×4×4×1')
    assert all(row[way] > 0 for way in ways)
    best = max(row[way] for way in ways[1:])
    assert row['auto'] in ('vmap', 'sequence')
    behind = 100 * (best / row[row['auto']] - 1)
    assert row['% behind'] == pytest.approx(behind, abs=0.2)
    assert row['gain'] > 0
    assert row['compile s'].count('/') == 2
  assert measured['rows'][0]['auto'] == 'sequence'  # of one, there is no choice


def test_rates_count_members(cases, monkeypatch):
  """Two members in a step of the same length are twice the rate of one."""
  monkeypatch.setattr(
    speed,
    'interleaved',
    lambda programs, *_, **__: dict.fromkeys(programs, speed.np.full(3, 0.5)),
  )
  monkeypatch.setattr(
    execution, 'fastest', lambda *_: (None, execution.Execution('vmap', 1))
  )
  (row,) = population_speed.members(cases, 2, sizes=(2,), seconds=LONG)['rows']
  assert (row['one by one'], row['vmap'], row['gain']) == (2.0, 4.0, 2.0)
  assert (row['auto'], row['% behind']) == ('vmap', 0.0)


def test_what_would_take_too_long_is_left_out(cases):
  found = population_speed.members(cases, 2, sizes=(1, 2), seconds=0)
  first, second = found['rows']
  assert first['vmap'] > 0
  assert second['vmap'] is second['one by one'] is second['auto'] is None
  assert second['compile s'] == '– / – / –'
  known = 1, population_speed.Ready(None, compile_s=3.0, step_s=0.5)
  later = 4 * 0.5 * (speed.WARM_UP + speed.FEWEST)
  assert population_speed._expected(known, 4, 'vmap') == 3 + later
  assert population_speed._expected(known, 4, 'unroll') == 4 * 3 + later


@pytest.mark.all_devices
def test_members_are_shared_out_over_the_devices(cases):
  found = population_speed.devices(
    cases, 2, counts=(1, 2, 4, 16), sharing=2, seconds=1
  )
  rows = found['rows']
  assert [row['devices'] for row in rows] == [1, 2, 4]  # there are 8
  assert [row['member × data'] for row in rows] == ['1×1', '2×1', '2×2']
  assert rows[0]['speed-up'] == 1
  for row in rows:
    assert row['per second'] == pytest.approx(2e3 / row['ms'], rel=1e-3)
  assert 'simulated' in found['notes'][0]


def script(tmp_path, body):
  """A command that runs some Python."""
  path = tmp_path / 'script.py'
  path.write_text(f'import json, os, pathlib, sys, time\n{body}')
  return [sys.executable, str(path)]


def test_devices_that_are_simulated_elsewhere(cases, tmp_path):
  command = script(
    tmp_path,
    'made = [dict(flags=os.environ["XLA_FLAGS"], last=sys.argv[-2])]\n'
    'pathlib.Path(sys.argv[-1]).write_text(json.dumps(made))',
  )
  found = population_speed.simulated([*command, '--out'])
  assert found['flags'].endswith('device_count=8')
  assert found['last'] == '--out'


def test_a_whole_command_is_timed_for_each_number_of_seeds(tmp_path):
  command = script(
    tmp_path,
    'folder, seeds = (a.partition("=")[2] for a in sys.argv[1:])\n'
    'assert "programs-" + seeds in os.environ["JAX_COMPILATION_CACHE_DIR"]\n'
    'os.mkdir(folder)\n'
    'row = dict(cost=dict(step_ms=0.5 * int(seeds)))\n'
    'pathlib.Path(folder, "row.json").write_text(json.dumps(row))',
  )
  found = population_speed.seeds(command, counts=(1, 5))
  rows = found['rows']
  assert [row['seeds'] for row in rows] == [1, 5, 1, 5]
  assert [row['programs'] for row in rows] == 2 * ['compiled'] + 2 * ['at hand']
  assert [row['step ratio'] for row in rows] == [1, 5, 1, 5]
  assert rows[0]['wall ratio'] == rows[2]['wall ratio'] == 1
  assert all(row['wall s'] > 0 for row in rows)


def test_a_command_that_fails_or_is_to_stop(tmp_path):
  command = script(tmp_path, 'sys.exit("error: no such config")')
  with pytest.raises(UserError, match='has failed: error: no such config'):
    population_speed.seeds(command)
  stop = threading.Event()
  timer = threading.Timer(0.2, stop.set)
  timer.start()
  begun = time.monotonic()
  with pytest.raises(Stopped, match='nothing was kept'):
    population_speed.seeds(script(tmp_path, 'time.sleep(600)'), stop)
  assert time.monotonic() - begun < 300
  timer.join()


def test_asked_to_stop(cases):
  stop = threading.Event()
  stop.set()
  for measure in (population_speed.members, population_speed.devices):
    with pytest.raises(Stopped, match='nothing was kept'):
      measure(cases, 2, stop)


def test_the_terminal_and_the_page(measured, tmp_path):
  shown = text(measured)
  assert '…' not in shown
  assert shown.count('4×4×4×1') == 1  # a net is named once
  speed.save(tmp_path / 'x.json', [measured])
  page = report.page(report.load(tmp_path))
  assert '## Population: members' in page
  assert '| tiny | 4×4×4×1 | 2 |' in page


def test_the_nets_that_are_measured():
  made = population_speed.cases(configs.load(str(DEMO)))
  assert list(made) == ['mlp', 'resnet8', 'vit']
  mlp = made['mlp'].config
  assert mlp['students']['student']['kw']['widths'] == (32,)
  assert mlp['data']['source'] == 'digits'
  assert not mlp['teachers']
