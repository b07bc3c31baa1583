"""Views: the preprocessing and augmentation of one net's inputs.

A view is a pipeline of ops, written as a string such as
``'pad_and_crop(4)|flip|noise(0.1)'`` and applied on the device, inside the
step. An op is a function ``op(key, image, *arguments) -> image`` on one
example. To add one, write a function here, or name your own as
``package.module:function``.

What an example looks like depends on (seed, epoch, example) alone. So a resumed
run sees what an uninterrupted one sees, and cached teacher outputs stay valid.
Each op folds its own name into the key that it draws with: teacher and student
share the draws of ops that both name, and adding an op changes no other's.
"""

import functools
import inspect
import itertools
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import calls, lookup, shapes
from jaxkd.data.view_ops import colours, policies, rectangles
from jaxkd.data.view_ops.view_checks import (
  fits,
  require,
  require_array,
  require_colours,
  size_of,
)
from jaxkd.errors import UserError, unknown
from jaxkd.keys import fold

# Ops that move pixels, away from labels that are given for each place.
MOVING = {
  *('shift', 'pad_and_crop', 'random_crop', 'centre', 'flip', 'rotate'),
  *('dihedral', 'dihedral_all', 'resize', 'haar', 'random_resized_crop'),
  *('rand_augment', 'trivial_augment'),
}
# Of these, the ops that turn or mirror what is in an image.
TURNING = {
  *('flip', 'rotate', 'dihedral', 'dihedral_all'),
  *('rand_augment', 'trivial_augment'),
}
# Ops that put zeros in, unless they are told otherwise.
FILLING = {
  *('shift', 'pad_and_crop', 'rotate', 'cutout', 'random_erasing'),
}
# Ops that take pixels from 0 to 1, which they are no more behind `standardize`.
OF_COLOURS = {'color_jitter', 'rand_augment', 'trivial_augment'}
# Renamed ops: new name -> old name. Keys are still folded from the old one, so
# that an op draws what it drew before it was renamed.
RENAMED = {
  'pad_and_crop': 'crop',
  'random_crop': 'cut',
  'dihedral': 'turn',
  'dihedral_all': 'turns',
  'haar': 'detail',
}
_NOW = {old: new for new, old in RENAMED.items()}


class Op(NamedTuple):
  """One op of a view, with its arguments.

  Attributes:
    name: of the function, as in the config.
    key: what its draws are folded from: its name before it was renamed, if it
      was, and 'flip#1' where a second flip follows the first.
    apply: ``(key, example) -> example``.
  """

  name: str
  key: str
  apply: Callable[[Array, Any], Any]


class View(NamedTuple):
  """A pipeline of ops.

  Attributes:
    text: the canonical spelling; views of one text are the same map.
    ops: in order of application.
    recorded: the text with each op named as its draws are. Cached outputs
      record this one, so that a renamed op does not invalidate them.
  """

  text: str
  ops: tuple[Op, ...]
  recorded: str = ''


@functools.cache
def ops() -> dict[str, Callable]:
  """The ops that there are, by name."""
  return {
    op: function
    for op, function in globals().items()
    if inspect.isfunction(function)
    and [*inspect.signature(function).parameters][:2]
    in (['key', 'image'], ['key', 'example'])
  }


