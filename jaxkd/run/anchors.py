"""Nets whose rows stand for anchors: what is compared must be of the same.

A net may give an output ``anchors``, [B, ..., 4]: what the rows of its outputs
`ROWS` stand for, such as the boxes of `jaxkd.models.detector`. Two nets with as
many rows could be compared row by row, though each row stands for another place
in each of them, and nobody would notice.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import shapes
from jaxkd.distill.roles import Role
from jaxkd.errors import UserError
from jaxkd.run import build, terms
from jaxkd.types import Net

OUTPUT = 'anchors'
ROWS = ('logits', 'offsets')  # the outputs with one row for each anchor


def check(
  config: Mapping[str, Any],
  arms: Mapping[str, Mapping],
  teachers: Mapping[str, Role],
  students: Mapping[str, Mapping[str, Role]],
) -> None:
  """Refuses terms and fusions of nets whose rows stand for other anchors.

  Args:
    config: of the round.
    arms: the config of each arm.
    teachers: group -> its net.
    students: arm -> role -> its net.

  Raises:
    UserError: naming the entry and both nets.
  """
  entries = config['teachers']
  for name, entry in entries.items():
    at = f'teachers.{name}'
    _check_alike(
      {other: teachers[other] for other in _made_of(name, entries)},
      f'{at}.made_of',
    )
    own = {name: teachers[name]}
    _check_terms(entry['distill'], own, teachers, entries, f'{at}.')
  for arm, roles in students.items():
    _check_terms(arms[arm]['distill'], roles, teachers, entries)


def alike(one: Role, other: Role) -> bool:
  """Whether rows stand for the same in both nets, as far as they say."""
  first = of(one)
  if first is None:
    return True
  second = of(other)
  return second is None or np.array_equal(first, second)


def of(role: Role) -> np.ndarray | None:
  """The anchors of a net for one example; None if it does not say."""
  if role.external or OUTPUT not in build.output_shapes(role.net, role.shape):
    return None
  leaves, tree = jax.tree.flatten(shapes.batch(role.shape))
  return _of_net(role.net, tuple(leaves), tree)


@functools.lru_cache(maxsize=32)
def _of_net(net: Net, leaves: tuple, tree: Any) -> np.ndarray:
  """The anchors for an example of zeros; a net has the same for all."""

  # As one program, of which only what anchors depend on is computed.
  @jax.jit
  def found():
    one = tree.unflatten([jnp.zeros(x.shape, x.dtype) for x in leaves])
    return net.apply(net.init(jax.random.key(0)), one)[0][OUTPUT]

  return np.asarray(found())


def _check_terms(distill, roles, teachers, entries, within='') -> None:
  """Checks what the terms of some nets compare them with."""
  used = terms.in_use(distill)
  used |= {
    other: distill[other]
    for entry in used.values()
    if (other := entry['otherwise']) in distill
  }
  for name, entry in used.items():
    student, taught = terms.outputs_of(entry)
    if not student & {*ROWS} or not taught & {*ROWS}:
      continue
    own = entry['of'] or next(iter(roles))
    compared = {own: roles[own]} if own in roles else {}
    known = {**teachers, **roles}
    for group in terms.groups_of(entry):
      for part in _made_of(group, entries) or [group]:
        compared |= {part: known[part]} if part in known else {}
    _check_alike(compared, f'{within}distill.{name}.at')


def _made_of(name: str, entries: Mapping[str, Mapping]) -> list[str]:
  """The groups that a group is made of in the end."""
  inside = entries[name]['made_of'] if name in entries else ()
  return [
    part for other in inside for part in _made_of(other, entries) or [other]
  ]


def _check_alike(roles: Mapping[str, Role], entry: str) -> None:
  first, *others = roles or [None]
  for other in others:
    if not alike(roles[first], roles[other]):
      raise UserError(
        f'the nets {first} and {other} would be compared row by row, and their '
        'rows stand for other anchors; give both the same anchors and as many '
        'stages, or compare them at features alone',
        entry=entry,
      )
