"""The training loop: steps, evaluations, checkpoints, and nothing else."""

import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import compilation
from jaxkd.errors import UserError
from jaxkd.paths import by_path
from jaxkd.train import hosts, sharding
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.population import Population

Values = dict[str, np.ndarray]  # name -> value of each member [M]

# Several steps in one call take a second program to compile. That pays off only
# in long runs, of steps so short that the time between them matters.
LONG_RUN = 4000  # steps
SHORT_STEP = 5e-3  # seconds
MOST_AT_ONCE = 32
SHORT_RUN = 3.0  # seconds; the program of another mode takes that to compile

_WEIGHTS = 'weights'  # the name of the weights among what must be finite


class Batches(Protocol):
  """Batches as a pure function of the step."""

  def batch(self, step: int) -> dict:
    """The batch of one step."""

  def iterate(self, start: int, stop: int, part: np.ndarray | None = None):
    """The batches of the steps from `start` up to, not with, `stop`.

    With several hosts each needs only a part; the values of the rest are
    arbitrary.

    Args:
      start: the first step.
      stop: the step after the last one.
      part: the examples that this host needs, bool [M, B], or [B] where the
        members share their batches; None for all.
    """


class Stopped(Exception):
  """The run was asked to stop, and did so after saving its state."""


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
  """

  steps: int
  eval_every: int
  save_every: int
  log_every: int = 50
  members: str = 'auto'
  steps_per_execution: int = 0
  may_diverge: bool = False


class Fault(NamedTuple):
  """The first values of a population that became infinite or NaN.

  Attributes:
    members: all members with such values, the earliest one first.
    step: at which it happened in the earliest member, counted from 1.
    measured: the names of that member's measurements that were not finite.
    finite: the names of its other measurements.
    weights: the path of an array of the carry that is not finite, if all
      measurements are.
  """

  members: tuple[int, ...]
  step: int
  measured: tuple[str, ...] = ()
  finite: tuple[str, ...] = ()
  weights: str = ''

  def said_of(self, what: str) -> str:
    """A clause that says what became infinite, when, in which members."""
    members = ', '.join(map(str, self.members))
    return (
      f'{what} became infinite or not a number at step {self.step} in member '
      f'{members}'
    )


def explained(fault: Fault) -> str:
  """The default message for a fault."""
  what = ' and '.join(name.removeprefix('loss/') for name in fault.measured)
  return (
    f'{fault.said_of(what or f"the array {fault.weights}")}; lower its '
    'train.learning_rate or set its train.clip'
  )


class Result(NamedTuple):
  """A trained population.

  Attributes:
    population: the compiled members.
    carry: their state after the last step.
    history: ``{'step': [...], 'metrics': {name: [[value of each member]]}}``.
    seconds: time spent in steps, without compilation and evaluation.
    execution: the mode in which it ran.
  """

  population: Population
  carry: Any
  history: dict
  seconds: float
  execution: Execution


def fit(
  make: Callable[..., Population],
  batches: Batches,
  evaluate: Callable[[Population, Any], Values],
  plan: Plan,
  checkpoints: Checkpoints,
  *,
  on_log: Callable[[int, Values], None] = lambda step, values: None,
  explain: Callable[[Fault], str] = explained,
  stop: threading.Event | None = None,
) -> Result:
  """Trains a population, or resumes from its last checkpoint.

  Args:
    make: builds the population, given the `mode` in which its members run.
    batches: of each step.
    evaluate: gives metrics of each member, by name.
    plan: how long and how often.
    checkpoints: of this population; training starts from the newest.
    on_log: called with the number of steps so far and the newest values.
    explain: gives one sentence on a fault and what to do about it.
    stop: when set, the state is saved and `Stopped` raised.

  Raises:
    UserError: a member became infinite or NaN, and ``plan.may_diverge`` is
      False.
    Stopped: `stop` was set.
  """
  stacked = make(mode='vmap')  # for its shapes, which are those of any mode
  first = batches.batch(0)
  nothing = stacked.no_totals(first)
  found = checkpoints.restore({'carry': stacked.shapes, 'totals': nothing})
  if found:
    start, tree, meta = found
    execution = Execution(*meta['execution'])
    population = make(mode=execution.mode)
    carry, totals = map(population.split, (tree['carry'], tree['totals']))
  else:
    population, execution = fastest(make, batches, plan)
    carry, totals = population.init(), population.split(nothing)
    start = 0
    meta = {
      'history': {'step': [], 'metrics': {}},
      'seconds': 0.0,
      'diverged': [False] * population.members,
      'execution': execution,
    }
    if plan.members == 'auto' or _tries_several(plan):
      # A resumed run must not measure again and choose another mode.
      tree = {'carry': population.stacked(carry), 'totals': nothing}
      checkpoints.save(0, tree, meta)
  history, seconds = meta['history'], meta['seconds']
  diverged = np.asarray(meta['diverged'])

  clock = None  # started after the first report, to leave out compilation
  part = population.part(first)
  for step, several in _calls(batches, start, plan, execution.steps, part):
    carry, totals = population.step(carry, totals, *several)
    asked = stop is not None and stop.is_set()
    evaluates = step % plan.eval_every == 0 or step == plan.steps
    saves = step % plan.save_every == 0 or step == plan.steps or asked
    looks = step % plan.log_every == 0 or evaluates
    if not (looks or saves):
      continue
    measured = sharding.fetch(population.stacked(totals))
    with np.errstate(divide='ignore', invalid='ignore'):
      values = {
        name: total / count for name, (total, count) in measured.items()
      }
    finite = {name: np.isfinite(value) for name, value in values.items()}
    if saves:  # a checkpoint must be finite; else the next loss shows a fault
      finite[_WEIGHTS] = sharding.fetch(
        compilation.once(_finite)(population.stacked(carry))
      )
    diverged |= ~np.all(list(finite.values()), 0)
    if diverged.any() and not plan.may_diverge:
      counts = {name: count for name, (_, count) in measured.items()}
      raise UserError(
        explain(_fault(finite, counts, population, carry, step, plan))
      )
    if clock is not None:
      seconds += time.perf_counter() - clock
    if looks:
      totals = population.split(jax.tree.map(jnp.asarray, nothing))
    if evaluates:
      values = {f'train/{name}': value for name, value in values.items()}
      values |= evaluate(population, carry)
      _record(history, step, values, diverged)
    if looks and not diverged.all():
      on_log(step, {name: value[~diverged] for name, value in values.items()})
    if saves:
      tree = {
        'carry': population.stacked(carry),
        'totals': population.stacked(totals),
      }
      meta = {
        'history': history,
        'seconds': seconds,
        'diverged': diverged.tolist(),
        'execution': execution,
      }
      checkpoints.save(step, tree, meta)
    if asked and step < plan.steps:
      checkpoints.wait()
      raise Stopped(f'stopped after step {step} of {plan.steps}')
    clock = time.perf_counter()
  checkpoints.wait()
  return Result(population, carry, history, seconds, execution)


def _calls(
  batches: Batches,
  start: int,
  plan: Plan,
  steps: int,
  part: np.ndarray | None,
) -> Iterator[tuple[int, list[dict]]]:
  """The batches of each call of the program, and the step count after it.

  No call goes past a report or a checkpoint: if fewer steps are left before one
  than a call has, they are done one by one. So a resumed run makes the same
  calls as an uninterrupted one.
  """
  stream = batches.iterate(start, plan.steps, part)
  looks = plan.eval_every, plan.save_every, plan.log_every
  step = start
  while step < plan.steps:
    stop = min(plan.steps, *((step // every + 1) * every for every in looks))
    taken = steps if steps <= stop - step else 1
    step += taken
    yield step, list(itertools.islice(stream, taken))


def fastest(
  make: Callable[..., Population], batches: Batches, plan: Plan
) -> tuple[Population, Execution]:
  """The population in the mode of the plan, and its execution.

  'auto' times some steps of the modes 'sequence' and 'vmap' and takes the
  faster one; where all steps take less than `SHORT_RUN` in sequence, it is that
  one. 'unroll' was never clearly faster than 'sequence', and takes longest to
  compile, so it is not tried.
  """
  batch = batches.batch(0)
  if plan.members != 'auto':
    candidates = [make(mode=plan.members)]
  else:
    candidates = [make(mode='sequence')]
    if candidates[0].members > 1:
      candidates.append(make(mode='vmap'))
  steps, most = plan.steps_per_execution, _most_at_once(plan)
  times = [0.0]
  if len(candidates) > 1 or _tries_several(plan):
    times = [_step_time(candidates[0], batch)]
  longer = len(candidates) > 1 and plan.steps * times[0] > SHORT_RUN
  if hosts.broadcast_from_host0('a trial of another mode', longer):
    times.append(_step_time(candidates[1], batch))
  fastest = hosts.broadcast_from_host0('the fastest way', int(np.argmin(times)))
  best, time_of_one = candidates[fastest], times[fastest]
  short = _tries_several(plan) and time_of_one < SHORT_STEP
  if hosts.broadcast_from_host0('a trial of several steps', short):
    faster = _step_time(best, batch, most) < time_of_one
    steps = (
      most if hosts.broadcast_from_host0('several steps at once', faster) else 1
    )
  return best, Execution(best.mode, steps or 1)


def _tries_several(plan: Plan) -> bool:
  """Whether to measure if several steps in one call are faster."""
  asked = not plan.steps_per_execution and plan.steps >= LONG_RUN
  return asked and _most_at_once(plan) > 1


def _most_at_once(plan: Plan) -> int:
  """The most steps in a call that divide all intervals of the plan."""
  between = math.gcd(
    plan.steps, plan.eval_every, plan.save_every, plan.log_every
  )
  return max(n for n in range(1, MOST_AT_ONCE + 1) if between % n == 0)


def _step_time(population: Population, batch: dict, steps: int = 1) -> float:
  """Seconds of a step: the median of ten calls, after two to warm up."""
  carry = population.init()
  totals = population.split(population.no_totals(batch))
  times = []
  for _ in range(12):
    begun = time.perf_counter()
    carry, totals = population.step(carry, totals, *[batch] * steps)
    jax.block_until_ready(totals)
    times.append(time.perf_counter() - begun)
  return statistics.median(times[2:]) / steps


def _record(
  history: dict, step: int, values: Values, diverged: np.ndarray
) -> None:
  """Adds a point to the history; NaN for members that have diverged."""
  history['step'].append(step)
  for name, value in values.items():
    known = np.where(diverged, np.nan, value)
    history['metrics'].setdefault(name, []).append(known.tolist())


def _finite(carry: Any) -> np.ndarray:
  """Whether all weights of each member are finite, [M]."""
  each = [
    jnp.isfinite(leaf).reshape(len(leaf), -1).all(1)
    for leaf in jax.tree.leaves(carry)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  ]
  return jnp.stack(each).all(0)


def _fault(
  finite: dict[str, np.ndarray],
  counts: dict[str, np.ndarray],
  population: Population,
  carry: Any,
  step: int,
  plan: Plan,
) -> Fault:
  """Finds what became infinite or NaN first, since the last report.

  Args:
    finite: name -> whether it is finite; of measurements and weights, [M].
    counts: name -> for how many steps it was finite, [M].
    population: the members.
    carry: their state.
    step: the number of steps so far.
    plan: gives the step of the last report.
  """
  members = np.flatnonzero(~np.all(list(finite.values()), 0)).tolist()
  looks = plan.log_every, plan.eval_every
  since = max((step - 1) // every * every for every in looks)
  at = {
    member: {
      name: since + 1 + int(count[member])
      for name, count in counts.items()
      if not finite[name][member]
    }
    for member in members
  }
  own = min(at, key=lambda member: min(at[member].values(), default=step))
  members = (own, *(member for member in members if member != own))
  if not at[own]:
    each = by_path(sharding.fetch(population.stacked(carry)))
    paths = [path for path, x in each.items() if not np.isfinite(x[own]).all()]
    return Fault(members, step, weights=paths[0])
  first = min(at[own].values())
  bad = tuple(name for name, when in at[own].items() if when == first)
  others = tuple(name for name in counts if name not in bad)
  return Fault(members, first, bad, others)
