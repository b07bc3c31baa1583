"""What differs between tasks: the ground-truth loss and the metrics.

A task is a module with `GROUND_TRUTH`, the name of the loss that teachers
train with where the config says nothing else, and
``metrics(classes) -> {name: Metric}``, given the names of the classes. That
loss looks at `OUTPUT`, the logits if the task does not say, and counts what the
field `MASK` of the batch says, all if there is none. `LABELS` names the axes of
an example's labels, none if it does not say, and `INPUTS` the arrays of its
inputs, if there must be several.

A task may also have

- ``recall(classes) -> Metric``, for classes that some students never see;
- ``fidelity(teacher) -> {name: Metric}``, how closely a net follows a group of
  teachers, if that is not what `jaxkd.tasks.fidelity` says;
- ``decode(apply, inputs, wanted, teachers) -> outputs``, for what a net gives
  only when it is asked again and again, as a translation is. ``apply(inputs)``
  gives the net's outputs, ``wanted`` are the names of those that metrics ask
  for, and ``teachers`` are groups of one net, each as such an ``apply``. The
  time of those that `TIMED` names is told in the row;
- ``show(folder, batch, nets, classes)``, which writes to a folder what nets
  make of a few examples. ``nets`` are names and ``apply(inputs) -> outputs``
  of each.
"""

import functools
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from jaxkd import lookup, registry
from jaxkd.errors import UserError

if TYPE_CHECKING:
  from jaxkd.data.sources import Source


def find(name: str) -> ModuleType:
  """The task of a name: a file here, or ``package.module:attribute``.

  Raises:
    UserError: there is none.
  """
  if ':' in name:
    task = lookup.attribute(name, kind='task', at='task')
    for needed in ('GROUND_TRUTH', 'metrics'):
      if not hasattr(task, needed):
        raise UserError(f'task: {name!r} has no {needed}, which a task needs')
    return task
  return _files().find(name, kind='task', at='task')


@functools.cache
def _files() -> registry.Files:
  return registry.Files(__name__, defines='GROUND_TRUTH')


def check(name: str, source: 'Source') -> None:
  """Refuses data that a task is not for.

  Raises:
    UserError: labels or inputs of other axes, or no field `MASK`.
  """
  task = find(name)
  axes = getattr(task, 'LABELS', ())
  inputs = getattr(task, 'INPUTS', ())
  field = getattr(task, 'MASK', '')
  first = source.splits['train'].fetch(np.arange(1))
  each = ' × '.join(axes) or 'example'
  shape = list(first['labels'].shape[1:])
  choose = 'choose another task or data.source'
  if len(shape) != len(axes):
    raise UserError(
      f'task: {name} needs labels by {each}, and those of an example of '
      f'{source.name} have the shape {shape}; {choose}'
    )
  has = source.input_shape if isinstance(source.input_shape, dict) else ()
  if missing := [part for part in inputs if part not in has]:
    raise UserError(
      f'task: {name} needs inputs with {" and ".join(missing)}, which those of '
      f'{source.name} have not; {choose}'
    )
  if field and field not in first:
    raise UserError(
      f'data.source: {source.name} has no field {field!r}, by which the task '
      f'{name} knows which labels count; add it, a bool of their shape'
    )
