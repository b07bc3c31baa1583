"""Tasks: the ground-truth loss and the metrics of each.

A task is a module that defines

- `GROUND_TRUTH`: the name of the loss that teachers train with by default;
- ``metrics(classes) -> {name: Metric}``, given the names of the classes.

It may also define

- `OUTPUT`: the output that this loss takes, by default 'logits'; or several, a
  tuple;
- `NET`: a model that gives this output, where it is not 'logits' alone;
- `MASK`: the field of the batch that says which labels count; by default all;
- `FIELDS`: the fields of an example that it needs beside inputs and labels;
- `LABELS`: the names of the axes of an example's labels, by default none;
- `LOGITS`: what its logits are: 'softmax' by default, 'sigmoids' where each
  class has a probability of its own, 'values' where they are predictions; of
  the last two ``ensemble([T, B, K]) -> [B, K]`` makes the logits of several
  nets those of one;
- `INPUTS`: the names of the arrays in an example's inputs, if several;
- ``recall(classes) -> Metric``, for classes that some students never see;
- ``fidelity(teacher) -> {name: Metric}``, how closely a net follows a group of
  teachers; by default `jaxkd.tasks.fidelity`;
- ``decode(apply, inputs, wanted, teachers) -> outputs``, for outputs that take
  many calls of the net, such as a translation. ``apply(inputs)`` gives the
  net's outputs, ``wanted`` are the names of the outputs that metrics need, and
  ``teachers`` are groups of one net, each as such an ``apply``;
- `SERIES`: metrics that are one line for each arm in `series.png` of a run, as
  ``{y axis: (text of the x axis, {x: metric})}``, where y is a metric's name;
- `TIMED`: the outputs of ``decode`` whose time is in the row;
- ``show(folder, batch, nets, classes)``, which writes what nets predict for a
  few examples to a folder. ``nets`` is a dict of name -> ``apply(inputs) ->
  outputs``.
"""

import functools
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from jaxkd import lookup, registry
from jaxkd.errors import UserError

if TYPE_CHECKING:
  from jaxkd.data.sources import Source

# The axes of labels -> how data.kw.labels reads arrays for them.
_LABELS = {('classes',): 'multilabel', ('values',): 'values'}


def find(name: str) -> ModuleType:
  """The task of that name: a file here, or ``package.module:attribute``.

  Raises:
    UserError: no such task.
  """
  if ':' in name:
    task = lookup.attribute(name, kind='task', at='task')
    for needed in ('GROUND_TRUTH', 'metrics'):
      if not hasattr(task, needed):
        raise UserError(f'task: {name!r} has no {needed}, which a task needs')
    return task
  return files().find(name, kind='task', at='task')


def logits_of(name: str) -> str:
  """What the logits of a task are: 'softmax', 'sigmoids' or 'values'."""
  return getattr(find(name), 'LOGITS', 'softmax')


@functools.cache
def files() -> registry.Files:
  """The files that hold a task, by name; taking one imports it."""
  return registry.Files(__name__, defines='GROUND_TRUTH')


def check(name: str, source: 'Source') -> None:
  """Refuses data that do not fit the task.

  Raises:
    UserError: labels with other axes, missing inputs, or no field `MASK` or of
      `FIELDS`.
  """
  task = find(name)
  axes = getattr(task, 'LABELS', ())
  inputs = getattr(task, 'INPUTS', ())
  field = getattr(task, 'MASK', '')
  first = source.splits['train'].fetch(np.arange(1))
  each = ' × '.join(axes) or 'example'
  shape = list(first['labels'].shape[1:])
  choose = 'choose another task or data.source'
  if kind := _LABELS.get(axes):
    choose = f'set data.kw.labels={kind!r} if these are arrays, or {choose}'
  if len(shape) != len(axes):
    raise UserError(
      f'task: {name} needs labels by {each}, and those of an example of '
      f'{source.name} have the shape {shape}; {choose}'
    )
  has = source.input_shape if isinstance(source.input_shape, dict) else ()
  if missing := [part for part in inputs if part not in has]:
    raise UserError(
      f'task: {name} needs inputs with {" and ".join(missing)}, which '
      f'{source.name} does not have; {choose}'
    )
  if field and field not in first:
    add = 'add it, a bool of their shape'
    if kind:
      add = f'set data.kw.labels={kind!r} if these are arrays, or {add}'
    raise UserError(
      f'data.source: {source.name} has no field {field!r}, by which the task '
      f'{name} knows which labels count; {add}'
    )
  for field in getattr(task, 'FIELDS', ()):
    if field not in first:
      raise UserError(
        f'data.source: {source.name} has no field {field!r}, which the task '
        f'{name} needs; {choose}'
      )
