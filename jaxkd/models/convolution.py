"""Convolutions whose gradients and populations are fast on a CPU as well.

`conv_general_dilated` takes the place of `jax.lax`'s function in a layer. What
it computes is the same, and so is the program that accelerators run. On a CPU
XLA takes up to a hundred times longer for some convolutions than for others;
these are said in another way here:

- depthwise ones, as a weighted sum of shifted images;
- those of one pixel, as products of matrices;
- gradients, in the layout of a forward pass: XLA finds it by itself, but not
  inside of loops, and not for groups of channels, which are taken one by one;
- those of a population, whose members have a kernel each, one by one:
  `jax.vmap` would make them groups of one convolution.

This is for images of float32 and kernels without dilation; all others are
XLA's. The form depends on shapes alone.
"""

import contextlib
import contextvars
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
WRITTEN_OUT = 8  # members or groups; a loop over more compiles faster
PIXELS = 49  # of a depthwise kernel that is written out


_is_plain = contextvars.ContextVar('plain', default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
  """What is traced within has XLA's convolutions and max pooling alone.

  For programs that leave JAX: other tools know what XLA has for them, and none
  of the forms here and in `jaxkd.models.pooling`.
  """
  token = _is_plain.set(True)
  try:
    yield
  finally:
    _is_plain.reset(token)


def is_plain() -> bool:
  """Whether what is traced now is to have XLA's own operations alone."""
  return _is_plain.get()


class Window(NamedTuple):
  """How a kernel moves over an image, and what it maps to what.

  Attributes:
    image: height and width of the input.
    kernel: height and width of the kernel.
    strides: along height and width.
    padding: before and after, along height and width; all at least 0.
    groups: of channels, which do not see one another.
    precision: as `jax.lax` takes it.
  """

  image: tuple[int, int]
  kernel: tuple[int, int]
  strides: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]
  groups: int
  precision: Any

  @property
  def output(self) -> tuple[int, int]:
    """Height and width of the output."""
    sizes = zip(
      self.image, self.kernel, self.strides, self.padding, strict=True
    )
    return tuple((n + sum(p) - k) // s + 1 for n, k, s, p in sizes)

  def is_pointwise(self) -> bool:
    """Whether each output sees one pixel."""
    return self.kernel == (1, 1) and self.padding == ((0, 0), (0, 0))


def conv_general_dilated(
  x: Array,
  kernel: Array,
  window_strides: Sequence[int],
  padding: Any,
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision: Any = None,
  preferred_element_type: Any = None,
  **options: Any,
) -> Array:
  """As `jax.lax.conv_general_dilated`, arguments and results alike."""
  arguments = dict(
    lhs_dilation=lhs_dilation,
    rhs_dilation=rhs_dilation,
    dimension_numbers=dimension_numbers,
    feature_group_count=feature_group_count,
    batch_group_count=batch_group_count,
    precision=precision,
    preferred_element_type=preferred_element_type,
    **options,
  )
  ours = (
    x.ndim == kernel.ndim == 4
    and x.dtype == kernel.dtype == jnp.float32
    and preferred_element_type in (None, jnp.float32)
    and _numbers(dimension_numbers) == _numbers(LAYOUT)
    and set(lhs_dilation or [1]) == set(rhs_dilation or [1]) == {1}
    and batch_group_count == 1
    and not any(options.values())
    and not is_plain()
    and _is_untold(x)
    and _is_untold(kernel)
  )
  edges = padding
  if ours and isinstance(padding, str):
    edges = lax.padtype_to_pads(
      x.shape[1:3], kernel.shape[:2], window_strides, padding
    )
  if ours and min(map(min, edges)) < 0:
    # XLA reads memory that it has not written where padding is negative.
    cut = [(min(low, 0), min(high, 0), 0) for low, high in edges]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *cut, (0, 0, 0)])
    edges = [(max(low, 0), max(high, 0)) for low, high in edges]
  if ours:
    window = Window(
      x.shape[1:3],
      kernel.shape[:2],
      tuple(window_strides),
      tuple(map(tuple, edges)),
      feature_group_count,
      precision,
    )
    if min(window.output) > 0:
      return _forward.bind(x, kernel, window=window)
    padding = window.padding
  return lax.conv_general_dilated(
    x, kernel, window_strides, padding, **arguments
  )


def _numbers(dimension_numbers):
  """The dimension numbers of images in one form."""
  shape = (1, 1, 1, 1)
  return lax.conv_dimension_numbers(shape, shape, dimension_numbers)


def _is_untold(x):
  """Whether an array's type tells nothing of devices, as most do not."""
  return jax.typeof(x).strip_weak_type() == ShapedArray(x.shape, x.dtype)


# As XLA has them.


def _xla_forward(x, kernel, window):
  return lax.conv_general_dilated(
    x,
    kernel,
    window.strides,
    window.padding,
    dimension_numbers=LAYOUT,
    feature_group_count=window.groups,
    precision=window.precision,
  )


