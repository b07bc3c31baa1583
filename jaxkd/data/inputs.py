"""The inputs that a net was trained on: their shapes, dtypes and ranges.

They are described as they are before views. The description is exported with
every net, so that a loaded net refuses inputs that differ and can read image
files as the run did.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxkd import files, shapes
from jaxkd.data import passes
from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.data.images import image_files
from jaxkd.data.sources import Source
from jaxkd.errors import UserError

SLACK = 1e-3  # by which rounded values may exceed a range
LOOKED_AT = 1024  # examples that give the range where not all are in memory
_PLACES = {'segments', 'positions'}  # beside tokens, of packed rows
_MODES = {1: 'L', 3: 'RGB'}  # of Pillow, by the number of channels


class Array(NamedTuple):
  """One array of an example.

  Attributes:
    shape: of one example.
    dtype: 'uint8', 'float32' or an integer type; '' if unknown.
    low: the least value in training, where bytes count as 0 to 1; None if
      unknown.
    high: the largest value, or the last token.
  """

  shape: tuple[int, ...]
  dtype: str
  low: float | None = None
  high: float | None = None

  @property
  def is_integer(self) -> bool:
    """Whether it holds integers such as tokens; bytes count as pixels."""
    return self.dtype not in ('uint8', 'float32', '')

  @property
  def is_image(self) -> bool:
    """Whether an example is an image [H, W, C]."""
    known = self.low is not None and not self.is_integer
    return len(self.shape) == 3 and known

  @property
  def is_unit(self) -> bool:
    """Whether values are from 0 to 1, as is usual for images."""
    known = self.low is not None and not self.is_integer
    return known and self.low >= 0 and self.high <= 1

  def bounds(self) -> tuple[float, float]:
    """The range outside of which values must be an error: (low, high).

    Images and bytes from 0 to 1 must stay in that range. Other values from 0 to
    1, and images of another range, may exceed it by its width. All else is
    unbounded.
    """
    if self.is_integer:
      low = -math.inf if self.low is None else self.low
      return low, math.inf if self.high is None else self.high
    if self.is_unit and (self.is_image or self.dtype == 'uint8'):
      return 0.0, 1.0
    if self.is_unit or self.is_image:
      width = self.high - self.low
      return self.low - width, self.high + width
    return -math.inf, math.inf


class Inputs(NamedTuple):
  """A description of the inputs of a source, before any view.

  Attributes:
    arrays: an `Array`, or a dict of them.
    resize: side in pixels that image files were resized to, or height and
      width, by Pillow's bilinear filter; 0 for no resizing.
    range: the range from which the run rescaled pixels to 0 to 1, as in
      ``data.kw.range``; empty for none.
  """

  arrays: Any
  resize: int | tuple[int, int] = 0
  range: tuple[float, ...] = ()

  @property
  def is_known(self) -> bool:
    """Whether dtypes and ranges are known, and not only shapes."""
    arrays = jax.tree.leaves(self.arrays, is_leaf=is_array)
    return all(array.dtype for array in arrays)

  @property
  def shape(self) -> Any:
    """Shape of one example, or a pytree of shapes; see `jaxkd.shapes`."""

    def of(array):
      if array.is_integer:
        return jax.ShapeDtypeStruct(array.shape, array.dtype)
      return array.shape

    return jax.tree.map(of, self.arrays, is_leaf=is_array)


def is_array(node: Any) -> bool:
  """Whether a node of a pytree is an `Array`; for `jax.tree.map`."""
  return isinstance(node, Array)


# The description that is exported with a net.


def of(source: Source) -> Inputs:
  """Describes the inputs of a source, from its training split."""
  train = source.splits['train']
  one = train.fetch(np.arange(1))['inputs']
  paths, structure = jax.tree.flatten_with_path(one)
  leaves = [leaf for _, leaf in paths]
  ends = _ends(train, leaves)
  arrays = []
  for (path, leaf), (low, high) in zip(paths, ends, strict=True):
    kind = 'float32' if leaf.dtype.kind == 'f' else leaf.dtype.name
    if kind == 'uint8':
      low, high = 0.0, 1.0
    elif kind == 'bool':
      low, high = 0, 1
    elif kind != 'float32':
      low = 0 if low >= 0 else None
      of_tokens = source.vocabulary and not _PLACES & {*map(_key, path)}
      high = source.vocabulary - 1 if of_tokens else None
    arrays.append(Array(tuple(leaf.shape[1:]), kind, low, high))
  tree = jax.tree.unflatten(structure, arrays)
  return Inputs(tree, source.resize, source.range)


def _key(entry: Any) -> str:
  return str(getattr(entry, 'key', ''))


def unknown(shape: Any, dtype: str = '') -> Inputs:
  """A description where only shapes are known.

  Args:
    shape: of one example, or a pytree of shapes.
    dtype: of floats, if known.
  """

  def array(x):
    if shapes.is_shape(x):
      return Array(tuple(x), dtype)
    return Array(tuple(x.shape), np.dtype(x.dtype).name)

  return Inputs(jax.tree.map(array, shape, is_leaf=shapes.is_shape))


def as_json(inputs: Inputs) -> dict[str, Any]:
  """The description in JSON's types."""
  arrays = jax.tree.map(Array._asdict, inputs.arrays, is_leaf=is_array)
  return {**inputs._asdict(), 'arrays': arrays}


