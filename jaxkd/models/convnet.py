"""Convolutions, max pooling and hidden layers, of any widths.

The nets of work [2] on CIFAR-10 (Polino et al., `Model compression via
distillation and quantization <https://arxiv.org/abs/1802.05668>`_, 2018), a
teacher of 5.3 million parameters and students of 1, 0.3 and 0.1 million.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, mlp, pooling

STUDENT = {'stages': ((75,), (50, 50), (25,)), 'hidden': (500,)}
NAMED = {
  'polino2018_teacher': {
    'stages': ((76, 76), (126, 126), (148, 148, 148, 148)),
    'hidden': (1200, 1200),
    'kernel': 3,
    'pools': 3,
    'dropout': 0.5,
  },
  'polino2018_student1': STUDENT,
  'polino2018_student2': {'stages': ((50,), (25, 25), (10,)), 'hidden': (400,)},
  'polino2018_student3': {'stages': ((25,), (10, 10), (5,)), 'hidden': (300,)},
}


class Stage(nnx.Module):
  """Convolutions with ReLU, 2x2 max pooling if asked for, dropout."""

  def __init__(
    self,
    width_in: int,
    widths: Sequence[int],
    *,
    kernel: int,
    pool: bool,
    dropout: float,
    **options: Any,
  ):
    self.convs = nnx.List(
      layers.conv(before, after, kernel, bias=True, **options)
      for before, after in itertools.pairwise((width_in, *widths))
    )
    self.pool = pool
    self.dropout = nnx.Dropout(dropout, rngs=options['rngs'])

  def __call__(self, x: Array) -> Array:
    for conv in self.convs:
      x = nnx.relu(conv(x))
    if self.pool:
      x = pooling.max_pool(x, (2, 2), strides=(2, 2))
    return self.dropout(x)


class Model(nnx.Module):
  """Stages of convolutions, then hidden layers.

  Taps: ``stages/*``, ``stages/*/convs/*`` (before ReLU), ``layers/*``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C).
    stages: channels of each convolution, stage by stage.
    hidden: widths of the hidden layers.
    kernel: rows and columns of a convolution's kernel, odd.
    pools: how many stages, from the first, end in max pooling.
    dropout: the probability that training drops a unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: not images, or too small.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    stages: Sequence[Sequence[int]] = STUDENT['stages'],
    hidden: Sequence[int] = STUDENT['hidden'],
    kernel: int = 5,
    pools: int = 2,
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    height, width, channels = layers.image_shape(input_shape)
    side = 2**pools
    if min(height, width) < side:
      raise UserError(
        f'convnet needs images of at least {side} by {side} pixels, not '
        f'{height} by {width}: resize them with a view or take fewer pools'
      )
    options = {'dropout': dropout, 'dtype': dtype, 'rngs': rngs}
    self.stages = nnx.List()
    for i, widths in enumerate(stages):
      self.stages.append(
        Stage(channels, widths, kernel=kernel, pool=i < pools, **options)
      )
      channels = widths[-1]
    sizes = [(height // side) * (width // side) * channels, *hidden]
    self.layers = nnx.List(
      mlp.Layer(before, after, **options)
      for before, after in itertools.pairwise(sizes)
    )
    self.head = layers.head(sizes[-1], num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    for stage in self.stages:
      x = stage(x)
    x = x.reshape(x.shape[0], -1)
    for layer in self.layers:
      x = layer(x)
    return {'logits': self.head(x), 'embedding': x}
