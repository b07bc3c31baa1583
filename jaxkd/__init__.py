"""Knowledge distillation in JAX and Flax.

The public API, to which semantic versioning applies:

- `losses`: pure functions on arrays.
- `distill`: for your own loop, `net`, `term`, `weighted`, `conditional`,
  `fused` and `step`, with `mesh` and `variables_of`.
- `adapters`: maps from the student's layers to the shapes of the teacher's.
- `models.build`, also `build`: any model as a `Net`.
- `data`: sources, views and partitions by name.
- `run(config, workdir)` trains what a config describes and returns its row of
  results. `load(workdir)` returns a trained net with its weights, and
  `export(workdir, 'mine.onnx')` writes it for other tools.
- `Net`, `Context`, `Term`: the types of models, of what a loss may look at, and
  of parts of the loss.

Public names are imported on first use, so `import jaxkd.losses` imports only
JAX and Optax.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from jaxkd import data, distill, losses, models
  from jaxkd.distill import adapters
  from jaxkd.export.api import export
  from jaxkd.models import build
  from jaxkd.run.pipeline import run
  from jaxkd.run.stored_nets import load
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
      module = 'jaxkd.run.stored_nets'
    case 'Net' | 'Context' | 'Term':
      module = 'jaxkd.types'
    case _:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
