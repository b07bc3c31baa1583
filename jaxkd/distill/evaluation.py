"""What nets reach on a batch, as their metrics have it."""

import jax
import jax.numpy as jnp

from jaxkd.distill import masks, running_mean
from jaxkd.distill.contexts import read, seen, teach
from jaxkd.distill.system import System
from jaxkd.train.population import Rows


def evaluate(system: System, carry: dict, batch: dict, frozen: dict) -> dict:
  """What the metrics of each net measure on one batch."""
  batch = seen(system, batch, carry['seed'], frozen, 'eval_view')
  known = batch.pop('cached_outputs', {})
  targets = teach(system.teachers, frozen, batch['inputs'], known)
  counted = masks.examples(batch)
  if counted is None:
    counted = jnp.ones(batch['id'].shape, bool)
  measured, results, nets = {}, running_mean.result(carry), system.nets
  for name, role in nets.items():
    variables = results[name]
    x = read(role, targets) if role.reads else batch['inputs'][name]
    outputs, _ = role.apply(variables, x)
    if system.decode is not None:
      outputs |= _decoded(system, role.apply, variables, x, outputs, frozen)
    prefix = '' if len(nets) == 1 else f'{name}/'
    for called, metric in system.metrics.items():
      if metric.output and metric.output not in outputs:
        continue
      if not metric.teacher or metric.teacher in targets:
        found = metric.measure(outputs, batch, targets)
        if metric.whole:
          found = Rows((counted, *found))
        measured[prefix + called] = found
  return measured


def _decoded(system, apply, variables, x, outputs, frozen):
  """The outputs that metrics ask for and a forward pass does not give."""
  alone = {
    name: jax.tree.map(lambda x: x[0], tree)
    for name, tree in frozen.items()
    if len(jax.tree.leaves(tree)[0]) == 1
  }
  return system.decode(
    lambda inputs: apply(variables, inputs)[0],
    x,
    {m.output for m in system.metrics.values()} - {'', *outputs},
    {
      name: lambda inputs, name=name: system.teachers[name].net.apply(
        alone[name], inputs
      )[0]
      for name in alone
    },
  )
