"""Refuses to train in float16.

It holds no gradient below 6e-8 and no activation above 65,504. Loss scaling
would only help the former; and with a dynamic scale, steps that overflow are
skipped, different ones in each seed, so that seeds would not be paired any
more. bfloat16 is as fast and has the range of float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, jaxprs_in_params

from jaxkd.errors import UserError
from jaxkd.types import Net

WHY = (
  'in float16 gradients below 6e-8 vanish and activations above 65,504 '
  'overflow; train in bfloat16'
)


def computes_in_float16(function: Callable, *arguments) -> bool:
  """Whether any value that a function takes or computes is float16.

  Args:
    function: of arrays. It is traced, and nothing is computed.
    *arguments: arrays or their shapes.
  """
  return _has_float16(jax.make_jaxpr(function)(*arguments).jaxpr)


def untrained(net: Net, *, at: str) -> Net:
  """A net that computes in float16, and raises an error if it is trained.

  Args:
    net: the net.
    at: the config entry of the model.
  """

  def apply(variables, inputs, *, key=None, train=False):
    if train:
      raise UserError(f'{at}: {WHY}')
    return net.apply(variables, inputs, key=key)

  return net._replace(apply=apply)


def _has_float16(program: Jaxpr) -> bool:
  variables = [*program.invars, *program.constvars]
  for equation in program.eqns:
    variables += equation.outvars
    if any(map(_has_float16, jaxprs_in_params(equation.params))):
      return True
  return any(v.aval.dtype == jnp.float16 for v in variables)
