"""Linear maps of the last axis, as products of matrices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxkd.models import layers

OPTIONS = {'precision': 'highest', 'preferred_element_type': jnp.float32}


@pytest.mark.parametrize('axes', [(), (3,), (3, 4), (2, 3, 4), (0, 4)])
def test_values_and_gradients_are_those_of_dot_general(axes):
  x = jax.random.normal(jax.random.key(0), (*axes, 5))
  kernel = jax.random.normal(jax.random.key(1), (5, 2))
  summed = (((len(axes),), (0,)), ((), ()))

  def loss(x, kernel, function):
    y = function(x, kernel, summed, **OPTIONS)
    return (y * jnp.cos(y)).sum(), y

  def found(function):
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, kernel, function)

  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(
      ours, theirs, rtol=1e-5, atol=1e-6, strict=True
    ),
    found(layers.rows_dot_general),
    found(lax.dot_general),
  )


def test_the_gradient_of_a_kernel_sums_over_one_axis():
  x, kernel = jnp.ones((3, 4, 6, 5)), jnp.ones((3, 5, 2))

  def loss(x, kernel):
    net = layers.linear(5, 2, use_bias=False, rngs=nnx.Rngs(0))
    net.kernel.set_value(kernel)
    return net(x).sum()

  text = jax.jit(jax.vmap(jax.grad(loss, (0, 1)))).lower(x, kernel).as_text()
  summed = re.findall(r'contracting_dims = \[([^]]*)\]', text)
  assert summed
  assert all(axes.isdigit() for axes in summed)
