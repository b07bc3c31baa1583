"""Adapters: small maps from the student's layer to the teacher's shape.

Most of them train with the student; all are discarded after training. Each
function here takes the two shapes and returns an `Adapter`. A config names it
for the student's side (``adapter``) or for the teacher's (``teacher_adapter``).

If a map has another height or width than the teacher's, and the adapter has no
convolution that changes it, it is averaged down (adaptive average pooling) or
interpolated up (bilinearly) along each axis. Tokens [B, N, C] of a vision
transformer and maps are compared on the grid of patches: an adapter with an
argument ``image`` gets the shape of the examples, which has the proportions of
that grid.

BatchNorm here uses the statistics of the whole batch and keeps no running ones,
since adapters are never evaluated. A convolution or linear map before it has no
bias, which it would subtract again. Parameters are float32; outputs have the
dtype of the student's layer, statistics and norms at least float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import losses
from jaxkd.distill import grids
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.losses import _numerics, _pooling
from jaxkd.models.convolution import conv_general_dilated

__all__ = [
  'linear',
  'conv3x3',
  'conv_bn',
  'conv_bn_relu',
  'projector',
  'variational',
  'resize',
  'tokens_to_map',
  'map_to_tokens',
  'embed',
  'translator',
  'attention_fusion',
  'standardize_logits',
  'standardize_features',
  'margin',
]

Shape = tuple[int, ...]


class Adapter(NamedTuple):
  """A trained map from the student's layer to the teacher's shape.

  Attributes:
    init: ``(key) -> (params, state)``.
    apply: ``(params, state, layer) -> (adapted, state)``. A tuple is several
      arguments of the loss in place of the layer alone.
    statistics: whether it takes some over the batch and its positions, as
      BatchNorm does.
  """

  init: Callable[[Array], tuple[dict, dict]]
  apply: Callable[[dict, dict, Any], tuple[Any, dict]]
  statistics: bool = False


def linear(student: Shape, teacher: Shape, image: Shape = ()) -> Adapter:
  """A linear map over the last axis; on maps, a 1×1 convolution.

  Args:
    student: shape of the student's layer, [B, ..., C].
    teacher: shape of the teacher's layer, [B, ..., D], with as many axes; if
      they are maps their sizes may differ. One may be a map and the other
      tokens, one for each patch.
    image: shape of the examples, [B, H, W, C], which tells the grid of tokens;
      square if it is no image.

  Raises:
    UserError: shapes that cannot be adapted.
  """
  _check_layers('linear', student, teacher, image)

  def init(key):
    return _affine(key, (student[-1], teacher[-1])), {}

  def apply(params, state, x):
    x = _resized(x, teacher, image)
    return _shifted(x @ params['kernel'].astype(x.dtype), params), state

  return Adapter(init, apply)


def conv3x3(student: Shape, teacher: Shape) -> Adapter:
  """A 3×3 convolution, with a bias, of the map at the teacher's size.

  Args:
    student: shape of the student's map, [B, H, W, C].
    teacher: shape of the teacher's map, [B, H', W', D].

  Raises:
    UserError: a layer that is no map.
  """
  _check_maps('conv3x3', student, teacher)

  def init(key):
    return _affine(key, (3, 3, student[-1], teacher[-1])), {}

  def apply(params, state, x):
    y = _convolved(_resized(x, teacher), params['kernel'])
    return _shifted(y, params), state

  return Adapter(init, apply)


def conv_bn(student: Shape, teacher: Shape) -> Adapter:
  """Convolution and BatchNorm, for losses on pre-activations (AB, OFD).

  Along an axis the convolution is 3 wide with stride 2 if the student's map
  is twice as large as the teacher's, transposed and 4 wide if it is half as
  large, and else as wide as needed, without padding, for what remains to have
  the teacher's size: 1 if the sizes are equal. It is what RepDistiller, whose
  convolution has a bias, calls ConvReg.

  Args:
    student: shape of the student's map, [B, H, W, C].
    teacher: shape of the teacher's map, [B, H', W', D].

  Raises:
    UserError: a layer that is no map, or a student's map that is smaller than
      the teacher's, but not half as large.

  References:
    Heo et al., `A Comprehensive Overhaul of Feature Distillation
    <https://arxiv.org/abs/1904.01866>`_, 2019; Tian et al., `Contrastive
    Representation Distillation <https://arxiv.org/abs/1910.10699>`_, 2020
  """
  return _regressor('conv_bn', student, teacher, lambda x: x)


def conv_bn_relu(student: Shape, teacher: Shape) -> Adapter:
  """``conv_bn`` with a ReLU, for hints after an activation (FitNets).

  Args:
    student: shape of the student's map, [B, H, W, C].
    teacher: shape of the teacher's map, [B, H', W', D].

  Raises:
    UserError: as in ``conv_bn``.

  References:
    Tian et al., `Contrastive Representation Distillation
    <https://arxiv.org/abs/1910.10699>`_, 2020
  """
  return _regressor('conv_bn_relu', student, teacher, jax.nn.relu)


def projector(student: Shape, teacher: Shape, image: Shape = ()) -> Adapter:
  """A linear map and BatchNorm without scale and bias (SRD).

  Every feature comes out with mean 0 and variance 1 over the batch, so give
  the loss a teacher that is normalised alike, as the authors do.

  Args:
    student: shape of the student's layer, [B, ..., C].
    teacher: shape of the teacher's layer, [B, ..., D], as for ``linear``.
    image: shape of the examples, as for ``linear``.

  Raises:
    UserError: shapes that cannot be adapted.

  References:
    Miles & Mikolajczyk, `Understanding the Role of the Projector in Knowledge
    Distillation <https://arxiv.org/abs/2303.11098>`_, 2024; ε = 1e-4 as in
    the authors' code for ImageNet
  """
  _check_layers('projector', student, teacher, image)

  def init(key):
    return {'kernel': _kernel(key, (student[-1], teacher[-1]))}, {}

  def apply(params, state, x):
    x = _resized(x, teacher, image)
    y = x @ params['kernel'].astype(x.dtype)
    return _standardized(y, eps=1e-4), state

  return Adapter(init, apply, statistics=True)


def variational(
  student: Shape, teacher: Shape, image: Shape = (), *, fixed: bool = False
) -> Adapter:
  """The regressor of ``losses.variational_information`` (VID).

  Three 1×1 convolutions without bias, a ReLU between them, predict the mean
  of the teacher's layer; a variance for each channel, 5 at first, is trained
  apart. The authors pool the teacher where the student's map is smaller; here
  the student's is interpolated.

  Args:
    student: shape of the student's layer, [B, ..., C].
    teacher: shape of the teacher's layer, [B, ..., D], as for ``linear``.
    image: shape of the examples, as for ``linear``.
    fixed: leave the variance at 5, which makes a hint of it.

  Returns:
    An adapter that gives the mean, [B, ..., D], and the variance before
    softplus, [D].

  Raises:
    UserError: shapes that cannot be adapted.

  References:
    Ahn et al., `Variational Information Distillation for Knowledge Transfer
    <https://arxiv.org/abs/1904.05835>`_, 2019
  """
  _check_layers('variational', student, teacher, image)
  width, variance, eps = teacher[-1], 5.0, 1e-5
  layers = {'first': student[-1], 'second': width, 'third': width}

  def init(key):
    params = {
      name: _kernel(fold(key, name), (below, width))
      for name, below in layers.items()
    }
    return params if fixed else {**params, 'raw_scale': raw_scale()}, {}

  def raw_scale():
    raw = math.log(math.expm1(variance - eps))
    return jnp.full((width,), raw, jnp.float32)

  def apply(params, state, x):
    first, second, third = (params[name].astype(x.dtype) for name in layers)
    hidden = jax.nn.relu(_resized(x, teacher, image) @ first)
    mean = jax.nn.relu(hidden @ second) @ third
    scale = raw_scale() if fixed else params['raw_scale']
    return (mean, scale), state

  return Adapter(init, apply)


def resize(student: Shape, teacher: Shape) -> Adapter:
  """The student's map at the teacher's height and width; nothing is trained.

  Args:
    student: shape of the student's map, [B, H, W, C].
    teacher: shape of the teacher's map, [B, H', W', C].

  Raises:
    UserError: a layer that is no map, or maps of unequal width.
  """
  _check_maps('resize', student, teacher)
  if student[-1] != teacher[-1]:
    raise _refusal(
      'resize',
      student,
      teacher,
      f'it keeps the {student[-1]} channels; '
      "set adapter='linear', which maps them too",
    )

  def init(key):
    del key
    return {}, {}

  def apply(params, state, x):
    return _resized(x, teacher), state

  return Adapter(init, apply)


def tokens_to_map(
  student: Shape,
  teacher: Shape,
  image: Shape = (),
  *,
  class_tokens: int = 0,
  keep: bool = False,
  height: int = 0,
) -> Adapter:
  """Tokens of a vision transformer as a map, row by row.

  On the teacher's side nothing is trained. On the student's side the map is
  brought to the teacher's as ``linear`` does.

  Args:
    student: shape of the tokens, [B, N, C].
    teacher: shape of the teacher's map, [B, H, W, D]; on the teacher's side
      that of the tokens.
    image: shape of the examples, as for ``linear``.
    class_tokens: how many come first that stand for no place: a class token,
      registers.
    keep: whether the mean of these goes behind the features of every place,
      which doubles the channels; else they are left out.
    height: rows of the grid, where patches are not square; 0 for the
      proportions of the image.

  Raises:
    UserError: a layer that is no tokens, or tokens that are no such grid.
  """
  refuse = functools.partial(_refusal, 'tokens_to_map', student, teacher)
  if not _is_layer(student) or len(student) != 3:
    raise refuse('it takes tokens of [B, number, channels]')
  if student != teacher and not _is_map(teacher):
    raise refuse(
      "it brings tokens to a map; set teacher_adapter='tokens_to_map' too"
    )
  if class_tokens < 0 or height < 0 or (keep and not class_tokens):
    raise refuse(
      f'class_tokens={class_tokens}, keep={keep}, height={height}: numbers are '
      '0 or more, and without class_tokens there is nothing to keep'
    )
  places = student[1] - class_tokens
  size = _rows(places, height) if height else grids.grid(places, image)
  if size is None:
    extra = grids.extra_tokens(student[1], image)
    least = f', as {extra} would be,' if extra else ''
    raise refuse(
      f'{places} of the {student[1]} tokens are no grid of '
      f'{f"{height} rows" if height else "square patches"}; set class_tokens, '
      f'how many come first that are no patches{least} or height, how many '
      'rows there are'
    )

  def laid_out(x):
    maps = grids.to_map(x[:, class_tokens:], size)
    if not keep:
      return maps
    mean = x[:, :class_tokens].mean(1)[:, None, None]
    return jnp.concatenate([maps, jnp.broadcast_to(mean, maps.shape)], axis=-1)

  if student == teacher:
    return _fixed(laid_out)
  width = student[-1] * (2 if keep else 1)
  then = linear((student[0], *size, width), teacher)
  return Adapter(
    then.init, lambda params, state, x: then.apply(params, state, laid_out(x))
  )


def map_to_tokens(
  student: Shape, teacher: Shape, image: Shape = (), *, class_tokens: int = 0
) -> Adapter:
  """A map as tokens, row by row.

  On the teacher's side nothing is trained. On the student's side the map is
  brought to the teacher's tokens as ``linear`` does.

  Args:
    student: shape of the map, [B, H, W, C].
    teacher: shape of the teacher's tokens, [B, N, D]; on the teacher's side
      that of the map.
    image: shape of the examples, as for ``linear``.
    class_tokens: how many of the tokens come first that stand for no place;
      each is the mean over all places.

  Raises:
    UserError: a layer that is no map, or tokens that are no grid.
  """
  refuse = functools.partial(_refusal, 'map_to_tokens', student, teacher)
  if not _is_map(student) or class_tokens < 0:
    raise refuse(
      'it takes a map of [B, height, width, channels], and class_tokens of 0 '
      'or more'
    )

  def tokens(x):
    return grids.with_class_tokens(grids.to_tokens(x), class_tokens)

  if student == teacher:
    return _fixed(tokens)
  if not _is_layer(teacher) or len(teacher) != 3:
    raise refuse("it brings a map to tokens; set adapter='linear' for maps")
  size = grids.grid(teacher[1] - class_tokens, image)
  if size is None:
    raise refuse(grids.remedy(student, teacher, image))
  then = linear(student, (teacher[0], *size, teacher[2]))

  def apply(params, state, x):
    maps, state = then.apply(params, state, x)
    return tokens(maps), state

  return Adapter(then.init, apply)


def embed(student: Shape, teacher: Shape, *, width: int = 0) -> Adapter:
  """A linear map of all features, with a bias, normalised to length 1 (CRD).

  Args:
    student: shape of the student's layer, [B, ...]; or of the teacher's, for
      an embedding of it.
    teacher: shape of the teacher's embedding, [B, D].
    width: features of the embedding; 0 for D.

  Raises:
    UserError: a teacher's layer that is no vector, or a student's that has
      no features.

  References:
    Tian et al., `Contrastive Representation Distillation
    <https://arxiv.org/abs/1910.10699>`_, 2020
  """
  is_vector = _is_layer(teacher) and len(teacher) == 2
  if not _is_layer(student) or not (is_vector or width):
    raise _refusal(
      'embed', student, teacher, "choose a teacher's layer of [B, features]"
    )

  def init(key):
    shape = (math.prod(student[1:]), width or teacher[-1])
    return _affine(key, shape), {}

  def apply(params, state, x):
    x = x.reshape(x.shape[0], -1)
    y = _shifted(x @ params['kernel'].astype(x.dtype), params)
    return _numerics.l2_normalize(_numerics.upcast(y)).astype(x.dtype), state

  return Adapter(init, apply)


def translator(student: Shape, teacher: Shape) -> Adapter:
  """The translator of ``losses.factor_transfer`` (FT).

  Three blocks of a 3×3 convolution, BatchNorm and a leaky ReLU of slope 0.1;
  the first keeps the student's width. BatchNorm is there as in RepDistiller
  and mmrazor; the authors' code has it commented out.

  Args:
    student: shape of the student's map, [B, H, W, C].
    teacher: shape of the factors, [B, H', W', D], which a paraphraser, trained
      on the teacher, gives as its output: D is its rate, mostly ½, times the
      width of the teacher's own map.

  Raises:
    UserError: a layer that is no map.

  References:
    Kim et al., `Paraphrasing Complex Network: Network Compression via Factor
    Transfer <https://arxiv.org/abs/1802.04977>`_, 2018
  """
  _check_maps('translator', student, teacher)
  width, factors = student[-1], teacher[-1]
  blocks = {
    'first': (width, width),
    'second': (width, factors),
    'third': (factors, factors),
  }

  def init(key):
    return {
      name: _conv_norm(fold(key, name), (3, 3, *widths))
      for name, widths in blocks.items()
    }, {}

  def apply(params, state, x):
    x = _resized(x, teacher)
    for name in blocks:
      y = _normalized(_convolved(x, params[name]['kernel']), params[name])
      x = jax.nn.leaky_relu(y, 0.1)
    return x, state

  return Adapter(init, apply, statistics=True)


def attention_fusion(
  student: tuple[Shape, ...], teacher: tuple[Shape, ...]
) -> Adapter:
  """The student's levels, each reviewed with the deeper ones (ReviewKD).

  From the deepest level up, a level is brought to a common width by a 1×1
  convolution and BatchNorm; what the deeper ones have left is enlarged and
  both are added, weighted at each position by two maps of attention, a
  sigmoid of a 1×1 convolution of both. The sum goes on to the next level and,
  through a 3×3 convolution and BatchNorm, to the loss. Sizes are changed by
  taking the nearest position, and the common width is the deepest level's, at
  most 512, as in the authors' code for CIFAR.

  Args:
    student: shapes of the student's maps, [B, H, W, C] of each level, the
      deepest last.
    teacher: shapes of as many maps of the teacher.

  Returns:
    An adapter that gives one argument of the loss, the tuple of maps that
    ``losses.hierarchical_context`` takes.

  Raises:
    UserError: layers that are no maps, or not as many on both sides.

  References:
    Chen et al., `Distilling Knowledge via Knowledge Review
    <https://arxiv.org/abs/2104.09044>`_, 2021
  """
  layers = (*student, *teacher)
  if not len(student) == len(teacher) > 0 or not all(map(_is_map, layers)):
    raise _refusal(
      'attention_fusion',
      student,
      teacher,
      'name a tuple of as many maps of [B, height, width, channels] on both '
      'sides, the deepest last',
    )
  deepest = len(student) - 1
  common = min(512, student[deepest][-1])

  def init(key):
    params = {}
    for level, (below, above) in enumerate(zip(student, teacher, strict=True)):
      name = f'level{level}'
      part = functools.partial(fold, key, name)
      params[name] = {
        'reduce': _conv_norm(part('reduce'), (1, 1, below[-1], common)),
        'expand': _conv_norm(part('expand'), (3, 3, common, above[-1])),
      }
      if level < deepest:
        attention = _affine(part('attention'), (1, 1, 2 * common, 2))
        params[name]['attention'] = attention
    return params, {}

  def apply(params, state, maps):
    results, carried = [], None
    for level in reversed(range(len(student))):
      part, x = params[f'level{level}'], maps[level]
      x = _normalized(_convolved(x, part['reduce']['kernel']), part['reduce'])
      if level < deepest:
        carried = _nearest(carried, student[level])
        both = jnp.concatenate([x, carried], axis=-1)
        scores = _convolved(both, part['attention']['kernel'])
        weights = jax.nn.sigmoid(_shifted(scores, part['attention']))
        x = x * weights[..., :1] + carried * weights[..., 1:]
      carried = _nearest(x, teacher[level])
      y = _convolved(carried, part['expand']['kernel'])
      results.append(_normalized(y, part['expand']))
    return (tuple(reversed(results)),), state

  return Adapter(init, apply, statistics=True)


def standardize_logits(student: Shape, teacher: Shape) -> Adapter:
  """Each example's logits at mean 0 and deviation 1; nothing is trained.

  For both sides of ``losses.kl`` it is logit standardisation: see
  ``losses.standardize``.

  Args:
    student: shape of the student's logits, [B, ..., K].
    teacher: shape of the teacher's, which plays no part.

  References:
    Sun et al., `Logit Standardization in Knowledge Distillation
    <https://arxiv.org/abs/2403.01427>`_, 2024
  """
  del student, teacher
  return _fixed(losses.standardize)


def standardize_features(student: Shape, teacher: Shape) -> Adapter:
  """Each feature at mean 0 and variance 1 over the batch; nothing is trained.

  The teacher's side of ``projector`` (SRD).

  Args:
    student: shape of a layer, [B, ..., C].
    teacher: shape of the teacher's, which plays no part.

  References:
    Miles & Mikolajczyk, `Understanding the Role of the Projector in Knowledge
    Distillation <https://arxiv.org/abs/2303.11098>`_, 2024
  """
  del student, teacher
  return _fixed(lambda x: _standardized(x, eps=1e-4), statistics=True)


def margin(student: Shape, teacher: Shape) -> Adapter:
  """The teacher's side of ``losses.overhaul`` (OFD), with its margin.

  The margin of a channel is the mean of its negative pre-activations, which
  the paper lets one compute from BatchNorm's parameters or while training.
  Here it comes from each batch's mean and deviation, since a sum of residual
  branches has no BatchNorm of its own.

  Args:
    student: shape of the teacher's pre-activations, [B, ..., C].
    teacher: the same.

  Returns:
    An adapter that gives the pre-activations as they are, and the margin, [C].

  References:
    Heo et al., `A Comprehensive Overhaul of Feature Distillation
    <https://arxiv.org/abs/1904.01866>`_, 2019
  """
  del student, teacher

  def given(x):
    y = _numerics.upcast(x)
    axes = tuple(range(y.ndim - 1))
    return x, losses.overhaul_margin(jnp.std(y, axes), jnp.mean(y, axes))

  return _fixed(given, statistics=True)


def _fixed(function, *, statistics=False) -> Adapter:
  """An adapter of which nothing trains."""

  def apply(params, state, x):
    del params
    return function(x), state

  return Adapter(lambda key: ({}, {}), apply, statistics)


def _regressor(name, student, teacher, activation) -> Adapter:
  """Convolution to the teacher's size, BatchNorm, activation."""
  _check_maps(name, student, teacher)
  axes = zip(student[1:3], teacher[1:3], strict=True)
  windows = [_window(*sizes) for sizes in axes]
  if None in windows:
    raise _refusal(
      name,
      student,
      teacher,
      "it takes a map of half the teacher's height and width, or of at least "
      "as much; choose another layer or set adapter='conv3x3'",
    )
  kernel, strides, padding, dilation = zip(*windows, strict=True)

  def init(key):
    return _conv_norm(key, (*kernel, student[-1], teacher[-1])), {}

  def apply(params, state, x):
    y = _convolved(x, params['kernel'], strides, padding, dilation)
    return activation(_normalized(y, params)), state

  return Adapter(init, apply, statistics=True)


