"""Segmentation: a class for each pixel that counts.

Logits are [B, H, W, K], labels [B, H, W], and ``valid`` of the batch says which
pixels count.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.losses import _numerics
from jaxkd.tasks import maps
from jaxkd.tasks.fidelity import of_positions
from jaxkd.tasks.metrics import (
  counted_valid,
  judged,
  mean,
  nll_of_valid,
  valid,
)
from jaxkd.types import Metric

GROUND_TRUTH = 'cross_entropy'
LABELS = ('rows', 'columns')
MASK = 'valid'
fidelity = of_positions


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Mean intersection over union, pixel accuracy and log-likelihood.

  All are over the pixels of a split that count, and nan where there are none.
  """
  return {
    'miou': Metric(_overlaps(len(classes)), _mean_of_those_there),
    'pixel_accuracy': Metric(_correct, mean),
    'nll': Metric(nll_of_valid, mean, higher_is_better=False),
  }


def show(
  folder: Path,
  batch: dict,
  nets: Mapping[str, Callable[[Any], dict]],
  classes: Sequence[str],
) -> None:
  """A picture of images, their labels, and the classes that nets see.

  There is none of what is no image of one or three channels.
  """
  images = np.asarray(batch['inputs'])
  if images.shape[-1] not in (1, 3):
    return
  maps.draw(
    folder / 'maps.png',
    images,
    np.asarray(batch['labels']),
    np.asarray(batch['valid']),
    {
      name: np.asarray(apply(batch['inputs'])['logits'].argmax(-1))
      for name, apply in nets.items()
    },
    classes,
  )


def _overlaps(num_classes):
  """Pixels of each class that are labelled and predicted so, and either."""

  def measure(outputs, batch, teachers):
    predicted, labels = outputs['logits'].argmax(-1), batch['labels']

    def pixels(chosen):
      return jax.nn.one_hot(chosen, num_classes).sum((0, 1, 2))

    # The number num_classes is no class, and counts for none.
    truth = jnp.where(valid(batch), labels, num_classes)
    found = jnp.where(valid(batch), predicted, num_classes)
    both = pixels(jnp.where(found == truth, truth, num_classes))
    judges = judged(valid(batch), outputs['logits'])
    known = _numerics.one_or_nan(~jnp.isnan(counted_valid(judges, batch)[0]))
    return both * known, (pixels(truth) + pixels(found) - both) * known

  return measure


def _mean_of_those_there(intersections, unions):
  """The mean over the classes that are labelled or predicted anywhere."""
  there = unions > 0
  shares = intersections / np.where(there, unions, 1)
  return mean(np.where(there, shares, 0).sum(-1), there.sum(-1))


def _correct(outputs, batch, teachers):
  logits = outputs['logits']
  right = logits.argmax(-1) == batch['labels']
  return counted_valid(judged(right, logits), batch)
