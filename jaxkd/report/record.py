"""The row of a finished run, as `row.json` holds it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd import tasks
from jaxkd.data.sources import Source
from jaxkd.models import cost
from jaxkd.report import made_with, row_notes, statistics, wording
from jaxkd.run import config as configs
from jaxkd.run import overview

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
  names = {f'{part.prefix}{arm}' for part in rounds for arm in part.arms}
  students = [stage for stage in stages if stage.name in names]
  reached, ways_up = _reached(stages, students, rounds, report)
  higher = ways_up[metric]

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
  of_students = {stage.name: reached[stage.name][metric] for stage in students}
  measured = rounds[0].metrics
  along = (better if better in students else students[-1]).history.get('step')
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
    'comparison': compared(
      report['compare'], config['survey'].get('claim', '')
    ),
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
      'bytes': _bytes(costs, stages, students, better),
      'bit_operations': overview.bit_operations(rounds[-1], source),
      'latency_ms': {
        name: round(cost.latency(net, shape), 4) for name, _, net, shape in nets
      },
      **_decoded_per_s(config, nets),
      **_step_costs(step_costs, students),
      'train_s': {stage.name: round(stage.seconds, 3) for stage in stages},
    },
    'summary': [
      _summary(students, along, name, measured[name].higher_is_better)
      for name in dict.fromkeys((metric, *ALONG_THE_WAY))
      if name in measured
    ],
    'notes': [
      *(
        [row_notes.ranked(of_students, metric, higher)]
        if report['rank']
        else []
      ),
      *row_notes.notes(config, source, stages, students, rounds),
    ],
    **_best_steps(stages),
    'device': made_with.device(),
    'versions': made_with.versions(),
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


def _reached(stages, students, rounds, report) -> tuple[dict, dict]:
  """What each population reached, and of each metric which way is up.

  What cannot be measured, such as a paraphraser of features, is no arm.
  """
  found = {stage.name: _on_test(stage) for stage in stages}
  found = {
    name: each for name, each in found.items() if report['metric'] in each
  }
  ways_up = {k: m.higher_is_better for k, m in rounds[0].metrics.items()}
  if report['reach']:
    steps = wording.steps_to(report['reach'])
    for stage in students:
      found[stage.name][steps] = steps_to(
        report['reach'],
        stage.history['step'],
        stage.history['metrics'][f'validation/{report["metric"]}'],
        higher_is_better=ways_up[report['metric']],
      )
    ways_up[steps] = False
  for seen in report['early_stopping']:
    gain = wording.early_stopping(seen)
    for stage in students:
      found[stage.name][gain] = early_stopping(
        stage.history['metrics'][f'validation/{seen}'],
        higher_is_better=ways_up[seen],
      )
    ways_up[gain] = False
  return found, ways_up


def _on_test(stage) -> dict[str, list[float]]:
  """Metric -> value of each member, of the role that the row is about."""
  return {
    name.removeprefix('test/'): np.asarray(values).tolist()
    for name, values in sorted(stage.test.items())
    if name.count('/') == 1
  }


def _bytes(costs, stages, students, better) -> dict[str, int]:
  """The bytes of each net, as it is stored where it is compressed."""
  sizes = {name: found.bytes for name, found in costs.items()}
  others = {stage.name for stage in students} - {better.name}
  for stage in stages:
    arm = f'{stage.name}/' if stage.name in others else ''
    sizes |= {f'{arm}{name}': size for name, size in stage.bytes.items()}
  return sizes


def _step_costs(step_costs, students) -> dict[str, dict]:
  """The FLOPs and bytes of a step of one seed, by arm."""
  return {
    f'step_{kind}': {
      stage.name: _of_step(step_costs, stage.name, kind) for stage in students
    }
    for kind in ('flops', 'bytes')
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


def _best_steps(stages) -> dict:
  """Of the nets that are not those of the last step, the steps they are of."""
  found = {s.name: list(s.best.steps) for s in stages if s.best}
  return {'best_steps': found} if found else {}