def parse(text: str, *, at: str = 'view', stored: bool = False) -> View:
  """Reads a view such as ``'shift(2)|flip|noise(std=0.1)'``.

  Args:
    text: op names separated by ``|``, with literal arguments; empty for the
      view that leaves the example as it is.
    at: the config entry, for errors.
    stored: whether the text is from a file that an earlier release may have
      written, where the old name of an op is no reason for a warning.

  Raises:
    UserError: no such op, or arguments that it does not take.

  Warns:
    FutureWarning: an op is called by its old name.

  Examples:
    >>> parse('noise( std=0.15 )|flip').text
    'noise(0.15)|flip'
  """
  texts, ops, fresh = [], [], ''
  like = 'pad_and_crop(4)|flip|noise(0.1)'
  for given, args, kwargs in calls.split(text, kind='view', like=like, at=at):
    name = _NOW.get(given, given)
    if name != given and not stored:
      warnings.warn(
        f'{at}: the view {given} is now called {name}; the next release has no '
        'other name for it',
        FutureWarning,
        stacklevel=2,
      )
    function = _find(name, at)
    if name in OF_COLOURS and 'standardize' in (op.name for op in ops):
      raise UserError(
        f'{at}: {name} stands behind standardize and changes the colours of '
        'pixels from 0 to 1; put it in front'
      )
    arguments = calls.bind(
      function, name, args, kwargs, kind='view', at=at, skip=2
    )
    drawn = RENAMED.get(name, name)
    key = calls.numbered(drawn, (op.key for op in ops))
    key, fresh = fresh + key, fresh + f'{name}/' * (function is redraw)
    ops.append(Op(name, key, functools.partial(function, **arguments)))
    values = ', '.join(map(repr, arguments.values()))
    values = f'({values})' if values else ''
    texts.append((name + values, drawn + values))
  text, recorded = ('|'.join(each[i] for each in texts) for i in (0, 1))
  return View(text, tuple(ops), recorded)


def apply(view: View, inputs: Any, *, seed, epoch: Array, id: Array) -> Any:
  """A batch as seen through the view.

  Arrays of uint8 become float32 in [0, 1] first; other types stay.

  Args:
    view: from `parse`.
    inputs: an array [B, ...], or a pytree of them for ops of your own.
    seed: the run's seed, an integer or a traced uint32 scalar.
    epoch: of each example, int32 [B].
    id: number of each example in its split, int32 [B].

  Returns:
    The new inputs, with a leading axis B.
  """
  inputs = jax.tree.map(_to_float, inputs)
  if not view.ops:
    return inputs
  base = fold(jax.random.key(jnp.asarray(seed, jnp.uint32)), 'views')

  def one(example, epoch, id):
    key = fold(base, epoch, id)
    for op in view.ops:
      example = op.apply(fold(key, op.key), example)
    return example

  return jax.vmap(one)(inputs, epoch, id)


def apply_in_evaluation(view: View, inputs: Any) -> Any:
  """A batch as seen through a view that draws nothing; see `apply`."""
  # Not `len`: where a net is exported, the number is not known.
  id = jnp.arange(jax.tree.leaves(inputs)[0].shape[0])
  return apply(view, inputs, seed=0, epoch=0 * id, id=id)


def output_shape(view: View, input_shape: Any, *, at: str = 'view') -> Any:
  """The shape of one example after the view; runs every check of its ops.

  Args:
    view: from `parse`.
    input_shape: shape of one example, or a pytree of shapes; see
      `jaxkd.shapes`.
    at: the config entry, for errors.

  Raises:
    UserError: an op cannot be applied to that shape.
  """
  inputs = shapes.batch(input_shape)
  index = jax.ShapeDtypeStruct((1,), jnp.int32)
  run = functools.partial(apply, view, seed=0)
  try:
    outputs = jax.eval_shape(
      lambda x, e, i: run(x, epoch=e, id=i), inputs, index, index
    )
  except UserError as error:
    raise UserError(f'{at}: {error}') from error
  return shapes.example(outputs)


def moving(view: View) -> tuple[str, ...]:
  """The names of those ops of this module in a view that move pixels."""
  return tuple(op.name for op in view.ops if op.name in MOVING)


def turning(view: View) -> tuple[str, ...]:
  """The names of those ops that turn or mirror an image or its border."""
  mirrors = lambda op: op.apply.keywords.get('mode') == 'reflect'  # noqa: E731
  return tuple(op.name for op in view.ops if op.name in TURNING or mirrors(op))


