"""Checkpoints of a run and exported networks; the only file that uses Orbax.

A checkpoint is a folder ``DIR/STEP`` with two items: ``arrays``, the bytes of
a tree's leaves, and ``record``, a JSON file that says of each leaf its path,
shape, dtype, place among the bytes and checksum, and carries the caller's
``meta``. Orbax writes both under a temporary name and renames the folder when
everything is on disk, so a folder with a step's name is complete.

The leaves go into one buffer for three reasons. This copy on the host lets the
caller donate the originals. A thousand small arrays take Orbax half a second of
one core, one buffer a few milliseconds. And when one of many arrays is damaged,
Orbax lets the reads of the others fail noisily in a closed event loop. The
checksums are there because TensorStore returns flipped bits without an error.
Nothing is ever unpickled.
"""

import contextlib
import json
import logging as python_logging
import math
import os
import sys
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from jaxkd.errors import UserError, writing
from jaxkd.paths import by_path
from jaxkd.train import hosts

_ROW = 4 * 2**20  # bytes; Orbax compresses and writes the rows in parallel
# Only one thread starts a save at a time: the writers of a checkpoint wait for
# each other by a number that Orbax counts for the whole process.
_SAVING = threading.Lock()


class _Manager(ocp.CheckpointManager):
  """Orbax's manager, which never decides by itself to save.

  Orbax would ask JAX whether this is the step at which all hosts stop. The
  training loop does so already (`jaxkd.train.hosts.Preemption`), with its own
  count of steps.
  """

  def reached_preemption(self, step: int) -> bool:
    return False


