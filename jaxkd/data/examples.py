"""A split of a data set: what it must offer, and how it is checked and cut."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from jaxkd.data.partition import strata, stratified
from jaxkd.errors import UserError

IN_MEMORY = 2**30  # bytes of decoded examples


class Examples(Protocol):
  """What a split is; anything of this kind will do.

  Attributes:
    labels: class of each example, int32 [N], or of each of its tokens or
      pixels, [N, ...].
  """

  labels: np.ndarray

  def __len__(self) -> int:
    """The number of examples, N."""

  def fetch(self, indices: np.ndarray) -> dict[str, Any]:
    """The examples of these numbers, int [n].

    Returns:
      ``inputs``, an array [n, ...] or a pytree of them, ``labels``, int32
      [n, ...], and what else a batch should hold, each [n, ...]. Where some of
      the labels mean nothing, ``valid``, bool of their shape, is among it.
    """


class ArrayExamples:
  """Examples in memory."""

  def __init__(self, inputs: Any, labels: np.ndarray, **fields: Any):
    """Takes the arrays as they are.

    Args:
      inputs: array [N, ...], or a pytree of them.
      labels: whole numbers [N, ...].
      **fields: what else a batch should hold, [N, ...].

    Raises:
      UserError: labels of another kind, or arrays of different lengths.
    """
    self.labels = as_labels(labels, 'data.source')
    self._fields = {'inputs': inputs, 'labels': self.labels, **fields}
    _check_lengths(self._fields, 'data.source')

  def __len__(self) -> int:
    return len(self.labels)

  def fetch(self, indices: np.ndarray) -> dict[str, Any]:
    return jax.tree.map(lambda x: x[indices], self._fields)


class StreamedExamples:
  """Examples that are read whenever they are asked for."""

  def __init__(
    self,
    size: int,
    read: Callable[[np.ndarray], dict[str, Any]],
    labels: Callable[[], np.ndarray],
  ):
    """Reads nothing yet.

    Args:
      size: number of examples.
      read: what `fetch` does.
      labels: gives all labels, int [size, ...]; called once, when needed.
    """
    self._size, self.fetch, self._labels = size, read, labels

  def __len__(self) -> int:
    return self._size

  @functools.cached_property
  def labels(self) -> np.ndarray:
    return as_labels(self._labels(), 'data.source')


def from_arrays(inputs: Any, labels: Any, *, at: str) -> ArrayExamples:
  """Examples from a user's arrays, in the types that nets take.

  Floats become float32; uint8 stays, and arrays [N, H, W] of it are images
  and get a channel; other integers [N] or [N, L] become int32.

  Args:
    inputs: array [N, ...], or a pytree of them.
    labels: whole numbers [N].
    at: what to call them in errors.

  Raises:
    UserError: arrays of other things, or of different lengths.
  """
  labels = np.asarray(labels)
  if labels.ndim != 1:
    raise UserError(
      f'{at} has labels of shape {labels.shape} and type {labels.dtype}; they '
      'must be class numbers, one for each example'
    )
  labels = as_labels(labels, at)
  inputs = jax.tree.map(lambda x: as_numbers(np.asarray(x), at), inputs)
  _check_lengths({'inputs': inputs, 'labels': labels}, at)
  return ArrayExamples(inputs, labels)


def as_labels(
  labels: Any, at: str, numbers: np.ndarray | None = None
) -> np.ndarray:
  """Class numbers as int32.

  Args:
    labels: whole numbers [n, ...].
    at: what to call the examples in errors.
    numbers: of these examples, int [n]; 0, ..., n - 1 if they are all.

  Raises:
    UserError: something else; the first example that is wrong is named.
  """
  labels = np.asarray(labels)
  if labels.dtype == np.int32 and labels.ndim:
    return labels
  if not labels.ndim or labels.dtype.kind not in 'iuf':
    raise UserError(
      f'{at} has labels of shape {labels.shape} and type {labels.dtype}; they '
      'must be class numbers'
    )
  made = _as_int32(labels)
  for i, *rest in np.argwhere(made != labels):  # NaN, too
    raise UserError(
      f'{at}: example {_number(i, numbers)} has the label {labels[i, *rest]}; '
      'labels must be whole numbers of at most 32 bits'
    )
  return made


def as_numbers(
  x: np.ndarray, at: str, numbers: np.ndarray | None = None
) -> np.ndarray:
  """The types that nets take, as `from_arrays`.

  Args:
    x: inputs [n, ...].
    at: what to call them in errors.
    numbers: of these examples, int [n]; 0, ..., n - 1 if they are all.

  Raises:
    UserError: not an array of numbers, or of integers that are too large or
      whose range, as pixels, nobody knows.
  """
  what = f'{at} has inputs of shape {x.shape} and type {x.dtype}'
  if x.ndim < 1 or x.dtype.kind not in 'biuf':
    raise UserError(f'{what}; they must be numbers [examples, ...]')
  if x.dtype == np.uint8:
    return x[..., None] if x.ndim == 3 else x
  if x.dtype.kind not in 'iu':
    with np.errstate(over='ignore'):  # becomes infinite, which `check` refuses
      return x.astype(np.float32, copy=False)
  if x.ndim > 2:
    raise UserError(
      f'{what}; give images as uint8, from 0 to 255, or as floats, from 0 to 1'
    )
  made = _as_int32(x)
  for i, *rest in np.argwhere(made != x):
    raise UserError(
      f'{at}: example {_number(i, numbers)} holds {x[i, *rest]}; whole numbers '
      'must have at most 32 bits'
    )
  return made


def _number(i: int, numbers: np.ndarray | None) -> int:
  return i if numbers is None else numbers[i]


def _as_int32(x: np.ndarray) -> np.ndarray:
  """Other numbers where it does not hold these."""
  with np.errstate(invalid='ignore'):
    return x.astype(np.int32, copy=False)


def _check_lengths(fields: dict[str, Any], at: str) -> None:
  count = len(fields['labels'])
  for length in map(len, jax.tree.leaves(fields)):
    if length != count:
      raise UserError(f'{at} has {count} labels for {length} inputs')


def check(
  batch: dict[str, Any], numbers: np.ndarray, num_classes: int, *, at: str
) -> None:
  """Refuses labels that are out of range and inputs that are not finite.

  Args:
    batch: as from `Examples.fetch`.
    numbers: of the examples in the batch, int [n].
    num_classes: labels are 0, ..., num_classes - 1.
    at: what to call the split in errors.

  Raises:
    UserError: naming the first example that is wrong.
  """
  labels = batch['labels']
  wrong = (labels < 0) | (labels >= num_classes)
  if 'valid' in batch:
    _check_valid(batch, numbers, at)
    wrong &= batch['valid']
  for i, *rest in np.argwhere(wrong):
    raise UserError(
      f'{at}: example {numbers[i]} has the label {labels[i, *rest]}, which is '
      f'not one of 0 to {num_classes - 1}'
    )
  for leaf in jax.tree.leaves(batch['inputs']):
    # A sum tells whether there is any, faster than a look at each.
    if leaf.dtype.kind == 'f' and not np.isfinite(leaf.sum(dtype=np.float64)):
      finite = np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1)
      for i in np.flatnonzero(~finite):
        raise UserError(
          f'{at}: example {numbers[i]} holds NaN or infinity; repair it or '
          'leave it out'
        )


def _check_valid(batch: dict[str, Any], numbers: np.ndarray, at: str) -> None:
  labels, valid = batch['labels'], batch['valid']
  if valid.shape != labels.shape or valid.dtype != bool:
    raise UserError(
      f'{at}: the field valid of example {numbers[0]} is {valid.dtype} '
      f'{list(valid.shape[1:])}; it must be bool {list(labels.shape[1:])}, as '
      'its labels are'
    )


def checked(examples: Examples, num_classes: int, *, at: str) -> Examples:
  """The examples under `check`: now if in memory, else when asked for."""
  if isinstance(examples, ArrayExamples):
    for start in range(0, len(examples), 4096):
      numbers = np.arange(start, min(start + 4096, len(examples)))
      check(examples.fetch(numbers), numbers, num_classes, at=at)
    return examples

  def fetch(numbers):
    batch = examples.fetch(numbers)
    check(batch, numbers, num_classes, at=at)
    return batch

  return StreamedExamples(len(examples), fetch, lambda: examples.labels)


def held(examples: StreamedExamples) -> ArrayExamples | StreamedExamples:
  """The examples in memory, if they are small; else as they are."""
  if not len(examples):
    return examples
  one = jax.tree.leaves(examples.fetch(np.arange(1)))
  if len(examples) * sum(leaf.nbytes for leaf in one) > IN_MEMORY:
    return examples
  return ArrayExamples(**examples.fetch(np.arange(len(examples))))


def take(examples: Examples, indices: np.ndarray) -> Examples:
  """The examples of these numbers alone, int [n], numbered anew."""
  if isinstance(examples, ArrayExamples):
    return ArrayExamples(**examples.fetch(indices))
  return StreamedExamples(
    len(indices),
    lambda numbers: examples.fetch(indices[numbers]),
    lambda: examples.labels[indices],
  )


def hold_out(examples: Examples, size: int) -> tuple[Examples, Examples]:
  """The rest, and ``size`` of the examples: stratified, always the same."""
  kinds = strata(examples.labels)
  chosen = stratified(kinds, size, np.random.default_rng(0))
  rest, out = np.flatnonzero(~chosen), np.flatnonzero(chosen)
  return take(examples, rest), take(examples, out)
