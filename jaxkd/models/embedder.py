"""Embeddings from any model, for metric learning."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd import models

TINY = 1e-12  # added to squared lengths, so that 0 has a gradient


class Model(nnx.Module):
  """A model whose last layer gives an embedding in place of logits.

  Outputs: ``embedding``, [B, size], and ``features``, what its last layer
  sees, where the model gives that.

  Taps: ``base/*``, those of the model.

  Args:
    input_shape: shape of one input.
    of: the model, an NNX one.
    of_kw: its options.
    size: of the embedding.
    normalize: whether the embedding is brought to length 1.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.
  """

  def __init__(
    self,
    *,
    input_shape: Sequence[int],
    of: str = 'mlp',
    of_kw: Mapping[str, Any] = MappingProxyType({}),
    size: int = 128,
    normalize: bool = True,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    self.base = models.part(
      of,
      num_classes=size,
      input_shape=input_shape,
      dtype=dtype,
      rngs=rngs,
      at='embedder: of',
      **of_kw,
    )
    self.normalize = normalize

  def __call__(self, x: Array) -> dict[str, Array]:
    found = self.base(x)
    found = found if isinstance(found, Mapping) else {'logits': found}
    embedding = found['logits']
    if self.normalize:
      square = jnp.square(embedding).sum(-1, keepdims=True)
      embedding /= jnp.sqrt(square + TINY)
    features = {'features': found['embedding']} if 'embedding' in found else {}
    return {'embedding': embedding, **features}
