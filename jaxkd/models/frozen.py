"""Frozen layers: they run in evaluation mode while the net trains.

A layer is frozen, with its sublayers, if all of its parameters match the
pattern of those that do not train. Then BatchNorm uses its running statistics
without updating them, and dropout drops nothing. A layer without parameters is
frozen if the pattern matches its path or that of a layer around it.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jaxkd.errors import unknown
from jaxkd.models import switch
from jaxkd.paths import by_path, changed, matches

IsFrozen = Callable[[str], bool]


def layers(params: Collection[str], pattern: str) -> IsFrozen | None:
  """A function of a layer's path: is it frozen? None if no layer is.

  Args:
    params: the paths of a net's parameters.
    pattern: matches those that do not train; see `jaxkd.students.inherit`.
  """
  trained = {
    path for path in params if not (pattern and matches(path, pattern))
  }
  if len(trained) == len(params):
    return None

  @functools.cache
  def is_all_frozen(layer):
    inside = f'{layer}/' if layer else ''
    own = {path for path in params if path.startswith(inside)}
    return bool(own) and own.isdisjoint(trained)

  def is_frozen(layer):
    parts = layer.split('/') if layer else []
    around = itertools.accumulate(parts, '{}/{}'.format)
    return matches(layer, pattern) or any(map(is_all_frozen, ['', *around]))

  return is_frozen


def paths(params: Any, pattern: str, *, at: str) -> set[str]:
  """The paths of the parameters that do not train.

  Args:
    params: a net's parameters, or their shapes.
    pattern: a glob of paths; empty for none.
    at: the config entry, for error messages.

  Raises:
    UserError: nothing matches.
  """
  flat = by_path(params) if pattern else {}
  found = {path for path in flat if matches(path, pattern)}
  if pattern and not found:
    raise unknown('parameter', pattern, flat, at)
  return found


def still(
  before: dict, after: dict, is_frozen: IsFrozen, skip: int = 0
) -> dict:
  """A net's new state, with the old state in frozen layers.

  Args:
    before: the old state.
    after: the new one.
    is_frozen: from `layers`.
    skip: how many leading parts of a path are not part of the layer's.
  """

  def layer(path):
    return '/'.join(path.split('/')[skip:-1])

  old = {p: leaf for p, leaf in by_path(before).items() if is_frozen(layer(p))}
  put = {path: lambda _, leaf=leaf: leaf for path, leaf in old.items()}
  return changed(after, put)


def eval_arguments(
  function: Callable,
  args: tuple,
  kwargs: Mapping[str, Any],
  but: Collection[str] = (),
) -> tuple[tuple, dict[str, Any]]:
  """The arguments of a call with every train switch set to evaluation.

  Args:
    function: what is called.
    args: its positional arguments.
    kwargs: its keyword arguments.
    but: names of switches that stay as they are.
  """
  says = {k: v for k, v in switch.flags(train=False).items() if k not in but}
  signature = inspect.signature(function)
  bound = signature.bind(*args, **kwargs)
  for name, parameter in signature.parameters.items():
    if name in says:
      bound.arguments[name] = says[name]
    elif parameter.kind is parameter.VAR_KEYWORD and name in bound.arguments:
      rest = bound.arguments[name]
      bound.arguments[name] = rest | {k: says[k] for k in says.keys() & rest}
  return bound.args, bound.kwargs
