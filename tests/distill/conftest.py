"""Nets small enough to reason about, and contexts made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.types import Context, Net


def linear_net(width=3, noise=0.0):
  """Logits of a linear map; counts its training calls in its state."""

  def init(key):
    return {
      'params': {'w': jax.random.normal(key, (4, width)) / 2},
      'state': {'calls': jnp.zeros((), jnp.int32)},
    }

  def apply(variables, inputs, *, key=None, train=False):
    x = inputs.reshape(len(inputs), -1)
    if train and noise:
      x = x + noise * jax.random.normal(key, x.shape)
    logits = x @ variables['params']['w']
    calls = variables['state']['calls'] + int(train)
    return {'logits': logits, 'features': x}, {'calls': calls}

  return Net(init, apply)


@pytest.fixture
def make_net():
  return linear_net


@pytest.fixture
def batch():
  random = np.random.default_rng(0)
  return {
    'inputs': random.normal(size=(6, 4)).astype(np.float32),
    'labels': np.array([0, 1, 2, 0, 1, 2], np.int32),
    'id': np.arange(6, dtype=np.int32),
    'epoch': np.zeros(6, np.int32),
  }


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
