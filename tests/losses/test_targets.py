import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxkd import losses

quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)
T, B, K = 3, 5, 4
random = np.random.default_rng(0)
TEACHER = 2 * random.normal(size=(B, K))
TEACHERS = 2 * random.normal(size=(T, B, K))
WEIGHTS = np.array([2.0, 1.0, 1.0])
ERRORS = random.uniform(-0.5, 2.0, size=(B, 2))


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def np_teacher_confidence(teacher):
  sure = softmax(teacher).max(-1)
  return sure / sure.mean()


def np_mean_probabilities(teachers, weights, temperature=1.0):
  p = softmax(teachers / temperature)
  return sum(w * x for w, x in zip(weights, p, strict=True)) / sum(weights)


def np_mean_logits(teachers, weights):
  total = sum(w * x for w, x in zip(weights, teachers, strict=True))
  return total / sum(weights)


def np_geometric_mean(teachers, weights, temperature=1.0):
  p = softmax(teachers / temperature)
  p = np.prod([x**w for w, x in zip(weights, p, strict=True)], axis=0)
  p **= 1 / sum(weights)
  return p / p.sum(-1, keepdims=True)


def weigh(fuse):
  """The weights as an array of the case."""
  return lambda teachers, weights, **kw: fuse(teachers, weights=weights, **kw)


MEAN = weigh(losses.mean_probabilities)
LOGITS, GEOMETRIC = weigh(losses.mean_logits), weigh(losses.geometric_mean)
CASES = {
  'teacher_confidence': (
    losses.teacher_confidence,
    np_teacher_confidence,
    [TEACHER],
    {},
  ),
  'error_weights': (
    losses.error_weights,
    lambda errors, gamma: np.exp(-gamma * np.clip(errors, 0, 1)),
    [ERRORS],
    dict(gamma=1.5),
  ),
  'mean_probabilities': (
    MEAN,
    np_mean_probabilities,
    [TEACHERS, WEIGHTS],
    dict(temperature=2.0),
  ),
  'mean_logits': (LOGITS, np_mean_logits, [TEACHERS, WEIGHTS], {}),
  'geometric_mean': (
    GEOMETRIC,
    np_geometric_mean,
    [TEACHERS, WEIGHTS],
    dict(temperature=2.0),
  ),
}
ALL = pytest.mark.parametrize('name', CASES)


@ALL
def test_is_its_formula(name, agrees):
  agrees(*CASES[name])


@ALL
def test_has_the_gradient_of_its_differences(name, slopes):
  loss, _, arrays, options = CASES[name]
  slopes(loss, arrays, options)


@ALL
def test_under_jit_and_vmap(name, transforms):
  loss, _, arrays, options = CASES[name]
  transforms(loss, arrays, options)


@ALL
def test_is_finite_where_it_is_hard(name, finite):
  loss, _, (first, *rest), options = CASES[name]
  finite(
    loss,
    {
      'zero': [0 * first, *rest],
      'equal': [first[:1] + 0 * first, *rest],
      'sure': [1e4 * np.sign(first), *rest],
      'one-hot': [1e4 * (first == first.max(-1, keepdims=True)), *rest],
    },
    options,
  )


def test_teacher_is_correct_by_hand():
  teacher = jnp.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 1.0, 1.0]])
  found = losses.teacher_is_correct(teacher, jnp.array([1, 1, 1]))
  assert found.dtype == bool
  assert found.tolist() == [True, False, True]  # the first of equals
  assert not losses.teacher_is_correct(teacher, jnp.array([-1, 3, -2])).any()
  pixels = jnp.stack([teacher, teacher])
  found = losses.teacher_is_correct(pixels, jnp.array([[1, 0, 0], [1, 1, 1]]))
  assert found.tolist() == [[True, True, False], [True, False, True]]


def test_conditional_learning_at_its_ends():
  """A perfect teacher is plain distillation, one always wrong the labels."""
  labels = jnp.array([0, 1, 2, 3, 0])
  z = jnp.array(TEACHER)

  def conditional(teacher):
    return jnp.where(
      losses.teacher_is_correct(teacher, labels),
      losses.soft_cross_entropy(z, teacher),
      losses.cross_entropy(z, labels),
    )

  right = 3 * jax.nn.one_hot(labels, K)
  np.testing.assert_allclose(
    conditional(right), losses.soft_cross_entropy(z, right)
  )
  np.testing.assert_allclose(
    conditional(-right), losses.cross_entropy(z, labels)
  )


