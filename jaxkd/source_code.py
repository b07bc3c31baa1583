"""Checksums of code of one's own, by which a change of it is seen.

What a config names as ``package.module:attribute`` is code of the file of that
module. It counts with all modules that it imports, and those that they import,
but for Python's own, installed packages and jaxkd, whose versions a row tells.
Of an installed package that is named itself, all that it imports of itself
counts. Comments and layout do not. Code that no file holds, as in a notebook,
counts as the bytecode of what is named and of all in its module that it calls.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxkd.errors import UserError, blamed

# Behind `host:`, a function of the host that teaches; behind `torch:`, one that
# gives a PyTorch module.
_NAME = re.compile(
  r'(?<![\w./:-])(?:(?:host|torch):)?([A-Za-z_][\w.]*):([A-Za-z_]\w*)'
)
# How a module has attributes that its file does not spell out.
_MAKE_ATTRIBUTES = 'import *', '__getattr__', 'globals()'
_OURS = __name__.partition('.')[0]
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# Module -> its spec, which reloading replaces, and its checksum then.
_met: dict[str, tuple[Any, str]] = {}


class _Code(NamedTuple):
  """A module's code: what this process runs, and what its file holds now."""

  checksum: str
  on_disk: str
  file: Path | None


def named(tree: Any) -> dict[str, str]:
  """A checksum of each module whose code some text in a tree names.

  It is that of the code which this process runs, whatever the file holds now.

  Args:
    tree: of dicts, tuples and lists; texts in it may name several, as views do.

  Returns:
    Module -> SHA-256; of all modules that these need, too.

  Raises:
    UserError: code that cannot be read.
  """
  return {name: code.checksum for name, code in _all(tree).items()}


def fact(tree: Any) -> dict[str, str]:
  """``{'code': checksum}`` of all that `named` finds; empty for nothing."""
  found = named(tree)
  text = repr(sorted(found.items())).encode()
  return {'code': hashlib.sha256(text).hexdigest()} if found else {}


def outdated(tree: Any) -> dict[str, Path]:
  """The modules, of those of `named`, whose files this process has not read.

  They have changed since this process imported them: module -> file.
  """
  return {
    name: code.file
    for name, code in _all(tree).items()
    if code.checksum != code.on_disk
  }


def _all(tree: Any) -> dict[str, _Code]:
  found: dict[str, _Code] = {}
  for module, attribute in dict.fromkeys(_names(tree)):
    if module.partition('.')[0] != _OURS:
      found |= _of(module, attribute)
  return dict(sorted(found.items()))


def _names(tree: Any) -> Iterator[tuple[str, str]]:
  if isinstance(tree, str):
    yield from _NAME.findall(tree)
  elif isinstance(tree, Mapping | list | tuple):
    for child in tree.values() if isinstance(tree, Mapping) else tree:
      yield from _names(child)


def _of(name: str, attribute: str) -> dict[str, _Code]:
  """What ``name:attribute`` needs; nothing if it is no attribute.

  Texts may look like a name and be none: ``folder:images``.
  """
  if name not in sys.modules and not _may_have(name, attribute):
    return {}
  with blamed(f'{name}:{attribute}'):
    try:
      module = importlib.import_module(name)
    except ImportError:
      return {}
  if not hasattr(module, attribute):
    return {}
  own = getattr(module, attribute)
  inner = isinstance(own, ModuleType)
  there = own.__name__ if inner else getattr(own, '__module__', None)
  found: dict[str, _Code] = {}
  for start in dict.fromkeys((name, there or name)):
    if _file(start):
      found |= _by_files(start) if start == name or _is_own(start) else {}
    elif start == name:
      checksum = _by_value(own)
      found[start] = _Code(checksum, checksum, None)
  return found


