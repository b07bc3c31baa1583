"""One data set: its splits, and how they are checked and held out."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxkd import files as files_lib
from jaxkd import shapes as shapes_lib
from jaxkd.data import copies, listing, pixels, positions, targets
from jaxkd.data import examples as examples_lib
from jaxkd.data import labels as labels_lib
from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.data.images import image_files
from jaxkd.data.listing import Listing
from jaxkd.data.text.vocabulary import Vocabulary
from jaxkd.errors import UserError


class Origin(NamedTuple):
  """Where the examples of a split are in one that it was taken from.

  Attributes:
    numbers: of the examples there, int [n].
    count: how many are there.
  """

  numbers: np.ndarray
  count: int


class Source(NamedTuple):
  """A data set.

  Attributes:
    name: as in the config.
    splits: 'train', 'validation' (unless ``validation=0``) and 'test'.
    num_classes: labels are 0, ..., num_classes - 1.
    input_shape: shape of one example, or a pytree of shapes; see
      `jaxkd.shapes`.
    classes: the names of the classes.
    notes: sentences about the data, for the row.
    resize: side in pixels that image files are resized to, or height and width,
      by Pillow's bilinear filter; 0 for no resizing.
    vocabulary: number of tokens, where inputs are tokens; else 0.
    range: the range from which pixels were rescaled to 0 to 1, as given in
      ``data.kw.range``; empty for none.
    fields: kinds of fields that are not clear by name; see
      `jaxkd.data.positions`.
    unit: a field of whole numbers, such as the speaker or the patient, whose
      examples are all in one split; empty where each example stands alone.
    sizes: a hash of the names and sizes of its files, where these stay on disk;
      see `jaxkd.data.fingerprint`.
    tokenizer: how its texts became tokens, where it is for language models.
    origins: split -> where its examples are among those that the data came
      with, if some of these were held out for another split.
    standardized: the means and the standard deviations by which labels that are
      measured values were standardised; empty where none were.
  """

  name: str
  splits: dict[str, Examples]
  num_classes: int
  input_shape: Any
  classes: tuple[str, ...]
  notes: tuple[str, ...] = ()
  resize: image_files.Resize = 0
  vocabulary: int = 0
  range: tuple[float, ...] = ()
  fields: Mapping[str, str] = MappingProxyType({})
  unit: str = ''
  sizes: str = ''
  tokenizer: Vocabulary | None = None
  origins: Mapping[str, Origin] = MappingProxyType({})
  standardized: tuple[tuple[float, ...], ...] = ()


def of_classes(source: Source, kept: Mapping[str, Sequence[int]]) -> Source:
  """Keeps only some classes in each split, without renumbering them.

  So nets can be tested on classes that they have not seen. Validation has the
  classes of train by default: model selection must not see the test classes.

  Args:
    source: the data.
    kept: split -> class numbers; empty for all, and in validation for those of
      train.

  Raises:
    UserError: a class without examples in that split, or examples of many
      classes each.
  """
  kept = {split: tuple(classes) for split, classes in kept.items()}
  kept['validation'] = kept['validation'] or kept['train']
  if not any(kept.values()):
    return source
  splits, notes = dict(source.splits), []
  origins = dict(source.origins)
  for split, classes in kept.items():
    if not classes:
      continue
    index = splits[split].index
    if index.each:
      raise UserError(
        f'data.classes.{split}: examples of {source.name} are of many classes '
        'each; leave it empty'
      )
    for number in classes:
      if number not in index.values:
        raise UserError(
          f'data.classes.{split}: {source.name} has no example of class '
          f'{number} there; its classes are 0 to {source.num_classes - 1}'
        )
    numbers = np.flatnonzero(np.isin(index.classes, classes))
    whole = Origin(np.arange(len(splits[split])), len(splits[split]))
    origins[split] = _taken(origins.get(split, whole), numbers)
    splits[split] = examples_lib.take(splits[split], numbers)
    names = ', '.join(str(source.classes[number]) for number in classes)
    notes.append(f'{split} has {len(classes)} classes alone: {names}')
  return source._replace(
    splits=splits, notes=(*source.notes, *notes), origins=origins
  )


def make_source(
  name: str,
  splits: Mapping[str, Examples],
  validation: int | float | None,
  usual: float = 0.1,
  classes: Iterable[str] = (),
  conventions: Conventions | None = None,
  fields: Mapping[str, str] = MappingProxyType({}),
  unit: str = '',
) -> Source:
  """Checks the splits, and holds out the validation split if there is none.

  Args:
    name: of the source.
    splits: 'train', 'test' and perhaps 'validation'; or 'all', to be split
      60 : 20 : 20.
    validation: as in `load`.
    usual: the default of ``validation``, if there is a train split.
    classes: their names, if known; else the labels give their number.
    conventions: of the arrays; None for a source whose arrays are known.
    fields: as in `Source`.
    unit: as in `Source`.
  """
  first = first_split(name, splits)
  shapes, dtypes = {}, {}
  for split, examples in splits.items():
    if not len(examples):
      raise UserError(f'{split_entry(name, split)} is empty')
    one = examples.fetch(np.arange(1))['inputs']
    shapes[split] = shapes_lib.example(one)
    dtypes[split] = jax.tree.map(lambda x: x.dtype.name, one)
    if not all(leaf.size for leaf in jax.tree.leaves(one)):
      raise UserError(
        f'{split_entry(name, split)} has inputs of shape {shapes[split]}, '
        'which are empty'
      )
  for what, found in (('shape', shapes), ('type', dtypes)):
    for split, got in found.items():
      if got != found[first]:
        raise UserError(
          f'data.source: inputs of {name!r} have the {what} {found[first]} in '
          f'the split {first} and {got} in {split}; make them equal'
        )
  splits = {first: splits[first], **splits}
  at = {split: split_entry(name, split) for split in splits}
  if conventions:
    for split, examples in splits.items():
      pixels.check_brightness(examples, conventions, at[split])
  said = pixels.said_ranges(splits, conventions) if conventions else ()
  conventions = conventions or Conventions()
  classes, notes, unnamed = tuple(classes), (), not classes
  if unnamed:
    splits, classes, notes = labels_lib.numbered(splits, conventions, at)
  splits = {
    split: examples_lib.checked(
      examples,
      len(classes),
      at=at[split],
      limits=conventions.limits,
      fields=fields,
    )
    for split, examples in splits.items()
  }
  for split, examples in splits.items():
    examples_lib.check_labels(examples, len(classes), at=at[split])
    targets.check_measured(examples, at[split])
  one, *others = splits[first].index.values[:2].tolist() or [None]
  if one is not None and not others and not _has_objects(splits[first], fields):
    raise UserError(
      f'{at[first]} only has examples of the class {_named(one, classes)}; '
      'there must be two classes or more'
    )
  if unnamed and not (conventions.num_classes or conventions.classes):
    labels_lib.check_gaps(splits, at)
  _check_units(splits, unit, at)
  origins = {}
  if first == 'all':
    fifth, usual = max(1, round(_count(splits['all'], unit) / 5)), 0.25
    splits, origins = _hold_out(name, splits['all'], fifth, 'test', unit)
  if 'validation' not in splits:
    usual = usual if validation is None else validation
    held, inner = _hold_out(name, splits['train'], usual, 'validation', unit)
    if 'train' in origins:
      inner = {
        split: _taken(origins['train'], own.numbers)
        for split, own in inner.items()
      }
    splits, origins = {**splits, **held}, {**origins, **inner}
  elif validation is not None:
    raise UserError(
      f'data.kw.validation: {name!r} has a validation split of its own; remove '
      'the entry'
    )
  order = [s for s in ('train', 'validation', 'test') if s in splits]
  splits = {split: splits[split] for split in order}
  for split in origins:
    _check_counts(splits[split], split, name)
  notes = *notes, *said, *labels_lib.lacking(splits, classes)
  made = Source(name, splits, len(classes), shapes[first], classes, notes)
  return made._replace(
    range=conventions.ends, fields=fields, unit=unit, origins=origins
  )


def source_of_arrays(
  name: str,
  splits: Mapping[str, Sequence[Any]],
  validation: int | float | None,
  conventions: Conventions,
  unit: str = '',
) -> Source:
  """A source of inputs [N, ...], or pytrees of them, and labels, by split.

  With a unit, that of each example is the third: numbers or names, [N].
  """
  if conventions.labels:
    return _of_targets(name, splits, validation, conventions, unit)
  first = first_split(name, splits)
  splits = {first: splits[first], **splits}
  at = {split: split_entry(name, split) for split in splits}
  labels, classes, notes = labels_lib.read(
    {split: given[1] for split, given in splits.items()}, conventions, at
  )
  labels = {split: {'labels': own} for split, own in labels.items()}
  made = _in_arrays(splits, labels, conventions, unit, at)
  source = make_source(
    name, made, validation, classes=classes, conventions=conventions, unit=unit
  )
  notes = *notes, *source.notes, *copies.said(source.splits)
  return source._replace(notes=notes)


def _of_targets(name, splits, validation, conventions, unit) -> Source:
  """`source_of_arrays` of labels that are not one class."""
  first = first_split(name, splits)
  splits = {first: splits[first], **splits}
  at = {split: split_entry(name, split) for split in splits}
  labels, classes, centre = targets.read(
    {split: given[1] for split, given in splits.items()}, conventions, at
  )
  source = make_source(
    name,
    _in_arrays(splits, labels, conventions, unit, at),
    validation,
    classes=classes,
    conventions=conventions,
    fields=targets.FIELDS,
    unit=unit,
  )
  told = copies.said(source.splits)
  source = source._replace(notes=(*source.notes, *told))
  if conventions.labels == targets.MULTILABEL:
    notes = targets.lacking(source.splits, classes)
    return source._replace(notes=(*source.notes, *notes))
  made, standardized, notes = targets.standardized(
    source.splits, classes, centre, split_entry(name, 'train')
  )
  return source._replace(
    splits=made, standardized=standardized, notes=(*source.notes, *notes)
  )


def _in_arrays(
  splits: Mapping[str, Sequence[Any]],
  labels: Mapping[str, Mapping[str, np.ndarray]],
  conventions: Conventions,
  unit: str,
  at: Mapping[str, str],
) -> dict[str, Examples]:
  """The examples of each split, given the fields that their labels make."""
  units = {split: given[2] for split, given in splits.items()} if unit else {}
  units = _numbered(units, unit, at)
  made = {}
  for split, (inputs, *_) in splits.items():
    inputs = jax.tree.map(
      lambda x, at=at[split]: pixels.as_inputs(x, conventions, at), inputs
    )
    fields = {'inputs': inputs, **labels[split]}
    examples_lib.check_lengths(fields, at[split])
    if unit and len(units[split]) != len(fields['labels']):
      raise UserError(
        f'{at[split]} has {len(fields["labels"])} labels for '
        f'{len(units[split])} values of {unit}'
      )
    fields |= {unit: units[split]} if unit else {}
    made[split] = ArrayExamples(**fields)
  return made


def _numbered(
  units: Mapping[str, np.ndarray], unit: str, at: Mapping[str, str]
) -> dict[str, np.ndarray]:
  """Units by split, numbers or names [N], as numbers that all splits share."""
  for split, found in units.items():
    if found.ndim != 1 or found.dtype.kind not in 'iuU':
      raise UserError(
        f'{at[split]} has {unit} of shape {found.shape} and type '
        f'{found.dtype}; it must be a number or a name for each example'
      )
  if not units:
    return {}
  _, numbers = np.unique(
    np.concatenate([found.astype(str) for found in units.values()]),
    return_inverse=True,
  )
  ends = np.cumsum([len(found) for found in units.values()])[:-1]
  parts = np.split(numbers.astype(np.int32), ends)
  return dict(zip(units, parts, strict=True))


def in_memory(
  source: Source, given: Mapping[str, Examples]
) -> dict[str, Examples]:
  """The splits of a source, read into memory if those given were small.

  After they are split, to not hold them twice.
  """
  small = {split: examples_lib.is_small(own) for split, own in given.items()}
  first = next(iter(given))  # from which missing splits were held out
  return {
    split: examples_lib.in_memory(own)
    if small.get(split, small[first])
    else own
    for split, own in source.splits.items()
  }


def with_sizes(source: Source, files: Listing, top: Path) -> Source:
  """The source with the hash of its files' sizes, unless it is in memory.

  Args:
    source: the data.
    files: all that it has.
    top: the folder that they are in.
  """
  held = [isinstance(own, ArrayExamples) for own in source.splits.values()]
  return source._replace(sizes='' if all(held) else listing.sizes(files, top))


def first_split(name: str, splits: Mapping[str, Any]) -> str:
  """The split to learn from: 'train', or 'all' where it is the only one.

  Raises:
    UserError: splits of other names, or too few.
  """
  missing = {'train', 'test'} - splits.keys()
  odd = splits.keys() - {'train', 'validation', 'test'}
  if splits.keys() == {'all'}:
    return 'all'
  if missing or odd:
    raise UserError(
      f'data.source: {name!r} has the splits {", ".join(splits) or "(none)"}; '
      'it must have train and test, and may have validation, or one that is '
      "called 'all', to be split"
    )
  return 'train'


def with_validation(
  name: str,
  splits: Mapping[str, Sequence],
  validation: int | float | None,
  hold_out: Callable[[Sequence, int], tuple[Sequence, Sequence]],
  what: str,
) -> tuple[dict[str, Sequence], int | None]:
  """Texts, some of which are held out before a vocabulary is learnt.

  Args:
    name: of the source.
    splits: 'train', 'test' and perhaps 'validation'.
    validation: as in `make_source`, a tenth by default.
    hold_out: splits off so many, of which those that belong together stay so.
    what: they are, such as 'pairs'.

  Returns:
    The splits, and what `make_source` is to take for ``validation``.

  Raises:
    UserError: a split that is missing, or nothing left to train on.
  """
  for split in ('train', 'test'):
    if not splits.get(split):
      raise UserError(f'{split_entry(name, split)} is not there, or is empty')
  if 'validation' in splits:
    return dict(splits), validation
  usual = 0.1 if validation is None else validation
  size = held_out_size(usual, len(splits['train']), what=what)
  train, out = hold_out(splits['train'], size)
  if not train:
    raise UserError(
      f'data.kw.validation: {usual} of the {len(out):,} {what} in train of '
      f'{name!r} takes all of them, for those of one text stay together; use '
      'less, or add a validation split'
    )
  held = {'validation': out} if size else {}
  return {**splits, 'train': train, **held}, None if size else 0


def held_out_size(
  amount: int | float,
  count: int,
  split: str = 'validation',
  what: str = 'examples',
) -> int:
  """How many of the training examples, or units, to hold out for a split."""
  size = amount
  if isinstance(amount, float):
    size = round(amount * count) if 0 <= amount <= 1 else -1
  if 0 <= size < count and (size or not amount):
    return size
  if count < 2:
    why = f'cannot be held out; add {what}, or a {split} split'
  elif not size:
    why = f'rounds to none for {split}; give a number, such as 1'
  elif size >= count:
    why = 'leaves nothing to train on; give less'
  else:
    why = f'cannot be; give a share such as 0.1, or a number of {what}'
  raise UserError(f'data.kw.{split}: {amount} of {count} {what} {why}')


def split_entry(name: str, split: str) -> str:
  """What messages call a split of a source."""
  if split == 'all':
    return f'data.source: {name!r}'
  return f'data.source: the split {split!r} of {name!r}'


def place(dir: str, path: str) -> Path:
  """The path of a source's files; a relative one is in the folder."""
  folder = files_lib.path(dir, at='data.dir')
  return folder / files_lib.path(path, at='data.source')


