"""Knowledge distillation in JAX and Flax.

What is public is loaded when it is first used, so that `import jaxkd.losses`
costs no more than JAX and Optax do.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from jaxkd import data, losses, models
  from jaxkd.models import build
  from jaxkd.run.pipeline import run
  from jaxkd.run.workdir import load
  from jaxkd.types import Context, Net, Term

__version__ = '0.1.0'
__all__ = [
  'losses',
  'data',
  'models',
  'build',
  'load',
  'run',
  'Net',
  'Context',
  'Term',
]


def __getattr__(name: str):
  match name:
    case 'losses' | 'data' | 'models' | 'run':
      return importlib.import_module(f'jaxkd.{name}')
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
