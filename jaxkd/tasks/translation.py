"""Translation: from a sequence of tokens to another.

What is written, and how it is decoded, is in `jaxkd.tasks.sequences`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd import lookup
from jaxkd.tasks import sequences
from jaxkd.tasks.metrics import nll_of_valid
from jaxkd.tasks.sequences import BEAM, TIMED, decode, fidelity
from jaxkd.types import Metric

__all__ = ['BEAM', 'TIMED', 'decode', 'fidelity', 'metrics', 'show']

GROUND_TRUTH = 'cross_entropy'
INPUTS = ('source', 'prefix')
LABELS = ('tokens',)
MASK = 'valid'
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
      ('greedy', '', False, sequences.greedy),
      ('beam', '_beam', True, sequences.beam),
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
    'mode_mass': sequences.mean_of('mode_mass'),
  }


def show(
  folder: Path,
  batch: dict,
  nets: Mapping[str, Callable[[Any], dict]],
  classes: Sequence[str],
) -> None:
  """Sources, targets and what nets write, greedily, as text."""
  source = batch['inputs']['source']
  sequences.show(
    folder / 'translations.txt', batch, nets, classes, source=source
  )


def _both(outputs, batch, teachers):
  greedy, *rest = sequences.greedy(outputs, batch, teachers)
  return greedy, outputs['beam'], *rest


def _gained(greedy, beam, labels, finite, *, pieces):
  """BLEU of beam search less that of greedy decoding."""
  if not finite.all():
    return np.nan, 1
  *written, targets = (
    sequences.texts(x, pieces) for x in (beam, greedy, labels)
  )
  more, less = (_bleu(x, targets) for x in written)
  return more - less, 1


def _of(i):
  return lambda total, count: total[..., i] / count


def _scored(tokens, labels, finite, *, pieces):
  """The three `SCORES`."""
  if not finite.all():
    return np.full(len(SCORES), np.nan), 1
  import sacrebleu

  written, targets = (sequences.texts(x, pieces) for x in (tokens, labels))
  chrf = sacrebleu.corpus_chrf(written, [targets]).score
  exact = np.mean([a == b for a, b in zip(written, targets, strict=True)])
  return np.array([exact, _bleu(written, targets), chrf / 100]), 1


def _bleu(written, targets):
  import sacrebleu

  # By force: it would complain of text whose punctuation is a token of its own.
  return sacrebleu.corpus_bleu(written, [targets], force=True).score / 100