def check_dir(dir: str) -> None:
  """Refuses a folder that is not there."""
  if dir and not files_lib.path(dir, at='data.dir').is_dir():
    raise UserError(f'data.dir: there is no folder {dir}')


def _named(number: int, classes: Sequence[str]) -> str:
  """A class by its number, and by its name if it has another one."""
  name = classes[number]
  return str(number) if name == str(number) else f'{number}, {name!r}'


def _hold_out(
  name: str, examples: Examples, amount: int | float, split: str, unit: str
) -> tuple[dict[str, Examples], dict[str, Origin]]:
  """Splits off examples, or whole units of them.

  Returns:
    ``{'train': the rest, split: examples}``, and where these come from; nothing
    for an amount of 0.
  """
  units = examples_lib.units(examples, unit, 'data.source')
  what = f'units ({unit})' if unit else 'examples'
  size = held_out_size(amount, _count(examples, unit), split, what)
  if not size:
    return {}, {}
  train, out = examples_lib.hold_out(examples, size, units)
  kinds = examples.index.classes
  for label in np.setdiff1d(kinds, train.index.classes):
    few = (kinds == label).sum()
    raise UserError(
      f'data.source: class {label} of {name!r} has too few examples, {few}, '
      f'to hold some out for {split}; add examples, or leave the class out'
    )
  is_out = examples_lib.held_out(examples, size, units)
  origins = {
    part: Origin(np.flatnonzero(own), len(examples))
    for part, own in (('train', ~is_out), (split, is_out))
  }
  return {'train': train, split: out}, origins


