"""How several teachers become one for a term, or how much each counts.

A fusion shows the term one teacher in place of them all. With weights it is
weighted; without a fusion the weights are those of the losses to each teacher.
A draw shows the term one of them in each step, and the others are not run.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import masks, router, transfer
from jaxkd.distill.term import field_of
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.keys import fold
from jaxkd.losses import _numerics
from jaxkd.types import Context, Term

DRAWS = ('sampled', 'round_robin')
VALIDATION, ROUTER = 'validation', 'router'
_WEIGHTS = '_weights'  # what functions of teachers that weigh them end with


class Draw(NamedTuple):
  """One of the nets of some groups for each step.

  Whoever draws from the same groups in the same way gets the same net.

  Attributes:
    how: 'sampled', at random, or 'round_robin', one after another.
    groups: whose nets they are.
    at: the config entry, for error messages.
  """

  how: str
  groups: tuple[str, ...]
  at: str

  @property
  def name(self) -> str:
    """What the drawn teacher is called."""
    return f'{self.how} of {"+".join(self.groups)}'

  def index(self, count: int, seed: Array, step: Array) -> Array:
    """Which of `count` nets is taken in a step.

    Raises:
      UserError: there is just one.
    """
    if count == 1:
      raise UserError(
        f'{self.at}.fuse: {"+".join(self.groups)} is one teacher, of which '
        'there is none to draw; leave fuse empty'
      )
    if self.how == 'round_robin':
      return step % count
    key = fold(jax.random.key(seed), 'step', step, 'draw', self.name)
    return jax.random.randint(key, (), 0, count)

  def pick(
    self, teachers: Mapping[str, dict], seed: Array, step: Array
  ) -> dict[str, Array]:
    """The outputs of the net of a step, with a leading axis of 1."""
    nets = [found_in(teachers, group, self.at) for group in self.groups]
    logits_of(teachers, self.groups, self.at)  # of equally many classes
    count = sum(len(net['logits']) for net in nets)
    chosen = self.index(count, seed, step)
    first, *others = nets
    outputs = {  # layers that not all have, or not alike, cannot be drawn
      name: [x, *(net[name] for net in others)]
      for name, x in first.items()
      if all(name in n and n[name].shape[1:] == x.shape[1:] for n in others)
    }
    return {
      name: jnp.concatenate(x)[chosen][None] for name, x in outputs.items()
    }


def alone(whole: Iterable[str], draws: Iterable[Draw]) -> dict[str, Draw]:
  """The groups of which one net is enough, and what draws it.

  Args:
    whole: the groups of which all nets are looked at.
    draws: of all terms.
  """
  named = {draw.name: draw for draw in draws}.values()
  groups = [group for draw in named for group in draw.groups]
  return {
    draw.groups[0]: draw
    for draw in named
    if len(draw.groups) == 1
    and groups.count(draw.groups[0]) == 1
    and draw.groups[0] not in whole
  }


class Shown(NamedTuple):
  """What a term is shown of its teachers.

  Attributes:
    names: the teachers that it and its conditions look at.
    wrap: ``Term -> Term``, shows the term those names.
    weigh: ``context -> weights`` of the losses to each teacher, [T] or [B, T];
      None for equal ones.
  """

  names: tuple[str, ...]
  wrap: Callable[[Term], Term] = lambda term: term
  weigh: Callable[[Context], Array] | None = None


def validated(groups: tuple[str, ...]) -> str:
  """What the group is called that gives the weights found on validation."""
  return f'{VALIDATION} of {"+".join(groups)}'


def shown(
  entry: Mapping[str, Any],
  groups: tuple[str, ...],
  trains: tuple[str, ...],
  at: str,
) -> Shown:
  """What an entry of ``config.distill`` shows its term.

  Args:
    entry: the complete entry.
    groups: those that its `teacher` names.
    trains: which teachers train themselves: the roles, and `average`.
    at: its name.

  Raises:
    UserError: names that are not there, or do not go together.
  """
  how, weights = entry['fuse'], entry['fuse_weights']
  for name, value in (('fuse', how), ('fuse_weights', weights)):
    if value and not groups:
      raise UserError(f'{at}.{name}: name the groups in {at}.teacher')
  if how in DRAWS:
    if weights:
      raise UserError(
        f'{at}.fuse_weights: {how} takes one teacher at a time and no '
        'weights; leave it empty'
      )
    draw = Draw(how, groups, at)

    def drawn(term):
      others = (name for name in term.teachers if name != draw.name)
      term = term._replace(teachers=(*others,), draws=(draw, *term.draws))
      return transfer.looking_at(term, logits=True)

    return Shown((draw.name,), drawn)
  teachers, weigh = _weigh(weights, groups, trains, entry['mask'], at)
  if not how:
    if weights == ROUTER:
      raise UserError(
        f'{at}.fuse_weights: the router learns what all predict together; '
        f"set {at}.fuse, e.g. to 'mean_probabilities'"
      )

    def weighed(term):
      return transfer.looking_at(term, teachers, logits=bool(weigh))

    return Shown(groups, weighed, weigh)
  name = f'{how} of {"+".join(groups)}'
  function = _of_teachers(how, at)
  options = inspect.signature(function).parameters
  if weights and 'weights' not in options:
    raise UserError(
      f'{at}.fuse_weights: {how} takes no weights; leave it empty or choose '
      "another fuse, e.g. 'mean_probabilities'"
    )
  fuse = _as_logits(function, 'temperature' in options, at)
  temperature = entry['kw'].get('temperature', 1.0)

  def fused(context, weights):
    logits = logits_of(context.teachers, groups, at)
    return fuse(logits, weights, temperature)

  if weights != ROUTER:

    def wrap(term):
      return transfer.aggregated(term, fused, name, teachers, weigh)

    return Shown((name,), wrap)

  def predictions(context):
    return _several(context, groups, f'{at}.fuse_weights')

  def wrap(term):
    return router.routed(
      term, predictions, fused, fuse, name, teachers, entry['mask'], at
    )

  return Shown((name,), wrap)


def found_in(teachers: Mapping[str, dict], group: str, at: str) -> dict:
  """The outputs of a group."""
  if group not in teachers:
    raise unknown('teacher', group, teachers, f'{at}.teacher')
  return teachers[group]


def logits_of(
  teachers: Mapping[str, dict], groups: tuple[str, ...], at: str
) -> Array:
  """The logits of all nets of some groups, [T, B, ..., K].

  Raises:
    UserError: a group has none, or they differ in their classes.
  """
  each = {}
  for group in groups:
    outputs = found_in(teachers, group, at)
    if 'logits' not in outputs:
      raise unknown('output', 'logits', outputs, f'{at}.teacher: {group}')
    each[group] = outputs['logits']
  first = each[groups[0]].shape[1:]
  for group, logits in each.items():
    if logits.shape[1:] != first:
      raise UserError(
        f'{at}.teacher: {groups[0]} gives logits {list(first)} and {group} '
        f'{list(logits.shape[1:])}; what is put together has the same classes'
      )
  return jnp.concatenate(list(each.values()))


def _several(context: Context, groups: tuple[str, ...], at: str) -> Array:
  """The logits of two teachers or more, which weights are for."""
  logits = logits_of(context.teachers, groups, at.rpartition('.')[0])
  if len(logits) == 1:
    raise UserError(
      f'{at}: {groups[0]} is one teacher, which has no others to be weighed '
      'against; leave it empty'
    )
  return logits


def _weigh(weights: str, groups, trains, mask, at):
  """The groups to run, and their weights as a function of the context."""
  here = f'{at}.fuse_weights'
  if weights in ('', ROUTER):
    return groups, None
  if weights == VALIDATION:
    for group in groups:
      if group in trains:
        raise UserError(
          f'{here}: {group} trains, so there are no weights of it to be found '
          "on validation beforehand; take 'confidence' or 'router'"
        )
    name = validated(groups)

    def of_validation(context):
      _several(context, groups, here)
      if name not in context.teachers:
        raise UserError(
          f'{here}: no weights are found for {"+".join(groups)}, of which some '
          "group reads another; take 'confidence' or 'router'"
        )
      return context.teachers[name]['weight'][:, 0]

    return (*groups, name), of_validation
  known = [
    f.removesuffix(_WEIGHTS)
    for f in losses.__all__
    if f.endswith(_WEIGHTS) and _first(getattr(losses, f)) == 'teachers'
  ]
  if ':' not in weights and weights not in known:
    known += [VALIDATION, ROUTER]
    raise unknown('way to weigh teachers', weights, known, here)
  name = weights if ':' in weights else f'{weights}{_WEIGHTS}'
  function = lookup.find(name, [losses], kind='way to weigh teachers', at=here)
  fields = list(inspect.signature(function).parameters)[1:]

  def of_function(context):
    logits = _several(context, groups, here)
    masks.check_fields(weights, fields, mask, context.batch, here)
    with within(f'{here}: '):
      given = [field_of(context.batch, field, name) for field in fields]
    with blamed(here):
      found = function(logits, *given)
    sizes = (len(logits),), (*logits.shape[1:-1], len(logits))
    if found.shape not in sizes:
      raise UserError(
        f'{here}: {weights} gives the shape {list(found.shape)}, not '
        f'{list(sizes[1])}, a weight of each teacher for each example'
      )
    return found

  return groups, of_function


def as_logits(
  probabilities: Array, teachers: Array, temperature: float | Array = 1.0
) -> Array:
  """Logits whose softmax at a temperature gives the probabilities.

  They are finite, but for classes that do not exist, which stay at -inf.

  Args:
    probabilities: [B, ..., K].
    teachers: the logits that they were made of, [T, B, ..., K].
    temperature: of the softmax.
  """
  tiny = jnp.finfo(probabilities.dtype).tiny
  found = temperature * jnp.log(jnp.maximum(probabilities, tiny))
  return jnp.where(jnp.isneginf(teachers).all(0), -jnp.inf, found)


def _as_logits(function: Callable, softens: bool, at: str) -> Callable:
  """Fused probabilities as logits whose softmax at T is the fusion at T."""

  def fuse(logits, weights, temperature):
    options = {} if weights is None else {'weights': weights}
    with blamed(f'{at}.fuse'):
      if softens:
        options['temperature'] = temperature
      found = function(logits, **options)
      if jnp.issubdtype(found.dtype, jnp.integer):  # classes, as of a vote
        # -1 is no class: the teachers' logits are not numbers.
        known = _numerics.one_or_nan(found >= 0)[..., None]
        found = jax.nn.one_hot(found, logits.shape[-1], dtype=logits.dtype)
        return as_logits(found * known, logits, temperature)
    return as_logits(found, logits, temperature) if softens else found

  return fuse


def _of_teachers(name: str, at: str) -> Callable:
  """A fusion: of `jaxkd.losses`, what looks at teachers and weighs none."""
  known = [
    ours
    for ours in losses.__all__
    if _first(getattr(losses, ours)) == 'teachers'
    and not ours.endswith(_WEIGHTS)
  ]
  if ':' not in name and name not in known:
    raise unknown('fusion', name, (*known, *DRAWS), f'{at}.fuse')
  return lookup.find(name, [losses], kind='fusion', at=f'{at}.fuse')


def _first(function: Callable) -> str:
  """The name of a function's first argument."""
  return next(iter(inspect.signature(function).parameters))
