"""Knowledge: a loss at a location, as a `Term`."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.data.mixing import PROBABILITIES
from jaxkd.distill import masks
from jaxkd.distill.location import Location, sides
from jaxkd.errors import UserError, unknown, within
from jaxkd.types import Context, Term


class Arguments:
  """Which of a loss's arguments come from where, read off its signature.

  `key`, when first, is drawn; the arguments up to the one whose name begins
  with `teacher` are the student's, that one is the teacher's, and the rest
  are fields of the batch by name. Without a `teacher` only the first is the
  student's. A loss that takes `teachers` gets all of them at once, a tuple.

  Attributes:
    draws: whether the loss takes a key.
    teacher: whether it looks at a teacher.
    together: whether it looks at all teachers at once.
    fields: names of the batch's fields that it wants.
    coupled: whether its value couples the examples of a batch; such losses
      take a mask of them, `where`.
    masked: whether it puts positions together and can leave some out; such
      losses take a mask of them by keyword, `valid`.
  """

  def __init__(self, function: Callable):
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    self.draws = names[:1] == ['key']
    names = names[self.draws :]
    at = [i for i, name in enumerate(names) if name.startswith('teacher')]
    # The prediction itself comes first, whatever it is called.
    at = [i for i in at if i > 0]
    self.teacher = bool(at)
    self.together = bool(at) and names[at[0]] == 'teachers'
    self.fields = names[at[0] + 1 if at else 1 :]
    self.coupled = any(p.name == 'where' for p in parameters)
    self.masked = any(
      p.name == 'valid' and p.kind is p.KEYWORD_ONLY for p in parameters
    )


def find_loss(name: str, *, at: str) -> Callable:
  """A loss of `jaxkd.losses`, or a user's own, by name."""
  return lookup.find(name, [losses], kind='loss', at=at)


class Adversary(NamedTuple):
  """An option of a loss that is trained to make the student's task harder.

  It is ``low + (high - low) · sigmoid(θ)``, where θ, 1 at first, climbs the
  loss that the student descends, at first slowly: its gradient is reversed and
  multiplied by a factor that grows from 0 to 1 along a cosine.

  Attributes:
    option: the option, e.g. 'temperature' for curriculum temperature (CTKD,
      Li et al., `2023 <https://arxiv.org/abs/2211.16231>`_).
    low: its least value.
    high: its largest value.
    ramp: steps until the factor is 1.
  """

  option: str
  low: float
  high: float
  ramp: int = 0

  def value(self, theta: Array, step: Array) -> Array:
    """The option's value at a step."""
    share = jnp.minimum(step.astype(jnp.float32) / max(self.ramp, 1), 1)
    factor = (1 - jnp.cos(jnp.pi * share)) / 2 if self.ramp else 1.0
    theta = losses.reverse_gradient(theta, scale=factor)
    return self.low + (self.high - self.low) * jax.nn.sigmoid(theta)