def _window(student: int, teacher: int) -> tuple | None:
  """Width, stride, padding and dilation of the input along one axis."""
  if student == 2 * teacher:
    return 3, 2, (1, 1), 1
  if 2 * student == teacher:  # a transposed convolution, padded by 1
    return 4, 1, (2, 2), 2
  if student >= teacher:
    return 1 + student - teacher, 1, (0, 0), 1
  return None


def _kernel(key, shape):
  return jax.nn.initializers.lecun_normal()(key, shape, jnp.float32)


def _affine(key, shape):
  """Parameters of a linear map or a convolution, with a bias."""
  bias = jnp.zeros(shape[-1:], jnp.float32)
  return {'kernel': _kernel(key, shape), 'bias': bias}


def _conv_norm(key, shape):
  """Parameters of a convolution without a bias and of its BatchNorm."""
  scale = jnp.ones(shape[-1:], jnp.float32)
  return {**_affine(key, shape), 'scale': scale}


def _convolved(x, kernel, strides=(1, 1), padding='SAME', dilation=(1, 1)):
  return conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    strides,
    padding,
    lhs_dilation=dilation,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _shifted(x, params):
  return x + _along_channels(params['bias'], x)


def _normalized(x, params):
  """BatchNorm: standardised, then scaled and shifted."""
  x = _standardized(x, eps=1e-5)
  return _shifted(x * _along_channels(params['scale'], x), params)


