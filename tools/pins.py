"""Writes requirements.txt: the newest set of packages that go together.

    python tools/pins.py PYTHON3.11 PYTHON3.12

One interpreter of 3.11 and one of a later version, each with pip; nothing is
installed. There are two sets in one list, since the newest jax and flax no
longer support Python 3.11.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
HEADER = '# The exact versions that are tested; `make pins` renews them.'
TESTED = ('detection', 'hf', 'speech', 'text', 'video', 'dev')
OLD = 'python_version < "3.12"'
NEW = 'python_version >= "3.12"'


def wanted() -> list[str]:
  """What pyproject.toml asks for: to build, to run and to test all of it."""
  table = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  project = table['project']
  extras = project['optional-dependencies']
  return [
    'pip',
    *table['build-system']['requires'],
    *project['dependencies'],
    *(package for name in TESTED for package in extras[name]),
  ]


def resolve(python: str) -> dict[str, str]:
  """Package to version, as this interpreter's pip would install them."""
  command = [python, '-m', 'pip', 'install', '-qq', '--dry-run']
  command += ['--ignore-installed', '--report', '-', *wanted()]
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
  lines = merge(*map(resolve, pythons))
  (ROOT / 'requirements.txt').write_text('\n'.join([HEADER, *lines, '']))


if __name__ == '__main__':
  main(sys.argv[1:])