def filling(view: View) -> tuple[str, ...]:
  """The names of those ops that put zeros in before pixels are centred."""
  is_ahead = lambda op: op.name != 'standardize'  # noqa: E731
  ahead = itertools.takewhile(is_ahead, view.ops)
  return tuple(op.name for op in ahead if op.name in FILLING and _is_zero(op))


def _is_zero(op: Op) -> bool:
  """Whether what an op puts in is 0, by its arguments."""
  given = op.apply.keywords
  return given.get('mode', 'constant') == 'constant' and not given.get('value')


def part_of(view: View) -> str:
  """The part of an example that a view takes; empty if it takes none."""
  parts = (op.apply.keywords['name'] for op in view.ops if op.name == 'part')
  return next(parts, '')


def means(view: View) -> tuple[float, ...]:
  """The largest number that each `standardize` of a view subtracts."""
  of = [op.apply.keywords for op in view.ops if op.name == 'standardize']
  each = [own['mean'] for own in of]
  return tuple(max(x) if isinstance(x, tuple) else x for x in each)


def draws(view: View, input_shape: Any) -> bool:
  """Whether a view is random: its outputs depend on seed and epoch.

  It is where any op, of this module or of yours, uses its key.

  Args:
    view: from `parse`.
    input_shape: shape of one example, or a pytree of shapes; see
      `jaxkd.shapes`.
  """
  example = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
    shapes.batch(input_shape),
  )
  key = jax.eval_shape(jax.random.key, 0)
  for op in view.ops:
    traced, example = jax.make_jaxpr(op.apply, return_shape=True)(key, example)
    own = traced.jaxpr.invars[0]
    if any(own is taken for eqn in traced.eqns for taken in eqn.invars):
      return True
  return False


# The ops.


def redraw(key: Array, image: Array) -> Array:
  """Leaves the example as it is; the ops after it draw anew.

  Two views share the draws of ops that both name. Ops after this one in one of
  the views draw independently of the other, e.g. for a teacher that sees noise
  of its own.
  """
  del key
  return image


def part(key: Array, image: Any, name: str) -> Array:
  """One part of an example of several arrays, by its name."""
  del key
  parts = image if isinstance(image, Mapping) else {}
  if name not in parts:
    has = f'has {", ".join(parts)}' if parts else 'has no parts'
    raise UserError(f'part({name!r}) is not there: an example {has}')
  return parts[name]


def noise(key: Array, image: Array, std: float) -> Array:
  """Adds Gaussian noise of standard deviation ``std`` to any array."""
  require_array('noise', image)
  require(std >= 0, f'noise(std={std}) needs a std of at least 0')
  return image + std * jax.random.normal(key, image.shape, image.dtype)


def shift(key: Array, image: Array, pixels: int) -> Array:
  """Shifts by up to ``pixels`` each way along both axes, filled with zeros."""
  size_of('shift', image)
  require(pixels >= 0, f'shift(pixels={pixels}) needs at least 0 pixels')
  padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
  return dm_pix.random_crop(key, padded, image.shape)


def pad_and_crop(
  key: Array, image: Array, padding: int, mode: str = 'constant'
) -> Array:
  """Pads all sides by ``padding``, then takes a random crop of the old size.

  Args:
    key: of the random crop.
    image: [H, W, C].
    padding: pixels; with the mode 'reflect' less than either side.
    mode: 'constant' (zeros), 'edge' or 'reflect'.
  """
  height, width = size_of('pad_and_crop', image)
  modes = ('constant', 'edge', 'reflect')
  require(mode in modes, f'pad_and_crop(mode={mode!r}) knows the modes {modes}')
  most = min(height, width) - 1 if mode == 'reflect' else sys.maxsize
  require(
    0 <= padding <= most,
    f'pad_and_crop(padding={padding}, mode={mode!r}) of images of '
    f'{height}x{width} needs a padding of at least 0 and, to reflect, less '
    'than the sides',
  )
  widths = ((padding, padding), (padding, padding), (0, 0))
  return dm_pix.random_crop(key, jnp.pad(image, widths, mode), image.shape)


