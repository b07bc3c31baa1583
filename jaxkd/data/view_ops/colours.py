"""Changes of the colours of an image, as Pillow and torchvision define them.

Images are floats from 0 to 1, [H, W, C], and so are the results; C is 1 or 3
where a luma is taken. NaN stays NaN.
"""

import dm_pix
import jax
import jax.numpy as jnp
from jax import Array


def brightness(image: Array, factor: Array) -> Array:
  """A mixture with black: 0 gives black and 1 the image."""
  return _mixed(image, jnp.zeros_like(image), factor)


def saturation(image: Array, factor: Array) -> Array:
  """A mixture with the image in grey: 0 gives grey and 1 the image."""
  return _mixed(image, _luma(image), factor)


def contrast(image: Array, factor: Array) -> Array:
  """A mixture with the mean of the image in grey."""
  return _mixed(image, _luma(image).mean(), factor)


def sharpness(image: Array, factor: Array) -> Array:
  """A mixture with the smoothed image: 0 gives that and 1 the image.

  It is smoothed by 3x3 pixels, the middle one with the weight 5 of 13; pixels
  at the edge are as they were.
  """
  height, width = image.shape[:2]
  if min(height, width) < 3:
    return image
  inner = image[1:-1, 1:-1]
  around = sum(
    image[i : i + height - 2, j : j + width - 2]
    for i in range(3)
    for j in range(3)
  )
  smooth = image.at[1:-1, 1:-1].set((around + 4 * inner) / 13)
  return _mixed(image, smooth, factor)


def hue(image: Array, turn: Array) -> Array:
  """Turns the hues of RGB by a share of the circle, -0.5 to 0.5."""
  with jax.numpy_dtype_promotion('standard'):  # dm-pix adds a bool
    return dm_pix.adjust_hue(image, turn)


def posterize(image: Array, bits: Array) -> Array:
  """Keeps the first bits, 0 to 8, of the bytes that pixels stand for."""
  kept = 256 - jnp.left_shift(1, 8 - bits)
  return _where_known(image, _bytes(image) & kept)


def solarize(image: Array, threshold: Array) -> Array:
  """Inverts pixels that are not below the threshold."""
  rounding = 1e-5  # of bytes as floats
  return dm_pix.solarize(image, threshold - rounding)


def autocontrast(image: Array) -> Array:
  """Stretches each channel to the range from 0 to 1."""
  low = image.min((0, 1), keepdims=True)
  width = image.max((0, 1), keepdims=True) - low
  stretched = (image - low) / jnp.where(width == 0, 1, width)
  return jnp.where(width == 0, image, stretched)


def equalize(image: Array) -> Array:
  """Makes the bytes of each channel about equally frequent.

  By Pillow's rule for which byte becomes which. A channel of one byte stays.
  """

  def one(channel):
    level = _bytes(channel)
    counts = jnp.bincount(level.reshape(-1), length=256)
    step = (level.size - counts[level.max()]) // 255
    below = jnp.cumsum(counts) - counts
    becomes = (below + step // 2) // jnp.maximum(step, 1)
    made = _where_known(channel, jnp.minimum(becomes, 255)[level])
    return jnp.where(step == 0, channel, made)

  return jax.vmap(one, -1, -1)(image)


def _mixed(image: Array, other: Array, factor: Array) -> Array:
  factor = jnp.asarray(factor, image.dtype)
  return jnp.clip(other + factor * (image - other), 0, 1)


def _luma(image: Array) -> Array:
  """[H, W, C], the same in all channels."""
  if image.shape[2] == 1:
    return image
  with jax.default_matmul_precision('highest'):
    return dm_pix.rgb_to_grayscale(image, keep_dims=True)


def _bytes(image: Array) -> Array:
  """The bytes that pixels stand for, int32; 0 for NaN."""
  whole = jnp.round(jnp.clip(image, 0, 1) * 255)
  return jnp.where(jnp.isnan(whole), 0, whole).astype(jnp.int32)


def _where_known(image: Array, made: Array) -> Array:
  """Bytes as pixels, but where the image is NaN."""
  return jnp.where(jnp.isnan(image), image, made.astype(image.dtype) / 255)