def from_json(found: dict[str, Any]) -> Inputs:
  """The inverse of `as_json`."""

  def array(node):
    if isinstance(node, list):
      return tuple(map(array, node))
    if node.keys() == set(Array._fields):
      return Array(**{**node, 'shape': tuple(node['shape'])})
    return {name: array(child) for name, child in node.items()}

  ends, resize = tuple(found.get('range', ())), found['resize']
  if isinstance(resize, list):
    resize = tuple(resize)
  return Inputs(array(found['arrays']), resize, ends)


def scales(inputs: Inputs) -> list[tuple]:
  """The scale of each array's values, to compare two data sets."""
  return [
    (x.dtype, x.high) if x.is_integer else ('from 0 to 1' if x.is_unit else '',)
    for x in jax.tree.leaves(inputs.arrays, is_leaf=is_array)
  ]


def _ends(examples: Examples, leaves: list) -> list[tuple[float, float]]:
  """The least and the largest value of each array that is not bytes."""
  ends = [(math.inf, -math.inf)] * len(leaves)
  wide = [i for i, leaf in enumerate(leaves) if leaf.dtype != np.uint8]
  count = len(examples)
  if not isinstance(examples, ArrayExamples):
    count = min(count, LOOKED_AT)
  for numbers in passes.parts(
    count if wide else 0, passes.nbytes(leaves), 'looking at inputs', LOOKED_AT
  ):
    found = jax.tree.leaves(examples.fetch(numbers)['inputs'])
    for i in wide:
      low, high = ends[i]
      ends[i] = (
        min(low, found[i].min().item()),
        max(high, found[i].max().item()),
      )
  return ends


# Inputs that are given to a loaded net.


def take(inputs: Inputs, given: Any) -> Any:
  """Checks a batch and converts it to what the net's views take.

  Bytes stay bytes, for the view; other numbers become float32, and tokens
  int32. Grey images [N, H, W] get an axis of channels. Values out of range
  raise an error. Under a transformation such as ``jax.jit`` values are unknown:
  there, an example out of range becomes NaN, and so do the net's outputs.

  In a dict, arrays that the examples do not have pass unchecked: a model may
  take more inputs, e.g. one that decodes token by token. So does a dict for a
  net of tokens alone, as a language model that writes is given.

  Args:
    inputs: what the net takes.
    given: an array [N, ...], or a dict of them.

  Raises:
    UserError: arrays of another shape or type, or values out of range.
  """

  def one(known, given):
    if is_array(known):
      if hasattr(given, 'shape') and hasattr(given, 'dtype'):
        return _typed(_shaped(given, known, inputs), known, inputs)
      if known.is_integer and isinstance(given, Mapping):
        return dict(given)
    elif isinstance(known, Mapping) and isinstance(given, Mapping):
      _check_parts(known, given, inputs)
      return {
        name: one(known[name], x) if name in known else x
        for name, x in given.items()
      }
    elif isinstance(given, tuple | list) and len(given) == len(known):
      return tuple(map(one, known, given))
    kind = 'one array' if is_array(inputs.arrays) else 'several arrays'
    raise UserError(
      f'inputs: this net takes {kind}, {said(inputs)}, and was given a '
      f'{type(given).__name__}; give numpy or jax arrays like that'
    )

  return one(inputs.arrays, given)


def _check_parts(known: Mapping, given: Mapping, inputs: Inputs) -> None:
  """Refuses a dict without an image of the net's, or of unequal lengths."""
  images = [name for name, x in known.items() if is_array(x) and x.is_image]
  for name in images:
    if name not in given:
      raise UserError(
        f'inputs: this net takes {said(inputs)}, and {name} is missing; give '
        'it too'
      )
  counts = {name: len(given[name]) for name in images if np.ndim(given[name])}
  if len({*counts.values()}) > 1:
    several = ', '.join(f'{n:,} of {name}' for name, n in counts.items())
    raise UserError(f'inputs: there are {several}; give as many of each')


def said(inputs: Inputs) -> str:
  """What a net takes, for messages."""
  found = []
  for name, array in _named(inputs).items():
    sizes = ', '.join(map(str, ('N', *array.shape)))
    found.append(f'{name} [{sizes}]{_range(array)}'.strip())
  return '; '.join(found)


