"""Pruning of weights, by magnitude.

A pruning is written as ops joined by ``|``, such as ``'magnitude(0.8)'``; see
`jaxkd.students.ops`. An op is a function here that returns a `Pruner`, or your
own by ``package.module:function``.

Pruned weights stay pruned. Masks are part of the net's state, so that they are
in checkpoints and each member of a population has its own. They are applied to
the weights in the forward pass: the gradient of a pruned weight is 0, and
changes of it by momentum or weight decay have no effect. The finished net has
exact zeros there.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd.errors import UserError
from jaxkd.paths import by_path, changed
from jaxkd.students import ops
from jaxkd.students.ops import Op
from jaxkd.students.stored import Stored, flat, is_stored
from jaxkd.types import Compression

OWN = 'prune'  # the entry of the state with the masks


class Pruner(NamedTuple):
  """Which weights are pruned, and when.

  Attributes:
    score: ``(weights) -> scores``, finite; weights of low score are pruned.
    layerwise: whether the same share of each array is pruned, rather than all
      arrays by one threshold.
    share: ``(step) -> the share of pruned weights``.
    begin: the step before which pruning begins.
    end: the step before which it ends.
    every: steps between updates of the masks; the last is at ``end``.
  """

  score: Callable[[Array], Array]
  layerwise: bool
  share: Callable[[Array], Array]
  begin: int = 0
  end: int = 0
  every: int = 1


def magnitude(
  sparsity: float,
  layerwise: bool = False,
  begin: int = 0,
  end: int = 0,
  every: int = 100,
) -> Pruner:
  """The smallest weights go, at once or little by little.

  One threshold for all is the class-blind pruning of See et al., `Compression
  of Neural Machine Translation Models via Pruning
  <https://arxiv.org/abs/1606.09274>`_, 2016. Little by little the share is
  s · (1 - (1 - (t - begin) / (end - begin))³), of Zhu and Gupta, `To prune, or
  not to prune <https://arxiv.org/abs/1710.01878>`_, 2017.

  Args:
    sparsity: the share s that is gone in the end, above 0 and below 1.
    layerwise: whether each array loses that share.
    begin: before which step it begins.
    end: before which step it has ended; as `begin` for all at once.
    every: steps from one mask to the next.
  """
  if not 0 < sparsity < 1:
    raise UserError(
      f'magnitude(sparsity={sparsity}) needs a share above 0 and below 1'
    )
  if not 0 <= begin <= end:
    raise UserError(
      f'magnitude(begin={begin}, end={end}) needs a begin of at least 0 and an '
      'end that is not before it'
    )
  if every < 1:
    raise UserError(f'magnitude(every={every}) needs at least 1 step')

  def share(step):
    if begin == end:
      return jnp.float32(sparsity)
    done = jnp.asarray(step - begin, jnp.float32) / (end - begin)
    return sparsity * (1 - (1 - done.clip(0, 1)) ** 3)

  return Pruner(jnp.abs, layerwise, share, begin, end, every)


def parse(text: str, *, steps: int, at: str) -> tuple[Op, ...]:
  """Reads ``'magnitude(0.8, skip="head")'``.

  Args:
    text: the ops.
    steps: for how many the net trains; 0 if it does not train.
    at: the config entry.

  Raises:
    UserError: no such op, or arguments that it does not take.
  """
  known = ops.giving(globals(), Pruner)
  like = 'magnitude(0.8, end=1000)'
  found = ops.parse(text, known, kind='pruning', like=like, at=at)
  for op in found:
    end = op.does.end
    if end and op.after:
      raise UserError(
        f'{at}: {op.name} has both end={end} and after=True, which prunes '
        'once after training; remove one of them'
      )
    if end and end >= steps:
      raise UserError(
        f'{at}: {op.name} ends before step {end}, and the net trains for '
        f'{steps}; take an earlier end'
      )
  return found


def prune(net: Compression, own: Mapping[str, Op]) -> Compression:
  """A net with pruned weights.

  The state below ``prune`` is the mask of each array, bool.

  Args:
    net: the net, perhaps quantised.
    own: parameter -> its op, from `jaxkd.students.ops.share_out`.
  """
  training = [path for path, op in own.items() if not op.after]
  groups = [
    (op, [path for path in own if own[path] is op])
    for op in dict.fromkeys(own.values())
  ]

  def inside(variables):
    state = dict(variables['state'])
    return state.pop(OWN), {**variables, 'state': state}

  def masked(variables, masks):
    changes = {
      path: functools.partial(_without, mask) for path, mask in masks.items()
    }
    return {**variables, 'params': changed(variables['params'], changes)}

  def start(variables):
    weights = by_path(variables['params'])
    masks = {path: jnp.ones(weights[path].shape, bool) for path in training}
    for op, paths in groups:
      if not (op.after or op.does.end):
        masks |= _masks(op.does, paths, weights, masks, 0)
    variables = net.start(variables)
    return {**variables, 'state': {**variables['state'], OWN: masks}}

  def apply(variables, inputs, *, key=None, train=False):
    masks, variables = inside(variables)
    outputs, state = net.apply(
      masked(variables, masks), inputs, key=key, train=train
    )
    return outputs, {**state, OWN: masks}

  def update(variables, step):
    masks, variables = inside(variables)
    weights = by_path(variables['params'])
    for op, paths in groups:
      if op.does.end:
        old = {path: masks[path] for path in paths}
        new = functools.partial(_masks, op.does, paths, weights, old, step)
        masks |= jax.lax.cond(_due(op.does, step), new, lambda old=old: old)
    return {**net.update(variables, step), OWN: masks}

  def finish(variables):
    masks, variables = inside(variables)
    weights = by_path(variables['params'])
    for op, paths in groups:
      if op.after:
        ones = {path: jnp.ones(weights[path].shape, bool) for path in paths}
        masks |= _masks(op.does, paths, weights, ones, 0)
    finished = net.finish(masked(variables, masks))
    changes = {
      path: functools.partial(_keeping, mask) for path, mask in masks.items()
    }
    params = changed(finished['params'], changes, is_stored)
    return {**finished, 'params': params}

  return Compression(apply, start, update, finish)


def _without(mask: Array, weights: Array) -> Array:
  return jnp.where(mask, weights, jnp.zeros_like(weights))


def _due(pruner: Pruner, step: Array) -> Array:
  """Whether the masks are updated before this step."""
  during = (step >= pruner.begin) & (step <= pruner.end)
  regular = (step - pruner.begin) % pruner.every == 0
  return during & (regular | (step == pruner.end))


def _masks(
  pruner: Pruner,
  paths: Sequence[str],
  weights: Mapping[str, Array],
  old: Mapping[str, Array],
  step: Array | int,
) -> dict[str, Array]:
  """The new masks of arrays; pruned weights stay pruned."""
  share, found = pruner.share(step), {}
  scores = [
    jnp.where(old[path], pruner.score(weights[path]), -jnp.inf).reshape(-1)
    for path in paths
  ]
  if pruner.layerwise:
    kept = [_highest(score, share) for score in scores]
  else:
    kept = jnp.split(
      _highest(jnp.concatenate(scores), share),
      np.cumsum([score.size for score in scores])[:-1],
    )
  for path, mask in zip(paths, kept, strict=True):
    found[path] = mask.reshape(weights[path].shape)
  return found


def _highest(scores: Array, share: Array) -> Array:
  """A mask that is False for exactly that share: the lowest; ties by order."""
  order = jnp.argsort(scores, stable=True)
  rank = jnp.zeros_like(order).at[order].set(jnp.arange(scores.size))
  return rank >= jnp.round(share * scores.size).astype(rank.dtype)


def _keeping(mask: Array, leaf: Array | Stored) -> Stored:
  """A finished array, with its mask for storage."""
  if not is_stored(leaf):
    leaf = Stored(flat(leaf), shape=leaf.shape)
  return dataclasses.replace(leaf, mask=flat(mask))
