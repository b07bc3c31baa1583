"""What differs between tasks: the ground-truth loss and the metrics.

A task is a module with `GROUND_TRUTH`, the name of the loss that teachers
train with where the config says nothing else, and
``metrics(num_classes) -> {name: Metric}``. That loss looks at `OUTPUT`, the
logits if the task does not say. A task may have ``recall(classes) -> Metric``,
for classes that some students never see.
"""

import importlib
import pkgutil
from types import ModuleType

from jaxkd import lookup
from jaxkd.errors import UserError, unknown


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
  modules = {
    info.name: importlib.import_module(f'{__name__}.{info.name}')
    for info in pkgutil.iter_modules(__path__)
  }
  known = [
    n for n, module in modules.items() if hasattr(module, 'GROUND_TRUTH')
  ]
  if name not in known:
    raise unknown('task', name, known, 'task')
  return modules[name]