def _xla_of_input(d, kernel, window):
  width = kernel.shape[2] * window.groups
  x = jax.ShapeDtypeStruct((d.shape[0], *window.image, width), d.dtype)
  forward = lambda x: _xla_forward(x, kernel, window)  # noqa: E731
  return jax.linear_transpose(forward, x)(d)[0]


def _xla_of_kernel(x, d, window):
  shape = (*window.kernel, x.shape[3] // window.groups, d.shape[3])
  kernel = jax.ShapeDtypeStruct(shape, x.dtype)
  forward = lambda kernel: _xla_forward(x, kernel, window)  # noqa: E731
  return jax.linear_transpose(forward, kernel)(d)[0]


# As they are fast on a CPU.


def _cpu_forward(x, kernel, window):
  if _is_depthwise(window, x.shape[3], kernel.shape[3]):
    return _weighted(_padded(x, window.padding), kernel, window, window.output)
  if window.is_pointwise() and window.groups == 1:
    return _product(_strided(x, window), kernel[0, 0], window)
  return _xla_forward(x, kernel, window)


def _cpu_of_input(d, kernel, window):
  turned = kernel[::-1, ::-1]
  flat = window._replace(strides=(1, 1))
  if _is_depthwise(window, kernel.shape[2] * window.groups, d.shape[3]):
    return _weighted(_spread(d, window), turned, flat, window.image)
  if window.groups > 1:
    return _xla_of_input(d, kernel, window)
  if window.is_pointwise():
    return _spread(_product(d, kernel[0, 0].T, window), window)
  return lax.conv_general_dilated(
    d,
    turned.swapaxes(2, 3),
    (1, 1),
    _edges(window),
    lhs_dilation=window.strides,
    dimension_numbers=LAYOUT,
    precision=window.precision,
  )


def _cpu_of_kernel(x, d, window):
  if _is_depthwise(window, x.shape[3], d.shape[3]):
    return _correlated(_padded(x, window.padding), d, window)
  if window.groups > 1:
    of_one = functools.partial(_cpu_of_kernel, window=window._replace(groups=1))
    parts = (jnp.stack(jnp.split(y, window.groups, 3)) for y in (x, d))
    each = jnp.moveaxis(_one_by_one(of_one)(*parts), 0, 3)
    return each.reshape(*each.shape[:3], -1)
  if window.is_pointwise():
    axes = ((0, 1, 2), (0, 1, 2))
    seen = _strided(x, window)
    made = jnp.tensordot(seen, d, axes, precision=window.precision)
    return made[None, None]
  # The examples are what is summed over, as channels are in the forward pass.
  # XLA finds that out by itself, but not in loops.
  made = lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    d.transpose(1, 2, 0, 3),
    (1, 1),
    [
      (low, k + stride * (out - 1) - n - low)
      for low, n, k, stride, out in _along(window)
    ],
    rhs_dilation=window.strides,
    dimension_numbers=LAYOUT,
    precision=window.precision,
  )
  return made.transpose(1, 2, 0, 3)


def _is_depthwise(window, width_in, width_out):
  """Whether each channel is convolved by itself, with one small kernel."""
  small = window.kernel[0] * window.kernel[1] <= PIXELS
  return small and window.groups == width_in == width_out


def _padded(x, padding, inside=(0, 0)):
  """Zeros around the pixels, or where less than 0 fewer pixels, and between."""
  pairs = zip(padding, inside, strict=True)
  edges = [(low, high, between) for (low, high), between in pairs]
  none = (0, 0, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), (none, *edges, none))


def _along(window):
  """For height and width: padding before, image, kernel, stride and output."""
  before = [low for low, _ in window.padding]
  sizes = window.image, window.kernel, window.strides, window.output
  return zip(before, *sizes, strict=True)


def _edges(window):
  """What to pad a gradient with, so that its windows give back the image."""
  return [
    (k - 1 - low, n + low - stride * (out - 1) - 1)
    for low, n, k, stride, out in _along(window)
  ]


def _spread(d, window):
  """A gradient at the places of its windows, zeros between and around them."""
  return _padded(d, _edges(window), [stride - 1 for stride in window.strides])


def _strided(x, window, at=(0, 0), size=None):
  """What one pixel of the kernel sees, for all positions of the output."""
  sizes = zip(at, window.strides, size or window.output, strict=True)
  rows, columns = (
    slice(low, low + stride * (n - 1) + 1, stride) for low, stride, n in sizes
  )
  return x[:, rows, columns]


def _weighted(x, kernel, window, size):
  """A sum of shifted images, each channel with a weight of its own."""
  shifted = (
    _strided(x, window, at, size) * kernel[at].reshape(1, 1, 1, -1)
    for at in _places(window)
  )
  return functools.reduce(jnp.add, shifted)


