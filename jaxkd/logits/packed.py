"""Sparse logits as arrays of few bytes, as a cache keeps them.

A token has k log-probabilities of two bytes, k classes of two bytes and the
logarithm of the rest of four: 260 bytes for k = 64. Of more than 65,536 classes
each has its bits beyond sixteen packed beside: 268 bytes up to 131,072 classes,
276 up to 262,144. Up to 256 classes have one byte.

Log-probabilities are rounded to float16 unless told otherwise: they lie between
-65,504 and 0, where it has three bits more than bfloat16 in the same room.
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxkd.logits.sparse import SparseLogits

LOG_PROBS, CLASSES, BITS, REST = 'top', 'classes', 'bits', 'rest'
_LOW = 16  # bits of a class that have an array of their own


def dtype_of(k: int, classes: int, dtype: str = '') -> str:
  """The type of log-probabilities: by default float32 if all are kept."""
  return dtype or ('float32' if k == classes else 'float16')


def pack(logits: SparseLogits, dtype: DTypeLike) -> dict[str, Array]:
  """The arrays of some sparse logits, [..., ·] each, and `rest` [...].

  Args:
    logits: what is kept.
    dtype: of the log-probabilities.
  """
  ids = jnp.where(logits.kept, logits.ids, 0).astype(jnp.uint32)
  found = {LOG_PROBS: logits.log_probs.astype(dtype), REST: logits.rest}
  small = jnp.uint8 if logits.classes <= 2**8 else jnp.uint16
  found[CLASSES] = (ids & (2**_LOW - 1)).astype(small)
  if bits := _beyond(logits.classes):
    each = [(ids >> (_LOW + i)) & 1 for i in range(bits)]
    flat = jnp.stack(each, -1).reshape(*ids.shape[:-1], -1).astype(jnp.uint8)
    found[BITS] = jnp.packbits(flat, axis=-1)
  return found


def unpack(
  found: Mapping[str, np.ndarray], classes: int, temperature: float
) -> SparseLogits:
  """The inverse, in NumPy; classes of two bytes stay as they are.

  Args:
    found: the arrays.
    classes: how many classes there are.
    temperature: of the softmax.
  """
  ids = found[CLASSES]
  if bits := _beyond(classes):
    k = ids.shape[-1]
    flat = np.unpackbits(found[BITS], axis=-1, count=k * bits)
    each = flat.reshape(*ids.shape, bits).astype(np.int32)
    ids = ids.astype(np.int32) + (each << (_LOW + np.arange(bits))).sum(
      -1, dtype=np.int32
    )
  return SparseLogits(found[LOG_PROBS], ids, found[REST], classes, temperature)


def bytes_of(k: int, classes: int, dtype: str = '') -> int:
  """Bytes of one distribution of k classes."""
  value = jnp.dtype(dtype_of(k, classes, dtype)).itemsize
  low = 1 if classes <= 2**8 else 2
  return k * (value + low) + math.ceil(k * _beyond(classes) / 8) + 4


def _beyond(classes: int) -> int:
  """Bits that the largest class has beyond the first sixteen."""
  return max(0, (classes - 1).bit_length() - _LOW)
