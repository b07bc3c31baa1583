import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill import adapters, grids
from jaxkd.distill.term import term as make_term
from jaxkd.errors import UserError

LARGE, HALF, ODD = (3, 4, 4, 2), (3, 2, 2, 5), (3, 3, 5, 5)
SHAPES = [
  ('linear', (3, 4), (3, 5)),
  ('linear', (3, 7, 4), (3, 7, 5)),
  ('linear', LARGE, HALF),
  ('linear', (3, 2, 2, 4), ODD),
  ('conv3x3', LARGE, HALF),
  ('conv3x3', LARGE, ODD),
  ('conv_bn', LARGE, (3, 4, 4, 5)),
  ('conv_bn', LARGE, HALF),
  ('conv_bn', (3, 2, 2, 4), (3, 4, 4, 5)),
  ('conv_bn', (3, 7, 4, 2), (3, 4, 2, 5)),
  ('conv_bn_relu', LARGE, HALF),
  ('projector', (3, 4), (3, 5)),
  ('projector', LARGE, HALF),
  ('resize', LARGE, (3, 2, 6, 2)),
  ('embed', (3, 4), (3, 5)),
  ('embed', LARGE, (3, 5)),
  ('translator', LARGE, ODD),
]
FUSED = ((LARGE, (3, 2, 2, 3)), ((3, 6, 6, 4), (3, 2, 2, 6)))
# One of each kind, and all that is trained.
KINDS = [
  ('linear', LARGE, HALF),
  ('conv3x3', LARGE, ODD),
  ('conv_bn_relu', (3, 2, 2, 4), (3, 4, 4, 5)),
  ('projector', (3, 4), (3, 5)),
  ('variational', LARGE, HALF),
  ('embed', LARGE, (3, 5)),
  ('translator', LARGE, HALF),
  ('attention_fusion', *FUSED),
]


def make(name, student, teacher):
  return getattr(adapters, name)(student, teacher)


def normal(seed, shape):
  """A float32 array of a shape, or a tuple of arrays, from NumPy."""
  if not isinstance(shape[0], int):
    return tuple(normal(seed + i, part) for i, part in enumerate(shape))
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def parameters(adapter, seed=0):
  """Parameters away from the zeros and ones that they start from."""
  shapes = jax.eval_shape(adapter.init, jax.random.key(0))[0]
  leaves, tree = jax.tree.flatten(shapes)
  return jax.tree.unflatten(
    tree, [normal(100 * seed + i, x.shape) / 2 for i, x in enumerate(leaves)]
  )


def run(name, student, teacher, x=None):
  """The parameters, the input and the output."""
  adapter = make(name, student, teacher)
  params = parameters(adapter)
  x = normal(1, student) if x is None else x
  y, state = jax.jit(adapter.apply)(params, {}, x)
  assert state == {}
  return params, x, jax.tree.map(np.asarray, y)


def convolve(x, kernel, stride=1, padding=1):
  """A convolution by its definition."""
  x = np.pad(x, [(0, 0), *[(padding, padding)] * 2, (0, 0)])
  size = kernel.shape[0]
  places = range(0, x.shape[1] - size + 1, stride)
  return np.stack(
    [
      np.stack(
        [
          np.tensordot(x[:, i : i + size, j : j + size], kernel, 3)
          for j in places
        ],
        axis=1,
      )
      for i in places
    ],
    axis=1,
  )


def batch_norm(x, part=None, eps=1e-5):
  axes = tuple(range(x.ndim - 1))
  x = (x - x.mean(axes)) / np.sqrt(x.var(axes) + eps)
  return x * part['scale'] + part['bias'] if part else x


def doubled(x):
  """A map at twice its size, each position repeated."""
  return x.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.usefixtures('strict_dtypes')
@pytest.mark.parametrize(('name', 'student', 'teacher'), SHAPES)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_teachers_shape_and_the_students_dtype(
  name, student, teacher, dtype
):
  adapter = make(name, student, teacher)
  params, state = jax.eval_shape(adapter.init, jax.random.key(0))
  for x in jax.tree.leaves(params):
    assert x.dtype == jnp.float32
    assert not x.weak_type
  x = jax.ShapeDtypeStruct((2, *student[1:]), dtype)
  y, after = jax.eval_shape(adapter.apply, params, state, x)
  assert y.shape == (2, *teacher[1:])  # in parts of a batch as well
  assert y.dtype == dtype
  assert not y.weak_type
  assert after == state == {}


