"""Nets as files for other tools, and ``jaxkd.export(run, path)`` itself.

The package is callable, as the function that it is named after: see
`jaxkd.export.api.export` for its arguments. A format is a file here that has
`ENDING`; ``python -m jaxkd.export`` is the command.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Export(ModuleType):
  def __call__(self, *args: Any, **kwargs: Any) -> Path:
    from jaxkd.export.api import export

    return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Export