def test_teacher_confidence_by_hand(drops, shards):
  teacher = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0]]))
  found = losses.teacher_confidence(teacher)
  np.testing.assert_allclose(found, [2 / 3, 1, 4 / 3], rtol=1e-6)
  even = losses.teacher_confidence(jnp.zeros((4, 3)))
  np.testing.assert_allclose(even, 1, rtol=1e-6)
  drops(losses.teacher_confidence, [TEACHER], {})
  shards(losses.teacher_confidence, [random.normal(size=(8, K))], {})
  none = losses.teacher_confidence(teacher, where=jnp.zeros(3, bool))
  assert not np.nan_to_num(none).any()


def test_permute_dark_knowledge():
  teacher = jnp.array(TEACHER)
  permute = quick(losses.permute_dark_knowledge)
  found = permute(jax.random.key(0), teacher)
  p = softmax(TEACHER)
  top = p.argmax(-1)
  rows = np.arange(B)
  np.testing.assert_allclose(found[rows, top], p[rows, top], rtol=1e-5)
  np.testing.assert_allclose(np.sort(found), np.sort(p), rtol=1e-4)
  np.testing.assert_array_equal(permute(jax.random.key(0), teacher), found)
  assert (permute(jax.random.key(1), teacher) != found).any()
  # Its gradient is that of a softmax whose columns are exchanged.
  slope = quick(
    jax.grad(
      lambda x: jnp.sum(
        losses.permute_dark_knowledge(jax.random.key(0), x)[rows, top]
      )
    )
  )(teacher)
  expected = p[rows, top][:, None] * (np.eye(K)[top] - p)
  np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-6)


def test_permutations_are_uniform_and_differ_between_examples():
  teacher = jnp.log(jnp.tile(jnp.array([[0.1, 0.4, 0.2, 0.3]]), (3000, 1)))
  found = quick(losses.permute_dark_knowledge)(jax.random.key(0), teacher)
  orders, counts = np.unique(
    np.argsort(found, axis=-1), axis=0, return_counts=True
  )
  assert len(orders) == 6  # 3! of the three other classes
  assert ((counts > 400) & (counts < 600)).all()  # four deviations of 500


def test_permute_dark_knowledge_in_small_and_in_bfloat16():
  alone = losses.permute_dark_knowledge(jax.random.key(0), jnp.zeros((2, 1)))
  np.testing.assert_array_equal(alone, 1)
  half = jnp.array(TEACHER, jnp.bfloat16)
  found = losses.permute_dark_knowledge(jax.random.key(0), half)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


def test_cross_entropy_to_the_permuted_teacher():
  key, teacher = jax.random.key(3), jnp.array(TEACHER)
  student = jnp.asarray(random.normal(size=teacher.shape), jnp.float32)
  found = losses.permuted_soft_cross_entropy(key, student, teacher)
  p = np.asarray(losses.permute_dark_knowledge(key, teacher))
  expected = -(p * np.log(softmax(np.asarray(student)))).sum(-1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  # Where all wrong classes are alike there is nothing to shuffle.
  even = jnp.eye(4, dtype=jnp.float32)
  np.testing.assert_allclose(
    losses.permuted_soft_cross_entropy(key, even, even),
    losses.soft_cross_entropy(even, even),
    rtol=1e-6,
  )


def test_error_weights_by_hand():
  errors = jnp.array([0.0, 0.5, 1.0, 3.0, -1.0])
  found = losses.error_weights(errors, gamma=2.0)
  expected = [1, np.exp(-1), np.exp(-2), np.exp(-2), 1]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  np.testing.assert_array_equal(losses.error_weights(errors, gamma=0.0), 1)
  order = np.argsort(errors)
  assert (np.diff(found[order]) <= 0).all()  # never more for a larger error


def test_fusion_by_hand():
  teachers = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
  weights = jnp.array([1.0, 3.0])
  found = losses.mean_probabilities(teachers)
  np.testing.assert_allclose(found, [[0.7, 0.3]], rtol=1e-6)
  found = losses.mean_probabilities(teachers, weights=weights)
  np.testing.assert_allclose(found, [[0.8, 0.2]], rtol=1e-6)
  found = losses.geometric_mean(teachers)  # √(9) to 1
  np.testing.assert_allclose(found, [[0.75, 0.25]], rtol=1e-6)
  found = losses.mean_logits(teachers)
  np.testing.assert_allclose(found, np.log([[0.45**0.5, 0.05**0.5]]), rtol=1e-6)


def test_fusion_of_one_teacher_is_that_teacher():
  one = jnp.array(TEACHERS[:1])
  p = softmax(TEACHERS[0] / 3)
  for fuse in losses.mean_probabilities, losses.geometric_mean:
    np.testing.assert_allclose(fuse(one, temperature=3.0), p, rtol=1e-5)
  np.testing.assert_allclose(losses.mean_logits(one), one[0], rtol=1e-6)
  same = jnp.concatenate([one, one, one])
  found = losses.mean_probabilities(same, weights=jnp.array([0.2, 3.0, 1.0]))
  np.testing.assert_allclose(found, softmax(TEACHERS[0]), rtol=1e-5)


def test_geometric_mean_is_the_softmax_of_mean_logits():
  logits = losses.mean_logits(jnp.array(TEACHERS), weights=jnp.array(WEIGHTS))
  found = losses.geometric_mean(
    jnp.array(TEACHERS), weights=jnp.array(WEIGHTS), temperature=2.0
  )
  np.testing.assert_allclose(found, jax.nn.softmax(logits / 2), rtol=1e-5)


def test_targets_go_back_into_a_loss_as_logits():
  """T log p are logits whose softmax at T is p."""
  p = losses.mean_probabilities(jnp.array(TEACHERS), temperature=4.0)
  z = jnp.array(TEACHER)
  found = losses.soft_cross_entropy(z, 4 * jnp.log(p), temperature=4.0)
  each = [
    losses.soft_cross_entropy(z, jnp.array(v), temperature=4.0)
    for v in TEACHERS
  ]
  np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)


