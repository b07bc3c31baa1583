"""Initial values from a trained net (`init`), and frozen parameters (`freeze`).

Paths are those of parameters, such as ``head/kernel``. Patterns are shell globs
of paths, several joined by ``|``; ``head`` stands for everything below it.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.errors import UserError, unknown
from jaxkd.models import frozen as frozen_layers
from jaxkd.paths import by_path, matches
from jaxkd.students import quantize

RANDOM = 'random'


def of_role(
  init: str, freeze: str, *, at: str, adapted: bool = False
) -> dict[str, Any]:
  """The fields of a `Role` for `init` and `freeze` of a config entry.

  Args:
    init: see `start`.
    freeze: a glob of the parameters that do not train; empty for none.
    at: the config entry of the net.
    adapted: whether adapters train in place of all other parameters.
  """
  untrained = base if adapted else frozen
  return {
    'start': functools.partial(start, init, at=f'{at}.init'),
    'starts_from': source(init),
    'untrained': functools.partial(untrained, pattern=freeze, at=at),
  }


def source(init: str) -> str:
  """The group from which `init` takes variables; empty for none."""
  return '' if init == RANDOM else init.partition('/')[0]


def start(init: str, own: dict, frozen: Mapping[str, dict], *, at: str) -> dict:
  """A net's initial variables.

  Args:
    init: 'random'; 'GROUP', to take all variables from that group of teachers;
      or 'GROUP/PATTERN', to take those that match. An array with one output
      more than the group's, as a specialist with a dustbin has, keeps its own
      last output.
    own: the net's random initial variables, whose dtypes are kept.
    frozen: group -> its variables, with a leading axis of its T nets.
    at: the config entry.

  Raises:
    UserError: no such group, a group of several nets, a pattern without a
      match, or arrays of different shapes or kinds of numbers.
  """
  if init == RANDOM:
    return own
  group, _, pattern = init.partition('/')
  if group not in frozen:
    raise unknown('way to start', init, [RANDOM, *frozen], at)
  there = by_path(frozen[group])
  taken, mine = 0, by_path(own)
  for path, leaf in mine.items():
    kind, _, name = path.partition('/')
    if not _matches(name, pattern):
      continue
    if name.startswith('specialist/') or _is_adapter(name):
      continue  # which the group has not
    found = there[path].shape[1:] if path in there else 'missing'
    dustbin = path in there and _has_dustbin(leaf.shape, found)
    if found != leaf.shape and not dustbin:
      raise UserError(
        f'{at}: {kind} {name} is {leaf.shape} here and {found} in {group}; '
        f'take over what both have, with {group}/PATTERN'
      )
    kinds = [_kind(x.dtype) for x in (leaf, there[path])]
    if kinds[0] != kinds[1]:
      raise UserError(
        f'{at}: {kind} {name} is {leaf.dtype} here and {there[path].dtype} in '
        f'{group}; take over what both have, with {group}/PATTERN'
      )
    if len(there[path]) != 1:
      raise UserError(
        f'{at}: {group} has {len(there[path])} nets, and only one can be used;'
        f' set teachers.{group}.count=1'
      )
    mine[path], taken = there[path][0].astype(leaf.dtype), taken + 1
    if dustbin:
      mine[path] = jnp.concatenate([mine[path], leaf[..., -1:]], -1)
  if not taken:
    raise unknown('parameter', pattern, by_path(own['params']), at)
  return jax.tree.unflatten(jax.tree.structure(own), list(mine.values()))


def _kind(dtype: jnp.dtype) -> str:
  """The kind of numbers: floats of any precision are 'f'."""
  return 'f' if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def _has_dustbin(own: tuple, there: tuple) -> bool:
  """Whether an array has one output more than the other: the dustbin."""
  return bool(own and there) and own == (*there[:-1], there[-1] + 1)


def frozen(tree: Any, pattern: str, *, at: str) -> set[str]:
  """The paths of parameters that do not train.

  The learnt levels of a quantised net are not matched, and always train.

  Args:
    tree: a net's parameters or their shapes, a dict.
    pattern: a glob of their paths; empty for none.
    at: the config entry of the net.

  Raises:
    UserError: nothing matches.
  """
  own = {name: x for name, x in tree.items() if name != quantize.OWN}
  return frozen_layers.paths(own, pattern, at=f'{at}.freeze')


def base(tree: Any, pattern: str, *, at: str) -> set[str]:
  """The paths of parameters that do not train where adapters do (LoRA).

  Args:
    tree: a net's parameters or their shapes, a dict.
    pattern: of those that do not train either; empty for none.
    at: the config entry of the net.
  """
  rest = {path for path in by_path(tree) if not _is_adapter(path)}
  return rest | frozen(tree, pattern, at=at)


def _is_adapter(path: str) -> bool:
  """Whether a parameter is one of an `nnx.LoRA`."""
  return path.endswith(('/lora_a', '/lora_b'))


def _matches(path: str, pattern: str) -> bool:
  return not pattern or matches(path, pattern)
