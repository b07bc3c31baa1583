"""Layers that the convolutional families share. Layout is NHWC.

Initial values, paddings and BatchNorm's constants are those of the PyTorch
code that published distillation results come from, so that parameter counts,
shapes and learning behaviour can be compared.

In all families ``**options`` are ``dtype``, in which to compute, and ``rngs``,
from which initial values and dropout are drawn; parameters are float32.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxkd import shapes
from jaxkd.errors import UserError
from jaxkd.models import convolution
from jaxkd.models.convolution import conv_general_dilated

he_fan_out = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')

# What PyTorch's code numbers in turn where layers have no names.
IN_TURN = ('conv', 'norm', 'relu')


class Identity(nnx.Module):
  """Passes its input on: a value inside a layer that has a name to tap."""

  def __call__(self, x: Array) -> Array:
    return x


class ConvNorm(nnx.Module):
  """Convolution, then BatchNorm."""

  def __init__(
    self,
    width_in: int,
    width_out: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = False,
    **options: Any,
  ):
    self.conv = conv(
      width_in,
      width_out,
      kernel,
      stride=stride,
      groups=groups,
      dilation=dilation,
      bias=bias,
      **options,
    )
    self.norm = norm(width_out, **options)

  def __call__(self, x: Array) -> Array:
    return self.norm(self.conv(x))


class Chain(nnx.Module):
  """Blocks one after another."""

  def __init__(self, blocks: Iterable[nnx.Module]):
    self.blocks = nnx.List(blocks)

  def __call__(self, x: Array) -> Array:
    for block in self.blocks:
      x = block(x)
    return x


class ReLUChain(nnx.Module):
  """Blocks with a ReLU after each; what comes before the last has a name."""

  def __init__(self, blocks: Iterable[nnx.Module]):
    self.blocks = nnx.List(blocks)
    self.preactivation = Identity()

  def __call__(self, x: Array) -> Array:
    *blocks, last = self.blocks
    for block in blocks:
      x = nnx.relu(block(x))
    return nnx.relu(self.preactivation(last(x)))


def conv(
  width_in: int,
  width_out: int,
  kernel: int,
  *,
  stride: int = 1,
  padding: int | None = None,
  groups: int = 1,
  dilation: int = 1,
  bias: bool = False,
  **options: Any,
) -> nnx.Conv:
  """A square convolution, padded by half its reach on every side.

  (Flax's own ``SAME`` pads one side less under stride 2.)
  """
  return nnx.Conv(
    width_in,
    width_out,
    (kernel, kernel),
    strides=stride,
    padding=dilation * (kernel // 2) if padding is None else padding,
    kernel_dilation=dilation,
    feature_group_count=groups,
    use_bias=bias,
    kernel_init=he_fan_out,
    conv_general_dilated=conv_general_dilated,
    **options,
  )


def norm(width: int, **options: Any) -> nnx.BatchNorm:
  """BatchNorm; PyTorch's momentum of 0.1 is what Flax calls 0.9."""
  layer = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, **options)
  layer.mean = _Statistic(layer.mean.get_value())
  layer.var = _Statistic(layer.var.get_value())
  return layer


class _Statistic(nnx.BatchStat):
  """A running statistic, replaced in constant time under a trace.

  (``mean[...] = value`` asks a traced value for its sharding, and JAX goes
  through the whole trace to say that there is none.)
  """

  def __setitem__(self, key: Any, value: Array) -> None:
    if key is Ellipsis:
      self.set_value(value)
    else:
      super().__setitem__(key, value)


def linear(width_in: int, width_out: int, **options: Any) -> nnx.Linear:
  """A linear map of the last axis, for inputs of any rank."""
  return nnx.Linear(
    width_in, width_out, dot_general=rows_dot_general, **options
  )


def rows_dot_general(
  x: Array, kernel: Array, dimension_numbers: Any, **options: Any
) -> Array:
  """`jax.lax.dot_general` of [..., D] and [D, O], as one product of matrices.

  On a CPU, XLA is slow to sum the gradient of a kernel over more than one axis:
  a step of a small transformer takes a third less time this way.

  Args:
    x: [..., D].
    kernel: [D, O].
    dimension_numbers: that the last axis of `x` and the first of the kernel are
      summed, as `jax.lax` has it.
    **options: as `jax.lax` takes them.

  Returns:
    [..., O].
  """
  if x.ndim < 3 or convolution.is_plain():
    return lax.dot_general(x, kernel, dimension_numbers, **options)
  rows = lax.collapse(x, 0, -1)
  product = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
  return product.reshape(*x.shape[:-1], product.shape[-1])


def head(width: int, num_classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
  """The classifier, in float32 whatever the rest computes in."""
  return linear(width, num_classes, dtype=jnp.float32, rngs=rngs)


def image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
  """Height, width and channels.

  Raises:
    UserError: the inputs are not images.
  """
  shape = array_shape(input_shape)
  if len(shape) != 3:
    raise UserError(
      'this model takes images of shape (height, width, channels), not '
      f'inputs of shape {shape}: choose another model, e.g. mlp, or view'
    )
  return shape


def array_shape(input_shape: Any) -> tuple[int, ...]:
  """The shape of inputs that are one array of float32.

  Raises:
    UserError: they are several, or of another type.
  """
  if hasattr(input_shape, 'dtype'):
    raise UserError(
      'this model takes one array of floats, and inputs are '
      f'{shapes.said(input_shape)} of {input_shape.dtype}, as tokens are: '
      'choose a model of tokens, or give numbers that are measured as floats'
    )
  if not shapes.is_shape(input_shape):
    raise UserError(
      'this model takes one array of numbers, not inputs of '
      f'{shapes.said(input_shape)}: choose a model of such inputs'
    )
  return tuple(input_shape)


def shuffle_channels(x: Array, groups: int) -> Array:
  """Interleaves the channels of the groups."""
  *shape, width = x.shape
  return x.reshape(*shape, groups, width // groups).mT.reshape(x.shape)