def _by_files(start: str) -> dict[str, _Code]:
  """A module and all that it imports, near or far."""
  top, found, left = start.partition('.')[0], {}, _with_packages(start)
  while left:
    name = left.pop()
    file = _file(name)
    if name in found or not file:
      continue
    package = name if file.name == '__init__.py' else name.rpartition('.')[0]
    try:
      on_disk, imports = _read(file.read_bytes(), file.suffix, package)
    except (OSError, SyntaxError, ValueError) as error:
      raise UserError(f'the code of {name} cannot be read: {error}') from error
    found[name] = _Code(_imported(name, on_disk), on_disk, file)
    left += [
      other
      for other in imports
      if other.partition('.')[0] == top or _is_own(other)
    ]
  return found


@functools.lru_cache(1024)
def _read(text: bytes, suffix: str, package: str) -> tuple[str, list[str]]:
  """The checksum of a file's code, and the modules that it imports."""
  if suffix != '.py':  # compiled
    return hashlib.sha256(text).hexdigest(), []
  tree = ast.parse(text)
  checksum = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
  return checksum, list(dict.fromkeys(_imports(tree, package)))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
  """The modules that code imports anywhere, with the packages around them.

  Some may be no modules: of ``from a import b`` both a and a.b are told.
  """
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      above = package.split('.')
      above = above[: len(above) - node.level + 1] if node.level else []
      base = '.'.join(filter(None, [*above, node.module]))
      names = [base, *(f'{base}.{alias.name}' for alias in node.names)]
    for name in names:
      yield from _with_packages(name)


def _with_packages(name: str) -> list[str]:
  """A module and the packages that it is in, which are imported before it."""
  parts = name.split('.')
  return ['.'.join(parts[:count]) for count in range(1, len(parts) + 1)]


def _imported(name: str, on_disk: str) -> str:
  """The checksum that a module's file had when this process first met it."""
  if name not in sys.modules:
    return on_disk
  spec = getattr(sys.modules[name], '__spec__', None)
  before, checksum = _met.setdefault(name, (spec, on_disk))
  if before is spec:
    return checksum
  _met[name] = (spec, on_disk)  # reloaded
  return on_disk


def _is_own(name: str) -> bool:
  """Whether a module is neither Python's, nor installed, nor ours."""
  top = name.partition('.')[0]
  if top == _OURS or top in sys.stdlib_module_names:
    return False
  place = _file(top) or _folder(top)
  return bool(place) and not any(map(place.is_relative_to, _installed()))


@functools.cache
def _installed() -> tuple[Path, ...]:
  """The folders of Python and of what is installed for it."""
  kinds = ('stdlib', 'platstdlib', 'purelib', 'platlib')
  found = [*map(sysconfig.get_path, kinds), site.getusersitepackages()]
  found += site.getsitepackages()
  return tuple(Path(folder).resolve() for folder in found)


def _may_have(name: str, attribute: str) -> bool:
  """Whether a module that is not imported may have an attribute.

  A text such as ``hf:images`` runs no file ``hf.py`` that knows nothing of
  ``images``.
  """
  if not _spec(name.partition('.')[0]):
    return False
  file = _file(name)
  if file is None or file.suffix != '.py':
    return True
  text = file.read_text('utf-8', 'replace')
  return any(part in text for part in (attribute, *_MAKE_ATTRIBUTES))


def _spec(name: str) -> Any:
  """The spec of a module outside of any package, which is not imported."""
  with contextlib.suppress(ImportError, ValueError, AttributeError):
    return importlib.util.find_spec(name)
  return None


def _file(name: str) -> Path | None:
  """The file of a module; None where there is none. Imports nothing."""
  if name in sys.modules:
    file = getattr(sys.modules[name], '__file__', None)
    return Path(file).resolve() if file and Path(file).is_file() else None
  package, _, last = name.rpartition('.')
  if not package:
    spec = _spec(name)
    located = spec is not None and spec.has_location
    return Path(spec.origin).resolve() if located else None
  folder = _folder(package)
  places = (
    (folder / last / '__init__.py', folder / f'{last}.py') if folder else ()
  )
  return next((place for place in places if place.is_file()), None)


