"""Independent work at the same time, each on devices of its own."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from jaxkd.errors import Stopped
from jaxkd.train import sharding


class Flag(Protocol):
  """The part of `threading.Event` that is used here."""

  def is_set(self) -> bool:
    """Whether it has happened."""


def run(
  works: Mapping[str, Callable[[Flag | None], Any]],
  devices: Mapping[str, list],
  stop: Flag | None = None,
) -> dict[str, Any]:
  """Runs each function in a thread of its own; a single one in this thread.

  If one fails, the others are asked to stop: they save and return.

  Args:
    works: name -> a function of the flag that asks it to stop.
    devices: name -> its devices, which it shares with no other.
    stop: when set, all of them stop.

  Returns:
    Name -> what the function returned.

  Raises:
    Stopped: `stop` was set.
    Exception: that of the first function to fail.
  """
  if len(works) == 1:
    return {name: work(stop) for name, work in works.items()}
  failed = threading.Event()
  asked = _Either(failed, stop) if stop else failed
  errors = []

  def one(name):
    try:
      with sharding.on(devices[name]):
        return works[name](asked)
    except BaseException as error:
      errors.append(error)
      failed.set()
      raise

  with ThreadPoolExecutor(len(works), 'side_by_side') as pool:
    made = {name: pool.submit(one, name) for name in works}
    try:
      found = {name: future.exception() for name, future in made.items()}
    except BaseException:  # interrupted while it waits
      failed.set()
      raise
  if any(found.values()):
    # Those that stopped did so for the one that failed, if one did.
    raise next((e for e in errors if not isinstance(e, Stopped)), errors[0])
  return {name: future.result() for name, future in made.items()}


class _Either:
  """A flag that is set when any of several is."""

  def __init__(self, *flags: Flag):
    self._flags = flags

  def is_set(self) -> bool:
    return any(flag.is_set() for flag in self._flags)
