"""The row of a finished run, as `row.json` holds it."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxkd import tasks
from jaxkd.data.sources import Source
from jaxkd.models import cost
from jaxkd.report import statistics, wording
from jaxkd.run import config as configs
from jaxkd.run import overview
from jaxkd.teachers import generated

PACKAGES = ('jaxkd', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')

# Beside the row's own metric, shown on the validation split along the way.
ALONG_THE_WAY = ('nll',)


def row(
  config: Mapping[str, Any],
  source: Source,
  rounds: list,
  stages: list,
  tuned: Mapping[str, Any],
  step_costs: Mapping[str, cost.Step],
  command: str,
) -> dict:
  """The row of a run: its results, and what is needed to reproduce them.

  Args:
    config: of the run.
    source: the data.
    rounds: the plan of the run, as `jaxkd.run.checks.prepare` returns it.
    stages: the finished populations, in order.
    tuned: the results of tuning, as `jaxkd.run.tuning.choose` returns them.
    step_costs: of a step of one seed, of each arm of the last round.
    command: the command that starts the run.
  """
  report = config['report']
  metric = report['metric']
  reached = {stage.name: _reached(stage) for stage in stages}
  # What cannot be measured, such as a paraphraser of features, is no arm.
  reached = {name: found for name, found in reached.items() if metric in found}
  ways_up = {k: m.higher_is_better for k, m in rounds[0].metrics.items()}
  higher = ways_up[metric]
  names = {f'{part.prefix}{arm}' for part in rounds for arm in part.arms}
  students = [stage for stage in stages if stage.name in names]
  if report['reach']:
    steps = wording.steps_to(report['reach'])
    ways_up[steps] = False
    for stage in students:
      reached[stage.name][steps] = steps_to(
        report['reach'],
        stage.history['step'],
        stage.history['metrics'][f'validation/{metric}'],
        higher_is_better=higher,
      )
  for seen in report['early_stopping']:
    name = wording.early_stopping(seen)
    for stage in students:
      reached[stage.name][name] = early_stopping(
        stage.history['metrics'][f'validation/{seen}'],
        higher_is_better=ways_up[seen],
      )
    ways_up[name] = False

  def values(name, seen):
    if factors := report['derived'].get(name):
      return statistics.combination(
        factors, {arm: values(arm, seen) for arm in factors}
      )
    return reached[name].get(seen, [])

  def compared(pair, claim):
    seen = pair.get('metric', metric)
    arms = {side: pair[side] for side in ('better', 'than')}
    found = statistics.paired(
      *(values(name, seen) for name in arms.values()),
      higher_is_better=ways_up[seen],
    )
    own = {'metric': seen, 'higher_is_better': ways_up[seen]}
    return {'claim': claim, **arms, **found, **(own if seen != metric else {})}

  last = report['compare']['better']
  better = next(stage for stage in stages if stage.name == last)
  nets = overview.nets(rounds[-1])
  costs = {name: cost.cost(net, shape) for name, _, net, shape in nets}
  sizes = {name: found.bytes for name, found in costs.items()}
  for stage in stages:
    other = stage.name in names and stage is not better
    arm = f'{stage.name}/' if other else ''
    sizes |= {f'{arm}{name}': size for name, size in stage.bytes.items()}
  claim = config['survey'].get('claim', '')
  of_students = {stage.name: reached[stage.name][metric] for stage in students}
  return {
    'system': config['name'],
    'survey': dict(config['survey']),
    'dataset': source.name,
    'metric': metric,
    'higher_is_better': higher,
    'arms': {
      name: {'values': found[metric]} for name, found in reached.items()
    },
    'metrics': {
      name: {k: v for k, v in found.items() if k != metric}
      for name, found in reached.items()
    },
    'comparison': compared(report['compare'], claim),
    'comparisons': {
      name: compared(pair, name) for name, pair in report['controls'].items()
    },
    'derived': {name: dict(of) for name, of in report['derived'].items()},
    'tuning': dict(tuned),
    'params': {name: found.params for name, found in costs.items()},
    'cost': {
      'step_ms': _step_ms(better),
      'teacher_share': _of_step(step_costs, better.name, 'teachers'),
      'flops': {name: found.flops for name, found in costs.items()},
      'bytes': sizes,
      'bit_operations': overview.bit_operations(rounds[-1], source),
      'latency_ms': {
        name: round(cost.latency(net, shape), 4) for name, _, net, shape in nets
      },
      **_decoded_per_s(config, nets),
      **{
        f'step_{kind}': {
          stage.name: _of_step(step_costs, stage.name, kind)
          for stage in students
        }
        for kind in ('flops', 'bytes')
      },
      'train_s': {stage.name: round(stage.seconds, 3) for stage in stages},
    },
    'summary': [
      _summary(
        students,
        (better if better in students else students[-1]).history.get('step'),
        name,
        rounds[0].metrics[name].higher_is_better,
      )
      for name in dict.fromkeys((metric, *ALONG_THE_WAY))
      if name in rounds[0].metrics
    ],
    'notes': [
      *([ranked(of_students, metric, higher)] if report['rank'] else []),
      *_notes(config, source, stages, students, rounds),
    ],
    **_best_steps(stages),
    'device': device(),
    'versions': versions(),
    'config_sha256': hashlib.sha256(
      configs.as_json(config).encode()
    ).hexdigest(),
    'command': command,
  }


def steps_to(
  value: float, steps: Sequence[int], measured: Any, *, higher_is_better: bool
) -> list[float]:
  """The number of steps after which each member first reached a value.

  Args:
    value: of a metric.
    steps: taken until each look, [L].
    measured: the metric at each look, [L, members].
    higher_is_better: which way is up.

  Returns:
    One number per member, NaN for one that never reached it.
  """
  measured = np.asarray(measured, float)
  there = measured >= value if higher_is_better else measured <= value
  first = np.asarray(steps, float)[there.argmax(0)]
  return np.where(there.any(0), first, np.nan).tolist()


def early_stopping(measured: Any, *, higher_is_better: bool) -> list[float]:
  """By how much each member was better at its best look than at the last.

  Args:
    measured: a metric at each look, [L, members].
    higher_is_better: which way is up.

  Returns:
    One number per member, 0 or more; NaN where the metric was.
  """
  measured = np.asarray(measured, float) * (1 if higher_is_better else -1)
  return (measured.max(0) - measured[-1]).tolist()


def _reached(stage) -> dict[str, list[float]]:
  """Metric -> value of each member, of the role that the row is about."""
  return {
    name.removeprefix('test/'): np.asarray(values).tolist()
    for name, values in sorted(stage.test.items())
    if name.count('/') == 1
  }


def _decoded_per_s(config, nets) -> dict:
  """How many examples nets decode in a second, where the task has to."""
  task = tasks.find(config['task'])
  timed = getattr(task, 'TIMED', ())
  found = {
    output: {
      name: round(cost.decoded(net, shape, task.decode, output), 1)
      for name, _, net, shape in nets
    }
    for output in timed
  }
  return {'decoded_per_s': found} if found else {}


def _of_step(step_costs, stage: str, kind: str) -> float | None:
  """A cost of the step of an arm; None for an arm of an earlier round."""
  found = step_costs.get(stage.rpartition('/')[2])
  return found and getattr(found, kind)


def _step_ms(stage) -> float | None:
  """Milliseconds of a step of the whole population."""
  steps = stage.history['step'][-1] if stage.history else 0
  return round(1e3 * stage.seconds / steps, 4) if steps else None


def _summary(
  students: list, step: list | None, metric: str, higher_is_better: bool
) -> dict:
  """The students' metric on the validation split along the way.

  Of those that were measured at these steps; another round may have others,
  and a model that is fitted takes none.
  """
  name = f'validation/{metric}'
  return {
    'metric': name,
    'higher_is_better': higher_is_better,
    'step': step or [],
    'arms': {
      stage.name: np.mean(stage.history['metrics'][name], -1).tolist()
      for stage in students
      if step and stage.history.get('step') == step
    },
  }


def ranked(
  values: Mapping[str, Sequence[float]], metric: str, higher_is_better: bool
) -> str:
  """Arms from best to worst, by their means."""
  means = {name: float(np.mean(each)) for name, each in values.items()}
  order = sorted(means, key=means.get, reverse=higher_is_better)
  said = (f'{name} {wording.number(means[name], metric)}' for name in order)
  return f'by their mean {wording.heading(metric)}: {", ".join(said)}'


def _notes(config, source, stages, students, rounds) -> list[str]:
  """Notes on the data, and on how seeds and teachers relate."""
  notes = [*config['report']['notes'], *source.notes, *overview.notes(rounds)]
  for name, factors in config['report']['derived'].items():
    terms = (f'{factor:+g} × {arm}' for arm, factor in factors.items())
    notes.append(f'{name} is {" ".join(terms)}, seed by seed')
  for name, entry in config['teachers'].items():
    if entry['made_of']:
      pass  # as its parts, which have notes of their own
    elif entry['per_seed']:
      notes.append(f'each seed has its own teachers {name}')
    else:
      notes.append(f'all seeds share the teachers {name}')
    kept = entry['cache']['outputs']
    if kept and any(part.teachers[name].cache for part in rounds):
      some = _sparse(entry['cache'])
      notes.append(
        f'outputs of the teachers {name} ({", ".join(kept)}{some}) were cached '
        'on disk and not computed in the step'
      )
  for part in rounds:
    for arm, own in part.arms.items():
      made = own['data']['generated']
      if made['name']:
        of = made['teacher'] or next(iter(part.teachers))
        some = f'{made["count"]:,}' if made['count'] else 'as many'
        keeps = generated.keeps_data(made['name'])
        beside = 'beside the data' if keeps else 'and no data'
        notes.append(
          f'the students of {part.prefix}{arm} see {some} examples made by '
          f'{made["name"]} of the teacher {of}, {beside}'
        )
  notes += dict.fromkeys(note for stage in students for note in stage.notes)
  for stage in students:
    if share := _unfinished(stage):
      notes.append(
        f'{share:.0%} of the rows that the students of {stage.name} wrote at '
        'the end of training reached no stop token'
      )
  for stage in stages:
    if stage.best:
      notes.append(f'{stage.name}: {wording.best_steps(*stage.best)}')
  ways = sorted({_way(stage.execution) for stage in students})
  notes.append(f'the seeds trained as one population ({"; ".join(ways)})')
  if config['data']['order'] == 'shared':
    notes.append('all seeds see the examples in the same order')
  return notes


def _best_steps(stages) -> dict:
  """Of the nets that are not those of the last step, the steps they are of."""
  found = {s.name: list(s.best.steps) for s in stages if s.best}
  return {'best_steps': found} if found else {}


def _unfinished(stage) -> float:
  """The share of what students wrote, at the last look, that did not end."""
  metrics = (stage.history or {}).get('metrics', {})
  written, unfinished = (
    np.sum(metrics.get(f'train/rollout/{name}', [[0.0]])[-1])
    for name in ('written', 'unfinished')
  )
  return float(unfinished / written) if written > 0 else 0.0


def _sparse(cache) -> str:
  """What is kept of the logits, in words; empty for all of them."""
  if not cache['top']:
    return ''
  some = f', of the logits the {cache["top"]} largest'
  if cache['top_p'] < 1:
    some += f' or as many as have {cache["top_p"]:g} of the mass'
  if cache['temperature'] != 1:
    some += f', at temperature {cache["temperature"]:g}'
  return some


def _way(execution) -> str:
  """The execution mode of a population, in words."""
  steps = execution.steps
  return execution.mode + (f', {steps} steps at once' if steps > 1 else '')


def device() -> str:
  """The accelerator, or the processor and its number of cores."""
  found = jax.devices()[0]
  if found.platform != 'cpu':
    return f'{len(jax.devices())} × {found.device_kind}'
  return f'CPU, {os.cpu_count()} cores, {platform.machine()}'


def versions() -> dict[str, str]:
  """Of Python and of the packages that decide what is computed."""
  found = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {'python': platform.python_version(), **found}


def now() -> str:
  """The time, for a reader, e.g. ``2026-03-01 14:05 +0100``."""
  return datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %z')


def commit() -> str:
  """The commit of the source tree; empty for an installed package."""
  try:
    done = subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=12'],
      cwd=Path(__file__).parent,
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return done.stdout.strip()
