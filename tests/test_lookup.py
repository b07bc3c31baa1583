"""What a user names as package.module:attribute."""

import sys

import pytest

from jaxkd import lookup
from jaxkd.errors import UserError


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('import missing', r"cannot import 'own_models' for the model"),
    ('def Net(:', r'SyntaxError: .* \(own_models.py, line 1\)$'),
    ('raise SystemExit(3)', r'SystemExit: 3 \(own_models.py, line 1\)$'),
    (
      '1 / 0',
      r'ZeroDivisionError: division by zero \(own_models.py, line 1\)$',
    ),
    ('Ned = dict', r"there is no model 'Net'"),
  ],
)
def test_a_module_that_fails_is_put_down_to_its_entry(
  text, message, tmp_path, monkeypatch
):
  (tmp_path / 'own_models.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, 'own_models', raising=False)
  with pytest.raises(UserError, match=f'^students.s.model: .*{message}'):
    lookup.attribute('own_models:Net', kind='model', at='students.s.model')
  sys.modules.pop('own_models', None)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (None, "the package odd_one is not installed; pip install 'jaxkd\\[x\\]'"),
    (
      'raise ImportError("no symbol f\\nat all")',
      r'the package odd_one is installed, and importing it fails '
      r'\(ImportError: no symbol f\); install it again',
    ),
  ],
)
def test_a_package_that_is_not_there_or_broken(
  text, message, tmp_path, monkeypatch
):
  if text:
    (tmp_path / 'odd_one').mkdir()
    (tmp_path / 'odd_one' / '__init__.py').touch()
    (tmp_path / 'odd_one' / 'part.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match=f'^task: {message}'):
    lookup.package('odd_one.part', extra='x', at='task')
  sys.modules.pop('odd_one', None)


def test_a_package_that_another_one_needs_is_named(tmp_path, monkeypatch):
  (tmp_path / 'own_package.py').write_text('import missing.part')
  monkeypatch.syspath_prepend(tmp_path)
  for name, missing in (('own_package', 'missing'), ('none.part', 'none')):
    with pytest.raises(UserError, match=f'^a: the package {missing} is not'):
      lookup.package(name, extra='speech', at='a')
