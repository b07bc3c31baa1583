"""How a population runs: in which mode, and with how many steps in a call.

This affects speed only. It is measured where a plan leaves it open.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxkd.train import hosts
from jaxkd.train.best import Selection
from jaxkd.train.population import Population

# Several steps in one call take a second program to compile. That pays off only
# in long runs, of steps so short that the time between them matters.
LONG_RUN = 4000  # steps
SHORT_STEP = 5e-3  # seconds
MOST_AT_ONCE = 32
SHORT_RUN = 3.0  # seconds; the program of another mode takes that to compile
WARM_UP, TIMED = 2, 10  # calls


class Execution(NamedTuple):
  """Execution mode of a population; affects speed only.

  Attributes:
    mode: how the members run; see `jaxkd.train.population`.
    steps: how many are done in one call of the program.
  """

  mode: str = 'sequence'
  steps: int = 1


class Plan(NamedTuple):
  """How long to train and how often to log, evaluate and save.

  Attributes:
    steps: number of steps.
    eval_every: steps between evaluations; there is also one after the last.
    save_every: steps between checkpoints; there is also one after the last.
    log_every: steps between reports of what the steps measured.
    members: the mode: see `jaxkd.train.population`, or 'auto' for the fastest.
    steps_per_execution: steps in one call of the program; 0 for one, or for
      several if they are measured to be faster.
    may_diverge: whether training goes on if members become infinite or NaN;
      their metrics are NaN from then on.
    best: how the best state of each member is chosen, which is then the result;
      None for the last one.
  """

  steps: int
  eval_every: int
  save_every: int
  log_every: int = 50
  members: str = 'auto'
  steps_per_execution: int = 0
  may_diverge: bool = False
  best: Selection | None = None

  @property
  def tries_several(self) -> bool:
    """Whether to measure if several steps in one call are faster."""
    asked = not self.steps_per_execution and self.steps >= LONG_RUN
    return asked and self.most_at_once > 1

  @property
  def most_at_once(self) -> int:
    """The most steps in a call that divide all intervals of the plan."""
    between = math.gcd(
      self.steps, self.eval_every, self.save_every, self.log_every
    )
    return max(n for n in range(1, MOST_AT_ONCE + 1) if between % n == 0)


def fastest(
  make: Callable[..., Population], batch: dict, plan: Plan
) -> tuple[Population, Execution]:
  """The population in the mode of the plan, and its execution.

  'auto' times some steps of the modes 'sequence' and 'vmap' and takes the
  faster one; where all steps take less than `SHORT_RUN` in sequence, it is that
  one. 'unroll' is not tried, as it takes longest to compile: half a minute for
  16 small nets, which were up to 28 % faster than in sequence on two CPU cores.

  Args:
    make: builds the population, given the `mode` in which its members run.
    batch: to measure with.
    plan: what is asked for.
  """
  if plan.members != 'auto':
    candidates = [make(mode=plan.members)]
  else:
    candidates = [make(mode='sequence')]
    if candidates[0].members > 1:
      candidates.append(make(mode='vmap'))
  steps, most = plan.steps_per_execution, plan.most_at_once
  times = [0.0]
  if len(candidates) > 1 or plan.tries_several:
    times = _step_times([(candidates[0], 1)], batch)
  longer = len(candidates) > 1 and plan.steps * times[0] > SHORT_RUN
  if hosts.broadcast_from_host0('a trial of another mode', longer):
    times = _step_times([(each, 1) for each in candidates], batch)
  fastest = hosts.broadcast_from_host0('the fastest way', int(np.argmin(times)))
  best, time_of_one = candidates[fastest], times[fastest]
  short = plan.tries_several and time_of_one < SHORT_STEP
  if hosts.broadcast_from_host0('a trial of several steps', short):
    one, many = _step_times([(best, 1), (best, most)], batch)
    faster = hosts.broadcast_from_host0('several steps at once', many < one)
    steps = most if faster else 1
  return best, Execution(best.mode, steps or 1)


def _step_times(
  ways: Sequence[tuple[Population, int]], batch: dict
) -> list[float]:
  """Seconds of a step for each population with so many steps in a call.

  The median of ten calls after two to warm up. The ways take turns, so that
  what else the machine does slows all of them alike.
  """
  carries = [population.init() for population, _ in ways]
  times = [[] for _ in ways]
  for _ in range(WARM_UP + TIMED):
    for way, (population, steps) in enumerate(ways):
      totals = population.split(population.no_totals(batch))
      begun = time.perf_counter()
      carries[way], totals = population.step(
        carries[way], totals, *[batch] * steps
      )
      jax.block_until_ready(totals)
      times[way].append((time.perf_counter() - begun) / steps)
  return [statistics.median(each[WARM_UP:]) for each in times]