@pytest.mark.usefixtures('strict_dtypes')
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_adapters_that_give_arguments(dtype):
  def shapes(name, student, teacher):
    adapter = make(name, student, teacher)
    params, state = jax.eval_shape(adapter.init, jax.random.key(0))
    x = jax.eval_shape(lambda: normal(0, student))
    x = jax.tree.map(lambda x: x.update(dtype=dtype), x)
    return jax.eval_shape(adapter.apply, params, state, x)[0]

  for student in (LARGE, (3, 1, 1, 4)):
    mean, raw_scale = shapes('variational', student, HALF)
    assert (mean.shape, mean.dtype) == (HALF, dtype)
    assert (raw_scale.shape, raw_scale.dtype) == ((5,), jnp.float32)
    assert not raw_scale.weak_type
  assert shapes('variational', (3, 4), (3, 5))[0].shape == (3, 5)
  (maps,) = shapes('attention_fusion', *FUSED)
  assert [y.shape for y in maps] == list(FUSED[1])
  assert {y.dtype for y in maps} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(('name', 'student', 'teacher'), KINDS)
def test_all_is_trained_and_members_are_as_if_alone(name, student, teacher):
  adapter = make(name, student, teacher)

  def loss(params, x):
    y, _ = adapter.apply(params, {}, x)
    parts = enumerate(jax.tree.leaves(y))
    return sum((y * normal(50 + i, y.shape)).sum() for i, y in parts)

  members = [
    (parameters(adapter, seed), normal(10 + seed, student)) for seed in (1, 2)
  ]
  stacked = jax.tree.map(lambda *x: np.stack(x), *members)
  gradient = jax.grad(loss, argnums=(0, 1))
  together = jax.jit(jax.vmap(gradient))(*stacked)
  alone = jax.jit(gradient)
  for i, member in enumerate(members):
    want = alone(*member)
    got = jax.tree.map(lambda x, i=i: x[i], together)
    chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-4)
    for part in jax.tree.leaves(want):
      assert np.isfinite(part).all()
      assert np.abs(part).max() > 1e-3


@pytest.mark.parametrize(
  ('name', 'student', 'teacher'),
  [
    *KINDS,
    ('resize', LARGE, (3, 2, 6, 2)),
    ('standardize_logits', (3, 4), (3, 4)),
    ('standardize_features', LARGE, LARGE),
    ('margin', LARGE, LARGE),
  ],
)
def test_what_is_no_number_gets_through(name, student, teacher):
  """Of a whole layer or of one example."""
  adapter = make(name, student, teacher)
  params, x = parameters(adapter), normal(1, student)
  for rows in slice(None), 0:
    ruined = jax.tree.map(
      lambda x, at=rows: jnp.asarray(x).at[at].set(jnp.nan), x
    )
    found, _ = adapter.apply(params, {}, ruined)
    if name == 'variational':
      found = found[0]  # the variance looks at no layer
    for y in jax.tree.leaves(found):
      assert not np.isfinite(y[:1] if rows == 0 else y).any()


def test_members_start_as_if_alone():
  init = jax.jit(make('conv_bn', LARGE, HALF).init)
  keys = jax.random.split(jax.random.key(0), 2)
  together, _ = jax.jit(jax.vmap(init))(keys)
  for i in range(2):
    alone, state = init(keys[i])
    assert state == {}
    np.testing.assert_array_equal(alone['scale'], 1)
    np.testing.assert_array_equal(alone['bias'], 0)
    got = jax.tree.map(lambda x, i=i: x[i], together)
    chex.assert_trees_all_close(got, alone, rtol=1e-6)
  kernels = np.asarray(together['kernel'])
  assert np.abs(kernels[0] - kernels[1]).min() > 0
  assert 0.5 < kernels.std() * np.sqrt(3 * 3 * 2) < 1.5  # variance 1 / inputs


def test_linear_is_a_product_of_the_average_and_a_bias():
  params, x, y = run('linear', LARGE, HALF)
  pooled = x.reshape(3, 2, 2, 2, 2, 2).mean((2, 4))
  want = pooled @ params['kernel'] + params['bias']
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-6)


