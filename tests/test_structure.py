"""The structure of jaxkd: layers whose imports point one way, a small core."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A package imports those of its own layer and of the layers behind it.
LAYERS = (
  ('export',),
  ('run', 'report'),
  ('teachers', 'students', 'tasks'),
  ('distill', 'train', 'models', 'data'),
  ('losses',),
  ('logits',),
)
LAYER_OF = {name: i for i, layer in enumerate(LAYERS) for name in layer}
# The package gives its public names, and two modules keep their old ones.
FORWARDING = ('__init__.py', 'config.py', 'pipeline.py')

# What somebody reads to understand how a batch becomes a gradient.
CORE = (
  'types.py',
  'distill/api.py',
  'distill/term.py',
  'distill/transfer.py',
  'distill/step.py',
  'train/population.py',
  'train/fit.py',
  'run/pipeline.py',
  'run/train_job.py',
)
CORE_LINES = 2800

DISTILLATION = re.compile('teacher|student|distill', re.IGNORECASE)


def imported(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
  """The modules that code imports, wherever it does, with their lines.

  Args:
    tree: the code.
    package: its package, which relative imports begin at.
  """
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for name in node.names:
        yield node.lineno, name.name
    elif isinstance(node, ast.ImportFrom):
      relative = '.' * node.level + (node.module or '')
      module = importlib.util.resolve_name(relative, package)
      for name in node.names:
        yield node.lineno, f'{module}.{name.name}'


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
  """The names in code, of modules and keywords too, with their lines."""
  for node in ast.walk(tree):
    line = getattr(node, 'lineno', 0)
    for field in ('id', 'attr', 'arg', 'name', 'asname', 'module', 'rest'):
      if isinstance(name := getattr(node, field, None), str):
        yield line, name
    for name in getattr(node, 'names', ()):  # of global and nonlocal
      if isinstance(name, str):
        yield line, name


def upward(folder: Path) -> list[str]:
  """Imports of a layer above, of all files in the folder of a package jaxkd."""
  found = []
  for file in sorted(folder.rglob('*.py')):
    path = file.relative_to(folder)
    if path.as_posix() in FORWARDING:
      continue
    # What lies at the root is behind all layers.
    own = LAYER_OF[path.parts[0]] if len(path.parts) > 1 else len(LAYERS)
    package = '.'.join(('jaxkd', *path.parts[:-1]))
    for line, module in imported(ast.parse(file.read_text()), package):
      top, _, rest = module.partition('.')
      name = rest.partition('.')[0]
      if top == 'jaxkd' and LAYER_OF.get(name, len(LAYERS)) < own:
        found.append(f'{path}:{line} imports {module}')
  return found


def test_every_package_has_a_layer():
  packages = {p.parent.name for p in ROOT.glob('jaxkd/*/__init__.py')}
  assert packages == {*LAYER_OF}


def test_all_imports_point_one_way():
  found = upward(ROOT / 'jaxkd')
  assert not found, '\n'.join(['imports of a layer above:', *found])


@pytest.mark.parametrize(
  ('file', 'code', 'line'),
  [
    ('data/a.py', 'from jaxkd.run import config', 1),
    ('data/a.py', 'from jaxkd import keys, teachers', 1),
    ('data/a.py', 'def f():\n  import jaxkd.tasks.metrics', 2),
    ('train/a.py', 'from ..report import rows', 1),
    ('losses/a.py', 'from jaxkd import models', 1),
    ('errors.py', 'import jax\nfrom jaxkd import losses', 2),
  ],
)
def test_an_import_of_a_layer_above_is_found(tmp_path, file, code, line):
  (tmp_path / file).parent.mkdir(exist_ok=True)
  (tmp_path / file).write_text(code)
  (found,) = upward(tmp_path)
  assert found.startswith(f'{file}:{line} imports jaxkd.')


@pytest.mark.parametrize(
  ('file', 'code'),
  [
    ('run/a.py', 'from jaxkd.report import rows\nfrom jaxkd import losses'),
    ('data/a.py', 'from jaxkd.models import net\nfrom jaxkd import errors'),
    ('data/a.py', 'import run\nfrom report import tasks'),
    ('config.py', 'from jaxkd.run import config'),
  ],
)
def test_an_import_of_the_same_layer_or_of_one_behind_is_not(
  tmp_path, file, code
):
  (tmp_path / file).parent.mkdir(exist_ok=True)
  (tmp_path / file).write_text(code)
  assert not upward(tmp_path)


def test_training_names_nothing_of_distillation():
  found = []
  for file in sorted(ROOT.glob('jaxkd/train/**/*.py')):
    names = identifiers(ast.parse(file.read_text()))
    path = file.relative_to(ROOT)
    found += [f'{path}:{i} {n}' for i, n in names if DISTILLATION.search(n)]
  assert not found, '\n'.join(['names of distillation:', *found])


@pytest.mark.parametrize(
  'code',
  [
    'from jaxkd.distill import step',
    'from jaxkd import distill',
    'def f(*, num_teachers): pass',
    'f(student=1)',
    'x.of_students = 1',
    'class DistillStep: pass',
    'global teacher',
  ],
)
def test_a_name_of_distillation_is_found_in_code(code):
  assert any(DISTILLATION.search(n) for _, n in identifiers(ast.parse(code)))


def test_the_core_is_small():
  sizes = {
    name: len((ROOT / 'jaxkd' / name).read_text().splitlines()) for name in CORE
  }
  listed = [f'{size:5} {name}' for name, size in sizes.items()]
  total = sum(sizes.values())
  assert total < CORE_LINES, '\n'.join(
    [f'the core has {total} lines, not under {CORE_LINES}:', *listed]
  )
