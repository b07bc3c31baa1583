"""Exports the nets of a run, and draws their predictions of examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxkd import models, run_files, shapes, tasks
from jaxkd.data import inputs
from jaxkd.data.sources import Source
from jaxkd.distill.roles import Role
from jaxkd.run import build, stored_nets
from jaxkd.run.evaluate import reported
from jaxkd.run.plan import Round, called
from jaxkd.run.types import Session
from jaxkd.students import stored
from jaxkd.train import hosts

SHOWN = 8  # examples


def export(
  session: Session,
  directory: Path,
  stage: str,
  entry: Mapping[str, Any],
  role: Role,
  variables: dict,
  train: Mapping[str, Any],
) -> None:
  """Writes a population of nets to where `jaxkd.load` finds it."""
  source = session.source
  model, kw = models.explicit(entry['model'], build.options_of(entry, source))
  kw, variables = models.merged(model, kw, variables)
  with hosts.raise_everywhere('the nets'):
    if hosts.is_first():
      stored.export(
        stored_nets.net_folder(directory, stage),
        variables,
        {
          'model': model,
          'kw': kw,
          'num_classes': build.classes_of(entry, source),
          'classes': list(source.classes),
          'logits': session.logits,
          'standardized': [list(each) for each in source.standardized],
          'inputs': inputs.as_json(_inputs_of(role, source)),
          'input_shape': shapes.as_json(role.shape),
          'dtype': train['dtype'],
          'param_dtype': train['param_dtype'],
          'view': role.eval_view,
          'specialist': bool(entry.get('specialize', {}).get('of')),
          'quantize': entry['quantize'],
          'logit_shift': bool(entry.get('logit_shift')),
          'members': len(jax.tree.leaves(variables)[0]),
        },
      )


def show(
  config: Mapping[str, Any],
  source: Source,
  rounds: list[Round],
  directory: Path,
) -> None:
  """Draws the predictions of the first seed's nets for the first test examples.

  The nets are the students of the compared arms, from the baseline to the arm
  that is claimed to be better, and the teachers that were trained, but for nets
  that read the outputs of others.
  """
  task = tasks.find(config['task'])
  if not hasattr(task, 'show'):
    return
  claim = config['report']['compare']
  pairs = (claim, *config['report']['controls'].values())
  compared = {pair[side] for pair in pairs for side in ('better', 'than')}
  students, taught = {}, {}
  for part in rounds:
    for arm, own in part.students.items():
      name = f'{part.prefix}{arm}'
      role = reported(own)
      if name in compared and not own[role].reads:
        students[name] = f'{part.prefix}students/{arm}/{role}'
    for group in part.predicts:
      entry = part.config['teachers'][group]
      if not any(entry[how] for how in ('restore', 'made_of', 'reads')):
        name = f'{part.prefix}{called(group, part)}'
        taught[name] = f'{part.prefix}teachers/{group}'
  places = {claim['than']: 0, claim['better']: 2}
  order = sorted(students, key=lambda name: places.get(name, 1))
  stages = {**{name: students[name] for name in order}, **taught}
  test = source.splits['test']

  def applied(stage):
    net, variables = stored_nets.load(stored_nets.net_folder(directory, stage))
    return jax.jit(lambda inputs: net.apply(variables, inputs)[0])

  task.show(
    directory / run_files.EXAMPLES,
    test.fetch(np.arange(min(SHOWN, len(test)))),
    {name: applied(stage) for name, stage in stages.items()},
    source.classes,
  )


def _inputs_of(role: Role, source: Source) -> inputs.Inputs:
  """The inputs of a net: examples, or the outputs of other nets."""
  if role.reads:
    return inputs.unknown(role.shape, 'float32')
  return inputs.of(source)
