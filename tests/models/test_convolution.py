"""Convolutions of our own against those of XLA."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxkd import models
from jaxkd.models import convolution

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
MEMBERS = convolution.WRITTEN_OUT + 1

# Height, channels in and out, kernel, stride, padding, groups.
CASES = {
  'plain': (7, 4, 6, 3, 1, 1, 1),
  'stride': (7, 4, 6, 3, 2, 1, 1),
  'even': (8, 4, 6, 3, 2, 1, 1),
  'rest': (9, 3, 4, 2, 2, 0, 1),
  'wide': (9, 3, 4, 5, 3, 2, 1),
  'pixel': (7, 4, 6, 1, 1, 0, 1),
  'pixel, stride': (8, 4, 6, 1, 2, 0, 1),
  'pixel, padded': (6, 4, 6, 1, 1, 1, 1),
  'groups': (8, 4, 6, 3, 2, 1, 2),
  'pixel, groups': (6, 6, 9, 1, 1, 0, 3),
  'depthwise': (7, 6, 6, 3, 1, 1, 6),
  'depthwise, stride': (8, 6, 6, 3, 2, 1, 6),
  'depthwise, two each': (7, 3, 6, 3, 1, 1, 3),
  'depthwise, large': (9, 3, 3, 8, 1, 4, 3),
  'many groups': (6, 20, 10, 3, 1, 1, 10),
}


def _both(case):
  """Our convolution, XLA's, an image and a kernel."""
  height, width_in, width_out, kernel, stride, padding, groups = case
  random = np.random.default_rng(0)
  x = random.normal(size=(2, height, height + 1, width_in))
  k = random.normal(size=(kernel, kernel, width_in // groups, width_out))

  def of(function):
    return lambda x, k: function(
      x,
      k,
      (stride, stride),
      ((padding, padding), (padding, padding)),
      dimension_numbers=LAYOUT,
      feature_group_count=groups,
    )

  ours, xlas = map(
    of, (convolution.conv_general_dilated, lax.conv_general_dilated)
  )
  return ours, xlas, jnp.float32(x), jnp.float32(k)


def _loss(function):
  return lambda x, k: jnp.sin(function(x, k)).sum()


def _near(ours, xlas):
  for one, other in zip(
    jax.tree.leaves(ours), jax.tree.leaves(xlas), strict=True
  ):
    assert one.shape == other.shape
    np.testing.assert_allclose(
      one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max()
    )


@pytest.fixture(params=CASES)
def case(request):
  return _both(CASES[request.param])


def _all_of(function, x, k):
  """Value, gradient, second derivative forwards and backwards, in a loop."""
  loss = _loss(function)
  gradient = jax.grad(loss, (0, 1))
  squares = lambda x, k: sum((g**2).sum() for g in gradient(x, k))  # noqa: E731
  looped = lax.map(lambda pair: gradient(*pair), (x[None], k[None]))
  return (
    function(x, k),
    gradient(x, k),
    jax.grad(squares, (0, 1))(x, k),
    jax.jvp(gradient, (x, k), (x[::-1], k[::-1])),
    looped,
  )


def test_values_and_derivatives_of_all_orders_are_those_of_xla(case):
  ours, xlas, x, k = case
  run = jax.jit(_all_of, static_argnums=0)
  _near(run(ours, x, k), run(xlas, x, k))


@pytest.mark.parametrize('name', ['stride', 'pixel', 'groups', 'depthwise'])
def test_members_are_those_of_xla(name):
  ours, xlas, x, k = _both(CASES[name])
  xs, ks = jnp.stack([x, x + 1]), jnp.stack([k, 2 * k])
  many = jnp.stack([x] * MEMBERS), jnp.stack([k] * MEMBERS)

  @functools.partial(jax.jit, static_argnums=0)
  def run(function):
    gradient = jax.value_and_grad(_loss(function), (0, 1))
    return (
      jax.vmap(gradient)(xs, ks),
      jax.vmap(gradient, (None, 0))(x, ks),
      jax.vmap(gradient, (0, None))(xs, k),
      jax.vmap(jax.vmap(gradient, (0, None)), (None, 0))(xs, ks),
      jax.vmap(gradient, (2, 1))(
        jnp.moveaxis(xs, 0, 2), jnp.moveaxis(ks, 0, 1)
      ),
      jax.vmap(gradient)(*many),
    )

  _near(run(ours), run(xlas))


@pytest.mark.parametrize('members', [False, True])
def test_accelerators_run_the_program_that_they_always_did(members):
  ours, xlas, x, k = _both(CASES['depthwise'])

  def text(function):
    run = jax.value_and_grad(_loss(function), (0, 1))
    if members:
      run = jax.vmap(run)
    shapes = [
      jax.ShapeDtypeStruct((3,) * members + y.shape, y.dtype) for y in (x, k)
    ]
    lowered = jax.jit(run).trace(*shapes).lower(lowering_platforms=('tpu',))
    return sorted(
      line.split('=', 1)[1]
      for line in lowered.as_text().splitlines()
      if 'stablehlo.convolution' in line
    )

  windows = [line[line.index('dim_numbers') :] for line in text(ours)]
  assert windows == [line[line.index('dim_numbers') :] for line in text(xlas)]
  assert len(windows) == 3


def test_a_population_has_no_convolution_of_groups_on_a_cpu():
  ours, _, x, k = _both(CASES['plain'])
  run = jax.vmap(jax.grad(_loss(ours), (0, 1)))
  text = jax.jit(run).lower(jnp.stack([x, x]), jnp.stack([k, k])).as_text()
  assert 'stablehlo.convolution' in text
  assert 'feature_group_count = 2' not in text
  assert 'batch_group_count = 2' not in text


@pytest.mark.parametrize(
  'changed',
  [
    dict(lhs_dilation=(2, 2), padding=((1, 1), (1, 1))),
    dict(rhs_dilation=(2, 2)),
    dict(dimension_numbers=('NHWC', 'HWIO', 'NCHW')),
  ],
)
def test_what_is_not_ours_is_left_to_xla(changed):
  _, _, x, k = _both(CASES['plain'])
  arguments = dict(
    window_strides=(1, 1), padding='SAME', dimension_numbers=LAYOUT
  )
  arguments |= changed
  ours = convolution.conv_general_dilated(x, k, **arguments)
  xlas = lax.conv_general_dilated(x, k, **arguments)
  np.testing.assert_array_equal(ours, xlas)
  assert ours.dtype == xlas.dtype


def test_negative_padding_cuts_the_image():
  _, _, x, k = _both(CASES['plain'])

  def conv(x, padding):
    return convolution.conv_general_dilated(
      x, k, (1, 1), padding, dimension_numbers=LAYOUT
    )

  cut = conv(x, ((-1, 1), (2, -2)))
  np.testing.assert_array_equal(cut, conv(x[:, 1:, :-2], ((0, 1), (2, 0))))
  gradient = jax.grad(lambda x: conv(x, ((-1, 1), (2, -2))).sum())(x)
  assert not gradient[:, 0].any() and not gradient[:, :, -2:].any()


def test_a_kernel_larger_than_the_image_gives_nothing():
  _, _, _, k = _both(CASES['depthwise, stride'])
  x = jnp.ones((2, 1, 1, 6))
  out = convolution.conv_general_dilated(
    x, k, (1, 1), 'VALID', dimension_numbers=LAYOUT, feature_group_count=6
  )
  assert out.shape == (2, 0, 0, 6)


def test_it_is_exported_for_several_platforms():
  ours, xlas, x, k = _both(CASES['depthwise, stride'])
  shapes = [jax.ShapeDtypeStruct(y.shape, y.dtype) for y in (x, k)]
  platforms = ('cpu', 'cuda', 'tpu')
  kept = jax.export.export(jax.jit(ours), platforms=platforms)(*shapes)
  assert kept.platforms == platforms
  _near(kept.call(x, k), xlas(x, k))


def test_other_types_are_left_to_xla():
  ours, xlas, x, k = _both(CASES['depthwise'])
  x, k = x.astype(jnp.bfloat16), k.astype(jnp.bfloat16)
  np.testing.assert_array_equal(ours(x, k), xlas(x, k))


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_padding_may_have_a_name(padding):
  _, _, x, k = _both(CASES['plain'])
  arguments = (x, k, (2, 2), padding)
  _near(
    convolution.conv_general_dilated(*arguments, dimension_numbers=LAYOUT),
    lax.conv_general_dilated(*arguments, dimension_numbers=LAYOUT),
  )


def test_what_does_not_fit_is_refused_as_xla_refuses_it():
  ours, xlas, x, k = _both(CASES['plain'])
  messages = []
  for function in (ours, xlas):
    with pytest.raises(ValueError, match='must') as caught:
      function(x[..., :3], k)
    messages.append(str(caught.value))
  assert messages[0] == messages[1]


def test_nan_stays_in_its_channel():
  ours, _, x, k = _both(CASES['depthwise'])
  out = ours(x.at[0, 3, 3, 2].set(jnp.nan), k)
  assert jnp.isnan(out[0, 2:5, 2:5, 2]).all()
  assert not jnp.isnan(out[..., [0, 1, 3, 4, 5]]).any()


def test_networks_use_it():
  net = models.build('resnet8', num_classes=2, input_shape=(8, 8, 1))
  run = lambda v, x: net.apply(v, x)[0]['logits'].sum()  # noqa: E731
  variables = jax.eval_shape(net.init, jax.random.key(0))
  text = str(jax.make_jaxpr(jax.grad(run))(variables, jnp.ones((2, 8, 8, 1))))
  assert 'convolution_of_kernel' in text
  assert 'conv_general_dilated' not in text
