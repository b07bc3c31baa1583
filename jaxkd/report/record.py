"""The row of a finished run, as `row.json` holds it."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxkd import config as configs
from jaxkd import overview
from jaxkd.data.sources import Source
from jaxkd.models import cost
from jaxkd.report import statistics

PACKAGES = ('jaxkd', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')

# Beside the row's own metric, shown on the validation split along the way.
ALONG_THE_WAY = ('nll',)


def row(
  config: Mapping[str, Any],
  source: Source,
  rounds: list,
  stages: list,
  tuned: Mapping[str, Any],
  shares: Mapping[str, float],
  command: str,
) -> dict:
  """Everything that the run found, with what is needed to find it again.

  Args:
    config: of the run.
    source: the data.
    rounds: as `jaxkd.preflight.prepare` gave them.
    stages: the finished populations, in order.
    tuned: what `jaxkd.tuning.choose` gave.
    shares: the teachers' part of each arm's step.
    command: what starts the run.
  """
  report = config['report']
  metric = report['metric']
  reached = {stage.name: _reached(stage) for stage in stages}
  # What cannot be measured, such as a paraphraser of features, is no arm.
  reached = {name: found for name, found in reached.items() if metric in found}
  higher = rounds[0].metrics[metric].higher_is_better

  def compared(pair, claim):
    found = statistics.paired(
      reached[pair['better']][metric],
      reached[pair['than']][metric],
      higher_is_better=higher,
    )
    return {'claim': claim, **pair, **found}

  names = {f'{part.prefix}{arm}' for part in rounds for arm in part.arms}
  students = [stage for stage in stages if stage.name in names]
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
    'tuning': dict(tuned),
    'params': {name: found.params for name, found in costs.items()},
    'cost': {
      'step_ms': _step_ms(better),
      'teacher_share': shares.get(better.name.split('/')[-1]),
      'flops': {name: found.flops for name, found in costs.items()},
      'bytes': sizes,
      'bit_operations': overview.bit_operations(rounds[-1], source),
      'latency_ms': {
        name: round(cost.latency(net, shape), 4) for name, _, net, shape in nets
      },
      'train_s': {stage.name: round(stage.seconds, 3) for stage in stages},
    },
    'summary': [
      _summary(
        students,
        (better if better in students else students[-1]).history['step'],
        name,
        rounds[0].metrics[name].higher_is_better,
      )
      for name in dict.fromkeys((metric, *ALONG_THE_WAY))
      if name in rounds[0].metrics
    ],
    'notes': _notes(config, source, students),
    'device': device(),
    'versions': versions(),
    'config_sha256': hashlib.sha256(
      configs.as_json(config).encode()
    ).hexdigest(),
    'command': command,
  }


def _reached(stage) -> dict[str, list[float]]:
  """Metric -> value of each member, of the role that the row tells of."""
  return {
    name.removeprefix('test/'): np.asarray(values).tolist()
    for name, values in sorted(stage.test.items())
    if name.count('/') == 1
  }


def _step_ms(stage) -> float | None:
  """Milliseconds of a step of the whole population."""
  steps = stage.history['step'][-1] if stage.history else 0
  return round(1e3 * stage.seconds / steps, 4) if steps else None


def _summary(
  students: list, step: list, metric: str, higher_is_better: bool
) -> dict:
  """The students' metric on the validation split along the way.

  Of those that were measured at these steps; another round may have others.
  """
  name = f'validation/{metric}'
  return {
    'metric': name,
    'higher_is_better': higher_is_better,
    'step': step,
    'arms': {
      stage.name: np.mean(stage.history['metrics'][name], -1).tolist()
      for stage in students
      if stage.history['step'] == step
    },
  }


def _notes(config, source, students) -> list[str]:
  """What a reader must know of the data, and how seeds and teachers relate."""
  notes = [*config['report']['notes'], *source.notes]
  for name, entry in config['teachers'].items():
    if entry['per_seed']:
      notes.append(f'each seed has its own teachers {name}')
    else:
      notes.append(f'all seeds share the teachers {name}')
    kept = entry['cache']['outputs']
    if kept:
      top = entry['cache']['top']
      some = f', of the logits the {top} largest' if top else ''
      notes.append(
        f'what the teachers {name} give was kept on disk '
        f'({", ".join(kept)}{some}) and not computed in the step'
      )
  ways = sorted({_way(stage.execution) for stage in students})
  notes.append(f'the seeds trained as one population ({"; ".join(ways)})')
  if config['data']['order'] == 'shared':
    notes.append('all seeds see the examples in the same order')
  return notes


def _way(execution) -> str:
  """How a population ran, in words."""
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
