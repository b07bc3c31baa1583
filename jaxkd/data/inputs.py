"""What a net takes: its examples as the source gave them, before any view.

A run reads its files in one way: the mode, the size and the range of what it
trains on. That is kept with every net that it exports, so that a loaded net
refuses what is something else and can read files as the run did.
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
from jaxkd.data import images, passes
from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.data.sources import Source
from jaxkd.errors import UserError

SLACK = 1e-3  # of rounding, beyond the ends of a range
LOOKED_AT = 1024  # examples, for the range of those that are not in memory
_MODES = {1: 'L', 3: 'RGB'}  # of Pillow, by the number of channels


class Array(NamedTuple):
  """One array of an example.

  Attributes:
    shape: of one example.
    dtype: 'uint8', 'float32' or that of whole numbers; '' where it is not
      known.
    low: the least value that the net trained on, with bytes taken from 0 to 1;
      None if it is not known.
    high: the largest value, or the last token.
  """

  shape: tuple[int, ...]
  dtype: str
  low: float | None = None
  high: float | None = None

  @property
  def is_integer(self) -> bool:
    """Whether it holds whole numbers, as tokens are; bytes are pixels."""
    return self.dtype not in ('uint8', 'float32', '')

  @property
  def is_image(self) -> bool:
    """Whether it is an example [H, W, C] of the data."""
    known = self.low is not None and not self.is_integer
    return len(self.shape) == 3 and known

  @property
  def is_unit(self) -> bool:
    """Whether values go from 0 to 1, as those of images mostly do."""
    known = self.low is not None and not self.is_integer
    return known and self.low >= 0 and self.high <= 1

  def bounds(self) -> tuple[float, float]:
    """Between which values something else is meant than was trained on.

    Those of images are known. Other numbers from 0 to 1 may leave that range a
    little, and those of a wider one as far as they like.
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
  """What the examples of a source are, before any view.

  Attributes:
    arrays: an `Array`, or a dict of them.
    resize: side in pixels that image files were brought to, by Pillow's
      bilinear filter; 0 if they were left as they are.
    range: what pixels went from and to before the run brought them to 0 to 1,
      if it was told; else empty.
  """

  arrays: Any
  resize: int = 0
  range: tuple[float, ...] = ()

  @property
  def is_known(self) -> bool:
    """Whether more of it is known than its shapes."""
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


# What is kept with a net.


def of(source: Source) -> Inputs:
  """What the examples of a source are; looks at those to train on."""
  train = source.splits['train']
  one = train.fetch(np.arange(1))['inputs']
  leaves, structure = jax.tree.flatten(one)
  ends = _ends(train, leaves)
  arrays = []
  for leaf, (low, high) in zip(leaves, ends, strict=True):
    kind = 'float32' if leaf.dtype.kind == 'f' else leaf.dtype.name
    if kind == 'uint8':
      low, high = 0.0, 1.0
    elif kind != 'float32':
      low = 0 if low >= 0 else None
      high = source.vocabulary - 1 if source.vocabulary else None
    arrays.append(Array(tuple(leaf.shape[1:]), kind, low, high))
  tree = jax.tree.unflatten(structure, arrays)
  return Inputs(tree, source.resize, source.range)


def unknown(shape: Any, dtype: str = '') -> Inputs:
  """Those of a shape, of which no range is known.

  Args:
    shape: of one example, or a pytree of shapes.
    dtype: of floats, if that is known.
  """

  def array(x):
    if shapes.is_shape(x):
      return Array(tuple(x), dtype)
    return Array(tuple(x.shape), np.dtype(x.dtype).name)

  return Inputs(jax.tree.map(array, shape, is_leaf=shapes.is_shape))


def as_json(inputs: Inputs) -> dict[str, Any]:
  """The inputs of JSON's types."""
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

  ends = tuple(found.get('range', ()))
  return Inputs(array(found['arrays']), found['resize'], ends)


