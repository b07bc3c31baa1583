"""The memory of a program, from its equations alone."""

import jax
import jax.numpy as jnp
import pytest

from jaxkd import models
from jaxkd.models import footprint

X = jax.ShapeDtypeStruct((256,), jnp.float32)
BYTES = 1024  # of X


@pytest.mark.parametrize(
  ('function', 'held'),
  [
    (lambda x: x + 1, 0),  # in the place of x
    (lambda x: (x + 1, x * 2), 1),
    (lambda x: jnp.sin(jnp.sin(jnp.sin(x))), 1),
    (lambda x: jnp.sin(x) * jnp.sin(x * 2) * x, 2),
    (lambda x: jnp.sum(jnp.ones((9, 256)) * x[None]), 9),
    (lambda x: jnp.sum(jnp.broadcast_to(x[None], (9, 256)) ** 2, 0), 9),
    (jax.jit(lambda x: jax.jit(jnp.sin)(jnp.cos(x)) + x), 2),
    (lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c) * c, c), x, None, 5), 7),
    (lambda x: jax.grad(lambda x: jnp.sin(jnp.sin(x)).sum())(x), 2),
  ],
)
def test_holds_values_from_where_they_are_made_to_where_they_are_taken(
  function, held
):
  found = footprint.peak(function, X)
  assert held * BYTES <= found <= (held + 1.5) * BYTES


def step(net, batch):
  def loss(params, inputs):
    logits = net.apply(
      {'params': params, 'state': {}}, inputs, key=jax.random.key(0), train=True
    )[0]['logits']
    return jax.nn.log_softmax(logits)[..., 0].mean()

  variables = jax.eval_shape(net.init, jax.random.key(0))
  inputs = jax.ShapeDtypeStruct((batch, 32), jnp.int32)
  return jax.grad(loss), variables['params'], inputs


def test_is_near_what_xla_allocates_and_sees_what_remat_saves():
  def net(remat):
    return models.build(
      'decoder',
      num_classes=64,
      input_shape=jax.ShapeDtypeStruct((32,), jnp.int32),
      width=32,
      depth=3,
      remat=remat,
    )

  program = step(net(''), 8)
  compiled = jax.jit(program[0]).lower(*program[1:]).compile()
  planned = compiled.memory_analysis()
  found = footprint.peak(*program)
  wanted = planned.temp_size_in_bytes + planned.output_size_in_bytes
  assert found == pytest.approx(wanted, rel=0.4)
  assert footprint.peak(*step(net('blocks/*'), 8)) < 0.6 * found
  assert footprint.peak(*step(net(''), 16)) > 1.7 * found
