"""The machinery of a run, and ``jaxkd.run(config, workdir)`` itself.

The package is callable, as the function that it is named after: see
`jaxkd.run.pipeline.run` for its arguments.
"""

import sys
from types import ModuleType
from typing import Any


class _Run(ModuleType):
  def __call__(self, *args: Any, **kwargs: Any) -> dict:
    from jaxkd.run.pipeline import run

    return run(*args, **kwargs)


sys.modules[__name__].__class__ = _Run
