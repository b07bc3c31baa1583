"""Several teachers of one term: fused to one, weighted, or drawn from.

A fusion combines the outputs of all teachers, e.g. to their mean, and the term
sees the result as its one teacher. Weights say how much each teacher counts in
it; without a fusion they weigh the losses to the teachers. A draw picks one
teacher for each step, and the others are not run.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import masks, router
from jaxkd.distill.arguments import field_of, first_argument, name_of
from jaxkd.distill.location import groups_of, nets_of, shown
from jaxkd.distill.seen import (
  aggregated,
  looking_at,
  seen_as,
  standing_in,
)
from jaxkd.distill.transfer import check_terms
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.keys import fold
from jaxkd.losses import _numerics
from jaxkd.types import Context, Term

DRAWS = ('sampled', 'round_robin')
VALIDATION, ROUTER = 'validation', 'router'
_WEIGHTS = '_weights'  # how the names of functions that weigh teachers end


class Draw(NamedTuple):
  """A rule that picks one net of some groups of teachers for each step.

  All terms that draw from the same groups in the same way get the same net.

  Attributes:
    how: 'sampled', at random, or 'round_robin', one after another.
    groups: the groups of teachers.
    entry: the config entry, for error messages.
  """

  how: str
  groups: tuple[str, ...]
  entry: str

  @property
  def name(self) -> str:
    """The name of the pseudo-group that the drawn teacher is."""
    return f'{self.how} of {"+".join(self.groups)}'

  def index(self, count: int, seed: Array, step: Array) -> Array:
    """The number of the net that a step takes, from 0 to below `count`.

    Raises:
      UserError: there is just one.
    """
    if count == 1:
      raise UserError(
        f'{self.entry}.fuse: {"+".join(self.groups)} has a single teacher; '
        'there is nothing to sample; leave fuse empty'
      )
    if self.how == 'round_robin':
      return step % count
    key = fold(jax.random.key(seed), 'step', step, 'draw', self.name)
    return jax.random.randint(key, (), 0, count)

  def pick(
    self, teachers: Mapping[str, dict], seed: Array, step: Array
  ) -> dict[str, Array]:
    """The outputs of the net that a step takes, [1, B, ...] each."""
    for group in self.groups:
      if group not in teachers:
        raise unknown('teacher', group, teachers, f'{self.entry}.teacher')
    nets = [teachers[group] for group in self.groups]
    several = len(nets) > 1
    if several and any('logits' in net for net in nets):  # of equal classes
      nets_of(teachers, self.groups, 'logits', self.entry)
    count = sum(len(next(iter(net.values()))) for net in nets)
    chosen = self.index(count, seed, step)
    first, *others = nets
    outputs = {  # a net can be drawn only for layers that all nets have
      name: [x, *(net[name] for net in others)]
      for name, x in first.items()
      if all(name in n and n[name].shape[1:] == x.shape[1:] for n in others)
    }
    join = lambda *x: jnp.concatenate(x)[chosen][None]  # noqa: E731
    return {name: jax.tree.map(join, *x) for name, x in outputs.items()}


def alone(whole: Iterable[str], draws: Iterable[Draw]) -> dict[str, Draw]:
  """The groups of which a step runs only one net, and the draw that picks it.

  Args:
    whole: the groups of which some term sees all nets.
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


def validated(groups: tuple[str, ...]) -> str:
  """Name of the pseudo-group that holds the weights found on validation."""
  return f'{VALIDATION} of {"+".join(groups)}'


