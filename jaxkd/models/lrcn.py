"""Long-term recurrent convolutional networks (Donahue et al., 2015).

A convolutional net sees each segment of a clip by itself, and an LSTM goes
through the segments in order. After each it tells the class, from what it has
seen so far; in both directions it has always seen the whole clip. These are
student and teacher of progressive teacher-student learning (Wang et al., 2019).

Donahue et al., `Long-term Recurrent Convolutional Networks for Visual
Recognition and Description <https://arxiv.org/abs/1411.4389>`_, 2015.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, pooling, seq2seq


class LSTM(nnx.Module):
  """One direction: [B, N, C] to [B, N, D]."""

  def __init__(
    self, width_in: int, width: int, *, backward: bool, **options: Any
  ):
    # As of PyTorch's LSTM.
    options['init'] = seq2seq.symmetric(1 / math.sqrt(width))
    self.inputs = seq2seq.linear(width_in, 4 * width, bias=True, **options)
    self.recurrent = seq2seq.Recurrent(
      *(width, 4 * width),
      bias=False,
      init=options['init'],
      rngs=options['rngs'],
    )
    self.backward = backward

  def __call__(self, x: Array) -> Array:
    gates = self.inputs(x).swapaxes(0, 1)
    recurrent = self.recurrent.step(gates.dtype)

    def step(state, now):
      state = seq2seq.lstm(now + recurrent(state[0]), state[1])
      return state, state[0]

    zeros = jnp.zeros((x.shape[0], gates.shape[-1] // 4), gates.dtype)
    _, found = jax.lax.scan(step, (zeros, zeros), gates, reverse=self.backward)
    return found.swapaxes(0, 1)


class Model(nnx.Module):
  """Convolutions on each segment, then an LSTM, and a class at each level.

  Outputs: ``levels``, the logits after each of the N segments, [B, N, K];
  ``features``, the outputs of the LSTM that they are made of, [B, N, width];
  ``logits`` and ``embedding``, these after the last segment. Without
  ``bidirectional``, those of a level do not depend on later segments.

  Taps: ``convs/*`` ([B · N, H, W, C], before ReLU), ``lstms/*``.

  Args:
    num_classes: the number of logits, K.
    input_shape: of a clip, (N, H, W, C); or (N, D), features of its segments,
      which no convolution sees.
    widths: channels of the convolutions of 3x3, each with ReLU and 2x2 max
      pooling.
    width: units of the LSTM, half of them for each direction if there are two.
    bidirectional: whether it goes through the segments in both directions.
    dropout: the probability that training drops an input of the LSTM or of the
      classifier.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: inputs that are no sequence, images that are too small, or an odd
      width of two directions.
  """

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    widths: Sequence[int] = (8, 16),
    width: int = 128,
    bidirectional: bool = False,
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    shape = layers.array_shape(input_shape)
    if len(shape) not in (2, 4):
      raise UserError(
        'lrcn takes sequences of images, (segments, height, width, channels), '
        f'or of features, (segments, features), not inputs of shape {shape}'
      )
    side = 2 ** len(widths)
    if len(shape) == 4 and min(shape[1:3]) < side:
      raise UserError(
        f'lrcn needs images of at least {side} by {side} pixels, not '
        f'{shape[1]} by {shape[2]}: take fewer widths or larger images'
      )
    if bidirectional and width % 2:
      raise UserError(f'lrcn: width={width} is odd, and has two directions')
    options = {'dtype': dtype, 'rngs': rngs}
    self.convs, size = nnx.List(), shape[-1]
    if len(shape) == 4:
      for before, after in itertools.pairwise((shape[-1], *widths)):
        self.convs.append(layers.conv(before, after, 3, bias=True, **options))
      last = (shape[-1], *widths)[-1]
      size = (shape[1] // side) * (shape[2] // side) * last
    backward = (False, True) if bidirectional else (False,)
    self.lstms = nnx.List(
      LSTM(size, width // len(backward), backward=b, **options)
      for b in backward
    )
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.head = layers.head(width, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    batch, count = x.shape[:2]
    x = x.reshape(batch * count, *x.shape[2:])
    for conv in self.convs:
      x = pooling.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
    x = self.dropout(x.reshape(batch, count, -1))
    features = jnp.concatenate([lstm(x) for lstm in self.lstms], axis=-1)
    levels = self.head(self.dropout(features))
    return {
      'logits': levels[:, -1],
      'levels': levels,
      'embedding': features[:, -1].astype(jnp.float32),
      'features': features.astype(jnp.float32),
    }