def random_crop(key: Array, image: Array, size: int) -> Array:
  """Takes a random crop of size x size pixels."""
  fits('random_crop', image, size)
  return dm_pix.random_crop(key, image, (size, size, image.shape[2]))


def centre(key: Array, image: Array, size: int) -> Array:
  """Takes the central crop of size x size pixels."""
  del key
  height, width = fits('centre', image, size)
  top, left = (height - size) // 2, (width - size) // 2
  return image[top : top + size, left : left + size]


def flip(key: Array, image: Array) -> Array:
  """Flips left and right with probability 1/2."""
  size_of('flip', image)
  return dm_pix.random_flip_left_right(key, image)


def rotate(key: Array, image: Array, degrees: float) -> Array:
  """Rotates by up to ``degrees`` each way, filled with zeros."""
  size_of('rotate', image)
  require(degrees >= 0, f'rotate(degrees={degrees}) needs at least 0 degrees')
  most = math.radians(degrees)
  angle = jax.random.uniform(key, (), image.dtype, -most, most)
  # dm-pix mixes dtypes, and multiplies coordinates, which bfloat16 products
  # would round to the next pixel but one.
  with (
    jax.numpy_dtype_promotion('standard'),
    jax.default_matmul_precision('highest'),
  ):
    return dm_pix.rotate(image, angle, mode='constant')


def dihedral(key: Array, image: Array) -> Array:
  """Applies one of the eight symmetries of the square, drawn uniformly.

  A rotation by a multiple of 90 degrees, with or without a left-right flip.
  """
  copies = dihedral_all(key, image)
  return copies[jax.random.randint(key, (), 0, len(copies))]


def dihedral_all(key: Array, image: Array) -> Array:
  """All eight images that `dihedral` draws from, [8, H, W, C].

  For a group made of others (`teachers.NAME.made_of`): its nets predict for
  all eight, and the predictions are fused, i.e. test-time augmentation.
  """
  del key
  height, width = size_of('dihedral', image)
  require(
    height == width, f'dihedral needs square images, got {height} by {width}'
  )
  turned = [jnp.rot90(image, count) for count in range(4)]
  return jnp.stack([*turned, *(each[:, ::-1] for each in turned)])


def brightness(key: Array, image: Array, delta: float) -> Array:
  """Adds one number, drawn from [-delta, delta), to all pixels."""
  require(delta >= 0, f'brightness(delta={delta}) needs a delta of at least 0')
  return dm_pix.random_brightness(key, image, delta)


def contrast(key: Array, image: Array, lo: float, hi: float) -> Array:
  """Scales the distance from each channel's mean by a draw of [lo, hi)."""
  size_of('contrast', image)
  require(0 <= lo <= hi, f'contrast(lo={lo}, hi={hi}) needs 0 <= lo <= hi')
  return dm_pix.random_contrast(key, image, lo, hi)


def cutout(key: Array, image: Array, size: int) -> Array:
  """Zeroes a square of ``size`` pixels, centred anywhere in the image.

  DeVries and Taylor, `Improved Regularization of Convolutional Neural
  Networks with Cutout <https://arxiv.org/abs/1708.04552>`_, 2017.
  """
  height, width = size_of('cutout', image)
  require(size >= 1, f'cutout(size={size}) needs a size of at least 1')
  centre = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
  top, left = centre - size // 2
  rows, columns = jnp.arange(height), jnp.arange(width)
  hole = ((rows >= top) & (rows < top + size))[:, None, None] & (
    (columns >= left) & (columns < left + size)
  )[None, :, None]
  return jnp.where(hole, jnp.zeros_like(image), image)