class Checkpoints:
  """The last few checkpoints of a run, written in the background.

  Use it as a context manager: leaving it waits until all is on disk. On
  several hosts every process makes the same calls.

  Args:
    directory: of the checkpoints; created if it does not exist.
    keep: how many of the newest to keep, at least 1.
    alone: whether this host writes without the others.

  Raises:
    UserError: the directory cannot be made or written.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep: int = 3,
    alone: bool = False,
  ):
    if keep < 1:
      raise ValueError(f'keep must be at least 1, got {keep}')
    self._directory = _absolute(directory)
    self._alone = alone
    self._damaged: set[int] = set()
    self._open = contextlib.ExitStack()
    processes = _processes(alone)
    with writing(self._directory):
      self._directory.mkdir(parents=True, exist_ok=True)
      self._manager = _Manager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=ocp.checkpoint_managers.LatestN(keep),
          cleanup_tmp_directories=True,
          create=False,
          multiprocessing_options=processes,
          async_options=ocp.AsyncOptions(barrier_sync_fn=_barrier(processes)),
        ),
      )
    self._open.enter_context(_quiet_orbax())

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, error, traceback) -> None:
    with self._open:
      try:
        try:
          self.wait()
        finally:
          with writing(self._directory):
            self._manager.close()
      except UserError as failure:
        if error is None:
          raise
        logging.error('%s', failure)  # must not replace the first error

  def save(self, step: int, tree: Any, meta: dict) -> None:
    """Starts to write a checkpoint; returns once ``tree`` has been copied.

    The arrays may be donated or overwritten as soon as this returns. An
    earlier save that is still being written is waited for.

    Args:
      step: larger than that of every checkpoint there is.
      tree: a pytree of jax or numpy arrays (typed PRNG keys excepted).
      meta: further data, of JSON's types.

    Raises:
      UserError: this or the save before it could not be written.
    """
    latest = self.latest_step()
    if latest is not None and step <= latest:
      raise ValueError(
        f'the checkpoint of step {step} must come after that of step {latest}'
      )
    packed, arrays = _pack(tree)
    chunks = [ocp.SaveArgs(chunk_byte_size=_ROW)] + [
      ocp.SaveArgs() for _ in arrays[1:]
    ]
    items = ocp.args.Composite(
      arrays=ocp.args.StandardSave(arrays, save_args=chunks),
      record=ocp.args.JsonSave(_sealed({**packed, 'meta': meta})),
    )
    with writing(self._directory):
      while self._damaged:  # else they would count among those to keep
        self._manager.delete(self._damaged.pop())
      with _SAVING:
        if not self._alone:
          _number_alike()
        self._manager.save(step, args=items, force=True)

  def restore(self, like: Any) -> tuple[int, Any, dict] | None:
    """Reads the newest checkpoint that is undamaged.

    Args:
      like: a pytree of arrays or ``jax.ShapeDtypeStruct``. A leaf comes back
        as what stands there: a numpy array as a numpy array, all else as a
        jax array with the sharding given, on the default device where none
        is.

    Returns:
      ``(step, tree, meta)``, or None where no checkpoint was ever finished.

    Raises:
      UserError: the checkpoint holds another tree (the first path that
        differs is named), or there are checkpoints and all are damaged.
    """
    self.wait()
    self._damaged.clear()
    steps = sorted(self._manager.all_steps(), reverse=True)
    found = hosts.broadcast_from_host0('the checkpoints', steps)
    for step in found:
      folder, damage = self._directory / str(step), ''
      with hosts.raise_everywhere('a checkpoint'):
        try:
          with _reading(folder):
            tree, meta = _read(folder, like)
        except _DamagedError as error:
          damage = str(error)
      damage = max(hosts.gather('its damage', damage))
      if not damage:
        return step, tree, meta
      self._damaged.add(step)
      logging.warning(
        'the checkpoint %s is damaged (%s); the one before it is tried',
        folder,
        damage,
      )
    if found:
      raise UserError(
        f'checkpoints: none of the {len(found)} in {self._directory} can be '
        'read (the log says why); put an undamaged copy there, or remove the '
        'folder to start afresh'
      )
    return None

  def latest_step(self) -> int | None:
    """The newest step that is saved or being saved, and not damaged."""
    steps = set(self._manager.all_steps()) - self._damaged
    return max(steps, default=None)

  def wait(self) -> None:
    """Returns when everything is on disk.

    Raises:
      UserError: it could not be written.
    """
    with writing(self._directory):
      self._manager.wait_until_finished()


def export(directory: str | os.PathLike, variables: dict, spec: dict) -> None:
  """Writes a finished network with its description, atomically.

  A network exported there before is replaced once the new one is on disk.

  Args:
    directory: of the network; it must hold nothing else.
    variables: nested dicts of arrays, as ``Net.init`` makes them.
    spec: what is needed to rebuild the network, of JSON's types.

  Raises:
    UserError: the directory holds something else or cannot be written.
  """
  directory = _absolute(directory)
  with writing(directory):
    held = list(directory.iterdir()) if directory.exists() else []
  steps = ocp.path.step.checkpoint_steps(directory)
  if steps:
    _network(directory / str(max(steps)))
  elif any(ocp.utils.TMP_DIR_SUFFIX not in path.name for path in held):
    raise UserError(
      f'{directory} holds files that are not an exported network; '
      'choose another directory or remove it'
    )
  leaves, structure = jax.tree.flatten(variables)
  outline = jax.tree.unflatten(structure, range(len(leaves)))
  if json.loads(json.dumps(outline)) != outline:
    raise TypeError('variables must be nested dicts with strings as keys')
  with Checkpoints(directory, keep=1, alone=True) as checkpoints:
    meta = {'network': {'spec': spec, 'outline': outline}}
    checkpoints.save(max(steps, default=-1) + 1, variables, meta)


def load(directory: str | os.PathLike) -> tuple[dict, dict]:
  """Reads what `export` wrote: ``(variables, spec)``.

  The arrays are jax arrays on the default device (numpy arrays where jax has
  no such dtype: 64 bits without ``jax_enable_x64``).

  Raises:
    UserError: there is no exported network, or it is damaged.
  """
  folder = _exported(directory)
  network, leaves = _network(folder)
  like = jax.tree.map(
    lambda i: jax.ShapeDtypeStruct(
      leaves[i]['shape'], jnp.dtype(leaves[i]['dtype'])
    ),
    network['outline'],
  )
  try:
    with _reading(folder):
      variables, _ = _read(folder, like)
  except _DamagedError as damage:
    raise _damaged_export(folder, damage) from damage
  return variables, network['spec']


def description(directory: str | os.PathLike) -> dict:
  """The ``spec`` of an exported network, without its arrays.

  Raises:
    UserError: there is no exported network, or it is damaged.
  """
  return _network(_exported(directory))[0]['spec']


def _exported(directory: str | os.PathLike) -> epath.Path:
  """The checkpoint that is an exported network."""
  directory = _absolute(directory)
  steps = directory.is_dir() and ocp.path.step.checkpoint_steps(directory)
  if not steps:
    raise UserError(
      f'there is no exported network in {directory}; give the folder that a '
      'finished run has written'
    )
  return directory / str(max(steps))


def _network(folder: epath.Path) -> tuple[dict, list[dict]]:
  """The record of an exported network: its description and its leaves."""
  try:
    with _reading(folder):
      record = _record(folder)
  except _DamagedError as damage:
    raise _damaged_export(folder, damage) from damage
  if 'network' not in record['meta']:
    raise UserError(
      f'{folder.parent} holds the checkpoints of a run, not an exported '
      'network; give the folder of a finished network'
    )
  return record['meta']['network'], record['leaves']


def _damaged_export(folder: epath.Path, damage: Exception) -> UserError:
  return UserError(
    f'the exported network in {folder.parent} is damaged ({damage}); remove '
    'it and export it again'
  )


def _pack(tree: Any) -> tuple[dict, list[Any]]:
  """The record of a tree, and the arrays to store: the buffer and others.

  Arrays that span several hosts are stored as they are, so that each host
  writes its own shards; Orbax copies them before its save returns.
  """
  named = by_path(tree)
  spread = [leaf for leaf in named.values() if _is_spread(leaf)]
  checksums = iter(_checksums(spread))
  for leaf in named.values():
    if isinstance(leaf, jax.Array) and not _is_spread(leaf):
      leaf.copy_to_host_async()
  size = sum(x.nbytes for x in named.values() if not _is_spread(x))
  row = min(max(size, 1), _ROW)
  buffer = np.zeros((max(1, math.ceil(size / row)), row), np.uint8)
  leaves, end = [], 0
  for path, leaf in named.items():
    described = {
      'path': path,
      'shape': list(leaf.shape),
      'dtype': jnp.dtype(leaf.dtype).name,
    }
    if not _is_spread(leaf):
      start, end = end, end + leaf.nbytes
      taken = buffer.reshape(-1)[start:end]
      taken[:] = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
      described |= {'start': start, 'crc32': zlib.crc32(taken)}
    else:
      described['sum'] = int(next(checksums))
    leaves.append(described)
  return {'leaves': leaves, 'buffer': list(buffer.shape)}, [buffer, *spread]


def _read(folder: epath.Path, like: Any) -> tuple[Any, dict]:
  """The tree and ``meta`` of one checkpoint."""
  record = _record(folder)
  leaves = {leaf['path']: leaf for leaf in record['leaves']}
  targets = by_path(like)
  _check_same_tree(folder, leaves, targets)
  spread = [path for path, leaf in leaves.items() if 'start' not in leaf]
  wanted = [
    np.empty(record['buffer'], np.uint8),
    *(_abstract(targets[path]) for path in spread),
  ]
  buffer, *others = _restore(
    folder, arrays=ocp.args.StandardRestore(wanted)
  ).arrays
  arrays = dict(zip(spread, others, strict=True))
  # Sharded arrays are not checked: all hosts would have to sum them together.
  whole = {path: x for path, x in arrays.items() if not _is_spread(x)}
  for path, found in zip(whole, _checksums([*whole.values()]), strict=True):
    if int(found) != leaves[path]['sum']:
      raise _DamagedError(f'the bytes of {path} have changed')
  for path, leaf in leaves.items():
    if 'start' in leaf:
      size = math.prod(leaf['shape']) * jnp.dtype(leaf['dtype']).itemsize
      taken = buffer.reshape(-1)[leaf['start'] :][:size]
      if zlib.crc32(taken) != leaf['crc32']:
        raise _DamagedError(f'the bytes of {path} have changed')
      arrays[path] = taken.view(leaf['dtype']).reshape(leaf['shape'])
  placed = [_place(arrays[path], target) for path, target in targets.items()]
  return jax.tree.unflatten(jax.tree.structure(like), placed), record['meta']


@jax.jit
def _checksums(arrays: list) -> list:
  """A checksum of each array, uint32, which any flipped bit changes.

  It sums the words of an array as integers, each times an odd number that
  depends on its place. The sum is exact, so it does not depend on the sharding.
  """

  def one(x):
    if x.dtype == bool:
      x = x.astype(jnp.uint8)
    kind = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, kind).astype(jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(bits.ndim)):
      index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
      place, stride = (
        place + index * jnp.uint32(stride),
        stride * bits.shape[axis],
      )
    return (bits * (2 * place + 1)).sum(dtype=jnp.uint32)

  return [one(x) for x in arrays]


def _check_same_tree(folder: epath.Path, leaves: dict, targets: dict) -> None:
  """Raises for the first leaf in which a checkpoint differs from the target.

  Args:
    folder: the checkpoint.
    leaves: path -> what the checkpoint records of that leaf.
    targets: path -> array or ``jax.ShapeDtypeStruct``.
  """
  held = {
    path: f'{leaf["dtype"]}{leaf["shape"]}' for path, leaf in leaves.items()
  }
  wanted = {
    path: f'{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}'
    for path, leaf in targets.items()
  }
  for path in [*wanted, *held]:
    if held.get(path) != wanted.get(path):
      raise UserError(
        f'the checkpoint {folder} was made by another configuration: {path} '
        f'is {held.get(path, "missing")} there and '
        f'{wanted.get(path, "missing")} here; restore the configuration it '
        'was made with, or choose another directory'
      )


def _is_spread(leaf: Any) -> bool:
  """Whether other hosts hold a part of the array that this one lacks."""
  sharding = getattr(leaf, 'sharding', None)
  return sharding is not None and not (
    sharding.is_fully_addressable or sharding.is_fully_replicated
  )


def _abstract(target: Any) -> Any:
  """The target for Orbax of an array whose hosts wrote their own shards."""
  if _is_spread(target):
    return jax.ShapeDtypeStruct(
      target.shape, target.dtype, sharding=target.sharding
    )
  return np.empty(target.shape, target.dtype)


def _place(array: Any, target: Any) -> Any:
  """An array of the target's kind and sharding; a copy that may be donated."""
  if isinstance(array, jax.Array):
    return array
  sharding = getattr(target, 'sharding', None)
  if sharding is not None and not sharding.is_fully_addressable:
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )
  no_such_dtype = jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype
  if isinstance(target, np.ndarray) or no_such_dtype:
    return array.copy()
  if not getattr(target, 'committed', True):
    sharding = None
  return jax.device_put(array, sharding, may_alias=False)


