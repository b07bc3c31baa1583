"""What nets cost, found without training them."""

import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import compilation
from jaxkd.types import Net


class Cost(NamedTuple):
  """The cost of a net.

  Attributes:
    params: number of parameters.
    bytes: of the parameters and the state.
    flops: of a forward pass for one example, as the compiler counts them.
  """

  params: int
  bytes: int
  flops: int


def cost(net: Net, input_shape: Any) -> Cost:
  """The cost of a net on one example; nothing is computed."""
  variables = jax.eval_shape(net.init, jax.random.key(0))
  leaves = jax.tree.leaves(variables)
  return Cost(
    sum(leaf.size for leaf in jax.tree.leaves(variables['params'])),
    sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
    flops(lambda v, x: net.apply(v, x)[0], variables, _one(input_shape)),
  )


def flops(function, *shapes) -> int:
  """Floating-point operations of a function, as the compiler counts them."""
  analysis = jax.jit(function).lower(*shapes).cost_analysis()
  return int((analysis or {}).get('flops', 0))


def latency(net: Net, input_shape: Any) -> float:
  """Milliseconds that a net takes for one example: the median of thirty."""
  variables = compilation.once(net.init)(jax.random.key(0))
  run = jax.jit(lambda v, x: net.apply(v, x)[0])
  inputs = jax.tree.map(
    lambda s: jnp.asarray(np.zeros(s.shape, s.dtype)), _one(input_shape)
  )
  jax.block_until_ready(run(variables, inputs))
  times = []
  for _ in range(30):
    begun = time.perf_counter()
    jax.block_until_ready(run(variables, inputs))
    times.append(time.perf_counter() - begun)
  return 1e3 * statistics.median(times)


def _one(input_shape):
  return jax.tree.map(
    lambda s: jax.ShapeDtypeStruct((1, *s), jnp.float32),
    input_shape,
    is_leaf=lambda node: isinstance(node, tuple),
  )
