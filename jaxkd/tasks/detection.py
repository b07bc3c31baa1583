"""Detection: the class and the box of each object in an image.

Labels are [B, M], the classes of up to M objects; ``boxes`` of the batch has
their places, [B, M, 4], and ``valid``, bool [B, M], says which are there; an
image may have none. Nets give what `jaxkd.models.detector` does: ``logits`` [B,
N, K] and ``offsets`` [B, N, 4] of N anchors, and ``anchors`` [B, ..., 4].
"""

import contextlib
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxkd import boxes as boxes_lib
from jaxkd import compilation, lookup, losses
from jaxkd.losses import _checks, _numerics
from jaxkd.tasks import boxed
from jaxkd.tasks.metrics import counted
from jaxkd.teachers.many import log_mean_sigmoids
from jaxkd.types import Metric

GROUND_TRUTH = 'jaxkd.tasks.detection:focal_and_boxes'
OUTPUT = ('logits', 'offsets', 'anchors')
NET = 'detector'
LABELS = ('objects',)
FIELDS = ('valid', 'boxes')
LOGITS = 'sigmoids'
ensemble = log_mean_sigmoids

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
BETA = 1 / 9  # up to which difference the loss of offsets is a square
CANDIDATES = 300  # scores of an image that NMS looks at, of all classes
OVERLAP = 0.5  # above which NMS takes two boxes for the same object
MOST = 100  # detections of an image
SHOWN = 0.3  # the least score of a detection in a picture
_AT_ONCE = 32  # images whose detections are found at the same time


def focal_and_boxes(
  outputs: tuple[Array, Array, Array],
  labels: Array,
  boxes: Array,
  valid: Array,
  *,
  box_weight: float = 1.0,
) -> Array:
  """Focal loss of the classes, and smooth L1 of the offsets.

  Lin et al., `Focal Loss for Dense Object Detection
  <https://arxiv.org/abs/1708.02002>`_, 2017. Both are sums over the anchors of
  an image, divided by how many of them have an object, or by 1 where none has.

  Args:
    outputs: ``logits`` [B, N, K], ``offsets`` [B, N, 4] and ``anchors`` [B,
      ..., 4], N in all.
    labels: classes of the objects, int [B, M].
    boxes: [B, M, 4].
    valid: which objects are there, bool [B, M].
    box_weight: of the offsets, 0 or more.

  Returns:
    The loss of each image, [B].

  Raises:
    ValueError: a weight below 0, or one that is not finite.
  """
  _checks.numbers(box_weight=box_weight)
  _checks.non_negative(box_weight=box_weight)
  logits, offsets, anchors = _numerics.upcast(*outputs)
  anchors = anchors.reshape(len(anchors), -1, 4)

  def one(logits, offsets, anchors, labels, boxes, valid):
    which, found, background = boxes_lib.match(anchors, boxes, valid)
    truth = jax.nn.one_hot(labels[which], logits.shape[-1]) * found[:, None]
    focal = jnp.where((found | background)[:, None], _focal(logits, truth), 0)
    targets = boxes_lib.encode(boxes[which], anchors)
    gap = jnp.where(found[:, None], offsets - targets, 0)
    total = focal.sum() + box_weight * _smooth_l1(gap).sum()
    return total / jnp.maximum(found.sum(), 1)

  return jax.vmap(one)(logits, offsets, anchors, labels, boxes, valid)


def detections(outputs: Mapping[str, Array]) -> dict[str, Array]:
  """The objects that a net finds, the best first.

  The `CANDIDATES` best pairs of an anchor and a class, without those that
  repeat a better one of their class (`jaxkd.boxes.nms`).

  Args:
    outputs: of the net.

  Returns:
    ``boxes`` [B, D, 4], within the image; ``labels``, int32 [B, D]; and
    ``scores`` [B, D], from 0 to 1; 0 is no detection, and all are NaN in an
    image for which an output is. D is `MOST`, or less where there are fewer
    candidates.
  """
  logits, offsets, anchors = (outputs[name] for name in OUTPUT)
  anchors = anchors.reshape(len(anchors), -1, 4)
  kinds = logits.shape[-1]
  candidates = min(CANDIDATES, logits.shape[1] * kinds)

  def one(given):
    logits, offsets, anchors = given
    scores, best = jax.lax.top_k(jax.nn.sigmoid(logits).reshape(-1), candidates)
    which, labels = best // kinds, (best % kinds).astype(jnp.int32)
    found = boxes_lib.decode(offsets[which], anchors[which]).clip(0, 1)
    kept = boxes_lib.nms(found, scores, labels, overlap=OVERLAP)
    scores, order = jax.lax.top_k(
      jnp.where(kept, scores, 0), min(MOST, candidates)
    )
    # A sort may put NaN anywhere.
    known = ~(jnp.isnan(logits).any() | jnp.isnan(offsets).any())
    scores *= _numerics.one_or_nan(known)
    return {'boxes': found[order], 'labels': labels[order], 'scores': scores}

  return jax.lax.map(one, (logits, offsets, anchors), batch_size=_AT_ONCE)


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
  """Average precision as COCO has it, and the ground-truth loss.

  ``ap`` is the mean over classes and over overlaps of .5, .55, ..., .95, and
  ``ap50`` that at .5; both by pycocotools, with `MOST` detections an image.

  Args:
    classes: their names.

  Raises:
    UserError: the package pycocotools is not installed, or is damaged.
  """
  # Now, and not after training; the part that measures, as it is compiled.
  lookup.package('pycocotools.cocoeval', extra='detection', at='task')
  scored = functools.partial(_scored, num_classes=len(classes))
  return {
    **{
      name: Metric(_detected, _of(i), output='offsets', whole=scored)
      for i, name in enumerate(('ap', 'ap50'))
    },
    'loss': Metric(_loss, higher_is_better=False, output='offsets'),
  }


