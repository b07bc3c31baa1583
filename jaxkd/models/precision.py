"""Parameters in bfloat16, with master weights in float32.

Such a net rounds its parameters to bfloat16 before it computes. The optimiser
updates the float32 masters, so that updates that are too small for bfloat16
still add up. A net that does not train, such as a teacher, keeps only the
rounded parameters, in half the memory. Its outputs are the same, bit for bit.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.types import Net

FULL, HALF = 'float32', 'bfloat16'
KNOWN = (FULL, HALF)


def rounding(net: Net, dtype: str) -> Net:
  """A net that rounds its parameters to a dtype; `init` gives the masters.

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
  """The variables of such a net if it does not train: rounded."""
  if dtype == FULL:
    return variables
  return {**variables, 'params': _cast(variables['params'], jnp.bfloat16)}


def _cast(params: Any, dtype: jnp.dtype) -> Any:
  return jax.tree.map(lambda x: x.astype(dtype) if _is_float(x) else x, params)


def _rounded(x: jax.Array) -> jax.Array:
  if not _is_float(x) or x.dtype == jnp.bfloat16:
    return x
  # The compiler may remove a cast that is followed by the cast back to float32.
  exact = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
  return exact.astype(jnp.bfloat16)


def _is_float(x: jax.Array) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating)
