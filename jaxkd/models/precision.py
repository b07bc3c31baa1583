"""Parameters in bfloat16, with masters in float32.

A net of this kind is a function of its parameters rounded to bfloat16: it
rounds what it is given before it computes. An optimiser moves masters in
float32, and steps that are too small for bfloat16 to tell apart add up. Where
nothing trains, as in a teacher, the rounded parameters are all that is kept,
in half the space. What the net gives is the same from both, to the last bit.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.types import Net

FULL, HALF = 'float32', 'bfloat16'
KNOWN = (FULL, HALF)


def rounding(net: Net, dtype: str) -> Net:
  """A net that uses its parameters in a type, and starts with masters.

  Args:
    net: the net. Its state, such as running statistics, stays as it is.
    dtype: one of `KNOWN`; the net itself for 'float32'.
  """
  if dtype == FULL:
    return net

  def init(key):
    variables = net.init(key)
    return {**variables, 'params': _cast(variables['params'], jnp.float32)}

  def apply(variables, inputs, *, key=None, train=False):
    params = jax.tree.map(_rounded, variables['params'])
    own = {**variables, 'params': params}
    return net.apply(own, inputs, key=key, train=train)

  return net._replace(init=init, apply=apply)


def held(variables: dict, dtype: str) -> dict:
  """The variables of such a net, as they are kept where it does not train."""
  if dtype == FULL:
    return variables
  return {**variables, 'params': _cast(variables['params'], jnp.bfloat16)}


def _cast(params: Any, dtype: jnp.dtype) -> Any:
  return jax.tree.map(lambda x: x.astype(dtype) if _is_float(x) else x, params)


def _rounded(x: jax.Array) -> jax.Array:
  if not _is_float(x) or x.dtype == jnp.bfloat16:
    return x
  # A cast alone, and back where the layer computes in float32, is something
  # that the compiler may leave out.
  exact = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
  return exact.astype(jnp.bfloat16)


def _is_float(x: jax.Array) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating)
