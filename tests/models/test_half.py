import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxkd import models
from jaxkd.errors import UserError
from jaxkd.models import half

X = np.linspace(0.0, 1.0, 8, dtype=np.float32).reshape(2, 4)


class OfLinen(linen.Module):
  num_classes: int
  dtype: str = 'float32'

  @linen.compact
  def __call__(self, x):
    return linen.Dense(self.num_classes, dtype=self.dtype)(x)


@pytest.mark.parametrize('name', ['mlp', f'{__name__}:OfLinen'])
def test_a_net_in_float16_predicts_and_does_not_train(name):
  build = lambda dtype: models.build(  # noqa: E731
    name, num_classes=3, input_shape=(4,), dtype=dtype, at='here.model'
  )
  net, full = build('float16'), build('float32')
  variables = net.init(jax.random.key(0))
  got = net.apply(variables, X)[0]['logits']
  want = full.apply(variables, X)[0]['logits']
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, atol=1e-2)
  assert np.any(got != want)
  said = r'^here\.model: in float16 gradients .* 65,504 .* in bfloat16$'
  with pytest.raises(UserError, match=said):
    net.apply(variables, X, train=True)
  build('bfloat16').apply(variables, X, train=True)


def test_what_computes_in_float16_is_found():
  """Inside of loops and of what is compiled or computed again, too."""

  def inner(x):
    return x.astype(jnp.float16).sum().astype(jnp.float32)

  layer = nnx.remat(inner)
  loop = lambda x: jax.lax.scan(lambda c, x: (c + inner(x), None), 0.0, x)  # noqa: E731
  for function in (inner, layer, jax.jit(inner), jax.grad(layer), loop):
    assert half.computes_in_float16(function, X)
  assert half.computes_in_float16(lambda x: x.sum(), jnp.zeros(2, jnp.float16))
  for dtype in (jnp.float32, jnp.bfloat16):
    cast = lambda x, dtype=dtype: x.astype(dtype).sum()  # noqa: E731
    assert not half.computes_in_float16(cast, X)
