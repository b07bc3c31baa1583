"""Sources: data sets by name, as splits of examples.

A source is the function of that name in a file of this folder, called with the
path after the colon (``folder:PATH``) and the options of the config; one of
your own is ``package.module:function``. Splits are fixed: they do not depend on
any seed of a run.

Data sets of less than a gibibyte are read into memory at once, which checks
every example; larger ones are read, and checked, on demand.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxkd import files as files_lib
from jaxkd import lookup
from jaxkd import options as options_lib
from jaxkd.data import conventions as conventions_lib
from jaxkd.data import examples as examples_lib
from jaxkd.data import folders as folders_lib
from jaxkd.data import pixels, positions
from jaxkd.data.conventions import Conventions
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.source import (
  Source,
  given_dir,
  make_source,
  of_classes,
  source_of_arrays,
  split_entry,
)
from jaxkd.errors import UserError

__all__ = ['ArrayExamples', 'NAMES', 'Source', 'find', 'load', 'of_classes']

# The file of each source here; what is not named is not imported.
NAMES = {
  'digits': 'images',
  'fashion_mnist': 'images',
  'glyphs': 'images',
  'synthetic': 'images',
  'scenes': 'scenes',
  'clips': 'video',
  'phrases': 'pairs',
  'markov': 'text',
  'kjv': 'text',
  'speech_frames': 'speech',
  'spelled': 'speech',
  'folder': 'images',
  'coco': 'scenes',
  'video': 'video',
  'npz': 'images',
  'parallel': 'pairs',
  'text': 'text',
  'hf': 'hub',
  'tfds': 'prepared',
  'translation': 'pairs',
  'two_tokenizers': 'two_tokenizers',
  'speech': 'speech',
  'voices': 'speech',
}


def find(name: str) -> Callable[..., Source]:
  """The function that loads a data set, by its name in `NAMES`."""
  module = importlib.import_module(f'{__name__}.{NAMES[name]}')
  return getattr(module, name)


def load(
  name: str,
  *,
  dir: str = '',
  validation: int | float | None = None,
  **options: Any,
) -> Source:
  """Loads a data set by name.

  Args:
    name: one of `NAMES` ('folder:PATH', 'npz:PATH', 'parallel:PATH',
      'speech:PATH', 'text:PATH', 'hf:PATH', 'tfds:NAME', 'translation:NAME',
      'video:PATH', ...), a bare TFDS name, or 'package.module:function', where
      the function takes the options and returns a `Source` or a dict ``{split:
      (inputs, labels)}`` of train, test and perhaps validation, or of all, to
      be split 60 : 20 : 20. Options of `jaxkd.data.conventions` that it does
      not take itself describe its arrays, as in `npz`.
    dir: where the files are, for the sources that take it.
    validation: how much of the training split to hold out for validation, a
      number of examples or a share. None for the source's own default; 0 for no
      validation split.
    **options: of the source.

  Raises:
    UserError: no such source or option, files that are missing or damaged, or
      invalid examples or labels.
  """
  kind, colon, path = name.partition(':')
  # A user's own source, too, gets the expanded path.
  dir = str(files_lib.path(dir, at='data.dir')) if dir else ''
  if colon and kind not in NAMES:
    files_lib.refuse_remote(name, at='data.source')
    function = lookup.attribute(name, kind='source', at='data.source')
    given = given_dir(name, function, dir)
    return _from_user(name, function, {**given, **options}, validation)
  if kind not in NAMES:
    kind, path = 'tfds', name
  function = find(kind)
  takes = inspect.signature(function).parameters
  if bool(path) != ('path' in takes):
    form = f'{kind}:PATH' if 'path' in takes else kind
    raise UserError(f'data.source: write {form!r}, not {name!r}')
  lookup.check_options(
    function,
    {**options, 'validation': validation},
    name=kind,
    at='data.kw',
  )
  given = given_dir(name, function, dir)
  if path:
    given['path'] = path
  return function(**given, validation=validation, **options)._replace(name=name)


def _from_user(
  name: str,
  function: Any,
  options: Mapping[str, Any],
  validation: int | float | None,
) -> Source:
  takes = options_lib.parameters_of(function)
  takes_all = any(p.kind is p.VAR_KEYWORD for p in takes.values())
  left = set() if takes_all else {*Conventions._fields} - takes.keys()
  ours = {o: value for o, value in options.items() if o in left}
  options = {o: value for o, value in options.items() if o not in ours}
  conventions = conventions_lib.of(**ours)
  options_lib.check(options, takes, name=name, at='data.kw')
  made = function(**options)
  if isinstance(made, Source):
    return _from_source(name, made, validation, conventions)
  try:
    splits = {str(s): (inputs, labels) for s, (inputs, labels) in made.items()}
    known = folders_lib.splits(splits, where=name)
    called = {own: split for split, own in known.items()}
    splits = {called.get(s, s): pair for s, pair in splits.items()}
  except (AttributeError, TypeError, ValueError) as error:
    raise UserError(
      f'data.source: {name} must return a jaxkd.data.sources.Source or a dict '
      f'of (inputs, labels) by split, not {type(made).__name__}'
    ) from error
  return source_of_arrays(name, splits, validation, conventions)


def _from_source(
  name: str,
  made: Source,
  validation: int | float | None,
  conventions: Conventions,
) -> Source:
  """Checks a user's own `Source`, and converts its inputs by conventions."""
  for entry in ('classes', 'num_classes', 'labels'):
    if not getattr(conventions, entry):
      continue
    raise UserError(
      f'data.kw.{entry}: {name} returns a jaxkd.data.sources.Source, which '
      'sets this itself; remove the entry'
    )
  positions.check_declared(made.fields, f'data.source: {name}')
  classes = tuple(made.classes) or tuple(map(str, range(made.num_classes)))
  if len(classes) != made.num_classes:
    raise UserError(
      f'data.source: {name} names {len(classes)} classes of {made.num_classes}'
    )

  def change(split, batch, numbers):
    at = split_entry(name, split)
    inputs = jax.tree.map(
      lambda x: pixels.as_inputs(x, conventions, at, numbers), batch['inputs']
    )
    return {**batch, 'inputs': inputs}

  splits = dict(made.splits)
  for split, examples in splits.items():
    one = examples.fetch(np.arange(1))['inputs'] if len(examples) else ()
    for x in jax.tree.leaves(one):
      shape = (len(examples), *np.shape(x)[1:])
      pixels.check_layout(shape, conventions, split_entry(name, split))
  if conventions.range or conventions.layout:
    splits = {
      split: examples_lib.changed(examples, functools.partial(change, split))
      for split, examples in splits.items()
    }
  source = make_source(
    name,
    splits,
    validation,
    classes=classes,
    conventions=conventions,
    fields=made.fields,
    unit=made.unit,
  )
  return source._replace(
    notes=(*made.notes, *source.notes),
    resize=made.resize,
    vocabulary=made.vocabulary,
    tokenizer=made.tokenizer,
    standardized=made.standardized,
  )
