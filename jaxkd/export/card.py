"""What lies beside an exported file, for whoever uses it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jaxkd
from jaxkd import files
from jaxkd.data.images import image_files
from jaxkd.data.inputs import Array
from jaxkd.export.check import Compared
from jaxkd.export.exportable import Exportable
from jaxkd.export.program import BATCH, Program

SUFFIX = '.json'  # behind the name of the file
_MEANS = {
  'softmax': 'a number for each class along the last axis; their softmax is '
  'the probabilities',
  'sigmoids': 'a number for each class along the last axis; the sigmoid of '
  'each is its probability',
  'values': 'predictions of values that were standardised; times the '
  'deviations and plus the means, they are in the unit of the labels',
}


def of(
  given: Exportable,
  path: Path,
  to: str,
  program: Program | None,
  more: Mapping[str, Any],
) -> dict[str, Any]:
  """The description of a file, of JSON's types.

  Args:
    given: the net.
    path: the file or the folder.
    to: its format.
    program: what it holds; None where it holds weights alone.
    more: what else is known of it, as what the check has found.
  """
  spec, classes = given.spec, list(given.net.classes)
  found = {
    'format': to,
    'made by': f'jaxkd {jaxkd.__version__}',
    'bytes': size(path),
    **({'net': given.place} if given.place else {}),
    'model': {k: spec[k] for k in ('model', 'kw', 'quantize') if spec.get(k)},
    'task': given.task,
    'classes': classes,
    'inputs': {name: _input(array) for name, array in given.arrays().items()},
    'preprocessing': _preprocessing(given, inside=program is not None),
  }
  if program:
    found['outputs'] = {
      name: {'shape': _sizes(x.shape), 'dtype': np.dtype(x.dtype).name}
      for name, x in program.outputs.items()
    }
    if 'logits' in program.outputs and classes:
      found['outputs']['logits']['means'] = _MEANS[given.net.logits]
  if any(given.net.standardized):
    means, scales = given.net.standardized
    found['standardized by'] = {'means': means, 'deviations': scales}
  return {**found, **more}


def write(path: Path, card: Mapping[str, Any]) -> None:
  """Writes the description of a file beside it."""
  text = json.dumps(card, indent=2, ensure_ascii=False)
  beside(path).write_text(f'{text}\n')


def beside(path: Path) -> Path:
  """Where the description of a file is."""
  return path.with_name(path.name + SUFFIX)


def said(path: Path, card: Mapping[str, Any]) -> list[str]:
  """What was written and found, in lines for a terminal."""
  compared = 'not compared with the net: transformers and torch are not here'
  if card['check']:
    found = dict(card['check'])
    by = found.pop('by')
    compared = Compared(**found).said(by)
  kind = 'values' if 'standardized by' in card else 'classes'
  classes = f'its {len(card["classes"])} {kind}, ' if card['classes'] else ''
  arrows = [
    '; '.join(
      f'{name} [{", ".join(map(str, x["shape"]))}] of {x["dtype"]}'
      for name, x in card[side].items()
    )
    for side in ('inputs', 'outputs')
    if side in card
  ]
  what = card['format'] + (f' of {card["net"]}' if 'net' in card else '')
  return [
    f'{path}: {what}, {card["bytes"]:,} bytes, {" → ".join(arrows)}',
    *card.get('notes', ()),
    compared,
    f'{beside(path)}: {classes}inputs, outputs and this check',
  ]


def size(path: Path) -> int:
  """The bytes of a file, or of the files in a folder."""
  if path.is_file():
    return path.stat().st_size
  return sum(files.below(path).values())


def _input(array: Array) -> dict[str, Any]:
  """What is to be known of one input."""
  found = {'shape': [BATCH, *array.shape], 'dtype': array.dtype or 'float32'}
  if array.is_image:
    colours = {1: 'grey', 3: 'RGB'}.get(array.shape[-1], 'channels')
    found['means'] = f'images: rows × columns × {colours}'
  ends = (0, 255) if array.dtype == 'uint8' else (array.low, array.high)
  return {**found, 'from': ends[0], 'to': ends[1]}


def _preprocessing(given: Exportable, *, inside: bool) -> dict[str, Any]:
  """What is done to examples before they are given, and what the file does."""
  steps = []
  if any(array.dtype == 'uint8' for array in given.arrays().values()):
    steps.append('bytes are divided by 255')
  if given.net.view:
    steps.append(f'the view of evaluation is applied: {given.net.view}')
  before = {}
  if given.inputs.resize:
    height, width = image_files.sides(given.inputs.resize)
    before['resize'] = {'height': height, 'width': width}
    before['filter'] = "Pillow's bilinear one, of the whole image"
  if given.inputs.range:
    before['brought from this range to 0 to 1'] = list(given.inputs.range)
  return {'before': before, 'in the file' if inside else 'behind it': steps}


def _sizes(shape: Sequence[Any]) -> list[int | str]:
  """A shape of JSON's types; the axis of examples has a name."""
  return [x if isinstance(x, int) else str(x) for x in shape]
