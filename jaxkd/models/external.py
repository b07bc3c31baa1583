"""Names of teachers of which there are outputs and no net.

``outputs:PATH`` is a file of outputs, and ``host:package.module:function`` a
function from arrays of NumPy to outputs.
"""

from collections.abc import Callable

from jaxkd import lookup

OUTPUTS, HOST = 'outputs:', 'host:'


def is_external(name: str) -> bool:
  """Whether a name, of a model or of what to restore, is of such a teacher."""
  return name.startswith((OUTPUTS, HOST))


def function(name: str, *, at: str) -> Callable:
  """What gives the outputs; of a file, a function without options.

  Raises:
    UserError: there is no such function.
  """
  if name.startswith(OUTPUTS):
    return _no_options
  return lookup.attribute(
    name.removeprefix(HOST), kind='function of inputs', at=at
  )


def _no_options() -> None:
  """A file of outputs has none."""
