"""Exports a net as a file for other tools, and checks the file's outputs."""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxkd import files, registry
from jaxkd.errors import UserError, writing
from jaxkd.export import card, check, exportable, program
from jaxkd.export.exportable import Exportable
from jaxkd.models import hugging_face
from jaxkd.students import single_file
from jaxkd.types import Net

FEW = 3  # examples of a second batch, of another size


def export(
  where: str | Path | tuple[Net, dict],
  path: str | Path = '',
  to: str = '',
  *,
  arm: str = '',
  role: str = '',
  member: int = 0,
  dtype: str = 'float32',
  outputs: Sequence[str] = (),
  inputs: Any = None,
) -> Path:
  """Writes a net for other tools, and checks that the file gives its outputs.

  The file holds the net in evaluation mode with its view. It takes examples as
  the data has them, in batches of any size. ``FILE.json`` beside it has the
  classes, inputs and outputs, how images must be resized, and the result of the
  check.

  Args:
    where: a workdir, one of the folders below its ``nets``, an exported
      safetensors file, or a pair ``(net, variables)``, from `jaxkd.load` or
      your own.
    path: the file, or for 'hf' the folder; by default in the working directory,
      with the name of the run. ``'hf:FOLDER'`` implies ``to='hf'``.
    to: 'stablehlo', 'onnx', 'tflite', 'safetensors' or 'hf'; by default
      according to the ending of the path.
    arm: as for `jaxkd.load`.
    role: as for `jaxkd.load`.
    member: as for `jaxkd.load`.
    dtype: of the weights of 'hf', 'float32' or 'bfloat16'.
    outputs: names of the outputs of the file; by default those that the run's
      task uses, such as the logits.
    inputs: a batch to check the file on, by default from the run's test split;
      required for your own net, whose input shapes it gives.

  Returns:
    The path.

  Raises:
    UserError: there is no such net, the format cannot express it, a package is
      missing, the path exists already, or the file gives other outputs.

  Examples::

    jaxkd.export('runs/mine', 'mine.onnx')
    jaxkd.export('runs/mine', 'hf:mine', dtype='bfloat16')
  """
  return written(
    where,
    path,
    to,
    arm=arm,
    role=role,
    member=member,
    dtype=dtype,
    outputs=outputs,
    inputs=inputs,
  )[0]


@functools.cache
def formats() -> registry.Files:
  """The formats by name."""
  return registry.Files('jaxkd.export', defines='ENDING')


def written(
  where: str | Path | tuple[Net, dict],
  path: str | Path = '',
  to: str = '',
  *,
  dtype: str = 'float32',
  outputs: Sequence[str] = (),
  inputs: Any = None,
  **which: Any,
) -> tuple[Path, dict]:
  """As `export`; also returns the content of the JSON file beside it."""
  path, to = _target(where, path, to)
  form = formats().find(to, kind='format', at='jaxkd.export: to')
  _check_installed(form, to)
  if dtype != 'float32' and to != 'hf':
    raise UserError(
      f'jaxkd.export: dtype={dtype!r} is for weights in folders of Hugging '
      f'Face; leave it out with to={to!r}'
    )
  with writing(path):
    _check_free(path, to)
  given = exportable.of(where, inputs=inputs, **which)
  options = {'dtype': dtype} if to == 'hf' else {}
  with writing(path.parent):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      traced, more = form.write(given, outputs, path, **options)
      if given.spec.get('quantize') and 'notes' not in more:
        more['notes'] = [
          'quantised weights are written as floats of the same values'
        ]
      found = _checked(given, form, path, outputs, inputs, dtype)
      about = card.of(given, path, to, traced, found | more)
      card.write(path, about)
    except BaseException:
      files.remove(path)
      files.remove(card.beside(path))
      raise
  return path, about


def _target(where: Any, path: str | Path, to: str) -> tuple[Path, str]:
  """Where to write, and the format."""
  text = str(path)
  if hugging_face.is_folder(text):
    if to not in ('', 'hf'):
      raise UserError(
        f'jaxkd.export: {text!r} is a folder of Hugging Face, and to={to!r} '
        'another format; leave one of them out'
      )
    return hugging_face.folder(text, at='jaxkd.export'), 'hf'
  if not text and isinstance(where, tuple):
    raise UserError('jaxkd.export: name the file to write in path=')
  endings = {m.ENDING: name for name, m in formats().items() if m.ENDING}
  said = endings.get(Path(text).suffix, '')
  if to and said and to != said:
    raise UserError(
      f'jaxkd.export: the ending of {text!r} is that of {said}, and to={to!r} '
      'is another format; leave to= (--to) out, or name another file'
    )
  to = to or said
  if not to:
    what = f'{text!r} does not say the format' if text else 'name the format'
    raise UserError(
      f'jaxkd.export: {what}; set to= (--to) to one of '
      f'{", ".join(formats())}, or name a file that ends in '
      f'{" or ".join(endings)}'
    )
  if not text:
    ending = formats().find(to, kind='format', at='jaxkd.export: to').ENDING
    where = files.path(where, at='jaxkd.export', remote=True)
    remote = files.is_remote(where)
    name = where.name if remote else where.resolve().name
    if single_file.is_file(where):
      name = Path(name).stem
    return Path(f'{name}{ending or "_hf"}'), to
  return files.path(text, at='jaxkd.export'), to


def _check_free(path: Path, to: str) -> None:
  """Refuses to overwrite what is there, except for an empty folder."""
  if not path.name:  # this folder or the root
    raise UserError(
      f'jaxkd.export: {str(path)!r} is not the name of a file; give one'
    )
  empty = to == 'hf' and path.is_dir() and not any(path.iterdir())
  for own in (path, card.beside(path)):
    if own.exists() and not (own == path and empty):
      raise UserError(
        f'{own} exists already; choose another path, or remove it'
      )


def _check_installed(form: ModuleType, to: str) -> None:
  for package, how in form.NEEDS.items():
    if importlib.util.find_spec(package) is None:
      raise UserError(
        f'jaxkd.export: to={to!r} needs the package {package}, which is not '
        f'installed: {how}'
      )


def _checked(
  given: Exportable,
  form: ModuleType,
  path: Path,
  outputs: Sequence[str],
  inputs: Any,
  dtype: str,
) -> dict[str, Any]:
  """Compares the file's outputs with the net's, on batches of two sizes.

  Returns:
    The entry about it in the JSON file.
  """
  arrays, of = exportable.examples(given, inputs)
  ours = given.outputs(arrays)
  names = program.chosen(ours, outputs or exportable.outputs_of(given))
  ours = {name: ours[name] for name in names}
  rounded = dtype != 'float32' or any(
    (
      given.spec.get('dtype', 'float32') != 'float32',
      given.spec.get('param_dtype', 'float32') != 'float32',
      'activations' in given.spec.get('quantize', ''),
      'features' in given.spec.get('quantize', ''),
    )
  )
  for batch in (slice(FEW), slice(None)):
    found = form.run(given, path, names, [x[batch] for x in arrays])
    if found is None:
      return {'check': None}
    own = {name: ours[name][batch] for name in found}
    compared = check.compare(
      own,
      found,
      of,
      rounded=rounded,
      one_class=given.net.logits == 'softmax',
      at=str(path),
    )
  return {'check': {**compared._asdict(), 'by': form.RUNTIME}}
