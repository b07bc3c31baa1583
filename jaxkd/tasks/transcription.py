"""Transcription: from speech to words.

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
RATES = ('wer', 'cer')


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """What a net makes of the transcript, and what it writes itself.

  `nll` is that of a token, in nats, after the true ones before it. Of what it
  writes greedily, `wer` and `cer` are the word and the character error rate of
  a whole split: substitutions, deletions and insertions over the number of
  words or characters that are said, by jiwer, so that more than 1 is possible;
  those with `_beam` are of the best of `BEAM` hypotheses.

  Args:
    classes: what each token stands for; '▁' is a space.

  Raises:
    UserError: the package jiwer is not installed.
  """
  # Now, and not after training.
  lookup.package('jiwer', extra='speech', at='task')
  rates = functools.partial(_rates, pieces=tuple(classes))
  written = {
    f'{rate}{suffix}': Metric(
      measure,
      _of(i),
      higher_is_better=False,
      output=output,
      whole=rates,
      finished=finished,
    )
    for output, suffix, finished, measure in (
      ('greedy', '', False, sequences.greedy),
      ('beam', '_beam', True, sequences.beam),
    )
    for i, rate in enumerate(RATES)
  }
  return {**written, 'nll': Metric(nll_of_valid, higher_is_better=False)}


def show(
  folder: Path,
  batch: dict,
  nets: Mapping[str, Callable[[Any], dict]],
  classes: Sequence[str],
) -> None:
  """Transcripts and what nets write, greedily, as text."""
  sequences.show(folder / 'transcripts.txt', batch, nets, classes)


def _of(i):
  return lambda total, count: total[..., i] / count[..., i]


def _rates(tokens, labels, finite, *, pieces):
  """Errors and how many there can be, of words and of characters."""
  if not finite.all():
    return np.full(len(RATES), np.nan), np.ones(len(RATES))
  import jiwer

  written, said = (sequences.texts(x, pieces) for x in (tokens, labels))
  found = [
    jiwer.process_words(said, written),
    jiwer.process_characters(said, written),
  ]
  errors = [x.substitutions + x.deletions + x.insertions for x in found]
  counts = [x.substitutions + x.deletions + x.hits for x in found]
  return np.array(errors, float), np.array(counts, float)
