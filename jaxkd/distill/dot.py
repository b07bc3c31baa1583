"""DOT: a momentum for the gradient of the task, a longer one for distillation.

Zhao et al., `DOT: A Distillation-Oriented Trainer
<https://arxiv.org/abs/2307.08436>`_, 2023.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd.errors import UserError

PARTS = ('task', 'distill')


class Momenta(NamedTuple):
  """The running sums of the gradients of both parts."""

  task: Any
  distill: Any


def dot(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float = 0.9,
  delta: float = 0.075,
) -> optax.GradientTransformationExtraArgs:
  """SGD with momentum μ - Δ for the task and μ + Δ for distillation.

  It needs ``train.parts = {'task': ..., 'distill': ...}``, from which the
  gradient of each part comes. What is in the gradient besides, as weight
  decay, counts as the task's.

  Args:
    learning_rate: of both.
    momentum: μ.
    delta: Δ; 0.075 for CIFAR and 0.09 for ImageNet in the paper.

  Formula:
    v_task ← (μ - Δ) v_task + g_task, v_distill ← (μ + Δ) v_distill + g_distill,
    θ ← θ - rate · (v_task + v_distill)
  """

  def init(params):
    zeros = optax.tree.zeros_like(params)
    return Momenta(zeros, zeros)

  def update(updates, state, params=None, *, parts=None):
    del params
    if parts is None or set(parts) != set(PARTS):
      raise UserError(
        'train.parts: dot takes the parts task and distill, e.g. '
        "dict(task=('labels',), distill=('soft',))"
      )

    def added(decay, sums, gradients):
      return jax.tree.map(
        lambda v, g: jnp.asarray(decay, v.dtype) * v + g, sums, gradients
      )

    distill = parts['distill']
    task = optax.tree.sub(updates, distill)
    state = Momenta(
      added(momentum - delta, state.task, task),
      added(momentum + delta, state.distill, distill),
    )
    return optax.tree.add(*state), state

  return optax.chain(
    optax.GradientTransformationExtraArgs(init, update),
    optax.scale_by_learning_rate(learning_rate),
  )
