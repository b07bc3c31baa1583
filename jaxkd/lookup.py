"""Finding things by name: a file or an attribute is its own registry entry."""

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

from jaxkd import options as options_lib
from jaxkd.errors import UserError, blamed, first_line, unknown


def attribute(path: str, *, kind: str, at: str) -> Any:
  """What ``package.module:attribute`` names.

  Raises:
    UserError: no such module or attribute, or a module that fails.
  """
  module_name, _, name = path.partition(':')
  if not (module_name and name):
    raise UserError(f'{at}: write package.module:attribute, not {path!r}')
  with blamed(f'{at}: {module_name!r} cannot be imported'):
    try:
      module = importlib.import_module(module_name)
    except ImportError as error:
      raise UserError(
        f'{at}: cannot import {module_name!r} for the {kind} {path!r}: '
        f'{error}; check the spelling and that its folder is on PYTHONPATH'
      ) from error
  if not hasattr(module, name):
    raise unknown(kind, name, public(module), at)
  found = getattr(module, name)
  if not callable(found) and not isinstance(found, ModuleType):
    raise UserError(f'{at}: {path!r} is {found!r}, which is no {kind}')
  return found


def public(module: ModuleType) -> list[str]:
  """The functions and classes that a module defines or lists for others."""
  names = getattr(module, '__all__', None)
  if names is None:
    names = [
      name
      for name, value in vars(module).items()
      if not name.startswith('_')
      and callable(value)
      and getattr(value, '__module__', None) == module.__name__
    ]
  return sorted(names)


def find(name: Any, modules: Iterable[ModuleType], *, kind: str, at: str):
  """The attribute ``name`` of the first module that has it in public.

  A name with a colon is looked up as ``package.module:attribute``. What is no
  name but a function is what was looked for.
  """
  if callable(name):
    return name
  if ':' in name:
    return attribute(name, kind=kind, at=at)
  modules = list(modules)
  for module in modules:
    if name in public(module):
      return getattr(module, name)
  known = [known for module in modules for known in public(module)]
  raise unknown(kind, name, known, at)


def check_options(
  function: Callable,
  options: Mapping[str, Any],
  *,
  name: str,
  at: str,
  filled: Collection[str] | None = None,
) -> None:
  """Refuses options that ``function`` does not take by keyword.

  See `jaxkd.options.check` for the arguments. By default any may be left out,
  for some keywords are not the config's to set.

  Raises:
    UserError: an option that is not there, is missing, or has another type.
  """
  takes = {
    key: parameter
    for key, parameter in options_lib.parameters_of(function).items()
    if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
  }
  options_lib.check(
    options, takes, name=name, at=at, filled=takes if filled is None else filled
  )


def package(name: str, *, extra: str, at: str) -> ModuleType:
  """A module of a package that jaxkd does without if it can.

  Args:
    name: of the module.
    extra: which brings it.
    at: the config entry that needs it, for errors.

  Raises:
    UserError: it is not installed, or cannot be imported.
  """
  package = name.partition('.')[0]
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    # What is missing may be a package that this one imports.
    missing = (error.name or package).partition('.')[0]
    raise UserError(
      f'{at}: the package {missing} is not installed; pip install '
      f"'jaxkd[{extra}]'"
    ) from error
  except Exception as error:  # a damaged package may raise anything
    raise UserError(
      f'{at}: the package {package} is installed, and importing it fails '
      f'({type(error).__name__}: {first_line(error)}); install it again, as by '
      f'pip install --force-reinstall {package}'
    ) from error
