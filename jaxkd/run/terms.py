"""Builds terms from the entries of ``config.distill``."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxkd.distill import fusion, library, location, transfer
from jaxkd.distill.arguments import find_loss
from jaxkd.distill.roles import AVERAGE
from jaxkd.distill.seen import looking_at, unfused
from jaxkd.distill.term import compares
from jaxkd.distill.term import term as term_of
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.train import optimizer
from jaxkd.types import Term

_ADAPTING = ('adapter', 'adapter_kw', 'teacher_adapter', 'teacher_adapter_kw')


def is_zero(weight: Any) -> bool:
  """Whether a weight is a number known to be 0, not one to be mapped."""
  return not isinstance(weight, jax.Array) and weight == 0


def in_use(distill: Mapping[str, Any]) -> dict[str, Any]:
  """The entries whose weight is not known to be 0."""
  return {n: e for n, e in distill.items() if not is_zero(e['weight'])}


def groups_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
  """The groups that an entry's `teacher` names."""
  return location.groups_of(entry['teacher'])


def outputs_of(entry: Mapping[str, Any]) -> tuple[set[str], set[str]]:
  """The names of the student's and the teachers' outputs of an entry."""
  student, taught = (set(location.names_at(at)) for at in entry['at'])
  for text in entry['inputs'].values():
    place, _, name = str(text).partition('.')
    {'student': student, 'teacher': taught}.get(place, set()).add(name)
  if entry['when'] or entry['example_weight']:
    taught.add(entry['when_at'])
  return student, taught


def build(
  distill: Mapping[str, Any], roles: list[str], num_data: int = 0
) -> dict[str, Term]:
  """The terms of a config, by name; entries of weight 0 are left out.

  Weights and options may be traced values, as when a population maps them.

  Args:
    distill: the entries, each complete (see `jaxkd.run.config`).
    roles: the nets that the step trains.
    num_data: how many examples a net trains on, for terms with a memory.

  Raises:
    UserError: an entry that names something that does not exist.
  """
  built = {}
  for name in sorted(in_use(distill)):
    with blamed(f'distill.{name}'):
      built[name] = _term(name, distill, roles, num_data)
  return built


def _term(name, distill, roles, num_data) -> Term:
  """The term of an entry, with its condition, weights and fusion."""
  entry, at = distill[name], f'distill.{name}'
  of = entry['of'] or (roles[0] if len(roles) == 1 else '')
  if not of:
    raise UserError(
      f'{at}.of: several nets train ({", ".join(roles)}); name one of them'
    )
  if of not in roles:
    raise unknown('role', of, roles, f'{at}.of')
  trains = (*roles, AVERAGE)
  term, looks = _plain(entry, at, num_data), ()
  judged = dict(at=entry['when_at'], teacher=groups_of(entry), entry=at)
  if entry['when']:
    other = _otherwise(name, distill)
    alone = _plain(distill[other], f'distill.{other}', num_data)
    alone = _fused(alone, distill[other], f'distill.{other}', trains)
    looks = alone.teachers
    alone = unfused(alone) if entry['fuse'] else alone
    term = transfer.conditional(entry['when'], term, alone, **judged)
  elif entry['otherwise']:
    raise UserError(f'{at}.otherwise: set {at}.when too, or leave it empty')
  weights = entry['weight'], _schedule(entry, at), entry['example_weight'] or 1
  for weight in weights:
    term = transfer.weighted(term, weight, **judged)
  term = looking_at(_fused(term, entry, at, trains), looks)
  return term._replace(of=of)


def _plain(entry, at, num_data) -> Term:
  """The term of an entry alone, without weights, conditions and fusion."""
  groups, kw = groups_of(entry), dict(entry['kw'])
  adapting = {name: entry[name] for name in _ADAPTING}
  weights = '' if entry['fuse'] else entry['fuse_weights']
  if not entry['term']:
    loss = find_loss(entry['loss'], at=f'{at}.loss')
    # A teacher may be there for nothing but the weights of the examples.
    looks = not entry['example_weight'] or compares(
      loss, entry['inputs'], entry=at
    )
    return term_of(
      loss,
      teacher=groups if looks else (),
      at=tuple(entry['at']),
      **adapting,
      mask=entry['mask'],
      inputs=entry['inputs'],
      fuse_weights=weights,
      top=entry['top'],
      tail=entry['tail'],
      entry=at,
      kw=kw,
    )
  own = {name: entry[name] for name in ('inputs', 'top', 'tail')}
  for name, value in {**own, 'fuse_weights': weights}.items():
    if value:
      raise UserError(
        f'{at}.{name}: the term {entry["term"]} does not support this; leave '
        'it empty'
      )
  return library.make(
    entry['term'],
    kw,
    at=tuple(entry['at']),
    teacher=groups,
    adapting=adapting,
    mask=entry['mask'],
    num_data=num_data,
    entry=at,
  )


def _fused(term, entry, at, trains) -> Term:
  """The term, whose teachers are fused to one if its entry says so."""
  groups, weights = groups_of(entry), entry['fuse_weights']
  for group in groups:
    if weights == fusion.VALIDATION and group in trains:
      raise UserError(
        f'{at}.fuse_weights: {group} trains, so there are no weights of it to '
        "be found on validation beforehand; take 'confidence' or 'router'"
      )
  if not entry['fuse']:
    return term
  if not groups:
    raise UserError(f'{at}.fuse: name the groups in {at}.teacher')
  return fusion.fused(
    term,
    entry['fuse'],
    weights=weights,
    at=outputs_of(entry)[1],
    teacher=groups,
    entry=at,
  )


def _otherwise(name: str, distill: Mapping[str, Any]) -> str:
  """The entry for the examples that do not meet the condition of another."""
  here, other = f'distill.{name}.otherwise', distill[name]['otherwise']
  known = [known for known in distill if known != name]
  if not other:
    raise UserError(
      f'{here}: name the term of the other examples, one of {", ".join(known)}'
    )
  if other not in known:
    raise unknown('term', other, known, here)
  return other


def _schedule(entry, at) -> Any:
  """The schedule that multiplies the weight; 1 if there is none."""
  name, kw = entry['schedule']['name'], dict(entry['schedule']['kw'])
  if not name:
    return 1
  function = optimizer.find_schedule(name, at=f'{at}.schedule.name')
  with blamed(f'{at}.schedule.kw'):
    return function(**kw)
