"""Early prediction: the class of a clip from its beginning.

Nets give logits after each of `LEVELS` segments of a clip, the output `levels`,
[B, LEVELS, K], of what they have seen so far; `logits` are the last of these.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from jaxkd.errors import UserError
from jaxkd.tasks import classification
from jaxkd.tasks.metrics import counted, judged
from jaxkd.types import Metric

GROUND_TRUTH = classification.GROUND_TRUTH
LEVELS = 10
_SHARES = [100 * n // LEVELS for n in range(1, LEVELS + 1)]  # per cent
# Top-1 against how much of a clip has been seen.
SERIES = {
  'top1': (
    'observed share of the clip (%)',
    {share: f'at_{share}' for share in _SHARES},
  )
}


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Those of classification; top-1 at each level; and the mean of these, AUC.

  `at_30` is top-1 of what has been seen after 30 % of a clip, and
  `auc` is the area under the curve of accuracy against the observed share (Wang
  et al., 2019), not that under a ROC curve.
  """
  found = classification.metrics(classes)
  for level, name in enumerate(SERIES['top1'][1].values()):
    measure = functools.partial(_top1, level=level)
    found[name] = Metric(measure, output='levels')
  return found | {'auc': Metric(_area, output='levels')}


def _right(outputs, batch):
  """Whether the first choice at each level is the label, [B, LEVELS]."""
  logits, labels = outputs['levels'], batch['labels']
  if logits.ndim != 3 or logits.shape[1] != LEVELS:
    raise UserError(
      f'task: early needs an output levels of {LEVELS} levels, [B, {LEVELS}, '
      f'K], and this one is {list(logits.shape)}; give clips of {LEVELS} '
      'segments'
    )
  own = jnp.take_along_axis(logits, labels[:, None, None], -1)
  # Ties count against the net, so that constant logits score nothing.
  return judged((logits >= own).sum(-1) == 1, logits)


def _top1(outputs, batch, teachers, *, level):
  return counted(_right(outputs, batch)[:, level], batch)


def _area(outputs, batch, teachers):
  return counted(_right(outputs, batch).mean(1), batch)
