"""What was measured, as plain numbers that are fetched when they are read."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxkd.train import sharding


class Measured(Mapping):
  """What a step or an evaluation measured, by name: plain numbers.

  They are fetched from the device when the first is read, so that a loop that
  reads none does not wait for it. Of several members a value is an array [M].
  """

  def __init__(self, found: dict, value: Callable[[str, Any], np.ndarray]):
    self._found, self._value = found, value

  @functools.cached_property
  def _numbers(self) -> dict[str, Any]:
    found = sharding.fetch(self._found)
    with np.errstate(divide='ignore', invalid='ignore'):
      each = {name: self._value(name, x) for name, x in found.items()}
    return {k: x if len(x) > 1 else float(x[0]) for k, x in each.items()}

  def __getitem__(self, name: str) -> Any:
    return self._numbers[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._found)

  def __len__(self) -> int:
    return len(self._found)

  def __repr__(self) -> str:
    return repr(self._numbers)
