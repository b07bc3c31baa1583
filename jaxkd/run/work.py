"""How much a run computes, roughly, and whether that is little."""

import math
from collections.abc import Mapping, Sequence

import jax

from jaxkd.data.sources import Source
from jaxkd.models import cost
from jaxkd.run import recipe, schedule
from jaxkd.run.plan import Round

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
  examples = {split: len(part) for split, part in source.splits.items()}

  def evaluating(role, train):
    """The FLOPs of one member."""
    times = math.ceil(train['steps'] / recipe.eval_every(train))
    count = examples['test'] + times * examples.get('validation', 0)
    return count * cost.cost(role.net, role.shape).flops

  total = 0
  for part in rounds:
    seeds = len(part.seeds)
    for name, role in part.teachers.items():
      entry = part.config['teachers'][name]
      if role.external or entry['restore'] or entry['made_of']:
        continue
      total += (1 + BACKWARD) * schedule.flops(entry, role, seeds)
      total += schedule.members(entry, seeds) * evaluating(role, entry['train'])
    for arm, roles in part.students.items():
      if arm != part.first(arm):
        continue
      train = part.arms[arm]['train']
      each = sum(evaluating(role, train) for role in roles.values())
      total += seeds * (train['steps'] * steps[arm].flops + each)
  return total <= LITTLE
