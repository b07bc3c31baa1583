"""Mixup and CutMix: each example is mixed with another one of its batch.

All nets, students and teachers, see the same mixture, and their views come
after it. Its label is a distribution over the classes, in which each of the two
examples has its share. So that nothing takes it for a class number, the field
``labels`` is replaced by ``label_probabilities``; fields that describe a single
example are dropped.

The batch is put in a random cyclic order, and each example is mixed with the
next. So the partner is uniform over the other examples of the batch, and never
the example itself.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.errors import UserError
from jaxkd.keys import fold

PROBABILITIES = 'label_probabilities'  # the field of a batch of mixtures
_KEPT = ('id', 'epoch')  # of the first example: the keys of views need them


def apply(
  ops: Mapping[str, Callable[[Array, Array, Array], tuple[Array, Array]]],
  batch: dict,
  keys: Array,
  num_classes: int,
) -> dict:
  """A batch of mixtures.

  Args:
    ops: name that the key is folded with -> ``(key, example, other) ->
      (mixture, share of the example)``; one op is drawn for each example.
    batch: ``inputs``, floats [B, ...], ``labels`` int [B], ``epoch`` and ``id``
      [B].
    keys: of the draws of each example, [B].
    num_classes: K.

  Returns:
    ``inputs`` [B, ...], ``label_probabilities`` float32 [B, K], with a row of
    NaN where a label is out of range, ``epoch`` and ``id``.

  Raises:
    UserError: a batch that cannot be mixed.
  """
  _check(batch)
  inputs, labels = batch['inputs'], batch['labels']
  partner = _next_in_circle(keys)

  def one(key, example, other):
    mixtures, shares = zip(
      *(op(fold(key, name), example, other) for name, op in ops.items()),
      strict=True,
    )
    shares = [jnp.asarray(share, jnp.float32) for share in shares]
    which = jax.random.randint(fold(key, 'which'), (), 0, len(ops))
    return jnp.stack(mixtures)[which], jnp.stack(shares)[which]

  mixed, share = jax.vmap(one)(keys, inputs, inputs[partner])
  own = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
  is_class = (labels >= 0) & (labels < num_classes)
  own = jnp.where(is_class[:, None], own, jnp.nan)
  share = share[:, None]
  probabilities = share * own + (1 - share) * own[partner]
  where = {name: batch[name] for name in _KEPT}
  return {**where, 'inputs': mixed, PROBABILITIES: probabilities}


# The ways to mix.


def mixup(
  key: Array, example: Array, other: Array, alpha: float
) -> tuple[Array, Array]:
  """λ x + (1 - λ) x' with λ from Beta(α, α), for arrays of any shape.

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
  """Pastes a box of the other image, of area 1 - λ with λ from Beta(α, α).

  Its centre is anywhere in the image. The box is clipped to the image, and the
  share is the exact fraction of the pixels that remain.

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
  """The successor of each example in a random cyclic order, int32 [B]."""
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
  dtype = getattr(inputs, 'dtype', None)
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
    got = 'several arrays' if dtype is None else dtype
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
