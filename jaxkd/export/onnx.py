"""ONNX, by jax2onnx: for ONNX Runtime and what builds on the format.

jax2onnx asks for an older Orbax than this project has, so it is installed
without what it asks for; see `NEEDS`.
"""

import contextlib
import importlib.metadata
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd.errors import UserError, summary
from jaxkd.export.exportable import Exportable
from jaxkd.export.program import BATCH, Program, trace
from jaxkd.students import quantize

ENDING = '.onnx'
RUNTIME = 'ONNX Runtime'
VERSION = '0.17.1'  # of jax2onnx
INSTALL = (
  'pip install onnx onnx-ir onnxruntime && '
  f'pip install --no-deps jax2onnx=={VERSION}'
)
NEEDS = dict.fromkeys(('jax2onnx', 'onnx', 'onnxruntime'), INSTALL)
OPSET = 21
LARGEST = 2**31 - 1  # bytes of a file

_MISSING = re.compile(r"primitive '([^']+)'")


def write(
  given: Exportable, outputs: Sequence[str], path: Path
) -> tuple[Program, dict]:
  """Writes the file; returns what it holds, and what else is to be said of it.

  Raises:
    UserError: the net uses an operation that ONNX or jax2onnx lacks, or is too
      large for one file.
  """
  import onnx

  from jaxkd.export import onnx_weights

  weights = given.encoded()
  with quantize.marked():
    program = trace(given, outputs, tuple(weights))
  with _quiet():
    model = _converted(given, program)
  onnx_weights.put_in(model, weights)
  try:
    onnx.checker.check_model(model, full_check=True)
  except (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
  ) as error:  # an operation, or a type, that this opset does not have
    raise _lacking(given, summary(error)) from error
  about = {'classes': list(given.net.classes), 'view': given.net.view}
  for key, value in about.items():
    entry = model.metadata_props.add()
    entry.key, entry.value = f'jaxkd.{key}', json.dumps(value)
  if model.ByteSize() > LARGEST:
    raise UserError(
      f'{given.name}: it has {model.ByteSize():,} bytes, and a file of ONNX '
      'holds 2 GiB; export it with --to safetensors'
    )
  path.write_bytes(model.SerializeToString())
  more: dict = {'opset': OPSET}
  if weights:
    bits = '/'.join(str(n) for n in sorted({x.bits for x in weights.values()}))
    more['notes'] = [
      f'{len(weights)} arrays of weights are integers of {bits} bits, a byte '
      'each, as their run has quantised them'
    ]
  return program, more


def run(
  given: Exportable, path: Path, names: Sequence[str], inputs: list[np.ndarray]
) -> dict[str, np.ndarray]:
  """What ONNX Runtime makes of the file, on the CPU."""
  import onnxruntime

  del given
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3
  try:
    session = onnxruntime.InferenceSession(
      path, options, providers=['CPUExecutionProvider']
    )
    own = (x.name for x in session.get_inputs())
    found = session.run(list(names), dict(zip(own, inputs, strict=True)))
  except Exception as error:  # of its own kinds
    raise UserError(
      f'{path}: ONNX Runtime does not run it ({summary(error)}); export the '
      'net with --to stablehlo'
    ) from error
  return dict(zip(names, found, strict=True))


def _converted(given: Exportable, program: Program) -> Any:
  """The model in ONNX, checked."""
  import jax2onnx

  there = importlib.metadata.version('jax2onnx')
  if there != VERSION:
    raise UserError(
      f'jaxkd.export: ONNX is written by jax2onnx {VERSION}, and {there} is '
      f'installed: {INSTALL}'
    )
  from jaxkd.export import onnx_lowering

  onnx_lowering.register()
  try:
    model = jax2onnx.to_onnx(
      program.function,
      [*program.weights.values(), *program.inputs.values()],
      model_name=Path(given.name).name,
      opset=OPSET,
      input_names=[*program.weights, *program.inputs],
      output_names=list(program.outputs),
    )
  except NotImplementedError as error:
    missing = _MISSING.search(str(error))
    what = f'the operation {missing[1]}' if missing else summary(error)
    raise _lacking(given, what) from error
  except Exception as error:  # of many kinds, deep within it
    raise _lacking(given, summary(error)) from error
  examples = (x for x in model.graph.input if x.name in program.inputs)
  for value in (*examples, *model.graph.output):
    value.type.tensor_type.shape.dim[0].dim_param = BATCH
  return model


def _lacking(given: Exportable, what: str) -> UserError:
  return UserError(
    f'{given.name}: jax2onnx {VERSION} cannot say in ONNX what the net does '
    f'({what}); export it with --to stablehlo'
  )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without the warnings of the two packages about what they do not need."""
  loggers = [logging.getLogger(name) for name in ('jax2onnx', 'onnx_ir')]
  levels = [logger.level for logger in loggers]
  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    for logger, level in zip(loggers, levels, strict=True):
      logger.setLevel(level)
