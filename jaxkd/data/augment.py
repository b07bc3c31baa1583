"""Augmentation of examples with their labels, and mixtures of examples.

All nets, students and teachers, see the same result; their views come after it.
It is written as a string, ``'flip|scale(0.8, 1.2)'``. First come ops that
transform an image together with its labels, as in `jaxkd.data.moves`, or your
own functions of the fields of an example; they are applied one after another.
Then come ways to mix two examples, as in `jaxkd.data.mixing`, of which one is
drawn for each example.

Draws for an example depend only on (seed, epoch, example) and the name of the
op, as in views. Evaluation has no augmentation.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import calls, lookup
from jaxkd.data import mixing, moves, positions, views
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.keys import fold

NONE = 'none'
_NUMBERS = ('id', 'epoch', 'rank')  # of the examples in a batch
# The kind of an op, by the argument after its key: the size of an image, for
# which it returns a `Move`; the fields of an example, which it returns changed;
# or an example, with another one to mix with as the third argument.
_SIZE, _FIELDS, _OTHER = 'size', 'fields', 'other'
_NONE_DECLARED: Mapping[str, str] = MappingProxyType({})


class Augment(NamedTuple):
  """The augmentation of a batch, if any.

  Attributes:
    text: as in the config; empty for nothing.
    at: the config entry, for errors.
  """

  text: str = ''
  at: str = 'data.augment.students'


class Ops(NamedTuple):
  """The ops of a text, in order, each under the name folded into its key.

  Attributes:
    whole: ``(key, fields, declared) -> fields``, on one example, where
      ``declared`` is `Source.fields`.
    mixing: ``(key, example, other) -> (mixture, share of the example)``.
  """

  whole: dict[str, Callable]
  mixing: dict[str, Callable]


def parse(text: str, *, at: str) -> Ops:
  """Reads a text such as ``'flip|pad_and_crop(4)|mixup(0.8)|cutmix(1)'``.

  Args:
    text: names separated by ``|``, with literal arguments; empty for none.
    at: the config entry, for errors.

  Raises:
    UserError: no such name, arguments that it does not take, or an op on whole
      examples behind one that mixes them.
  """
  ops = Ops({}, {})
  like = 'flip|scale(0.8, 1.2)|mixup(0.2)'
  kind = 'augmentation'
  for name, args, kwargs in calls.split(text, kind=kind, like=like, at=at):
    function = _find(name, at)
    takes = _takes(function)
    arguments = calls.bind(
      *(function, name, args, kwargs),
      kind=kind,
      at=at,
      skip=3 if takes == _OTHER else 2,
    )
    if ops.mixing and takes != _OTHER:
      raise UserError(
        f'{at}: {name} stands behind {next(iter(ops.mixing))}, which mixes two '
        'examples; put what mixes last'
      )
    key = calls.numbered(name, (*ops.whole, *ops.mixing))
    op = functools.partial(function, **arguments)
    if takes == _OTHER:
      ops.mixing[key] = op
    else:
      run = _moved if takes == _SIZE else _changed
      ops.whole[key] = functools.partial(run, op)
  return ops


def apply(
  augment: Augment,
  batch: dict,
  *,
  seed: Any,
  num_classes: int,
  declared: Mapping[str, str] = _NONE_DECLARED,
) -> dict:
  """Augments a batch.

  Args:
    augment: the augmentation, not empty.
    batch: ``inputs`` [B, ...], where uint8 becomes float32 in [0, 1] first;
      ``labels`` and the other fields of the examples, [B, ...]; ``epoch`` and
      ``id`` [B].
    seed: the member's, an integer or a traced uint32 scalar.
    num_classes: K.
    declared: kinds of fields that are not clear by name; see `Source.fields`.

  Returns:
    The fields of the batch; for mixtures see `jaxkd.data.mixing`.

  Raises:
    UserError: a batch that the ops do not fit.
  """
  ops = parse(augment.text, at=augment.at)
  where = {name: batch[name] for name in ('id', 'epoch')}
  inputs = views.apply(views.parse(''), batch['inputs'], seed=seed, **where)
  base = fold(jax.random.key(jnp.asarray(seed, jnp.uint32)), 'augment')
  keys = jax.vmap(functools.partial(fold, base))(batch['epoch'], batch['id'])
  batch = {**batch, 'inputs': inputs}

  def one(key, example):
    for name, op in ops.whole.items():
      with within(f'{name}: '):
        example = op(fold(key, name), example, declared)
    return example

  with within(f'{augment.at}: '):
    if ops.whole:
      numbers = {name: batch[name] for name in _NUMBERS if name in batch}
      rest = {name: x for name, x in batch.items() if name not in numbers}
      batch = {**jax.vmap(one)(keys, rest), **numbers}
    if ops.mixing:
      batch = mixing.apply(ops.mixing, batch, keys, num_classes)
  return batch


def _moved(
  op: Callable, key: Array, fields: dict, declared: Mapping[str, str]
) -> dict:
  """An example after ``op(key, size) -> Move``."""
  inputs = fields['inputs']
  parts = [*inputs] if isinstance(inputs, Mapping) else []
  size = positions.size_of(inputs)
  if not size or not {*parts} <= {*declared}:
    shape = getattr(inputs, 'shape', ())
    raise UserError(
      'it moves images of shape (height, width, channels), and an example is '
      f'{list(shape) or "several arrays that the source does not call maps"}; '
      'leave it out'
    )
  return moves.apply(op(key, size), fields, declared)


def _changed(
  op: Callable, key: Array, fields: dict, declared: Mapping[str, str]
) -> dict:
  """An example after a user's own ``op(key, fields) -> fields``."""
  del declared
  found = op(key, dict(fields))
  if not isinstance(found, dict) or found.keys() != fields.keys():
    got = ', '.join(found) if isinstance(found, dict) else type(found).__name__
    raise UserError(
      f'it gives {got}, and should give a dict of the fields '
      f'{", ".join(fields)}'
    )
  return found


def check(
  augment: Augment,
  batch: dict,
  num_classes: int,
  declared: Mapping[str, str] = _NONE_DECLARED,
) -> dict:
  """The shapes of a batch after augmentation, from those before.

  Raises:
    UserError: a batch that the ops do not fit.
  """
  run = functools.partial(
    apply, augment, seed=0, num_classes=num_classes, declared=declared
  )
  with blamed(augment.at):
    return jax.eval_shape(run, batch)


@functools.cache
def ops() -> dict[str, Callable]:
  """The ops that there are, by name."""
  return {
    op: function
    for module, second in ((moves, _SIZE), (mixing, _OTHER))
    for op, function in vars(module).items()
    if inspect.isfunction(function)
    and not op.startswith('_')
    and [*inspect.signature(function).parameters][:1] == ['key']
    and second in inspect.signature(function).parameters
  }


def _takes(function: Callable) -> str:
  """The kind of an op, by the name of the argument after its key."""
  second = [*inspect.signature(function).parameters][1:2]
  return second[0] if second in ([_SIZE], [_FIELDS]) else _OTHER


def _find(name: str, at: str) -> Callable:
  if ':' in name:
    op = lookup.attribute(name, kind='augmentation', at=at)
    takes = len(inspect.signature(op).parameters)
    if takes < (3 if _takes(op) == _OTHER else 2):
      raise UserError(
        f'{at}: {name} is not a function of (key, size, ...), which gives a '
        'Move, nor of (key, fields, ...), which gives the fields of an '
        'example, nor of (key, example, other, ...), which mixes two'
      )
    return op
  known = ops()
  if name not in known:
    raise unknown('augmentation', name, known, at)
  return known[name]
