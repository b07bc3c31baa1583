"""The weights alone, in one file of safetensors that jaxkd reads again.

``jaxkd.load('mine.safetensors')`` is the net, and
``teachers.NAME.restore='mine.safetensors'`` a teacher.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxkd.errors import UserError
from jaxkd.export import exportable
from jaxkd.export.exportable import Exportable
from jaxkd.students import single_file

ENDING = single_file.ENDING
RUNTIME = 'jaxkd.load'
NEEDS: dict[str, str] = {}


def write(
  given: Exportable, outputs: Sequence[str], path: Path
) -> tuple[None, dict]:
  """Writes the file; returns nothing that is to be said of it.

  Raises:
    UserError: a net of no run, of which nothing says how to rebuild it.
  """
  del outputs  # of the whole net
  if given.folder is None:
    raise UserError(
      'jaxkd.export: a net of no run has no description to go with its '
      "weights; name the run's folder, or use safetensors.flax.save_file"
    )
  one = {'members': 1, 'packed': {}, 'task': given.task}
  single_file.write(path, given.variables, {**given.spec, **one})
  return None, {}


def run(
  given: Exportable, path: Path, names: Sequence[str], inputs: list[np.ndarray]
) -> dict[str, np.ndarray]:
  """What the net gives that is read from the file."""
  del given
  again = exportable.of(path)
  found = again.outputs(inputs)
  return {name: found[name] for name in names}
