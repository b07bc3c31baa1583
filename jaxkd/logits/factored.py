"""Logits that are the product of hidden states and a head, and stay that."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd.errors import UserError

KINDS = ('dense', 'factored')
ELEMENTS = 2**21  # of the logits of a chunk: 8 MiB in float32
ALIGNED = 128  # what accelerators take at once
LEAST = 512  # classes of a chunk, so that its products stay efficient


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factored:
  """Logits hidden · headᵀ + bias, [..., V], of which only the factors are kept.

  The losses in `jaxkd.losses.OF_FACTORED` take it for an array and never hold
  more than a chunk of the vocabulary. As a pytree it has a head without an axis
  of examples, so what is done to all examples of some outputs, as by a mask,
  goes through `tree_map`. Under `jax.vmap` every leaf has one more axis.

  Attributes:
    hidden: what enters the head, [..., D].
    head: a row for each class, [V, D].
    bias: [V], or None.
    chunk: how many classes are formed at once; 0 for the rule of `chunk_size`.
  """

  hidden: Array
  head: Array
  bias: Array | None = None
  chunk: int = dataclasses.field(default=0, metadata={'static': True})

  @property
  def shape(self) -> tuple[int, ...]:
    """That of the logits."""
    return (*self.hidden.shape[:-1], self.head.shape[-2])

  @property
  def ndim(self) -> int:
    """The number of axes of the logits."""
    return self.hidden.ndim

  @property
  def dtype(self) -> jnp.dtype:
    """That of the logits, float32 at least, in which products are summed."""
    return full_precision(self.hidden, self.head)

  def __len__(self) -> int:
    return self.shape[0]

  def __jax_array__(self) -> Array:
    raise dense_needed(self)

  def __getitem__(self, index: Any) -> Array:
    raise dense_needed(self)

  def dense(self) -> Array:
    """The logits as an array, [..., V]."""
    if self.head.ndim > 2:
      return jax.vmap(Factored.dense)(self)
    equal = self.hidden.dtype == self.head.dtype
    both = self.hidden.dtype if equal else self.dtype
    # As rows, since XLA:CPU is slow to sum the head's gradient over more axes.
    rows = jax.lax.collapse(self.hidden, 0, -1)
    logits = jnp.matmul(
      rows.astype(both),
      self.head.astype(both).T,
      preferred_element_type=self.dtype,
    ).reshape(self.shape)
    if self.bias is not None:
      bias = self.bias.astype(self.dtype)
      logits += jnp.expand_dims(bias, tuple(range(logits.ndim - 1)))
    return logits

  def max(self, axis: int = -1) -> Array:
    """The largest of the logits, [...]; NaN where one is."""
    return _largest(self, axis)[0]

  def argmax(self, axis: int = -1) -> Array:
    """The class of the largest logit, the first of equals, int32 [...]."""
    return _largest(self, axis)[1]


def dense_needed(
  logits: Factored, what: str = 'this', *, entry: str = ''
) -> UserError:
  """The error where something takes logits as an array alone.

  Args:
    logits: what it was given.
    what: the thing that needs the array.
    entry: the config entry, where it is known.
  """
  return UserError(
    f'{what} takes logits as an array alone, and a net keeps its '
    f"{list(logits.shape)} as factors; set its kw.logits to 'dense', or choose "
    'one of jaxkd.losses.OF_FACTORED, such as kl',
    entry=entry,
  )


def check_dense(tree: Any, what: str, *, entry: str = '') -> None:
  """Refuses outputs with `Factored` among them; see `dense_needed`."""
  for x in leaves(tree):
    if is_factored(x):
      raise dense_needed(x, what, entry=entry)


def product(
  kind: str,
  hidden: Array,
  head: Array,
  bias: Array | None = None,
  *,
  chunk: int = 0,
) -> Array | Factored:
  """The logits hidden · headᵀ + bias of a model, formed or as factors.

  Args:
    kind: the option ``logits`` of the model, one of `KINDS`.
    hidden: [..., D].
    head: [V, D].
    bias: [V], or None.
    chunk: how many classes are formed at once; 0 for the rule.

  Raises:
    UserError: another kind, or no number of classes; `check_kind` is for where
      a model is built.
  """
  check_kind(kind, chunk)
  found = Factored(hidden, head, bias, chunk)
  return found if kind == 'factored' else found.dense()


def check_kind(kind: str, chunk: int) -> None:
  """Refuses options of `product` that are none, where a model is built."""
  if kind not in KINDS:
    raise UserError(f'kw.logits: {kind!r} should be one of {", ".join(KINDS)}')
  if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 0:
    raise UserError(
      f'kw.chunk: {chunk!r} should be how many classes are formed at once, or '
      '0 for the rule'
    )
  if chunk and kind == 'dense':
    raise UserError(
      f'kw.chunk: {chunk} has no effect on dense logits; set kw.logits to '
      "'factored', or leave it 0"
    )


def full_precision(*arrays: Any) -> jnp.dtype:
  """Float32, or float64 where one of the arrays is."""
  double = any(x.dtype == jnp.float64 for x in arrays)
  return jnp.dtype(jnp.float64 if double else jnp.float32)


def is_factored(x: Any) -> bool:
  """Whether something is `Factored`; for ``is_leaf`` of `jax.tree.map`."""
  return isinstance(x, Factored)


def leaves(tree: Any) -> list[Any]:
  """The arrays of outputs, each `Factored` as one."""
  return jax.tree.leaves(tree, is_leaf=is_factored)


def tree_map(
  f: Callable[..., Any],
  *trees: Any,
  head: Callable[..., Any] = lambda x, *_: x,
) -> Any:
  """`jax.tree.map` of outputs over the arrays that have an axis of examples.

  Args:
    f: is given these, of each of the trees.
    *trees: outputs, with `Factored` among them.
    head: what happens to the arrays that have no such axis, the head and the
      bias; the first tree's stay as they are by default.
  """

  def one(*leaves):
    if not is_factored(leaves[0]):
      return f(*leaves)
    rows = [(x.head, x.bias) for x in leaves]
    rows, bias = jax.tree.map(head, *rows)
    hidden = f(*(x.hidden for x in leaves))
    return dataclasses.replace(leaves[0], hidden=hidden, head=rows, bias=bias)

  return jax.tree.map(one, *trees, is_leaf=is_factored)


def chunk_size(shape: tuple[int, ...]) -> int:
  """How many classes of logits [..., V] to form at once.

  About `ELEMENTS` logits, and `LEAST` classes or more. Chunks are of one size,
  a multiple of `ALIGNED`; the last is what is left.
  """
  *positions, classes = shape
  most = max(LEAST, ELEMENTS // max(math.prod(positions), 1))
  even = -(-classes // -(-classes // most))
  return min(classes, -(-even // ALIGNED) * ALIGNED)


def each_chunk(
  step: Callable[[Any, Any, int], Any], carry: Any, classes: int, chunk: int
) -> Any:
  """``carry = step(carry, start, size)`` for each chunk of the classes.

  Args:
    step: is compiled once, and once more where the last chunk is smaller.
    carry: a tree of arrays.
    classes: how many there are, V.
    chunk: how many are taken at once.
  """
  whole, rest = divmod(classes, chunk)

  def body(carry, i):
    return step(carry, i * chunk, chunk), None

  carry, _ = jax.lax.scan(body, carry, jnp.arange(whole))
  return step(carry, whole * chunk, rest) if rest else carry


def columns(logits: Array | Factored, start: Any, size: int) -> Array:
  """Some classes of logits, [..., size], as an array."""
  cut = jax.lax.dynamic_slice_in_dim
  if not is_factored(logits):
    return cut(logits, start, size, -1)
  bias = None if logits.bias is None else cut(logits.bias, start, size, 0)
  head = cut(logits.head, start, size, 0)
  return dataclasses.replace(logits, head=head, bias=bias).dense()


def _largest(logits, axis):
  """The largest logit and its class, [...] each."""
  if axis not in (-1, logits.ndim - 1):
    raise ValueError(f'axis must be that of the classes, -1, not {axis}')
  if logits.head.ndim > 2:
    return jax.vmap(_largest, (0, None))(logits, -1)
  *positions, classes = logits.shape

  def step(carry, start, size):
    top, at = carry
    found = columns(logits, start, size)
    own = found.max(-1)
    return jnp.maximum(top, own), jnp.where(
      own > top, start + found.argmax(-1).astype(jnp.int32), at
    )

  top = jnp.full(positions, -jnp.inf, logits.dtype)
  at = jnp.zeros(positions, jnp.int32)
  chunk = logits.chunk or chunk_size(logits.shape)
  return each_chunk(step, (top, at), classes, min(chunk, classes))