def _correlated(x, d, window):
  """The products of shifted images with a gradient, summed by channel."""
  # Row by row first: XLA takes a sum over all at once twice as long.
  sums = [
    (_strided(x, window, at) * d).sum((0, 1)).sum(0) for at in _places(window)
  ]
  return jnp.stack(sums).reshape(*window.kernel, 1, -1)


def _product(x, matrix, window):
  return jnp.matmul(x, matrix, precision=window.precision)


def _places(window):
  return list(itertools.product(*map(range, window.kernel)))


# Both as primitives, so that the platform, the derivative of any order and the
# members of a population are all known to JAX.


def _primitive(
  name: str, xla: Callable, cpu: Callable, merged: tuple
) -> Primitive:
  """A bilinear map of two arrays of rank 4, or 5 with members first."""
  made = Primitive(name)

  @functools.partial(jax.jit, static_argnames='window')
  def alone(x, y, window):
    return made.bind(x, y, window=window)

  def shape(x, y, window):
    run = functools.partial(_of_members, xla, jax.vmap, window=window)
    out = jax.eval_shape(run, x, y)
    return ShapedArray(out.shape, out.dtype)

  made.def_impl(alone)
  made.def_abstract_eval(shape)
  batching.primitive_batchers[made] = functools.partial(_batched, made, merged)
  everywhere = functools.partial(_of_members, xla, jax.vmap)
  on_cpu = functools.partial(_of_members, cpu, _one_by_one)
  mlir.register_lowering(made, mlir.lower_fun(everywhere, False))
  mlir.register_lowering(made, mlir.lower_fun(on_cpu, False), platform='cpu')
  return made


def _of_members(function, over, x, y, *, window):
  """The function of one member, or `over` the leading axis of all."""
  run = functools.partial(function, window=window)
  return run(x, y) if x.ndim == 4 else over(run)(x, y)


def _one_by_one(function):
  """A function of one member as a function of all, without `jax.vmap`."""

  def run(x, y):
    if len(x) > WRITTEN_OUT:
      return lax.map(lambda pair: function(*pair), (x, y))
    return jnp.stack([function(*pair) for pair in zip(x, y, strict=True)])

  return run


def _batched(primitive, merged, arrays, axes, *, window):
  """The rule for `jax.vmap`.

  Where one array is the same for all members, those of the other become
  examples or channels, as `merged` tells: for each array, the axis that its
  members join, and that of the result where they are found.
  """
  one = [axis is None for axis in axes].index(False)
  size = arrays[one].shape[axes[one]]
  where, found = merged[one]
  alone = None in axes and arrays[one].ndim == 5
  if alone and (where == 0 or window.groups == 1):
    arrays = list(arrays)
    arrays[one] = _joined(arrays[one], axes[one], where)
    out = primitive.bind(*arrays, window=window)
    parts = (*out.shape[:found], size, -1, *out.shape[found + 1 :])
    return out.reshape(parts), found
  x, y = (
    jnp.broadcast_to(x, (size, *x.shape))
    if axis is None
    else jnp.moveaxis(x, axis, 0)
    for x, axis in zip(arrays, axes, strict=True)
  )
  if x.ndim == 5:
    return primitive.bind(x, y, window=window), 0
  # Two vmaps, one in the other.
  x, y = (_joined(x, 0, 0) for x in (x, y))
  out = primitive.bind(x, y, window=window)
  return out.reshape(size, -1, *out.shape[1:]), 0


def _joined(x, axis, other):
  """An array with one axis merged into the other, numbered without it."""
  x = jnp.moveaxis(x, axis, other)
  return x.reshape(*x.shape[:other], -1, *x.shape[other + 2 :])


_forward = _primitive(
  'convolution', _xla_forward, _cpu_forward, merged=((0, 0), (3, 3))
)
_of_input = _primitive(
  'convolution_of_input', _xla_of_input, _cpu_of_input, merged=((0, 0), (2, 3))
)
_of_kernel = _primitive(
  'convolution_of_kernel',
  _xla_of_kernel,
  _cpu_of_kernel,
  merged=((3, 2), (3, 3)),
)

# Each is the derivative of the others: y = x * k, and of input and kernel
# x = d * k and k = x * d.
ad.defbilinear(
  _forward,
  lambda d, x, kernel, window: _of_input.bind(d, kernel, window=window),
  lambda d, x, kernel, window: _of_kernel.bind(x, d, window=window),
)
ad.defbilinear(
  _of_input,
  lambda x, d, kernel, window: _forward.bind(x, kernel, window=window),
  lambda x, d, kernel, window: _of_kernel.bind(x, d, window=window),
)
ad.defbilinear(
  _of_kernel,
  lambda kernel, x, d, window: _of_input.bind(d, kernel, window=window),
  lambda kernel, x, d, window: _forward.bind(x, kernel, window=window),
)
