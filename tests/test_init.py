"""The public names are all there, and loading one loads little else."""

import importlib
import os
import subprocess
import sys

import pytest

import jaxkd
from jaxkd.errors import UserError

# What a user of the losses, or of the step, should not have to wait for.
HEAVY = (
  'flax',
  'orbax',
  'tensorstore',
  'rich',
  'tensorflow',
  'tensorflow_datasets',
  'grain',
  'matplotlib',
  'sklearn',
  'scipy',
  'tensorboardX',
)


@pytest.mark.parametrize(
  'statement',
  [
    'import jaxkd.losses',
    'import jaxkd; dir(jaxkd), jaxkd.losses.kl, jaxkd.Net',
    'import jaxkd; from jaxkd import losses',
  ],
)
def test_light_imports_load_nothing_heavy(statement):
  script = f'{statement}\nimport sys\nprint(*sys.modules)'
  command = [sys.executable, '-W', 'error', '-c', script]
  loaded = subprocess.run(
    command, check=True, stdout=subprocess.PIPE, text=True
  ).stdout.split()
  assert 'jaxkd' in loaded
  assert not set(HEAVY) & set(loaded)


def test_distilling_needs_no_package_of_runs():
  script = 'from jaxkd import distill, losses\nimport sys\nprint(*sys.modules)'
  command = [sys.executable, '-W', 'error', '-c', script]
  loaded = subprocess.run(
    command, check=True, stdout=subprocess.PIPE, text=True
  ).stdout.split()
  # Flax brings rich itself.
  assert not (set(HEAVY) - {'flax', 'rich'}) & set(loaded)
  assert not [name for name in loaded if name.startswith('jaxkd.run')]


@pytest.mark.parametrize('name', jaxkd.__all__)
def test_every_public_name_is_there(name):
  assert getattr(jaxkd, name) is not None
  assert name in dir(jaxkd)


def test_star_import_brings_the_public_names():
  namespace = {}
  exec('from jaxkd import *', namespace)
  assert set(jaxkd.__all__) <= set(namespace)


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match=r"'jaxkd' has no attribute 'los'"):
    _ = jaxkd.los


def test_a_folder_of_its_name_does_not_hide_the_package(tmp_path):
  """As a clone does from the folder above it, where notebooks are."""
  (tmp_path / 'jaxkd' / 'jaxkd').mkdir(parents=True)
  script = 'import jaxkd; print(jaxkd.__version__)'
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  found = subprocess.run(
    [sys.executable, '-c', script],
    check=True,
    cwd=tmp_path,
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert found.stdout.strip() == jaxkd.__version__


def test_run_is_a_function_and_a_package(tmp_path):
  assert jaxkd.run is importlib.import_module('jaxkd.run')
  with pytest.raises(UserError, match='there is no entry'):
    jaxkd.run({'no': 'entry'}, tmp_path)


@pytest.mark.parametrize('name', ['config', 'pipeline'])
def test_old_module_names_warn_and_are_the_new_ones(name):
  with pytest.warns(FutureWarning, match=f'now jaxkd.run.{name}'):
    old = importlib.import_module(f'jaxkd.{name}')
  assert old is importlib.import_module(f'jaxkd.run.{name}')
