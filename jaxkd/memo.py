"""Making equal things once."""

from collections.abc import Callable
from typing import Any


class Memo:
  """What was made before, found again by an equal description.

  For what is dear to make or to trace, as nets and their steps are; it need
  not be hashable, only comparable.
  """

  def __init__(self):
    self._made: list[tuple[Any, Any]] = []

  def get(self, description: Any, make: Callable[[], Any]) -> Any:
    """What was made of an equal description, or else is made now.

    >>> memo = Memo()
    >>> memo.get({'a': 1}, dict) is memo.get({'a': 1}, dict)
    True
    """
    for known, made in self._made:
      if known == description:
        return made
    made = make()
    self._made.append((description, made))
    return made
