"""The ways in which every loss is tested, as fixtures.

A case is a loss, its reference in NumPy, its arrays (float64 and int32) and
its options. One function is compiled for each dtype and used by all of them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def is_float(x):
  return jnp.issubdtype(x.dtype, jnp.floating)


def cast(arrays, dtype):
  return [jnp.asarray(x, dtype) if is_float(x) else x for x in arrays]


# What is compiled runs once or twice, so less optimisation is twice as fast.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


@functools.partial(quick, static_argnums=(0, 1))
def alone(loss, options, floats, others):
  both = zip(floats, others, strict=True)
  return loss(*(o if f is None else f for f, o in both), **dict(options))


@functools.partial(quick, static_argnums=(0, 1))
def with_slopes(loss, options, floats, others):
  """The value, and its gradient by each float array, ``None`` for others."""

  def total(floats):
    value = alone.__wrapped__(loss, options, floats, others)
    return jnp.sum(jnp.sin(value)), value  # sin, to tell the examples apart

  (_, value), slopes = jax.value_and_grad(total, has_aux=True)(floats)
  return value, slopes


def evaluate(loss, arrays, options, dtype=jnp.float32, function=with_slopes):
  floats = [jnp.asarray(x, dtype) if is_float(x) else None for x in arrays]
  others = [None if is_float(x) else jnp.asarray(x) for x in arrays]
  return function(loss, tuple(options.items()), floats, others)


@pytest.fixture(name='evaluate')
def evaluate_fixture():
  """The value and the gradients, compiled once for all tests of a shape."""
  return evaluate


@pytest.fixture
def agrees():
  """The loss is its reference, in float64, float32 and bfloat16.

  In bfloat16 the reference gets the rounded input: what is computed from it
  is as exact as in float32, and comes back so.
  """

  def check(loss, reference, arrays, options, rtol=2e-5, atol=2e-6):
    with jax.enable_x64(True):
      found, _ = evaluate(loss, arrays, options, jnp.float64)
    expected = reference(*arrays, **options)
    assert found.dtype == jnp.float64
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-14)
    found, _ = evaluate(loss, arrays, options)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)
    found = evaluate(loss, arrays, options, jnp.bfloat16, alone)
    assert found.dtype == jnp.float32
    rounded = [
      np.float64(jnp.bfloat16(x)) if is_float(x) else x for x in arrays
    ]
    expected = reference(*rounded, **options)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)

  return check


@pytest.fixture
def slopes():
  """The gradient by every input is the finite difference, in float64."""

  def check(loss, arrays, options, step=1e-5):
    random = np.random.default_rng(5)
    with jax.enable_x64(True):
      _, slopes = evaluate(loss, arrays, options, jnp.float64)
      for i, slope in enumerate(slopes):
        if slope is None:
          continue
        along = random.normal(size=slope.shape)
        ends = []
        for sign in 1, -1:
          moved = [*arrays[:i], arrays[i] + sign * step * along]
          moved += arrays[i + 1 :]
          value, _ = evaluate(loss, moved, options, jnp.float64)
          ends.append(np.sin(value).sum())
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(
          np.sum(slope * along), expected, rtol=1e-6, atol=1e-8
        )

  return check


@pytest.fixture
def finite():
  """Value and gradient are finite in float32, for each list of arrays."""

  def check(loss, many, options):
    for name, arrays in many.items():
      value, slopes = evaluate(loss, arrays, options)
      assert np.isfinite(value).all(), name
      for slope in slopes:
        assert slope is None or np.isfinite(slope).all(), name

  return check


@pytest.fixture
def transforms(strict_dtypes):
  """jit is eager, and vmap over a leading axis is a loop."""

  def check(loss, arrays, options, rtol=2e-5, atol=2e-6):
    first = [jnp.asarray(x) for x in cast(arrays, jnp.float32)]
    second = [x[::-1] for x in first]
    eager = loss(*first, **options)
    expected, _ = evaluate(loss, first, options)
    np.testing.assert_allclose(eager, expected, rtol=rtol, atol=atol)
    expected = [expected, evaluate(loss, second, options)[0]]
    stacked = [jnp.stack(pair) for pair in zip(first, second, strict=True)]
    mapped = quick(jax.vmap(functools.partial(loss, **options)))
    found = mapped(*stacked)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)

  return check


@pytest.fixture
def drops():
  """Examples that ``where`` leaves out might as well not be there."""

  def check(loss, arrays, options):
    where = np.arange(len(arrays[0])) % 3 != 1
    padded = [x.copy() for x in arrays]
    for x in padded:
      x[~where] = np.nan

    def masked(where, *arrays, **options):
      return loss(*arrays, where=where, **options)

    expected, slopes = evaluate(loss, [x[where] for x in arrays], options)
    found, (_, *found_slopes) = evaluate(masked, [where, *padded], options)
    if found.ndim:
      assert not found[~where].any()
      found = found[where]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    for found, slope in zip(found_slopes, slopes, strict=True):
      assert not found[~where].any()
      np.testing.assert_allclose(found[where], slope, rtol=1e-4, atol=5e-6)

  return check


@pytest.fixture
def shards():
  """Eight devices with a share of the batch each give what one gives."""

  def check(loss, arrays, options):
    assert len(arrays[0]) == jax.device_count() == 8
    mesh = Mesh(jax.devices(), ('data',))
    spread = NamedSharding(mesh, PartitionSpec('data'))
    one = cast(arrays, jnp.float32)
    eight = [jax.device_put(x, spread) for x in one]
    expected, slopes = evaluate(loss, one, options)
    found, found_slopes = evaluate(loss, eight, options)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    for a, b in zip(found_slopes, slopes, strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)

  return check