def fused(
  term: Term,
  how: str | Callable[..., Array],
  *,
  weights: str | Callable[..., Array] = '',
  at: Collection[str] = (),
  teacher: str | tuple[str, ...] = (),
  entry: str = 'term',
) -> Term:
  """Fuses the teachers of a term to one, which the term then sees.

  Args:
    term: looks at several teachers, and sees one of the same names.
    how: the fusion. 'mean_probabilities', 'geometric_mean',
      'mean_logits' and 'majority_vote', functions of `jaxkd.losses`, are for
      logits and outputs of as many classes; 'mean' is the plain mean of any
      output. 'sampled' is one net for each batch, and 'round_robin' one after
      another: only that net is run. Or a function of one's own of the outputs
      of all nets, [T, B, ...], with the options ``weights`` and ``temperature``
      if it takes such.
    weights: how much each net counts: 'confidence', or a function of the logits
      of all, [T, B, ..., K], and of fields of the batch, that returns [T]
      or [B, ..., T]; 'router', a gate that learns them from the labels; or
      'validation', weights that `jaxkd.run` finds on the validation split.
    at: the outputs that are fused; those that the term looks at if empty.
    teacher: the groups that become one; all that the term looks at if empty.
    entry: the config entry, for error messages.

  Raises:
    UserError: names that are not there, or do not go together.
  """
  check_terms(entry, term)
  groups = groups_of(teacher) or term.teachers
  for name, value in (('fuse', how), ('fuse_weights', weights)):
    if value and not groups:
      raise UserError(f'{entry}.{name}: name the groups in {entry}.teacher')
  if how in DRAWS:
    if weights:
      raise UserError(
        f'{entry}.fuse_weights: {how} draws one teacher for each step and '
        'has no weights; leave it empty'
      )
    return _drawn(term, Draw(how, groups, entry))
  outputs = tuple(sorted(at or term.layers[1])) or ('logits',)
  teachers, weigh = weights_of(weights, groups, term.mask, entry)
  function = _of_teachers(how, entry)
  check_sigmoid(term, function, weights, entry)
  of_logits = any(function is getattr(losses, name) for name in _OF_LOGITS)
  options = inspect.signature(function).parameters
  if weights and 'weights' not in options:
    raise UserError(
      f'{entry}.fuse_weights: {name_of(how)} takes no weights; leave it empty '
      "or choose another fuse, e.g. 'mean_probabilities'"
    )
  fuse = _as_logits(function, 'temperature' in options, entry)

  def combined(context, given):
    found = {}
    for name in outputs:
      values = nets_of(context.teachers, groups, name, entry)
      if of_logits and name != 'logits':
        _check_classes(name_of(how), name, values, context, groups, entry)
      own = _fitted(given, values, name, entry)
      if weights and given is None:  # for the shapes alone
        own = jnp.ones(len(values), jnp.float32)
      found[name] = fuse(values, own, term.temperature)
    return found

  if weights == ROUTER:
    predictions = lambda context: _several(context, groups, entry)  # noqa: E731
    learnt = fuse
    if function is mean:
      learnt = _as_logits(losses.mean_probabilities, True, entry)
    made = router.routed(term, predictions, combined, learnt, groups, entry)
  else:
    made = aggregated(term, combined, groups, weigh)
  looks = (*outputs, 'logits') if weights else outputs
  return looking_at(made, teachers, looks)


def mean(teachers: Array, *, weights: Array | None = None) -> Array:
  """The mean of an output over teachers.

  Args:
    teachers: [T, B, ...].
    weights: of the teachers, [T], or for each example [B, ..., T], 0 or
      more; they are divided by their sum. Equal by default.

  Returns:
    [B, ...].
  """
  if weights is None:
    return teachers.mean(0)
  weights = weights / weights.sum(-1, keepdims=True)
  if weights.ndim == 1:
    return jnp.tensordot(weights.astype(teachers.dtype), teachers, 1)
  weights = jnp.moveaxis(weights, -1, 0).astype(teachers.dtype)
  rest = range(weights.ndim, teachers.ndim)
  return (jnp.expand_dims(weights, tuple(rest)) * teachers).sum(0)


def check_sigmoid(
  term: Term,
  fuse: Callable[..., Array] | None,
  weights: str | Callable[..., Array],
  entry: str,
) -> None:
  """Refuses a softmax for a term whose classes have a sigmoid each.

  Args:
    term: see `jaxkd.types.Term.sigmoid`.
    fuse: the fusion, if there is one.
    weights: as `fused` takes them.
    entry: the config entry, for error messages.

  Raises:
    UserError: a fusion, or weights, that take a softmax over the classes.
  """
  if not term.sigmoid:
    return
  if fuse in [getattr(losses, name) for name in _OF_SOFTMAX]:
    raise UserError(
      f'{entry}.fuse: {name_of(fuse)} takes a softmax over the classes, and '
      "the loss the sigmoid of each; set fuse='mean_logits', or a function of "
      'yours'
    )
  if weights and isinstance(weights, str) and ':' not in weights:
    raise UserError(
      f'{entry}.fuse_weights: {weights} takes a softmax over the classes, and '
      'the loss the sigmoid of each; leave it empty, or set a function of yours'
    )


def _drawn(term: Term, draw: Draw) -> Term:
  """The term, which sees one net of its groups in each step."""

  def see(context):
    net = shown(context, (draw.name,), entry=draw.entry)[draw.name]
    return standing_in(context, draw.groups, net)

  others = (name for name in term.teachers if name not in draw.groups)
  return seen_as(term, see)._replace(
    teachers=tuple(others), draws=(draw, *term.draws)
  )


