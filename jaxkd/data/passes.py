"""Passes over many examples, with a progress bar if they take long."""

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

PATIENCE = 1.0  # seconds before a progress bar appears
_BYTES = 2**24  # of the examples in one part, about
_THREADS = 16  # that read at the same time, at most
_MOST = (
  256  # examples in one part; decoding may take more bytes than the result
)


@contextlib.contextmanager
def _unseen(name: str, steps: int) -> Iterator[Callable]:
  yield lambda step, values: None


_stage = contextvars.ContextVar('stage', default=_unseen)


@contextlib.contextmanager
def shown_by(stage: Callable) -> Iterator[None]:
  """Sets what shows the progress of passes inside.

  Args:
    stage: ``(name, steps) -> context manager``, which yields a function
      ``(steps taken, values) -> None``; as
      `jaxkd.report.progress.Reporter.stage`.
  """
  token = _stage.set(stage)
  try:
    yield
  finally:
    _stage.reset(token)


def parts(
  count: int, each: int, name: str, most: int = _MOST
) -> Iterator[np.ndarray]:
  """The numbers 0, ..., count - 1 in parts that are small enough to read.

  Args:
    count: how many.
    each: bytes of one example once it is read.
    name: of the pass, for its progress bar.
    most: examples in one part, at most.
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
  """Fetches each part, in order; a few are read ahead in threads.

  Args:
    fetch: reads a batch of the examples with given numbers, in any thread.
    parts: the numbers, from `parts`.

  Yields:
    The numbers of a part, and what `fetch` gave for them.
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
  """The items one by one, with a progress bar of this name."""
  for numbers in parts(len(items), 0, name):
    yield from (items[i] for i in numbers)


def nbytes(one: Any) -> int:
  """Bytes of a batch of one example."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(one))