def test_weights_of_each_example():
  teachers = jnp.array(TEACHERS)
  each = np.random.default_rng(5).uniform(0.1, 2, (B, len(TEACHERS)))
  for fuse in (
    losses.mean_probabilities,
    losses.mean_logits,
    losses.geometric_mean,
  ):
    found = fuse(teachers, weights=jnp.array(each))
    alone = [
      fuse(teachers[:, b : b + 1], weights=jnp.array(each[b]))[0]
      for b in range(B)
    ]
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_confidence_weights_by_hand():
  labels = np.arange(B) % K
  found = losses.confidence_weights(jnp.array(TEACHERS), jnp.array(labels))
  gap = -np.log(softmax(TEACHERS)[:, np.arange(B), labels])
  want = (1 - np.exp(gap) / np.exp(gap).sum(0)) / (len(TEACHERS) - 1)
  np.testing.assert_allclose(found, want.T, rtol=1e-5)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
  sure = 1e4 * jnp.eye(3)[:, None]  # only the second knows the label
  found = losses.confidence_weights(sure, jnp.array([1]))
  np.testing.assert_allclose(found, [[0.25, 0.5, 0.25]], rtol=1e-5)
  with pytest.raises(ValueError, match='two or more'):
    losses.confidence_weights(sure[:1], jnp.array([1]))


def test_any_leading_axes():
  teachers = jnp.array(TEACHERS)
  pixels = jnp.stack([teachers, teachers[:, ::-1]], axis=1)
  for fuse in (
    losses.mean_probabilities,
    losses.mean_logits,
    losses.geometric_mean,
    losses.majority_vote,
  ):
    one = fuse(teachers)
    np.testing.assert_allclose(fuse(pixels), [one, one[::-1]], rtol=1e-5)


def test_majority_vote():
  a, b, c = np.eye(3)
  teachers = jnp.array(
    [
      [a, a, 9 * b, 5 * a],
      [a, b, a, 5 * a],
      [b, b, a, 5 * b],
      [c, a, 3 * b, 6 * b],
    ]
  )
  # Two of four; a tie of even probabilities to the first; a tie to the more
  # probable; and a tie with b ahead.
  found = jax.jit(losses.majority_vote)(teachers)
  assert found.dtype == jnp.int32
  assert found.tolist() == [0, 0, 1, 1]
  # The most votes win over the largest mean probability.
  sure = jnp.array([[9 * a], [0.1 * b], [0.1 * b]])
  assert losses.majority_vote(sure).tolist() == [1]
  expected = []
  for b in range(B):
    votes = np.bincount(TEACHERS[:, b].argmax(-1), minlength=K)
    mean = softmax(TEACHERS[:, b]).mean(0)
    expected.append(max(range(K), key=lambda k, v=votes, m=mean: (v[k], m[k])))
  assert losses.majority_vote(jnp.array(TEACHERS)).tolist() == expected


# Fusion of specialists: subsets of three, two and four of six classes.
SUBSETS = np.array(
  [[1, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [1, 0, 1, 1, 1, 0]], bool
)
GENERALIST = 2 * random.normal(size=(4, 6))
SPECIALISTS = 2 * random.normal(size=(3, 4, 5))
ACTIVE = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1]], bool)


def divergence(p, q):
  return (p * np.log(p / q)).sum()


