"""A loss with an option, e.g. the temperature, learnt adversarially (CTKD)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import lookup, losses
from jaxkd.distill import masks
from jaxkd.distill.arguments import find_loss, name_of
from jaxkd.distill.location import Sides
from jaxkd.distill.term import knowledge
from jaxkd.errors import UserError
from jaxkd.types import Term


class Adversary(NamedTuple):
  """A number that is trained to make the student's task harder.

  It is ``low + (high - low) · sigmoid(θ)``, where θ, 1 at first, climbs the
  loss that the student descends, at first slowly: its gradient is reversed and
  multiplied by a factor that grows from 0 to 1 along a cosine.

  Attributes:
    low: its least value.
    high: its largest value.
    ramp: steps until the factor is 1.
  """

  low: float
  high: float
  ramp: int = 0

  def value(self, theta: Array, step: Array) -> Array:
    """The number at a step."""
    share = jnp.minimum(step.astype(jnp.float32) / max(self.ramp, 1), 1)
    factor = (1 - jnp.cos(jnp.pi * share)) / 2 if self.ramp else 1.0
    theta = losses.reverse_gradient(theta, scale=factor)
    return self.low + (self.high - self.low) * jax.nn.sigmoid(theta)


def adversary(
  *,
  sides: Sides,
  mask: masks.Name = '',
  loss: str | Callable[..., Array] = 'kl',
  option: str = 'temperature',
  low: float = 1.0,
  high: float = 21.0,
  ramp: int = 0,
  entry: str = 'term',
  **options: Any,
) -> Term:
  """A loss with an option that is trained against the student (CTKD).

  The parameter θ is called ``adversary``, beside those of the adapters.

  Args:
    sides: the outputs that the loss compares.
    mask: what counts, as for `jaxkd.distill.term`.
    loss: the loss, or the name of one of `jaxkd.losses`.
    option: the option, e.g. 'temperature' for curriculum temperature.
    low: its least value.
    high: its largest value.
    ramp: steps until the gradient of θ has its full size.
    entry: the config entry, for error messages.
    options: further options of the loss, by keyword.

  References:
    Li et al., `Curriculum Temperature for Knowledge Distillation
    <https://arxiv.org/abs/2211.16231>`_, 2023
  """
  function, name = find_loss(loss, at=f'{entry}.kw.loss'), name_of(loss)
  lookup.check_options(
    function, {option: low}, name=name, at=f'{entry}.kw.option'
  )
  known = not any(isinstance(bound, jax.Array) for bound in (low, high))
  if known and not low < high:
    raise UserError(f'{entry}.kw: low, {low:g}, should be below high, {high:g}')
  if option in options:
    raise UserError(f'{entry}.kw.{option}: it is learnt; leave it out')
  player = Adversary(low, high, ramp)

  def made(**learnt):
    return knowledge(
      function, sides, mask=mask, options={**options, **learnt}, entry=entry
    )

  def init(key, context):
    params, state = sides.init(key, context)
    return {**params, 'adversary': jnp.ones((), jnp.float32)}, state

  def loss_of(params, state, context):
    value = player.value(params['adversary'], context.step)
    return made(**{option: value}).loss(params, state, context)

  return made()._replace(init=init, loss=loss_of)
