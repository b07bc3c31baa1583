"""Several teachers as one net, which fuses their predictions."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import losses
from jaxkd.distill.fusion import as_logits
from jaxkd.teachers import specialists
from jaxkd.types import Net

SPECIALISTS = 'specialists'


def ensemble(net: Net, fuse: Callable[[Array], Array] | None = None) -> Net:
  """An ensemble: T nets of one architecture as one net.

  Args:
    net: one of them. The variables of the ensemble have a leading axis T.
    fuse: ``[T, B, K] logits -> [B, K] logits``; by default the logarithm of
      the mean of their probabilities.
  """
  fuse = fuse or log_mean_probabilities

  def init(key):
    return jax.tree.map(lambda x: x[None], net.init(key))

  def apply(variables, inputs, *, key=None, train=False):
    each, state = _each(net, variables, inputs, key, train)
    return {'logits': fuse(each['logits'])}, state

  return Net(init, apply)


def together(
  nets: Mapping[str, Net],
  counts: Mapping[str, int],
  outputs: Callable[[dict, Any], list[dict]],
  fuse: str,
  *,
  most: int | None = None,
) -> Net:
  """Groups of nets as one net, whose variables hold those of each group.

  Args:
    nets: group -> one of its nets.
    counts: group -> how many it has: the leading axis T of its variables.
    outputs: ``(group -> variables, inputs) -> the outputs`` of the groups that
      are put together, each [T, B, ...].
    fuse: one of `FUSIONS`, of all nets of all groups; or 'specialists', with
      the generalist first and then one group of specialists: see
      `jaxkd.teachers.specialists.fuse`.
    most: in how many specialists' subsets a class is at most.
  """

  def init(key):
    found = {
      name: jax.vmap(net.init)(jax.random.split(key, counts[name]))
      for name, net in nets.items()
    }
    return {
      kind: {name: v[kind] for name, v in found.items()}
      for kind in ('params', 'state')
    }

  def apply(variables, inputs, *, key=None, train=False):
    own = {
      name: {kind: variables[kind][name] for kind in ('params', 'state')}
      for name in nets
    }
    found = outputs(own, inputs)
    if fuse == SPECIALISTS:
      generalist, group = found
      fused = specialists.fuse(generalist['logits'][0], group, most=most)
    else:
      logits = jnp.concatenate([each['logits'] for each in found])
      fused = {'logits': FUSIONS[fuse](logits)}
    return fused, variables['state']

  return Net(init, apply)


def log_mean_probabilities(logits: Array) -> Array:
  """Logits of the mean of the probabilities of [T, B, K] logits, [B, K]."""
  return as_logits(losses.mean_probabilities(logits), logits)


def log_mean_sigmoids(logits: Array) -> Array:
  """Logits of the mean of the sigmoids of [T, ...] logits, [...]."""
  yes, no = (
    jax.nn.logsumexp(jax.nn.log_sigmoid(x), 0) for x in (logits, -logits)
  )
  return yes - no


def vote(logits: Array) -> Array:
  """Logits whose largest is the class that most of [T, B, K] choose, [B, K].

  They stand for the distribution (votes + mean probability) / (T + 1). The mean
  is below 1 unless all nets are certain, so it decides only between classes of
  equally many votes; see `jaxkd.losses.majority_vote`.
  """
  first = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
  votes, mean = first.sum(0), losses.mean_probabilities(logits)
  return as_logits((votes + mean) / (len(logits) + 1), logits)


FUSIONS = {
  'mean_probabilities': log_mean_probabilities,
  'mean_logits': losses.mean_logits,
  'geometric_mean': lambda logits: as_logits(
    losses.geometric_mean(logits), logits
  ),
  'majority_vote': vote,
}


def _each(net, variables, inputs, key, train):
  """Outputs and states of nets that share their inputs, [T, ...]."""
  run = lambda v: net.apply(v, inputs, key=key, train=train)  # noqa: E731
  return jax.vmap(run)(variables)
