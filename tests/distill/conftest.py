"""Contexts small enough to reason about."""

import jax
import jax.numpy as jnp
import pytest

from jaxkd.types import Context


@pytest.fixture
def context(batch):
  """Student logits [6, 3] and maps, and a group `main` of two teachers."""
  keys = jax.random.split(jax.random.key(1), 4)
  normal = jax.random.normal
  return Context(
    batch={**batch, 'inputs': {'student': batch['inputs']}},
    student={
      'logits': normal(keys[0], (6, 3)),
      'map': normal(keys[1], (6, 8, 8, 2)),
    },
    teachers={
      'main': {
        'logits': normal(keys[2], (2, 6, 3)),
        'map': normal(keys[3], (2, 6, 4, 4, 5)),
      }
    },
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(2),
  )
