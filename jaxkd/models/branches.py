"""Branches on a shared trunk; a gate combines them to a teacher (ONE).

Lan et al., `Knowledge Distillation by On-the-Fly Native Ensemble
<https://arxiv.org/abs/1806.04606>`_, 2018, with MLPs. The first branch is what
is used afterwards; with the trunk it is an ``mlp`` of all the widths.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers, mlp


class Branch(nnx.Module):
  """Hidden layers and a classifier."""

  def __init__(self, sizes: Sequence[int], num_classes: int, **options: Any):
    self.layers = _layers(sizes, **options)
    self.head = layers.head(sizes[-1], num_classes, rngs=options['rngs'])

  def __call__(self, x: Array) -> Array:
    for layer in self.layers:
      x = layer(x)
    return self.head(x)


class Model(nnx.Module):
  """A trunk and several branches, with the logits that a gate mixes of them.

  Outputs: ``logits``, of the first branch; ``ensemble``, of all, weighted for
  each example by a softmax of the trunk's features; ``embedding``, these.
  Taps: ``trunk/*``, ``branches/*`` ([B, K], the logits of each).

  Args:
    num_classes: the number of logits.
    input_shape: shape of one input, which is flattened.
    trunk: widths of the hidden layers that all branches share.
    widths: widths of each branch's own.
    count: how many branches there are.
    dtype: what to compute in.
    rngs: where initial values come from.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    trunk: Sequence[int] = (256,),
    widths: Sequence[int] = (256,),
    count: int = 3,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'rngs': rngs}
    sizes = [math.prod(input_shape), *trunk]
    self.trunk = _layers(sizes, **options)
    self.gate = layers.head(sizes[-1], count, rngs=rngs)
    self.branches = nnx.List(
      Branch([sizes[-1], *widths], num_classes, **options) for _ in range(count)
    )

  def __call__(self, x: Array) -> dict[str, Array]:
    x = x.reshape(x.shape[0], -1)
    for layer in self.trunk:
      x = layer(x)
    each = jnp.stack([branch(x) for branch in self.branches], axis=-1)
    weights = nnx.softmax(self.gate(x))
    return {
      'logits': each[..., 0],
      'ensemble': jnp.sum(each * weights[:, None], axis=-1),
      'embedding': x,
    }


def _layers(sizes: Sequence[int], **options: Any) -> nnx.List:
  return nnx.List(
    mlp.Layer(below, width, dropout=0.0, **options)
    for below, width in itertools.pairwise(sizes)
  )
