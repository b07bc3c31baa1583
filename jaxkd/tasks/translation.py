"""Translation: from a sequence of tokens to another.

Translations are decoded by `jaxkd.tasks.decoding`: greedily, or by beam search,
which takes several times as long and is only done for finished nets.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import lookup
from jaxkd.data.tokenizer import text
from jaxkd.errors import replacing
from jaxkd.losses import _numerics
from jaxkd.tasks import decoding
from jaxkd.tasks.metrics import counted, nll_of_valid
from jaxkd.types import Metric

GROUND_TRUTH = 'cross_entropy'
INPUTS = ('source', 'prefix')
LABELS = ('tokens',)
MASK = 'valid'
TIMED = ('greedy', 'beam')
BEAM = 5
SCORES = ('exact', 'bleu', 'chrf')


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """What a net makes of the target, and what it writes itself.

  `nll` is that of a token, in nats, after the true ones before it. Of what it
  writes, `exact` is the share that is the target to the letter, `bleu` and
  `chrf` are those of SacreBLEU over all of a split, from 0 to 1; those with
  `_beam` are of the best of `BEAM` hypotheses, and `mode_mass` is the mean
  probability that the net gives to that one. `beam_gain` is `bleu_beam` less
  `bleu`: little where what comes first to mind is what is likeliest.

  Args:
    classes: what each token stands for, as SentencePiece writes it.

  Raises:
    UserError: the package sacrebleu is not installed.
  """
  # Now, and not after training.
  lookup.package('sacrebleu', extra='text', at='task')
  scored = functools.partial(_scored, pieces=tuple(classes))
  written = {
    f'{score}{suffix}': Metric(
      measure, _of(i), output=output, whole=scored, finished=finished
    )
    for output, suffix, finished, measure in (
      ('greedy', '', False, _greedy),
      ('beam', '_beam', True, _beam),
    )
    for i, score in enumerate(SCORES)
  }
  gain = functools.partial(_gained, pieces=tuple(classes))
  return {
    **written,
    'beam_gain': Metric(
      _both, higher_is_better=False, output='beam', whole=gain, finished=True
    ),
    'nll': Metric(nll_of_valid, higher_is_better=False),
    'mode_mass': Metric(_mean('mode_mass'), output='mode_mass', finished=True),
  }


def fidelity(teacher: str) -> dict[str, Metric]:
  """How probable a net finds what a teacher writes.

  Args:
    teacher: the group's name; it has one net.
  """
  name = f'teacher_mass/{teacher}'
  return {'teacher_mass': Metric(_mean(name), output=name, finished=True)}


def decode(
  apply: Callable[[Any], dict],
  inputs: dict[str, Array],
  wanted: Collection[str],
  teachers: Mapping[str, Callable[[Any], dict]],
) -> dict[str, Array]:
  """What a net writes, and how probable it finds that.

  Args:
    apply: ``(inputs) -> outputs`` of the net.
    inputs: ``source`` [B, L] and ``prefix`` [B, L], of which only the length
      is looked at.
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
  folder: Path,
  batch: dict,
  nets: Mapping[str, Callable[[Any], dict]],
  classes: Sequence[str],
) -> None:
  """Targets and what nets write, greedily, as text: a line for each."""
  inputs = batch['inputs']
  length = inputs['prefix'].shape[1]
  lines = {
    'source': inputs['source'],
    'target': batch['labels'],
    **{
      name: decoding.greedy(apply, inputs['source'], length)[0]
      for name, apply in nets.items()
    },
  }
  width = max(map(len, lines))
  texts = {
    name.ljust(width): _texts(np.asarray(tokens).tolist(), classes)
    for name, tokens in lines.items()
  }
  shown = (
    ''.join(f'{name}  {own[i]}\n' for name, own in texts.items())
    for i in range(len(batch['labels']))
  )
  with replacing(folder / 'translations.txt') as draft:
    draft.write_text('\n'.join(shown), encoding='utf-8')


def _mean(output):
  def measure(outputs, batch, teachers):
    return counted(outputs[output], batch)

  return measure


def _greedy(outputs, batch, teachers):
  return _written('greedy', outputs, batch)


def _beam(outputs, batch, teachers):
  return _written('beam', outputs, batch)


def _written(output, outputs, batch):
  """What is written, what should be, and whether the net is of numbers."""
  finite = _numerics.is_distribution(outputs['logits']) | ~batch['valid']
  finite = finite.all(1)
  return outputs[output], batch['labels'], finite


def _both(outputs, batch, teachers):
  greedy, *rest = _greedy(outputs, batch, teachers)
  return greedy, outputs['beam'], *rest


def _gained(greedy, beam, labels, finite, *, pieces):
  """BLEU of beam search less that of greedy decoding."""
  if not finite.all():
    return np.nan, 1
  *written, targets = (_texts(x, pieces) for x in (beam, greedy, labels))
  more, less = (_bleu(x, targets) for x in written)
  return more - less, 1


def _of(i):
  return lambda total, count: total[..., i] / count


def _scored(tokens, labels, finite, *, pieces):
  """The three `SCORES`."""
  if not finite.all():
    return np.full(len(SCORES), np.nan), 1
  import sacrebleu

  written, targets = (_texts(x, pieces) for x in (tokens, labels))
  chrf = sacrebleu.corpus_chrf(written, [targets]).score
  exact = np.mean([a == b for a, b in zip(written, targets, strict=True)])
  return np.array([exact, _bleu(written, targets), chrf / 100]), 1


def _bleu(written, targets):
  import sacrebleu

  # By force: it would complain of text whose punctuation is a token of its own.
  return sacrebleu.corpus_bleu(written, [targets], force=True).score / 100


def _texts(tokens, pieces):
  return [text(x, pieces) for x in tokens]
