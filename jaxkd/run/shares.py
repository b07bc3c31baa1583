"""Which share of the training examples nets see, as a config says."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Share(NamedTuple):
  """A share of the examples; see `jaxkd.data.partition.weights`.

  Attributes:
    fraction: of the examples, or of their units.
    partition: how members divide it.
    unit: the field whose values are seen whole or not at all; '' for single
      examples.
  """

  fraction: float
  partition: str
  unit: str


def of_students(data: Mapping[str, Any]) -> Share:
  """What the students of an arm see, by its section ``data``."""
  return Share(*(data[name]['students'] for name in Share._fields))


def of_teachers(entry: Mapping[str, Any], data: Mapping[str, Any]) -> Share:
  """What a group of teachers sees: its own entries, or those of all groups.

  Args:
    entry: of the group.
    data: the section of the config.
  """
  own = entry['data']
  return Share(*(own[name] or data[name]['teachers'] for name in Share._fields))