def _fitted(
  weights: Array | None, values: Array, name: str, entry: str
) -> Array | None:
  """Weights [B, ..., T] with axes of 1, to multiply an output [T, B, ...]."""
  if weights is None or weights.ndim == 1:
    return weights
  axes = weights.shape[:-1]
  if axes == values.shape[1:-1]:
    return weights
  if axes != values.shape[1 : 1 + len(axes)]:
    raise UserError(
      f'{entry}.fuse_weights: the weights have the shape {list(axes)} for '
      f'each teacher, and {name} is {list(values.shape[1:])}; choose weights '
      'per example'
    )
  rest = values.shape[1 + len(axes) : -1]
  weights = jnp.expand_dims(weights, tuple(range(len(axes), values.ndim - 2)))
  return jnp.broadcast_to(weights, (*axes, *rest, len(values)))


def _check_classes(how, name, values, context, groups, entry):
  """Refuses a fusion of class probabilities for outputs without classes."""
  known = {
    x.shape[-1]
    for outputs in shown(context, groups, entry=entry).values()
    for x in (outputs.get('logits'),)
    if x is not None
  }
  if known != {values.shape[-1]}:
    raise UserError(
      f'{entry}.fuse: {how} fuses class probabilities, and {name} '
      f'{list(values.shape[2:])} does not have the classes of the logits; '
      "set fuse='mean'"
    )


def _several(context: Context, groups: tuple[str, ...], entry: str) -> Array:
  """The teachers' logits, [T, B, ..., K]; refuses a single teacher."""
  logits = nets_of(context.teachers, groups, 'logits', entry)
  if len(logits) == 1:
    raise UserError(
      f'{entry}.fuse_weights: {groups[0]} is one teacher, so there is '
      'nothing to weigh it against; leave it empty'
    )
  return logits


def weights_of(
  weights: str | Callable[..., Array],
  groups: tuple[str, ...],
  mask: masks.Name,
  entry: str,
) -> tuple[tuple[str, ...], Callable[[Context], Array] | None]:
  """The function that weighs several teachers.

  Args:
    weights: as `fused` takes them.
    groups: whose nets they are.
    mask: of the term.
    entry: the config entry, for error messages.

  Returns:
    The groups that the function looks at, and the function ``context ->
    weights``, [T] or for each example [B, ..., T]; None for equal weights, and
    for those of a router.
  """
  here = f'{entry}.fuse_weights'
  if weights in ('', ROUTER):
    return groups, None
  if weights == VALIDATION:
    name = validated(groups)

    def of_validation(context):
      _several(context, groups, entry)
      if name not in context.teachers:
        raise UserError(
          f'{here}: there are no validation weights for {"+".join(groups)}: '
          'only a run of a config finds them, and only for groups that read no '
          "other; take 'confidence' or 'router'"
        )
      return context.teachers[name]['weight'][:, 0]

    return (*groups, name), of_validation
  known = [
    f.removesuffix(_WEIGHTS)
    for f in losses.__all__
    if f.endswith(_WEIGHTS) and _of_all(f)
  ]
  name = name_of(weights)
  if isinstance(weights, str) and ':' not in weights:
    if weights not in known:
      known += [VALIDATION, ROUTER]
      raise unknown('way to weigh teachers', weights, known, here)
    weights = f'{weights}{_WEIGHTS}'
  function = lookup.find(
    weights, [losses], kind='way to weigh teachers', at=here
  )
  fields = list(inspect.signature(function).parameters)[1:]

  def of_function(context):
    logits = _several(context, groups, entry)
    masks.check_fields(name, fields, mask, context.batch, here)
    with within(f'{here}: '):
      given = [field_of(context, field, name_of(function)) for field in fields]
    with blamed(here):
      found = function(logits, *given)
    sizes = (len(logits),), (*logits.shape[1:-1], len(logits))
    if found.shape not in sizes:
      raise UserError(
        f'{here}: {name} gives the shape {list(found.shape)}, not '
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


def _as_logits(function: Callable, softens: bool, entry: str) -> Callable:
  """Fused probabilities as logits whose softmax at T is the fusion at T."""

  def fuse(logits, weights, temperature):
    options = {} if weights is None else {'weights': weights}
    with blamed(f'{entry}.fuse'):
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


def _of_teachers(how: str | Callable, entry: str) -> Callable:
  """A fusion by name: a function of `jaxkd.losses` of several teachers."""
  if how == 'mean':
    return mean
  if isinstance(how, str) and ':' not in how and how not in _OF_LOGITS:
    raise unknown('fusion', how, ('mean', *_OF_LOGITS, *DRAWS), f'{entry}.fuse')
  return lookup.find(how, [losses], kind='fusion', at=f'{entry}.fuse')


def _of_all(name: str) -> bool:
  """Whether a function of `jaxkd.losses` looks at several teachers."""
  return first_argument(getattr(losses, name)) == 'teachers'


_OF_LOGITS = tuple(
  name
  for name in losses.__all__
  if _of_all(name) and not name.endswith(_WEIGHTS)
)
_OF_SOFTMAX = tuple(name for name in _OF_LOGITS if name != 'mean_logits')
