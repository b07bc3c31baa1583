"""Batches as a pure function of the step.

A member of a population goes through its examples in an order of its own,
which depends only on its seed and the epoch. So a run that is resumed at step
1000 gets the batches of an uninterrupted run, without replaying anything.
"""

import functools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxkd.data.examples import ArrayExamples, Examples
from jaxkd.errors import UserError, unknown


class Loader:
  """Batches for a population of M members.

  Member m sees the n_m examples of positive weight. If the weights are equal,
  each comes once an epoch, in random order; else an epoch has n_m draws in
  proportion to the weights (systematic resampling), in random order. Batches
  run on over the end of an epoch, so none is short. With ``together`` above 1,
  groups of examples of one class stay together, and the order of these groups
  is random.
  """

  def __init__(
    self,
    examples: Examples,
    weights: np.ndarray,
    seeds: Sequence[int],
    batch_size: int,
    order: str = 'own',
    *,
    together: int = 1,
    at: str = 'train.batch_size',
  ):
    """Checks the entries.

    Args:
      examples: a split.
      weights: sampling weights [M, N], as from `partition.weights`.
      seeds: one for each member, at least 0.
      batch_size: examples in a member's batch.
      order: 'own', or 'shared' where all members see the first one's batches.
      together: how many examples of one class follow one another.
      at: the config entry of the batch size, for errors.

    Raises:
      UserError: an entry that these examples do not allow.
    """
    weights = np.asarray(weights)
    if weights.shape != (len(seeds), len(examples)):
      raise ValueError(
        f'weights of shape {weights.shape} for {len(seeds)} seeds and '
        f'{len(examples)} examples'
      )
    if min(seeds) < 0:
      raise UserError(f'train.seed: seeds start at 0, got {min(seeds)}')
    if order not in ('own', 'shared'):
      raise unknown('order', order, ('own', 'shared'), 'data.order')
    if order == 'shared':
      if (weights != weights[0]).any():
        raise UserError(
          "data.order: 'shared' needs members that see the same examples; use "
          "'own', or the partition 'none' and one seed for the fraction"
        )
      weights, seeds = weights[:1], seeds[:1]
    if batch_size < 1:
      raise UserError(f'{at}: {batch_size} is not a batch size; use 1 or more')
    if together < 1:
      raise UserError(f'data.together: {together} should be 1 or more')
    if together > 1 and examples.index.each:
      raise UserError(
        f'data.together: {together} examples of a class cannot follow one '
        'another where each is of many classes; use 1'
      )
    sizes = (weights > 0).sum(axis=1)
    if batch_size > sizes.min():
      raise UserError(
        f'{at}: {batch_size} is more than the {sizes.min()} examples that '
        f'member {sizes.argmin()} sees; use {sizes.min()} or fewer, or a '
        'larger data.fraction'
      )
    self.examples, self.batch_size, self.order = examples, batch_size, order
    self.together = together
    self._sizes = sizes
    self._weights = weights
    self._seen = [np.flatnonzero(own) for own in weights]
    self._seeds = [int(seed) for seed in seeds]
    # A batch may span two epochs of each member.
    self._epoch = functools.lru_cache(2 * len(seeds))(self._draw_epoch)

  def indices(self, step: int) -> dict[str, np.ndarray]:
    """The numbers of the examples in the batch of a step.

    Returns:
      ``id``, the numbers of the examples, ``rank``, their numbers among those
      that the member sees, and ``epoch``, all int32 [M, B], or [B] where the
      order is shared.
    """
    first = step * self.batch_size
    each = [
      self.stream(member, first, first + self.batch_size)
      for member in range(len(self._seen))
    ]
    id, epoch = (np.stack(found) for found in zip(*each, strict=True))
    rank = np.empty_like(id)
    for m, seen in enumerate(self._seen):
      rank[m] = np.searchsorted(seen, id[m])
    found = {'id': id, 'rank': rank, 'epoch': epoch}
    if self.order == 'shared':
      return {name: x[0] for name, x in found.items()}
    return found

  def stream(
    self, member: int, start: int, stop: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """A member's examples from the start-th that it sees to the stop-th.

    The batches, of any size, are consecutive parts of this stream.

    Returns:
      The numbers of the examples and their epochs, int32 [stop - start].
    """
    position = np.arange(start, stop)
    epoch, offset = np.divmod(position, self._sizes[member])
    id = np.empty(epoch.shape, np.int32)
    for number in np.unique(epoch).tolist():
      now = epoch == number
      id[now] = self._epoch(member, number)[offset[now]]
    return id, epoch.astype(np.int32)

  def batch(self, step: int, part: np.ndarray | None = None) -> dict[str, Any]:
    """The batch of a step.

    Args:
      step: its number.
      part: the examples to fetch, bool [M, B], or [B] where the order is
        shared; None for all. The others are zeros.

    Returns:
      ``inputs``, ``labels`` and the other fields of the examples, and what
      `indices` returns, each [M, B, ...], or [B, ...] where the order is
      shared.
    """
    indices = self.indices(step)
    shape = indices['id'].shape
    part = np.ones(shape, bool) if part is None else part
    fields = self.examples.fetch(indices['id'][part])

    def place(x):
      if len(x) == part.size:
        return x.reshape(*shape, *x.shape[1:])
      whole = np.zeros((*shape, *x.shape[1:]), x.dtype)
      whole[part] = x
      return whole

    return indices | jax.tree.map(place, fields)

  def iterate(
    self, start: int, stop: int, part: np.ndarray | None = None
  ) -> Iterator[dict[str, Any]]:
    """The batches of the steps start, ..., stop - 1; of a part as in `batch`.

    Examples in memory are gathered on demand, which is cheaper than passing
    them between threads; others are read ahead by Grain.
    """
    if isinstance(self.examples, ArrayExamples):
      yield from (self.batch(step, part) for step in range(start, stop))
    else:
      yield from ahead(lambda step: self.batch(step, part), start, stop)

  def _draw_epoch(self, member: int, epoch: int) -> np.ndarray:
    """Numbers of the examples of one epoch, in order, int32 [n_m]."""
    generator = np.random.default_rng(
      [self._seeds[member], zlib.crc32(b'order'), epoch]
    )
    ids = self._seen[member].astype(np.int32)
    weights = self._weights[member][ids].astype(np.float64)
    if weights.min() != weights.max():
      ends = np.cumsum(weights)
      points = (np.arange(len(ids)) + generator.random()) / len(ids) * ends[-1]
      drawn = np.searchsorted(ends, points, side='right')
      ids = ids[np.minimum(drawn, len(ids) - 1)]
    ids = generator.permutation(ids)
    if self.together == 1:
      return ids
    return self._in_groups(ids, generator)

  def _in_groups(self, ids, generator):
    """Reorders examples in groups of one class, the groups in random order.

    The last group of a class may be smaller.
    """
    labels = self.examples.index.classes[ids]
    ids = ids[np.argsort(labels, kind='stable')]
    counts = np.unique_counts(labels).counts
    within = np.concatenate([np.arange(count) for count in counts])
    group = np.cumsum(within % self.together == 0) - 1
    place = generator.permutation(group[-1] + 1)[group]
    return ids[np.argsort(place, kind='stable')]


def ahead(
  batch: Callable[[int], dict[str, Any]], start: int, stop: int
) -> Iterator[dict[str, Any]]:
  """The batches of the steps start, ..., stop - 1, made ahead of time.

  By as many threads as there are cores, from 4 to 16, each of which makes whole
  batches; they are given in order, whatever the number of threads.
  """
  import grain  # the import takes a second, and most runs do not need it

  threads = workers()

  batches = iter(
    grain.MapDataset.range(start, stop)
    .map(batch)
    .to_iter_dataset(
      grain.ReadOptions(threads, prefetch_buffer_size=2 * threads)
    )
  )
  try:
    yield from batches
  finally:
    batches.close()


def workers() -> int:
  """The number of threads that read batches ahead."""
  return min(max(os.cpu_count() or 1, 4), 16)


def evaluation_batches(
  examples: Examples, batch_size: int, *, at: str = 'train.batch_size'
) -> Iterator[dict[str, Any]]:
  """All examples in order, once, in batches of one size.

  Args:
    examples: a split.
    batch_size: examples in a batch; the last is filled up with the first.
    at: the config entry of the batch size, for errors.

  Yields:
    The fields of the examples, ``id``, ``epoch`` (0), and ``where``: bool
    [B], false for what fills up.

  Raises:
    UserError: a batch size below 1.
  """
  if batch_size < 1:
    raise UserError(f'{at}: {batch_size} is not a batch size; use 1 or more')
  for start in range(0, len(examples), batch_size):
    id = np.arange(start, start + batch_size, dtype=np.int32)
    where = id < len(examples)
    id = np.where(where, id, 0)
    epoch = np.zeros_like(id)
    yield {'id': id, 'epoch': epoch, 'where': where, **examples.fetch(id)}
