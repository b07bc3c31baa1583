"""requirements.txt, and that of docs, pin all that pyproject.toml asks for."""

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]


def pinned(path):
  text = (ROOT / path / 'requirements.txt').read_text()
  return [line for line in text.splitlines() if not line.startswith('#')]


@pytest.fixture(scope='module')
def lines():
  return pinned('.') + pinned('docs')


def test_every_line_is_one_exact_version(lines):
  exact = r'[a-z0-9-]+==[0-9][\w.]*( ; python_version (<|>=) "3\.12")?'
  assert [line for line in lines if not re.fullmatch(exact, line)] == []


@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
def test_the_pins_fulfil_what_the_project_asks_for(lines, python):
  environment = {'python_version': python}
  pins = {}
  for requirement in map(Requirement, lines):
    if not requirement.marker or requirement.marker.evaluate(environment):
      assert requirement.name not in pins
      pins[requirement.name] = str(requirement.specifier).removeprefix('==')
  table = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  wanted = (
    table['build-system']['requires']
    + table['project']['dependencies']
    + table['project']['optional-dependencies']['text']
    + table['project']['optional-dependencies']['docs']
    + table['project']['optional-dependencies']['dev']
  )
  assert len(wanted) > 10
  for requirement in map(Requirement, wanted):
    name = canonicalize_name(requirement.name)
    assert name in pins, f'{name} has no pin for {python}: run `make pins`'
    assert pins[name] in requirement.specifier, name
