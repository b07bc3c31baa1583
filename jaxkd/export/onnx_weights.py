"""Quantised weights in a model of ONNX: integers, and nodes that decode them.

Levels at equal distances around 0 (``wrpn``) are int8 with one scale, behind a
`DequantizeLinear`, as QDQ has it. Other levels are decoded by a few nodes more.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jaxkd.students.stored import Stored, unflat


def put_in(model: onnx.ModelProto, weights: Mapping[str, Stored]) -> None:
  """Replaces inputs of a model by codes and what decodes them.

  Args:
    model: in which these weights are inputs; it is changed.
    weights: by the name of the input.
  """
  graph, made = model.graph, []
  for name, stored in weights.items():
    (given,) = (x for x in graph.input if x.name == name)
    graph.input.remove(given)
    decoded = _Decoded(graph, name, *_laid_out(graph, name, len(stored.shape)))
    decode = _signed if stored.levels == 'signed' else _by_bucket
    decode(decoded, stored)
    made += decoded.nodes
  rest = list(graph.node)
  del graph.node[:]
  graph.node.extend([*made, *rest])


class _Decoded:
  """The nodes that give one array of weights.

  Attributes:
    target: the name of the result.
    axes: how the axes of the weights are to be ordered in it.
    nodes: those made so far.
  """

  def __init__(
    self, graph: Any, name: str, target: str, axes: Sequence[int]
  ) -> None:
    self._graph, self._name = graph, name
    self.target, self.axes, self.nodes = target, tuple(axes), []

  def constant(self, array: Any) -> str:
    """The name of a constant, an initializer of the graph."""
    name = f'{self._name}.{len(self._graph.initializer)}'
    self._graph.initializer.append(
      numpy_helper.from_array(np.ascontiguousarray(array), name)
    )
    return name

  def node(
    self, kind: str, *inputs: str, last: bool = False, **how: Any
  ) -> str:
    """The name of what a new node gives."""
    name = self.target if last else f'{self._name}:{len(self.nodes)}'
    self.nodes.append(helper.make_node(kind, inputs, [name], **how))
    return name


def _laid_out(graph: Any, name: str, rank: int) -> tuple[str, Sequence[int]]:
  """What is to be computed of an input: itself, or all that is read of it.

  jax2onnx turns the axes of kernels by a node, which would stand between the
  integers and the convolution.
  """
  readers = [node for node in graph.node if name in node.input]
  if len(readers) != 1 or readers[0].op_type != 'Transpose':
    return name, range(rank)
  (turned,) = readers
  axes = helper.get_node_attr_value(turned, 'perm')
  graph.node.remove(turned)
  return turned.output[0], axes


def _signed(decoded: _Decoded, stored: Stored) -> None:
  """One scale for all, and 0 is a level."""
  most = 2 ** (stored.bits - 1) - 1
  codes = stored.codes.astype(np.int16) - most
  if stored.mask is not None:
    codes = np.where(stored.mask, codes, 0)
  codes = unflat(codes.astype(np.int8), stored.shape).transpose(decoded.axes)
  scale = np.float32(1) if stored.scale is None else stored.scale[0]
  names = decoded.constant(codes), decoded.constant(np.float32(scale / most))
  decoded.node('DequantizeLinear', *names, last=True)


def _by_bucket(decoded: _Decoded, stored: Stored) -> None:
  """Scale and offset for each bucket of consecutive weights, or a codebook."""
  count = len(stored.codes)
  size = stored.bucket or count
  codes = np.pad(stored.codes, (0, -count % size)).reshape(-1, size)
  column = lambda x: decoded.constant(x.astype(np.float32)[:, None])  # noqa: E731
  if stored.levels == 'uniform':
    scale = np.ones(len(codes)) if stored.scale is None else stored.scale
    scale = (scale / (2**stored.bits - 1)).astype(np.float32)
    names = decoded.constant(codes), decoded.constant(scale)
    found = decoded.node('DequantizeLinear', *names, axis=0)
  else:
    integers = decoded.node(
      'Cast', decoded.constant(codes), to=onnx.TensorProto.INT32
    )
    table = decoded.constant(stored.table.astype(np.float32))
    found = decoded.node('Gather', table, integers)
    if stored.scale is not None:
      found = decoded.node('Mul', found, column(stored.scale))
  if stored.offset is not None:
    found = decoded.node('Add', found, column(stored.offset))
  sizes = lambda *x: decoded.constant(np.array(x, np.int64))  # noqa: E731
  found = decoded.node('Reshape', found, sizes(-1))
  if codes.size > count:
    found = decoded.node('Slice', found, sizes(0), sizes(count))
  if stored.mask is not None:
    zero = decoded.constant(np.zeros((), np.float32))
    found = decoded.node('Where', decoded.constant(stored.mask), found, zero)
  rank = len(stored.shape)
  # The order of `stored.flat`, and the axes as it has them: [..., in, out].
  order = (-1, -2, *range(rank - 2)) if rank > 1 else (0,)
  found = decoded.node(
    'Reshape', found, sizes(*(stored.shape[i] for i in order))
  )
  back = np.argsort([axis % rank for axis in order])
  axes = [int(back[axis]) for axis in decoded.axes]
  decoded.node('Transpose', found, last=True, perm=axes)
