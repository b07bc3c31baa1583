"""Passes over many examples, which show how far they are if they take long."""

import collections
import contextlib
import contextvars
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

PATIENCE = 1.0  # seconds before a pass is shown
_BYTES = 2**24  # of the examples that are read at once, about
_THREADS = 16  # that read at the same time, at most
_MOST = 256  # examples that are read at once; there may be more to each


@contextlib.contextmanager
def _unseen(name: str, steps: int) -> Iterator[Callable]:
  yield lambda step, values: None


_stage = contextvars.ContextVar('stage', default=_unseen)


@contextlib.contextmanager
def shown_by(stage: Callable) -> Iterator[None]:
  """Passes inside are shown by this.

  Args:
    stage: ``(name, steps) -> context manager``, which gives a function of the
      steps taken and of values; as `jaxkd.report.progress.Reporter.stage`.
  """
  token = _stage.set(stage)
  try:
    yield
  finally:
    _stage.reset(token)


def parts(
  count: int, each: int, name: str, most: int = _MOST
) -> Iterator[np.ndarray]:
  """The numbers 0, ..., count - 1 in parts that are small enough to be read.

  Args:
    count: how many.
    each: bytes that one of them takes when it is read.
    name: of the pass, where it is shown.
    most: how many there are in a part, at most.
  """
  size = max(1, min(most, _BYTES // max(each, 1)))
  begun, show = time.perf_counter(), None
  with contextlib.ExitStack() as opened:
    for start in range(0, count, size):
      stop = min(start + size, count)
      yield np.arange(start, stop)
      late = time.perf_counter() - begun > PATIENCE
      if show is None and late and stop < count:
        show = opened.enter_context(_stage.get()(name, count))
      if show is not None:
        show(stop, {})


def read(
  fetch: Callable[[np.ndarray], Any], parts: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, Any]]:
  """What is fetched of each part, in order; a few are read at the same time.

  Args:
    fetch: gives a batch of the examples of these numbers, in any thread.
    parts: the numbers, as from `parts`.
  """
  threads = min(os.cpu_count() or 1, _THREADS)
  pool = futures.ThreadPoolExecutor(threads)
  begun = collections.deque()
  try:
    for numbers in parts:
      begun.append((numbers, pool.submit(fetch, numbers)))
      if len(begun) > threads:
        first, batch = begun.popleft()
        yield first, batch.result()
    while begun:
      first, batch = begun.popleft()
      yield first, batch.result()
  finally:
    pool.shutdown(cancel_futures=True)


def over(items: Sequence[Any], name: str) -> Iterator[Any]:
  """The items one by one, as a pass of this name."""
  for numbers in parts(len(items), 0, name):
    yield from (items[i] for i in numbers)


def nbytes(one: Any) -> int:
  """Bytes of a batch of one example."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(one))