def test_resize_averages_down_and_interpolates_up():
  x = np.array([[1, 3], [5, 7]], np.float32).reshape(1, 2, 2, 1)
  _, _, down = run('resize', (1, 2, 2, 1), (1, 1, 1, 1), x)
  np.testing.assert_allclose(down.ravel(), [4])
  _, _, up = run('resize', (1, 2, 2, 1), (1, 2, 4, 1), x)
  want = [[1, 1.5, 2.5, 3], [5, 5.5, 6.5, 7]]
  np.testing.assert_allclose(up[0, :, :, 0], want)
  _, _, both = run('resize', (1, 2, 2, 1), (1, 1, 4, 1), x)
  np.testing.assert_allclose(both.ravel(), [3, 3.5, 4.5, 5])


def test_conv3x3_is_a_convolution_at_the_teachers_size():
  params, x, y = run('conv3x3', (2, 2, 2, 2), (2, 4, 4, 4))
  _, _, enlarged = run('resize', (2, 2, 2, 2), (2, 4, 4, 2), x)
  want = convolve(enlarged, params['kernel']) + params['bias']
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('size', 'to', 'kernel', 'stride', 'padding'),
  [(4, 2, 3, 2, 1), (4, 4, 1, 1, 0), (5, 3, 3, 1, 0)],
)
def test_conv_bn_relu_fits_the_sizes(size, to, kernel, stride, padding):
  params, x, y = run('conv_bn_relu', (2, size, size, 3), (2, to, to, 4))
  assert params['kernel'].shape == (kernel, kernel, 3, 4)
  assert sorted(params) == ['bias', 'kernel', 'scale']
  want = batch_norm(convolve(x, params['kernel'], stride, padding), params)
  np.testing.assert_allclose(y, np.maximum(want, 0), rtol=1e-4, atol=1e-4)


def test_conv_bn_enlarges_by_a_transposed_convolution():
  params, x, y = run('conv_bn', (2, 3, 3, 3), (2, 6, 6, 4))
  assert params['kernel'].shape == (4, 4, 3, 4)
  transposed = jax.lax.conv_transpose(x, params['kernel'], (2, 2), 'SAME')
  want = batch_norm(np.asarray(transposed), params)
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)


def test_statistics_are_the_batchs_also_far_from_zero():
  shape = (16, 2, 2, 3)
  adapter = make('conv_bn', shape, shape)
  params = parameters(adapter) | {
    'scale': np.array([1, 2, 3], np.float32),
    'bias': np.array([-1, 0, 1], np.float32),
  }
  x = 1000 + normal(1, shape)
  y = np.asarray(jax.jit(adapter.apply)(params, {}, x)[0])
  # One pass over values near 1,000 would be off by 0.1.
  np.testing.assert_allclose(y.mean((0, 1, 2)), [-1, 0, 1], atol=2e-3)
  np.testing.assert_allclose(y.std((0, 1, 2)), [1, 2, 3], rtol=1e-3)


def test_statistics_are_not_rounded_to_the_layers_dtype():
  shape = (32, 2, 2, 1)
  apply = make('conv_bn', shape, shape).apply
  one = np.ones((1,), np.float32)
  params = {'kernel': one.reshape(1, 1, 1, 1), 'scale': one, 'bias': 0 * one}
  # The mean lies between two numbers of bfloat16, which are 1/16 apart.
  x = jnp.asarray(10.03 + normal(1, shape), jnp.bfloat16)
  y = apply(params, {}, x)[0]
  want = batch_norm(np.asarray(x, np.float32))
  np.testing.assert_allclose(np.asarray(y, np.float32).mean(), 0, atol=1e-3)
  np.testing.assert_allclose(
    np.asarray(y, np.float32), want, rtol=1e-2, atol=1e-3
  )


def test_projector_standardises_each_feature():
  params, x, y = run('projector', (32, 4), (32, 3))
  assert sorted(params) == ['kernel']
  want = batch_norm(x @ params['kernel'], eps=1e-4)
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
  _, _, constant = run('projector', (4, 2), (4, 3), np.ones((4, 2), np.float32))
  np.testing.assert_allclose(constant, 0, atol=1e-4)


