"""Arrays as they are stored when they are to take little room.

A quantised array is integer codes and what they stand for, a pruned one a
mask and what is left. What a net has learnt is turned into these once, when
its training is over; all that is evaluated, exported and loaded comes from
them by `dense`, in NumPy, so that it is the same to the last bit.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.paths import flattened, nested
from jaxkd.students import single_file

Array = Any  # of JAX while a net trains, of NumPy when it has


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['codes', 'mask', 'table', 'scale', 'offset'],
  meta_fields=['levels', 'bits', 'bucket', 'shape'],
)
@dataclasses.dataclass(frozen=True)
class Stored:
  """A compressed array: each of its n values is level(code) · scale + offset.

  Attributes:
    codes: uint8 [n], in the order of `flat`; the values themselves where levels
      are 'float'.
    mask: bool [n], False where the value is pruned to 0; None for no pruning.
    table: the codebook, [2^bits] at most, where levels are 'table'.
    scale: one for each bucket; None for 1.
    offset: one for each bucket; None for 0.
    levels: 'float', 'uniform' from 0 to 1, 'signed' from -1 to 1, or 'table'.
    bits: of a code.
    bucket: how many consecutive values share a scale and an offset.
    shape: of the array.
  """

  codes: Array
  mask: Array = None
  table: Array = None
  scale: Array = None
  offset: Array = None
  levels: str = 'float'
  bits: int = 32
  bucket: int = 0
  shape: tuple[int, ...] = ()


def is_stored(leaf: Any) -> bool:
  """Whether a leaf is one; for `jax.tree.map` and its like."""
  return isinstance(leaf, Stored)


def flat(x: Array) -> Array:
  """The values in PyTorch's order of axes, [n].

  The weights of one output are consecutive, and so share buckets.
  """
  xp = x.__array_namespace__()
  return (xp.moveaxis(x, (-1, -2), (0, 1)) if x.ndim > 1 else x).reshape(-1)


def unflat(values: Array, shape: tuple[int, ...]) -> Array:
  """The inverse of `flat`."""
  xp = values.__array_namespace__()
  if len(shape) < 2:
    return values.reshape(shape)
  outer = (shape[-1], shape[-2], *shape[:-2])
  return xp.moveaxis(values.reshape(outer), (0, 1), (-1, -2))


def values(stored: Stored) -> Array:
  """The array; its gradient reaches the table, as indices are constants."""
  xp = stored.codes.__array_namespace__()
  float32 = functools.partial(xp.asarray, dtype=xp.float32)
  if stored.levels == 'float':
    found = stored.codes
  elif stored.levels == 'uniform':
    found = float32(stored.codes) / float32(2**stored.bits - 1)
  elif stored.levels == 'signed':
    most = float32(2 ** (stored.bits - 1) - 1)
    found = (float32(stored.codes) - most) / most
  else:
    found = stored.table[stored.codes]
  spread = lambda x: xp.repeat(x, stored.bucket)[: len(found)]  # noqa: E731
  if stored.scale is not None:
    found = found * spread(stored.scale)
  if stored.offset is not None:
    found = found + spread(stored.offset)
  if stored.mask is not None:
    found = xp.where(stored.mask, found, xp.zeros_like(found))
  return unflat(found, stored.shape)


def dense(variables: dict) -> dict:
  """Variables with each `Stored` decoded into an array [members, ...]."""

  def decode(leaf):
    if not isinstance(leaf, Stored):
      return leaf
    own = range(len(leaf.codes))
    return np.stack([values(_member(leaf, member)) for member in own])

  return jax.tree.map(decode, variables, is_leaf=is_stored)


def pack(variables: dict) -> tuple[dict, dict]:
  """What is written to disk: bits for codes and masks, nothing for zeros.

  Args:
    variables: [members, ...], of NumPy.

  Returns:
    ``(arrays of each member, what else `unpack` needs, of JSON's types)``. The
    latter is empty, and the variables come back as they are, where nothing in
    them is `Stored`.
  """
  flat = flattened(variables, is_stored)
  how = {
    path: {name: getattr(leaf, name) for name in _META}
    for path, leaf in flat.items()
    if isinstance(leaf, Stored)
  }
  if not how:
    return variables, {}
  members = len(jax.tree.leaves(variables)[0])
  packed = {str(member): {} for member in range(members)}
  for path, leaf in flat.items():
    for member, arrays in packed.items():
      own = _member(leaf, int(member))
      arrays[path] = _pack(own) if path in how else {'value': own}
  return packed, how


def unpack(packed: dict, how: dict) -> dict:
  """The variables, [members, ...], of what `pack` gave."""
  if not how:
    return packed
  made = {}
  for path in packed['0']:
    each = [packed[str(member)][path] for member in range(len(packed))]
    if path in how:
      leaf = np.stack([values(_unpack(arrays, **how[path])) for arrays in each])
    else:
      leaf = np.stack([arrays['value'] for arrays in each])
    made[path] = jnp.asarray(leaf)
  return {'params': {}, 'state': {}, **nested(made)}


def size(variables: dict) -> int:
  """The bytes that the first member of variables takes on disk."""
  packed, how = pack(variables)
  first = packed['0'] if how else _member(packed, 0)
  return sum(leaf.nbytes for leaf in jax.tree.leaves(first))


def export(directory: Path, variables: dict, spec: dict) -> None:
  """`jaxkd.train.checkpoint.export` of packed variables."""
  from jaxkd.train import checkpoint  # and with it Orbax, for files alone

  packed, how = pack(variables)
  checkpoint.export(directory, packed, {**spec, 'packed': how})


def load(directory: Path) -> tuple[dict, dict]:
  """`jaxkd.train.checkpoint.load`, unpacked: ``(variables, spec)``.

  A file of `jaxkd.students.single_file` is read as well.
  """
  if single_file.is_file(directory):
    return single_file.load(directory)
  from jaxkd.train import checkpoint

  packed, spec = checkpoint.load(directory)
  return unpack(packed, spec.get('packed', {})), spec


def encoded(directory: Path, member: int) -> dict[str, Stored]:
  """The compressed arrays of a member in the folder of a net, by path.

  Empty where nothing is compressed, as in a file of
  `jaxkd.students.single_file`.
  """
  if single_file.is_file(directory):
    return {}
  from jaxkd.train import checkpoint

  packed, spec = checkpoint.load(directory)
  how = spec.get('packed', {})
  return {path: _unpack(packed[str(member)][path], **how[path]) for path in how}


def description(directory: Path) -> dict:
  """The ``spec`` alone of what `load` gives, which takes no time."""
  if single_file.is_file(directory):
    return single_file.description(directory)
  from jaxkd.train import checkpoint

  return checkpoint.description(directory)


_META = ('levels', 'bits', 'bucket', 'shape')


def _member(tree: Any, member: int) -> Any:
  return jax.tree.map(lambda x: np.asarray(x[member]), tree)


def _pack(stored: Stored) -> dict[str, np.ndarray]:
  names = ('table', 'scale', 'offset')
  arrays = {name: getattr(stored, name) for name in names}
  arrays = {name: x for name, x in arrays.items() if x is not None}
  codes = stored.codes
  if stored.mask is not None:
    arrays['mask'], codes = np.packbits(stored.mask), codes[stored.mask]
  if stored.levels != 'float':
    bits = np.unpackbits(codes[:, None], axis=1)[:, -stored.bits :]
    codes = np.packbits(bits)
  return {**arrays, 'codes': codes}


def _unpack(arrays: dict, **meta: Any) -> Stored:
  arrays = {name: np.asarray(x) for name, x in arrays.items()}
  shape = tuple(meta.pop('shape'))
  n, mask, codes = int(np.prod(shape)), None, arrays.pop('codes')
  if 'mask' in arrays:
    mask = np.unpackbits(arrays.pop('mask'), count=n).astype(bool)
  kept = n if mask is None else int(mask.sum())
  if meta['levels'] != 'float':
    bits = np.unpackbits(codes, count=kept * meta['bits'])
    bits = bits.reshape(kept, meta['bits'])
    codes = np.packbits(np.pad(bits, ((0, 0), (8 - meta['bits'], 0))), axis=1)
    codes = codes[:, 0]
  if mask is not None:
    whole_codes = np.zeros(n, codes.dtype)
    whole_codes[mask] = codes
    codes = whole_codes
  return Stored(codes, mask, shape=shape, **arrays, **meta)
