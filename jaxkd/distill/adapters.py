"""Small trained maps that bring the student's layer to the teacher's shape.

They train with the student and are thrown away after it. Each function here
takes the two shapes and returns an `Adapter`; the config names it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Adapter(NamedTuple):
  """A trained map from the student's layer to the teacher's shape.

  Attributes:
    init: ``(key) -> (params, state)``.
    apply: ``(params, state, student) -> (adapted, state)``.
  """

  init: Callable[[Array], tuple[dict, dict]]
  apply: Callable[[dict, dict, Array], tuple[Any, dict]]


def linear(student: tuple[int, ...], teacher: tuple[int, ...]) -> Adapter:
  """A linear map over the last axis; on maps, a 1×1 convolution.

  Where both are maps of different sizes, the result is then resized
  bilinearly, with antialiasing, to the teacher's height and width.

  Args:
    student: shape of the student's layer, [B, ..., C].
    teacher: shape of the teacher's layer, [B, ..., D].
  """
  width, target = student[-1], teacher[-1]

  def init(key):
    kernel = jax.nn.initializers.lecun_normal()(
      key, (width, target), jnp.float32
    )
    return {'kernel': kernel, 'bias': jnp.zeros((target,), jnp.float32)}, {}

  def apply(params, state, x):
    kernel, bias = (params[k].astype(x.dtype) for k in ('kernel', 'bias'))
    y = x @ kernel
    y = y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
    if len(student) == len(teacher) == 4 and student[1:3] != teacher[1:3]:
      size = (y.shape[0], *teacher[1:3], target)
      y = jax.image.resize(y, size, 'linear', antialias=True)
    return y, state

  return Adapter(init, apply)