def knowledge(
  loss: Callable,
  *,
  location: tuple[Location, Location] = ('logits', 'logits'),
  teachers: tuple[str, ...] = (),
  adapter: str = '',
  adapter_kw: Mapping[str, Any] | None = None,
  teacher_adapter: str = '',
  teacher_adapter_kw: Mapping[str, Any] | None = None,
  adversary: Adversary | None = None,
  mask: masks.Name = '',
  weigh: Callable[[Context], Array] | None = None,
  options: Mapping[str, Any] | None = None,
  at: str = 'term',
) -> Term:
  """A loss between the student and its teachers at a location.

  With several teachers the term is the mean of the loss over all of them, if
  it does not look at all at once.

  Args:
    loss: the function; see `Arguments` for how its arguments are found.
    location: names of the student's and of the teachers' outputs.
    teachers: groups of teachers; empty for a loss that looks at none.
    adapter: a function of `jaxkd.distill.adapters` applied to the student's
      side, sized from both shapes.
    adapter_kw: its options.
    teacher_adapter: one applied to the teachers' side.
    teacher_adapter_kw: its options.
    adversary: an option of the loss that trains against the student.
    mask: what counts, as `masks.find` takes it; the mean is then over what
      counts in the whole batch. It has the shape of the loss's value, or the
      loss takes `valid`. Where the batch has a field `valid` it may not be
      empty; 'all' says that everything counts.
    weigh: how much each teacher counts in that mean, [T] or for each example
      [B, T], of sum 1; by default they are equal.
    options: keyword options of the loss.
    at: the config entry, for error messages.

  Raises:
    UserError: a name that is not there, or shapes that do not match.
  """
  arguments = Arguments(loss)
  options = dict(options or {})
  name = getattr(loss, '__name__', str(loss))
  lookup.check_options(loss, options, name=name, at=f'{at}.kw')
  if adversary:
    lookup.check_options(
      loss, [adversary.option], name=name, at=f'{at}.adversary.option'
    )
  if arguments.teacher and not teachers:
    raise UserError(
      f'{at}.teacher: the loss {name} compares with a teacher; name a group'
    )
  if teachers and not arguments.teacher:
    raise UserError(
      f'{at}.teacher: the loss {name} looks at no teacher, as none of its '
      'arguments behind the first is called teacher; leave it empty'
    )
  if arguments.together and weigh:
    raise UserError(
      f'{at}.fuse_weights: the loss {name} looks at all teachers at once; '
      'leave it empty'
    )
  both = sides(
    location,
    teachers,
    adapter=adapter,
    adapter_kw=adapter_kw,
    teacher_adapter=teacher_adapter,
    teacher_adapter_kw=teacher_adapter_kw,
    masked=mask not in ('', masks.ALL),
    at=at,
  )

  def init(key, context):
    params, state = both.init(key, context)
    if adversary:
      params['adversary'] = jnp.ones((), jnp.float32)
    return params, state

  def value(context, counts, extra, student, teacher=()):
    first, rest = [context.key] if arguments.draws else [], []
    # What a teacher's adapter gives besides comes in place of fields.
    for field in arguments.fields[max(0, len(teacher) - 1) :]:
      mixtures = loss in losses.OF_PROBABILITIES
      with within(f'{at}: '):
        given = field_of(context.batch, field, name, mixtures=mixtures)
      rest.append(masks.keep(counts, given))
    extra = {**extra, **_told(arguments, counts, context.batch)}
    if arguments.masked:
      _check_positions(counts, student)

    def of(student):
      return jnp.asarray(loss(*first, *student, *teacher, *rest, **extra))

    try:
      result = of(student)
    except UserError:
      raise
    except Exception as error:
      raise UserError(_mismatch(error, student, teacher, of)) from error
    _check(result, counts, context.batch, student)
    if result.ndim == 0:  # one for the whole batch, as of a set distance
      size = _size(context.batch)
      result = jnp.full((size,), 1, result.dtype) * result
    return masks.per_example(result, counts, context.totals)

  def compared(params, state, context):
    """Both sides, with 0 for what does not count, and the mask."""
    masks.check_named(
      mask, context, location, teachers, arguments.fields, at=at
    )
    counts = masks.find(mask, context, teachers, at)
    context = masks.shown(counts, context, location, teachers)
    student, groups, state = both.apply(params, state, context)
    if adapter:
      student = masks.keep(counts, student)
    if teacher_adapter:
      groups = masks.keep(counts, groups, lead=1)
    masks.check_fits(counts, student, mask, at)
    return student, groups, state, counts

  def count(context):
    return masks.totals(masks.find(mask, context, teachers, at))

  def apply(params, state, context):
    student, groups, state, counts = compared(params, state, context)
    extra = dict(options)
    if adversary:
      theta = params['adversary']
      extra[adversary.option] = adversary.value(theta, context.step)
    if not groups:
      return value(context, counts, extra, student), state
    if arguments.together:
      nets = tuple(net for (group,) in groups for net in group)
      return value(context, counts, extra, student, (nets,)), state
    each = [
      jax.vmap(lambda teacher: value(context, counts, extra, student, teacher))(
        group
      )
      for group in groups
    ]
    each = jnp.concatenate(each)
    if weigh is None:
      return each.mean(0), state
    found = weigh(context)
    if found.ndim > 2:
      raise UserError(
        f'{at}.fuse_weights: it weighs the parts of an example apart, and the '
        'loss is one of the whole; leave it empty'
      )
    weights = jnp.broadcast_to(found, each.shape[::-1]).T
    return (weights.astype(each.dtype) * each).sum(0), state

  def _check(result, counts, batch, student):
    """Refuses values that are no loss, or that a mask does not fit."""
    if not jnp.issubdtype(result.dtype, jnp.floating):
      raise UserError(
        f'{at}: the loss gives {result.dtype}, which has no gradient'
      )
    size, shape = _size(batch), list(result.shape)
    if shape and shape[0] != size:
      raise UserError(
        f'{at}: the loss gave the shape {shape}, which does not begin with the '
        f'batch of {size}; a loss is unreduced over the batch'
      )
    if counts is None or counts.ndim == 1 or result.shape == counts.shape:
      return
    if len(shape) > 1:
      raise UserError(
        f'{at}.mask: {mask!r} is {list(counts.shape)} and the loss {shape}; '
        'they must be equal'
      )
    _check_positions(counts, student)
    if not arguments.masked and mask not in arguments.fields:
      raise UserError(
        f'{at}.mask: the loss {name} puts the positions of an example together '
        f'and cannot leave out those that do not count in {mask!r}; choose a '
        "loss that takes `valid`, or write 'all' to take everything"
      )
    if jnp.issubdtype(counts.dtype, jnp.floating):
      raise UserError(
        f'{at}.mask: {mask!r} is {counts.dtype}, and the loss {name}, which '
        'puts positions together, takes or leaves each; make it a bool'
      )

  def _check_positions(counts, student):
    """Refuses a mask of positions where there are none."""
    if counts is None or counts.ndim == 1:
      return
    layers = jax.tree.leaves(student)
    if all(x.shape[: counts.ndim] != counts.shape for x in layers):
      raise UserError(
        f'{at}.mask: {mask!r} is {list(counts.shape)}, and {location[0]!r} of '
        'the student has no such positions; leave it empty'
      )

  def _mismatch(error, student, teacher, of):
    if not teacher or _shapes(student) == _shapes(teacher):
      return f'{at}: the loss {name}: {error}'
    sentence = (
      f'{at}: {location[0]!r} of the student is {_shapes(student)} and '
      f'{location[1]!r} of teacher {" and ".join(teachers)} is '
      f'{_shapes(teacher)}, which the loss {name} cannot compare'
    )
    if 'logits' in location and _shapes(student, 1) == _shapes(teacher, 1):
      return f'{sentence}; choose outputs of one size'
    if 'logits' in location:
      return f'{sentence}; give both the same number of classes'
    if adapter:
      return f'{sentence}: {error}'
    try:
      of(teacher)  # which 'linear' would bring the student to
    except Exception:
      return f'{sentence} ({error}); choose other layers'
    return f"{sentence}; set {at}.adapter='linear' or choose other layers"

  return Term(init, apply, count)


