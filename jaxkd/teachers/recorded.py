"""A teacher that is a file of its outputs.

The rows of a file are the examples of a split, in their order or by their
numbers, ``id``. A file may have beside the outputs what confirms that: the
``checksum`` of the inputs, which `save` writes, or ``labels``. Where it has
neither, rows are refused that agree with the labels no better than in a random
order.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxkd import files, shapes
from jaxkd.data import array_files, cache, fingerprint, passes
from jaxkd.data.array_files import ArrayFile
from jaxkd.data.examples import Examples
from jaxkd.data.sources import Source
from jaxkd.errors import UserError
from jaxkd.models.external import OUTPUTS
from jaxkd.tasks import mistaken
from jaxkd.teachers import external

SPLIT = '{split}'  # in a path, stands for the name of a split
SPLITS = ('train', 'validation', 'test')
_ID, _LABELS = 'id', 'labels'
_FAR = 4.0  # standard deviations from chance
_SOME = 256  # examples of tokens or pixels whose order is looked at
_SAME = 1e-3  # of a standard deviation, by which equal values may differ


class _Table(NamedTuple):
  """The outputs for a split.

  Attributes:
    path: of the file.
    arrays: output -> array of the file.
    rows: of these, the row of each example of the split, int [N].
    told_by: what says that they are the right ones; empty for nothing.
    is_confirmed: whether that is compared with the data.
  """

  path: Path
  arrays: Mapping[str, Any]
  rows: np.ndarray
  told_by: tuple[str, ...]
  is_confirmed: bool


class Recorded:
  """See `jaxkd.teachers.external.External`.

  Args:
    restore: ``outputs:PATH``. PATH is a file, a folder with one for each split,
      or has ``{split}`` in it.
    source: the data.
    classes: of the logits.
    at: the config entry of the group, as ``teachers.main``.
    kind: what logits are, see `jaxkd.tasks`.

  Raises:
    UserError: there is no such file, or what it holds is not for these data.
  """

  def __init__(
    self,
    restore: str,
    source: Source,
    classes: int,
    at: str,
    kind: str = 'softmax',
  ):
    self.name, self._at = restore, f'{at}.restore'
    paths = paths_of(restore, at=self._at)
    self._tables: dict[str, _Table] = {}
    opened: dict[Path, ArrayFile] = {}
    for split in source.splits:
      path = paths.get(split, paths.get(''))
      if path is not None:
        if path not in opened:
          opened[path] = array_files.read(path, unnamed='logits', at=self._at)
        alone = paths.get(split) is None
        table = self._table(path, opened[path], source, split, alone)
        self._tables |= {split: table} if table else {}
    self.splits = frozenset(self._tables)
    if 'train' not in self.splits:
      raise UserError(
        f'{self._at}: there are no outputs of train, which the students learn '
        f'from; name a file of them, or several as {OUTPUTS}PATH{SPLIT}.npz'
      )
    self.shapes = _shapes(self._tables['train'])
    for table in self._tables.values():
      if _shapes(table) != self.shapes:
        raise UserError(
          f'{self._at}: {table.path} has the outputs {_said(_shapes(table))} '
          f'and train {_said(self.shapes)}; give the same for all splits'
        )
    each = source.splits['train'].index.each
    if 'logits' in self.shapes:
      shape = self.shapes['logits'].shape
      external.check_logits(shape, classes, each, self._at)
    self._kind, self._sign = kind, mistaken.sign(kind, source.standardized)
    self._are_ours = 'logits' in self.shapes and classes == source.num_classes
    self._judged = self._are_ours and not each
    agreement = {
      split: self._agreement(split, source.splits[split])
      for split in self._tables
    }
    self.checksum = checksum(restore, at=self._at)
    self.notes = self._notes(at.rpartition('.')[2], agreement)

  def outputs(
    self,
    split: str,
    numbers: np.ndarray,
    inputs: Callable[[], Any] = lambda: None,
  ) -> dict[str, np.ndarray]:
    """See `External`; the inputs are not looked at."""
    del inputs
    table = self._tables[split]
    where = f'{self._at}: {table.path}'
    found = {}
    for name, array in table.arrays.items():
      values = array_files.rows(array, table.rows[numbers], at=where)
      found[name] = external.checked(values, numbers, name, where)
    return found

  def _table(
    self,
    path: Path,
    file: ArrayFile,
    source: Source,
    split: str,
    alone: bool,
  ) -> _Table | None:
    """The outputs for a split, checked against the data.

    None where a file that is alone is not for this split.
    """
    where, examples = f'{self._at}: {path}', source.splits[split]
    arrays = dict(file.arrays)
    lengths = {name: int(x.shape[0]) for name, x in arrays.items()}
    count = next(iter(lengths.values()))
    for name, other in lengths.items():
      if other != count:
        first = next(iter(lengths))
        raise UserError(
          f'{where} has {count:,} rows of {first} and {other:,} of {name}; '
          'write equally many'
        )
    origin = source.origins.get(split)
    if count == len(examples) and (split == 'train' or not alone):
      rows = np.arange(count)
    elif origin is not None and count == origin.count:
      rows = origin.numbers
    elif split != 'train' and alone:
      return None
    else:
      held = (
        f', or {origin.count:,} with those that were held out from it'
        if origin
        else ''
      )
      raise UserError(
        f'{where} has {count:,} rows, and {split} of {source.name} has '
        f'{len(examples):,} examples{held}; write a row for each'
      )
    told_by, is_confirmed = [], bool(file.checksum) or _LABELS in arrays
    if _ID in arrays:
      rows = _by_id(arrays.pop(_ID), count, where)[rows]
      told_by.append('their id')
    if _LABELS in arrays:
      _check_labels(arrays.pop(_LABELS), rows, examples, source, split, where)
      told_by.append('their labels')
    if file.checksum:
      if file.checksum != fingerprint.of_examples(examples)['inputs']:
        raise UserError(
          f'{where} was written for other inputs than those of {split} of '
          f'{source.name}, whose checksum is another; write it for these, or '
          'set data to those that it is of'
        )
      told_by.append('the checksum of the inputs')
    if not arrays:
      raise UserError(
        f'{where} has no outputs; write logits, or layers, by name'
      )
    return _Table(path, arrays, rows, tuple(told_by), is_confirmed)

  def _agreement(self, split: str, examples: Examples) -> str:
    """Reads all outputs, and says how well they agree with the labels.

    Raises:
      UserError: values that are not numbers, or are no logits, or an agreement
        that any order would have.
    """
    table, labels = self._tables[split], examples.index.classes
    size = sum(4 * int(np.prod(x.shape[1:])) for x in table.arrays.values())
    guesses, total, moments = np.zeros(len(labels), int), 0, None
    for numbers in passes.parts(len(labels), size, 'reading outputs'):
      found = self.outputs(split, numbers)
      if 'logits' in found:
        logits, own = found['logits'], examples.labels
        own = own if own is None else own[numbers]
        if self._sign:
          total += self._sign.sums(logits, own)
        if self._judged:
          guesses[numbers] = logits.argmax(-1)
        elif self._kind != 'softmax' and np.shape(own) == logits.shape:
          added = _moments(logits, own, _known(examples, numbers))
          moments = added if moments is None else moments + added
    sign = self._sign if 'logits' in table.arrays else None
    if sign and sign.holds(total, len(labels)):
      raise UserError(f'{self._at}: the logits in {table.path} {sign.said}')
    if self._judged:
      found = float((guesses == labels).mean())
      chance, spread = _chance(guesses, labels)
      said = f'the largest logit is that of the label for {found:.1%} of them'
      other = f'{chance:.1%}'
    elif moments is not None:
      found, chance, spread = _correlation(moments), 0, len(labels) ** -0.5
      said = f'their correlation with the labels is {found:.2f}'
      other = f'{chance:.2f}'
    elif self._kind == 'softmax' and self._are_ours:
      return self._agreement_of_positions(split, examples)
    else:
      return ''
    # Of few examples no more than half of what is above chance can be asked.
    least = min(chance + _FAR * spread, (1 + chance) / 2)
    if not table.is_confirmed and found <= least:
      raise self._of_others(split, said, other)
    return said

  def _agreement_of_positions(self, split: str, examples: Examples) -> str:
    """The same of tokens or pixels: of some examples, against their neighbours.

    Raises:
      UserError: rows that agree with other examples as well as with their own.
    """
    numbers = np.linspace(0, len(examples) - 1, min(len(examples), _SOME))
    numbers = np.unique(numbers.astype(int))
    guesses = self.outputs(split, numbers)['logits'].argmax(-1)
    batch = examples.fetch(numbers)
    labels = batch[_LABELS]
    if guesses.shape != labels.shape:
      return ''
    valid = batch.get('valid', np.ones(labels.shape, bool))
    labels, guesses, valid = (
      x.reshape(len(numbers), -1) for x in (labels, guesses, valid)
    )

    def agreement(by):
      other, counts = np.roll(guesses, by, 0), valid & np.roll(valid, by, 0)
      right = ((other == labels) & counts).sum(1)
      return right / np.maximum(counts.sum(1), 1)

    own, others = agreement(0), agreement(1)
    gap, spread = own - others, max(len(numbers) - 1, 1) ** -0.5
    said = (
      f'the largest logit is that of the label for {own.mean():.1%} of them'
    )
    is_confirmed = self._tables[split].is_confirmed
    if not is_confirmed and gap.mean() <= _FAR * spread * gap.std():
      raise self._of_others(split, said, f'{others.mean():.1%}')
    return said

  def _of_others(self, split: str, said: str, other: str) -> UserError:
    return UserError(
      f'{self._at}: of the rows of {split} in {self._tables[split].path} '
      f'{said}, and rows in a random order would have {other}, so they seem to '
      'be of other examples; write them in the order of the data, or with '
      'their numbers as id, or with their labels or a checksum if they are '
      'right (docs/teachers.md)'
    )

  def _notes(self, name: str, agreement: Mapping[str, str]) -> tuple[str, ...]:
    notes = []
    for split, table in self._tables.items():
      by = ' and '.join(table.told_by)
      said = (
        f'matched by {by}' if by else 'taken to be in the order of the data'
      )
      if agreement[split]:
        said += f', and {agreement[split]}'
      notes.append(
        f'the outputs of the teachers {name} for {split}, '
        f'{_said(self.shapes)}, are in {table.path}; its rows are {said}'
      )
    return tuple(notes)


def save(
  path: str | Path, examples: Examples, outputs: Mapping[str, np.ndarray]
) -> Path:
  """Writes outputs with the checksum of the inputs that they are of.

  Args:
    path: of the `.npz` file.
    examples: a split, as ``sources.load('digits').splits['train']`` of
      `jaxkd.data`.
    outputs: ``logits`` and perhaps layers, by name, each [N, ...] in the order
      of the examples.

  Returns:
    The path.

  Raises:
    UserError: outputs of another number of examples, or that are not numbers.
  """
  path = files.path(path, at='path')
  if path.suffix != '.npz':
    raise UserError(f'{path} should end in .npz, the format that is written')
  made = {}
  for name, values in outputs.items():
    values = np.asarray(values)
    if name in (_ID, _LABELS, array_files.CHECKSUM):
      raise UserError(f'{name} cannot be the name of an output; rename it')
    if values.shape[:1] != (len(examples),):
      raise UserError(
        f'the output {name} is {list(values.shape)}, and there are '
        f'{len(examples):,} examples; give a row for each'
      )
    numbers = np.arange(len(values))
    made[name] = external.checked(values, numbers, name, 'outputs')
  checksum = fingerprint.of_examples(examples)['inputs']
  with files.replacing(path) as draft, draft.open('wb') as file:
    np.savez(file, **made, **{array_files.CHECKSUM: np.array(checksum)})
  return path


def paths_of(restore: str, *, at: str) -> dict[str, Path]:
  """The files that ``outputs:PATH`` names, by split; '' for one that is alone.

  Raises:
    UserError: there are none, or several of one split.
  """
  text = restore.removeprefix(OUTPUTS)
  if not text:
    raise UserError(f'{at}: name a file of outputs, {OUTPUTS}PATH')
  if SPLIT in text:
    named = {s: files.path(text.replace(SPLIT, s), at=at) for s in SPLITS}
    found = {split: path for split, path in named.items() if path.exists()}
    return found or {'train': named['train']}
  path = files.path(text, at=at)
  if not path.is_dir() or path.suffix == '.zarr':
    return {'': path}
  found = {}
  for split in SPLITS:
    there = [
      own
      for ending in array_files.ENDINGS
      if (own := path / f'{split}{ending}').exists()
    ]
    if len(there) > 1:
      raise UserError(
        f'{at}: {path} has {" and ".join(own.name for own in there)}; keep one '
        'of them'
      )
    if there:
      found[split] = there[0]
  if not found:
    raise UserError(
      f'{at}: the folder {path} has no file of outputs; name them train.npz '
      f'(or {", ".join(array_files.ENDINGS)}) and so on'
    )
  return found


def checksum(restore: str, *, at: str) -> str:
  """SHA-256 of the files that ``outputs:PATH`` names.

  Raises:
    UserError: one of them is missing or cannot be read.
  """
  found = {
    split: array_files.fingerprint(path, at=at)
    for split, path in paths_of(restore, at=at).items()
  }
  text = repr(sorted(found.items())).encode()
  return cache.fingerprint([np.frombuffer(text, np.uint8)])


def _shapes(table: _Table) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    name: jax.ShapeDtypeStruct(tuple(x.shape[1:]), np.float32)
    for name, x in sorted(table.arrays.items())
  }


def _said(outputs: Mapping[str, jax.ShapeDtypeStruct]) -> str:
  return ', '.join(
    f'{name} of {shapes.said(x.shape) if x.shape else "one number"}'
    for name, x in outputs.items()
  )


def _by_id(id: Any, count: int, where: str) -> np.ndarray:
  """The row of each example, of the number of the example of each row."""
  id = array_files.rows(id, np.arange(count), at=where)
  if id.ndim != 1 or id.dtype.kind not in 'iu':
    raise UserError(
      f'{where} has id of {id.dtype} {list(id.shape)}; write the number of the '
      'example of each row, from 0'
    )
  wrong = (id < 0) | (id >= count)
  if wrong.any():
    raise UserError(
      f'{where} has the id {id[wrong][0]} among {count:,} rows; number the '
      f'examples from 0 to {count - 1:,}, each once'
    )
  rows = np.full(count, -1)
  rows[id] = np.arange(count)
  if (rows < 0).any():
    raise UserError(
      f'{where} has no row of example {np.flatnonzero(rows < 0)[0]} (id), and '
      'two of another; write each once'
    )
  return rows


def _check_labels(
  labels: Any,
  rows: np.ndarray,
  examples: Examples,
  source: Source,
  split: str,
  where: str,
) -> None:
  """Refuses labels that are not those of the examples."""
  for numbers in passes.parts(len(examples), 2**14, 'comparing labels'):
    ours = examples.labels
    ours = examples.fetch(numbers)[_LABELS] if ours is None else ours[numbers]
    theirs = array_files.rows(labels, rows[numbers], at=where)
    if theirs.dtype.kind not in 'biuf':
      raise UserError(
        f'{where} has labels of {theirs.dtype}; write the numbers of the '
        'classes, or leave them out'
      )
    if source.standardized:  # the file has them in their own unit
      means, scales = map(np.asarray, source.standardized)
      ours = ours * scales + means
      theirs = theirs[:, None] if theirs.shape == ours.shape[:1] else theirs
    if theirs.shape != ours.shape:
      raise UserError(
        f'{where} has labels of {list(theirs.shape[1:])} for an example, and '
        f'{source.name} of {list(ours.shape[1:])}; leave them out, or write '
        'those of the data'
      )
    gap = theirs != ours
    if source.standardized:
      gap = ~(np.abs(theirs - ours) <= _SAME * scales)
    for i in np.flatnonzero(gap.reshape(len(ours), -1).any(1))[:1]:
      raise UserError(
        f'{where} has the label {theirs[i]} for example {numbers[i]} of '
        f'{split}, and {source.name} has {ours[i]}: the rows are of other '
        'examples; write them in the order of the data, or their numbers as id'
      )


def _chance(guesses: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
  """The agreement of guesses in a random order, and its standard deviation."""
  size = 1 + max(guesses.max(), labels.max())
  shares = [np.bincount(x, minlength=size) / len(x) for x in (guesses, labels)]
  chance = float(shares[0] @ shares[1])
  return chance, float(np.sqrt(chance * (1 - chance) / len(labels)))


def _known(examples: Examples, numbers: np.ndarray) -> np.ndarray:
  """Which labels of examples in memory are known, bool [n, K] or [n, 1]."""
  valid = examples.fetch(numbers[:1]).get('valid')
  if valid is None:
    return np.ones((len(numbers), 1), bool)
  return examples.fetch(numbers)['valid']


def _moments(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Sums over examples that correlations are computed from, [6, K]."""
  x, y = x.astype(np.float64), y.astype(np.float64)
  with np.errstate(invalid='ignore'):  # of classes that are ruled out
    each = np.ones_like(x), x, y, x * x, y * y, x * y
    return np.stack([np.where(counts, value, 0).sum(0) for value in each])


def _correlation(moments: np.ndarray) -> float:
  """The mean over the columns of that of x and y; NaN if none varies."""
  n, x, y, xx, yy, xy = moments
  both = (n * xx - x * x) * (n * yy - y * y)
  varies = both > 0
  if not varies.any():
    return float('nan')
  return float(np.mean((n * xy - x * y)[varies] / np.sqrt(both[varies])))