def fidelity(teacher: str) -> dict[str, Metric]:
  """The divergence from a group of teachers, mean over the anchors.

  Args:
    teacher: the group's name. Its members' probabilities are averaged.
  """
  kl = Metric(_kl(teacher), higher_is_better=False, teacher=teacher)
  return {'teacher_kl': kl}


def show(
  folder: Path,
  batch: dict,
  nets: Mapping[str, Callable[[Any], dict]],
  classes: Sequence[str],
) -> None:
  """A picture of images, their objects, and what nets find.

  Detections with a score of less than `SHOWN` are left out, which the picture
  says. There is none of what is no image of one or three channels.
  """
  images = np.asarray(batch['inputs'])
  if images.shape[-1] not in (1, 3):
    return
  truth = [
    (boxes[valid], labels[valid])
    for boxes, labels, valid in zip(
      *(np.asarray(batch[name]) for name in ('boxes', 'labels', 'valid')),
      strict=True,
    )
  ]
  find, found = compilation.once(detections), {}
  for name, apply in nets.items():
    outputs = apply(batch['inputs'])
    own = jax.device_get(find({name: outputs[name] for name in OUTPUT}))
    found[name] = [
      tuple(x[scores >= SHOWN] for x in (boxes, labels, scores))
      for boxes, labels, scores in zip(
        own['boxes'], own['labels'], own['scores'], strict=True
      )
    ]
  boxed.draw(
    folder / 'boxes.png',
    images,
    {'labels': truth, **found},
    classes,
    f'with the scores of what is found, from {SHOWN} on',
  )


def average_precision(
  found: Mapping[str, np.ndarray],
  labels: np.ndarray,
  boxes: np.ndarray,
  valid: np.ndarray,
  num_classes: int,
) -> np.ndarray:
  """AP and AP50 of detections, by pycocotools.

  Args:
    found: as from `detections`.
    labels: of the objects, int [B, M].
    boxes: [B, M, 4].
    valid: which objects are there, bool [B, M].
    num_classes: of which those without an object count for nothing.

  Returns:
    Both, from 0 to 1, [2]; nan where there is no object, or where a score or a
    box is not a number.
  """
  if not valid.any() or not all(np.isfinite(x).all() for x in found.values()):
    return np.full(2, np.nan)
  there = found['scores'] > 0
  if not there.any():
    return np.zeros(2)
  # What they print is not for the user.
  with contextlib.redirect_stdout(io.StringIO()):
    from pycocotools import coco, cocoeval

    truth = coco.COCO()
    sides = _sides(boxes)
    truth.dataset = {
      'images': [{'id': i} for i in range(len(labels))],
      'categories': [{'id': k} for k in range(num_classes)],
      # The number 0 would mean that nothing is matched.
      'annotations': [
        {
          'id': number + 1,
          'image_id': int(i),
          'category_id': int(labels[i, j]),
          'bbox': sides[i, j].tolist(),
          'area': float(sides[i, j, 2:].prod()),
          'iscrowd': 0,
        }
        for number, (i, j) in enumerate(np.argwhere(valid))
      ],
    }
    truth.createIndex()
    image = np.argwhere(there)[:, 0]
    rows = [image, *_sides(found['boxes'])[there].T]
    rows += [found['scores'][there], found['labels'][there]]
    judged = cocoeval.COCOeval(
      truth, truth.loadRes(np.stack(rows, 1).astype(np.float64)), 'bbox'
    )
    judged.params.maxDets = [MOST]
    judged.params.areaRng, judged.params.areaRngLbl = [[0, np.inf]], ['all']
    judged.evaluate()
    judged.accumulate()
  precision = judged.eval['precision']  # overlaps, recalls, classes, 1, 1
  each = precision, precision[:1]
  return np.array([x[x > -1].mean() for x in each])


def _focal(logits, truth):
  """Of each anchor and class, [N, K]."""
  cross = jax.nn.softplus(logits) - truth * logits
  p = jax.nn.sigmoid(logits)
  wrong = p + truth - 2 * p * truth  # 1 less the probability of the truth
  share = ALPHA * truth + (1 - ALPHA) * (1 - truth)
  return share * wrong**GAMMA * cross


def _smooth_l1(gap):
  size = jnp.abs(gap)
  return jnp.where(size < BETA, gap**2 / (2 * BETA), size - BETA / 2)


def _detected(outputs, batch, teachers):
  """The detections and the objects."""
  found = detections(outputs)
  truth = (batch[name] for name in ('labels', 'boxes', 'valid'))
  return found['boxes'], found['labels'], found['scores'], *truth


def _scored(boxes, labels, scores, *truth, num_classes):
  found = {'boxes': boxes, 'labels': labels, 'scores': scores}
  return average_precision(found, *truth, num_classes), 1


def _of(i):
  return lambda total, count: total[..., i] / count


def _loss(outputs, batch, teachers):
  given = tuple(outputs[name] for name in OUTPUT)
  fields = (batch[name] for name in ('labels', 'boxes', 'valid'))
  return counted(focal_and_boxes(given, *fields), batch)


def _kl(teacher):
  def measure(outputs, batch, teachers):
    target = log_mean_sigmoids(teachers[teacher]['logits'])
    loss = losses.binary_kl(outputs['logits'], target)
    return counted(loss.mean(-1), batch)

  return measure


def _sides(boxes):
  """Boxes as COCO has them: left, top, width and height."""
  top, left, bottom, right = np.moveaxis(boxes.astype(np.float64), -1, 0)
  return np.stack([left, top, right - left, bottom - top], -1)