def _named(inputs: Inputs) -> dict[str, Array]:
  """Each array by its path, which is empty where there is one."""
  paths, _ = jax.tree.flatten_with_path(inputs.arrays, is_leaf=is_array)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): array
    for path, array in paths
  }


def _range(array: Array) -> str:
  if array.is_integer:
    known = array.low is not None and array.high is not None
    ends = f' from {array.low} to {array.high}' if known else ''
    return f' of {array.dtype}{ends}'
  if array.dtype == 'uint8' or (array.is_unit and array.is_image):
    return ' of uint8, or of floats from 0 to 1'
  if array.low is None:
    return ' of floats' if array.dtype else ''
  return f' of floats, in training from {array.low:g} to {array.high:g}'


def _shaped(x: Any, array: Array, inputs: Inputs) -> Any:
  """A batch of the right shape."""
  given, wanted = tuple(x.shape), array.shape
  if given[1:] == wanted and len(given) > len(wanted):
    return x
  grey = len(wanted) == 3 and wanted[-1] == 1
  if grey and len(given) == 3 and given[1:] == wanted[:2] and given != wanted:
    return x[..., None]
  one = (wanted, wanted[:2]) if grey else (wanted,)
  if given in one:
    do = 'a batch has an axis more in front, so give inputs[None]'
  elif array.is_image and given[1:] == (wanted[2], *wanted[:2]):
    do = 'channels come last, so give numpy.moveaxis(inputs, 1, -1)'
  elif array.is_image:
    do = _bring(array, inputs)
  else:
    do = 'give arrays of that shape'
  raise UserError(
    f'inputs: this net takes {said(inputs)}, and was given '
    f'[{", ".join(map(str, given))}]; {do}'
  )


def _bring(array: Array, inputs: Inputs) -> str:
  """How to convert images to what a net takes, for messages."""
  height, width, channels = array.shape
  colours = {1: 'grey', 3: 'RGB'}.get(channels, f'{channels} channels')
  if not are_files(inputs):
    return f'bring it to {height} × {width} pixels of {channels} channels'
  if inputs.resize:
    down, across = image_files.sides(inputs.resize)
    return (
      f'bring images to {down} × {across} pixels, {colours}, as data.kw.resize='
      f'{inputs.resize} did in the run: net.read(FILE) does so'
    )
  return (
    f'bring images to {height} × {width} pixels, {colours}: '
    'net.read(FILE, resize=True) does so'
  )


def _typed(x: Any, array: Array, inputs: Inputs) -> Any:
  """Checks a batch's values and converts it to the dtype of the view."""
  if not array.dtype:
    return x
  kind = 'f' if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype.kind
  if array.is_integer:
    wanted = np.dtype(array.dtype)
    if kind not in ('b' if wanted.kind == 'b' else 'iu'):
      raise _wrong_type(x, f'give {array.dtype}')
    _check_tokens(x, array)
    return x.astype(wanted)
  is_bytes = x.dtype == np.uint8
  if is_bytes and array.is_unit and (array.dtype == 'uint8' or array.is_image):
    return x
  if kind not in 'fb':
    raise _wrong_type(x, f'give arrays{_range(array)}')
  with np.errstate(over='ignore'):  # inf, which `_within` refuses
    return _within(x.astype(np.float32), array, inputs)


def _wrong_type(x: Any, do: str) -> UserError:
  return UserError(
    f'inputs: this net does not take numbers of type {x.dtype}; {do}'
  )


def _check_tokens(x: Any, array: Array) -> None:
  """Refuses integers out of range, unless they are traced."""
  if isinstance(x, jax.core.Tracer) or not x.size:
    return
  (low, high), found = array.bounds(), (x.min().item(), x.max().item())
  if found[0] < low or found[1] > high:
    raise UserError(
      f'inputs: numbers from {found[0]} to {found[1]} were given to a net that '
      f'takes those from {low} to {high}; give tokens of the vocabulary that '
      'it was trained with'
    )


def _within(x: Any, array: Array, inputs: Inputs) -> Any:
  """Refuses values out of range; traced examples out of range become NaN."""
  low, high = array.bounds()
  outside = (x < low - SLACK) | (x > high + SLACK)
  if isinstance(x, jax.core.Tracer):
    if high == math.inf:
      return x
    axes = tuple(range(1, x.ndim))
    return jnp.where(outside.any(axes, keepdims=True), jnp.nan, x)
  if not outside.any():
    return x
  trained, do = f'{array.low:g} to {array.high:g}', 'scale them as the run did'
  if array.dtype == 'uint8' or (array.is_unit and array.is_image):
    trained = '0 to 1'
    how = 'e.g. divide bytes by 255, or give them as uint8'
    if inputs.range:
      low, high = (f'{end:g}' for end in inputs.range)
      how = (
        f'whose data.kw.range=({low}, {high}) brought {low} to 0 and {high} to '
        '1, or give bytes as uint8'
      )
    do = f'{do}, {how}'
  raise UserError(
    f'inputs: values from {x.min():g} to {x.max():g} were given to a net that '
    f'was trained on those from {trained}; {do}'
  )


