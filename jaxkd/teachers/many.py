"""Many teachers as one net: what they predict together."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import losses
from jaxkd.types import Net


def ensemble(net: Net, fuse: Callable[[Array], Array] | None = None) -> Net:
  """T nets of one architecture as a net.

  Args:
    net: one of them. The variables of the ensemble have a leading axis T.
    fuse: ``[T, B, K] logits -> [B, K] logits``; by default the logarithm of
      the mean of their probabilities.
  """
  fuse = fuse or log_mean_probabilities

  def init(key):
    return jax.tree.map(lambda x: x[None], net.init(key))

  def apply(variables, inputs, *, key=None, train=False):
    each, state = jax.vmap(
      lambda v: net.apply(v, inputs, key=key, train=train)
    )(variables)
    return {'logits': fuse(each['logits'])}, state

  return Net(init, apply)


def log_mean_probabilities(logits: Array) -> Array:
  """Logits of the mean of the probabilities of [T, B, K] logits, [B, K]."""
  mean = losses.mean_probabilities(logits)
  return jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