def _check_counts(examples: Examples, split: str, name: str) -> None:
  """Refuses a split that was held out and has nothing to measure."""
  if examples_lib.measured(examples) or examples.index.values.size:
    return
  objects = _has_objects(examples, {})
  what = 'object' if objects else 'label that counts'
  do = 'raise data.kw.validation' if split == 'validation' else 'label more'
  raise UserError(
    f'data.source: the {split} split of {name!r}, {len(examples):,} examples, '
    f'has no {what}; {do}, or give each split data of its own'
  )


def _taken(origin: Origin, numbers: np.ndarray) -> Origin:
  """Where some of the examples of a split come from."""
  return origin._replace(numbers=origin.numbers[numbers])


def _count(examples: Examples, unit: str) -> int:
  """The number of units: examples, or values of a field."""
  if not unit:
    return len(examples)
  return len(np.unique(examples_lib.units(examples, unit, 'data.source')))


def _check_units(
  splits: Mapping[str, Examples], unit: str, at: Mapping[str, str]
) -> None:
  """Refuses a unit that has examples in two splits."""
  seen: dict[int, str] = {}
  for split in splits if unit else ():
    units = examples_lib.units(splits[split], unit, at[split])
    for number in np.unique(units).tolist():
      other = seen.setdefault(number, split)
      if other != split:
        raise UserError(
          f'{at[split]} has examples of {unit} {number}, and so has {other}; '
          'keep them in one split'
        )


def _has_objects(examples: Examples, fields: Mapping[str, str]) -> bool:
  """Whether labels are the classes of objects, so that one class will do."""
  one = jax.tree.map(lambda x: x[0], examples.fetch(np.arange(1)))
  return positions.kinds(one, fields)['labels'] == positions.OBJECTS


def given_dir(name: str, function: Any, dir: str) -> dict[str, Any]:
  """The option ``dir`` for a function that loads data, if one is given."""
  if dir and 'dir' not in inspect.signature(function).parameters:
    raise UserError(
      f'data.dir: {name} reads nothing from a folder; leave the entry empty'
    )
  return {'dir': dir} if dir else {}
