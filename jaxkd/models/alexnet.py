"""AlexNet for small images, as in zero-shot distillation (Nayak et al., 2019).

Local response normalisation, which their BatchNorm follows, is left out.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, pooling

NAMED = {
  'alexnet_half': {'widths': (24, 64, 96, 96, 64, 256, 128)},
}


class Conv(nnx.Module):
  """Convolution, ReLU, 3x3 max pooling where asked, BatchNorm."""

  def __init__(
    self,
    width_in: int,
    width_out: int,
    kernel: int,
    *,
    pool: bool,
    **options: Any,
  ):
    self.pool = pool
    self.conv = layers.conv(width_in, width_out, kernel, bias=True, **options)
    self.norm = layers.norm(width_out, **options)

  def __call__(self, x: Array) -> Array:
    x = nnx.relu(self.conv(x))
    if self.pool:
      x = pooling.max_pool(x, (3, 3), strides=(2, 2))
    return self.norm(x)


class Layer(nnx.Module):
  """Linear map, ReLU, dropout, BatchNorm."""

  def __init__(
    self, width_in: int, width_out: int, *, dropout: float, **options: Any
  ):
    self.linear = nnx.Linear(
      width_in, width_out, kernel_init=nnx.initializers.he_normal(), **options
    )
    self.dropout = nnx.Dropout(dropout, rngs=options['rngs'])
    self.norm = layers.norm(width_out, **options)

  def __call__(self, x: Array) -> Array:
    return self.norm(self.dropout(nnx.relu(self.linear(x))))


class Model(nnx.Module):
  """Five convolutions and two hidden layers.

  Taps: ``convs/*``, ``layers/*``.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C), at least 15 by 15.
    widths: channels of the convolutions, widths of the layers.
    dropout: the probability that training drops a hidden unit.
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
    widths: Sequence[int] = (48, 128, 192, 192, 128, 512, 256),
    dropout: float = 0.5,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    *size, channels = layers.image_shape(input_shape)
    if min(size) < 15:
      raise UserError(
        f'alexnet needs images of at least 15 by 15 pixels, not {size[0]} by '
        f'{size[1]}: resize them with a view or choose another model'
      )
    options = {'dtype': dtype, 'rngs': rngs}
    self.convs = nnx.List()
    pools = (True, True, False, False, True)
    for i, (width, pool) in enumerate(zip(widths[:5], pools, strict=True)):
      kernel = 5 if i < 2 else 3
      self.convs.append(Conv(channels, width, kernel, pool=pool, **options))
      channels = width
      if pool:
        size = [(n - 1) // 2 for n in size]
    self.layers = nnx.List()
    width_in = size[0] * size[1] * channels
    for width in widths[5:]:
      self.layers.append(Layer(width_in, width, dropout=dropout, **options))
      width_in = width
    self.head = layers.head(width_in, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    for conv in self.convs:
      x = conv(x)
    x = x.reshape(x.shape[0], -1)
    for layer in self.layers:
      x = layer(x)
    return {'logits': self.head(x), 'embedding': x}
