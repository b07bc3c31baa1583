"""Multilayer perceptrons on flattened inputs."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers


class Layer(nnx.Module):
  """Linear map, ReLU, dropout."""

  def __init__(
    self, width_in: int, width_out: int, *, dropout: float, **options: Any
  ):
    self.linear = nnx.Linear(
      width_in, width_out, kernel_init=nnx.initializers.he_normal(), **options
    )
    self.dropout = nnx.Dropout(dropout, rngs=options['rngs'])

  def __call__(self, x: Array) -> Array:
    return self.dropout(nnx.relu(self.linear(x)))


class Model(nnx.Module):
  """A multilayer perceptron with ReLU.

  Taps: ``layers/*``, the hidden layers.

  Args:
    num_classes: the number of logits.
    input_shape: shape of one input, which is flattened.
    widths: widths of the hidden layers.
    dropout: the probability that training drops a hidden unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    widths: Sequence[int] = (256, 256),
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    sizes = [math.prod(layers.array_shape(input_shape)), *widths]
    self.layers = nnx.List(
      Layer(width_in, width_out, dropout=dropout, dtype=dtype, rngs=rngs)
      for width_in, width_out in itertools.pairwise(sizes)
    )
    self.head = layers.head(sizes[-1], num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = x.reshape(x.shape[0], -1)
    for layer in self.layers:
      x = layer(x)
    return {'logits': self.head(x), 'embedding': x}
