"""The command `jaxkd`, and configs by their names alone."""

import subprocess
import sys

import pytest

import jaxkd
from jaxkd.errors import UserError
from jaxkd.run import config


def run(*arguments):
  command = [sys.executable, '-m', 'jaxkd', *arguments]
  return subprocess.run(command, capture_output=True, text=True)


def test_commands_are_listed_and_others_refused():
  listed = run('--help')
  assert listed.returncode == 0
  assert 'jaxkd distill' in listed.stdout
  unknown = run('distil')
  assert unknown.returncode == 2
  assert unknown.stderr == (
    "error: 'distil' is no command: distill, sweep, prepare, write, export, "
    'report\n'
  )


def test_a_command_takes_flags_and_configs_by_name(tmp_path):
  found = run('distill', '--config', 'hinton2015_soft_target:tiny')
  assert found.returncode == 2
  assert "did you mean 'hinton2015_soft_targets.py'" in found.stderr
  found = run('report', 'compare', str(tmp_path))
  assert found.returncode == 2
  assert 'cannot be read' in found.stderr


def test_a_config_of_ones_own_comes_before_one_of_ours(tmp_path, monkeypatch):
  assert config.load('hinton2015_soft_targets').name == (
    'hinton2015_soft_targets'
  )
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="there is no config file 'mine"):
    config.load('mine')
  (tmp_path / 'mine').mkdir()
  with pytest.raises(UserError, match='--config'):
    config.load('mine')


def test_the_citation_is_of_this_version():
  lines = (config.CONFIGS.parents[1] / 'CITATION.cff').read_text().splitlines()
  assert f'version: {jaxkd.__version__}' in lines