def _standardized(x, eps):
  """Mean 0 and variance 1 of each channel over batch and positions."""
  y = _numerics.upcast(x)
  axes = tuple(range(y.ndim - 1))
  y = y - jnp.mean(y, axes, keepdims=True)
  variance = jnp.mean(jnp.square(y), axes, keepdims=True)
  return (y * jax.lax.rsqrt(variance + eps)).astype(x.dtype)


def _along_channels(vector, x):
  return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + vector.shape)


def _resized(x, teacher, image=()):
  """A map averaged down or interpolated up to the teacher's size.

  Tokens are laid out as a map, or a map as tokens, where the other is one.
  """
  if {x.ndim, len(teacher)} == {3, 4}:
    if x.ndim == 3:
      return _resized(grids.to_map(x, grids.grid(x.shape[1], image)), teacher)
    size = grids.grid(teacher[1], image)
    return grids.to_tokens(_resized(x, (teacher[0], *size, teacher[2])))
  if x.ndim != 4:
    return x
  size = teacher[1:3]
  x = _pooling.average(x, tuple(map(min, x.shape[1:3], size)))
  return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), 'linear')


def _rows(number, height):
  """Rows and columns of so many places; None where they do not divide."""
  return None if number % height else (height, number // height)


def _nearest(x, shape):
  size = (x.shape[0], *shape[1:3], x.shape[3])
  return jax.image.resize(x, size, 'nearest')


def _is_layer(shape) -> bool:
  """Whether this is the shape of one layer, with features."""
  return (
    isinstance(shape, tuple)
    and len(shape) > 1
    and all(isinstance(n, int) for n in shape)
  )


def _is_map(shape) -> bool:
  return _is_layer(shape) and len(shape) == 4


def _check_layers(name, student, teacher, image) -> None:
  """Refuses all but layers that differ in width, or have places to match."""
  if not _is_layer(student) or not _is_layer(teacher):
    remedy = 'name one layer of [B, ..., channels] on each side'
  elif {len(student), len(teacher)} == {3, 4}:
    tokens = min(student, teacher, key=len)
    if grids.grid(tokens[1], image):
      return
    remedy = grids.remedy(student, teacher, image)
  elif len(student) != len(teacher):
    remedy = (
      'choose layers with as many axes, both before or both after the pooling'
    )
  elif len(student) != 4 and student[1:-1] != teacher[1:-1]:
    remedy = 'choose layers with as many positions'
    if tokens_remedy := grids.remedy(student, teacher, image):
      remedy += f', or, of the patches of images, {tokens_remedy}'
  else:
    return
  raise _refusal(name, student, teacher, remedy)


def _check_maps(name, student, teacher) -> None:
  if not _is_map(student) or not _is_map(teacher):
    remedy = 'name a map of [B, height, width, channels] on each side'
    if _is_layer(student) and _is_layer(teacher):
      remedy = grids.remedy(student, teacher, adapter=name) or remedy
    raise _refusal(name, student, teacher, remedy)


def _refusal(name, student, teacher, remedy) -> UserError:
  return UserError(
    f"adapter={name!r} cannot bring the student's {_text(student)} to the "
    f"teacher's {_text(teacher)}: {remedy}"
  )


def _text(shape) -> str:
  """`[B, 8, 8, 64]`, or several of them."""
  if any(not isinstance(n, int) for n in shape):
    return ' and '.join(map(_text, shape))
  return f'[{", ".join(["B", *map(str, shape[1:])])}]'
