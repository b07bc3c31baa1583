"""Objects in images: their classes and boxes as arrays of one length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxkd.errors import UserError

MOST = 100  # objects in an image, where a source does not say

Objects = tuple[np.ndarray, np.ndarray]  # classes, int [n], and boxes, [n, 4]


def padded(
  found: Sequence[Objects], most: int, *, at: str, names: Sequence[Any]
) -> dict[str, np.ndarray]:
  """The objects of images as fields of a batch.

  Args:
    found: the objects of each of B images; none is right.
    most: the length M of the fields.
    at: what to call the examples in errors.
    names: of these examples, [B], for errors.

  Returns:
    ``labels``, int32 [B, M], ``boxes``, float32 [B, M, 4], and ``valid``, bool
    [B, M], false where the rest is filled up with zeros.

  Raises:
    UserError: an image with more than M objects.
  """
  made = {
    'labels': np.zeros((len(found), most), np.int32),
    'boxes': np.zeros((len(found), most, 4), np.float32),
    'valid': np.zeros((len(found), most), bool),
  }
  for i, (labels, boxes) in enumerate(found):
    count = len(labels)
    if count > most:
      raise UserError(
        f'{at}: {names[i]} has {count} objects, and {most} is the most; set '
        f'data.kw.most={count}'
      )
    made['labels'][i, :count] = labels
    made['boxes'][i, :count] = boxes
    made['valid'][i, :count] = True
  return made


def check_most(most: int, least: int = 1) -> None:
  """Refuses what is no number of objects."""
  if most < least:
    as_many = ', or 0 for as many as there are' if least == 0 else ''
    raise UserError(
      f'data.kw.most: {most} should be a number of objects, 1 or more{as_many}'
    )


def clipped(labels: np.ndarray, boxes: np.ndarray) -> Objects:
  """The objects cut off at the edges of the image, of which something is left.

  Args:
    labels: int [n].
    boxes: in shares, [n, 4].
  """
  boxes = np.clip(boxes, 0, 1)
  left = (boxes[:, :2] < boxes[:, 2:]).all(-1)
  return labels[left], boxes[left]
