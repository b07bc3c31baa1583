"""Weights of a teacher's hypotheses by the errors in them.

Kim et al., `Knowledge Distillation Using Output Errors for Self-attention
End-to-end Models <https://ieeexplore.ieee.org/document/8682775>`_, 2019.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxkd import losses
from jaxkd.data.text.tokenizer import text
from jaxkd.errors import UserError, unknown
from jaxkd.lookup import package

AT = 'data.generated.kw'
UNITS = 'word', 'character'


def weights(
  labels: np.ndarray,
  classes: Sequence[str],
  *,
  gamma: float = 0.0,
  unit: Literal['word', 'character'] = 'word',
  error_free: bool = False,
  shuffle: bool = False,
  normalize: bool = True,
) -> np.ndarray:
  """How much transcripts and a teacher's hypotheses of them count.

  A transcript counts 1, and a hypothesis with the error rate e exp(-γ min(e,
  1)), as `jaxkd.losses.error_weights` says.

  Args:
    labels: tokens, int [N, 2K, L]: K times the transcript, then K hypotheses.
    classes: what each token stands for.
    gamma: γ; 0 weighs all alike.
    unit: of errors: 'word' or 'character'.
    error_free: whether hypotheses with any error have no weight.
    shuffle: whether the weights of hypotheses are shuffled among all of them: a
      control, by which no weight says anything of its own hypothesis.
    normalize: whether the weights of hypotheses are divided by their mean, so
      that all ways to weigh have the same total.

  Returns:
    float32 [N, 2K].

  Raises:
    UserError: a γ below 0 or infinite, another unit, or no hypothesis with a
      weight above 0.
  """
  if not isinstance(gamma, int | float) or not 0 <= gamma < np.inf:
    raise UserError(f'{AT}.gamma: {gamma!r} should be 0 or more, and finite')
  count = labels.shape[1] // 2
  errors = error_rates(labels[:, 0], labels[:, count:], classes, unit)
  found = np.array(losses.error_weights(errors, gamma=gamma))
  if error_free:
    found = np.where(errors == 0, found, 0)
  if not found.any():
    entry = 'error_free' if error_free else 'gamma'
    raise UserError(
      f'{AT}.{entry}: the teacher has errors in each of its {errors.size:,} '
      'hypotheses, so that none has a weight above 0; train it longer, or '
      'weigh hypotheses with errors too, by a lower gamma'
    )
  if shuffle:
    order = np.random.default_rng(0).permutation(found.size)
    found = found.reshape(-1)[order].reshape(found.shape)
  if normalize:
    found = found / found.mean()
  return np.concatenate([np.ones_like(found), found], axis=1)


def error_rates(
  said: np.ndarray,
  written: np.ndarray,
  classes: Sequence[str],
  unit: Literal['word', 'character'] = 'word',
) -> np.ndarray:
  """Edit distances of hypotheses, over the length of what is said.

  Args:
    said: tokens, int [N, L].
    written: of K hypotheses of each, int [N, K, L].
    classes: what each token stands for.
    unit: what is counted: 'word' or 'character'.

  Returns:
    float32 [N, K]; more than 1 is possible.

  Raises:
    UserError: another unit, or the package rapidfuzz is not installed.
  """
  if unit not in UNITS:
    raise unknown('unit', unit, UNITS, f'{AT}.unit')
  package('rapidfuzz', extra='speech', at='data.generated.name')
  from rapidfuzz.distance import Levenshtein

  def units(tokens):
    line = text(tokens, classes)
    return line.split() if unit == 'word' else line

  found = np.zeros(written.shape[:2], np.float32)
  for row, own, hypotheses in zip(
    found, said.tolist(), written.tolist(), strict=True
  ):
    wanted = units(own)
    for k, hypothesis in enumerate(hypotheses):
      distance = Levenshtein.distance(wanted, units(hypothesis))
      row[k] = distance / max(len(wanted), 1)
  return found
