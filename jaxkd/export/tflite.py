"""TFLite, by LiteRT's converter: for phones and small devices."""

import re
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxkd.errors import UserError
from jaxkd.export.exportable import Exportable
from jaxkd.export.program import Program, trace

ENDING = '.tflite'
RUNTIME = 'LiteRT'
INSTALL = 'pip install litert-converter ai-edge-litert'
NEEDS = dict.fromkeys(('litert_converter', 'ai_edge_litert'), INSTALL)
SIGNATURE = 'serving_default'

_OPERATION = re.compile(r'\b(?:stablehlo|vhlo|chlo)\.\w+')


def write(
  given: Exportable, outputs: Sequence[str], path: Path
) -> tuple[Program, dict]:
  """Writes the file; returns what it holds, and nothing more to say of it.

  Raises:
    UserError: the net uses an operation that TFLite lacks.
  """
  from litert_converter import converter_api_ext as converter
  from litert_converter.mlir import ir, passmanager

  program = trace(given, outputs)
  exported = jax.export.export(jax.jit(program.function), platforms=['cpu'])(
    *program.inputs.values()
  )
  context = ir.Context()
  converter.prepare_mlir_context(context)
  module = None
  try:
    with context, ir.Location.unknown():
      module = ir.Module.parse(exported.mlir_module())
      (main,) = (
        operation
        for operation in module.body.operations
        if operation.attributes['sym_name'].value == 'main'
      )
      converter.set_signature(
        main.operation, SIGNATURE, list(program.inputs), list(program.outputs)
      )
      converter.run_convert_to_tfl_passes(
        module, passmanager.PassManager(), converter.ConvertToTFLConfig()
      )
      made = converter.export_flatbuffer_to_bytes(module.operation)
  except Exception as error:  # of MLIR's kinds
    left = module.operation.get_asm(large_elements_limit=1) if module else ''
    missing = _OPERATION.search(f'{error} {left}')
    what = (
      missing[0] if missing else str(error).strip(' :\n').partition('\n')[0]
    )
    raise UserError(
      f'{given.name}: LiteRT cannot say in TFLite what the net does ({what}); '
      'export it with --to stablehlo or --to onnx'
    ) from error
  path.write_bytes(made)
  return program, {'signature': SIGNATURE}


def run(
  given: Exportable, path: Path, names: Sequence[str], inputs: list[np.ndarray]
) -> dict[str, np.ndarray]:
  """What LiteRT's interpreter makes of the file."""
  from ai_edge_litert.interpreter import Interpreter

  del given
  interpreter = Interpreter(model_path=str(path), num_threads=1)
  runner = interpreter.get_signature_runner(SIGNATURE)
  own = interpreter.get_signature_list()[SIGNATURE]['inputs']
  given = dict(zip(own, inputs, strict=True))
  try:
    found = runner(**given)
  except Exception as error:
    raise UserError(
      f'{path}: LiteRT does not run it ({error}); export the net with --to '
      'stablehlo or --to onnx'
    ) from error
  return {name: found[name] for name in names}