class _DamagedError(Exception):
  """A checkpoint that cannot be read, or whose bytes have changed."""


def _sealed(record: dict) -> dict:
  """The record as JSON returns it, with its checksum."""
  record = json.loads(json.dumps(record))
  return {**record, 'crc32': _crc32_of_record(record)}


def _record(folder: epath.Path) -> dict:
  record = _restore(folder, record=ocp.args.JsonRestore()).record
  if record.pop('crc32') != _crc32_of_record(record):
    raise _DamagedError('its record has changed')
  return record


def _crc32_of_record(record: dict) -> int:
  return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _restore(folder: epath.Path, **items: Any) -> Any:
  # Each host reads by itself, without waiting for the others.
  options = _processes(alone=True)
  handler = ocp.CompositeCheckpointHandler(
    composite_options=ocp.CompositeOptions(multiprocessing_options=options)
  )
  with ocp.Checkpointer(handler, multiprocessing_options=options) as reader:
    return reader.restore(folder, args=ocp.args.Composite(**items))


def _processes(alone: bool) -> ocp.options.MultiprocessingOptions:
  """The hosts that take part: this one, or all, waiting for each other."""
  if hosts.count() == 1:
    return ocp.options.MultiprocessingOptions()
  own = jax.process_index()
  if alone:
    return ocp.options.MultiprocessingOptions(
      primary_host=own,
      active_processes={own},
      barrier_sync_key_prefix=f'host{own}',
    )
  # If they are listed, Orbax waits with time limits, not in a collective.
  return ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes=set(range(hosts.count()))
  )


