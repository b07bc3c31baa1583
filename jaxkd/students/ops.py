"""Ops on a net's parameters, written as texts: ``'uniform(4)|ternary'``.

Beside its own arguments, every op takes

- ``only``, the parameters to which it applies, by default ``'*kernel'``, and
  ``skip``, exceptions from these: globs of their paths, several joined by
  ``|``. If several ops match a parameter, the first applies;
- ``after``: whether it applies only once, when training is over.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxkd import calls, lookup
from jaxkd.errors import UserError, unknown
from jaxkd.paths import matches


class Op(NamedTuple):
  """An op and the parameters to which it applies.

  Attributes:
    name: its name in the text.
    does: what its function returned.
    only: globs of the parameters to which it applies.
    skip: globs of exceptions from these.
    after: whether it applies only once, when training is over.
  """

  name: str
  does: Any
  only: str
  skip: str
  after: bool


def parse(
  text: str,
  known: Mapping[str, Callable],
  *,
  kind: str,
  like: str,
  at: str,
) -> tuple[Op, ...]:
  """Reads ops joined by ``|``.

  Args:
    text: e.g. ``'uniform(4, skip="head|stem")|activations(8)'``.
    known: the functions of the ops, by name.
    kind: what an op is, for errors.
    like: an example, for errors.
    at: the config entry.

  Raises:
    UserError: no such op, or arguments that it does not take.
  """
  found = []
  for name, args, kwargs in calls.split(text, kind=kind, like=like, at=at):
    if ':' in name:
      make = lookup.attribute(name, kind=kind, at=at)
    elif name in known:
      make = known[name]
    else:
      raise unknown(kind, name, known, at)
    shared = inspect.signature(_shared).parameters
    own = {key: kwargs.pop(key) for key in shared if key in kwargs}
    own = calls.bind(_shared, name, [], own, kind=kind, at=at)
    given = calls.bind(make, name, args, kwargs, kind=kind, at=at)
    try:
      found.append(Op(name, make(**given), **own))
    except UserError as error:
      raise UserError(f'{at}: {error}') from error
  return tuple(found)


def giving(module: Mapping[str, Any], *kinds: type) -> dict[str, Callable]:
  """The public functions in a module's globals that return one of the types."""
  return {
    name: function
    for name, function in module.items()
    if inspect.isfunction(function)
    and not name.startswith('_')
    and function.__annotations__.get('return') in kinds
  }


def share_out(
  ops: Sequence[Op], paths: Iterable[str], *, at: str
) -> dict[str, Op]:
  """The op of each parameter: the first that applies to it.

  Raises:
    UserError: an op without parameters.
  """
  paths, found = list(paths), {}
  for path in paths:
    for op in ops:
      skipped = op.skip and matches(path, op.skip)
      if matches(path, op.only) and not skipped:
        found[path] = op
        break
  for op in ops:
    if not any(op is one for one in found.values()):
      but = f' but {op.skip!r}' if op.skip else ''
      raise UserError(
        f'{at}: {op.name} is for parameters {op.only!r}{but}, and there are '
        f'none for it; change only or skip (known: {", ".join(paths)})'
      )
  return found


def _shared(*, only: str = '*kernel', skip: str = '', after: bool = False):
  """The arguments that every op takes."""
