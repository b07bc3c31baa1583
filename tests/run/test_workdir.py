"""A folder belongs to one run, and one process at a time works in it."""

import os
import subprocess
import sys

import pytest

import jaxkd
from jaxkd import locks
from jaxkd.errors import UserError
from jaxkd.run import workdir

HOLDS = """
import pathlib, sys, time
from jaxkd.run import workdir
with workdir.locked(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


def test_another_process_is_kept_out_for_as_long_as_it_lasts(tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-c', HOLDS, str(tmp_path)], stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == b'held\n'
  with (
    pytest.raises(UserError, match=rf'--workdir: process {process.pid} on '),
    workdir.locked(tmp_path),
  ):
    pass
  process.kill()  # as kill -9 does
  process.wait()
  process.stdout.close()
  with workdir.locked(tmp_path):
    held = (tmp_path / locks.FILE).read_text()
    assert held.startswith(f'process {os.getpid()} on ')


def test_a_failure_gives_the_folder_back(tmp_path):
  with pytest.raises(KeyError), workdir.locked(tmp_path / 'new'):
    raise KeyError
  with workdir.locked(tmp_path / 'new'):
    pass


def test_where_nothing_can_be_written(tmp_path):
  file = tmp_path / 'file'
  file.write_text('')
  with (
    pytest.raises(UserError, match='cannot be written'),
    workdir.locked(file / 'sub'),
  ):
    pass


def test_a_run_needs_no_complete_config_to_say_what_is_missing(tmp_path):
  with pytest.raises(UserError, match='students: name at least one student'):
    jaxkd.run({}, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_a_folder_that_other_hosts_do_not_see(tmp_path, monkeypatch):
  with workdir.locked(tmp_path):
    workdir.check_shared(tmp_path)
    monkeypatch.setattr(
      workdir.hosts, 'broadcast_from_host0', lambda what, value: 'another'
    )
    with pytest.raises(UserError, match='another folder than on host 0'):
      workdir.check_shared(tmp_path)
