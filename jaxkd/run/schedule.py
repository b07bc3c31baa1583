"""The order in which groups of teachers train, and which train together."""

import graphlib
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax

from jaxkd.distill.roles import Role
from jaxkd.errors import UserError
from jaxkd.models import cost
from jaxkd.run import build
from jaxkd.teachers.groups import members
from jaxkd.train import sharding


def in_order(entries: Mapping[str, dict]) -> list[str]:
  """Groups of teachers, each behind those that it depends on."""
  return list(itertools.chain(*_levels(entries)))


def schedule_of(
  entries: Mapping[str, dict], built: Mapping[str, Role], seeds: int
) -> tuple[dict[str, list], ...]:
  """Which groups train at the same time, and on which devices; see `Round`.

  Groups train at the same time on one host that has a device for each of them,
  unless a group asks for a larger mesh than its share, or for the memory of all
  devices.
  """
  there, found = sharding.devices(), []
  alone = jax.process_count() > 1

  def least(name):
    """The fewest devices that a group can have."""
    train = entries[name]['train']
    if train['shard_parameters']:
      return len(there)
    return math.prod(max(size, 1) for size in train['mesh'].values())

  for names in _levels(entries):
    training = [
      name
      for name in names
      if not entries[name]['restore'] and not entries[name]['made_of']
    ]
    shared = {}
    if 1 < len(training) <= len(there) and not alone:
      shared = sharding.slices(
        {name: flops(entries[name], built[name], seeds) for name in training}
      )
    if any(least(name) > len(own) for name, own in shared.items()):
      shared = {}
    found += [{name: there} for name in names if name not in shared]
    found += [shared] if shared else []
  return tuple(found)


def flops(entry: Mapping[str, Any], role: Role, seeds: int) -> int:
  """What the forward passes take in which a group of teachers trains."""
  examples = entry['train']['steps'] * entry['train']['batch_size']
  one = cost.cost(role.net, role.shape).flops
  return members(entry, seeds) * examples * one


def _levels(entries: Mapping[str, dict]) -> list[tuple[str, ...]]:
  """Groups of teachers that do not depend on each other, stage by stage."""
  graph = {
    name: build.needs(entry, entry['distill']) & set(entries)
    for name, entry in sorted(entries.items())
  }
  sorter, found = graphlib.TopologicalSorter(graph), []
  try:
    sorter.prepare()
  except graphlib.CycleError as error:
    raise UserError(
      f'teachers: {" and ".join(error.args[1])} depend on each other in '
      'a cycle, so none can be trained first'
    ) from error
  while sorter.is_active():
    found.append(sorter.get_ready())
    sorter.done(*found[-1])
  return found
