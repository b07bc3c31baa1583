"""Quantisation of weights and activations.

A quantisation is written as ops joined by ``|``, as in
``'uniform(4)|activations(8)'``. An op for weights is a function here that
returns a `Quantizer`, one for activations a function that returns a `Rounding`;
``package.module:function`` names your own. `jaxkd.students.ops` describes to
which parameters an op applies.

Full-precision weights are trained, but the net computes with their quantised
values, and the gradient with respect to these is applied to the full-precision
weights (the straight-through estimator of Bengio et al., `Estimating or
Propagating Gradients Through Stochastic Neurons
<https://arxiv.org/abs/1308.3432>`_, 2013).
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive

from jaxkd import keys
from jaxkd.errors import UserError, unknown
from jaxkd.losses import _numerics
from jaxkd.paths import by_path, changed
from jaxkd.students import ops
from jaxkd.students.ops import Op
from jaxkd.students.stored import Stored, flat, values
from jaxkd.types import Compression

FULL = 32  # bits of weights and activations that are not quantised
OWN = 'quantize'  # the entry of the parameters with learnt levels


# x rounded to multiples of high / most from low to high, as one operation; see
# `marked`.
rounded = Primitive('rounded')
rounded.def_abstract_eval(lambda x, *, low, high, most: x)

_is_marked = contextvars.ContextVar('marked', default=False)


@contextlib.contextmanager
def marked() -> Iterator[None]:
  """What is traced within has the operation `rounded` for activations.

  For formats that have operations of their own for that; it cannot be run.
  """
  token = _is_marked.set(True)
  try:
    yield
  finally:
    _is_marked.reset(token)


class Quantizer(NamedTuple):
  """How weights are quantised.

  Attributes:
    bits: of a code.
    encode: ``(weights [n], table, key) -> Stored`` of these n. The table holds
      their learnt levels, if any; the key is None for no randomness.
    table: ``(weights [n]) -> table``, the initial values of the learnt levels;
      None if none are learnt.
    limit: weights of larger magnitude get no gradient.
    draws: whether training needs a key.
  """

  bits: int
  encode: Callable[[Array, Array | None, Array | None], Stored]
  table: Callable[[Array], Array] | None = None
  limit: float = math.inf
  draws: bool = False


class Rounding(NamedTuple):
  """How activations are rounded.

  Attributes:
    bits: of a value.
    apply: ``(activations) -> activations``, with a gradient.
    at: a glob of the layers whose outputs it rounds; empty for the inputs of
      the layers of the op's parameters.
  """

  bits: int
  apply: Callable[[Array], Array]
  at: str = ''


# The ops for weights.


def uniform(
  bits: int, bucket: int | None = 256, stochastic: bool = False
) -> Quantizer:
  """2^bits equidistant levels from the least to the largest weight.

  Polino, Pascanu and Alistarh, `Model compression via distillation and
  quantization <https://arxiv.org/abs/1802.05668>`_, 2018: with offset β the
  least and scale α the range of a bucket, w = α · round((2^bits - 1) · (w - β)
  / α) / (2^bits - 1) + β.

  Args:
    bits: 1 to 8.
    bucket: how many consecutive weights share scale and offset; None for all
      of an array.
    stochastic: whether training rounds up with the probability that makes the
      mean right.
  """
  _check_bits('uniform', bits, 1)
  _check_bucket('uniform', bucket)
  most = 2**bits - 1

  def encode(weights, table, key):
    scaled, scale, offset, size = _buckets(weights, bucket)
    scaled = scaled * most
    if stochastic and key is not None:
      codes = jnp.floor(scaled + jax.random.uniform(key, scaled.shape))
    else:
      codes = jnp.round(scaled)
    codes = codes.reshape(-1)[: len(weights)].clip(0, most).astype(jnp.uint8)
    kind = dict(levels='uniform', bits=bits, bucket=size)
    return Stored(codes, scale=scale, offset=offset, **kind)

  return Quantizer(bits, encode, draws=stochastic)


def points(
  bits: int, bucket: int | None = 256, start: str = 'quantiles'
) -> Quantizer:
  """2^bits learnt levels for each array.

  Differentiable quantisation (Polino et al., 2018): weights are scaled as by
  `uniform` and go to the nearest point p, w = α · p + β. The gradient of a
  point is the sum over its weights of α times theirs. They train with the
  weights, or alone where `freeze` keeps these.

  Args:
    bits: 1 to 8.
    bucket: how many consecutive weights share scale and offset; None for all
      of an array.
    start: where the points are at first: at 'quantiles' of the scaled weights,
      or 'uniform'.
  """
  _check_bits('points', bits, 1)
  _check_bucket('points', bucket)
  if start not in ('quantiles', 'uniform'):
    raise unknown(
      'start', start, ('quantiles', 'uniform'), f'points(start={start!r})'
    )

  def encode(weights, table, key):
    del key
    scaled, scale, offset, size = _buckets(weights, bucket)
    table = jnp.sort(table)
    middle = jax.lax.stop_gradient((table[1:] + table[:-1]) / 2)
    codes = jnp.searchsorted(middle, scaled.reshape(-1)[: len(weights)])
    codes = codes.astype(jnp.uint8)
    kind = dict(levels='table', bits=bits, bucket=size)
    return Stored(codes, table=table, scale=scale, offset=offset, **kind)

  def table(weights):
    equal = jnp.linspace(0.0, 1.0, 2**bits, dtype=weights.dtype)
    if start == 'uniform':
      return equal
    scaled = _buckets(weights, bucket)[0].reshape(-1)[: len(weights)]
    return jnp.quantile(scaled, equal)

  return Quantizer(bits, encode, table)


def ternary(threshold: float = 0.05) -> Quantizer:
  """Three levels for an array: 0, and one on each side.

  Weights of less than ``threshold`` of the largest magnitude are 0, those
  above it their mean, those below minus it theirs (Zhu et al., `Trained
  Ternary Quantization <https://arxiv.org/abs/1612.01064>`_, 2017, which learns
  the two; the means are the nearest to the weights: Li and Liu, `Ternary
  Weight Networks <https://arxiv.org/abs/1605.04711>`_, 2016).

  Args:
    threshold: from 0 to below 1.
  """
  if not 0 <= threshold < 1:
    raise UserError(
      f'ternary(threshold={threshold}) needs a threshold from 0 to below 1'
    )

  def encode(weights, table, key):
    del table, key
    least = threshold * jnp.abs(weights).max()

    def mean(where):
      total = jnp.where(where, weights, 0.0).sum()
      return total / jnp.maximum(where.sum(), 1).astype(weights.dtype)

    below, above = weights < -least, weights > least
    zero = jnp.zeros((), weights.dtype)
    table = jnp.stack([mean(below), zero, mean(above)])
    table *= _numerics.one_or_nan(jnp.isfinite(least)).astype(table.dtype)
    codes = 1 + above.astype(jnp.uint8) - below.astype(jnp.uint8)
    return Stored(codes, table=table, levels='table', bits=2)

  return Quantizer(2, encode)


def wrpn(bits: int, scaled: bool = False) -> Quantizer:
  """Levels at equal distances from -1 to 1, of which 0 is one.

  Mishra et al., `WRPN: Wide Reduced-Precision Networks
  <https://arxiv.org/abs/1709.01134>`_, 2018: with m = 2^(bits - 1) - 1,
  w = round(m · clip(w, -1, 1)) / m.

  Args:
    bits: 2 to 8.
    scaled: whether the levels end at the largest magnitude of the array
      instead of at 1, which small weights of wide layers are far from.
  """
  _check_bits('wrpn', bits, 2)
  most = 2 ** (bits - 1) - 1

  def encode(weights, table, key):
    del table, key
    scale, kind = None, dict(levels='signed', bits=bits, bucket=len(weights))
    if scaled:
      largest = jnp.abs(weights).max(keepdims=True)
      scale = jnp.where(largest < 1e-10, 1.0, largest)
      weights = weights / scale
    codes = jnp.round(weights.clip(-1, 1) * most) + most
    return Stored(codes.astype(jnp.uint8), scale=scale, **kind)

  return Quantizer(bits, encode, limit=math.inf if scaled else 1.0)


# The ops for activations.


def activations(bits: int, high: float = 1.0, signed: bool = False) -> Rounding:
  """Rounds what goes into the layers of its parameters.

  a = round(m · clip(a, 0, 1)) / m with m = 2^bits - 1, as WRPN does behind a
  ReLU. What is clipped gets no gradient.

  Args:
    bits: 1 to 8.
    high: where it is clipped instead of 1.
    signed: whether it is clipped at -high instead of 0; then m is
      2^(bits - 1) - 1 on each side.
  """
  return _rounding('activations', bits, high, signed, '')


def features(
  bits: int, at: str, high: float = 1.0, signed: bool = False
) -> Rounding:
  """Rounds what layers give, in the same way, for all that look at it.

  Quantization Mimic (Wei et al., `Towards Very Tiny CNN for Object Detection
  <https://arxiv.org/abs/1805.02152>`_, 2018) does so with the features of both
  teacher and student.

  Args:
    bits: 1 to 8.
    at: the layers, a glob.
    high: see `activations`.
    signed: see `activations`.
  """
  if not at:
    raise UserError('features needs the layers that it is for, at=GLOB')
  return _rounding('features', bits, high, signed, at)


# Reading.


def parse(text: str, *, at: str) -> tuple[Op, ...]:
  """Reads ``'uniform(4, skip="head")|activations(8)'``.

  Raises:
    UserError: no such op, or arguments that it does not take.
  """
  known = ops.giving(globals(), Quantizer, Rounding)
  like = 'uniform(4, bucket=256)|activations(8)'
  found = ops.parse(text, known, kind='quantisation', like=like, at=at)
  for op in found:
    if isinstance(op.does, Rounding) and op.after:
      raise UserError(f'{at}: {op.name} is not for weights; leave out after')
    if op.after and (op.does.draws or op.does.table):
      raise UserError(
        f'{at}: {op.name} has nothing to train, coming after it; leave out '
        'after, or take uniform'
      )
  return found


def for_weights(
  found: Sequence[Op], paths: Iterable[str], *, at: str
) -> dict[str, Op]:
  """Which op each parameter has, of those for weights.

  Raises:
    UserError: an op that no parameter has.
  """
  own = [op for op in found if isinstance(op.does, Quantizer)]
  return ops.share_out(own, paths, at=at)


def for_inputs(
  found: Sequence[Op], paths: Iterable[str], *, at: str
) -> dict[str, Op]:
  """Which op what is multiplied with each parameter has.

  Raises:
    UserError: an op that no parameter has.
  """
  own = [op for op in found if isinstance(op.does, Rounding) and not op.does.at]
  return ops.share_out(own, paths, at=at)


def hooks(
  found: Sequence[Op], paths: Iterable[str], *, at: str
) -> dict[str, tuple]:
  """What `jaxkd.models.build` is to do before and after layers.

  Raises:
    UserError: an op that no parameter has.
  """
  return {
    'before': tuple(
      (path.rpartition('/')[0], op.does.apply)
      for path, op in for_inputs(found, paths, at=at).items()
    ),
    'after': tuple(
      (op.does.at, op.does.apply)
      for op in found
      if isinstance(op.does, Rounding) and op.does.at
    ),
  }


def precision(
  found: Sequence[Op], paths: Sequence[str]
) -> dict[str, tuple[int, int]]:
  """The bits of each parameter, and of what is multiplied with it."""
  sides = [each(found, paths, at='') for each in (for_weights, for_inputs)]
  return {
    path: tuple(s[path].does.bits if path in s else FULL for s in sides)
    for path in paths
  }


# Training and finishing.


def quantize(
  net: Compression, own: Mapping[str, Op], *, sparse: bool = False
) -> Compression:
  """A net that computes with quantised weights.

  Parameters below ``quantize`` are what it learns of the levels.

  Args:
    net: the net, or what else happens to it.
    own: parameter -> its op, from `for_weights`.
    sparse: whether weights of 0 stay so.
  """
  learned = {path: op for path, op in own.items() if op.does.table}
  training = {path: op for path, op in own.items() if not op.after}

  def start(variables):
    variables = net.start(variables)
    if not learned:
      return variables
    weights = by_path(variables['params'])
    tables = {p: op.does.table(flat(weights[p])) for p, op in learned.items()}
    return {**variables, 'params': {**variables['params'], OWN: tables}}

  def inside(variables):
    params = dict(variables['params'])
    return params.pop(OWN, {}), {**variables, 'params': params}

  def apply(variables, inputs, *, key=None, train=False):
    tables, variables = inside(variables)

    def through(path, weights):
      quantizer, draw = training[path].does, None
      if key is not None and train and quantizer.draws:
        draw = keys.fold(key, OWN, path)
      return _through(quantizer, weights, tables.get(path), draw, sparse)

    params = changed(
      variables['params'],
      {path: functools.partial(through, path) for path in training},
    )
    return net.apply(
      {**variables, 'params': params}, inputs, key=key, train=train
    )

  def update(variables, step):
    return net.update(inside(variables)[1], step)

  def finish(variables):
    tables, variables = inside(variables)
    variables = net.finish(variables)

    def encode(path, weights):
      return _encode(own[path].does, weights, tables.get(path), None)

    params = changed(
      variables['params'],
      {path: functools.partial(encode, path) for path in own},
    )
    return {**variables, 'params': params}

  return Compression(apply, start, update, finish)


def _through(quantizer, weights, table, key, sparse) -> Array:
  """Quantised weights; their gradient is that of the weights."""
  fixed = jax.lax.stop_gradient(weights)
  found = values(_encode(quantizer, fixed, table, key))
  if sparse:
    found = jnp.where(fixed == 0, fixed, found)
  passed = weights - fixed  # 0, but for the gradient
  if quantizer.limit < math.inf:
    passed = jnp.where(jnp.abs(fixed) > quantizer.limit, 0.0, passed)
  return found + passed


def _encode(quantizer, weights, table, key) -> Stored:
  stored = quantizer.encode(flat(weights), table, key)
  return dataclasses.replace(stored, shape=weights.shape)


def _buckets(weights: Array, bucket: int | None) -> tuple:
  """Weights from 0 to 1 [buckets, size]; scale, offset [buckets]; size."""
  size = min(bucket or len(weights), len(weights))
  rows = jnp.pad(weights, (0, -len(weights) % size), 'edge').reshape(-1, size)
  offset = rows.min(1)
  scale = rows.max(1) - offset
  scale = jnp.where(scale < 1e-10, 1.0, scale)  # all are equal
  return (rows - offset[:, None]) / scale[:, None], scale, offset, size


def _rounding(name, bits, high, signed, at) -> Rounding:
  _check_bits(name, bits, 1 + signed)
  if not 0 < high < math.inf:
    raise UserError(f'{name}(high={high}) needs a limit above 0')
  most, low = (2 ** (bits - 1) - 1, -high) if signed else (2**bits - 1, 0.0)

  def apply(x):
    if _is_marked.get():
      ends = {'low': low, 'high': high, 'most': most}
      return rounded.bind(x.astype(jnp.float32), **ends).astype(x.dtype)
    fixed = jax.lax.stop_gradient(x)
    full = fixed.astype(jnp.float32).clip(low, high)
    found = (jnp.round(full * (most / high)) / (most / high)).astype(x.dtype)
    inside = (fixed >= low) & (fixed <= high)
    return found + jnp.where(inside, x - fixed, jnp.zeros_like(x))

  return Rounding(bits, apply, at)


def _check_bits(name: str, bits: int, least: int) -> None:
  if not least <= bits <= 8:
    raise UserError(f'{name}(bits={bits}) needs {least} to 8 bits')


def _check_bucket(name: str, bucket: int | None) -> None:
  if bucket is not None and bucket < 1:
    raise UserError(
      f'{name}(bucket={bucket}) needs a bucket of at least 1, or None for all '
      'of an array'
    )