def test_variational_regresses_the_mean_from_a_variance_of_five():
  params, x, (mean, raw_scale) = run('variational', (6, 4), (6, 5))
  hidden = x
  for name in ('first', 'second'):
    hidden = np.maximum(hidden @ params[name], 0)
  want = hidden @ params['third']
  np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(raw_scale, params['raw_scale'])
  start, _ = make('variational', (6, 4), (6, 5)).init(jax.random.key(0))
  variance = np.log1p(np.exp(start['raw_scale'])) + 1e-5
  np.testing.assert_allclose(variance, np.full(5, 5), rtol=1e-6)


def test_a_variance_that_stays_is_no_parameter():
  fixed = adapters.variational((6, 4), (6, 5), fixed=True)
  params, x = parameters(fixed), normal(7, (6, 4))
  assert set(params) == {'first', 'second', 'third'}
  (mean, raw_scale), _ = fixed.apply(params, {}, x)
  learned = make('variational', (6, 4), (6, 5))
  start, _ = learned.init(jax.random.key(0))
  same = {**params, 'raw_scale': start['raw_scale']}
  (want, scale), _ = learned.apply(same, {}, x)
  np.testing.assert_array_equal(mean, want)
  np.testing.assert_array_equal(raw_scale, scale)


def test_embeddings_have_length_one_and_zero_is_safe():
  params, x, y = run('embed', (3, 2, 2, 2), (3, 5))
  want = x.reshape(3, 8) @ params['kernel'] + params['bias']
  want /= np.linalg.norm(want, axis=1, keepdims=True)
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-6)
  adapter = make('embed', (3, 4), (3, 5))
  params = jax.tree.map(np.zeros_like, parameters(adapter))
  slope = jax.grad(lambda p: adapter.apply(p, {}, x.reshape(6, 4))[0].sum())
  for part in jax.tree.leaves(slope(params)):
    assert np.isfinite(part).all()


def test_translator_is_three_blocks_to_the_factors():
  params, x, y = run('translator', (2, 3, 3, 2), (2, 3, 3, 4))
  widths = [params[name]['kernel'].shape for name in sorted(params)]
  assert widths == [(3, 3, 2, 2), (3, 3, 2, 4), (3, 3, 4, 4)]
  want = x
  for name in ('first', 'second', 'third'):
    want = batch_norm(convolve(want, params[name]['kernel']), params[name])
    want = np.where(want > 0, want, 0.1 * want)
  np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-4)


def test_attention_fusion_reviews_from_the_deepest_level_up():
  shapes = (((4, 2, 2, 2), (4, 2, 2, 3)), ((4, 4, 4, 5), (4, 1, 1, 6)))
  params, x, ((shallow, deep),) = run('attention_fusion', *shapes)
  low, top = params['level0'], params['level1']
  assert 'attention' not in top
  assert top['reduce']['kernel'].shape == (1, 1, 3, 3)

  def conv_norm(x, part, padding):
    return batch_norm(convolve(x, part['kernel'], padding=padding), part)

  # The teacher's deepest map is the smaller, and one position is left of ours.
  left = conv_norm(x[1], top['reduce'], 0)[:, 1:, 1:]
  np.testing.assert_allclose(
    deep, conv_norm(left, top['expand'], 1), rtol=1e-3, atol=1e-4
  )
  carried = doubled(left)
  own = conv_norm(x[0], low['reduce'], 0)
  both = np.concatenate([own, carried], axis=-1)
  scores = both @ low['attention']['kernel'][0, 0] + low['attention']['bias']
  weights = 1 / (1 + np.exp(-scores))
  fused = own * weights[..., :1] + carried * weights[..., 1:]
  np.testing.assert_allclose(
    shallow, conv_norm(doubled(fused), low['expand'], 1), rtol=1e-3, atol=1e-4
  )


def through_knowledge(context, loss, adapter, location=('map', 'map')):
  """The value of a term, its gradient, and its parameters."""
  term = make_term(
    loss, at=location, teacher=('main',), adapter=adapter, entry='distill.x'
  )
  shapes = jax.eval_shape(lambda: context)
  params, state = jax.jit(lambda key: term.init(key, shapes))(jax.random.key(0))

  def total(params):
    value, after = term.loss(params, state, context)
    assert not jax.tree.leaves(after)
    return value.mean(), value

  (_, value), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(
    params
  )
  for part in jax.tree.leaves(gradient):
    assert np.abs(part).max() > 0
  return np.asarray(value), params['adapter']