def _barrier(
  processes: ocp.options.MultiprocessingOptions,
) -> Callable[..., None] | None:
  """The barrier at which the writing threads of the hosts meet.

  After an error on one host Orbax would wait here for the others, which wait
  for it at another barrier; so this raises the error instead.
  """
  if hosts.count() == 1:
    return None
  wait = ocp.multihost.get_barrier_sync_fn(processes=processes.active_processes)

  def barrier(*, key: str, timeout_ms: int) -> None:
    failure = sys.exc_info()[1]
    if failure is not None:
      raise failure
    wait(key=key, timeout_ms=timeout_ms)

  return barrier


def _number_alike() -> None:
  """Lets the hosts give the same number to their next save; all must call it.

  The threads that write a checkpoint wait for each other by its number, and
  each host counts by itself. One that has exported a network alone is ahead:
  the others would take what it said then for what they wait for now, and write
  into a folder that is not there yet.
  """
  if hosts.count() == 1:
    return
  # Orbax has no other way to it.
  from orbax.checkpoint._src.futures import synchronization

  of_saves = synchronization.OperationIdGenerator
  own = of_saves.get_current_operation_id()
  furthest = max(map(int, hosts.gather('the number of a save', own)))
  for _ in range(furthest - int(own)):
    of_saves.next_operation_id()


