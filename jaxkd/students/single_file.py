"""A net in one file of safetensors: its variables, and what rebuilds it.

Tensors are called by their path, ``params/stages/0/conv/kernel``, and laid out
as in Flax: kernels are [height, width, in, out] or [in, out]. The description,
which the folders below a run's ``nets`` have too, stands in the file's header
under `SPEC`, as JSON, and beside it the checksum of all this under `CHECKSUM`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save_file

from jaxkd import files
from jaxkd.data import cache
from jaxkd.errors import UserError
from jaxkd.paths import flattened, nested

ENDING = '.safetensors'
# Entries of the header.
SPEC = 'jaxkd'
CHECKSUM = 'sha256'


def is_file(path: str | Path) -> bool:
  """Whether a path is that of such a file, by its ending."""
  return Path(path).suffix == ENDING


def write(path: Path, variables: Mapping[str, Any], spec: dict) -> None:
  """Writes the variables of one net.

  Args:
    path: of the file.
    variables: nested dicts of arrays, ``{'params': ..., 'state': ...}``.
    spec: its description, of JSON's types.
  """
  tensors = {
    name: np.asarray(x, order='C') for name, x in flattened(variables).items()
  }
  said = json.dumps(spec)
  header = {SPEC: said, CHECKSUM: _checksum(tensors, said)}
  save_file(tensors, path, metadata=header)
  files.share(path)


def load(path: Path) -> tuple[dict, dict]:
  """Reads what `write` wrote: ``(variables, spec)``, as of a group of one net.

  Raises:
    UserError: no such file, a damaged one, or one of another program.
  """
  spec = description(path)
  with _opened(path) as file:
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = file.metadata()
  if CHECKSUM not in header:
    raise _damaged(path, 'its header has no checksum')
  if header[CHECKSUM] != _checksum(tensors, header[SPEC]):
    raise _damaged(path, 'its bytes have changed')
  variables = {name: jnp.asarray(x)[None] for name, x in tensors.items()}
  return {'params': {}, 'state': {}, **nested(variables)}, spec


def description(path: Path) -> dict:
  """The ``spec`` alone.

  Raises:
    UserError: as `load`.
  """
  with _opened(path) as file:
    found = (file.metadata() or {}).get(SPEC)
  if found is None:
    raise UserError(
      f'{path} does not say which model its weights belong to, as files that '
      'jaxkd exports do; for weights of PyTorch write pytorch:FILE'
    )
  try:
    spec = json.loads(found)
  except ValueError as error:
    raise _damaged(path, error) from error
  if missing := {'model', 'kw', 'members'} - spec.keys():
    raise _damaged(path, f'its header lacks {min(missing)}')
  return spec


def _opened(path: Path) -> Any:
  if not Path(path).is_file():
    raise UserError(f'there is no file {path}')
  try:
    return safetensors.safe_open(path, framework='numpy')
  except Exception as error:  # of many kinds
    raise _damaged(path, error) from error


def _checksum(tensors: Mapping[str, np.ndarray], spec: str) -> str:
  return cache.fingerprint([tensors, np.frombuffer(spec.encode(), np.uint8)])


def _damaged(path: Path, said: Any) -> UserError:
  return UserError(f'{path} is damaged or cut short ({said}); export it again')
