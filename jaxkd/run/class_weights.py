"""Weights of classes that a config asks to be balanced, as numbers.

`class_weights='balanced'` in the `kw` of a term makes all classes count for the
same in the sum of the training labels, `positive_weights='balanced'` the labels
of 1 and of 0 of each class. Both are counted in what the members of a job train
on, as it is sampled; where seeds see different examples, in all of these.
"""

from collections.abc import Mapping

import numpy as np

from jaxkd import options
from jaxkd.data.examples import Examples
from jaxkd.data.sources import Source
from jaxkd.distill.arguments import find_loss
from jaxkd.errors import UserError, several
from jaxkd.run.types import Job

BALANCED = 'balanced'
CLASSES, POSITIVES = 'class_weights', 'positive_weights'


def resolved(job: Job, source: Source) -> Job:
  """The job with numbers in place of what is to be balanced.

  Raises:
    UserError: weights that cannot be counted for such labels.
  """
  distill = dict(job.distill)
  for name, option in asked(job.distill):
    at = f'{job.at}distill.{name}'
    if not _takes(distill[name]['loss'], option, f'{at}.loss'):
      continue  # to be refused with all options that a loss does not take
    entry = f'{at}.kw.{option}'
    weights = _weights(option, job, source, entry)
    kw = {**distill[name]['kw'], option: weights}
    distill[name] = {**distill[name], 'kw': kw}
  return job._replace(distill=distill)


def asked(distill: Mapping[str, Mapping]) -> list[tuple[str, str]]:
  """The terms, with the options that are to be balanced."""
  return [
    (name, option)
    for name, term in distill.items()
    for option in (CLASSES, POSITIVES)
    if isinstance(term['kw'].get(option), str)
    and term['kw'][option] == BALANCED
  ]


def notes(
  distill: Mapping[str, Mapping], job: Job, source: Source, called: str
) -> list[str]:
  """What was found, for the row.

  Args:
    distill: the terms as the config has them.
    job: the job with numbers.
    source: the data.
    called: the arm or the group.
  """
  found = []
  for name, option in asked(distill):
    numbers = job.distill[name]['kw'][option]
    said = several(
      [f'{k}: {w:.4g}' for k, w in zip(source.classes, numbers, strict=True)]
    )
    words = option.replace('_', ' ')
    found.append(
      f'the {words} of the term {name} of {called} are balanced by its '
      f'training labels ({said})'
    )
  return found


def _takes(loss: str, option: str, at: str) -> bool:
  """Whether a loss, if one is named, has an option."""
  return not loss or option in options.parameters_of(find_loss(loss, at=at))


def _weights(
  option: str, job: Job, source: Source, entry: str
) -> tuple[float, ...]:
  examples = source.splits['train'] if job.examples is None else job.examples
  several_each = (
    len(examples.index.each) == 1
    and source.num_classes == (examples.index.each[0])
  )
  if option == POSITIVES:
    if not several_each or examples.labels is None:
      raise UserError(
        f'{entry}: positives can be counted of labels in memory of 0 and 1 for '
        'each class; give the weights as numbers'
      )
    return _of_positives(examples, _shares(job))
  if several_each:
    raise UserError(
      f'{entry}: an example has a label of each class; set '
      f"{POSITIVES}='{BALANCED}', or give the weights as numbers"
    )
  return _of_classes(examples, _shares(job), source.num_classes, entry)


def _shares(job: Job) -> np.ndarray:
  """How often each example is drawn, on average over the members, [N]."""
  weights = job.weights.astype(np.float64)
  return (weights / weights.sum(1, keepdims=True)).mean(0)


def _of_classes(
  examples: Examples, shares: np.ndarray, classes: int, entry: str
) -> tuple[float, ...]:
  """Weights whose mean over the labels is 1, and equal for all classes."""
  index = examples.index
  if index.each:  # of tokens or pixels: those of the whole split
    if not index.values.size:
      raise UserError(f'{entry}: the labels are not classes; remove the entry')
    counts = np.zeros(classes)
    counts[index.values] = index.counts
  else:
    counts = np.bincount(index.classes, weights=shares, minlength=classes)
  there = counts > 0
  counts = counts / counts.sum()
  weights = np.where(there, 1 / (there.sum() * np.where(there, counts, 1)), 1)
  return tuple(weights.tolist())


def _of_positives(examples: Examples, shares: np.ndarray) -> tuple[float, ...]:
  """The known labels of 0 over those of 1, by class; 1 where one has none."""
  batch = examples.fetch(np.arange(len(examples)))
  known = batch.get('valid', np.ones(batch['labels'].shape, bool))
  yes = shares @ (known & (batch['labels'] == 1))
  no = shares @ (known & (batch['labels'] == 0))
  there = (yes > 0) & (no > 0)
  return tuple(np.where(there, no / np.where(there, yes, 1), 1).tolist())
