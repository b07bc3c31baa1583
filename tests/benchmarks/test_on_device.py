"""The script for an accelerator, as far as it can be run without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxkd.report import rows
from jaxkd.report import speed as report

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'benchmarks' / 'on_device.sh'
# Stands for Python: is told what to run, and fails where its file says so.
STANDIN = """#!/bin/sh
for last in "$@"; do :; done
file=${last#--out=}
echo "$@"
case $file in
  */steps.json) exit 3 ;;
  */steps_bfloat16.json) exec sleep 100 ;;
  *) echo '[]' > "$file" ;;
esac
"""


def run(*arguments):
  return subprocess.run(
    ['bash', str(SCRIPT), *map(str, arguments)], capture_output=True, text=True
  )


def test_what_would_be_run(tmp_path):
  torch = '--torch_python=/usr/bin/python', '--mdistiller=/clone'
  done = run(tmp_path / 'out', '--dry', '--python=python3', *torch)
  assert done.returncode == 0
  assert not (tmp_path / 'out').exists()
  lines = done.stdout.splitlines()[:-1]
  parts = [line.partition(':')[0] for line in lines]
  assert parts == [
    'members', 'steps', 'peers', 'steps_bfloat16', 'peers_bfloat16', 'large',
    'peers_large', 'peers_large_bfloat16',
  ]  # fmt: skip
  for part, line in zip(parts, lines, strict=True):
    given = all(flag in line for flag in torch)
    assert given == part.startswith('peers')
    assert ('--dtype=bfloat16' in line) == part.endswith('bfloat16')
    assert ('resnet50-resnet18' in line) == ('large' in part)
  # What they may take at most is more than there is, but not by much.
  limits = [int(line.split('at most ')[1].split()[0]) for line in lines]
  assert 600 <= sum(limits) <= 660


def test_every_command_is_one_that_the_script_takes(tmp_path):
  """Each is parsed, up to a flag that does not exist."""
  done = run(tmp_path, '--dry', f'--python={sys.executable}')
  commands = [line.split(' s: ')[1] for line in done.stdout.splitlines()[:-1]
              if ' s: ' in line]  # fmt: skip
  assert len(commands) == 4
  code = (
    'import json, sys\nimport experiments.benchmark as b\n'
    'from absl import flags\n'
    'for line in json.load(sys.stdin):\n'
    '  flags.FLAGS.unparse_flags()\n'
    '  flags.FLAGS(line.split()[1:])\n'
    '  b._check()\n'
    'print("good")'
  )
  parsed = subprocess.run(
    [sys.executable, '-c', code],
    input=json.dumps(commands),
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert parsed.stdout == 'good\n', parsed.stderr


def test_a_part_that_fails_costs_no_other(tmp_path):
  python = tmp_path / 'python'
  python.write_text(STANDIN)
  python.chmod(0o755)
  out = tmp_path / 'out'
  peers = f'--torch_python={python}', '--mdistiller=/x'
  # There is time for the first ones alone.
  done = run(out, '--small', '--minutes=0', f'--python={python}', *peers)
  assert done.returncode == 1
  assert 'members: left out, the time is over' in done.stdout
  assert [file.name for file in out.iterdir()] == ['report.txt']
  done = run(
    out, '--small', f'--python={python}', '--only=members,steps,peers', *peers
  )
  assert done.returncode == 1
  found = sorted(file.name for file in out.iterdir())
  assert found == ['members.json', 'peers.json', 'report.txt']
  assert 'steps: has failed (3)' in done.stdout
  assert '1 parts have failed or were left out' in done.stdout
  assert (out / 'report.txt').read_text() == done.stdout


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ([], 'name the folder to write to'),
    (['a', 'b'], 'one folder is enough: a or b'),
    (['a', '--smal'], 'there is no option --smal'),
    (['a', '--minutes=ten'], '--minutes=ten is not a whole number'),
  ],
)
def test_what_it_refuses(arguments, said):
  done = run(*arguments, '--dry')
  assert done.returncode == 2
  assert f'error: {said}' in done.stderr


def test_one_part_for_real(tmp_path):
  """The step of the demo's student, twice."""
  done = run(tmp_path, '--small', f'--python={sys.executable}', '--only=steps')
  assert done.returncode == 0, done.stdout
  (found,) = rows.load_json(tmp_path / 'steps.json')
  rows.check_shape([found], report.SCHEMA, 'x')
  assert found['name'] == 'Steps: demo'
  assert found['rows'][0]['program'] == 'plain step'
