"""Writes requirements.txt and docs/requirements.txt: packages that go together.

    python tools/pins.py PYTHON3.11 PYTHON3.12

One interpreter of 3.11 and one of a later version, each with pip; nothing is
installed. There are two sets in one list, since the newest jax and flax no
longer support Python 3.11. What builds the site of docs comes after them: its
list has only what is not in the first one.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
HEADER = '# The exact versions that are tested; `make pins` renews them.'
DOCS_HEADER = '# What `make docs` adds to these; `make pins` renews them.'
TESTED = ('detection', 'hf', 'speech', 'text', 'video', 'dev')
OLD = 'python_version < "3.12"'
NEW = 'python_version >= "3.12"'


def wanted() -> list[str]:
  """What pyproject.toml asks for: to build, to run and to test all of it."""
  table = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  return [
    'pip',
    *table['build-system']['requires'],
    *table['project']['dependencies'],
    *extras(*TESTED),
  ]


def extras(*names: str) -> list[str]:
  """What the extras of these names in pyproject.toml ask for."""
  table = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  known = table['project']['optional-dependencies']
  return [package for name in names for package in known[name]]


def resolve(python: str, *packages: str) -> dict[str, str]:
  """Package to version, as this interpreter's pip would install them.

  Args:
    python: the interpreter.
    *packages: what is wanted, with options of pip.
  """
  command = [python, '-m', 'pip', 'install', '-qq', '--dry-run']
  command += ['--ignore-installed', '--report', '-', *packages]
  report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
  found = [item['metadata'] for item in json.loads(report)['install']]
  return {normal(package['name']): package['version'] for package in found}


def normal(name: str) -> str:
  """The one spelling that stands for all spellings of a package's name."""
  return re.sub(r'[-_.]+', '-', name).lower()


def merge(old: dict[str, str], new: dict[str, str]) -> list[str]:
  """One line for each package, two where the sets differ."""
  lines = []
  for name in sorted({*old, *new}):
    if old.get(name) == new.get(name):
      lines.append(f'{name}=={old[name]}')
      continue
    for pins, marker in ((old, OLD), (new, NEW)):
      if name in pins:
        lines.append(f'{name}=={pins[name]} ; {marker}')
  return lines


def main(pythons: list[str]):
  """Resolves with both interpreters, the older one first."""
  if len(pythons) != 2:
    sys.exit(__doc__)
  pins = ROOT / 'requirements.txt'
  found = [resolve(python, *wanted()) for python in pythons]
  write(pins, HEADER, found)
  more = [resolve(p, '-c', str(pins), *extras('docs')) for p in pythons]
  for known, new in zip(found, more, strict=True):
    for name in known.keys() & new.keys():
      del new[name]
  write(ROOT / 'docs' / 'requirements.txt', DOCS_HEADER, more)


def write(path: pathlib.Path, header: str, found: list[dict[str, str]]):
  """Writes the pins of both interpreters, the older one first."""
  path.write_text('\n'.join([header, *merge(*found), '']))


if __name__ == '__main__':
  main(sys.argv[1:])
