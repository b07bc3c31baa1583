"""The training loop: steps, evaluations, checkpoints, and nothing else."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import compilation
from jaxkd.errors import Stopped, UserError
from jaxkd.paths import by_path
from jaxkd.train import best as best_lib
from jaxkd.train import sharding
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.execution import Execution, Plan, fastest
from jaxkd.train.population import Population

Values = dict[str, np.ndarray]  # name -> value of each member [M]

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
    best: where the plan chooses the best state of each member, what is kept of
      it, with a leading axis of members; else None. Of a member that diverged
      it is the last one.
    best_step: of each member, at which step that was; empty without a choice.
  """

  population: Population
  carry: Any
  history: dict
  seconds: float
  execution: Execution
  best: Any = None
  best_step: tuple[int, ...] = ()


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
      False; or the metric by which its best state is chosen never was a number.
    Stopped: `stop` was set.
  """
  stacked = make(mode='vmap')  # for its shapes, which are those of any mode
  first = batches.batch(0)
  nothing = stacked.no_totals(first)
  like = {'carry': stacked.shapes, 'totals': nothing}
  if plan.best:
    like['best'] = plan.best.keep(stacked.shapes)
  found, best, ended = checkpoints.restore(like), None, False
  if found:
    start, tree, meta = found
    execution = Execution(*meta['execution'])
    population = make(mode=execution.mode)
    carry, totals = map(population.split, (tree['carry'], tree['totals']))
    if plan.best:
      kept = population.stacked(population.split(tree['best']))
      best, ended = best_lib.restored(kept, meta['best']), meta['ended']
  else:
    population, execution = fastest(make, first, plan)
    carry, totals = population.init(), population.split(nothing)
    start = 0
    if plan.best:
      kept = plan.best.keep(population.stacked(carry))
      best = best_lib.start(kept, population.members)
    meta = {
      'history': {'step': [], 'metrics': {}},
      'seconds': 0.0,
      'diverged': [False] * population.members,
      'execution': execution,
      **best_lib.record_of(best, ended),
    }
    if plan.members == 'auto' or plan.tries_several:
      # A resumed run must not measure again and choose another mode.
      tree = {'carry': population.stacked(carry), 'totals': nothing}
      checkpoints.save(0, tree | best_lib.tree_of(best), meta)
  history, seconds = meta['history'], meta['seconds']
  diverged = np.asarray(meta['diverged'])

  clock = None  # started after the first report, to leave out compilation
  part = population.part(first)
  left = plan._replace(steps=start) if ended else plan
  for step, several in _calls(batches, start, left, execution.steps, part):
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
      if best:
        value = np.where(diverged, np.nan, values[plan.best.metric])
        kept = plan.best.keep(population.stacked(carry))
        best = best_lib.updated(best, plan.best, kept, step, value)
        ended = best_lib.all_done(best, plan.best, diverged)
        saves |= ended
    if looks and not diverged.all():
      on_log(step, {name: value[~diverged] for name, value in values.items()})
    if saves:
      tree = {
        'carry': population.stacked(carry),
        'totals': population.stacked(totals),
        **best_lib.tree_of(best),
      }
      meta = {
        'history': history,
        'seconds': seconds,
        'diverged': diverged.tolist(),
        'execution': execution,
        **best_lib.record_of(best, ended),
      }
      checkpoints.save(step, tree, meta)
    if ended:
      break
    if asked and step < plan.steps:
      checkpoints.wait()
      raise Stopped(f'stopped after step {step} of {plan.steps}')
    clock = time.perf_counter()
  checkpoints.wait()
  result = Result(population, carry, history, seconds, execution)
  if not best:
    return result
  last = plan.best.keep(population.stacked(carry)), history['step'][-1]
  tree, steps = best_lib.finished(best, plan.best, *last, diverged)
  return result._replace(best=tree, best_step=steps)


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
