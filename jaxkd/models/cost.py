"""The cost of nets: parameters, FLOPs and latency, without training."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, jaxpr_as_fun, jaxprs_in_params

from jaxkd import compilation, shapes
from jaxkd.paths import by_path
from jaxkd.types import Net

DECODED = 64  # examples at once


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


class Step(NamedTuple):
  """The cost of a training step of one member; nothing of it is timed.

  Attributes:
    flops: of the step, as the compiler counts them.
    bytes: that lie in memory between steps: the parameters and the state of
      the nets, the optimiser, what terms keep, and the frozen teachers.
      Activations are not counted.
    teachers: the frozen teachers' share of the FLOPs.
  """

  flops: int
  bytes: int
  teachers: float


def cost(net: Net, input_shape: Any) -> Cost:
  """The cost of a net on one example; nothing is computed."""
  variables = jax.eval_shape(net.init, jax.random.key(0))
  leaves = jax.tree.leaves(variables)
  return Cost(
    sum(leaf.size for leaf in jax.tree.leaves(variables['params'])),
    sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
    flops(
      lambda v, x: net.apply(v, x)[0], variables, shapes.batch(input_shape)
    ),
  )


def flops(function: Callable, *arguments: Any) -> int:
  """Floating-point operations of a function, as the compiler counts them.

  It counts what a loop does once. Of scans all steps are counted here; how
  often a ``while_loop`` goes round cannot be known.
  """
  traced = jax.jit(function).trace(*arguments)
  # As an accelerator runs it, wherever this is: on a CPU some convolutions are
  # said in another way.
  analysis = traced.lower(lowering_platforms=('tpu',)).cost_analysis()
  once = int((analysis or {}).get('flops', 0))
  return once + _later_steps(traced.jaxpr.jaxpr)


def _later_steps(jaxpr: Jaxpr) -> int:
  """The operations of all steps of a program's scans but the first."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'scan':
      body = equation.params['jaxpr']
      step = flops(jaxpr_as_fun(body), *body.in_avals)
      total += (equation.params['length'] - 1) * step
    total += sum(map(_later_steps, jaxprs_in_params(equation.params)))
  return total


def products(net: Net, layers: Mapping[str, Any]) -> dict[str, int]:
  """How often each kernel is multiplied with activations for one example.

  A kernel's last axis is that of the outputs, so all of it is used once for
  each position of its layer's output.

  Args:
    net: the net.
    layers: the shapes of what its layers give for a batch of one.

  Returns:
    Parameter -> multiplications; 0 for what is no kernel.
  """
  params = jax.eval_shape(net.init, jax.random.key(0))['params']
  found = {}
  for path, leaf in by_path(params).items():
    layer, _, name = path.rpartition('/')
    outputs = [x for at, x in layers.items() if at.split('@')[0] == layer]
    used = name == 'kernel' and leaf.ndim > 1
    found[path] = sum(
      leaf.size * x.size // leaf.shape[-1] for x in outputs if used
    )
  return found


def latency(net: Net, input_shape: Any) -> float:
  """Milliseconds that a net takes for one example: the median of thirty."""
  return 1e3 * _seconds(
    lambda v, x: net.apply(v, x)[0], net, shapes.zeros(input_shape), times=30
  )


def decoded(
  net: Net, input_shape: Any, decode: Callable[..., dict], output: str
) -> float:
  """Examples that a net decodes in a second, 64 at once: the median of five.

  They are as long as can be: of a net that has learnt nothing none ends early.

  Args:
    net: the net.
    input_shape: of one example.
    decode: that of the task; see `jaxkd.tasks`.
    output: what of it is found.
  """

  def run(variables, inputs):
    apply = lambda inputs: net.apply(variables, inputs)[0]  # noqa: E731
    return decode(apply, inputs, {output}, {})

  inputs = shapes.zeros(input_shape, DECODED)
  return DECODED / _seconds(run, net, inputs, times=5)


def _seconds(run: Callable, net: Net, inputs: Any, times: int) -> float:
  """The median of the times of a function of variables, all 0, and inputs."""
  run, found = compilation.jit(run), []
  variables = jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype),
    jax.eval_shape(net.init, jax.random.key(0)),
  )
  jax.block_until_ready(run(variables, inputs))
  for _ in range(times):
    begun = time.perf_counter()
    jax.block_until_ready(run(variables, inputs))
    found.append(time.perf_counter() - begun)
  return statistics.median(found)
