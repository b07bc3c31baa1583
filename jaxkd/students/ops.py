"""What is done to a net's parameters, as texts: ``'uniform(4)|ternary'``.

Every op takes, beside what is its own,

- ``only``, the parameters that it is for, by default ``'*kernel'``, and
  ``skip``, those that it is not for: globs of their paths, several joined by
  ``|``. Of two ops for one parameter the first has it;
- ``after``: whether it is done when training is over, without training's
  knowledge.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxkd import calls, lookup
from jaxkd.errors import UserError, unknown
from jaxkd.paths import matches


class Op(NamedTuple):
  """An op and the parameters that it is for.

  Attributes:
    name: its name in the text.
    does: what its function gives.
    only: globs of the parameters that it is for.
    skip: globs of those that it is not for.
    after: whether it is done when training is over.
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
    known: the functions that ops are, by name.
    kind: what they are, for errors.
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
  """The functions of a module, its globals, that give one of these types."""
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
  """The op of each parameter: the first that is for it.

  Raises:
    UserError: an op that is left without any.
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
  """What every op takes."""
