"""Sequences of tokens that nets write: how they are decoded and measured.

For tasks such as translation and transcription. Sequences are decoded by
`jaxkd.tasks.decoding`: greedily, or by beam search, which takes several times
as long and is only done for finished nets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import compilation
from jaxkd.data.text.tokenizer import text
from jaxkd.files import replacing
from jaxkd.losses import _numerics
from jaxkd.tasks import decoding
from jaxkd.tasks.metrics import counted
from jaxkd.types import Metric

BEAM = 5
TIMED = ('greedy', 'beam')


def fidelity(teacher: str) -> dict[str, Metric]:
  """How probable a net finds what a teacher writes.

  Args:
    teacher: the group's name; it has one net.
  """
  return {'teacher_mass': mean_of(f'teacher_mass/{teacher}')}


def decode(
  apply: Callable[[Any], dict],
  inputs: dict[str, Array],
  wanted: Collection[str],
  teachers: Mapping[str, Callable[[Any], dict]],
) -> dict[str, Array]:
  """What a net writes, and how probable it finds that.

  Args:
    apply: ``(inputs) -> outputs`` of the net.
    inputs: ``source`` and ``prefix`` [B, L], of which only the length is looked
      at.
    wanted: names of outputs; others than these here are passed over, and so
      are those of teachers that are not there.
    teachers: name -> ``apply``.

  Returns:
    ``greedy``: tokens [B, L]; ``beam``: those of the best of `BEAM` hypotheses;
    ``mode_mass``: its probability [B]; ``teacher_mass/NAME``: what the net
    finds to be the probability of the best hypothesis of a teacher [B].
  """
  source, length = inputs['source'], inputs['prefix'].shape[1]

  def best(of):
    tokens, scores = decoding.beam(of, source, length, BEAM)
    return tokens[:, 0], jnp.exp(scores[:, 0])

  found = {}
  if 'greedy' in wanted:
    found['greedy'] = decoding.greedy(apply, source, length)[0]
  if {'beam', 'mode_mass'} & {*wanted}:
    found['beam'], mass = best(apply)
    if 'mode_mass' in wanted:
      found['mode_mass'] = mass
  for name, teacher in teachers.items():
    if f'teacher_mass/{name}' in wanted:
      tokens, _ = best(teacher)
      likely = decoding.log_likelihood(apply, source, tokens)
      found[f'teacher_mass/{name}'] = jnp.exp(likely)
  return found


def show(
  path: Path,
  batch: dict,
  nets: Mapping[str, Callable[[Any], dict]],
  classes: Sequence[str],
  **others: Array,
) -> None:
  """Writes targets and what nets write, greedily, as text: a line for each.

  Args:
    path: of the file.
    batch: a few examples.
    nets: name -> ``apply``.
    classes: what each token stands for.
    **others: more sequences of tokens, [B, L], whose lines come first.
  """
  inputs = batch['inputs']
  length = inputs['prefix'].shape[1]

  def written_by(apply):
    return compilation.once(
      lambda source: decoding.greedy(apply, source, length)[0]
    )(inputs['source'])

  lines = {
    **others,
    'target': batch['labels'],
    **{name: written_by(apply) for name, apply in nets.items()},
  }
  width = max(map(len, lines))
  written = {
    name.ljust(width): texts(np.asarray(tokens).tolist(), classes)
    for name, tokens in lines.items()
  }
  shown = (
    ''.join(f'{name}  {own[i]}\n' for name, own in written.items())
    for i in range(len(batch['labels']))
  )
  with replacing(path) as draft:
    draft.write_text('\n'.join(shown), encoding='utf-8')


def texts(tokens: Any, pieces: Sequence[str]) -> list[str]:
  """The text of each of some sequences of tokens."""
  return [text(x, pieces) for x in tokens]


# What metrics measure: ``(outputs, batch, teachers) -> fields``.


def greedy(outputs, batch, teachers):
  """What is written greedily, what should be, and whether of numbers."""
  return _written('greedy', outputs, batch)


def beam(outputs, batch, teachers):
  """The best hypothesis, what it should be, and whether of numbers."""
  return _written('beam', outputs, batch)


def mean_of(output: str) -> Metric:
  """The mean of an output [B] of finished nets."""

  def measure(outputs, batch, teachers):
    return counted(outputs[output], batch)

  return Metric(measure, output=output, finished=True)


def _written(output, outputs, batch):
  finite = _numerics.is_distribution(outputs['logits']) | ~batch['valid']
  return outputs[output], batch['labels'], finite.all(1)