# Files.


def are_files(inputs: Inputs) -> bool:
  """Whether image files can hold the net's inputs: bytes, grey or RGB."""
  array = inputs.arrays
  is_image = is_array(array) and array.is_image and array.is_unit
  return is_image and array.shape[2] in _MODES


def read(
  inputs: Inputs, paths: Sequence[str | Path], *, resize: bool = False
) -> np.ndarray:
  """Reads image files as the run read its own, uint8 [N, H, W, C].

  They are decoded, rotated by their EXIF tag and resized by the code that reads
  class folders. If all images of the run were grey, Pillow converts colours.

  Args:
    inputs: what the net takes.
    paths: of the files.
    resize: whether to resize images of other sizes to the net's, by Pillow's
      bilinear filter, if the run did not resize its own.

  Raises:
    UserError: a net that does not take images, a file that is not an image, or
      one of another size.
  """
  if not are_files(inputs):
    raise UserError(
      f'net.read: this net takes {said(inputs)}, which is not what files of '
      'images hold; give net.apply arrays'
    )
  if not paths:
    raise UserError('net.read: name one file or more')
  found = (files.path(path, at='net.read') for path in paths)
  return np.stack([_image(path, inputs, resize) for path in found])


def batch_of(inputs: Inputs, examples: Sequence[Any]) -> Any:
  """Single examples as a batch of what the net takes.

  Args:
    inputs: what the net takes.
    examples: paths of image files, or arrays of one example each; where the
      net takes images, of any height and width.

  Returns:
    [N, ...], or a pytree of such arrays.

  Raises:
    UserError: no such file, or an array that is no such example.
  """
  found = [_example(inputs, example) for example in examples]
  if are_files(inputs) and len({pixels.dtype for pixels in found}) > 1:
    found = [
      pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
      for pixels in found
    ]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def _example(inputs: Inputs, given: Any) -> Any:
  """One example, from a file or an array."""
  if isinstance(given, str | Path):
    return read(inputs, [given], resize=True)[0]
  if not are_files(inputs):
    return given
  if not hasattr(given, 'shape') or not hasattr(given, 'dtype'):
    raise UserError(
      f'net.predict: a {type(given).__name__} is no image; give the path of a '
      'file, or an array [H, W, C]'
    )
  pixels, shape = np.asarray(given), inputs.arrays.shape
  if pixels.ndim == 2 and shape[2] == 1:
    pixels = pixels[..., None]
  if pixels.ndim != 3 or pixels.shape[2] != shape[2] or not pixels.size:
    axes = ' × '.join(map(str, pixels.shape))
    kind = 'grey, [H, W]' if shape[2] == 1 else 'RGB, [H, W, 3]'
    raise UserError(
      f'net.predict: an array of {axes} is no image of this net; give each '
      f'image by itself, {kind}'
    )
  if pixels.dtype == np.uint8:
    return _resized(pixels, shape)
  one = inputs._replace(arrays=inputs.arrays._replace(shape=pixels.shape))
  (pixels,) = take(one, pixels[None])  # refuses what is not from 0 to 1
  return _resized(pixels, shape)


def _resized(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """An image [H, W, C] of bytes or floats in the height and width of a shape.

  Each channel by itself, by Pillow's bilinear filter.
  """
  if pixels.shape == tuple(shape):
    return pixels
  planes = (Image.fromarray(plane) for plane in np.moveaxis(pixels, -1, 0))
  size = shape[1], shape[0]
  return np.stack(
    [np.asarray(x.resize(size, Image.Resampling.BILINEAR)) for x in planes], -1
  )


def _image(path: Path, inputs: Inputs, resize: bool) -> np.ndarray:
  """A file as an image [H, W, C] of the net's size."""
  shape = inputs.arrays.shape
  if not path.is_file():
    raise UserError(f'net.read: there is no file {path}')
  mode = _MODES[shape[2]]
  try:
    image_files.kind([path], inputs.resize)  # refuses what is no image of bytes
    one = image_files.read([path], np.zeros(1, np.int32), mode, inputs.resize)
    one = one.fetch(np.arange(1))
  except UserError as error:
    raise UserError(error.sentence, entry='net.read') from error
  (pixels,) = one['inputs']
  if pixels.shape == shape:
    return pixels
  height, width, _ = pixels.shape
  if not resize:
    raise UserError(
      f'net.read: {path} has {height} × {width} pixels and this net takes '
      f'{shape[0]} × {shape[1]}; with resize=True it is brought to that size'
    )
  return _resized(pixels, shape)
