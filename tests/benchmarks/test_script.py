"""The script of all benchmarks: what it refuses before it measures."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'experiments' / 'benchmark.py'


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    (['--case=dmeo'], "--case: there is no case 'dmeo'; did you mean 'demo'? "
     '(known: demo, resnet20-resnet8)\n'),
    (['--out=none/x.json'], 'none/x.json cannot be written: No such file or '
     'directory; choose another file\n'),
    (['--store'], '--store: there is no folder benchmarks here; run this where '
     'the repository is, or write to a file with --out\n'),
    (['--losses', '--case=demo'], '--losses: --case does not tell it what to '
     'measure; leave --case out\n'),
    (['--population=memebrs'], "--population: there is no part 'memebrs'; did "
     "you mean 'members' or 'teachers'?"),
    (['--population', '--losses'], '--losses: it is a measurement of its own; '
     'leave --population out\n'),
    (['--peers'], '--peers: the peers need PyTorch; name a Python that has it '
     'with --torch_python=PATH\n'),
    (['--peers=kd,crt'], "--peers: there is no part 'crt'; did you mean"),
  ],
)  # fmt: skip
def test_it_refuses_before_it_measures(tmp_path, arguments, said):
  done = subprocess.run(
    [sys.executable, str(SCRIPT), *arguments],
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert said in done.stderr
