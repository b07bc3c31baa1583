"""Transformers that transcribe speech, with attention and CTC.

The decoder attends to the encoder, and a linear layer on the encoder predicts
tokens frame by frame, for the auxiliary loss `jaxkd.losses.ctc` (Watanabe et
al., `Hybrid CTC/Attention Architecture for End-to-End Speech Recognition
<https://doi.org/10.1109/JSTSP.2017.2763455>`_, 2017). Frames are stacked, so
that the encoder is shorter than its input.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxkd.errors import UserError
from jaxkd.models import layers, transformer_seq2seq, translator
from jaxkd.models.vit import linear


class Model(transformer_seq2seq.Transformer):
  """A transformer that reads frames of speech, a number of them at once.

  See `jaxkd.models.translator` for how it is asked. Beside ``logits`` it gives
  ``ctc_logits`` [B, Ls, V], of which token 0, `PAD`, is the blank, and
  ``source_valid`` [B, Ls]: Ls is the number of stacks of frames.

  Taps: ``encoder/*`` and ``decoder/*/output`` ([B, L, D]),
  ``encoder/*/attention/probabilities`` ([B, heads, Ls, Ls]),
  ``decoder/*/cross/probabilities`` ([B, heads, Lt, Ls]).

  Args:
    num_classes: tokens that there are, V.
    input_shape: of a source and a prefix; see
      `jaxkd.models.translator.frames`.
    stack: frames that are one position of the encoder.
    width: features of a position.
    depth: blocks of the encoder.
    decoder_depth: blocks of the decoder; 0 for as many.
    heads: attention heads; divides the width.
    mlp_ratio: hidden units of a block's MLP over its width.
    dropout: the probability that training drops a unit.
    dtype: what to compute in.
    rngs: where initial values and dropout come from.

  Raises:
    UserError: inputs that are no frames, no frame in a stack, or heads that do
      not divide the width.
  """

  beside = ('ctc_logits',)

  def __init__(
    self,
    *,
    num_classes: int,
    input_shape: Any,
    stack: int = 6,
    width: int = 128,
    depth: int = 2,
    decoder_depth: int = 0,
    heads: int = 4,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    count, bins, length = translator.frames(input_shape)
    if not 1 <= stack <= count:
      raise UserError(
        f'stack={stack} should be from 1 to {count}, as many frames as there '
        'are'
      )
    self.stack = stack
    options = {'dtype': dtype, 'rngs': rngs}
    self.source = linear(stack * bins, width, **options)
    super().__init__(
      num_classes=num_classes,
      length=length,
      width=width,
      depth=depth,
      decoder_depth=decoder_depth or depth,
      heads=heads,
      mlp_ratio=mlp_ratio,
      dropout=dropout,
      **options,
    )
    self.ctc_head = layers.head(width, num_classes, rngs=rngs)

  def read(self, source: dict[str, Array]) -> tuple[Array, Array]:
    valid = source['valid'] > 0
    frames = jnp.where(valid[..., None], source['frames'], 0)
    size, count, bins = frames.shape
    more = -count % self.stack
    frames = jnp.pad(frames, ((0, 0), (0, more), (0, 0)))
    valid = jnp.pad(valid, ((0, 0), (0, more)))
    stacked = frames.reshape(size, -1, self.stack * bins)
    mask = valid.reshape(size, -1, self.stack).any(-1)
    return self.source(stacked), mask

  def start(self, source: dict[str, Array]) -> dict[str, Array]:
    x, mask = self.encoded(source)
    return {**self.remembered(x, mask), 'ctc_logits': self.ctc_head(x)}
