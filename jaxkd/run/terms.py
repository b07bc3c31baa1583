"""From the entries of ``config.distill`` to terms."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxkd import lookup, losses
from jaxkd.distill import critic, fusion, masks, memory, transfer
from jaxkd.distill.location import sides
from jaxkd.distill.roles import AVERAGE
from jaxkd.distill.term import (
  Adversary,
  Arguments,
  field_of,
  find_loss,
  knowledge,
)
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.types import Context, Term

_ADAPTING = ('adapter', 'adapter_kw', 'teacher_adapter', 'teacher_adapter_kw')
# What terms that are no plain comparison have no place for.
_ALONE = ('fuse', 'fuse_weights', 'mask', 'when')


def is_zero(weight: Any) -> bool:
  """Whether a weight is a number known to be 0, not one to be mapped."""
  return not isinstance(weight, jax.Array) and weight == 0


def in_use(distill: Mapping[str, Any]) -> dict[str, Any]:
  """The entries whose weight is not known to be 0."""
  return {n: e for n, e in distill.items() if not is_zero(e['weight'])}


def groups_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
  """The groups that an entry's `teacher` names."""
  names = entry['teacher']
  names = (names,) if isinstance(names, str) else tuple(names)
  return tuple(name for name in names if name)


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
    UserError: an entry that names something that is not there.
  """
  built = {}
  for name in sorted(in_use(distill)):
    with blamed(f'distill.{name}'):
      built[name] = _entry(name, distill, roles, num_data)
  return built


def _entry(name, distill, roles, num_data) -> Term:
  entry, at = distill[name], f'distill.{name}'
  of = entry['of'] or (roles[0] if len(roles) == 1 else '')
  if not of:
    raise UserError(
      f'{at}.of: several nets train ({", ".join(roles)}); name one of them'
    )
  if of not in roles:
    raise unknown('role', of, roles, f'{at}.of')
  term, shown = _knowledge(entry, at, num_data, roles)
  if entry['when']:
    other = entry['otherwise']
    if other not in distill or other == name:
      known = [known for known in distill if known != name]
      if not other:
        raise UserError(
          f'{at}.otherwise: name the term of the other examples, one of '
          f'{", ".join(known)}'
        )
      raise unknown('term', other, known, f'{at}.otherwise')
    otherwise, more = _knowledge(
      distill[other], f'distill.{other}', num_data, roles
    )
    taken = entry['mask'], distill[other]['mask']
    when = _condition(entry['when'], shown.names, taken, f'{at}.when')
    term = transfer.conditional(when, term, more.wrap(otherwise))
    term = transfer.looking_at(term, logits=True)
  elif entry['otherwise']:
    raise UserError(f'{at}.otherwise: set {at}.when too, or leave it empty')
  for weight in _weights(entry, shown.names, at):
    term = transfer.weighted(term, weight)
  if entry['example_weight']:
    term = transfer.looking_at(term, logits=True)
  return shown.wrap(term)._replace(of=of)


def _knowledge(entry, at, num_data, roles) -> tuple[Term, fusion.Shown]:
  """The term of an entry, and what it is to be shown of its teachers."""
  groups = groups_of(entry)
  loss = find_loss(entry['loss'], at=f'{at}.loss')
  options = dict(entry['kw'])
  adapting = {name: entry[name] for name in _ADAPTING}
  adversary = Adversary(**entry['adversary'])
  if adversary.option and not adversary.low < adversary.high:
    raise UserError(
      f'{at}.adversary: low, {adversary.low:g}, should be below high, '
      f'{adversary.high:g}'
    )
  if critic.is_critic(loss):
    _refuse((*_ALONE, *_ADAPTING), entry, at)
    term = critic.played(
      loss,
      tuple(entry['at']),
      groups,
      **entry['critic'],
      options=options,
      at=at,
    )
    return _of_everything(term, entry, at), fusion.Shown(groups)
  if entry['critic']['model']:
    raise UserError(
      f'{at}.critic.model: the loss {entry["loss"]} has no critic; leave it '
      "empty, or set loss='wasserstein_critic'"
    )
  if 'negatives' in Arguments(loss).fields:
    _refuse(_ALONE, entry, at)
    term = memory.contrast(
      loss,
      sides(tuple(entry['at']), groups, **adapting, at=at),
      **entry['memory'],
      num_data=num_data,
      options=options,
      at=at,
    )
    return _of_everything(term, entry, at), fusion.Shown(groups)
  shown = fusion.shown(entry, groups, (*roles, AVERAGE), at)
  # A teacher may be there for nothing but the weights of the examples.
  weighs = entry['example_weight'] and not Arguments(loss).teacher
  term = knowledge(
    loss,
    teachers=() if weighs else shown.names,
    weigh=shown.weigh,
    location=tuple(entry['at']),
    **adapting,
    adversary=adversary if adversary.option else None,
    mask=entry['mask'],
    options={k: v for k, v in options.items() if k != adversary.option},
    at=at,
  )
  return term, shown


def _refuse(names, entry, at) -> None:
  """Refuses entries that the loss of a term has no place for."""
  set_to = {name: entry[name] for name in names}
  for name, value in {
    **set_to,
    'adversary': entry['adversary']['option'],
  }.items():
    if value and (name, value) != ('mask', masks.ALL):
      raise UserError(f'{at}.{name}: the loss {entry["loss"]} takes none')


def _of_everything(term: Term, entry: Mapping[str, Any], at: str) -> Term:
  """A term without a place for a mask, where its entry agrees to that."""

  def init(key, context):
    masks.check_named(
      entry['mask'],
      context,
      tuple(entry['at']),
      groups_of(entry),
      at=at,
      whole=entry['loss'],
    )
    return term.init(key, context)

  return term._replace(init=init)


def _of_teacher(name: str, *, kind: str, at: str) -> Callable:
  """A function of what one teacher gives, which is first in ours."""

  def fits(ours):
    parameters = inspect.signature(getattr(losses, ours)).parameters
    return next(iter(parameters)) == 'teacher'

  if ':' not in name and not (name in losses.__all__ and fits(name)):
    raise unknown(kind, name, filter(fits, losses.__all__), at)
  return lookup.find(name, [losses], kind=kind, at=at)


def _condition(
  name: str, teachers: tuple[str, ...], taken: tuple, at: str
) -> Callable:
  """A function of the one teacher's logits and of fields of the batch.

  Args:
    name: of the function.
    teachers: of which there must be one.
    taken: the masks of the terms that it decides on.
    at: the config entry, for error messages.
  """
  function = _of_teacher(name, kind='condition', at=at)
  if len(teachers) != 1:
    raise UserError(f'{at}: {name} looks at one teacher, not {len(teachers)}')
  arguments = Arguments(function)

  def when(context: Context):
    logits = context.teachers[teachers[0]]['logits']
    if logits.shape[0] != 1:
      raise UserError(
        f'{at}: {name} looks at one teacher and {teachers[0]} has '
        f'{logits.shape[0]}; set fuse'
      )
    for mask in taken:
      masks.check_fields(name, arguments.fields, mask, context.batch, at)
    mask = taken[0] if len(set(taken)) == 1 else ''
    counts = masks.find(mask, context, (), at.rpartition('.')[0])
    logits, given = masks.keep(counts, logits, lead=1), {}
    if arguments.coupled and counts is not None and counts.ndim == 1:
      given['where'] = counts > 0
    with within(f'{at}: '):
      fields = [
        masks.keep(counts, field_of(context.batch, field, name))
        for field in arguments.fields
      ]
    with blamed(at):
      found = function(logits[0], *fields, **given)
      if found.shape != logits.shape[1:2]:
        raise UserError(
          f'{at}: {name} gives the shape {list(found.shape)}, not one value '
          'for each example'
        )
      if at.endswith('.when') and found.dtype != bool:
        raise UserError(f'{at}: {name} gives {found.dtype}, not true or false')
      return found

  return when


def _weights(entry, teachers, at) -> list:
  """The factors of a term: a number, a schedule, a function per example."""
  factors = []
  if isinstance(entry['weight'], jax.Array) or entry['weight'] != 1:
    factors.append(entry['weight'])
  name, kw = entry['schedule']['name'], dict(entry['schedule']['kw'])
  if name:
    if not name.endswith('schedule') or not hasattr(optax, name):
      known = [n for n in dir(optax) if n.endswith('schedule')]
      raise unknown('schedule', name, known, f'{at}.schedule.name')
    try:
      schedule = getattr(optax, name)(**kw)
    except TypeError as error:
      raise UserError(f'{at}.schedule.kw: optax.{name}: {error}') from error
    factors.append(lambda context: schedule(context.step))
  if entry['example_weight']:
    factors.append(
      _condition(
        entry['example_weight'],
        teachers,
        (entry['mask'],),
        f'{at}.example_weight',
      )
    )
  return factors
