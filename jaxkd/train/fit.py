"""The training loop: steps, evaluations, checkpoints, and nothing else."""

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.errors import UserError
from jaxkd.train import hosts, sharding
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.population import Population

Values = dict[str, np.ndarray]  # name -> value of each member [M]


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


class Plan(NamedTuple):
  """How long to train and how often to look.

  Attributes:
    steps: how many to take.
    eval_every: steps between evaluations; the last step is one too.
    save_every: steps between checkpoints; the last step is one too.
    log_every: steps between looks at what the steps measured.
    members: how members run: see `jaxkd.train.population`, or 'auto'.
    may_diverge: whether members that became infinite or not a number go
      along with the others, all that they reach from then on being nan.
  """

  steps: int
  eval_every: int
  save_every: int
  log_every: int = 50
  members: str = 'auto'
  may_diverge: bool = False


class Result(NamedTuple):
  """A trained population.

  Attributes:
    population: the compiled members.
    carry: their state after the last step.
    history: ``{'step': [...], 'metrics': {name: [[value of each member]]}}``.
    seconds: time spent in steps, without compilation and evaluation.
  """

  population: Population
  carry: Any
  history: dict
  seconds: float


def fit(
  make: Callable[..., Population],
  batches: Batches,
  evaluate: Callable[[Population, Any], Values],
  plan: Plan,
  checkpoints: Checkpoints,
  *,
  on_log: Callable[[int, Values], None] = lambda step, values: None,
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
    stop: when set, the state is saved and `Stopped` raised.

  Raises:
    UserError: a member became infinite or not a number, and the plan has no
      place for that.
    Stopped: `stop` was set.
  """
  stacked = make(mode='vmap')  # for its shapes, which no way of running changes
  first = batches.batch(0)
  nothing = stacked.no_totals(first)
  found = checkpoints.restore({'carry': stacked.shapes(), 'totals': nothing})
  if found:
    start, tree, meta = found
    population = make(mode=meta['mode'])
    carry, totals = map(population.split, (tree['carry'], tree['totals']))
  else:
    population = _fastest(make, batches, plan)
    carry, totals = population.init(), population.split(nothing)
    start = 0
    meta = {
      'history': {'step': [], 'metrics': {}},
      'seconds': 0.0,
      'diverged': [False] * population.members,
      'mode': population.mode,
    }
    if plan.members == 'auto':  # another measurement may choose another way
      tree = {'carry': population.stacked(carry), 'totals': nothing}
      checkpoints.save(0, tree, meta)
  history, seconds = meta['history'], meta['seconds']
  diverged = np.asarray(meta['diverged'])

  clock = None  # started after the first look, so compilation does not count
  seen = batches.iterate(start, plan.steps, population.part(first))
  for step, batch in enumerate(seen, start + 1):
    carry, totals = population.step(carry, totals, batch)
    asked = stop is not None and stop.is_set()
    evaluates = step % plan.eval_every == 0 or step == plan.steps
    saves = step % plan.save_every == 0 or step == plan.steps or asked
    looks = step % plan.log_every == 0 or evaluates
    if not (looks or saves):
      continue
    measured = sharding.fetch(population.stacked(totals))
    values = {name: total / count for name, (total, count) in measured.items()}
    finite = {name: np.isfinite(value) for name, value in values.items()}
    if step == plan.steps:  # those of earlier steps show in the next loss
      finite['the weights'] = sharding.fetch(
        jax.jit(_finite)(population.stacked(carry))
      )
    diverged |= ~np.all(list(finite.values()), 0)
    if diverged.any() and not plan.may_diverge:
      raise _divergence(finite, step)
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
        'mode': population.mode,
      }
      checkpoints.save(step, tree, meta)
    if asked and step < plan.steps:
      checkpoints.wait()
      raise Stopped(f'stopped after step {step} of {plan.steps}')
    clock = time.perf_counter()
  checkpoints.wait()
  return Result(population, carry, history, seconds)


def _fastest(
  make: Callable[..., Population], batches: Batches, plan: Plan
) -> Population:
  """The population under the way of running it that is asked for.

  'auto' times some steps of each way that can win and takes the fastest.
  Writing members out in one program was never clearly faster than running
  them in sequence, and takes longest to compile, so it is not tried.
  """
  if plan.members != 'auto':
    return make(mode=plan.members)
  one = make(mode='sequence')
  if one.members == 1:
    return one
  candidates = [one, make(mode='vmap')]
  batch = batches.batch(0)
  times = [_step_time(population, batch) for population in candidates]
  return candidates[hosts.told('the fastest way', int(np.argmin(times)))]


def _step_time(population: Population, batch: dict) -> float:
  """Seconds of a step: the median of ten, after two to warm up."""
  carry = population.init()
  totals = population.split(population.no_totals(batch))
  times = []
  for _ in range(12):
    begun = time.perf_counter()
    carry, totals = population.step(carry, totals, batch)
    jax.block_until_ready(totals)
    times.append(time.perf_counter() - begun)
  return statistics.median(times[2:])


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


def _divergence(finite: dict[str, np.ndarray], step: int) -> UserError:
  """The error for what became infinite or not a number, by name."""
  bad = [name for name, each in finite.items() if not each.all()]
  terms = [name.removeprefix('loss/') for name in bad if '/' in name]
  what = f'the term {" and ".join(terms)}' if terms else ' and '.join(bad)
  members = np.flatnonzero(~np.all(list(finite.values()), 0))
  return UserError(
    f'{what} became infinite or not a number by step {step} in member '
    f'{", ".join(map(str, members))}; lower its train.learning_rate, set its '
    'train.clip, or look at the options of its terms'
  )
