"""MobileNetV2 (Sandler et al., 2018) with the strides for small images."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.models import layers
from jaxkd.models.layers import ConvNorm

STAGES = (
  (16, 1, 1),
  (24, 2, 1),
  (32, 3, 2),
  (64, 4, 2),
  (96, 3, 1),
  (160, 3, 2),
  (320, 1, 1),
)
NAMED = {'mobilenetv2_half': {'width': 0.5, 'expansion': 6, 'stages': STAGES}}
# Layers of the CIFAR zoos -> ours, see models/pytorch.py.
PYTORCH = {
  r'conv1\.([01])': lambda k: f'stem/{layers.IN_TURN[k]}',
  r'blocks\.(\d)\.(\d)\.conv\.([0-8])': lambda i, j, k: (
    f'stages/{i}/blocks/{j}/{PARTS[k // 3]}/{layers.IN_TURN[k % 3]}'
  ),
  r'conv2\.([01])': lambda k: f'neck/{layers.IN_TURN[k]}',
  r'classifier\.0': lambda: 'head',
}
PARTS = ('expand', 'depthwise', 'project')  # of a block


class Block(nnx.Module):
  """Expands, convolves each channel by itself, and projects."""

  def __init__(
    self,
    width_in: int,
    width_out: int,
    *,
    expansion: int,
    stride: int,
    **options: Any,
  ):
    inner = width_in * expansion
    self.residual = stride == 1 and width_in == width_out
    self.expand = ConvNorm(width_in, inner, 1, **options)
    self.depthwise = ConvNorm(
      inner, inner, 3, stride=stride, groups=inner, **options
    )
    self.project = ConvNorm(inner, width_out, 1, **options)

  def __call__(self, x: Array) -> Array:
    y = nnx.relu(self.expand(x))
    y = nnx.relu(self.depthwise(y))
    y = self.project(y)
    return x + y if self.residual else y


class Model(nnx.Module):
  """A MobileNetV2.

  Taps: ``stem``, ``stages/*`` (no ReLU after them), ``neck``. Published
  results take features after stages 1, 2, 4 and 6.

  Args:
    num_classes: the number of logits.
    input_shape: (H, W, C); 32 pixels come down to two.
    width: factor of all channels but the 1280 of the last layer, which only
      grows.
    expansion: factor by which blocks widen inside, after the first stage.
    stages: channels, blocks and stride of each stage.
    dtype: what to compute in.
    rngs: where initial values come from.

  Raises:
    UserError: not images.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    width: float = 1.0,
    expansion: int = 6,
    stages: Sequence[Sequence[int]] = STAGES,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    channels = layers.image_shape(input_shape)[-1]
    options = {'dtype': dtype, 'rngs': rngs}
    width_in = int(32 * width)
    self.stem = ConvNorm(channels, width_in, 3, stride=2, **options)
    self.stages = nnx.List()
    for i, (width_out, size, stride) in enumerate(stages):
      width_out = int(width_out * width)
      options['expansion'] = expansion if i > 0 else 1
      blocks = []
      for j in range(size):
        blocks.append(
          Block(width_in, width_out, stride=stride if j == 0 else 1, **options)
        )
        width_in = width_out
      self.stages.append(layers.Chain(blocks))
    last = int(1280 * max(width, 1.0))
    self.neck = ConvNorm(width_in, last, 1, dtype=dtype, rngs=rngs)
    self.head = layers.head(last, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    x = nnx.relu(self.stem(x))
    for stage in self.stages:
      x = stage(x)
    x = nnx.relu(self.neck(x)).mean((1, 2))
    return {'logits': self.head(x), 'embedding': x}
