"""Renamed entries of a config, whose old names still work with a warning.

A table holds the names that changed, as
``{'students.*.correct': 'students.*.logit_shift'}``, where `*` stands for any
one name. An old name is read as the new one, with a warning, also in front of a
longer name and in the changes of an arm or a round.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from jaxkd.errors import UserError

_Path = tuple[str, ...]


def current(entry: str, table: Mapping[str, str]) -> str:
  """The current name of an entry; warns if the one given is an old name.

  Args:
    entry: its name, e.g. ``'arms.shifted.students.student.correct'``.
    table: old name -> new name.
  """
  now = '.'.join(_current(tuple(entry.split('.')), table))
  if now != entry:
    warnings.warn(
      f'{entry} is now called {now}; the next release has no other name for it',
      FutureWarning,
      stacklevel=2,
    )
  return now


def renamed(config: dict, table: Mapping[str, str]) -> dict:
  """A config, or a part of one, with every entry called as it is now.

  Args:
    config: plain dicts.
    table: old name -> new name.

  Raises:
    UserError: an entry is given by both of its names.
  """
  for path, value in list(_leaves(config)):
    now = _current(path, table)
    if now != path:
      current('.'.join(path), table)
      config = _without(_with(config, now, value, path), path)
  return config


def _current(path: _Path, table: Mapping[str, str]) -> _Path:
  start = 0
  while path[start : start + 1] in (('arms',), ('rounds',)):
    start += 2
  for old, new in table.items():
    pattern = old.split('.')
    below = start + len(pattern)
    pairs = [*zip(pattern, path[start:below], strict=False)]
    if len(pairs) == len(pattern) and all(p in ('*', n) for p, n in pairs):
      names = iter(name for p, name in pairs if p == '*')
      made = (next(names) if p == '*' else p for p in new.split('.'))
      return (*path[:start], *made, *path[below:])
  return path


def _leaves(config: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
  """The path and the value of every leaf; an empty dict is one."""
  if isinstance(config, Mapping) and config:
    for name, value in config.items():
      yield from _leaves(value, (*path, str(name)))
  else:
    yield path, config


def _with(config: Any, path: _Path, value: Any, old: _Path, at: _Path = ()):
  """A config with a value at a path where there is none."""
  if not path:
    if config != {}:
      raise UserError(
        f'{".".join(at)}: it is also given by its old name, {".".join(old)}; '
        'leave that out'
      )
    return value
  if not isinstance(config, Mapping):
    raise UserError(f'{".".join(at)}: {config!r} should be a dict of entries')
  name, *rest = path
  below = config.get(name, {})
  return {**config, name: _with(below, tuple(rest), value, old, (*at, name))}


def _without(config: Mapping, path: _Path) -> dict:
  """A config without a value, and without the dicts that only held it."""
  name, *rest = path
  left = {k: v for k, v in config.items() if k != name}
  if rest and (below := _without(config[name], tuple(rest))):
    return {**config, name: below}
  return left