def objective(q, b, active=ACTIVE):
  """What fuse_specialists minimises, written out for one example."""
  total = divergence(softmax(GENERALIST[b]), q)
  for m, subset in enumerate(SUBSETS):
    if active[m, b]:
      size = subset.sum()
      logits = np.append(SPECIALISTS[m, b, :size], SPECIALISTS[m, b, -1])
      total += divergence(
        softmax(logits), np.append(q[subset], q[~subset].sum())
      )
  return total


def fuse(**kw):
  function = functools.partial(losses.fuse_specialists, **kw)
  return quick(function)(
    jnp.array(GENERALIST), jnp.array(SPECIALISTS), jnp.array(SUBSETS)
  )


@pytest.fixture(scope='module')
def fused():
  return np.asarray(fuse(active=jnp.array(ACTIVE)), np.float64)


def test_fuse_specialists_is_the_minimum(fused):
  np.testing.assert_allclose(np.exp(fused).sum(-1), 1, rtol=1e-5)
  for b in range(len(fused)):
    best = scipy.optimize.minimize(
      lambda s, b=b: objective(softmax(s), b), np.zeros(6), tol=1e-9
    )
    np.testing.assert_allclose(softmax(best.x), np.exp(fused[b]), atol=2e-5)
    assert objective(np.exp(fused[b]), b) <= best.fun + 1e-6
  # No one was asked about the third: it is what the generalist says.
  np.testing.assert_allclose(
    np.exp(fused[2]), softmax(GENERALIST[2]), rtol=1e-5
  )


def test_no_step_of_fuse_specialists_makes_it_worse():
  values = []
  for steps in 1, 2, 5, 30:
    q = np.exp(np.asarray(fuse(active=jnp.array(ACTIVE), steps=steps)))
    values.append([objective(q[b], b) for b in range(4)])
  start = [objective(softmax(GENERALIST[b]), b) for b in range(4)]
  assert (np.diff([start, *values], axis=0) < 1e-6).all()


def test_fuse_specialists_by_hand():
  generalist = jnp.log(jnp.array([[0.4, 0.4, 0.2]]))
  specialists = jnp.log(jnp.array([[[0.6, 0.2, 0.2]]]))
  subsets = jnp.array([[True, True, False]])
  found = losses.fuse_specialists(generalist, specialists, subsets)
  # The dustbin holds one class, so q is the mean of the two.
  np.testing.assert_allclose(jnp.exp(found), [[0.5, 0.3, 0.2]], rtol=1e-5)
  # A specialist that agrees with the generalist changes nothing.
  agrees = jnp.log(jnp.array([[[0.4, 0.4, 0.2]]]))
  found = losses.fuse_specialists(generalist, agrees, subsets)
  np.testing.assert_allclose(found, generalist, rtol=1e-5)


def test_specialists_are_asked_about_what_the_generalist_chose():
  first = GENERALIST.argmax(-1)
  active = np.array([[s[k] for k in first] for s in SUBSETS])
  assert active.any()
  assert not active.all()
  np.testing.assert_allclose(
    fuse(), fuse(active=jnp.array(active)), rtol=1e-5, atol=1e-6
  )


def test_those_who_are_not_asked_can_be_left_out():
  """With as many as are asked it is the same, and one is exact at once."""
  want = fuse(active=jnp.array(ACTIVE))
  np.testing.assert_allclose(
    fuse(active=jnp.array(ACTIVE), most=3), want, rtol=1e-6
  )
  two = ACTIVE.copy()
  two[0] = False
  np.testing.assert_allclose(
    fuse(active=jnp.array(two), most=2),
    fuse(active=jnp.array(two)),
    rtol=1e-5,
    atol=1e-6,
  )
  one = np.eye(3, 4, dtype=bool)
  np.testing.assert_allclose(
    fuse(active=jnp.array(one), most=1),
    fuse(active=jnp.array(one)),
    rtol=1e-5,
    atol=1e-5,
  )
  with pytest.raises(ValueError, match='most must be 3 or more'):
    losses.fuse_specialists(
      jnp.array(GENERALIST),
      jnp.array(SPECIALISTS),
      jnp.array(SUBSETS),
      active=jnp.array(ACTIVE),
      most=2,
    )


def test_padding_of_small_subsets_is_not_read(fused):
  padded = SPECIALISTS.copy()
  padded[0, :, 3:-1] = np.nan
  padded[1, :, 2:-1] = np.nan

  def total(specialists):
    found = losses.fuse_specialists(
      jnp.array(GENERALIST),
      specialists,
      jnp.array(SUBSETS),
      active=jnp.array(ACTIVE),
      steps=5,
    )
    return jnp.sum(jnp.sin(found)), found

  grad = quick(jax.grad(total, has_aux=True))
  slope, found = grad(jnp.array(padded))
  expected_slope, expected = grad(jnp.array(SPECIALISTS))
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(slope, expected_slope)
  assert np.isfinite(slope).all()
  assert not slope[0, :, 3:-1].any()


