"""What nets cost, by hand."""

import jax
import jax.numpy as jnp

from jaxkd import models
from jaxkd.models import cost


def test_products_are_those_of_each_kernel_with_its_inputs():
  options = dict(num_classes=5, input_shape=(32, 32, 1))
  net = models.build('resnet8', **options)
  layers = models.tap_shapes('resnet8', **options)
  found = cost.products(net, layers)
  assert found['stem/conv/kernel'] == 32 * 32 * 3 * 3 * 1 * 16
  assert found['stages/1/blocks/0/conv1/conv/kernel'] == 16 * 16 * 9 * 16 * 32
  assert found['stages/1/blocks/0/shortcut/conv/kernel'] == 16 * 16 * 16 * 32
  assert found['head/kernel'] == 64 * 5
  assert found['stem/norm/scale'] == found['head/bias'] == 0
  # The compiler counts additions too, and what else there is.
  flops = cost.cost(net, (32, 32, 1)).flops
  assert 0.8 * flops < 2 * sum(found.values()) < 1.1 * flops


def test_groups_and_tokens_count():
  options = dict(num_classes=5, input_shape=(8, 8, 3))
  net = models.build('mobilenetv2', **options)
  found = cost.products(net, models.tap_shapes('mobilenetv2', **options))
  flops = cost.cost(net, (8, 8, 3)).flops
  assert 0.7 * flops < 2 * sum(found.values()) < 1.2 * flops


def test_all_steps_of_a_loop_count():
  x = jnp.ones((8, 8))

  def times(n, function):
    return lambda x: jax.lax.scan(
      lambda x, _: (function(x), None), x, length=n
    )[0]

  once = cost.flops(times(1, lambda y: y @ x), x)
  assert 2 * 8**3 <= once < 2.2 * 8**3
  inner = jax.jit(times(5, lambda y: y @ x))
  twice = cost.flops(times(3, inner), x)
  assert abs(twice / once - 15) < 0.2
  # Backwards through a loop is a loop.
  slope = cost.flops(jax.grad(lambda x: times(3, inner)(x).sum()), x)
  assert 28 < slope / once < 31


def test_what_is_decoded_is_a_batch_of_the_longest(monkeypatch):
  """Seconds are told by a clock of our own: one for each look at it."""
  net = models.build('mlp', num_classes=2, input_shape=(3,), widths=(4,))
  seen = []

  def decode(apply, inputs, wanted, teachers):
    seen.append((inputs.shape, wanted, teachers))
    return {
      'twice': apply(jnp.flip(inputs))['logits'] + apply(inputs)['logits']
    }

  ticks = iter(range(100))
  monkeypatch.setattr(cost.time, 'perf_counter', lambda: next(ticks))
  assert cost.decoded(net, (3,), decode, 'twice') == cost.DECODED
  assert seen == [((cost.DECODED, 3), {'twice'}, {})]
