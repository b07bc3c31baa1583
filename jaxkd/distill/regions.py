"""Regions: masks of the positions of a map where the objects are.

A term names one as its mask, with options: ``mask='near_anchors(0.5)'``; or
``'package.module:function'``. The arguments of a region that have no default
are fields of the batch or outputs of the student by name, [B, ...]; the others
are its options. It returns bool [B, ...], true at the positions to compare.

Other masks say what is padding, which nothing may look at. What lies beside a
region is as good as what lies in it, so that the adapters of a term still see
the whole map.
"""

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxkd import boxes as boxes_lib
from jaxkd import calls, lookup
from jaxkd.errors import UserError, unknown, within

__all__ = ['in_boxes', 'near_anchors']


def near_anchors(
  anchors: Array, boxes: Array, valid: Array, psi: float = 0.5
) -> Array:
  """Positions with an anchor whose overlap with an object is near the largest.

  Wang et al., `Distilling Object Detectors with Fine-grained Feature Imitation
  <https://arxiv.org/abs/1906.03609>`_, 2019: of each object, those with an
  overlap of more than ψ times the largest that it has with any anchor. As in
  the authors' code, ψ = 0 gives all positions with an anchor that reaches the
  object, where the paper says all, and ψ = 1 gives none.

  Args:
    anchors: of the A anchors of each position, [B, h, w, A, 4].
    boxes: of the objects, [B, M, 4].
    valid: which objects are there, bool [B, M].
    psi: ψ, from 0 to 1.

  Returns:
    bool [B, h, w]; none for an image without objects.

  Raises:
    UserError: ψ is not from 0 to 1.
  """
  if not 0 <= psi <= 1:
    raise UserError(f'psi={psi} should be from 0 to 1')
  every = anchors.reshape(len(anchors), -1, 4)
  overlap = jnp.where(valid[:, None], boxes_lib.iou(every, boxes), 0)
  largest = overlap.max(1, keepdims=True)
  near = (overlap > psi * largest).any(-1)
  return near.reshape(anchors.shape[:-1]).any(-1)


def in_boxes(anchors: Array, boxes: Array, valid: Array) -> Array:
  """Positions whose centre lies in the box of an object.

  Args:
    anchors: around the centres of the positions, [B, h, w, A, 4].
    boxes: of the objects, [B, M, 4].
    valid: which objects are there, bool [B, M].

  Returns:
    bool [B, h, w].
  """
  first = anchors[..., 0, :]
  centre = ((first[..., :2] + first[..., 2:]) / 2)[:, :, :, None]
  boxes = boxes[:, None, None]
  inside = (boxes[..., :2] <= centre) & (centre < boxes[..., 2:])
  return (inside.all(-1) & valid[:, None, None]).any(-1)


def named(mask: Any) -> bool:
  """Whether a mask is a region, by its name."""
  return isinstance(mask, str) and (
    any(sign in mask for sign in '(:') or mask in __all__
  )


def find(
  mask: str, batch: Mapping[str, Any], outputs: Mapping[str, Array], at: str
) -> Array:
  """The mask of a region, bool [B, ...].

  Args:
    mask: its name and options.
    batch: the fields of the batch.
    outputs: of the student.
    at: the config entry, for errors.

  Raises:
    UserError: no such region, options that it does not take, or a field or an
      output that is not there.
  """
  like = 'near_anchors(0.5)'
  (name, args, options), *others = calls.split(
    mask, kind='mask', like=like, at=at
  )
  if others:
    raise UserError(f'{at}: {mask!r} names several masks; name one')
  region = lookup.find(name, [sys.modules[__name__]], kind='region', at=at)
  parameters = inspect.signature(region).parameters.values()
  needs = [p.name for p in parameters if p.default is p.empty]
  given = calls.bind(
    *(region, name, args, options), kind='region', at=at, skip=len(needs)
  )
  if region is near_anchors and given['psi'] == 1:
    raise UserError(
      f'{at}: {mask!r} is of no position, as no overlap is above the largest; '
      'psi must be below 1'
    )
  known = {**outputs, **batch}
  for need in needs:
    if not hasattr(known.get(need), 'shape'):
      there = {k for k, x in known.items() if hasattr(x, 'shape')}
      raise unknown(f'field or output for {name}', need, there, at)
  with within(f'{at}: {name}: '):
    found = region(*(known[need] for need in needs), **given)
  if found.dtype != bool or found.ndim < 2:
    raise UserError(
      f'{at}: {name} gives {found.dtype}{list(found.shape)}, and should give '
      'bool [B, ...]'
    )
  return jax.lax.stop_gradient(found)
