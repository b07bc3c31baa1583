"""Which member sees which examples: sampling weights over a split.

A fraction of the data, folds, bootstrap samples and subsets of classes are all
one thing: a matrix [members, examples] of weights of at least 0, in proportion
to which the loader draws. Draws are keyed by name, so a change of the partition
leaves the examples of the fraction as they were.

What is drawn are single examples, or units of them: all frames of an utterance,
all images of a patient.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from jaxkd import keys
from jaxkd.data.index import LabelIndex
from jaxkd.errors import UserError, unknown

DRAWS = ('own', 'shared')
PARTITIONS = (
  'none',
  'disjoint',
  'bootstrap',
  'classes',
  'without:3,7',
  'first:100',
)


def seed_of(seed: int, who: str, draw: str) -> int:
  """The seed from which a group's part of the data is drawn.

  Args:
    seed: of the member.
    who: 'students' or 'teachers/NAME'.
    draw: 'own', or 'shared' where all groups of a seed have the same part.

  Raises:
    UserError: an unknown draw.
  """
  if draw not in DRAWS:
    raise unknown('draw', draw, DRAWS, 'data.draw')
  return keys.seed(seed, 'data' if draw == 'shared' else f'data/{who}')


def weights(
  index: LabelIndex,
  *,
  fraction: float = 1.0,
  partition: str = 'none',
  count: int = 1,
  seed: int = 0,
  subsets: Sequence[Sequence[bool]] | None = None,
  units: np.ndarray | None = None,
  role: str = '',
) -> np.ndarray:
  """Sampling weights of members over the examples of a split.

  Args:
    index: of the labels of the N examples.
    fraction: share of the examples that any member sees, stratified by class,
      with at least one of each class.
    partition: how the members divide these. 'none': every member sees all.
      'disjoint': stratified folds. 'bootstrap': as many draws with replacement
      as there are examples; the weight is how often an example was drawn.
      'classes': the classes of the member's ``subsets``. 'without:3,7': all but
      these classes. 'first:100': the first 100 examples, which in sources with
      unlabelled examples are labelled.
    count: number of members.
    seed: of the draws; all members see the same fraction.
    subsets: for 'classes', bool [count, num_classes].
    units: the unit of each example, int [N]. Then the fraction is one of the
      units, folds and bootstrap samples consist of whole units, and 'first:100'
      is the first 100 units in the order of their first examples. Draws are
      stratified if each unit has examples of a single class, and otherwise
      not. None if each example is a unit.
    role: 'teachers' or 'students', for errors.

  Returns:
    Weights float32 [count, N]; an example of weight 0 is never seen.

  Raises:
    UserError: no such partition, a fraction outside (0, 1], a member without
      examples, or units that are all one.
  """
  labels = index.classes
  at = f'.{role}' if role else ''
  # What is drawn has a class too: `drawn` [U]. `unit_of` [N] is its number.
  drawn, unit_of = _units(labels, units, f'data.unit{at}')
  seen = _fraction(drawn, fraction, seed, f'data.fraction{at}')
  at = f'data.partition{at}'
  name, _, argument = str(partition).partition(':')
  if (subsets is not None) != (name == 'classes'):
    raise UserError(f"{at}: 'classes', and only it, needs subsets of classes")

  if name in ('classes', 'without') and index.each:
    raise UserError(
      f'{at}: {partition!r} needs one class for each example, and these have '
      f"{' x '.join(map(str, index.each))} labels; use 'none'"
    )
  if partition == 'none':
    members = np.ones((count, len(drawn)), bool)
  elif partition == 'disjoint':
    members = _folds(drawn, seen, count, _generator(seed, 'disjoint'), at)
  elif partition == 'bootstrap':
    n = seen.sum()
    members = np.zeros((count, len(drawn)))
    for m in range(count):
      sample = _generator(seed, 'bootstrap', m).integers(n, size=n)
      members[m, seen] = np.bincount(sample, minlength=n)
  elif partition == 'classes':
    subsets = np.asarray(subsets, bool)
    if subsets.shape[:1] != (count,) or subsets.shape[1:] <= (labels.max(),):
      raise UserError(
        f'{at}: subsets of shape {subsets.shape} do not fit {count} members '
        f'and {labels.max() + 1} classes'
      )
    examples = subsets[:, labels]
  elif name == 'without' and argument:
    examples = np.tile(
      ~np.isin(labels, _classes(argument, labels, at)), (count, 1)
    )
  elif name == 'first' and argument:
    first = np.arange(len(drawn)) < _number(argument, len(drawn), at)
    members = np.tile(first, (count, 1))
  else:
    raise unknown('partition', partition, PARTITIONS, at)

  if name not in ('classes', 'without'):
    examples = members[:, unit_of]
  examples = (examples * seen[unit_of]).astype(np.float32)
  for m in np.flatnonzero(~examples.any(axis=1)):
    raise UserError(f'{at}: {partition!r} leaves member {m} without examples')
  return examples


def left_out(partition: str) -> tuple[int, ...]:
  """The classes that a partition of ``'without:3,7'`` leaves out."""
  name, _, text = str(partition).partition(':')
  words = text.split(',') if name == 'without' else ()
  # What is no number is refused by `weights`.
  return tuple(int(word) for word in words if word.strip().isdecimal())


def numbered(units: np.ndarray) -> np.ndarray:
  """Units numbered from 0 in the order of their first examples, int [N]."""
  _, first, number = np.unique(units, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[number]


def classes_of(labels: np.ndarray, units: np.ndarray) -> np.ndarray:
  """The class of each unit, for stratified draws of units.

  Args:
    labels: the class of each example, int [N].
    units: the unit of each example, int [N], from `numbered`.

  Returns:
    Int [U]; all 0 if some unit has examples of several classes.
  """
  _, first = np.unique(units, return_index=True)
  classes = labels[first]
  pure = (classes[units] == labels).all()
  return classes if pure else np.zeros_like(classes)


def stratified(
  labels: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
  """A random subset with the proportions of the classes, to within one example.

  Args:
    labels: int [N].
    size: examples to choose, from 0 to N.
    generator: of the draw.

  Returns:
    Which examples were chosen, bool [N], ``size`` of them true.
  """
  # Every k-th of the examples in order of class, the order within a class
  # drawn at random; k need not be a whole number.
  steps = np.arange(len(labels) + 1) * size // max(len(labels), 1)
  chosen = np.zeros(len(labels), bool)
  chosen[_by_class(labels, generator)] = np.diff(steps) > 0
  return chosen


def _units(
  labels: np.ndarray, units: np.ndarray | None, at: str
) -> tuple[np.ndarray, np.ndarray]:
  """The class of each unit, int [U], and the unit of each example, int [N]."""
  if units is None:
    return labels, np.arange(len(labels))
  unit_of = numbered(units)
  if not unit_of.any():
    raise UserError(
      f'{at}: all {len(labels)} examples are one unit, which leaves nothing to '
      'draw; name another field, or leave it empty'
    )
  return classes_of(labels, unit_of), unit_of


def _by_class(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
  order = generator.permutation(len(labels))
  return order[np.argsort(labels[order], kind='stable')]


def _generator(seed: int, *names: str | int) -> np.random.Generator:
  words = [zlib.crc32(n.encode()) if isinstance(n, str) else n for n in names]
  return np.random.default_rng([seed, *words])


def _fraction(
  labels: np.ndarray, fraction: float, seed: int, at: str
) -> np.ndarray:
  if not 0 < fraction <= 1:
    raise UserError(f'{at}: {fraction} is not above 0 and at most 1')
  if fraction == 1:
    return np.ones(len(labels), bool)
  generator = _generator(seed, 'fraction')
  chosen = stratified(labels, round(fraction * len(labels)), generator)
  for missing in np.setdiff1d(labels, labels[chosen]):
    chosen[generator.choice(np.flatnonzero(labels == missing))] = True
  return chosen


def _folds(
  labels: np.ndarray,
  seen: np.ndarray,
  count: int,
  generator: np.random.Generator,
  at: str,
) -> np.ndarray:
  """Bool [count, N]: each seen example in one fold, of sizes within one."""
  if count > seen.sum():
    raise UserError(
      f'{at}: {count} disjoint folds need as many examples, and there are '
      f'{seen.sum()}'
    )
  order = _by_class(labels, generator)
  order = order[seen[order]]
  fold = np.full(len(labels), -1)
  fold[order] = np.arange(len(order)) % count
  return fold == np.arange(count)[:, None]


def _classes(text: str, labels: np.ndarray, at: str) -> list[int]:
  try:
    classes = [int(word) for word in text.split(',')]
  except ValueError:
    raise UserError(
      f"{at}: cannot read 'without:{text}'; write class numbers as in "
      "'without:3,7'"
    ) from None
  absent = np.setdiff1d(classes, labels)
  if absent.size:
    raise UserError(
      f"{at}: 'without:{text}' leaves out class {absent[0]}, of which there "
      'are no examples'
    )
  return classes


def _number(text: str, most: int, at: str) -> int:
  if not text.isdecimal() or not 1 <= int(text) <= most:
    raise UserError(
      f"{at}: cannot take 'first:{text}'; write a number of examples from 1 to "
      f"{most}, as in 'first:{most}'"
    )
  return int(text)