def field_of(
  batch: Mapping[str, Array], field: str, who: str, *, mixtures: bool = False
) -> Array:
  """A field of the batch, by name.

  Args:
    batch: the fields.
    field: the name.
    who: the function that takes it, for errors.
    mixtures: whether it takes probabilities of the classes for `labels`, which
      mixtures of two examples have.

  Raises:
    UserError: there is none, or none such.
  """
  if field == 'labels' and PROBABILITIES in batch:
    if mixtures:
      return batch[PROBABILITIES]
    raise UserError(
      f'{who} takes one class for each example, and data.augment mixes two '
      "examples; leave that empty ('none' in teachers.NAME.data.augment), or "
      'choose what takes probabilities, as losses.cross_entropy does'
    )
  if field not in batch:
    raise unknown('field of the batch', field, batch)
  return batch[field]


def _shapes(tree, last: int = 0) -> str:
  """The shapes of arrays, of all axes or so many of the last ones."""
  leaves = [f'{x.dtype}{list(x.shape[-last:])}' for x in jax.tree.leaves(tree)]
  return ', '.join(leaves)


def _told(arguments, counts, batch) -> dict[str, Array]:
  """The masks that a loss takes itself."""
  told = {}
  if arguments.coupled:
    where = [batch['where']] if 'where' in batch else []
    if counts is not None and counts.ndim == 1:
      where.append(counts > 0)
    if where:
      told['where'] = functools.reduce(jnp.logical_and, where)
  if arguments.masked and counts is not None and counts.ndim > 1:
    told['valid'] = counts > 0
  return told


def _size(batch: Mapping[str, Any]) -> int:
  """How many examples a batch has."""
  return jax.tree.leaves(batch['id'])[0].shape[0]
