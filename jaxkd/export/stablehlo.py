"""StableHLO: a program for XLA, of a batch of any size.

The file is what `jax.export` serialises: StableHLO in a version that later
compilers read too, for all platforms. ``jax.export.deserialize`` reads it with
neither jaxkd nor the model's code, and its ``mlir_module()`` is the text.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxkd.errors import UserError, first_line
from jaxkd.export.exportable import Exportable
from jaxkd.export.program import Program, trace

ENDING = '.stablehlo'
RUNTIME = 'jax.export'
NEEDS = {'flatbuffers': 'pip install flatbuffers'}
PLATFORMS = ('cpu', 'cuda', 'tpu')

# What another process runs, which has nothing of jaxkd.
_CALL = """
import sys
import jax, numpy
program, given, found = sys.argv[1:]
program = jax.export.deserialize(bytearray(open(program, 'rb').read()))
with numpy.load(given) as arrays:
  out = program.call(*(arrays[name] for name in sorted(arrays, key=int)))
assert not [name for name in sys.modules if name.startswith('jaxkd')]
numpy.savez(found, **{str(i): x for i, x in enumerate(out)})
"""


def write(
  given: Exportable, outputs: Sequence[str], path: Path
) -> tuple[Program, dict]:
  """Writes the file; returns what it holds, and nothing more to say of it."""
  program = trace(given, outputs)
  try:
    exported = jax.export.export(
      jax.jit(program.function), platforms=PLATFORMS
    )(*program.inputs.values())
    path.write_bytes(exported.serialize())
  except (NotImplementedError, ValueError) as error:
    raise UserError(
      f'{given.name}: jax.export cannot say what the net does for '
      f'{", ".join(PLATFORMS)} ({first_line(error)}); export it with --to '
      'safetensors'
    ) from error
  return program, {}


def run(
  given: Exportable, path: Path, names: Sequence[str], inputs: list[np.ndarray]
) -> dict[str, np.ndarray]:
  """What the file gives, in a process of its own."""
  del given
  with tempfile.TemporaryDirectory() as folder:
    arrays, found = Path(folder, 'given.npz'), Path(folder, 'found.npz')
    np.savez(arrays, **{str(i): x for i, x in enumerate(inputs)})
    command = [sys.executable, '-c', _CALL, *map(str, (path, arrays, found))]
    # An accelerator may be all this process's own.
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
      command, capture_output=True, text=True, env=environment
    )
    if done.returncode:
      said = (done.stderr.strip().splitlines() or ['without a word'])[-1]
      raise UserError(f'{path}: it cannot be read back ({said})')
    with np.load(found) as made:
      return {name: made[str(i)] for i, name in enumerate(names)}
