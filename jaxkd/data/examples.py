"""The examples of a split: their interface, checks and divisions."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import jax
import numpy as np

from jaxkd.data import index as index_lib
from jaxkd.data import passes, positions
from jaxkd.data.index import LabelIndex
from jaxkd.data.partition import classes_of, numbered, stratified
from jaxkd.errors import UserError, unknown

IN_MEMORY = 2**30  # bytes of decoded examples
# A field of examples whose labels are measured values, float [D], and not
# classes: the unit in which they are, float [D].
SCALE = 'label_scale'
_ROUNDING = 1e-5  # by which pixels may exceed their range
_USUAL = (-1, 1), (0, 255), (0, 65535)  # other usual ranges of pixels


class Examples(Protocol):
  """The interface of a split; any object with these members will do.

  Attributes:
    labels: the class of each example, int32 [N]; or measured values, float32
      [N, D], where the examples have the field `SCALE`. Where an example has
      many labels, e.g. one for each token or pixel, they are read by `fetch`;
      then this is None, or [N, ...] if all are in memory anyway.
    index: statistics of all labels; a user's own class may leave it out.
  """

  labels: np.ndarray | None
  index: LabelIndex

  def __len__(self) -> int:
    """The number of examples, N."""

  def fetch(self, indices: np.ndarray) -> dict[str, Any]:
    """Reads the examples with these numbers, int [n].

    Returns:
      ``inputs``, an array [n, ...] or a pytree of them, ``labels``, int32
      [n, ...], and any further fields of a batch, each [n, ...]. Where some
      labels are padding or void, ``valid``, bool of their shape, marks those
      that count.
    """


class ArrayExamples:
  """Examples in memory."""

  def __init__(self, inputs: Any, labels: np.ndarray, **fields: Any):
    """Takes the arrays as they are.

    Args:
      inputs: array [N, ...], or a pytree of them.
      labels: whole numbers [N, ...]; or, with a field `SCALE`, measured
        values [N, D].
      **fields: further fields of a batch, [N, ...].

    Raises:
      UserError: labels of another kind, or arrays of different lengths.
    """
    as_given = as_values if SCALE in fields else as_labels
    self.labels = as_given(labels, 'data.source')
    self._fields = {'inputs': inputs, 'labels': self.labels, **fields}
    check_lengths(self._fields, 'data.source')

  def __len__(self) -> int:
    return len(self.labels)

  @functools.cached_property
  def index(self) -> LabelIndex:
    return index_lib.of(self.labels, self._fields.get('valid'))

  def fetch(self, indices: np.ndarray) -> dict[str, Any]:
    return jax.tree.map(lambda x: x[indices], self._fields)

  def field(self, name: str) -> Any:
    """One of the fields of all examples, [N, ...]."""
    return self._fields[name]


class StreamedExamples:
  """Examples that are read on demand.

  Attributes:
    read_labels: reads ``labels`` and perhaps ``valid`` of the examples with
      given numbers, as `fetch` does, but may skip all other fields.
    name: the key of their index in the cache, from
      `jaxkd.data.file_cache.key`; empty for no caching.
    content: the key of the checksums of their other fields in the cache, which
      changes with all that ``fetch`` depends on; empty for no caching.
  """

  def __init__(
    self,
    size: int,
    read: Callable[[np.ndarray], dict[str, Any]],
    labels: Callable[[], np.ndarray | LabelIndex | None] = lambda: None,
    *,
    read_labels: Callable[[np.ndarray], dict[str, Any]] | None = None,
    name: str = '',
    content: str = '',
  ):
    """Reads nothing yet.

    Args:
      size: number of examples.
      read: what `fetch` does.
      labels: gives the class of each example, int [size], or the index of the
        labels, if either is known without reading; called once, when needed.
      read_labels: by default ``read``.
      name: of the index in the cache.
      content: of the checksums in the cache.
    """
    self._size, self.fetch, self._labels = size, read, labels
    self.read_labels, self.name = read_labels or read, name
    self.content = content
    self._found: dict[str, np.ndarray] = {}

  def __len__(self) -> int:
    return self._size

  @functools.cached_property
  def index(self) -> LabelIndex:
    found = self._given
    if isinstance(found, LabelIndex):
      return found
    if found is not None and 'valid' not in self.fetch(np.arange(1)):
      return index_lib.of(found)
    return index_lib.cached(
      self.name, lambda: index_lib.read(self._size, self._checked_labels)
    )

  @property
  def labels(self) -> np.ndarray | None:
    if isinstance(self._given, np.ndarray):
      return self._given
    return None if self.index.each else self.index.classes

  @functools.cached_property
  def _given(self) -> np.ndarray | LabelIndex | None:
    """Classes or index, if known without reading; else None."""
    found = self._labels()
    if found is None or isinstance(found, LabelIndex):
      return found
    found = as_labels(found, 'data.source')
    return None if found.ndim > 1 else found

  def field(self, name: str) -> np.ndarray:
    """A field of one number for each example, [N]; read once, in one pass."""
    if name not in self._found:
      each = passes.nbytes(self.fetch(np.arange(1)))
      parts = passes.parts(self._size, each, f'reading {name}')
      read = passes.read(lambda numbers: self.fetch(numbers)[name], parts)
      self._found[name] = np.concatenate([values for _, values in read])
    return self._found[name]

  def read_by(
    self,
    read: Callable[[np.ndarray], dict[str, Any]],
    *,
    content: str = '',
  ) -> 'StreamedExamples':
    """The same examples and labels under another function that reads them."""
    return StreamedExamples(
      self._size,
      read,
      lambda: self.index,
      read_labels=self.read_labels,
      name=self.name,
      content=content,
    )

  def take(self, indices: np.ndarray) -> 'StreamedExamples':
    """The examples with these numbers, int [n], renumbered from 0."""

    def labels():
      return None if self.index.each else self.index.classes[indices]

    chosen = np.ascontiguousarray(indices, np.int64).tobytes()

    def part_of(key):
      whole = hashlib.sha256(key.encode() + chosen)
      return key and whole.hexdigest()[:32]

    return StreamedExamples(
      len(indices),
      lambda numbers: self.fetch(indices[numbers]),
      labels,
      read_labels=lambda numbers: self.read_labels(indices[numbers]),
      name=part_of(self.name),
      content=part_of(self.content),
    )

  def _checked_labels(self, numbers: np.ndarray) -> dict[str, Any]:
    batch = self.read_labels(numbers)
    labels = as_labels(batch['labels'], 'data.source', numbers)
    if 'valid' in batch:
      _check_valid(batch, numbers, 'data.source')
    return {**batch, 'labels': labels}


def streamed(examples: Examples) -> StreamedExamples:
  """A user's own examples as `StreamedExamples`."""
  if isinstance(examples, StreamedExamples):
    return examples

  def labels():
    if measured(examples):  # which are no classes
      return index_lib.of(examples.labels)
    return getattr(examples, 'labels', None)

  return StreamedExamples(len(examples), examples.fetch, labels)


