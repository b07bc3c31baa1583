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

# A second program is compiled only for runs that are long enough to pay for
# it, of steps so short that the time between them matters.
LONG_RUN = 4000  # steps
SHORT_STEP = 5e-3  # seconds
MOST_AT_ONCE = 32

_WEIGHTS = 'weights'  # among what is measured


class Batches(Protocol):
  """Batches as a pure function of the step."""

  def batch(self, step: int) -> dict:
    """The batch of one step."""

  def iterate(self, start: int, stop: int, part: np.ndarray | None = None):
    """The batches of the steps from `start` up to, not with, `stop`.

    Of several hosts, each needs a part alone; what the others hold is any.

    Args:
      start: the first step.
      stop: the step after the last one.
      part: the examples that this host needs, bool [M, B], or [B] where the
        members share their batches; None for all.
    """


class Stopped(Exception):
  """The run was asked to stop, and did so after saving its state."""


class Execution(NamedTuple):
  """The mode in which a population runs; it affects the speed alone.

  Attributes:
    mode: how the members run; see `jaxkd.train.population`.
    steps: how many are taken in one call of the program.
  """

  mode: str = 'sequence'
  steps: int = 1


class Plan(NamedTuple):
  """How long to train and how often to look.

  Attributes:
    steps: how many to take.
    eval_every: steps between evaluations; the last step is one too.
    save_every: steps between checkpoints; the last step is one too.
    log_every: steps between looks at what the steps measured.
    members: how members run: see `jaxkd.train.population`, or 'auto'.
    steps_per_execution: steps that are taken in one call of the program; 0
      for one, or several where a measurement says that this is faster.
    may_diverge: whether members that became infinite or not a number go
      along with the others, all that they reach from then on being nan.
  """

  steps: int
  eval_every: int
  save_every: int
  log_every: int = 50
  members: str = 'auto'
  steps_per_execution: int = 0
  may_diverge: bool = False


class Fault(NamedTuple):
  """What of a population became infinite or not a number first.

  Attributes:
    members: all that have, the first of them first.
    step: the one at which the first of them did, counted from 1.
    measured: what the step measured of it that was not finite.
    finite: what else it measured.
    weights: the path of an array of the carry that is not finite, where what
      was measured is.
  """

  members: tuple[int, ...]
  step: int
  measured: tuple[str, ...] = ()
  finite: tuple[str, ...] = ()
  weights: str = ''

  def said_of(self, what: str) -> str:
    """What became infinite, when, and in which members."""
    members = ', '.join(map(str, self.members))
    return (
      f'{what} became infinite or not a number at step {self.step} in member '
      f'{members}'
    )


def explained(fault: Fault) -> str:
  """The sentence for a fault of which no more is known."""
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
    execution: how it ran.
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
  """Trains a population, or goes on from where its last checkpoint stands.

  Args:
    make: the population, given the `mode` in which its members run.
    batches: what the steps see.
    evaluate: metrics of each member, by name.
    plan: how long and how often.
    checkpoints: where the state is kept; it decides where training starts.
    on_log: called with the steps taken and the newest values.
    explain: says in one sentence what a fault is and what to do about it.
    stop: when set, the state is saved and `Stopped` raised.

  Raises:
    UserError: a member became infinite or not a number, and the plan has no
      place for that.
    Stopped: `stop` was set.
  """
  stacked = make(mode='vmap')  # for its shapes, which no way of running changes
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
      # Another measurement may choose another way.
      tree = {'carry': population.stacked(carry), 'totals': nothing}
      checkpoints.save(0, tree, meta)
  history, seconds = meta['history'], meta['seconds']
  diverged = np.asarray(meta['diverged'])

  clock = None  # started after the first look, so compilation does not count
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
    if saves:  # what is kept is finite; elsewhere the next loss shows it
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
  """The batches of each call, and how many steps have been taken after it.

  No call goes past a look or a checkpoint; where fewer steps are left before
  one than a call takes, they are taken one by one. So a resumed run makes the
  same calls as an unbroken one.
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
  """The population under the way of running it that is asked for.

  'auto' times some steps of each way that can win and takes the fastest.
  Writing members out in one program was never clearly faster than running
  them in sequence, and takes longest to compile, so it is not tried.
  """
  batch = batches.batch(0)
  if plan.members != 'auto':
    candidates = [make(mode=plan.members)]
  else:
    candidates = [make(mode='sequence')]
    if candidates[0].members > 1:
      candidates.append(make(mode='vmap'))
  steps, most = plan.steps_per_execution, _most_at_once(plan)
  times = [0.0] * len(candidates)
  if len(candidates) > 1 or _tries_several(plan):
    times = [_step_time(population, batch) for population in candidates]
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
  """Whether it is to be measured if several steps in a call are faster."""
  asked = not plan.steps_per_execution and plan.steps >= LONG_RUN
  return asked and _most_at_once(plan) > 1


def _most_at_once(plan: Plan) -> int:
  """The most steps of a call such that calls fill the time between looks."""
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
  """Adds a point to the history; every metric has one for every point."""
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
  """What became infinite or not a number first, since the last look.

  Args:
    finite: of what was measured, and of the weights, [M].
    counts: of how many steps before it was finite, [M].
    population: the members.
    carry: their state.
    step: the steps that have been taken.
    plan: when the last look was.
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
