"""The mesh of devices over which members and their batches are sharded.

Its axes are ``member`` and ``data``. Members are independent training runs, so
the program of a population is manual over ``member``: no collective can cross
that axis. Over ``data`` it is partitioned automatically, so BatchNorm and
losses that couple the examples of a batch see the whole batch. Every host
contributes the same number of devices, adjacent in the mesh, so that as few
batches as possible span hosts.
"""

import collections
import contextlib
import contextvars
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxkd.errors import UserError

MEMBER, DATA = 'member', 'data'

# The devices of this thread, if it may not use all.
_own: contextvars.ContextVar[list | None] = contextvars.ContextVar(
  'devices', default=None
)


def devices() -> list:
  """The devices to use: all, or those chosen by `on`."""
  return _own.get() or all_devices()


def all_devices() -> list:
  """All devices, of all hosts, those of a host beside each other."""
  return sorted(jax.devices(), key=lambda d: (d.process_index, d.id))


@contextlib.contextmanager
def on(chosen: list) -> Iterator[None]:
  """Makes this thread use these devices inside."""
  token = _own.set(list(chosen))
  here = jax.process_index()
  first = next(d for d in chosen if d.process_index == here)
  try:
    with jax.default_device(first):
      yield
  finally:
    _own.reset(token)


def slices(work: Mapping[str, float]) -> dict[str, list]:
  """Divides the devices among jobs that run at the same time.

  Each job gets one; each further device goes to the job that would end last.

  Args:
    work: job -> how much it has to do, in any unit; no more jobs than devices.
  """
  there = devices()
  if len(work) > len(there):
    raise ValueError(f'{len(work)} slices of {len(there)} devices')
  sizes = dict.fromkeys(work, 1)
  for _ in range(len(there) - len(work)):
    sizes[max(work, key=lambda name: work[name] / sizes[name])] += 1
  rest = iter(there)
  return {
    name: list(itertools.islice(rest, size)) for name, size in sizes.items()
  }


def mesh(
  members: int,
  batch_size: int,
  *,
  member: int = -1,
  data: int = -1,
  at: str = 'train.mesh',
) -> Mesh:
  """The mesh of a population.

  Args:
    members: how many there are.
    batch_size: examples in a member's batch.
    member: how many groups of devices share the members; -1 for the greatest
      common divisor of members and devices.
    data: how many devices share a batch; -1 for as many of the rest as divide
      the batch.
    at: the config entry.

  Raises:
    UserError: sizes that do not fit the devices, the members or the batch.
  """
  there = devices()
  hosts = len({device.process_index for device in there})
  if member == -1:
    most = len(there) // max(data, 1)
    member = math.gcd(members, most) if most else 1
  if member < 1 or members % member:
    raise UserError(
      f'{at}.member: {members} members cannot be shared by {member} groups of '
      'devices; choose a divisor of the members, or -1'
    )
  if data == -1:
    rest = max(1, len(there) // member)
    fitting = [n for n in range(1, rest + 1) if batch_size % n == 0]
    data = max(fitting, key=lambda n: (member * n % hosts == 0, n))
  if data < 1 or batch_size % data:
    raise UserError(
      f'{at}.data: a batch of {batch_size} cannot be shared by {data} devices; '
      'choose a divisor of train.batch_size, or -1'
    )
  if member * data > len(there):
    raise UserError(
      f'{at}: {member} × {data} devices are requested and {len(there)} are '
      'there; lower member or data, or set them to -1'
    )
  if member * data % hosts:
    raise UserError(
      f'{at}: {members} members and batches of {batch_size} cannot be shared '
      f'by {hosts} hosts; choose a train.batch_size that {hosts} divides'
    )
  chosen, taken = [], collections.Counter()
  for device in there:
    taken[device.process_index] += 1
    if taken[device.process_index] <= member * data // hosts:
      chosen.append(device)
  if len(chosen) < member * data:
    raise UserError(
      f'{at}: {member} × {data} devices are requested, and not all of the '
      f'{hosts} hosts have {member * data // hosts}; lower member or data, or '
      'set them to -1'
    )
  chosen = np.array(chosen).reshape(member, data)
  return Mesh(chosen, (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2)


def fetch(tree: Any) -> Any:
  """A tree as full NumPy arrays on every host; all hosts must call it."""
  leaves, structure = jax.tree.flatten(tree)
  partial = {i: x for i, x in enumerate(leaves) if is_sharded_over_hosts(x)}
  if partial:
    everywhere = {
      i: NamedSharding(x.sharding.mesh, PartitionSpec())
      for i, x in partial.items()
    }
    gathered = jax.jit(lambda x: x, out_shardings=everywhere)(partial)
    leaves = [gathered.get(i, x) for i, x in enumerate(leaves)]
  return jax.device_get(jax.tree.unflatten(structure, leaves))


def is_sharded_over_hosts(x: Any) -> bool:
  """Whether other hosts hold a part of the array that this one lacks."""
  return isinstance(x, jax.Array) and not (
    x.is_fully_addressable or x.is_fully_replicated
  )


def part(shape: tuple[int, ...], mesh: Mesh, *axes: str | None) -> np.ndarray:
  """Which entries of an array are on this host's devices, bool of its shape."""
  own = NamedSharding(mesh, PartitionSpec(*axes[: len(shape)]))
  held = np.zeros(shape, bool)
  for at in own.addressable_devices_indices_map(shape).values():
    held[at] = True
  return held


def replicated(tree: Any, mesh: Mesh, *axes: str | None) -> Any:
  """Shardings over the leading axes only; otherwise replicated.

  Args:
    tree: arrays, or their shapes.
    mesh: the devices.
    *axes: of the mesh.

  Returns:
    A tree of shardings.
  """
  return jax.tree.map(
    lambda x: NamedSharding(mesh, PartitionSpec(*axes[: np.ndim(x)])), tree
  )


def sharded(tree: Any, mesh: Mesh, *axes: str | None) -> Any:
  """As `replicated`, but also sharded over the devices that share a batch.

  Of the axes after the leading ones, the longest that their number divides is
  sharded. An array without such an axis is replicated.
  """
  parts = mesh.shape[DATA]

  def one(x):
    lead = axes[: np.ndim(x)]
    sizes = np.shape(x)[len(lead) :]
    spec = [*lead, *[None] * len(sizes)]
    divided = [i for i, size in enumerate(sizes) if size and size % parts == 0]
    if divided:
      spec[len(lead) + max(divided, key=sizes.__getitem__)] = DATA
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(one, tree)


def put(
  tree: Any,
  mesh: Mesh | None,
  *axes: str | None,
  layout: Callable[..., Any] = replicated,
) -> Any:
  """A tree on the devices.

  With several hosts each puts its own part; the rest of its arrays is ignored.

  Args:
    tree: arrays.
    mesh: the devices; None for the default one.
    *axes: of the mesh, over which the arrays' leading axes are sharded.
    layout: `replicated` or `sharded`.
  """

  def one(x):
    if isinstance(x, jax.ShapeDtypeStruct):
      return x
    if mesh is None:
      return jnp.asarray(x)
    own = layout(x, mesh, *axes)
    if own.is_fully_addressable:
      return jax.device_put(x, own)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return jax.jit(lambda x: x, out_shardings=own)(x)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, own, lambda at: x[at])

  return jax.tree.map(one, tree)