def scales(inputs: Inputs) -> list[tuple]:
  """What is the same of the values of data that are shown in the same way."""
  return [
    (x.dtype, x.high) if x.is_integer else ('from 0 to 1' if x.is_unit else '',)
    for x in jax.tree.leaves(inputs.arrays, is_leaf=is_array)
  ]


def _ends(examples: Examples, leaves: list) -> list[tuple[float, float]]:
  """The least and the largest value of each array that holds no bytes."""
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


# What is given to a net.


def take(inputs: Inputs, given: Any) -> Any:
  """A batch as the net's views take it.

  Bytes stay bytes, for the view; other numbers become float32, and tokens
  int32. Grey images [N, H, W] get their channel. Values are looked at where
  they are known; inside of a transformation such as ``jax.jit`` they are not,
  and an example out of range becomes NaN there, and so does what the net gives.

  Of a dict the arrays are looked at that the examples have too: a model may be
  asked for other things as well, as one that writes a token at a time is.

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
    elif isinstance(known, Mapping) and isinstance(given, Mapping):
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


def said(inputs: Inputs) -> str:
  """What a net takes, in words."""
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
    do = _bring(inputs)
  else:
    do = 'give arrays of that shape'
  raise UserError(
    f'inputs: this net takes {said(inputs)}, and was given '
    f'[{", ".join(map(str, given))}]; {do}'
  )


def _bring(inputs: Inputs) -> str:
  """How images become what a net takes."""
  height, width, channels = inputs.arrays.shape
  colours = {1: 'grey', 3: 'RGB'}.get(channels, f'{channels} channels')
  if inputs.resize:
    side = inputs.resize
    return (
      f'bring images to {side} × {side} pixels, {colours}, as data.kw.resize='
      f'{side} did in the run: net.read(FILE) does so'
    )
  more = ': net.read(FILE, resize=True) does so' if channels in _MODES else ''
  return f'bring images to {height} × {width} pixels, {colours}{more}'


def _typed(x: Any, array: Array, inputs: Inputs) -> Any:
  """The batch in the type that the view takes, its values checked."""
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
  with np.errstate(over='ignore'):  # becomes infinite, as is seen then
    return _within(x.astype(np.float32), array, inputs)


def _wrong_type(x: Any, do: str) -> UserError:
  return UserError(
    f'inputs: this net does not take numbers of type {x.dtype}; {do}'
  )


def _check_tokens(x: Any, array: Array) -> None:
  """Refuses whole numbers out of range, where they are known."""
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
  """The same values, or NaN for examples out of range that are not known."""
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
  """Whether files of images hold what a net takes: bytes, grey or RGB."""
  array = inputs.arrays
  is_image = is_array(array) and array.is_image and array.is_unit
  return is_image and array.shape[2] in _MODES


def read(
  inputs: Inputs, paths: Sequence[str | Path], *, resize: bool = False
) -> np.ndarray:
  """Image files as the run has read its own, uint8 [N, H, W, C].

  Decoded, turned and resized by the code that reads class folders. Where all
  images of the run were grey, colours become grey, as Pillow does it.

  Args:
    inputs: what the net takes.
    paths: of the files.
    resize: whether to bring images of other sizes to that of the net, by
      Pillow's bilinear filter, where the run took its images as they are.

  Raises:
    UserError: a net of something else than images, or a file that is no image,
      or one of another size.
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


def _image(path: Path, inputs: Inputs, resize: bool) -> np.ndarray:
  """A file as an image [H, W, C] of the net's size."""
  shape = inputs.arrays.shape
  if not path.is_file():
    raise UserError(f'net.read: there is no file {path}')
  mode = _MODES[shape[2]]
  try:
    images.kind([path], inputs.resize)  # refuses what is no image of bytes
    one = images.read([(path, 0)], mode, inputs.resize).fetch(np.arange(1))
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
  image = Image.fromarray(pixels[..., 0] if mode == 'L' else pixels)
  image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
  return np.asarray(image).reshape(shape)