def _folder(name: str) -> Path | None:
  """The folder of a package; None where there is none."""
  file = _file(name)
  if file:
    return file.parent if file.name == '__init__.py' else None
  package, _, last = name.rpartition('.')
  if package:
    above = _folder(package)
    return above / last if above and (above / last).is_dir() else None
  spec = _spec(name)
  places = list(spec.submodule_search_locations or ()) if spec else []
  return Path(places[0]).resolve() if places else None


def _by_value(own: Any) -> str:
  """A checksum of a value, or of a function and what it calls in its module."""
  found = hashlib.sha256()
  for line in _lines(own, getattr(own, '__module__', None), set()):
    found.update(f'{line}\n'.encode())
  return found.hexdigest()


def _lines(own: Any, module: str | None, seen: set[int]) -> Iterator[str]:
  """What makes a value what it is, without its place in a file."""
  inner = _inner(own)
  if isinstance(own, _PLAIN):
    yield repr(own)
  elif isinstance(own, np.ndarray | jax.Array):
    values = np.asarray(own)
    yield f'{values.dtype}{values.shape}{values.tobytes().hex()}'
  elif inner is not None:
    for each in inner:
      yield from _lines(each, module, seen)
  elif isinstance(own, ModuleType):
    yield own.__name__
    if _is_own(own.__name__):
      yield from _checksums(own.__name__)
  elif isinstance(own, FunctionType | type) and own.__module__ == module:
    if id(own) in seen:
      return
    seen.add(id(own))
    if isinstance(own, FunctionType):
      yield from _of_code(own.__code__)
      parts = [own.__defaults__, own.__kwdefaults__]
      for cell in own.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing is in it yet
          parts.append(cell.cell_contents)
      looked_up = _looked_up(own.__code__)
      parts += [(n, own.__globals__.get(n)) for n in looked_up]
    else:
      held = sorted(vars(own).items())
      parts = [own.__bases__, [x for x in held if not _is_told(*x)]]
    yield from _lines(parts, module, seen)
  else:
    yield f'{getattr(own, "__qualname__", type(own).__qualname__)}'
    where = getattr(own, '__module__', None)
    if isinstance(where, str) and where != module and _is_own(where):
      yield from _checksums(where)
    elif where == module and id(own) not in seen:
      seen.add(id(own))  # an instance of a class that is there
      held = sorted(getattr(own, '__dict__', {}).items())
      parts = [type(own), [x for x in held if not x[0].startswith('_')]]
      yield from _lines(parts, module, seen)


def _inner(own: Any) -> list | tuple | None:
  """What a value wraps or holds; None where it is a thing of its own."""
  if isinstance(own, Mapping):
    return list(own.items())
  if isinstance(own, tuple | list):
    return own
  if isinstance(own, staticmethod | classmethod):
    return (own.__func__,)
  if isinstance(own, property):
    return own.fget, own.fset
  if isinstance(own, functools.partial):
    return own.func, own.args, own.keywords
  bare = inspect.unwrap(own) if callable(own) else own
  return None if bare is own else (bare,)


def _is_told(name: str, value: Any) -> bool:
  """Whether an entry of a class says where it stands, and not what it does."""
  return name.startswith('__') and isinstance(value, _PLAIN)


def _checksums(name: str) -> list[str]:
  return [code.checksum for code in _by_files(name).values()]


def _of_code(code: CodeType) -> Iterator[str]:
  yield code.co_code.hex()
  yield repr((code.co_names, code.co_varnames, code.co_freevars))
  for value in code.co_consts:
    if isinstance(value, CodeType):
      yield from _of_code(value)
    elif isinstance(value, frozenset):  # in an order of this process
      yield repr(sorted(map(repr, value)))
    else:
      yield repr(value)


def _looked_up(code: CodeType) -> list[str]:
  """The names that code looks up, those of functions inside it too."""
  found = list(code.co_names)
  for value in code.co_consts:
    if isinstance(value, CodeType):
      found += _looked_up(value)
  return found
