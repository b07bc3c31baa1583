"""What a package holds is read, and what is named is imported."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

from jaxkd import models, registry, tasks
from jaxkd.errors import UserError

FILES = {
  'good': "Model = 1\nNAMED = {'good_a': {}, 'good_b': {}}",
  'typed': 'Model: int = 2',
  'taken': 'from package.good import Model as Model',
  'needing': "import missing\nNAMED = {'needing_a': {}}\ndef Model(): 1",
  'failing': "class Model: ...\nNAMED = {'failing_a': {}}\nNAMED['b']",
  'other': "NAMED = {'other_a': {}}\ndef inner():\n  Model = 1",
}
TYPO = {'typo': 'class Model:\n  x ='}
COMPUTED = {'computed': 'Model = 3\nNAMED = {str(i): {} for i in range(3)}'}


@pytest.fixture
def package(tmp_path, monkeypatch):
  def made(files):
    (tmp_path / 'package').mkdir()
    for name, text in {'__init__': '', **files}.items():
      (tmp_path / 'package' / f'{name}.py').write_text(f'{text}\n')
    return registry.Files('package', defines='Model', lists='NAMED')

  monkeypatch.syspath_prepend(tmp_path)
  yield made
  for name in [n for n in sys.modules if n.partition('.')[0] == 'package']:
    del sys.modules[name]


def test_what_defines_a_name_is_known_without_being_imported(package):
  files = package(FILES)
  assert set(files) == {'good', 'typed', 'taken', 'needing', 'failing'}
  assert 'package.good' not in sys.modules
  found = files.find('good_b', kind='model', at='m')
  assert found is files['good'] is sys.modules['package.good']
  assert files.find('typed', kind='model', at='m').Model == 2
  assert not {'package.needing', 'package.failing'} & set(sys.modules)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('needing_a', r"No module named 'missing' \(needing.py, line 1\)"),
    ('failing', r"KeyError: 'b' \(failing.py, line 3\)"),
  ],
)
def test_a_file_that_does_not_import_breaks_what_it_holds(
  name, message, package
):
  files = package(FILES)
  with pytest.raises(UserError, match=rf'^m: \w+.py cannot be .*{message}$'):
    files.find(name, kind='model', at='m')
  assert files.find('good', kind='model', at='m').Model == 1


def test_an_unknown_name_comes_with_the_nearest(package):
  with pytest.raises(UserError, match=r"^m: .*; did you mean 'good_a'"):
    package(FILES).find('godo_a', kind='model', at='m')


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    (TYPO, r'invalid syntax \(\S+, line 2\)'),
    (COMPUTED, 'the keys of NAMED should be written out'),
  ],
)
def test_a_file_that_cannot_be_read(files, message, package):
  (file,) = files
  found = package({**FILES, **files})
  assert found.find('good_a', kind='model', at='m').Model == 1
  with pytest.raises(UserError, match=rf'^m: {file}.py cannot.*{message}$'):
    found.find(file, kind='model', at='m')
  hint = rf'good_a.*of {file}.py it is not known what it holds.*{message}$'
  with pytest.raises(UserError, match=hint):
    found.find('good_c', kind='model', at='m')


@pytest.mark.parametrize(
  ('package', 'defines', 'lists'),
  [(models, 'Model', 'NAMED'), (models, 'PYTORCH', ''),
   (tasks, 'GROUND_TRUTH', '')],
)  # fmt: skip
def test_what_is_read_is_what_is_there(package, defines, lists):
  files = registry.Files(package.__name__, defines=defines, lists=lists)
  there = {
    info.name: importlib.import_module(f'{package.__name__}.{info.name}')
    for info in pkgutil.iter_modules(package.__path__)
  }
  assert dict(files) == {n: m for n, m in there.items() if hasattr(m, defines)}
  for module in files.values():
    for name in getattr(module, lists or '_', {}):
      assert files.find(name, kind='model', at='m') is module


def test_a_run_imports_the_models_and_the_task_that_it_names():
  script = (
    'from jaxkd import models, tasks; models.resolve("wrn_16_2"); '
    'tasks.find("segmentation"); import sys; print(*sys.modules)'
  )
  loaded = subprocess.run(
    [sys.executable, '-c', script],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout.split()
  families = {f'jaxkd.models.{name}' for name in models.families()}
  assert families & set(loaded) == {'jaxkd.models.wrn'}
  assert 'jaxkd.tasks.translation' not in loaded
