"""Relations against NumPy references written from their formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxkd import losses
from jaxkd.losses import _pairwise, _pooling


def unit(x, axis=-1):
  return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def huber(x, delta):
  x = np.abs(x)
  return np.where(x <= delta, x**2 / 2, delta * (x - delta / 2))


def rkd_distance(student, teacher, *, delta=1.0):
  def relative(x):
    distances = np.array([[np.linalg.norm(a - b) for a in x] for b in x])
    return distances / distances[distances > 0].mean()

  return huber(relative(student) - relative(teacher), delta).mean(1)


def rkd_angle(student, teacher, *, delta=1.0):
  def cosine(x, i, j, k):
    return unit(x[i] - x[j]) @ unit(x[k] - x[j])

  n = range(len(student))
  return np.array(
    [
      sum(
        huber(cosine(student, i, j, k) - cosine(teacher, i, j, k), delta)
        for i in n
        for k in n
      )
      / len(n) ** 2
      for j in n
    ]
  )


def similarity_preserving(student, teacher):
  def rows(x):
    x = x.reshape(len(x), -1)
    return unit(np.array([[a @ b for b in x] for a in x]))

  return ((rows(student) - rows(teacher)) ** 2).sum(1) / len(student)


def probabilistic_transfer(student, teacher, *, eps=1e-7):
  def neighbours(x):
    kernel = (unit(x) @ unit(x).T + 1) / 2
    return kernel / kernel.sum(1, keepdims=True)

  q, p = neighbours(student), neighbours(teacher)
  return (p * np.log((p + eps) / (q + eps))).mean(1)


def correlation_congruence(
  student, teacher, *, kernel='gaussian', gamma=0.4, order=2, variant='paper'
):
  def matrix(x):
    products = (unit(x) @ unit(x).T) if variant == 'paper' else x @ x.T
    if kernel == 'bilinear':
      return products
    terms = [
      (2 * gamma) ** p / math.factorial(p) * products**p
      for p in range(order + 1)
    ]
    return math.exp(-2 * gamma) * np.sum(terms, axis=0)

  square, n = (matrix(student) - matrix(teacher)) ** 2, len(student)
  if variant == 'paper':
    return square.sum(1) / n
  return np.full(n, np.sqrt(square.sum()) / n**2)


def inter_channel_correlation(student, teacher):
  def rows(x):
    x = x.reshape(-1, x.shape[-1])
    return unit(x.T @ x)

  return np.array(
    [
      ((rows(s) - rows(t)) ** 2).sum() / s.shape[-1]
      for s, t in zip(student, teacher, strict=True)
    ]
  )


def adaptive(x, size, reduce):
  """Pools [B, H, W, C] bin by bin."""
  (_, height, width, _), (rows, columns) = x.shape, size
  out = np.empty((len(x), rows, columns, x.shape[-1]))
  for i in range(rows):
    for j in range(columns):
      top, bottom = i * height // rows, math.ceil((i + 1) * height / rows)
      left, right = j * width // columns, math.ceil((j + 1) * width / columns)
      out[:, i, j] = reduce(x[:, top:bottom, left:right], axis=(1, 2))
  return out


def pairwise_affinity(student, teacher, *, pool=None):
  def affinities(x):
    if pool is not None:
      kind, size = pool
      size = (size, size) if isinstance(size, int) else size
      x = adaptive(x, size, {'average': np.mean, 'max': np.max}[kind])
    x = unit(x.reshape(len(x), -1, x.shape[-1]))
    return np.einsum('bic,bjc->bij', x, x)

  return ((affinities(student) - affinities(teacher)) ** 2).mean((1, 2))


LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 3])


def triplet(student, *, negatives='all', margin=0.2, labels=LABELS):
  """Pair by pair and negative by negative."""
  n, width = student.shape
  distance = np.linalg.norm(student[:, None] - student, axis=-1)
  total, pairs = np.zeros(n), 0
  for a in range(n):
    others = [i for i in range(n) if labels[i] != labels[a]]
    for p in range(n):
      if p == a or labels[p] != labels[a]:
        continue
      pairs += 1
      weights = dict.fromkeys(others, 1)
      if negatives == 'semi_hard':
        beyond = [i for i in others if distance[a, i] > distance[a, p]]
        chosen = min(beyond or others, key=lambda i: distance[a, i])
        if not beyond:
          chosen = max(others, key=lambda i: distance[a, i])
        weights = {chosen: 1}
      if negatives == 'distance_weighted':
        near = {i: max(0.5, distance[a, i]) for i in others}
        near = {i: x for i, x in near.items() if x < 1.4}
        weights = {
          i: x ** (2 - width) * (1 - x**2 / 4) ** ((3 - width) / 2)
          for i, x in near.items()
        } or weights
      for i, weight in weights.items():
        loss = max(0, distance[a, p] - distance[a, i] + margin)
        total[a] += weight / sum(weights.values()) * loss
  return n / pairs * total


def draw(*shapes, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=shape) for shape in shapes]


WIDE = (8, 5), (8, 3)
MAPS = (8, 3, 2, 4), (8, 3, 2, 4)
# Reference, shapes and options, with what defaults leave out.
CASES = {
  'rkd_distance': (rkd_distance, WIDE, {'delta': 0.2}),
  'rkd_angle': (rkd_angle, WIDE, {}),
  'similarity_preserving': (
    similarity_preserving,
    ((8, 2, 2, 3), (8, 7)),
    {},
  ),
  'probabilistic_transfer': (probabilistic_transfer, WIDE, {}),
  'correlation_congruence': (
    correlation_congruence,
    WIDE,
    {'gamma': 0.7, 'order': 3},
  ),
  'correlation_congruence, code': (
    correlation_congruence,
    WIDE,
    {'variant': 'code'},
  ),
  'inter_channel_correlation': (
    inter_channel_correlation,
    ((8, 3, 2, 4), (8, 2, 2, 4)),
    {},
  ),
  'pairwise_affinity': (pairwise_affinity, ((8, 3, 2, 4), (8, 3, 2, 3)), {}),
  'pairwise_affinity, average': (
    pairwise_affinity,
    ((8, 5, 3, 4), (8, 4, 2, 3)),
    {'pool': ('average', 2)},
  ),
  'pairwise_affinity, max': (
    pairwise_affinity,
    ((8, 5, 3, 4), (8, 3, 4, 4)),
    {'pool': ('max', (3, 2))},
  ),
}
MAIN = [name for name in CASES if ',' not in name]
KINDS = [*MAIN, 'correlation_congruence, code']
ALONE = ['inter_channel_correlation', 'pairwise_affinity']


def case(name):
  reference, shapes, options = CASES[name]
  return getattr(losses, name.split(',')[0]), reference, shapes, options


@pytest.mark.parametrize('name', CASES)
def test_reference(name, agrees):
  loss, reference, shapes, options = case(name)
  agrees(loss, reference, draw(*shapes), options)


@pytest.mark.parametrize('name', KINDS)
def test_slopes(name, slopes):
  loss, _, shapes, options = case(name)
  slopes(loss, draw(*shapes), options)


@pytest.mark.parametrize('name', MAIN)
def test_transforms(name, transforms):
  loss, _, shapes, options = case(name)
  transforms(loss, draw(*shapes), options)


@pytest.mark.parametrize('name', KINDS)
def test_where_drops(name, drops):
  loss, _, shapes, options = case(name)
  drops(loss, draw(*shapes), options)


@pytest.mark.parametrize('name', [n for n in KINDS if n not in ALONE])
def test_devices(name, shards):
  loss, _, shapes, options = case(name)
  shards(loss, draw(*shapes), options)


@pytest.mark.parametrize('name', KINDS)
def test_finite_everywhere(name, finite):
  loss, _, shapes, options = case(name)
  student, teacher = draw(*shapes)
  zero, twins = student * 0, student[np.arange(len(student)) // 2]
  many = {
    'student 0': [zero, teacher],
    'teacher 0': [student, teacher * 0],
    'both 0': [zero, teacher * 0],
    'duplicates': [twins, teacher],
    'constant': [zero + 1e4, teacher],
    'huge': [student * 1e4, teacher * 1e4],
  }
  if student.shape == teacher.shape:
    many['equal'] = [student, student]
  finite(loss, many, options)


def run(name, student, teacher, **options):
  """A loss in float32, compiled in one piece."""
  loss = functools.partial(getattr(losses, name), **options)
  return jax.jit(loss)(jnp.float32(student), jnp.float32(teacher))


@pytest.mark.parametrize('name', KINDS)
def test_zero_for_the_teacher_itself(name):
  _, _, shapes, options = case(name)
  (student,) = draw(shapes[0])
  found = run(name.split(',')[0], student, student, **options)
  np.testing.assert_allclose(found, 0, atol=1e-6)


def test_by_hand():
  points = jnp.array([[0.0], [1.0], [3.0]])  # distances 1, 2, 3 of mean 2
  line = jnp.array([[0.0], [1.0], [2.0]])  # distances 1, 1, 2 of mean 4/3
  found = run('rkd_distance', points, line)
  # Differences of 1/2 - 3/4, 1 - 3/4 and 3/2 - 3/2.
  np.testing.assert_allclose(found, [1 / 96, 1 / 48, 1 / 96], rtol=1e-6)

  corner = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  flat = jnp.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
  found = run('rkd_angle', corner, flat)
  half = math.sqrt(0.5)
  # Cosines 0, √½ and √½ against 1, -1 and 1; each counts twice of nine.
  expected = [0.5, half + 0.5, (1 - half) ** 2 / 2]
  np.testing.assert_allclose(found, np.array(expected) * 2 / 9, rtol=1e-5)

  apart = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  alike = jnp.array([[1.0, 0.0], [1.0, 0.0]])
  # Rows (1, 0) and (1, 1) / √2; by the sum of absolute values it were ¼.
  found = run('similarity_preserving', apart, alike)
  np.testing.assert_allclose(found, [1 - half] * 2, rtol=1e-5)
  # Rows (⅔, ⅓) and (½, ½).
  found = run('probabilistic_transfer', apart, alike)
  expected = (math.log(3 / 4) + math.log(3 / 2)) / 4
  np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)
  found = run('correlation_congruence', apart, alike, kernel='bilinear')
  np.testing.assert_allclose(found, [0.5, 0.5], rtol=1e-6)
  found = run('correlation_congruence', apart, alike)
  expected = (math.exp(-0.8) * (0.8 + 0.32)) ** 2 / 2
  np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)
  found = run(
    'correlation_congruence',
    2 * apart,
    2 * alike,
    kernel='bilinear',
    variant='code',
  )
  np.testing.assert_allclose(found, [math.sqrt(32) / 4] * 2, rtol=1e-6)

  found = run('inter_channel_correlation', apart[None], alike[None])
  # Channels of apart are orthogonal; of alike, the second is 0.
  np.testing.assert_allclose(found, [0.5], rtol=1e-6)
  found = run('pairwise_affinity', apart[None], alike[None])
  np.testing.assert_allclose(found, [0.5], rtol=1e-6)


@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle'])
def test_rkd_does_not_see_rotation_shift_or_scale(name):
  student, teacher, turn = draw((6, 4), (6, 3), (4, 4))
  turn, _ = np.linalg.qr(turn)
  moved = 3.5 * student @ turn + 7.0
  found, expected = run(name, moved, teacher), run(name, student, teacher)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  np.testing.assert_allclose(run(name, moved, student), 0, atol=1e-6)


@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle'])
def test_rkd_of_close_neighbours_far_from_the_origin(name):
  """Distances by inner products would be all rounding here."""
  student, teacher = (np.float32(x) for x in draw((6, 4), (6, 2)))
  near = np.round(student * 64) / 64 * np.float32(2**-6) + 256
  expected = globals()[name](np.float64(near), np.float64(teacher))
  np.testing.assert_allclose(run(name, near, teacher), expected, rtol=1e-4)


def test_rkd_distance_of_duplicates():
  """Pairs of distance 0 stay out of the mean of the distances."""
  twice = jnp.array([[0.0], [0.0], [2.0]])
  line = jnp.array([[0.0], [1.0], [2.0]])
  found = run('rkd_distance', twice, line)
  # Distances 0, 1, 1 against ¾, 3/2, ¾.
  expected = np.array([9 / 16 + 1 / 4, 9 / 16 + 1 / 16, 1 / 4 + 1 / 16]) / 6
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('name', [n for n in MAIN if n not in ALONE])
def test_order_of_the_batch(name):
  student, teacher = draw(*CASES[name][1])
  order = np.random.default_rng(1).permutation(len(student))
  found = run(name, student[order], teacher[order])
  expected = run(name, student, teacher)[order]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('name', ['similarity_preserving', *ALONE])
def test_layouts_agree(name):
  student, teacher = draw(*MAPS)
  flat = [x.reshape(8, 6, 4) for x in (student, teacher)]
  expected = run(name, student, teacher)
  np.testing.assert_allclose(run(name, *flat), expected, rtol=1e-5)
  if name == 'similarity_preserving':
    rows = [x.reshape(8, -1) for x in (student, teacher)]
    np.testing.assert_allclose(run(name, *rows), expected, rtol=1e-5)
  else:
    # What mixes height with channels is another loss.
    mixed = student.swapaxes(1, 3).reshape(student.shape)
    assert not np.allclose(run(name, mixed, teacher), expected, rtol=1e-2)


@pytest.mark.parametrize('name', ALONE)
def test_value_of_an_example_without_its_batch(name):
  student, teacher = draw(*MAPS)
  alone = run(name, student[2:3], teacher[2:3])
  expected = run(name, student, teacher)[2:3]
  np.testing.assert_allclose(alone, expected, rtol=1e-5)


@pytest.mark.parametrize('size', [(3, 2), (4, 4), (1, 1), (7, 3), (9, 6)])
def test_pooling_what_does_not_divide(size):
  (x,) = draw((2, 7, 5, 3))
  for pool, reduce in (_pooling.average, np.mean), (_pooling.max, np.max):
    found = jax.jit(pool, static_argnums=1)(jnp.float32(x), size)
    expected = adaptive(x, size, reduce)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle'])
def test_chunks(name, monkeypatch):
  """A few vertices at a time, on eight devices, are all at once on one."""
  loss, _, shapes, options = case(name)

  def both(*arrays):
    return jax.value_and_grad(
      lambda *x: jnp.sum(jnp.sin(loss(*x, **options))), argnums=(0, 1)
    )(*arrays)

  arrays = [jnp.float32(x) for x in draw(*shapes)]
  expected = jax.tree.leaves(jax.jit(both)(*arrays))
  monkeypatch.setattr(_pairwise, 'CHUNK_BYTES', 4 * 8 * 8 * 4)
  spread = NamedSharding(Mesh(jax.devices(), ('data',)), PartitionSpec('data'))
  arrays = [jax.device_put(x, spread) for x in arrays]
  found = jax.tree.leaves(jax.jit(lambda *x: both(*x))(*arrays))
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_chunks_with_a_rest(monkeypatch):
  (x,) = draw((8, 3))
  monkeypatch.setattr(_pairwise, 'CHUNK_BYTES', 3 * 8 * 3 * 4)
  found = jax.jit(_pairwise.squared_distances)(jnp.float32(x))
  expected = ((x[:, None] - x) ** 2).sum(-1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('name', 'shape', 'limit'),
  [
    ('rkd_angle', (256, 2048), 64 * 2**20),
    ('rkd_distance', (256, 2048), 64 * 2**20),
    ('pairwise_affinity', (8, 64, 64, 256), 128 * 2**20),
  ],
)
def test_memory(name, shape, limit):
  def mean(student, teacher):
    return jnp.mean(getattr(losses, name)(student, teacher))

  both = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
  array = jax.ShapeDtypeStruct(shape, jnp.float32)
  memory = both.lower(array, array).compile().memory_analysis()
  assert 0 < memory.temp_size_in_bytes <= limit


@pytest.mark.parametrize(
  ('name', 'option'),
  [
    ('rkd_distance', 'delta'),
    ('rkd_angle', 'delta'),
    ('probabilistic_transfer', 'eps'),
    ('correlation_congruence', 'gamma'),
  ],
)
def test_options_may_be_traced(name, option):
  student, teacher = (jnp.float32(x) for x in draw(*WIDE))

  @jax.jit
  def traced(value):
    return getattr(losses, name)(student, teacher, **{option: value})

  expected = run(name, student, teacher, **{option: 0.3})
  np.testing.assert_allclose(traced(0.3), expected, rtol=1e-5)


ZEROS = jnp.zeros((4, 3))


@pytest.mark.parametrize(
  ('name', 'arrays', 'options', 'message'),
  [
    ('rkd_distance', (ZEROS, ZEROS[:3]), {}, r'teacher must be .*B=4'),
    ('rkd_distance', (ZEROS[0], ZEROS), {}, r'student .*not float32\[3\]'),
    ('rkd_angle', (ZEROS, ZEROS[None]), {}, r'teacher .*\[1, 4, 3\]'),
    ('rkd_angle', (ZEROS, ZEROS), {'delta': 0.0}, 'delta must be'),
    ('rkd_angle', (ZEROS.astype(int), ZEROS), {}, 'student must be float'),
    (
      'rkd_distance',
      (ZEROS, ZEROS),
      {'where': jnp.ones((4, 1), bool)},
      r'where must be bool\[B\]',
    ),
    ('similarity_preserving', (ZEROS[0], ZEROS), {}, 'student must be'),
    ('similarity_preserving', (ZEROS, ZEROS[:2]), {}, 'teacher must be'),
    ('probabilistic_transfer', (ZEROS, ZEROS), {'eps': -1.0}, 'eps must be'),
    ('correlation_congruence', (ZEROS, ZEROS), {'kernel': 'rbf'}, 'kernel'),
    ('correlation_congruence', (ZEROS, ZEROS), {'variant': 'x'}, 'variant'),
    ('correlation_congruence', (ZEROS, ZEROS), {'order': 1.5}, 'order must'),
    ('correlation_congruence', (ZEROS, ZEROS), {'gamma': 0.0}, 'gamma must'),
    (
      'inter_channel_correlation',
      (ZEROS[None], ZEROS[None, :, :2]),
      {},
      'teacher must be .*C=3',
    ),
    ('inter_channel_correlation', (ZEROS, ZEROS), {}, 'student must be'),
    (
      'pairwise_affinity',
      (ZEROS[None], ZEROS[None, :2]),
      {},
      'teacher must be .*N=4',
    ),
    *(
      ('pairwise_affinity', (ZEROS[None], ZEROS[None]), {'pool': pool}, 'pool')
      for pool in ('max', ('mean', 2), ('max', 0), ('max', (2, 2)), 2)
    ),
  ],
)
def test_bad_input(name, arrays, options, message):
  with pytest.raises(ValueError, match=message):
    getattr(losses, name)(*arrays, **options)


NEGATIVES = ('all', 'semi_hard', 'distance_weighted')


@functools.cache
def labelled(negatives):
  """The loss of embeddings whose labels are known."""

  def loss(student, *, where=None, **options):
    labels = jnp.asarray(LABELS if len(student) == 8 else LABELS[::2])
    return losses.triplet(
      student, labels, negatives=negatives, where=where, **options
    )

  return loss


def on_a_sphere(scale=1.0):
  """Embeddings near enough to each other for all kinds of negatives."""
  (student,) = draw((8, 5), seed=3)
  return scale * unit(student + 1)


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_triplet(negatives, agrees, slopes, transforms, shards):
  reference = functools.partial(triplet, negatives=negatives)
  loss, student = labelled(negatives), on_a_sphere()
  assert (reference(student) > 0).sum() > 5
  assert reference(student)[7] == 0  # alone in its class
  agrees(loss, reference, [student], {'margin': 0.3})
  agrees(loss, reference, [4 * student], {})  # all negatives are far
  transforms(loss, [student], {})
  shards(loss, [student], {})
  if negatives != 'distance_weighted':  # whose weights have no gradient
    slopes(loss, [student], {'margin': 0.31})


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_triplet_leaves_out_what_pads_the_batch(negatives):
  student, where = np.float32(on_a_sphere()), np.arange(8) % 2 == 0
  padded = np.where(where[:, None], student, np.nan)
  want = labelled(negatives)(jnp.asarray(student[where]))
  run = jax.value_and_grad(
    lambda x: (labelled(negatives)(x, where=jnp.asarray(where)) ** 2).sum()
  )
  value, slope = run(jnp.asarray(padded))
  np.testing.assert_allclose(value, (want**2).sum(), rtol=1e-5)
  assert not slope[~where].any()
  assert np.isfinite(slope).all()


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_triplet_is_finite_everywhere(negatives, finite):
  student = on_a_sphere()
  many = {
    '0': [0 * student],
    'duplicates': [student[np.arange(8) // 2]],
    'huge': [1e4 * student],
  }
  finite(labelled(negatives), many, {})


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_triplet_needs_a_positive_and_a_negative(negatives):
  student = jnp.asarray(on_a_sphere(), jnp.float32)
  for labels in (jnp.zeros(8, int), jnp.arange(8)):
    loss = losses.triplet(student, labels, negatives=negatives)
    np.testing.assert_array_equal(loss, 0)


def test_triplet_in_chunks(monkeypatch):
  student = jnp.asarray(on_a_sphere(), jnp.float32)
  want = losses.triplet(student, jnp.asarray(LABELS))
  monkeypatch.setattr(_pairwise, 'CHUNK_BYTES', 8 * 8 * 4 * 3)
  found = losses.triplet(student, jnp.asarray(LABELS))
  np.testing.assert_allclose(found, want, rtol=1e-6)
  with pytest.raises(ValueError, match='negatives must be one of'):
    losses.triplet(student, jnp.asarray(LABELS), negatives='hard')


def votes_of(student, *teachers, margin=0.1, counts=None):
  """Example by example, pair by pair."""
  n = range(len(student))
  counts = [True] * len(student) if counts is None else counts
  kept = [i for i in n if counts[i]]
  between = lambda x, i, j: np.linalg.norm(x[i] - x[j])  # noqa: E731
  own = [between(student, i, j) for i in kept for j in kept]
  mean = np.mean([d for d in own if d > 0])
  found = np.zeros(len(student))
  for i in kept:
    for j in kept:
      for k in kept:
        if i in (j, k):
          continue
        sign = np.sign(
          sum(np.sign(between(t, i, k) - between(t, i, j)) for t in teachers)
        )
        gap = between(student, i, k) - between(student, i, j)
        found[i] += abs(sign) * max(0, margin - sign * gap / mean)
  return found / len(kept) ** 2


VOTERS = (6, 4), (6, 2), (6, 5), (6, 3)


def vote(student, *teachers, **options):
  return losses.triplet_votes(student, teachers, **options)


@pytest.mark.parametrize('teachers', [1, 2, 3])  # two may disagree
def test_triplet_votes(agrees, slopes, teachers):
  arrays = draw(*VOTERS[: teachers + 1])
  agrees(vote, votes_of, arrays, {'margin': 0.3})
  slopes(lambda s: vote(s, *arrays[1:], margin=0.3), arrays[:1], {})


def test_triplet_votes_by_hand():
  points = jnp.array([[0.0], [1.0], [3.0]])
  swapped = jnp.array([[0.0], [3.0], [1.0]])
  # From the first, the others are at 1/2 and 3/2; from the second, at 1/2 and
  # 1; from the third, at 3/2 and 1. The teacher says the opposite of each, and
  # each counts twice of nine.
  found = losses.triplet_votes(points, (swapped,), margin=0.0)
  np.testing.assert_allclose(found, [2 / 9, 1 / 9, 1 / 9], rtol=1e-6)
  found = losses.triplet_votes(points, (swapped, points, points), margin=0.0)
  np.testing.assert_allclose(found, [0, 0, 0], atol=1e-7)
  tie = losses.triplet_votes(points, (swapped, points), margin=1.0)
  assert tie[0] == 0  # one teacher against one


def test_triplet_votes_do_not_count_padding(monkeypatch):
  student, *teachers = (np.float32(x) for x in draw(*VOTERS))
  counts = np.array([True, False, True, True, True, False])
  for x in (student, *teachers):
    x[~counts] = np.nan
  found = losses.triplet_votes(student, teachers, where=jnp.asarray(counts))
  expected = votes_of(student, *teachers, counts=counts)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  slope = jax.grad(
    lambda s: jnp.sum(
      losses.triplet_votes(s, teachers, where=jnp.asarray(counts))
    )
  )(student)
  assert np.isfinite(slope).all()
  monkeypatch.setattr(_pairwise, 'CHUNK_BYTES', 2 * 3 * 36 * 4)
  chunks = losses.triplet_votes(student, teachers, where=jnp.asarray(counts))
  np.testing.assert_allclose(chunks, found, rtol=1e-6)


def test_triplet_votes_need_teachers():
  with pytest.raises(ValueError, match='at least 1 teacher'):
    losses.triplet_votes(ZEROS, ())
  with pytest.raises(ValueError, match=r'teachers\[1\] must be .*B=4'):
    losses.triplet_votes(ZEROS, (ZEROS, ZEROS[:3]))
  with pytest.raises(ValueError, match='margin must'):
    losses.triplet_votes(ZEROS, (ZEROS,), margin=-1.0)


@pytest.mark.parametrize('loss', losses.LEAST)
def test_fewer_examples_than_are_compared_teach_nothing(loss):
  least = losses.LEAST[loss]
  random = np.random.default_rng(0)
  student, teacher = random.normal(size=(2, least, 4)).astype(np.float32)

  def slope(count):
    targets = {
      losses.triplet: jnp.array([0, 0, 1])[:count],
      losses.triplet_votes: (jnp.asarray(teacher[:count]),),
    }.get(loss, teacher[:count])
    total = lambda s: loss(s, targets, **kw).sum()  # noqa: E731
    return np.abs(jax.grad(total)(jnp.asarray(student[:count]))).max()

  kw = {losses.dist: {'beta': 0.0}}.get(loss, {})
  if loss.__name__.startswith('triplet'):
    kw = {'margin': 9.0}
  rounding = 1e-4 if loss is losses.dist else 1e-6  # a root of what cancels
  assert slope(least - 1) < rounding
  assert slope(least) > 1e-3
