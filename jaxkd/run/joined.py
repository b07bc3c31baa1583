"""Groups of teachers that fuse the predictions of other groups (`made_of`)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import shapes
from jaxkd.data.sources import Source
from jaxkd.distill.contexts import teach
from jaxkd.distill.roles import Role
from jaxkd.errors import UserError, unknown
from jaxkd.run.build import behind, traced_once, viewed_shape
from jaxkd.teachers import many


def joined(
  entry: Mapping[str, Any],
  entries: Mapping[str, dict],
  groups: Mapping[str, Role],
  source: Source,
  *,
  at: str,
) -> Role:
  """The net of a group that is made of others: their fused predictions.

  They see the examples as this group does if it has views of its own, else
  each as it does by itself. A view that gives several copies of an example, as
  `jaxkd.data.views.dihedral_all` does, is for all of them to be fused too.

  Args:
    entry: its complete entry.
    entries: those of all groups.
    groups: the nets of those before it.
    source: the data, for its shapes.
    at: the entry's name.

  Raises:
    UserError: a group or a fusion that does not exist or does not fit.
  """
  names, fuse = entry['made_of'], entry['fuse']
  _check_fusion(entry, entries, at)
  inside = {name: groups[name] for name in behind(names, groups)}
  seeing = {name: role for name, role in inside.items() if not role.reads}
  wanted = {name: role.shape for name, role in seeing.items()}
  view, shape = _viewed(entry, seeing, source, 'train', at)
  eval_view, other = _viewed(entry, seeing, source, 'eval', at)
  if shape != other:
    raise UserError(
      f'{at}.views: its nets are shown {shape} by train and {other} by eval; '
      'make both give one shape'
    )
  copies = _copies(shape, wanted, f'{at}.views')
  if copies and fuse == many.SPECIALISTS:
    raise UserError(f'{at}.views: specialists see one copy of an example')

  def outputs(variables, inputs):
    if not copies:
      found = teach(inside, variables, inputs)
      return [found[name] for name in names]
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
    found = teach(inside, variables, merged)
    return [_as_nets(found[name]['logits'], copies) for name in names]

  net = many.together(
    {name: role.net for name, role in inside.items()},
    {name: entries[name]['count'] for name in inside},
    outputs,
    fuse,
    most=max(entries[name]['specialize']['overlap'] for name in names),
  )
  return Role(traced_once(net), view, eval_view, shape=shape, at=at)


def _check_fusion(
  entry: Mapping[str, Any], entries: Mapping[str, dict], at: str
) -> None:
  """Refuses a fusion that does not exist or is not for these groups."""
  names, fuse = entry['made_of'], entry['fuse']
  known = (*many.FUSIONS, many.SPECIALISTS)
  if fuse not in known:
    raise unknown('fusion', fuse, known, f'{at}.fuse')
  special = [bool(entries[name]['specialize']['of']) for name in names]
  for kind in ('quantize', 'prune'):
    if entry[kind]:
      raise UserError(
        f'{at}.{kind}: the group is made of others; set it for these'
      )
  if fuse == many.SPECIALISTS and (
    special != [False, True] or entries[names[0]]['count'] > 1
  ):
    raise UserError(
      f'{at}.made_of: {names!r} should be one generalist and then a group of '
      'specialists'
    )
  if fuse != many.SPECIALISTS and any(special):
    raise UserError(f"{at}.fuse: set it to 'specialists', which {names} are")


def _viewed(
  entry: Mapping[str, Any],
  roles: Mapping[str, Role],
  source: Source,
  use: str,
  at: str,
) -> tuple[dict, dict]:
  """The view of each net, by name, and the shape of an example behind it."""
  field = {'train': 'view', 'eval': 'eval_view'}[use]
  text, here = entry['views'][use], f'{at}.views.{use}'
  theirs = {name: getattr(role, field) for name, role in roles.items()}
  if not text:
    return theirs, {name: role.shape for name, role in roles.items()}
  shape = viewed_shape(text, source, here)
  # Groups that are made of others themselves have a view of each of these.
  return tuple(jax.tree.map(lambda _, x=x: x, theirs) for x in (text, shape))


def _copies(given: Any, wanted: Any, at: str) -> int:
  """The number of copies of an example that a view makes; 0 for no such axis.

  Args:
    given: shapes of what is shown.
    wanted: shapes of what the nets take, the same tree.
    at: the config entry.

  Raises:
    UserError: shapes of something else.
  """
  sizes = map(shapes.flat, (given, wanted))
  found = set()
  for shown, one in zip(*sizes, strict=True):
    if shown not in (one, (*shown[:1], *one)):
      raise UserError(
        f'{at}: {shown} would be shown to nets that take {one}; give views of '
        'that shape, or of several such examples'
      )
    found.add(0 if shown == one else shown[0])
  return found.pop()


def _as_nets(logits: Array, copies: int) -> dict[str, Array]:
  """Logits of copies, [T, B · copies, K], as those of T · copies nets."""
  split = logits.reshape(len(logits), -1, copies, logits.shape[-1])
  return {'logits': jnp.concatenate(jnp.moveaxis(split, 2, 1))}