def test_a_regression_to_hints(context):
  value, params = through_knowledge(context, losses.hint, 'conv_bn_relu')
  x, teachers = context.student['map'], context.teachers['main']['map']
  kernel = np.asarray(params['kernel'])
  y = np.maximum(batch_norm(convolve(np.asarray(x), kernel, 2, 1)), 0)
  want = [np.square(y - t).mean((1, 2, 3)) for t in np.asarray(teachers)]
  np.testing.assert_allclose(value, np.mean(want, axis=0), rtol=1e-4)


def test_variational_information_of_two_maps(context):
  value, params = through_knowledge(
    context, losses.variational_information, 'variational'
  )
  assert params['raw_scale'].shape == (5,)
  apply = make('variational', (6, 8, 8, 2), (6, 4, 4, 5)).apply
  (mean, _), _ = jax.jit(apply)(params, {}, context.student['map'])
  teachers = np.asarray(context.teachers['main']['map'])
  gaps = np.square(teachers - np.asarray(mean))
  want = 0.5 * (gaps / 5 + np.log(5)).mean((0, 2, 3, 4))
  np.testing.assert_allclose(value, want, rtol=1e-4)


def test_knowledge_review_of_two_levels(context):
  deep = jnp.concatenate([context.student['map'][:, ::4, ::4]] * 2, axis=-1)
  teacher = context.teachers['main']
  context = context._replace(
    student={**context.student, 'deep': deep},
    teachers={'main': {**teacher, 'deep': teacher['map'][:, :, ::2, ::2]}},
  )
  levels = ('map', 'deep')
  value, params = through_knowledge(
    context, losses.hierarchical_context, 'attention_fusion', (levels, levels)
  )
  assert value.shape == (6,)
  assert sorted(params) == ['level0', 'level1']


@pytest.mark.parametrize(
  ('name', 'student', 'teacher', 'parts'),
  [
    ('linear', (3, 4), HALF, ('[B, 4]', '[B, 2, 2, 5]', 'as many axes')),
    ('linear', (3, 7, 4), (3, 8, 4), ('[B, 7, 4]', 'as many positions')),
    ('linear', (LARGE, LARGE), HALF, ('[B, 4, 4, 2] and [B, 4', 'one layer')),
    ('linear', (3,), (3,), ('[B]', 'one layer')),
    ('variational', LARGE, (3, 5), ('[B, 4, 4, 2]', '[B, 5]', 'pooling')),
    ('projector', LARGE, (3, 5), ('[B, 4, 4, 2]', '[B, 5]', 'pooling')),
    ('conv3x3', (3, 4), HALF, ('[B, 4]', '[B, 2, 2, 5]', 'name a map')),
    ('translator', LARGE, (3, 5), ('[B, 5]', 'name a map')),
    ('resize', LARGE, HALF, ('[B, 4, 4, 2]', "adapter='linear'")),
    ('resize', (3, 4), (3, 4), ('[B, 4]', 'name a map')),
    ('embed', LARGE, HALF, ('[B, 2, 2, 5]', '[B, features]')),
    (
      'conv_bn_relu', (3, 2, 2, 2), (3, 3, 3, 5),
      ('[B, 2, 2, 2]', '[B, 3, 3, 5]', 'half', "adapter='conv3x3'"),
    ),
    ('conv_bn', (3, 4), (3, 5), ('[B, 4]', '[B, 5]', 'name a map')),
    ('attention_fusion', LARGE, HALF, ('[B, 4, 4, 2]', 'tuple')),
    ('attention_fusion', (LARGE, LARGE), (HALF,), ('[B, 4', 'as many maps')),
    ('attention_fusion', (LARGE, (3, 4)), (HALF, HALF), ('[B, 4]', 'maps')),
    ('attention_fusion', (), (), ('as many maps',)),
  ],
)  # fmt: skip
def test_layers_that_cannot_be_adapted(name, student, teacher, parts):
  with pytest.raises(UserError) as error:
    make(name, student, teacher)
  for part in (f'adapter={name!r}', *parts):
    assert part in str(error.value)


# Tokens [3, 6, 4] are a grid of 2 by 3, as images of 8 by 12 are.
WIDE = (3, 8, 12, 1)


def numbered(*shape):
  return jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)


