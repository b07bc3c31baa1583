"""Feature losses against NumPy references written from their formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxkd import losses


def unit(x, axis=-1):
  return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def adaptive(x, size):
  """Averages [B, H, W, C] bin by bin."""
  (_, height, width, _), (rows, columns) = x.shape, size
  out = np.empty((len(x), rows, columns, x.shape[-1]))
  for i in range(rows):
    for j in range(columns):
      top, bottom = i * height // rows, math.ceil((i + 1) * height / rows)
      left, right = j * width // columns, math.ceil((j + 1) * width / columns)
      out[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
  return out


def alike(x, y):
  size = tuple(map(min, x.shape[1:3], y.shape[1:3]))
  return adaptive(x, size), adaptive(y, size)


def of_each(function):
  """A reference for one example, applied to each."""

  def reference(*arrays, **options):
    return np.array(
      [function(*x, **options) for x in zip(*arrays, strict=True)]
    )

  return reference


@of_each
def hint(student, teacher):
  return np.mean((student - teacher) ** 2)


@of_each
def cosine(student, teacher):
  return np.mean(1 - (unit(student) * unit(teacher)).sum(-1))


def attention_transfer(student, teacher, *, power=2, variant='code'):
  student, teacher = alike(student, teacher)

  def attention(x):
    return unit((np.abs(x) ** power).mean(-1).reshape(len(x), -1))

  gap = attention(student) - attention(teacher)
  return (gap**2).mean(1) if variant == 'code' else np.linalg.norm(gap, axis=1)


@of_each
def neuron_selectivity(student, teacher):
  def mean_kernel(x, y):
    return np.mean([[(a @ b) ** 2 for b in y] for a in x])

  student, teacher = (
    unit(x.reshape(-1, x.shape[-1]).T) for x in (student, teacher)
  )
  return (
    mean_kernel(teacher, teacher)
    + mean_kernel(student, student)
    - 2 * mean_kernel(student, teacher)
  )


def flow_of_solution(s1, s2, t1, t2):
  def flow(first, second):
    first, second = alike(first, second)
    size = first.shape[1] * first.shape[2]
    return np.einsum('bhwc,bhwd->bcd', first, second) / size

  return ((flow(s1, s2) - flow(t1, t2)) ** 2).mean((1, 2))


@of_each
def activation_boundary(student, teacher, *, margin=1.0):
  total = 0.0
  for s, t in zip(student.flat, teacher.flat, strict=True):
    if t <= 0 and s > -margin:
      total += (s + margin) ** 2
    if t > 0 and s <= margin:
      total += (s - margin) ** 2
  return total


@of_each
def factor_transfer(student, teacher, *, power=1, channel_power=2):
  def factor(x):
    return unit((np.abs(x) ** channel_power).mean(-1).ravel())

  return np.mean(np.abs(factor(student) - factor(teacher)) ** power)


def overhaul(student, teacher, margin):
  target = np.maximum(teacher, margin)
  square = (student - target) ** 2
  square[(student <= target) & (target <= 0)] = 0
  return square.reshape(len(square), -1).sum(1)


def overhaul_margin(scale, bias, *, variant='paper'):
  margins = []
  for deviation, mean in zip(np.abs(scale), bias, strict=True):
    normal = scipy.stats.norm(mean, deviation)
    if variant == 'code' and normal.cdf(0) <= 0.001:
      margins.append(-3 * deviation)
    else:
      x = np.linspace(min(mean, 0) - 12 * deviation, 0, 200_001)
      density = normal.pdf(x)
      margins.append(np.trapezoid(x * density, x) / normal.cdf(0))
  return np.array(margins)


def hierarchical_context(*maps):
  levels = len(maps) // 2
  loss = 0
  for s, t in zip(maps[:levels], maps[levels:], strict=True):
    sizes = [size for size in (4, 2, 1) if size < s.shape[1]]
    weights = [0.5**i for i in range(len(sizes) + 1)]
    parts = [hint(s, t)]
    for size in sizes:
      parts.append(hint(adaptive(s, (size, size)), adaptive(t, (size, size))))
    loss += np.dot(weights, parts) / sum(weights)
  return loss


@of_each
def channel_wise(student, teacher, *, temperature=1.0):
  def distribution(x):
    x = x.reshape(-1, x.shape[-1]) / temperature
    return np.exp(x) / np.exp(x).sum(0)

  q, p = distribution(student), distribution(teacher)
  return temperature**2 * (p * np.log(p / q)).sum() / student.shape[-1]


def pearson_feature(student, teacher):
  def standardized(x):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / (x.std(axes, ddof=1) + 1e-6)

  return hint(standardized(student), standardized(teacher)) / 2


@of_each
def masked_imitation(student, teacher, mask):
  if not mask.any():
    return 0.0
  return ((student - teacher)[mask > 0] ** 2).sum() / (2 * mask.sum())


@of_each
def log_sum(student, teacher, *, power=4.0):
  return np.log((np.abs(student - teacher) ** power).sum())


def maximum_mean_discrepancy(
  student, teacher, *, kernel='polynomial', bandwidth=None, across=False
):
  if across:
    sets = (x.swapaxes(0, 1) for x in (student, teacher))
    return maximum_mean_discrepancy(*sets, kernel=kernel).mean()
  if student.ndim == 3:
    one = functools.partial(
      maximum_mean_discrepancy, kernel=kernel, bandwidth=bandwidth
    )
    return of_each(one)(student, teacher)
  if bandwidth is None:
    both = np.concatenate([student, teacher])
    pairs = [
      np.linalg.norm(a - b) for i, a in enumerate(both) for b in both[:i]
    ]
    bandwidth = np.median([x for x in pairs if x > 0])
  k = {
    'polynomial': lambda x, y: (x @ y) ** 2,
    'linear': lambda x, y: x @ y,
    'rbf': lambda x, y: np.exp(-((x - y) ** 2).sum() / (2 * bandwidth**2)),
  }[kernel]

  def mean(x, y):
    return np.mean([[k(a, b) for b in y] for a in x])

  total = mean(student, student) + mean(teacher, teacher)
  return total - 2 * mean(student, teacher)


def flow_of_four(s1, s2, t1, t2):
  return losses.flow_of_solution((s1, s2), (t1, t2))


def context_of_four(s1, s2, t1, t2):
  return losses.hierarchical_context([s1, s2], (t1, t2))


def draw(*shapes, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=shape) for shape in shapes]


MASK = np.random.default_rng(3).random((3, 2, 3)) < 0.5
MASK[1] = False
MAPS = (3, 2, 3, 4), (3, 2, 3, 4)
WIDTHS = (3, 2, 3, 4), (3, 2, 3, 5)
TOGETHER = (8, 2, 3, 4), (8, 2, 3, 4)
SETS = (8, 3), (8, 3)
# Loss, reference, arrays and options, with what defaults leave out.
CASES = {
  'hint': (losses.hint, hint, draw(*MAPS), {}),
  'cosine': (losses.cosine, cosine, draw(*MAPS), {}),
  'attention_transfer': (
    losses.attention_transfer,
    attention_transfer,
    draw((3, 3, 2, 4), (3, 2, 2, 6)),
    {},
  ),
  'attention_transfer, paper': (
    losses.attention_transfer,
    attention_transfer,
    draw((3, 2, 2, 4), (3, 4, 2, 6)),
    {'variant': 'paper', 'power': 1.5},
  ),
  'neuron_selectivity': (
    losses.neuron_selectivity,
    neuron_selectivity,
    draw(*WIDTHS),
    {},
  ),
  'flow_of_solution': (
    flow_of_four,
    flow_of_solution,
    draw((3, 4, 3, 2), (3, 2, 2, 4), (3, 2, 2, 2), (3, 2, 3, 4)),
    {},
  ),
  'activation_boundary': (
    losses.activation_boundary,
    activation_boundary,
    draw(*MAPS),
    {'margin': 0.5},
  ),
  'factor_transfer': (
    losses.factor_transfer,
    factor_transfer,
    draw(*WIDTHS),
    {},
  ),
  'factor_transfer, powers': (
    losses.factor_transfer,
    factor_transfer,
    draw(*WIDTHS),
    {'power': 2, 'channel_power': 1.5},
  ),
  'overhaul': (losses.overhaul, overhaul, draw(*MAPS, (4,)), {}),
  'hierarchical_context': (
    context_of_four,
    hierarchical_context,
    draw((3, 3, 2, 2), (3, 2, 2, 4), (3, 3, 2, 2), (3, 2, 2, 4)),
    {},
  ),
  'channel_wise': (
    losses.channel_wise,
    channel_wise,
    draw(*MAPS),
    {'temperature': 2.0},
  ),
  'pearson_feature': (
    losses.pearson_feature,
    pearson_feature,
    draw(*TOGETHER),
    {},
  ),
  'masked_imitation': (
    losses.masked_imitation,
    masked_imitation,
    [*draw(*MAPS), MASK],
    {},
  ),
  'log_sum': (losses.log_sum, log_sum, draw(*MAPS), {'power': 3.0}),
  'maximum_mean_discrepancy': (
    losses.maximum_mean_discrepancy,
    maximum_mean_discrepancy,
    draw(*SETS),
    {},
  ),
  'maximum_mean_discrepancy, linear': (
    losses.maximum_mean_discrepancy,
    maximum_mean_discrepancy,
    draw((2, 4, 3), (2, 5, 3)),
    {'kernel': 'linear'},
  ),
  'maximum_mean_discrepancy, across': (
    losses.maximum_mean_discrepancy,
    maximum_mean_discrepancy,
    draw((4, 2, 3), (4, 2, 3)),
    {'across': True},
  ),
  'maximum_mean_discrepancy, rbf': (
    losses.maximum_mean_discrepancy,
    maximum_mean_discrepancy,
    draw(*SETS),
    {'kernel': 'rbf', 'bandwidth': 1.5},
  ),
  'maximum_mean_discrepancy, median': (
    losses.maximum_mean_discrepancy,
    maximum_mean_discrepancy,
    draw((2, 4, 3), (2, 5, 3)),
    {'kernel': 'rbf'},
  ),
}
MAIN = [name for name in CASES if ',' not in name]
KINDS = [*MAIN, 'attention_transfer, paper', 'maximum_mean_discrepancy, rbf']
IN_BATCH = [
  'pearson_feature',
  'maximum_mean_discrepancy',
  'maximum_mean_discrepancy, rbf',
]


@pytest.mark.parametrize('name', CASES)
def test_reference(name, agrees):
  agrees(*CASES[name])


@pytest.mark.parametrize('name', KINDS)
def test_slopes(name, slopes):
  loss, _, arrays, options = CASES[name]
  slopes(loss, arrays, options)


@pytest.mark.parametrize('name', MAIN)
def test_transforms(name, transforms):
  loss, _, arrays, options = CASES[name]
  transforms(loss, arrays, options)


@pytest.mark.parametrize('name', IN_BATCH)
def test_where_drops(name, drops):
  loss, _, arrays, options = CASES[name]
  drops(loss, arrays, options)


@pytest.mark.parametrize('name', IN_BATCH)
def test_devices(name, shards):
  loss, _, arrays, options = CASES[name]
  shards(loss, arrays, options)


@pytest.mark.parametrize('name', [*KINDS, 'maximum_mean_discrepancy, median'])
def test_finite_everywhere(name, finite):
  loss, _, arrays, options = CASES[name]
  floats = [x.dtype == float for x in arrays]

  def each(change):
    both = zip(arrays, floats, strict=True)
    return [change(x) if is_float else x for x, is_float in both]

  many = {
    'student 0': [arrays[0] * 0, *arrays[1:]],
    'teacher 0': [arrays[0], arrays[1] * 0, *arrays[2:]],
    'all 0': each(lambda x: x * 0),
    'constant': each(lambda x: x * 0 + 1e4),
    'duplicates': each(lambda x: x[np.arange(len(x)) // 2]),
    'huge': each(lambda x: x * 1e4),
  }
  if arrays[0].shape == arrays[1].shape:
    many['equal'] = [arrays[0], arrays[0], *arrays[2:]]
  finite(loss, many, options)


def run(name, *arrays, **options):
  """A loss in float32, compiled in one piece."""
  loss = functools.partial(getattr(losses, name), **options)
  return jax.jit(loss)(
    *jax.tree.map(
      lambda x: jnp.float32(x) if x.dtype == float else jnp.asarray(x), arrays
    )
  )


def test_by_hand():
  s, t = np.array([[[1.0, 0.0]]]), np.array([[[3.0, 4.0]]])
  np.testing.assert_allclose(run('hint', s, t), [(4 + 16) / 2])
  np.testing.assert_allclose(run('cosine', s, t), [1 - 3 / 5], rtol=1e-6)

  s, t = np.array([[[1.0], [0.0]]]), np.array([[[3.0], [4.0]]])
  # Attention of (1, 0) against (9, 16) / √337.
  gap = np.array([1 - 9 / 337**0.5, 16 / 337**0.5])
  found = run('attention_transfer', s, t)
  np.testing.assert_allclose(found, [(gap**2).mean()], rtol=1e-6)
  found = run('attention_transfer', s, t, variant='paper')
  np.testing.assert_allclose(found, [np.sqrt((gap**2).sum())], rtol=1e-6)
  found = run('factor_transfer', s, t)
  np.testing.assert_allclose(found, [gap.mean()], rtol=1e-6)
  # One channel each, of length 1: 1 + 1 - 2 (3/5)².
  found = run('neuron_selectivity', s, t)
  np.testing.assert_allclose(found, [2 - 18 / 25], rtol=1e-6)
  found = run('flow_of_solution', (s, s), (s, t))
  np.testing.assert_allclose(found, [(1 / 2 - 3 / 2) ** 2], rtol=1e-6)
  # Both silent: below -1 costs nothing, and firing at 1 or more neither.
  s, t = np.array([[0.0, -2.0, 0.0, 2.0]]), np.array([[0.0, -1.0, 1.0, 1.0]])
  np.testing.assert_allclose(run('activation_boundary', s, t), [1 + 0 + 1 + 0])
  # Cut at -½: 0 to -½ counts, -2 below it does not, 0 to 1 and 2 to 1 do.
  found = run('overhaul', s, t, np.array([0, -0.5, -0.5, -0.5]))
  np.testing.assert_allclose(found, [0 + 0 + 1 + 1])
  found = run('overhaul_margin', np.array([2.0]), np.array([0.0]))
  np.testing.assert_allclose(found, [-2 * math.sqrt(2 / math.pi)], rtol=1e-6)

  s, t = np.zeros((1, 2, 2, 1)), np.array([[1.0, -1.0], [1.0, 3.0]])
  # Mean square 3, and 1 behind a pool to one position.
  found = run('hierarchical_context', [s], [t.reshape(s.shape)])
  np.testing.assert_allclose(found, [(3 + 1 / 2) / (3 / 2)], rtol=1e-6)
  s, t = np.zeros((1, 2, 1)), np.array([[[0.0], [math.log(3.0)]]])
  expected = math.log(2 / 4) / 4 + 3 * math.log(6 / 4) / 4
  np.testing.assert_allclose(run('channel_wise', s, t), [expected], rtol=1e-5)
  s, t = np.array([[1.0], [3.0]]), np.array([[9.0], [5.0]])
  np.testing.assert_allclose(run('pearson_feature', s, t), [1, 1], rtol=1e-5)
  s, t = np.zeros((1, 3, 2)), np.array([[[1.0, 2.0], [9.0, 9.0], [2.0, 0.0]]])
  found = run('masked_imitation', s, t, np.array([[True, False, True]]))
  np.testing.assert_allclose(found, [(1 + 4 + 4) / 4])
  found = run('log_sum', s[:, :1], t[:, :1])
  np.testing.assert_allclose(found, [math.log(1 + 16)], rtol=1e-6)
  s, t = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0.0, 2.0]])
  for kernel, expected in ('polynomial', 1 + 16), ('linear', 4):
    found = run('maximum_mean_discrepancy', s, t, kernel=kernel)
    np.testing.assert_allclose(found, expected)


def test_zero_for_the_teacher_itself():
  (x,) = draw((8, 4, 4, 3))
  whole = np.ones((8, 4, 4), bool)
  found = {
    'hint': run('hint', x, x),
    'cosine': run('cosine', x, x),
    'attention_transfer': run('attention_transfer', x, x),
    'its paper': run('attention_transfer', x, x, variant='paper'),
    'neuron_selectivity': run('neuron_selectivity', x, x),
    'flow_of_solution': run('flow_of_solution', (x, x), (x, x)),
    'factor_transfer': run('factor_transfer', x, x),
    'overhaul': run('overhaul', x, x, np.full(3, -9.0)),
    'hierarchical_context': run('hierarchical_context', [x], [x]),
    'channel_wise': run('channel_wise', x, x),
    'pearson_feature': run('pearson_feature', x, x),
    'masked_imitation': run('masked_imitation', x, x, whole),
    **{
      kernel: run('maximum_mean_discrepancy', *[x[:, 0, 0]] * 2, kernel=kernel)
      for kernel in ('polynomial', 'linear', 'rbf')
    },
  }
  for name, value in found.items():
    np.testing.assert_allclose(value, 0, atol=1e-6, err_msg=name)


def test_other_minima():
  (x,) = draw((3, 4))
  # The side of the boundary counts, from the margin on.
  found = run('activation_boundary', np.sign(x) * 1.5, x)
  np.testing.assert_array_equal(found, 0)
  # What lies below a margin may lie anywhere below it.
  found = run('overhaul', np.minimum(x, -2.0), x * 0 - 1, np.full(4, -0.5))
  np.testing.assert_array_equal(found, 0)
  # No difference at all counts as one of 1e-12 in each of the features.
  floor = math.log(4) + 4 * math.log(1e-12)
  np.testing.assert_allclose(run('log_sum', x, x), floor, rtol=1e-6)


@pytest.mark.parametrize('variant', ['paper', 'code'])
def test_overhaul_margin(variant, agrees):
  scale = np.array([1.0, -0.5, 2.0, 0.1, 0.3, 1.0])
  bias = np.array([0.3, -2.0, 1.0, 0.5, 0.8, 4.2])
  options = {'variant': variant}
  agrees(losses.overhaul_margin, overhaul_margin, [scale, bias], options)


def test_overhaul_margin_at_the_ends(finite):
  scale = np.array([0.0, 0.0, 1e-3, 1e-3, 1.0])
  bias = np.array([2.0, -2.0, 5.0, -5.0, 0.0])
  found = run('overhaul_margin', scale, bias)
  expected = [0, -2, 0, -5, -math.sqrt(2 / math.pi)]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  finite(losses.overhaul_margin, {'ends': [scale, bias]}, {})


LAYOUTS = [
  'hint',
  'cosine',
  'attention_transfer',
  'neuron_selectivity',
  'activation_boundary',
  'factor_transfer',
  'channel_wise',
  'pearson_feature',
  'log_sum',
]


@pytest.mark.parametrize('name', LAYOUTS)
def test_layouts_agree(name):
  student, teacher = draw(*MAPS)
  expected = run(name, student, teacher)
  flat = [x.reshape(3, 6, 4) for x in (student, teacher)]
  np.testing.assert_allclose(run(name, *flat), expected, rtol=1e-5, atol=1e-7)
  # Positions are alike, as long as both sides keep to one order of them.
  turned = [x.swapaxes(1, 2)[:, ::-1] for x in (student, teacher)]
  np.testing.assert_allclose(run(name, *turned), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  'name', ['attention_transfer', 'neuron_selectivity', 'factor_transfer']
)
def test_order_of_channels_is_free(name):
  student, teacher = draw(*WIDTHS)
  found = run(name, student[..., ::-1], teacher * 3)
  expected = run(name, student, teacher)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_relatives():
  student, teacher = draw(*MAPS)
  channels = [x.reshape(3, 6, 4).swapaxes(1, 2) for x in (student, teacher)]
  found = run('neuron_selectivity', student, teacher)
  expected = run('maximum_mean_discrepancy', *map(unit, channels))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
  found = run('channel_wise', student, teacher, temperature=3.0)
  expected = run('kl', *channels, temperature=3.0).mean(1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  found = run('masked_imitation', student, teacher, np.ones((3, 2, 3)))
  expected = run('hint', student, teacher) * 4 / 2
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  found = run('log_sum', 7 * student, 7 * teacher)
  expected = run('log_sum', student, teacher) + 4 * math.log(7)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pearson_feature_is_one_less_the_correlation():
  student, teacher = draw(*TOGETHER)
  found = run('pearson_feature', student, 5 * teacher + 2)
  rows = [x.reshape(-1, 4).T for x in (student, teacher)]
  gaps = [1 - np.corrcoef(s, t)[0, 1] for s, t in zip(*rows, strict=True)]
  np.testing.assert_allclose(found.mean(), np.mean(gaps) * 47 / 48, rtol=1e-5)


@pytest.mark.parametrize('dtype', [bool, np.uint8, np.float32])
def test_masks(dtype):
  """What a mask leaves out may hold anything."""
  student, teacher = draw(*MAPS)
  expected = run('masked_imitation', student, teacher, MASK)
  assert expected[1] == 0
  student[~MASK] = np.nan
  found = run('masked_imitation', student, teacher, MASK.astype(dtype))
  np.testing.assert_allclose(found, expected, rtol=1e-6)

  def total(s):
    return losses.masked_imitation(s, jnp.float32(teacher), MASK).sum()

  slope = jax.jit(jax.grad(total))(jnp.float32(student))
  assert not slope[~MASK].any()
  assert np.isfinite(slope).all()


def test_groups_of_sets():
  student, teacher = draw((2, 5, 3), (2, 5, 3))
  where = np.array([[True, True, False, True, True], [True] * 5])
  name, options = 'maximum_mean_discrepancy', {'kernel': 'rbf'}
  of_each_set = run(name, student, teacher, where=where, **options)
  first = run(name, student[0][where[0]], teacher[0][where[0]], **options)
  second = run(name, student[1], teacher[1], **options)
  np.testing.assert_allclose(of_each_set, [first, second], rtol=1e-5)
  of_both = run(name, student, teacher, where=where[0], **options)
  kept = [x[:, where[0]] for x in (student, teacher)]
  np.testing.assert_allclose(of_both, run(name, *kept, **options), rtol=1e-5)


def test_median_is_detached():
  loss, _, arrays, _ = CASES['maximum_mean_discrepancy, rbf']
  both = np.concatenate(arrays)
  gaps = np.linalg.norm(both[:, None] - both, axis=-1)
  median = np.median(gaps[gaps > 0])
  found, expected = (
    jax.jit(jax.grad(functools.partial(loss, kernel='rbf', bandwidth=b)))(
      *map(jnp.float32, arrays)
    )
    for b in (None, median)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_memory_of_neuron_selectivity():
  """Nothing as large as all pairs of channels by all positions."""

  def mean(student, teacher):
    return jnp.mean(losses.neuron_selectivity(student, teacher))

  both = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
  array = jax.ShapeDtypeStruct((64, 8, 8, 256), jnp.float32)
  memory = both.lower(array, array).compile().memory_analysis()
  pairs = 64 * 256 * 256 * 4
  assert 0 < memory.temp_size_in_bytes < 8 * pairs < pairs * 64


@pytest.mark.parametrize(
  ('name', 'option'),
  [
    ('attention_transfer', 'power'),
    ('activation_boundary', 'margin'),
    ('factor_transfer', 'power'),
    ('factor_transfer', 'channel_power'),
    ('channel_wise', 'temperature'),
    ('log_sum', 'power'),
  ],
)
def test_options_may_be_traced(name, option):
  student, teacher = (jnp.float32(x) for x in draw(*MAPS))

  @jax.jit
  def traced(value):
    return getattr(losses, name)(student, teacher, **{option: value})

  expected = run(name, student, teacher, **{option: 1.5})
  np.testing.assert_allclose(traced(1.5), expected, rtol=1e-5)


X = jnp.zeros((2, 4, 4, 3))


@pytest.mark.parametrize(
  ('name', 'arrays', 'options', 'message'),
  [
    ('hint', (X, X[:1]), {}, r'teacher must be .*B=2.*float32\[1, 4, 4, 3\]'),
    ('hint', (X, X[..., :1]), {}, 'teacher must be .*C=3'),
    ('hint', (X[0, 0, 0], X), {}, 'student must be'),
    ('hint', (X.astype(int), X), {}, 'student must be float'),
    ('cosine', (X, X[:, :1]), {}, 'teacher must be'),
    ('attention_transfer', (X, X[:, 0]), {}, 'student and teacher'),
    ('attention_transfer', (X[:, :2], X[:, :, :2]), {}, 'the smaller'),
    ('attention_transfer', (X[:, 0, 0], X), {}, 'student must be'),
    ('attention_transfer', (X, X), {'variant': 'x'}, 'variant must be'),
    ('attention_transfer', (X, X), {'power': 0}, 'power must be'),
    ('neuron_selectivity', (X, X[:, :2]), {}, 'teacher must be'),
    ('flow_of_solution', (X, (X, X)), {}, 'student_pair must be'),
    ('flow_of_solution', ((X, X), (X,)), {}, 'teacher_pair must be .*1 of'),
    (
      'flow_of_solution',
      ((X, X), (X, X[..., :2])),
      {},
      r'teacher_pair\[1\] must be .*C2=3',
    ),
    ('activation_boundary', (X, X), {'margin': -1.0}, 'margin must be'),
    ('factor_transfer', (X, X[:, :2]), {}, 'teacher must be'),
    ('factor_transfer', (X, X), {'channel_power': -1.0}, 'channel_power'),
    ('overhaul', (X, X, jnp.zeros(4)), {}, 'margin must be .*C=3'),
    ('overhaul_margin', (X[0, 0, 0], X), {}, 'bias must be'),
    ('overhaul_margin', (X[0, 0, 0],) * 2, {'variant': 1}, 'variant must be'),
    ('hierarchical_context', (X, X), {}, 'student_maps must be a tuple'),
    ('hierarchical_context', ([X], [X, X]), {}, 'teacher_maps must have 1'),
    ('hierarchical_context', ([X], [X[0]]), {}, r'teacher_maps\[0\] must'),
    ('channel_wise', (X, X), {'temperature': 0.0}, 'temperature must be'),
    ('channel_wise', (X[:, 0, 0],) * 2, {}, 'student must be'),
    ('pearson_feature', (X, X), {'where': X[:, 0, 0, 0]}, 'where must be'),
    ('masked_imitation', (X, X, X), {}, 'mask must be'),
    ('masked_imitation', (X, X, None), {}, 'mask must be'),
    ('log_sum', (X, X), {'power': 'x'}, 'power must be'),
    ('maximum_mean_discrepancy', (X, X), {}, 'student must be'),
    ('maximum_mean_discrepancy', (X[0], X[0, 0]), {}, 'teacher must be'),
    (
      'maximum_mean_discrepancy',
      (X[0], X[0]),
      {'bandwidth': 1.0},
      'bandwidth must be None',
    ),
    ('maximum_mean_discrepancy', (X[0], X[0]), {'kernel': 'x'}, 'kernel'),
    (
      'maximum_mean_discrepancy',
      (X[0], X[0, :, :3]),
      {'where': jnp.ones(4, bool)},
      'teacher must be .*N=4',
    ),
  ],
)
def test_bad_input(name, arrays, options, message):
  with pytest.raises(ValueError, match=message):
    getattr(losses, name)(*arrays, **options)
