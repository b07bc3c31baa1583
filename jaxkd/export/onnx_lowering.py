"""How jax2onnx is to say some operations, where its own way does not run.

Its windows over images have all four axes, for which ONNX Runtime has no
pooling; here they are the two of height and width. Its choice between booleans
is a Where, which is not there for them. Values that a net rounds to few bits
are pairs of QuantizeLinear and DequantizeLinear.
"""

from typing import Any

import jax
import numpy as np
import onnx_ir as ir
from jax2onnx.plugins import plugin_system

from jaxkd.students import quantize

_BOOL = np.dtype(bool)
TO_ONNX, FROM_ONNX = (0, 3, 1, 2), (0, 2, 3, 1)  # NHWC to NCHW, and back


def register() -> None:
  """Has jax2onnx use what is here."""
  plugin_system.import_all_plugins()
  known = plugin_system.PLUGIN_REGISTRY
  for name, kind in (
    ('reduce_window_max', _WindowMax),
    ('reduce_window_sum', _WindowSum),
    ('select_n', _Select),
  ):
    if not isinstance(known[name], kind):
      known[name] = kind(known[name])
  known[quantize.rounded.name] = _Rounded()


class _Window(plugin_system.PrimitiveLeafPlugin):
  """Pools images; leaves other windows to jax2onnx's own way."""

  def __init__(self, other: Any):
    self.other = other

  def lower(self, ctx: Any, eqn: Any) -> None:
    given = eqn.params
    window, strides = given['window_dimensions'], given['window_strides']
    dilated = {*given['base_dilation'], *given['window_dilation']} != {1}
    around = [given['padding'][axis] for axis in (0, 3)]
    plain = eqn.invars[0].aval.dtype == np.float32 and not dilated
    if len(window) != 4 or (window[0], window[3]) != (1, 1) or not plain:
      return self.other.lower(ctx, eqn)
    if (strides[0], strides[3]) != (1, 1) or any(map(any, around)):
      return self.other.lower(ctx, eqn)
    (x,), (out,) = eqn.invars, eqn.outvars
    build, fresh = ctx.builder, ctx.fresh_name
    image = ctx.get_value_for_var(x, name_hint=fresh('image'))
    image = build.Transpose(image, perm=TO_ONNX, _outputs=[fresh('image')])
    _typed(image, [x.aval.shape[axis] for axis in TO_ONNX])
    low, high = zip(*given['padding'][1:3], strict=True)
    pooled = self.pool(
      ctx, image, tuple(window[1:3]), tuple(strides[1:3]), (*low, *high)
    )
    for value in pooled:
      _typed(value, [out.aval.shape[axis] for axis in TO_ONNX])
    spec = ctx.get_value_for_var(out, name_hint=fresh('pooled'))
    found = build.Transpose(pooled[-1], perm=FROM_ONNX, _outputs=[spec.name])
    _typed(found, out.aval.shape)
    ctx.bind_value_for_var(out, found)

  def pool(self, ctx, image, window, strides, pads) -> list[Any]:
    """The values in the order in which they are made, the result last."""
    raise NotImplementedError


class _WindowMax(_Window):
  def pool(self, ctx, image, window, strides, pads):
    name = [ctx.fresh_name('max')]
    options = dict(kernel_shape=window, strides=strides, pads=pads)
    return [ctx.builder.MaxPool(image, _outputs=name, **options)]


class _WindowSum(_Window):
  def pool(self, ctx, image, window, strides, pads):
    options = dict(kernel_shape=window, strides=strides, pads=pads)
    mean = ctx.builder.AveragePool(
      image, count_include_pad=1, _outputs=[ctx.fresh_name('mean')], **options
    )
    size = _constant(ctx, np.float32(np.prod(window)), 'size')
    return [mean, ctx.builder.Mul(mean, size, _outputs=[ctx.fresh_name('sum')])]


class _Select(plugin_system.PrimitiveLeafPlugin):
  """Chooses between booleans, for which ONNX Runtime has no Where."""

  def __init__(self, other: Any):
    self.other = other

  def lower(self, ctx: Any, eqn: Any) -> None:
    (out,) = eqn.outvars
    if len(eqn.invars) != 3 or {v.aval.dtype for v in eqn.invars} != {_BOOL}:
      return self.other.lower(ctx, eqn)
    build, fresh, shape = ctx.builder, ctx.fresh_name, out.aval.shape
    which, no, yes = (
      ctx.get_value_for_var(v, name_hint=fresh('choice')) for v in eqn.invars
    )
    spec = ctx.get_value_for_var(out, name_hint=fresh('chosen'))
    parts = [
      build.And(which, yes, _outputs=[fresh('yes')]),
      build.Not(which, _outputs=[fresh('other')]),
    ]
    parts.append(build.And(parts[1], no, _outputs=[fresh('no')]))
    found = build.Or(parts[0], parts[2], _outputs=[spec.name])
    for value in (parts[0], parts[2], found):
      _typed(value, shape, ir.DataType.BOOL)
    _typed(parts[1], eqn.invars[0].aval.shape, ir.DataType.BOOL)
    ctx.bind_value_for_var(out, found)


class _Rounded(plugin_system.PrimitiveLeafPlugin):
  """A value that is rounded to ``most`` steps up to ``high``."""

  def lower(self, ctx: Any, eqn: Any) -> None:
    (x,), (out,) = eqn.invars, eqn.outvars
    low, high, most = (eqn.params[name] for name in ('low', 'high', 'most'))
    build, fresh, shape = ctx.builder, ctx.fresh_name, x.aval.shape
    value = ctx.get_value_for_var(x, name_hint=fresh('value'))
    ends = [_constant(ctx, np.float32(end), 'end') for end in (low, high)]
    value = build.Clip(value, *ends, _outputs=[fresh('clipped')])
    _typed(value, shape)
    step = _constant(ctx, np.float32(high / most), 'step')
    kind = np.int8 if low < 0 else np.uint8
    zero = _constant(ctx, kind(0), 'zero')
    codes = build.QuantizeLinear(value, step, zero, _outputs=[fresh('codes')])
    _typed(codes, shape, ir.DataType.from_numpy(np.dtype(kind)))
    spec = ctx.get_value_for_var(out, name_hint=fresh('rounded'))
    found = build.DequantizeLinear(codes, step, zero, _outputs=[spec.name])
    _typed(found, shape)
    ctx.bind_value_for_var(out, found)


def _constant(ctx: Any, value: Any, name: str) -> Any:
  return ctx.builder.add_initializer_from_array(
    name=ctx.fresh_name(name), array=np.asarray(value)
  )


def _typed(value: Any, shape: Any, kind: Any = ir.DataType.FLOAT) -> None:
  value.type = ir.TensorType(kind)
  value.shape = ir.Shape(
    [x if isinstance(x, int) else str(x) for x in map(_size, shape)]
  )


def _size(x: Any) -> Any:
  return int(x) if jax.core.is_constant_dim(x) else x
