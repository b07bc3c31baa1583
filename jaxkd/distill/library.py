"""Terms with parameters or a memory of their own, by the names in a config.

``distill.NAME.term`` in a config names one of these, or a factory of one's own
as ``package.module:factory``. A factory returns a `jaxkd.Term`. It takes its
options, which are the entry's `kw`, by keyword, and of these arguments the ones
that it names in its signature:

- ``at``: the names of the student's and of the teachers' outputs, a pair;
- ``teacher``: the names of the groups of teachers, a tuple;
- ``sides``: these outputs, behind the adapters of the entry, as
  `jaxkd.distill.location.Sides`;
- ``mask``: what counts, as `jaxkd.distill.masks.find` takes it;
- ``num_data``: how many examples a net trains on;
- ``entry``: the name of the config entry, for error messages.

An entry that sets something for which the factory has no argument is refused.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxkd import lookup
from jaxkd.distill import masks
from jaxkd.distill.adversary import adversary
from jaxkd.distill.arguments import name_of
from jaxkd.distill.critic import critic
from jaxkd.distill.location import Location, groups_of, sides
from jaxkd.distill.memory import memory
from jaxkd.distill.seen import looking_at
from jaxkd.errors import UserError, blamed, unknown
from jaxkd.types import Term

__all__ = ['adversary', 'critic', 'memory']

GIVEN = ('at', 'teacher', 'sides', 'mask', 'num_data', 'entry')

Factory = Callable[..., Term]


def find(name: str | Factory, *, at: str) -> Factory:
  """A factory of terms, by name; or the factory itself."""
  return lookup.find(name, [sys.modules[__name__]], kind='term', at=at)


def options(name: str | Factory, *, at: str) -> dict[str, Any]:
  """The options of a factory that have a default, with that value."""
  return {
    p.name: p.default
    for p in _named(find(name, at=at))
    if p.name not in GIVEN and p.default not in (p.empty, None)
  }


def make(
  name: str | Factory,
  kw: Mapping[str, Any],
  *,
  at: tuple[Location, Location] = ('logits', 'logits'),
  teacher: str | tuple[str, ...] = (),
  adapting: Mapping[str, Any],
  mask: masks.Name = '',
  num_data: int = 0,
  entry: str = 'term',
) -> Term:
  """The term of a factory.

  Args:
    name: of the factory, or the factory itself.
    kw: its options.
    at: names of the student's and of the teachers' outputs.
    teacher: groups of teachers.
    adapting: the adapters and their options, as `location.sides` takes them.
    mask: what counts.
    num_data: how many examples a net trains on.
    entry: the config entry, for error messages.

  Raises:
    UserError: a name that is not there, options that the factory does not
      have, or what it has no argument for.
  """
  called, groups = f'the term {name_of(name)}', groups_of(teacher)
  factory = find(name, at=f'{entry}.term')
  taken = {p.name for p in _named(factory)}
  _check_options(factory, kw, name_of(name), entry)
  if 'sides' not in taken:
    for side, value in adapting.items():
      if value:
        raise UserError(
          f'{entry}.{side}: {called} does not support this; leave it empty'
        )
  if 'mask' not in taken and mask not in ('', masks.ALL):
    raise UserError(
      f'{entry}.mask: {called} does not support this; leave it empty'
    )
  given = {
    'at': at,
    'teacher': groups,
    'mask': mask,
    'num_data': num_data,
    'entry': entry,
  }
  if 'sides' in taken:
    given['sides'] = sides(
      at,
      groups,
      **adapting,
      masked=mask not in ('', masks.ALL),
      entry=entry,
    )
  with blamed(f'{entry}.term'):
    made = factory(**kw, **{k: v for k, v in given.items() if k in taken})
  if not isinstance(made, Term):
    raise UserError(
      f'{entry}.term: {name_of(name)} gives {made!r} and should give a '
      'jaxkd.Term'
    )
  layers = sides(at, groups).layers
  if not any(made.layers):
    made = made._replace(layers=layers)

  def init(key, context):
    if 'mask' not in taken:
      masks.check_named(mask, context, at, groups, entry=entry, whole=called)
    return made.init(key, context)

  def loss(params, state, context):
    value, state = made.loss(params, state, context)
    size = jax.tree.leaves(context.student)[0].shape[:1]
    if value.shape != size:
      raise UserError(
        f'{entry}.term: the loss of {name_of(name)} has the shape '
        f'{list(value.shape)} and should have one value for each of the '
        f'{size[0]} examples'
      )
    return value, state

  return looking_at(made._replace(init=init, loss=loss), groups)


def _named(factory: Factory) -> list[inspect.Parameter]:
  """The arguments of a factory that can be given by name."""
  return [
    p
    for p in inspect.signature(factory).parameters.values()
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
  ]


def _check_options(factory, kw, name, entry):
  """Refuses options that a factory does not have, or is given otherwise."""
  known = {p.name for p in _named(factory)} - {*GIVEN}
  parameters = inspect.signature(factory).parameters.values()
  for option in kw:
    if option in GIVEN:
      raise UserError(
        f'{entry}.kw.{option}: it is given to {name} by jaxkd; leave it out'
      )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if option not in known and not takes_any:
      raise unknown(f'option of {name}', option, known, f'{entry}.kw')
