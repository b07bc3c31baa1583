"""Labels with positions in an image: maps, boxes and points.

The kind of a field follows from its name:

- ``labels``: the class of the whole image, []; a class for each pixel, [H, W];
  or the classes of up to M objects, [M], whose places are in other fields;
- ``valid``: bool, of the shape of the labels: which of them count;
- ``boxes``: float [M, 4], each (top, left, bottom, right);
- ``points``: float [M, 2], each (down, right).

Inputs are images. `Source.fields` gives the kind of each part of inputs that
are several arrays, or of ``inputs``: `MAP` for an image, or, in bytes around
`ZERO`, `SIGNED` for an image of differences, and `VECTORS`: for each pixel
(right, down) in some number of pixels, several pairs along the channels.

Positions are shares of the height and of the width, as in TFDS: (0, 0) is the
upper left corner of the image, and (1, 1) the lower right corner. So they do
not depend on the number of pixels. `Source.fields` gives the kind of fields
with other names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.errors import UserError, unknown

FIXED = 'fixed'  # does not depend on positions
MAP = 'map'  # [H, W, ...]
BOXES = 'boxes'  # [M, 4]
POINTS = 'points'  # [M, 2]
OBJECTS = 'objects'  # [M]: one value for each box or point, e.g. its class
SIGNED = 'signed'  # [H, W, C]: inputs, differences of pixels
VECTORS = 'vectors'  # [H, W, 2 n]: inputs, pairs of (right, down) in pixels
AROUND_ZERO = (SIGNED, VECTORS)  # bytes of which `ZERO` stands for nothing
UNKNOWN = ''  # several values of unknown meaning
# In `Source.fields`.
DECLARED = (FIXED, MAP, BOXES, POINTS, OBJECTS, *AROUND_ZERO)
ZERO = 128  # the byte of a difference or a vector of 0
_LAST = {BOXES: 4, POINTS: 2}  # the size of the last axis
_FORMS = {
  MAP: '[height, width, ...] of its image',
  BOXES: '[objects, 4]',
  POINTS: '[objects, 2]',
  OBJECTS: '[objects]',
}
_ROUNDING = 1e-5  # by which positions may lie outside of the image


def kinds(
  example: Mapping[str, Any], declared: Mapping[str, str]
) -> dict[str, str]:
  """The kind of each field of an example, except its inputs.

  Args:
    example: the fields; arrays, or their shapes.
    declared: `Source.fields`.

  Returns:
    Field -> one of `DECLARED`, or `UNKNOWN`.

  Raises:
    UserError: a field whose shape does not fit its kind.
  """
  size = size_of(example['inputs'])
  found, counts = {}, set()
  for name in example:
    if name == 'inputs':
      continue
    shape = np.shape(example[name])
    usual = name if name in _LAST else UNKNOWN
    found[name] = declared.get(name, usual if shape else FIXED)
    _check_shape(name, shape, found[name], size)
    if found[name] in _LAST:
      counts.add(shape[:1])
  shape = np.shape(example['labels'])
  if found['labels'] == UNKNOWN and 'labels' not in declared:
    if shape == size:
      found['labels'] = MAP
    elif shape in counts:
      found['labels'] = OBJECTS
  if 'valid' in found and 'valid' not in declared:
    found['valid'] = found['labels']
  return found


def positional(example: Mapping[str, Any], declared: Mapping[str, str]) -> str:
  """The first field with positions; empty if there is none.

  Labels of unknown kind, several for an image, are assumed to have positions.
  """
  found = kinds(example, declared)
  names = [name for name, kind in found.items() if kind in (MAP, *_LAST)]
  if found['labels'] == UNKNOWN and size_of(example['inputs']):
    names.append('labels')
  return next(iter(names), '')


def check_declared(declared: Mapping[str, str], at: str) -> None:
  """Refuses kinds of fields that do not exist.

  Args:
    declared: `Source.fields`.
    at: what to call the source in errors.

  Raises:
    UserError: an unknown kind.
  """
  for field, kind in declared.items():
    if kind not in DECLARED:
      raise unknown(f'kind of field for {field!r}', kind, DECLARED, at)


def check(
  batch: Mapping[str, Any],
  numbers: np.ndarray,
  declared: Mapping[str, str],
  at: str,
) -> None:
  """Refuses boxes and points outside of the image, and boxes without area.

  Those that do not count may be anything.

  Args:
    batch: fields [n, ...].
    numbers: of the examples, int [n].
    declared: `Source.fields`.
    at: what to call the split in errors.

  Raises:
    UserError: naming the first example that is wrong.
  """
  for field, x in batch.items():
    kind = declared.get(field, field)
    if kind not in _LAST:
      continue
    last = _LAST[kind]
    if x.ndim != 3 or x.shape[-1] != last or x.dtype.kind != 'f':
      raise UserError(
        f'{at}: the field {field} of example {numbers[0]} is {x.dtype} '
        f'{list(x.shape[1:])}; it must be float [objects, {last}]'
      )
    with np.errstate(invalid='ignore'):
      wrong = ~((x >= -_ROUNDING) & (x <= 1 + _ROUNDING)).all(-1)
      if kind == BOXES:
        wrong |= (x[..., :2] >= x[..., 2:]).any(-1)
    if batch.get('valid', np.empty(0)).shape == wrong.shape:
      wrong &= batch['valid']
    for i, j in np.argwhere(wrong):
      must, also = '(down, right)', ''
      if kind == BOXES:
        must, also = '(top, left, bottom, right)', ', and have an area'
      given = ', '.join(f'{value:.6g}' for value in x[i, j])
      raise UserError(
        f'{at}: example {numbers[i]} has [{given}] among its {field}; '
        f'each must be {must}, in shares of the height and width, from 0 to 1'
        f'{also}'
      )


def size_of(inputs: Any) -> tuple[int, ...]:
  """Height and width of inputs; empty if they are not images of one size.

  Args:
    inputs: of one example, an array or a dict of them.
  """
  parts = inputs.values() if isinstance(inputs, Mapping) else [inputs]
  shapes = [getattr(x, 'shape', ()) for x in parts]
  sizes = {tuple(shape[:2]) for shape in shapes}
  images = all(len(shape) == 3 for shape in shapes)
  return sizes.pop() if images and len(sizes) == 1 else ()


def _check_shape(
  name: str, shape: tuple[int, ...], kind: str, size: tuple[int, ...]
) -> None:
  fits = {
    MAP: bool(size) and shape[:2] == size,
    OBJECTS: len(shape) == 1,
    **{k: len(shape) == 2 and shape[1] == last for k, last in _LAST.items()},
  }
  if not fits.get(kind, True):
    raise UserError(
      f'the field {name!r} of an example is {list(shape)}, and should be '
      f'{_FORMS[kind]} to be of the kind {kind!r}'
    )
