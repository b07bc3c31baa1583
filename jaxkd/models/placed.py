"""Nets of tokens of their own, whose outputs are looked up at other places.

A teacher with another tokenizer than the student's reads the text in its own
tokens [B, M]. What it gives is compared with what a student gives of its
tokens [B, L], so its outputs are those at the positions `PLACE` [B, L] that
come with its inputs; see `jaxkd.data.text.alignment`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.data.text.alignment import PLACE
from jaxkd.types import Net


def is_placed(inputs: Any) -> bool:
  """Whether inputs, or their shapes, say where outputs are looked up."""
  return isinstance(inputs, Mapping) and PLACE in inputs


def tokens_of(inputs: Mapping[str, Any]) -> Any:
  """What the net itself sees of the inputs, or of their shapes."""
  return inputs['tokens']


def looked_up(net: Net) -> Net:
  """The net, whose outputs [B, M, ...] by token become [B, L, ...].

  Args:
    net: of tokens [B, M].

  Returns:
    A net of ``{'tokens': [B, M], 'place': [B, L]}``.
  """

  def apply(variables, inputs, *, key=None, train=False):
    tokens, place = tokens_of(inputs), inputs[PLACE]
    outputs, state = net.apply(variables, tokens, key=key, train=train)

    def at_places(x):
      if x.ndim < 3 or x.shape[:2] != tokens.shape:
        return x
      index = place.reshape(*place.shape, *(1,) * (x.ndim - 2))
      return jnp.take_along_axis(x, index, axis=1)

    return jax.tree.map(at_places, outputs), state

  return net._replace(apply=apply)