def test_tokens_are_a_map_row_by_row():
  x = numbered(3, 8, 4)
  made = adapters.tokens_to_map(x.shape, x.shape, WIDE, class_tokens=2)
  assert made.init(jax.random.key(0)) == ({}, {})
  y, _ = made.apply({}, {}, x)
  assert y.shape == (3, 2, 3, 4)
  for row, column in ((0, 0), (0, 2), (1, 0)):
    want = x[:, 2 + 3 * row + column]
    np.testing.assert_array_equal(y[:, row, column], want)
  kept = adapters.tokens_to_map(
    x.shape, x.shape, WIDE, class_tokens=2, keep=True
  )
  z, _ = kept.apply({}, {}, x)
  np.testing.assert_array_equal(z[..., :4], y)
  np.testing.assert_array_equal(z[:, 1, 2, 4:], x[:, :2].mean(1))
  high = adapters.tokens_to_map((3, 8, 4), (3, 8, 4), height=4)
  np.testing.assert_array_equal(high.apply({}, {}, x)[0][:, 3, 1], x[:, 7])


def test_a_map_is_tokens_row_by_row():
  x = numbered(3, 2, 3, 4)
  made = adapters.map_to_tokens(x.shape, x.shape)
  y, _ = made.apply({}, {}, x)
  np.testing.assert_array_equal(y[:, 4], x[:, 1, 1])
  back = adapters.tokens_to_map(y.shape, y.shape, WIDE)
  np.testing.assert_array_equal(back.apply({}, {}, y)[0], x)
  led = adapters.map_to_tokens(x.shape, x.shape, class_tokens=1)
  z, _ = led.apply({}, {}, x)
  np.testing.assert_allclose(z[:, 0], x.mean((1, 2)))
  np.testing.assert_array_equal(z[:, 1:], y)


@pytest.mark.parametrize('name', ['linear', 'projector', 'variational'])
def test_maps_and_tokens_meet_on_the_grid_of_patches(name):
  maps, tokens = (3, 4, 6, 2), (3, 6, 5)
  function = getattr(adapters, name)
  onto = function(maps, tokens, WIDE)  # averaged down to 2 by 3
  x = normal(1, maps)
  params = parameters(onto)
  flat = x.reshape(3, 2, 2, 3, 2, 2).mean((2, 4)).reshape(3, 6, 2)
  plain = function((3, 6, 2), tokens)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    onto.apply(params, {}, x)[0],
    plain.apply(params, {}, flat)[0],
  )
  back = function((3, 6, 2), (3, 2, 3, 5), WIDE)
  plain = function((3, 2, 3, 2), (3, 2, 3, 5))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    back.apply(params, {}, flat)[0],
    plain.apply(params, {}, flat.reshape(3, 2, 3, 2))[0],
  )


