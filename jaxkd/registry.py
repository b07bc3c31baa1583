"""The files of a package as a registry: what is named is imported, no more.

What a file defines is read from its text. So a file that does not import
breaks what it holds and nothing else.
"""

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import NamedTuple

from jaxkd.errors import UserError, blamed, unknown


class Files(Mapping[str, ModuleType]):
  """The modules of a package that define a name, by the names of their files.

  A module is imported when it is taken. A file whose text cannot be read as
  Python might define the name, and so is one of them.

  Args:
    package: its name, e.g. ``'jaxkd.models'``.
    defines: what a module must bind at its top level, e.g. ``'Model'``.
    lists: the dict, if there is one, by whose keys a module can be found too,
      e.g. ``'NAMED'``; the keys are written out there.
  """

  def __init__(self, package: str, *, defines: str, lists: str = ''):
    self._package = package
    path = importlib.util.find_spec(package).submodule_search_locations
    read = {
      info.name: _read(f'{package}.{info.name}', defines, lists)
      for info in pkgutil.iter_modules(path)
    }
    self._files = {name: file for name, file in read.items() if file}

  def __getitem__(self, name: str) -> ModuleType:
    return self._import(name, self._package)

  def __iter__(self) -> Iterator[str]:
    return iter(self._files)

  def __len__(self) -> int:
    return len(self._files)

  def find(self, name: str, *, kind: str, at: str) -> ModuleType:
    """The module of a name, that of its file or one that it lists.

    Args:
      name: what is looked for.
      kind: what it should name, for errors.
      at: the config entry that has the name.

    Raises:
      UserError: there is none, or it does not import.
    """
    for file, found in self._files.items():
      if name == file or name in found.listed:
        return self._import(file, at)
    known = [n for f, found in self._files.items() for n in (f, *found.listed)]
    error = unknown(kind, name, known, at)
    unread = [file for file, found in self._files.items() if found.broken]
    if unread:
      raise UserError(
        f'{error}; of {unread[0]}.py it is not known what it holds, as it '
        f'cannot be read: {self._files[unread[0]].broken}'
      )
    raise error

  def _import(self, name: str, at: str) -> ModuleType:
    broken = self._files[name].broken
    if broken:
      raise UserError(f'{at}: {name}.py cannot be read: {broken}')
    with blamed(f'{at}: {name}.py cannot be imported'):
      return importlib.import_module(f'{self._package}.{name}')


class _File(NamedTuple):
  """What the text of a file tells.

  Attributes:
    listed: the keys of the dict that lists names.
    broken: why the text cannot be read, if it cannot.
  """

  listed: tuple[str, ...] = ()
  broken: str = ''


def _read(module: str, defines: str, lists: str) -> _File | None:
  """What is in a file; None if the name is not defined there."""
  try:
    spec = importlib.util.find_spec(module)
    text = spec.loader.get_source(module) or ''
    bound = dict(_bound(ast.parse(text, spec.origin).body))
  except (ImportError, SyntaxError, ValueError) as error:
    return _File(broken=f'{type(error).__name__}: {error}')
  if defines not in bound:
    return None
  if lists not in bound:
    return _File()
  keys = getattr(bound[lists], 'keys', [None])
  listed = [getattr(key, 'value', None) for key in keys]
  if not all(isinstance(name, str) for name in listed):
    return _File(broken=f'the keys of {lists} should be written out')
  return _File(tuple(listed))


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
  """The names that statements bind, with what is assigned to each."""
  for node in body:
    match node:
      case ast.ClassDef() | ast.FunctionDef():
        yield node.name, node
      case ast.Import() | ast.ImportFrom():
        for alias in node.names:
          yield alias.asname or alias.name, node
      case ast.Assign(targets=targets, value=value):
        for target in targets:
          if isinstance(target, ast.Name):
            yield target.id, value
      case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
        yield name, value
