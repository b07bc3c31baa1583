"""Knowledge distillation in JAX and Flax.

The public names, which semantic versioning is about:

- `losses`: pure functions on arrays.
- `distill`: `net`, `term`, `weighted`, `conditional`, `fused` and `step`, for a
  loop of one's own; `mesh` and `variables_of` beside them.
- `adapters`: maps between the student's layers and the teacher's.
- `models.build`, also as `build`: any model as a `Net`.
- `data`: the sources, views and partitions by name.
- `run(config, workdir)`: a config to its row. `load(workdir)`: a net of it;
  `export(workdir, 'mine.onnx')`: the same for other tools.
- `Net`, `Context`, `Term`: what these are made of.

What is public is loaded when it is first used, so that `import jaxkd.losses`
costs no more than JAX and Optax do.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from jaxkd import data, distill, losses, models
  from jaxkd.distill import adapters
  from jaxkd.export.api import export
  from jaxkd.models import build
  from jaxkd.run.pipeline import run
  from jaxkd.run.workdir import load
  from jaxkd.types import Context, Net, Term

__version__ = '0.2.0'
__all__ = [
  'losses',
  'distill',
  'adapters',
  'data',
  'models',
  'build',
  'export',
  'load',
  'run',
  'Net',
  'Context',
  'Term',
]


def __getattr__(name: str):
  match name:
    case 'losses' | 'distill' | 'data' | 'models' | 'run' | 'export':
      return importlib.import_module(f'jaxkd.{name}')
    case 'adapters':
      return importlib.import_module('jaxkd.distill.adapters')
    case 'build':
      module = 'jaxkd.models'
    case 'load':
      module = 'jaxkd.run.workdir'
    case 'Net' | 'Context' | 'Term':
      module = 'jaxkd.types'
    case _:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