def random_resized_crop(
  key: Array,
  image: Array,
  size: int,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Array:
  """A crop of random area and shape, resized to size x size pixels.

  Bilinear with antialiasing. How the part is drawn is that of torchvision; at
  its edges the filter sees what lies beside it, as that of Pillow does.

  Szegedy et al., `Going Deeper with Convolutions
  <https://arxiv.org/abs/1409.4842>`_, 2015.

  Args:
    key: of the part.
    image: [H, W, C].
    size: of the result in pixels.
    scale: the least and the largest area of the part, as shares of the image.
    ratio: the least and the largest width over height of the part.
  """
  whole = size_of('random_resized_crop', image)
  require(size >= 1, f'random_resized_crop(size={size}) needs a size above 0')
  rectangles.check(scale, ratio, 'random_resized_crop')
  part = rectangles.crop(key, whole, scale, ratio)
  stretch = size / part.size.astype(jnp.float32)
  return jax.image.scale_and_translate(
    image,
    (size, size, image.shape[2]),
    (0, 1),
    stretch,
    -part.start.astype(jnp.float32) * stretch,
    'linear',
  )


def color_jitter(
  key: Array,
  image: Array,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
) -> Array:
  """Changes brightness, contrast, saturation and hue, in a random order.

  As torchvision does. The first three are factors from 1 - x, or 0, to 1 + x
  of mixtures with black, with the mean in grey and with the image in grey; a
  hue is turned by up to the share ``hue`` of the circle each way.

  Args:
    key: of the factors and of the order.
    image: grey or RGB from 0 to 1; grey has neither saturation nor hue.
    brightness: x, at least 0.
    contrast: likewise.
    saturation: likewise.
    hue: from 0 to 0.5.
  """
  require_colours('color_jitter', image)
  given = {
    'brightness': brightness,
    'contrast': contrast,
    'saturation': saturation,
    'hue': hue,
  }
  for name, most in given.items():
    end = 0.5 if name == 'hue' else math.inf
    require(
      0 <= most <= end,
      f'color_jitter({name}={most}) needs a number from 0 '
      + ('to 0.5' if name == 'hue' else 'on'),
    )
  require(
    any(given.values()),
    'color_jitter changes nothing where all of its numbers are 0; give one, or '
    'leave it out',
  )
  require(
    image.shape[2] == 3 or not (saturation or hue),
    'color_jitter of grey images has no saturation and no hue to change; set '
    'both to 0',
  )
  changes = []
  for name, most in given.items():
    if most:
      ends = (-most, most) if name == 'hue' else (max(0.0, 1 - most), 1 + most)
      drawn = jax.random.uniform(fold(key, name), (), image.dtype, *ends)
      change = getattr(colours, name)
      changes.append(lambda x, change=change, drawn=drawn: change(x, drawn))
  order = jax.random.permutation(fold(key, 'order'), len(changes))
  for i in range(len(changes)):
    image = jax.lax.switch(order[i], changes, image)
  return image


def rand_augment(
  key: Array, image: Array, count: int = 2, magnitude: int = 9
) -> Array:
  """RandAugment: `count` random ops of fourteen, all of one magnitude.

  Ops and ranges are those of torchvision: shears, translations and rotations,
  brightness, saturation, contrast and sharpness, posterizing, solarizing,
  automatic contrast, equalized bytes, or nothing.

  Cubuk et al., `RandAugment <https://arxiv.org/abs/1909.13719>`_, 2019.

  Args:
    key: of the draws.
    image: grey or RGB from 0 to 1.
    count: how many ops, one after the other.
    magnitude: from 0, the least, to 30.
  """
  height, width = require_colours('rand_augment', image)
  require(count >= 1, f'rand_augment(count={count}) needs an op or more')
  require(
    0 <= magnitude <= policies.STEPS,
    f'rand_augment(magnitude={magnitude}) needs a magnitude from 0 to '
    f'{policies.STEPS}',
  )
  most = 150 / 331 * height, 150 / 331 * width
  ranges = policies.Ranges(0.3, most, 30.0, 0.9, 4)
  for i in range(count):
    op, sign = _drawn_op(fold(key, i))
    image = policies.apply(image, op, jnp.array(magnitude), sign, ranges)
  return image


def trivial_augment(key: Array, image: Array) -> Array:
  """TrivialAugment: one op of fourteen, of a random magnitude.

  Of the ops of `rand_augment` with the wide ranges of torchvision's
  TrivialAugmentWide.

  Müller and Hutter, `TrivialAugment <https://arxiv.org/abs/2103.10158>`_, 2021.

  Args:
    key: of the draws.
    image: grey or RGB from 0 to 1.
  """
  require_colours('trivial_augment', image)
  ranges = policies.Ranges(0.99, (32.0, 32.0), 135.0, 0.99, 6)
  op, sign = _drawn_op(key)
  magnitude = jax.random.randint(
    fold(key, 'magnitude'), (), 0, policies.STEPS + 1
  )
  return policies.apply(image, op, magnitude, sign, ranges)


def _drawn_op(key: Array) -> tuple[Array, Array]:
  """The number of an op, and a sign."""
  op = jax.random.randint(fold(key, 'op'), (), 0, len(policies.OPS))
  return op, jax.random.rademacher(fold(key, 'sign'), (), jnp.float32)


def random_erasing(
  key: Array,
  image: Array,
  probability: float = 0.5,
  scale: tuple[float, float] = (0.02, 0.33),
  ratio: tuple[float, float] = (0.3, 3.3),
  value: float | str = 0.0,
) -> Array:
  """Overwrites a random rectangle, with some probability.

  Zhong et al., `Random Erasing Data Augmentation
  <https://arxiv.org/abs/1708.04896>`_, 2017.

  Args:
    key: of the draws.
    image: [H, W, C].
    probability: that there is one.
    scale: its least and its largest area, as shares of the image.
    ratio: its least and its largest width over height.
    value: what is put there; or 'noise' of mean 0 and standard deviation 1, for
      images behind `standardize`.
  """
  height, width = size_of('random_erasing', image)
  require(
    0 <= probability <= 1,
    f'random_erasing(probability={probability}) needs one from 0 to 1',
  )
  require(
    value == 'noise' or not isinstance(value, str),
    f"random_erasing(value={value!r}) needs a number, or 'noise'",
  )
  rectangles.check(scale, ratio, 'random_erasing')
  hole = rectangles.draw(fold(key, 'hole'), (height, width), scale, ratio)
  (top, left), (down, right) = hole.start, hole.start + hole.size
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
  inside = (rows >= top) & (rows < down) & (columns >= left) & (columns < right)
  inside &= hole.found & jax.random.bernoulli(fold(key, 'erased'), probability)
  if value == 'noise':
    new = jax.random.normal(fold(key, 'noise'), image.shape, image.dtype)
  else:
    new = jnp.full_like(image, value)
  return jnp.where(inside[..., None], new, image)


def resolution(key: Array, image: Array, size: int) -> Array:
  """Resizes to size x size pixels and back: less detail, the same shape."""
  fits('resolution', image, size)
  small = resize(key, image, size)
  return jax.image.resize(small, image.shape, 'linear')


def resize(key: Array, image: Array, size: int) -> Array:
  """Resizes to size x size pixels, bilinear with antialiasing."""
  del key
  size_of('resize', image)
  require(size >= 1, f'resize(size={size}) needs a size of at least 1')
  return jax.image.resize(image, (size, size, image.shape[2]), 'linear')


def blur(key: Array, image: Array, sigma: float) -> Array:
  """Gaussian blur with a std of ``sigma`` pixels; edge pixels are repeated."""
  del key
  size_of('blur', image)
  require(sigma > 0, f'blur(sigma={sigma}) needs a sigma above 0')
  radius = math.ceil(3 * sigma)
  widths = ((radius, radius), (radius, radius), (0, 0))
  padded = jnp.pad(image, widths, 'edge')
  return dm_pix.gaussian_blur(padded, sigma, 2 * radius + 1, padding='VALID')


def gradient(key: Array, image: Array) -> Array:
  """The magnitude of the gradient at each pixel, by central differences."""
  del key
  height, width = size_of('gradient', image)
  require(
    min(height, width) > 1,
    f'gradient needs two pixels or more each way, got {height} by {width}',
  )
  down, across = jnp.gradient(image, axis=(0, 1))
  return jnp.sqrt(down**2 + across**2)


def haar(key: Array, image: Array) -> Array:
  """The three detail bands of one Haar wavelet level, [H / 2, W / 2, 3 C].

  For each 2x2 block of pixels: half the difference of its columns, of its rows
  and of its diagonals. An odd last row or column is left out.

  Haar, `Zur Theorie der orthogonalen Funktionensysteme
  <https://doi.org/10.1007/BF01456326>`_, 1910.
  """
  del key
  height, width = size_of('haar', image)
  require(
    min(height, width) > 1,
    f'haar needs two pixels or more each way, got {height} by {width}',
  )
  height, width = height // 2 * 2, width // 2 * 2
  (a, b), (c, d) = (
    [image[i:height:2, j:width:2] for j in (0, 1)] for i in (0, 1)
  )
  bands = [a - b + c - d, a + b - c - d, a - b - c + d]
  return jnp.concatenate(bands, axis=-1) / 2


def channel(key: Array, image: Array, index: int) -> Array:
  """One channel of an image, e.g. one of several registered modalities."""
  del key
  size_of('channel', image)
  count = image.shape[2]
  require(
    0 <= index < count,
    f'channel(index={index}) of images of {count} channels needs 0 to '
    f'{count - 1}',
  )
  return image[..., index : index + 1]


def segments(key: Array, image: Array, count: int) -> Array:
  """Images that are stacked along the channels, as a sequence.

  Args:
    key: not used.
    image: [H, W, count · C].
    count: how many there are.

  Returns:
    [count, H, W, C].
  """
  del key
  height, width = size_of('segments', image)
  require(
    count >= 1 and not image.shape[2] % count,
    f'segments(count={count}) does not divide {image.shape[2]} channels; give '
    'as many as are stacked in them, of video data.kw.count',
  )
  return jnp.moveaxis(image.reshape(height, width, count, -1), 2, 0)


def standardize(
  key: Array, image: Array, mean: float | tuple, std: float | tuple
) -> Array:
  """Subtracts ``mean``, divides by ``std``: numbers, or one per channel."""
  del key
  require_array('standardize', image)
  shape = (1,) * (image.ndim - 1) + (-1,)
  for name, value in (('mean', mean), ('std', std)):
    values = value if isinstance(value, tuple) else (value,)
    require(
      all(isinstance(x, int | float) for x in values)
      and len(values) in (1, image.shape[-1])
      and (name == 'mean' or min(values) > 0),
      f'standardize({name}={value}) needs one number, or one for each of '
      f'{image.shape[-1]} channels, and a std above 0',
    )
  mean, std = (jnp.asarray(x, image.dtype).reshape(shape) for x in (mean, std))
  return (image - mean) / std


def grayscale(key: Array, image: Array) -> Array:
  """The luma of an RGB image, as one channel."""
  del key
  size_of('grayscale', image)
  require(
    image.shape[2] == 3,
    f'grayscale needs images of 3 channels, got {image.shape[2]}',
  )
  return dm_pix.rgb_to_grayscale(image)


def spec_augment(
  key: Array,
  example: Any,
  bands: int,
  widest: int,
  gaps: int,
  longest: int,
) -> Any:
  """SpecAugment: zeroes random bands and time spans of speech features.

  Of an array [frames, features], or of the source of an utterance, which has
  ``frames`` and ``valid``: then times are within what is said. How wide a band
  is and how long a gap is drawn uniformly, from 0 on. Frames whose features
  have the mean 0 are given the mean in this way. Time is not warped.

  Park et al., `SpecAugment <https://arxiv.org/abs/1904.08779>`_, 2019.

  Args:
    key: of the draws.
    example: an array, or the inputs of an utterance.
    bands: how many, each of neighbouring features.
    widest: the most features of a band.
    gaps: how many, each of neighbouring frames.
    longest: the most frames of a gap.
  """
  if isinstance(example, dict):
    source = example.get('source')
    require(
      isinstance(source, dict) and {'frames', 'valid'} <= source.keys(),
      'spec_augment needs frames of speech, and an example has none',
    )
    frames, count = source['frames'], source['valid'].sum()
  else:
    frames, count = example, jnp.shape(example)[:1]
    count = jnp.asarray(*count) if count else 0
  require(
    jnp.ndim(frames) == 2,
    'spec_augment needs frames of speech, [frames, features], got '
    f'{jnp.shape(frames)}',
  )
  given = {'bands': bands, 'widest': widest, 'gaps': gaps, 'longest': longest}
  most = {'widest': frames.shape[1], 'longest': frames.shape[0]}
  for name, value in given.items():
    require(
      0 <= value <= most.get(name, value),
      f'spec_augment({name}={value}) of {frames.shape[0]} frames of '
      f'{frames.shape[1]} features needs 0 or more, and no more than there are',
    )

  def gone(name, number, most, size, places):
    """Which of the places are in one of the pieces that are drawn."""
    found = jnp.zeros(places, bool)
    for i in range(number):
      widths, starts = (fold(key, name, i, part) for part in ('width', 'start'))
      width = jax.random.randint(widths, (), 0, most + 1)
      free = jnp.maximum(size - width, 0) + 1
      start = jax.random.randint(starts, (), 0, free)
      here = jnp.arange(places)
      found |= (here >= start) & (here < start + width)
    return found

  no_band = ~gone('band', bands, widest, frames.shape[1], frames.shape[1])
  no_gap = ~gone('gap', gaps, longest, count, frames.shape[0])
  frames = jnp.where(no_gap[:, None] & no_band[None], frames, 0)
  if not isinstance(example, dict):
    return frames
  return {**example, 'source': {**example['source'], 'frames': frames}}


def with_hint(key: Array, example: Any) -> dict[str, Array]:
  """Shows the hint of a row of tokens, which the other nets do not see.

  A row may begin with tokens of segment 0, which no token attends to. Here they
  belong to the document that follows them. It is for a teacher that knows more,
  such as the solution of a task, or the running mean of the student itself.
  """
  del key
  parts = example if isinstance(example, Mapping) else {}
  require(
    {'tokens', 'segments', 'positions'} <= parts.keys(),
    'with_hint needs rows of tokens with their segments and positions; pack '
    'them, with the hint in front as segment 0',
  )
  segments, place = parts['segments'], jnp.arange(len(parts['segments']))
  own = segments[jnp.argmax(segments > 0)]  # 0 in a row of nothing
  segments = jnp.where(jnp.cumsum(segments > 0) > 0, segments, own)
  joined = (segments == own) & (own > 0)
  positions = jnp.where(joined, place, parts['positions'])
  return {
    **parts,
    'segments': segments.astype(parts['segments'].dtype),
    'positions': positions.astype(parts['positions'].dtype),
  }


# Reading and checking.


def _to_float(x: Array) -> Array:
  return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _find(name: str, at: str) -> Callable:
  if ':' in name:
    op = lookup.attribute(name, kind='view', at=at)
    if len(inspect.signature(op).parameters) < 2:
      raise UserError(f'{at}: {name} is not a function of (key, example, ...)')
    return op
  known = ops()
  if name not in known:
    raise unknown('view', name, known, at)
  return known[name]
