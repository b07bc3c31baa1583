"""Knowledge: a loss at a location, as a `Term`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.data.augment import PROBABILITIES
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
      take a mask `where`.
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
  mask: str = '',
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
    mask: a field of the batch, of the shape of the loss's value, that says
      what counts; the mean is then over what counts in the whole batch.
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
      f'{at}.teacher: the loss {name} looks at no teacher; leave it empty'
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
    at=at,
  )

  def init(key, context):
    params, state = both.init(key, context)
    if adversary:
      params['adversary'] = jnp.ones((), jnp.float32)
    return params, state

  def value(context, extra, student, teacher=()):
    positional = [context.key] if arguments.draws else []
    positional += [*student, *teacher]
    # What a teacher's adapter gives besides comes in place of fields.
    for field in arguments.fields[max(0, len(teacher) - 1) :]:
      mixtures = loss in losses.OF_PROBABILITIES
      with within(f'{at}: '):
        found = field_of(context.batch, field, name, mixtures=mixtures)
      positional.append(found)
    if arguments.coupled and 'where' in context.batch:
      extra = {**extra, 'where': context.batch['where']}
    try:
      result = jnp.asarray(loss(*positional, **extra))
    except UserError:
      raise
    except Exception as error:
      raise UserError(_mismatch(error, student, teacher)) from error
    if 'labels' in arguments.fields and not mask and result.ndim > 1:
      _check_all_count(context.batch, at)
    return _per_example(result, context.batch, mask, at)

  def apply(params, state, context):
    student, groups, state = both.apply(params, state, context)
    extra = dict(options)
    if adversary:
      theta = params['adversary']
      extra[adversary.option] = adversary.value(theta, context.step)
    if not groups:
      return value(context, extra, student), state
    if arguments.together:
      nets = tuple(net for (group,) in groups for net in group)
      return value(context, extra, student, (nets,)), state
    each = [
      jax.vmap(lambda teacher: value(context, extra, student, teacher))(group)
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

  def _mismatch(error, student, teacher):
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
    if not adapter:
      return f"{sentence}; set {at}.adapter='linear' or choose other layers"
    return f'{sentence}: {error}'

  return Term(init, apply)


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


def _check_all_count(batch: Mapping, at: str) -> None:
  """Refuses to learn from labels that stand where there is none."""
  if 'valid' in batch:
    raise UserError(
      f'{at}.mask: it is empty, and not all of the labels mean something; '
      "write 'valid'"
    )


def _per_example(value: Array, batch: Mapping, mask: str, at: str) -> Array:
  """The loss of each example [B], whatever axes the loss has left."""
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise UserError(
      f'{at}: the loss gives {value.dtype}, which has no gradient'
    )
  size = jax.tree.leaves(batch['id'])[0].shape[0]
  if value.ndim == 0:  # one value for the whole batch, as of a set distance
    return jnp.full((size,), 1, value.dtype) * value
  if value.shape[0] != size:
    raise UserError(
      f'{at}: the loss gave the shape {list(value.shape)}, which does not '
      f'begin with the batch of {size}; a loss is unreduced over the batch'
    )
  rest = tuple(range(1, value.ndim))
  if not mask:
    return value.mean(rest)
  if mask not in batch:
    raise unknown('field of the batch', mask, batch, f'{at}.mask')
  if mask in ('id', 'epoch', 'labels'):
    raise UserError(
      f'{at}.mask: {mask!r} numbers the examples and is no mask; name a field '
      'of zeros and ones'
    )
  count = batch[mask].astype(value.dtype)
  if count.shape != value.shape:
    raise UserError(
      f'{at}.mask: {mask!r} is {list(count.shape)} and the loss '
      f'{list(value.shape)}; they must be equal'
    )
  total = jnp.maximum(count.sum(), 1)
  return (jnp.where(count > 0, value, 0) * count).sum(rest) * size / total
