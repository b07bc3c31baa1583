"""How much a run computes, roughly, and whether that is little."""

import itertools
import math
from collections.abc import Mapping, Sequence

import jax

from jaxkd.data.sources import Source
from jaxkd.models import cost
from jaxkd.run import recipe, schedule
from jaxkd.run.plan import Round
from jaxkd.teachers.groups import members

LITTLE = 5e9  # FLOPs, which one core of a CPU computes within a second
BACKWARD = 2  # what a backward pass takes, in forward passes
NOTE = (
  'programs were compiled to start soon and not to run fast, as there is '
  'little to compute: times of this run say nothing of longer ones'
)


def is_little(
  rounds: Sequence[Round], steps: Mapping[str, cost.Step], source: Source
) -> bool:
  """Whether a CPU computes a run sooner than it optimises its programs.

  Training is counted, and one forward pass of each net for each example that it
  is evaluated on.

  Args:
    rounds: the plan of the run.
    steps: the cost of a step of each arm.
    source: the data.
  """
  if jax.default_backend() != 'cpu':
    return False
  # Stops at the first net that is too much: to count others, they are traced.
  totals = itertools.accumulate(_flops(rounds, steps, source))
  return all(total <= LITTLE for total in totals)


def _flops(rounds, steps, source):
  """What takes how much: first what is known, then what has to be traced."""
  # An arm of earlier rounds alone is taken for the dearest of the last one.
  dearest = max(step.flops for step in steps.values())
  examples = {split: len(part) for split, part in source.splits.items()}

  def evaluating(role, train):
    times = math.ceil(train['steps'] / recipe.eval_every(train))
    count = examples['test'] + times * examples.get('validation', 0)
    return count * cost.cost(role.net, role.shape).flops

  trained = [
    (part, arm)
    for part in rounds
    for arm in part.arms
    if arm == part.first(arm)
  ]
  for part, arm in trained:
    step = steps[arm].flops if arm in steps else dearest
    yield len(part.seeds) * part.arms[arm]['train']['steps'] * step
  for part, arm in trained:
    for role in part.students[arm].values():
      yield len(part.seeds) * evaluating(role, part.arms[arm]['train'])
  for part in rounds:
    for name, role in part.teachers.items():
      entry = part.config['teachers'][name]
      if role.external or entry['restore'] or entry['made_of']:
        continue
      count = members(entry, len(part.seeds))
      yield (1 + BACKWARD) * schedule.flops(entry, role, len(part.seeds))
      yield count * evaluating(role, entry['train'])
