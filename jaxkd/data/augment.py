"""Augmentation of whole batches: an example is mixed with another of its batch.

All nets, students and teachers, are shown the same mixture, and their views
come after it. Its label is a distribution over the classes, with the share of
each of the two examples. So that nothing takes it for a class, the field
``labels`` gives way to ``label_probabilities``, and fields that are of one
example alone are left out.

What is drawn for an example depends on (seed, epoch, example) alone, as in
views: its share, and its place among the examples of the batch in a random
circle, in which it is mixed with the next. So a partner is drawn evenly from
all others of the batch, and never the example itself.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import calls, lookup
from jaxkd.data import views
from jaxkd.errors import UserError, unknown, within
from jaxkd.keys import fold

PROBABILITIES = 'label_probabilities'  # the field of a batch of mixtures
NONE = 'none'
_KEPT = ('id', 'epoch')  # what views draw by: of the first of the two


class Augment(NamedTuple):
  """How the examples of a batch are mixed, if they are.

  Attributes:
    text: as in the config; empty for not at all.
    at: the config entry, for errors.
  """

  text: str = ''
  at: str = 'data.augment.students'


class Op(NamedTuple):
  """One way to mix two examples.

  Attributes:
    name: what its draws are keyed by.
    apply: ``(key, example, other) -> (mixture, share of the example)``.
  """

  name: str
  apply: Callable[[Array, Array, Array], tuple[Array, Array]]


def parse(text: str, *, at: str) -> list[Op]:
  """Reads ways to mix, such as ``'mixup(0.2)'`` or ``'mixup(0.8)|cutmix(1)'``.

  Args:
    text: names separated by ``|``, of which one is drawn for each example;
      empty for none.
    at: the config entry, for errors.

  Raises:
    UserError: no such name, or arguments that it does not take.
  """
  ops = []
  like = 'mixup(0.2)|cutmix(1.0)'
  for name, args, kwargs in calls.split(text, kind='mixing', like=like, at=at):
    function = _find(name, at)
    arguments = calls.bind(
      function, name, args, kwargs, kind='mixing', at=at, skip=3
    )
    key = calls.numbered(name, (op.name for op in ops))
    ops.append(Op(key, functools.partial(function, **arguments)))
  return ops


def apply(
  augment: Augment, batch: dict, *, seed: Any, num_classes: int
) -> dict:
  """A batch of mixtures.

  Args:
    augment: how; not empty.
    batch: ``inputs`` [B, ...], of which eight-bit integers become float32 in
      [0, 1] first, ``labels`` int [B], ``epoch`` and ``id`` [B].
    seed: the member's, an integer or a traced uint32 scalar.
    num_classes: K.

  Returns:
    ``inputs`` [B, ...], ``label_probabilities`` float32 [B, K], of which a row
    is NaN where a label is no class, ``epoch`` and ``id``.

  Raises:
    UserError: a batch that cannot be mixed.
  """
  ops = parse(augment.text, at=augment.at)
  with within(f'{augment.at}: '):
    _check(batch)
  where = {name: batch[name] for name in _KEPT}
  inputs = views.apply(views.parse(''), batch['inputs'], seed=seed, **where)
  base = fold(jax.random.key(jnp.asarray(seed, jnp.uint32)), 'augment')
  keys = jax.vmap(functools.partial(fold, base))(batch['epoch'], batch['id'])
  partner = _next_in_circle(keys)

  def one(key, example, other):
    mixtures, shares = zip(
      *(op.apply(fold(key, op.name), example, other) for op in ops),
      strict=True,
    )
    shares = [jnp.asarray(share, jnp.float32) for share in shares]
    which = jax.random.randint(fold(key, 'which'), (), 0, len(ops))
    return jnp.stack(mixtures)[which], jnp.stack(shares)[which]

  with within(f'{augment.at}: '):
    mixed, share = jax.vmap(one)(keys, inputs, inputs[partner])
  labels = batch['labels']
  own = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
  is_class = (labels >= 0) & (labels < num_classes)
  own = jnp.where(is_class[:, None], own, jnp.nan)
  share = share[:, None]
  probabilities = share * own + (1 - share) * own[partner]
  return {**where, 'inputs': mixed, PROBABILITIES: probabilities}


def check(augment: Augment, batch: dict, num_classes: int) -> None:
  """Traces the mixing of a batch of shapes.

  Raises:
    UserError: it cannot be mixed.
  """
  mix = functools.partial(apply, augment, seed=0, num_classes=num_classes)
  jax.eval_shape(mix, batch)


# The ways to mix.


def mixup(
  key: Array, example: Array, other: Array, alpha: float
) -> tuple[Array, Array]:
  """λ x + (1 - λ) x', λ from Beta(α, α); of arrays of any shape.

  Zhang et al., `mixup: Beyond Empirical Risk Minimization
  <https://arxiv.org/abs/1710.09412>`_, 2018. There each pair has a λ of its
  own, as here; the authors' code draws one for a batch.
  """
  share = _beta('mixup', key, alpha)
  weight = share.astype(example.dtype)
  return weight * example + (1 - weight) * other, share


def cutmix(
  key: Array, image: Array, other: Array, alpha: float = 1.0
) -> tuple[Array, Array]:
  """A box of the other image in this one, of area 1 - λ, λ from Beta(α, α).

  Its centre is anywhere in the image; what lies outside is cut off, and the
  share is that of the pixels which remain, exactly.

  Yun et al., `CutMix: Regularization Strategy to Train Strong Classifiers with
  Localizable Features <https://arxiv.org/abs/1905.04899>`_, 2019
  """
  if image.ndim != 3:
    raise UserError(
      'cutmix needs images of shape (height, width, channels), got '
      f"{image.shape}; take 'mixup(0.2)'"
    )
  side = jnp.sqrt(1 - _beta('cutmix', fold(key, 'share'), alpha))
  inside = jnp.ones((1, 1), bool)
  for axis, length in enumerate(image.shape[:2]):
    centre = jax.random.randint(fold(key, 'centre', axis), (), 0, length)
    size = jnp.floor(length * side).astype(jnp.int32)
    place = jnp.arange(length) - (centre - size // 2)
    within_box = (place >= 0) & (place < size)
    inside &= jnp.expand_dims(within_box, 1 - axis)
  return (
    jnp.where(inside[..., None], other, image),
    1 - jnp.mean(inside.astype(jnp.float32)),
  )


def _beta(name: str, key: Array, alpha: float) -> Array:
  if not alpha > 0:
    raise UserError(f'{name}(alpha={alpha}) needs an alpha above 0')
  return jax.random.beta(key, alpha, alpha, dtype=jnp.float32)


def _next_in_circle(keys: Array) -> Array:
  """The next of each example in a random circle of all, int32 [B]."""
  drawn = jax.vmap(lambda key: jax.random.bits(fold(key, 'place')))(keys)
  order = jnp.argsort(drawn)
  return jnp.zeros_like(order).at[order].set(jnp.roll(order, -1))


def _check(batch: dict) -> None:
  """Refuses a batch that cannot be mixed."""
  inputs, labels = batch['inputs'], batch['labels']
  if labels.ndim > 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
    raise UserError(
      f'it mixes examples of one class each, and these have labels '
      f'{labels.dtype}{list(labels.shape[1:])}; leave it empty'
    )
  if not hasattr(inputs, 'shape') or not (
    inputs.dtype == jnp.uint8 or jnp.issubdtype(inputs.dtype, jnp.floating)
  ):
    got = getattr(inputs, 'dtype', 'several arrays')
    raise UserError(
      f'it mixes images or other arrays of floating-point numbers, and an '
      f'example is {got}; leave it empty'
    )
  if 'valid' in batch:
    raise UserError(
      'it mixes examples of which all counts, and these have parts that do '
      'not; leave it empty'
    )
  if len(labels) < 2:
    raise UserError(
      'it mixes the examples of a batch, which has one; set batch_size to 2 or '
      'more'
    )


def _find(name: str, at: str) -> Callable:
  if ':' in name:
    op = lookup.attribute(name, kind='mixing', at=at)
    if len(inspect.signature(op).parameters) < 3:
      raise UserError(
        f'{at}: {name} is not a function of (key, example, other, ...)'
      )
    return op
  ops = {'mixup': mixup, 'cutmix': cutmix}
  if name not in ops:
    raise unknown('mixing', name, ops, at)
  return ops[name]