def test_fuse_specialists_where_it_is_hard():
  """Sure and opposed, a specialist of all classes, and one of none."""
  generalist = 1e4 * jnp.eye(3)[:2]
  specialists = 1e4 * jnp.stack([jnp.eye(4)[:2], jnp.eye(4)[1:3]])
  subsets = jnp.array([[True, True, True], [False, False, False]])

  def total(*x):
    found = losses.fuse_specialists(
      *x, subsets, active=jnp.ones((2, 2), bool), steps=4
    )
    return jnp.sum(found), found

  slopes, found = quick(jax.grad(total, argnums=(0, 1), has_aux=True))(
    generalist, specialists
  )
  assert np.isfinite(found).all()
  for slope in slopes:
    assert np.isfinite(slope).all()
  np.testing.assert_allclose(jnp.exp(found), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


def test_fuse_specialists_under_vmap_and_in_bfloat16(fused):
  arrays = jnp.array(GENERALIST), jnp.array(SPECIALISTS)
  doubled = [jnp.stack([x, 0.5 * x]) for x in arrays]
  function = functools.partial(
    losses.fuse_specialists,
    subsets=jnp.array(SUBSETS),
    active=jnp.array(ACTIVE),
  )
  found = quick(jax.vmap(function))(*doubled)
  np.testing.assert_allclose(found[0], fused, rtol=1e-4, atol=1e-5)
  half = quick(function)(*(x.astype(jnp.bfloat16) for x in arrays))
  assert half.dtype == jnp.float32
  np.testing.assert_allclose(half, fused, atol=0.1)


Z, V, KEY = jnp.array(TEACHER), jnp.array(TEACHERS), jax.random.key(0)
G, S, M = jnp.array(GENERALIST), jnp.array(SPECIALISTS), jnp.array(SUBSETS)
BAD = {
  'labels': (
    lambda: losses.teacher_is_correct(Z, jnp.zeros(3, int)),
    r'labels must be int\[...\] with ...=\(5,\) as in teacher, not int32\[3\]',
  ),
  'integers': (
    lambda: losses.teacher_confidence(jnp.zeros((2, 2), int)),
    'teacher must be float',
  ),
  'rank': (
    lambda: losses.permute_dark_knowledge(KEY, V),
    r'teacher must be float\[B, K\], not float32\[3, 5, 4\]',
  ),
  'gamma': (
    lambda: losses.error_weights(Z, gamma=-1.0),
    'gamma must be a number of at least 0, not -1.0',
  ),
  'weights': (
    lambda: losses.mean_probabilities(V, weights=jnp.ones(2)),
    r'weights must be float\[T\] or None with T=3 as in teachers, not float32',
  ),
  'no teachers': (
    lambda: losses.mean_logits(V[:0]),
    r'teachers must not be empty, not \(0, 5, 4\)',
  ),
  'one teacher without its axis': (
    lambda: losses.majority_vote(Z[0]),
    r'teachers must be float\[T, ..., K\], not float32\[4\]',
  ),
  'temperature': (
    lambda: losses.geometric_mean(V, temperature=0),
    'temperature must be a number above 0, not 0',
  ),
  'specialists': (
    lambda: losses.fuse_specialists(G, S[:, :2], M),
    r'specialists must be float\[M, B, S \+ 1\] with B=4 as in generalist',
  ),
  'subsets': (
    lambda: losses.fuse_specialists(G, S, M.astype(int)),
    r'subsets must be bool\[M, K\] with M=3 .*, K=6 .*, not int32\[3, 6\]',
  ),
  'room': (
    lambda: losses.fuse_specialists(G, S[..., :4], M),
    r'subsets must have at most 3 classes each, .* \(3, 4, 4\) .*, not 4',
  ),
  'active': (
    lambda: losses.fuse_specialists(G, S, M, active=jnp.ones((4, 3), bool)),
    r'active must be bool\[M, B\] or None with .*, not bool\[4, 3\]',
  ),
  'steps': (
    lambda: losses.fuse_specialists(G, S, M, steps=0),
    'steps must be an int of at least 1, not 0',
  ),
}


@pytest.mark.parametrize('case', BAD.values(), ids=BAD)
def test_bad_input(case):
  call, message = case
  with pytest.raises(ValueError, match=message):
    call()
