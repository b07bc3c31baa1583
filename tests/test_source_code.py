"""Which code counts, and what of it."""

import importlib
import os
import subprocess
import sys
import types

import pytest

from jaxkd import source_code
from jaxkd.errors import UserError

LOSSES = """
from near import CONSTANT
from .sub import helper
import numpy

def loss(student, teacher):
  import late
  return helper.scaled(student - teacher) + CONSTANT
"""
FILES = {
  'package/__init__.py': '',
  'package/losses.py': LOSSES,
  'package/sub/__init__.py': 'def unused(): pass\n',
  'package/sub/helper.py': 'def scaled(x):\n  return 2 * x\n',
  'package/other.py': 'VALUE = 1\n',
  'near.py': 'import jaxkd.losses\nCONSTANT = 1\n',
  'late.py': 'raise RuntimeError("run by nobody")\n',
}
NAMED = 'package.losses:loss'


def write(folder, file, text):
  path = folder / file
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  importlib.invalidate_caches()


@pytest.fixture
def code(tmp_path, monkeypatch):
  """A folder of modules on the path, and how one of them is changed."""
  before = set(sys.modules)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  for file, text in FILES.items():
    write(tmp_path, file, text)
  yield tmp_path
  for name in set(sys.modules) - before:
    if name.partition('.')[0] in ('package', 'near', 'late'):
      del sys.modules[name]


def checksums(folder, tree=NAMED):
  """What another process finds."""
  said = subprocess.run(
    [sys.executable, '-c',
     f'from jaxkd import source_code; print(source_code.named({tree!r}))'],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(folder), *sys.path])},
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  return eval(said.stdout)


def test_all_that_is_imported_counts(code):
  found = source_code.named({'distill': {'soft': {'loss': NAMED}}})
  assert list(found) == [
    'late', 'near', 'package', 'package.losses', 'package.sub',
    'package.sub.helper',
  ]  # fmt: skip
  assert 'late' not in sys.modules
  assert found == checksums(code)
  write(code, 'package/sub/helper.py', 'def scaled(x):\n  return 3 * x\n')
  now = checksums(code)
  assert {n for n in found if now[n] != found[n]} == {'package.sub.helper'}
  write(code, 'late.py', 'VALUE = 1\n')
  assert checksums(code)['late'] != found['late']


def test_comments_and_other_modules_do_not_count(code):
  found = source_code.named(NAMED)
  write(code, 'package/losses.py', f'# a comment\n\n{LOSSES}  # and one\n')
  write(code, 'package/other.py', 'VALUE = 2\n')
  assert source_code.named(NAMED) == found
  assert source_code.outdated(NAMED) == {}


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ('noise(0.3)|package.other:VALUE(3)|flip', ['package', 'package.other']),
    ('{"model": "package.other:VALUE"}', ['package', 'package.other']),
    (('mlp', ['package.other:VALUE']), ['package', 'package.other']),
    ('package.other:MISSING', []),
    ('folder:images', []),
    ('late:images', []),  # and the file late.py, which is there, is not run
    ('pytorch:weights.safetensors', []),
    ('https://example.org', []),
    ('jaxkd.teachers.specialists:cross_entropy', []),
    ('json:loads', ['json', 'json.decoder', 'json.encoder', 'json.scanner']),
    (3, []),
  ],
)
def test_what_names_code(text, found, code):
  assert list(source_code.named(text)) == found


def test_what_runs_counts_and_not_what_the_file_holds_now(code):
  found = source_code.named(NAMED)
  write(code, 'package/losses.py', LOSSES + '\nMORE = 1\n')
  assert source_code.named(NAMED) == found
  file = code / 'package' / 'losses.py'
  assert source_code.outdated(NAMED) == {'package.losses': file.resolve()}
  importlib.reload(sys.modules['package.losses'])
  assert source_code.named(NAMED) != found
  assert source_code.outdated(NAMED) == {}


def test_code_that_cannot_be_read(code):
  write(code, 'package/losses.py', 'def loss(:\n')
  with pytest.raises(UserError, match=r'package\.losses:loss: SyntaxError'):
    source_code.named(NAMED)


NOTEBOOK = """
from flax import linen as nn
import jax.numpy as jnp

TABLE = jnp.arange({table})

def scaled(x):
  return x * {factor}

class Net(nn.Module):
  features: int = {features}

  @nn.compact
  def __call__(self, x):
    if x in {{'a', 'b', 'c'}}:
      return
    return nn.Dense(self.features)(scaled(x)) + TABLE

def unused():
  return {unused}
"""


def test_code_that_no_file_holds(monkeypatch):
  def cell(space='', **changes):
    values = dict(table=3, factor=2, features=8, unused=0) | changes
    module = types.ModuleType('cell')
    monkeypatch.setitem(sys.modules, 'cell', module)
    exec(space + NOTEBOOK.format(**values), vars(module))
    return source_code.named('cell:Net')

  first = cell()
  assert list(first) == ['cell']
  assert cell('# moved\n\n') == first == cell(unused=1)
  for change in ({'table': 4}, {'factor': 3}, {'features': 9}):
    assert cell(**change) != first


@pytest.mark.parametrize('changed', ['{k: 2}', '{k: (1, [2])}', 'Scaled(2)'])
def test_an_object_counts_with_what_it_holds(monkeypatch, changed):
  def cell(held):
    module = types.ModuleType('cell')
    monkeypatch.setitem(sys.modules, 'cell', module)
    exec(
      'import uuid\nk = 1\nclass Scaled:\n  def __init__(self, by):\n'
      '    self.by, self._id, self.own = by, uuid.uuid4(), self\n'
      '  def __call__(self, student):\n    return self.by * student\n'
      f'loss = Scaled({held})',
      vars(module),
    )
    return source_code.named('cell:loss')

  assert cell('{k: 1}') == cell('{k: 1}') != cell(changed)


def test_such_code_is_the_same_in_every_process():
  script = (
    'import types, sys\n'
    'from jaxkd import source_code\n'
    f'exec({NOTEBOOK.format(table=3, factor=2, features=8, unused=0)!r})\n'
    'print(source_code.named("__main__:Net"))'
  )
  said = {
    subprocess.run(
      [sys.executable, '-c', script], capture_output=True, text=True,
      check=True, env={**os.environ, 'PYTHONHASHSEED': seed,
                       'PYTHONPATH': os.pathsep.join(sys.path)},
    ).stdout
    for seed in ('1', '2')
  }  # fmt: skip
  assert len(said) == 1 and '__main__' in said.pop()
