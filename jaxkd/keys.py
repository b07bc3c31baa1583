"""Keys and seeds folded from names, never from positions.

Adding a net, a term or a view then leaves every other draw as it was, and
paired seeds stay paired.
"""

import zlib

import jax
from jax import Array


def fold(key: Array, *names: str | int | Array) -> Array:
  """Folds names (their CRC-32) and integers into a key, in order."""
  for name in names:
    key = jax.random.fold_in(
      key, zlib.crc32(name.encode()) if isinstance(name, str) else name
    )
  return key


def seed(base: int, name: str) -> int:
  """A 31-bit seed for what is called ``name`` in the run of seed ``base``."""
  return zlib.crc32(f'{base}/{name}'.encode()) & 0x7FFFFFFF
