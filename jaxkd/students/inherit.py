"""What a net takes over from a trained one, and what of it does not train.

Paths are those of parameters, ``head/kernel``, and patterns globs of them as
shells write them, several joined by ``|``; ``head`` alone stands for all that
lies below it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.errors import UserError, unknown
from jaxkd.paths import by_path, matches
from jaxkd.students import quantize

RANDOM = 'random'


def source(init: str) -> str:
  """The group that an `init` takes over from; empty for none."""
  return '' if init == RANDOM else init.partition('/')[0]


def start(init: str, own: dict, frozen: Mapping[str, dict], *, at: str) -> dict:
  """A net's first variables.

  Args:
    init: 'random'; 'GROUP', to take all over from that group of teachers; or
      'GROUP/PATTERN', to take over what matches, and the rest as it is. An
      array with one output more than the group's, as a specialist with a
      dustbin has, keeps its own last one.
    own: the net's own initial variables, whose precision stays what it is.
    frozen: group -> its variables, with a leading axis of its T nets.
    at: the config entry.

  Raises:
    UserError: no such group, one of several nets, nothing that matches, or
      arrays of different shapes or kinds of numbers.
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
    if name.startswith('specialist/'):  # what only a specialist has
      continue
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
        f'{at}: {group} has {len(there[path])} nets, and one can be taken over;'
        f' set teachers.{group}.count=1'
      )
    mine[path], taken = there[path][0].astype(leaf.dtype), taken + 1
    if dustbin:
      mine[path] = jnp.concatenate([mine[path], leaf[..., -1:]], -1)
  if not taken:
    raise unknown('parameter', pattern, by_path(own['params']), at)
  return jax.tree.unflatten(jax.tree.structure(own), list(mine.values()))


def _kind(dtype: jnp.dtype) -> str:
  """What numbers these are, whatever their precision."""
  return 'f' if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def _has_dustbin(own: tuple, there: tuple) -> bool:
  """Whether an array has one output more than another: a specialist's."""
  return bool(own and there) and own == (*there[:-1], there[-1] + 1)


def frozen(tree: Any, pattern: str, *, at: str) -> set[str]:
  """The paths of parameters that do not train.

  What a quantised net learns of its levels is not the net's own and does.

  Args:
    tree: shaped as a net's parameters.
    pattern: a glob of them; empty for none.
    at: the config entry of the net.

  Raises:
    UserError: nothing matches.
  """
  if not pattern:
    return set()
  flat = by_path(tree)
  own = {path for path in flat if not path.startswith(f'{quantize.OWN}/')}
  found = {path for path in own if _matches(path, pattern)}
  if not found:
    raise unknown('parameter', pattern, flat, f'{at}.freeze')
  return found


def _matches(path: str, pattern: str) -> bool:
  return not pattern or matches(path, pattern)
