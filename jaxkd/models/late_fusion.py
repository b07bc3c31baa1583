"""A net for each part of an example, whose predictions are averaged.

The students of work [5] of the survey (Wu et al., 2019): a net of key frames,
one of motion vectors and one of residuals, as in `Compressed Video Action
Recognition <https://arxiv.org/abs/1712.00636>`_ (Wu et al., 2018), which has
weights of 2 : 1 : 1 and normalises what is signed by a BatchNorm on the inputs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd import models, shapes
from jaxkd.errors import UserError, unknown
from jaxkd.models import layers


class Model(nnx.Module):
  """Nets that see one part of the inputs each.

  Outputs: ``logits``, the logarithm of the weighted mean of the nets'
  probabilities, [B, K]; and the logits of each net, under the name of its part.

  Taps: ``nets/PART/*``, those of each net.

  Args:
    num_classes: the number of logits, K.
    input_shape: shapes of the parts of an example, a dict.
    nets: part -> ``dict(model=..., kw=...)``, an NNX model.
    weights: part -> how much its net counts, above 0; 1 for those that are not
      named.
    normalize: parts that a BatchNorm sees first.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: parts that the examples do not have, or weights of 0 or less.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Any,
    nets: Mapping[str, Any],
    weights: Mapping[str, float] | None = None,
    normalize: Sequence[str] = (),
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    weights = dict(weights or {})
    if shapes.is_shape(input_shape) or not isinstance(input_shape, Mapping):
      raise UserError(
        'late_fusion takes examples of several parts, a dict, not inputs of '
        f'{shapes.said(input_shape)}: choose a model of one array, or no view'
      )
    for option, names in (
      ('nets', nets),
      ('weights', weights),
      ('normalize', normalize),
    ):
      known = nets if option != 'nets' else input_shape
      for name in names:
        if name not in known:
          raise unknown('part', name, known, f'late_fusion: {option}')
    if not nets or 'logits' in nets:
      raise UserError('late_fusion: nets should name parts, and none `logits`')
    for name, entry in nets.items():
      keys = {*entry} if isinstance(entry, Mapping) else set()
      if 'model' not in keys or keys - {'model', 'kw'}:
        raise UserError(
          f'late_fusion: nets.{name} is {entry!r} and should be a dict of '
          'model and perhaps kw'
        )
    weights = {name: weights.get(name, 1.0) for name in nets}
    for name, weight in weights.items():
      if not 0 < weight < math.inf:
        raise UserError(
          f'late_fusion: the weight of {name} is {weight} and should be above 0'
        )
    total = sum(weights.values())
    self.shares = {name: w / total for name, w in weights.items()}
    options = {'dtype': dtype, 'rngs': rngs}
    self.norms = nnx.Dict(
      {
        name: layers.norm(input_shape[name][-1], **options)
        for name in normalize
      }
    )
    self.nets = nnx.Dict(
      {
        name: models.part(
          entry['model'],
          num_classes=num_classes,
          input_shape=input_shape[name],
          at=f'late_fusion: nets.{name}.model',
          **options,
          **entry.get('kw', {}),
        )
        for name, entry in nets.items()
      }
    )

  def __call__(self, x: Mapping[str, Array]) -> dict[str, Array]:
    found, logs = {}, []
    for name, net in self.nets.items():
      part = self.norms[name](x[name]) if name in self.norms else x[name]
      outputs = net(part)
      logits = outputs['logits'] if isinstance(outputs, Mapping) else outputs
      found[name] = logits
      logs.append(jax.nn.log_softmax(logits) + math.log(self.shares[name]))
    return {'logits': jax.nn.logsumexp(jnp.stack(logs), axis=0), **found}