def test_tokens_are_brought_to_maps_and_to_tokens_of_other_sizes():
  made = adapters.tokens_to_map((3, 7, 4), (3, 1, 1, 5), WIDE, class_tokens=1)
  params, x = parameters(made), normal(0, (3, 7, 4))
  y, _ = made.apply(params, {}, x)
  want = x[:, 1:].mean(1) @ params['kernel'] + params['bias']
  np.testing.assert_allclose(y[:, 0, 0], want, rtol=1e-4, atol=1e-5)
  made = adapters.map_to_tokens((3, 2, 3, 4), (3, 7, 5), WIDE, class_tokens=1)
  params, x = parameters(made), normal(0, (3, 2, 3, 4))
  y, _ = made.apply(params, {}, x)
  want = x.reshape(3, 6, 4) @ params['kernel'] + params['bias']
  np.testing.assert_allclose(y[:, 1:], want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(y[:, 0], want.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('student', 'teacher', 'said'),
  [
    (
      (3, 4, 6, 2), (3, 7, 5),
      "set teacher_adapter='tokens_to_map' with "
      "teacher_adapter_kw.class_tokens=1 and adapter='linear'",
    ),
    (
      (3, 8, 5), (3, 4, 6, 2),
      "set adapter='tokens_to_map' with adapter_kw.class_tokens=2",
    ),
    (
      (3, 6, 5), (3, 7, 5),
      "set adapter='tokens_to_map' and teacher_adapter='tokens_to_map' with "
      'teacher_adapter_kw.class_tokens=1',
    ),
    ((3, 2, 3, 2), (3, 5, 5), 'teacher_adapter_kw.height'),
  ],
)  # fmt: skip
def test_what_keeps_tokens_apart_is_proposed(student, teacher, said):
  with pytest.raises(UserError) as error:
    adapters.linear(student, teacher, WIDE)
  assert said in str(error.value)


@pytest.mark.parametrize(
  ('name', 'student', 'teacher', 'kw', 'said'),
  [
    ('tokens_to_map', (3, 7, 4), (3, 7, 4), {}, 'class_tokens.*as 1 would be'),
    ('tokens_to_map', (3, 6, 4), (3, 6, 4), {'height': 4}, 'grid of 4 rows'),
    ('tokens_to_map', (3, 6, 4), (3, 5, 4), {}, "teacher_adapter='tokens_to"),
    ('tokens_to_map', (3, 2, 3, 4), (3, 5, 4), {}, 'it takes tokens'),
    ('tokens_to_map', (3, 6, 4), (3, 6, 4), {'keep': True}, 'nothing to keep'),
    ('map_to_tokens', (3, 6, 4), (3, 6, 4), {}, 'it takes a map'),
    ('map_to_tokens', (3, 2, 3, 4), (3, 7, 4), {}, 'class_tokens=1'),
    ('map_to_tokens', (3, 2, 3, 4), (3, 1, 3, 4), {}, "set adapter='linear'"),
    ('conv3x3', (3, 2, 3, 4), (3, 10, 4), {}, "and adapter='conv3x3'"),
  ],
)  # fmt: skip
def test_tokens_that_cannot_be_adapted(name, student, teacher, kw, said):
  image = {} if name == 'conv3x3' else {'image': WIDE}
  with pytest.raises(UserError, match=said):
    getattr(adapters, name)(student, teacher, **image, **kw)


def test_a_grid_has_the_proportions_of_the_image():
  assert grids.grid(16) == (4, 4)
  assert grids.grid(16, (8, 12, 20, 3)) is None
  assert grids.grid(15, (8, 12, 20, 3)) == (3, 5)
  assert grids.grid(16, (8, 64, 16, 3)) == (8, 2)
  assert grids.grid(0) is None


def test_hints_know_the_proportions_of_what_the_student_sees(context):
  tokens = jnp.zeros((2, 6, 1 + 4 * 2, 5))
  context = context._replace(
    teachers={'main': {'tokens': tokens}}, inputs=jnp.zeros((6, 16, 8, 1))
  )
  term = make_term(
    losses.hint,
    at=('map', 'tokens'),
    teacher=('main',),
    adapter='linear',
    teacher_adapter='tokens_to_map',
    teacher_adapter_kw={'class_tokens': 1},
    entry='distill.x',
  )
  params, state = term.init(jax.random.key(0), context)
  value, _ = term.loss(params, state, context)
  x = context.student['map'].reshape(6, 4, 2, 2, 4, 2).mean((2, 4))
  want = jnp.square(x @ params['adapter']['kernel']).mean((1, 2, 3))
  np.testing.assert_allclose(value, want, rtol=1e-4)


@pytest.mark.parametrize(
  'name',
  [
    *dict.fromkeys(name for name, *_ in SHAPES),
    'variational',
    'attention_fusion',
    'standardize_logits',
    'standardize_features',
    'margin',
  ],
)
def test_statistics_of_the_batch_are_declared(name):
  """By them an adapter is refused where not everything counts."""
  shape, options = (4, 4, 4, 3), {}
  if name == 'attention_fusion':
    shape = (shape, shape)
  if name == 'embed':
    options = {'width': 2}
  made = getattr(adapters, name)(shape, shape, **options)
  params, state = made.init(jax.random.key(0))
  x = jax.random.normal(jax.random.key(1), (4, 4, 4, 3))
  x = (x, x + 1) if name == 'attention_fusion' else x
  whole, _ = made.apply(params, state, x)
  part, _ = made.apply(params, state, jax.tree.map(lambda x: x[:2], x))
  alone = all(
    np.allclose(one[: len(other)], other, rtol=1e-4, atol=1e-5)
    for one, other in zip(
      jax.tree.leaves(whole), jax.tree.leaves(part), strict=True
    )
  )
  assert made.statistics is not alone