def _absolute(directory: str | os.PathLike) -> epath.Path:
  """Orbax asks for absolute paths; ``gs://`` and the like are."""
  path = epath.Path(directory)
  return path if '://' in os.fspath(directory) else path.absolute()


@contextlib.contextmanager
def _reading(folder: epath.Path) -> Iterator[None]:
  """Re-raises any error in reading a checkpoint as a `_DamagedError`."""
  try:
    with _quiet_orbax():
      yield
  except (UserError, _DamagedError):
    raise
  except Exception as error:
    # TensorStore appends pages of its specification in brackets.
    reason = str(error).partition(' [')[0] or type(error).__name__
    raise _DamagedError(textwrap.shorten(reason, 300)) from error


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
  """Suppresses log messages of Orbax that do not help a user of jaxkd.

  These are tracebacks of errors that it raises anyway; how long it has waited
  for the save before, which is intended; and that a folder which it is writing
  has no metadata yet.
  """
  noise = (
    'Waiting for previous save',
    'Metadata file does not exist',
    'Failed to read Metadata file',
  )

  def wanted(record: python_logging.LogRecord) -> bool:
    known = str(record.msg).startswith(noise)
    return '/orbax/' not in record.pathname or not (record.exc_info or known)

  logger = logging.get_absl_logger()
  logger.addFilter(wanted)
  try:
    yield
  finally:
    logger.removeFilter(wanted)