def units(examples: Examples, field: str, at: str) -> np.ndarray | None:
  """The unit of each example, such as its utterance or patient.

  Args:
    examples: a split.
    field: whole numbers, one for each example; empty where each example is a
      unit of its own.
    at: the config entry that names the field, for errors.

  Returns:
    Int [N]; None for an empty field.

  Raises:
    UserError: no such field, or one of something else.
  """
  if not field:
    return None
  one = examples.fetch(np.arange(1))
  known = [name for name in one if name not in ('inputs', 'labels', 'valid')]
  if field not in known:
    raise unknown('field of the examples', field, known, at)
  shape, dtype = np.shape(one[field]), np.asarray(one[field]).dtype
  if len(shape) != 1 or dtype.kind not in 'iu':
    raise UserError(
      f'{at}: the field {field} is {dtype} {list(shape[1:])}; units are whole '
      'numbers, one for each example'
    )
  if not isinstance(examples, ArrayExamples):
    examples = streamed(examples)
  return np.asarray(examples.field(field))


def as_labels(
  labels: Any, at: str, numbers: np.ndarray | None = None
) -> np.ndarray:
  """Class numbers as int32.

  Args:
    labels: whole numbers [n, ...].
    at: what to call the examples in errors.
    numbers: of these examples, int [n]; 0, ..., n - 1 if they are all.

  Raises:
    UserError: something else; it names the first wrong example.
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


def as_values(labels: Any, at: str) -> np.ndarray:
  """Measured values as float32 [n, D].

  Raises:
    UserError: something else.
  """
  labels = np.asarray(labels)
  if labels.ndim != 2 or labels.dtype.kind not in 'biuf':
    raise UserError(
      f'{at} has labels of shape {labels.shape} and type {labels.dtype}; with '
      f'a field {SCALE} they must be numbers [examples, values]'
    )
  return labels.astype(np.float32, copy=False)


def measured(examples: Examples) -> bool:
  """Whether the labels are measured values and not classes."""
  return len(examples) > 0 and SCALE in examples.fetch(np.arange(1))


def as_numbers(
  x: np.ndarray, at: str, numbers: np.ndarray | None = None, *, images=True
) -> np.ndarray:
  """Converts inputs to the dtypes that nets take.

  Floats and booleans become float32. Integers become int32, except that uint8
  in images stays uint8. Images [n, H, W] get an axis of channels.

  Args:
    x: inputs [n, ...].
    at: what to call them in errors.
    numbers: of these examples, int [n]; 0, ..., n - 1 if they are all.
    images: whether uint8 means pixels, and arrays of three axes are images.

  Raises:
    UserError: not an array of numbers, integers that are too large, or integer
      pixels of unknown range.
  """
  what = f'{at} has inputs of shape {x.shape} and type {x.dtype}'
  if x.ndim < 1 or x.dtype.kind not in 'biuf':
    raise UserError(f'{what}; they must be numbers [examples, ...]')
  bytes_ = images and x.dtype == np.uint8
  if x.dtype.kind in 'iu' and not bytes_:
    if images and x.ndim > 2:
      raise UserError(
        f'{what}; give images as uint8, from 0 to 255, or as floats, from 0 to '
        '1, or give their range with data.kw.range=(LOW, HIGH)'
      )
    made = _as_int32(x)
    for i, *rest in np.argwhere(made != x):
      raise UserError(
        f'{at}: example {_number(i, numbers)} holds {x[i, *rest]}; whole '
        'numbers must have at most 32 bits'
      )
    return made
  if not bytes_:
    with np.errstate(over='ignore'):  # inf, which `check` refuses
      x = x.astype(np.float32, copy=False)
  return x[..., None] if images and x.ndim == 3 else x


def _number(i: int, numbers: np.ndarray | None) -> int:
  return i if numbers is None else numbers[i]


def _as_int32(x: np.ndarray) -> np.ndarray:
  """As int32; values out of its range become others, which callers check."""
  with np.errstate(invalid='ignore'):
    return x.astype(np.int32, copy=False)


def check_lengths(fields: dict[str, Any], at: str) -> None:
  """Refuses inputs and labels of different numbers of examples."""
  count = len(fields['labels'])
  for length in map(len, jax.tree.leaves(fields)):
    if length != count:
      raise UserError(f'{at} has {count} labels for {length} inputs')


def check(
  batch: dict[str, Any],
  numbers: np.ndarray,
  num_classes: int,
  *,
  at: str,
  limits: tuple[float, float] | None = (0.0, 1.0),
  fields: Mapping[str, str] = MappingProxyType({}),
) -> None:
  """Refuses labels and inputs that are out of range, or not finite.

  Args:
    batch: as from `Examples.fetch`.
    numbers: of the examples in the batch, int [n].
    num_classes: labels are 0, ..., num_classes - 1.
    at: what to call the split in errors.
    limits: the range of floats in images [n, H, W, C]; None for any.
    fields: kinds of fields that are not clear by name; see `Source.fields`.

  Raises:
    UserError: something is wrong; it names the first example.
  """
  positions.check(batch, numbers, fields, at)
  labels = batch['labels']
  if SCALE in batch:
    for i in np.flatnonzero(~np.isfinite(labels).all(axis=1)):
      raise UserError(
        f'{at}: example {numbers[i]} has a label that is NaN or infinite; '
        'repair it or leave it out'
      )
    wrong = np.zeros(labels.shape, bool)
  else:
    wrong = (labels < 0) | (labels >= num_classes)
  if 'valid' in batch:
    _check_valid(batch, numbers, at)
    wrong &= batch['valid']
  for i, *rest in np.argwhere(wrong):
    raise _no_class(numbers[i], labels[i, *rest], num_classes, at)
  for leaf in jax.tree.leaves(batch['inputs']):
    # A sum is faster than a look at each value, and is NaN or inf if any is.
    if leaf.dtype.kind == 'f' and not np.isfinite(leaf.sum(dtype=np.float64)):
      finite = np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1)
      for i in np.flatnonzero(~finite):
        raise UserError(
          f'{at}: example {numbers[i]} holds NaN or infinity; repair it or '
          'leave it out'
        )
    if leaf.dtype.kind == 'f' and leaf.ndim > 3 and leaf.size and limits:
      _check_limits(leaf, numbers, limits, at)


def _check_limits(
  pixels: np.ndarray,
  numbers: np.ndarray,
  limits: tuple[float, float],
  at: str,
) -> None:
  low, high = limits
  least, most = pixels.min(), pixels.max()
  if least >= low - _ROUNDING and most <= high + _ROUNDING:
    return
  rows = pixels.reshape(len(pixels), -1)
  odd = (rows < low - _ROUNDING) | (rows > high + _ROUNDING)
  i = odd.any(axis=1).argmax()
  usual = (f'{a, b}' for a, b in _USUAL if a <= least and b / 16 < most <= b)
  raise UserError(
    f'{at}: example {numbers[i]} holds {rows[i][odd[i]][0]:.6g}; floats in '
    f'images must be from {low:g} to {high:g}: give their range, '
    f"as in data.kw.range={next(usual, '(LOW, HIGH)')}, or 'any' to use them "
    "as they are, or data.kw.layout='features' if they are no images"
  )


def _check_valid(batch: dict[str, Any], numbers: np.ndarray, at: str) -> None:
  labels, valid = batch['labels'], batch['valid']
  if valid.shape != labels.shape or valid.dtype != bool:
    raise UserError(
      f'{at}: the field valid of example {numbers[0]} is {valid.dtype} '
      f'{list(valid.shape[1:])}; it must be bool {list(labels.shape[1:])}, as '
      'its labels are'
    )


def checked(
  examples: Examples,
  num_classes: int,
  *,
  at: str,
  **options: Any,
) -> Examples:
  """Applies `check`: at once to examples in memory, else as they are read."""
  if isinstance(examples, ArrayExamples):
    for start in range(0, len(examples), 4096):
      numbers = np.arange(start, min(start + 4096, len(examples)))
      batch = examples.fetch(numbers)
      check(batch, numbers, num_classes, at=at, **options)
    return examples

  def fetch(numbers):
    batch = examples.fetch(numbers)
    check(batch, numbers, num_classes, at=at, **options)
    return batch

  found = streamed(examples)
  return found.read_by(fetch, content=found.content)


def check_labels(examples: Examples, num_classes: int, *, at: str) -> None:
  """Refuses labels that are no class, and splits where no label counts.

  Args:
    examples: a split.
    num_classes: labels are 0, ..., num_classes - 1.
    at: what to call the split in errors.

  Raises:
    UserError: something is wrong; it names the first example.
  """
  if measured(examples):
    return
  index = examples.index
  wrong = index.earliest((index.values < 0) | (index.values >= num_classes))
  if wrong:
    raise _no_class(*wrong, num_classes, at)
  if not index.values.size:
    raise UserError(
      f'{at} has no label that counts; name other labels, or leave fewer of '
      'them out'
    )


def _no_class(number: int, label: int, num_classes: int, at: str) -> UserError:
  return UserError(
    f'{at}: example {number} has the label {label}, which is not one of 0 to '
    f'{num_classes - 1}'
  )


def changed(
  examples: Examples,
  change: Callable[[dict[str, Any], np.ndarray], dict[str, Any]],
  labels: Callable[[], np.ndarray] | None = None,
) -> ArrayExamples | StreamedExamples:
  """Maps batches: at once for examples in memory, else as they are read.

  Args:
    examples: a split.
    change: ``(batch, numbers) -> batch``, where numbers, int [n], are those of
      the examples.
    labels: gives the new class of each example, int [N], if it changes.
  """

  def fetch(numbers):
    return change(examples.fetch(numbers), numbers)

  if isinstance(examples, ArrayExamples):
    return ArrayExamples(**fetch(np.arange(len(examples))))
  if labels:
    return StreamedExamples(len(examples), fetch, labels)
  return streamed(examples).read_by(fetch)


def held(examples: StreamedExamples) -> ArrayExamples | StreamedExamples:
  """The examples, read into memory if they are small."""
  return in_memory(examples) if is_small(examples) else examples


def is_small(examples: Examples) -> bool:
  """Whether there are examples, of `IN_MEMORY` bytes at most."""
  count = len(examples)
  if not count:
    return False
  return count * passes.nbytes(examples.fetch(np.arange(1))) <= IN_MEMORY


def in_memory(examples: Examples) -> ArrayExamples:
  """The examples, one or more, read into memory."""
  count, one = len(examples), examples.fetch(np.arange(1))
  each = passes.nbytes(one)
  fields = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), one)
  parts = passes.parts(count, each, 'reading examples')
  for numbers, batch in passes.read(examples.fetch, parts):
    for whole, part in zip(
      jax.tree.leaves(fields), jax.tree.leaves(batch), strict=True
    ):
      whole[numbers[0] : numbers[-1] + 1] = part
  return ArrayExamples(**fields)


def take(examples: Examples, indices: np.ndarray) -> Examples:
  """The examples with these numbers, int [n], renumbered from 0."""
  if isinstance(examples, ArrayExamples):
    return ArrayExamples(**examples.fetch(indices))
  return streamed(examples).take(indices)


def hold_out(
  examples: Examples, size: int, units: np.ndarray | None = None
) -> tuple[Examples, Examples]:
  """The rest, and ``size`` of the examples; see `held_out`."""
  out = held_out(examples, size, units)
  rest, out = np.flatnonzero(~out), np.flatnonzero(out)
  return take(examples, rest), take(examples, out)


def held_out(
  examples: Examples, size: int, units: np.ndarray | None = None
) -> np.ndarray:
  """Which examples to hold out: stratified, always the same.

  Args:
    examples: a split.
    size: how many to hold out, examples or units.
    units: the unit of each example, int [N], which stays whole; stratified if
      each has examples of one class.

  Returns:
    bool [N].
  """
  kinds = examples.index.classes
  unit_of = np.arange(len(kinds)) if units is None else numbered(units)
  drawn = kinds if units is None else classes_of(kinds, unit_of)
  return stratified(drawn, size, np.random.default_rng(0))[unit_of]
