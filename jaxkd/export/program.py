"""A net in evaluation as a plain function of arrays, for any tool.

It is traced once, for a batch of any number of examples: what reads the trace
sees XLA's operations and the weights as constants, and nothing of Flax or of
jaxkd.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxkd.errors import UserError, first_line, unknown
from jaxkd.export.exportable import Exportable, outputs_of
from jaxkd.logits.factored import is_factored
from jaxkd.models import convolution
from jaxkd.paths import flattened, nested

BATCH = 'batch'  # the name of the axis of examples


class Program(NamedTuple):
  """A traced net.

  Attributes:
    function: ``(*weights, *inputs) -> [outputs]``.
    weights: arrays of the net that are given to it by path, before the
      inputs; all others are constants.
    inputs: the inputs by name, with `BATCH` for their first axis.
    outputs: the outputs by name.
  """

  function: Callable[..., list[Array]]
  weights: dict[str, jax.ShapeDtypeStruct]
  inputs: dict[str, jax.ShapeDtypeStruct]
  outputs: dict[str, jax.ShapeDtypeStruct]


def trace(
  given: Exportable, outputs: Sequence[str] = (), weights: Sequence[str] = ()
) -> Program:
  """Traces a net for a batch of unknown size.

  Args:
    given: the net.
    outputs: the names of those wanted; empty for what its task looks at, or
      all of them where that is not known.
    weights: the paths of variables that are to be arguments.

  Raises:
    UserError: an output that it does not give, or a model that asks for the
      number of examples as a Python integer.
  """
  (batch,) = jax.export.symbolic_shape(BATCH)
  inputs = {
    name: jax.ShapeDtypeStruct(
      (batch, *array.shape), array.dtype or jnp.float32
    )
    for name, array in given.arrays().items()
  }
  known, names = flattened(given.variables), []
  apart = {
    path: jax.ShapeDtypeStruct(known[path].shape, known[path].dtype)
    for path in weights
  }

  def function(*leaves):
    own = {**known, **dict(zip(apart, leaves, strict=False))}
    variables = {'params': {}, 'state': {}, **nested(own)}
    found = given.net.forward(variables, given.tree(leaves[len(apart) :]))
    names[:] = chosen(found, outputs or outputs_of(given))
    return [_dense(found[name]) for name in names]

  try:
    with convolution.plain():
      traced = jax.make_jaxpr(function)(*apart.values(), *inputs.values())
  except UserError:
    raise
  except Exception as error:  # of Python's and of JAX's kinds
    if 'DimExpr' not in str(error) and 'symbolic' not in str(error):
      raise
    raise UserError(
      f'jaxkd.export: {given.name}: its model needs the number of examples of '
      'a batch as an integer, which an exported net does not know; write '
      f'x.shape[0] in place of len(x) ({first_line(error)})'
    ) from error
  live = _live(traced)
  shapes = dict(zip(names, traced.out_avals, strict=True))
  shapes = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in shapes.items()
  }
  return Program(core.jaxpr_as_fun(live), apart, inputs, shapes)


def chosen(found: dict, wanted: Sequence[str]) -> list[str]:
  """The names of the outputs that are exported, of those that a net gives."""
  for name in wanted:
    if name not in found:
      raise unknown('output', name, found, 'jaxkd.export')
  return list(dict.fromkeys(wanted or found))


def _dense(x: Array) -> Array:
  return x.dense() if is_factored(x) else x


def _live(traced: core.ClosedJaxpr) -> core.ClosedJaxpr:
  """A program without the equations that no result depends on.

  Views that draw nothing still make keys.
  """
  needed = {v for v in traced.jaxpr.outvars if isinstance(v, core.Var)}
  kept = []
  for equation in reversed(traced.jaxpr.eqns):
    if equation.effects or not needed.isdisjoint(equation.outvars):
      kept.append(equation)
      needed |= {v for v in equation.invars if isinstance(v, core.Var)}
  live = traced.jaxpr.replace(eqns=kept[::-1])
  return core.ClosedJaxpr(live, traced.consts)
