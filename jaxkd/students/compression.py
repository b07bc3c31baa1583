"""Compressed nets: quantised, pruned or both."""

import jax

from jaxkd.paths import by_path
from jaxkd.students import ops, prune, quantize
from jaxkd.train import sharding
from jaxkd.types import Compression, Net


def hooks(net: Net, text: str, *, at: str) -> dict[str, tuple]:
  """The hooks by which `jaxkd.models.build` quantises activations.

  Args:
    net: the net before quantisation.
    text: its quantisation.
    at: the config entry of the text.

  Raises:
    UserError: a text that cannot be read, or an op without parameters.
  """
  return quantize.hooks(quantize.parse(text, at=at), _paths(net), at=at)


def compression(
  net: Net, quantisation: str, pruning: str, *, steps: int, at: str
) -> Compression | None:
  """How a net is compressed; None if it is not.

  Weights are pruned, and the remaining ones quantised.

  Args:
    net: the net.
    quantisation: see `jaxkd.students.quantize`.
    pruning: see `jaxkd.students.prune`.
    steps: for how many it trains; 0 if it does not train.
    at: the config entry of the net.

  Raises:
    UserError: a text that cannot be read, or an op without parameters.
  """
  paths = _paths(net) if quantisation or pruning else ()
  read = quantize.parse(quantisation, at=f'{at}.quantize')
  weights = quantize.for_weights(read, paths, at=f'{at}.quantize')
  read = prune.parse(pruning, steps=steps, at=f'{at}.prune')
  pruned = ops.share_out(read, paths, at=f'{at}.prune')
  if not (weights or pruned):
    return None
  made = Compression(net.apply, _same, lambda v, step: v['state'], _same)
  if weights:
    made = quantize.quantize(made, weights, sparse=bool(pruned))
  return prune.prune(made, pruned) if pruned else made


def finish(made: Compression | None, variables: dict) -> dict:
  """Compresses members' variables for storage; `stored.dense` decodes them.

  Args:
    made: the compression with which they trained; None for none.
    variables: of the training net, [members, ...].
  """
  if made is None:
    return variables
  return sharding.fetch(jax.jit(jax.vmap(made.finish))(variables))


def apply_once(made: Compression | None, variables: dict) -> dict:
  """Compresses variables of the plain net, after training without it."""
  if made is None:
    return variables
  return finish(made, jax.jit(jax.vmap(made.start))(variables))


def _same(variables: dict) -> dict:
  return variables


def _paths(net: Net) -> list[str]:
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  return list(by_path(shapes['params']))
