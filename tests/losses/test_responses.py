import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.logits import Factored

quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)
B, K = 5, 4
random = np.random.default_rng(0)
STUDENT = 2 * random.normal(size=(B, K))
TEACHER = 3 * random.normal(size=(B, K))
LABELS = np.array([0, 3, 1, 1, 2], np.int32)

Z, V, Y = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)


def softmax(x, temperature=1.0):
  e = np.exp((x - x.max(-1, keepdims=True)) / temperature)
  return e / e.sum(-1, keepdims=True)


def divergence(p, q):
  return (p * np.log(p / q)).sum(-1)


def np_kl(z, v, temperature):
  return temperature**2 * divergence(
    softmax(v, temperature), softmax(z, temperature)
  )


def np_binary_kl(z, v, temperature):
  p, q = (1 / (1 + np.exp(-x / temperature)) for x in (v, z))
  each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  return temperature**2 * each.sum(-1)


def np_jensen_shannon(z, v, beta, temperature):
  p, q = softmax(v, temperature), softmax(z, temperature)
  m = beta * p + (1 - beta) * q
  return temperature**2 * (
    beta * divergence(p, m) + (1 - beta) * divergence(q, m)
  )


def np_skewed_kl(z, v, alpha, temperature):
  p, q = softmax(v, temperature), softmax(z, temperature)
  return temperature**2 * divergence(p, alpha * p + (1 - alpha) * q)


def np_total_variation(z, v, temperature):
  return abs(softmax(v, temperature) - softmax(z, temperature)).sum(-1) / 2


def np_universal_logit_distance(z, v, temperature):
  found = []
  for q, p in zip(
    softmax(z, temperature), softmax(v, temperature), strict=True
  ):
    q, p = sorted(q, reverse=True), sorted(p, reverse=True)
    most = max(len(q), len(p))
    q, p = (np.pad(x, (0, most - len(x))) for x in (q, p))
    found.append(abs(q - p).sum())
  return np.array(found)


def np_soft_cross_entropy(z, v, temperature):
  log_q = np.log(softmax(z, temperature))
  return -(temperature**2) * (softmax(v, temperature) * log_q).sum(-1)


def np_top_k_kl(z, v, k, temperature, tail='bucket'):
  loss = []
  for p, q in zip(
    softmax(v, temperature), softmax(z, temperature), strict=True
  ):
    top = sorted(range(len(p)), key=lambda j: -p[j])[:k]
    if tail == 'uniform':
      others = np.delete(np.arange(len(p)), top)
      p[others] = p[others].mean()
    else:
      p, q = p[top], q[top]
    if tail == 'renormalize':
      p, q = p / p.sum(), q / q.sum()
    elif tail == 'bucket':
      p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
    loss.append(temperature**2 * divergence(p, q))
  return np.array(loss)


def np_decoupled_kl(z, v, labels, alpha, beta, temperature):
  loss = []
  for p, q, y in zip(
    softmax(v, temperature), softmax(z, temperature), labels, strict=True
  ):
    target = divergence(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
    p, q = np.delete(p, y), np.delete(q, y)
    others = divergence(p / p.sum(), q / q.sum())
    loss.append(temperature**2 * (alpha * target + beta * others))
  return np.array(loss)


def np_dist(z, v, beta, gamma, temperature):
  p, q = softmax(v, temperature), softmax(z, temperature)
  inter = np.array(
    [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
  )
  intra = np.mean(
    [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
  )
  return temperature**2 * (beta * inter + gamma * intra)


def np_standardize(x):
  return (x - x.mean(-1, keepdims=True)) / (
    x.std(-1, ddof=1, keepdims=True) + 1e-7
  )


def np_cross_entropy(z, labels, label_smoothing=0.0):
  u = np.eye(z.shape[-1])[labels] * (1 - label_smoothing)
  return -((u + label_smoothing / z.shape[-1]) * np.log(softmax(z))).sum(-1)


def np_weighted_cross_entropy(z, labels, label_smoothing, class_weights):
  u = np.eye(z.shape[-1])[labels] * (1 - label_smoothing)
  u = (u + label_smoothing / z.shape[-1]) * np.array(class_weights)
  return -(u * np.log(softmax(z))).sum(-1)


def np_binary_cross_entropy(
  z, labels, label_smoothing=0.0, class_weights=1, positive_weights=1
):
  q = 1 / (1 + np.exp(-z))
  u = (1 - label_smoothing) * labels + label_smoothing / 2
  yes = np.array(positive_weights) * u * np.log(q)
  each = np.array(class_weights) * (yes + (1 - u) * np.log(1 - q))
  return -each.sum(-1)


def np_weighted_soft_labels(z, v, labels, temperature):
  ratio = np_cross_entropy(z, labels) / np_cross_entropy(v, labels)
  return (1 - np.exp(-ratio)) * np_soft_cross_entropy(z, v, temperature)


def np_virtual_teacher(z, labels, correct, temperature, variant='paper'):
  u = np.full(z.shape, (1 - correct) / (z.shape[-1] - 1))
  np.put_along_axis(u, labels[..., None], correct, axis=-1)
  u = softmax(u, temperature)
  if variant == 'code':
    return divergence(u, softmax(z)) / z.shape[-1]
  return temperature**2 * divergence(u, softmax(z, temperature))


def np_multi_level_logits(z, v, temperatures):
  loss = np.zeros(len(z))
  for t in temperatures:
    p, q = softmax(v, t), softmax(z, t)
    loss += t**2 * divergence(p, q)
    for b in range(len(z)):
      loss[b] += sum((q[b] @ q[a] - p[b] @ p[a]) ** 2 for a in range(len(z)))
    for i in range(z.shape[1]):
      for j in range(z.shape[1]):
        gap = q[:, i] @ q[:, j] - p[:, i] @ p[:, j]
        loss += gap**2 / z.shape[1]
  return loss


WEIGHTS = tuple(np.linspace(0.5, 2.0, K).tolist())
SEVERAL = (STUDENT + TEACHER > 0).astype(np.int32)  # labels of each class
BOTH, LABELLED = [STUDENT, TEACHER], [STUDENT, TEACHER, LABELS]
CASES = {
  'kl': (losses.kl, np_kl, BOTH, dict(temperature=4.0)),
  'reverse_kl': (
    losses.reverse_kl,
    lambda z, v, temperature: np_kl(v, z, temperature),
    BOTH,
    dict(temperature=2.0),
  ),
  'binary_kl': (losses.binary_kl, np_binary_kl, BOTH, dict(temperature=2.0)),
  'jensen_shannon': (
    losses.jensen_shannon,
    np_jensen_shannon,
    BOTH,
    dict(beta=0.3, temperature=2.0),
  ),
  'skewed_kl': (
    losses.skewed_kl,
    np_skewed_kl,
    BOTH,
    dict(alpha=0.2, temperature=2.0),
  ),
  'skewed_reverse_kl': (
    losses.skewed_reverse_kl,
    lambda z, v, **options: np_skewed_kl(v, z, **options),
    BOTH,
    dict(alpha=0.2, temperature=2.0),
  ),
  'total_variation': (
    losses.total_variation,
    np_total_variation,
    BOTH,
    dict(temperature=2.0),
  ),
  'universal_logit_distance': (
    losses.universal_logit_distance,
    np_universal_logit_distance,
    [STUDENT, np.hstack([TEACHER, STUDENT[::-1] - 1])],  # 2 K classes
    dict(temperature=2.0),
  ),
  'soft_cross_entropy': (
    losses.soft_cross_entropy,
    np_soft_cross_entropy,
    BOTH,
    dict(temperature=3.0),
  ),
  'logit_mse': (
    losses.logit_mse,
    lambda z, v: ((z - v) ** 2).mean(-1),
    BOTH,
    {},
  ),
  'probability_mse': (
    losses.probability_mse,
    lambda z, v: ((softmax(z) - softmax(v)) ** 2).mean(-1),
    BOTH,
    {},
  ),
  'top_k_kl': (losses.top_k_kl, np_top_k_kl, BOTH, dict(k=2, temperature=2.0)),
  **{
    f'top_k_kl_{tail}': (
      losses.top_k_kl,
      np_top_k_kl,
      BOTH,
      dict(k=2, temperature=2.0, tail=tail),
    )
    for tail in ('renormalize', 'uniform', 'drop')
  },
  'decoupled_kl': (
    losses.decoupled_kl,
    np_decoupled_kl,
    LABELLED,
    dict(alpha=1.5, beta=6.0, temperature=3.0),
  ),
  'dist': (
    losses.dist,
    np_dist,
    BOTH,
    dict(beta=2.0, gamma=0.5, temperature=3.0),
  ),
  'standardize': (losses.standardize, np_standardize, [STUDENT], {}),
  'weighted_soft_labels': (
    losses.weighted_soft_labels,
    np_weighted_soft_labels,
    LABELLED,
    dict(temperature=2.0),
  ),
  'virtual_teacher': (
    losses.virtual_teacher,
    np_virtual_teacher,
    [STUDENT, LABELS],
    dict(correct=0.9, temperature=5.0),
  ),
  'virtual_teacher_code': (
    losses.virtual_teacher,
    np_virtual_teacher,
    [STUDENT, LABELS],
    dict(correct=0.9, temperature=5.0, variant='code'),
  ),
  'cross_entropy': (
    losses.cross_entropy,
    np_cross_entropy,
    [STUDENT, LABELS],
    dict(label_smoothing=0.2),
  ),
  'cross_entropy_weighted': (
    losses.cross_entropy,
    np_weighted_cross_entropy,
    [STUDENT, LABELS],
    dict(label_smoothing=0.2, class_weights=WEIGHTS),
  ),
  'binary_cross_entropy': (
    losses.binary_cross_entropy,
    np_binary_cross_entropy,
    [STUDENT, SEVERAL],
    {},
  ),
  'binary_cross_entropy_weighted': (
    losses.binary_cross_entropy,
    np_binary_cross_entropy,
    [STUDENT, SEVERAL],
    dict(
      label_smoothing=0.1, class_weights=WEIGHTS, positive_weights=WEIGHTS[::-1]
    ),
  ),
  'pseudo_label': (
    losses.pseudo_label,
    lambda z, v: np_cross_entropy(z, v.argmax(-1)),
    BOTH,
    {},
  ),
  'multi_level_logits': (
    losses.multi_level_logits,
    np_multi_level_logits,
    BOTH,
    dict(temperatures=(2.0, 4.0)),
  ),
}
ALL = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


@ALL
def test_is_its_formula(case, agrees):
  agrees(*case, rtol=5e-5, atol=1e-5)  # T² magnifies a rounding of 1e-7


DETACHED = 'weighted_soft_labels'  # its weight, which has a test of its own


@pytest.mark.parametrize('name', [n for n in CASES if n != DETACHED])
def test_has_the_gradient_of_its_differences(name, slopes):
  loss, _, arrays, options = CASES[name]
  slopes(loss, arrays, options)


@ALL
def test_under_jit_and_vmap(case, transforms):
  loss, _, arrays, options = case
  transforms(loss, arrays, options)


HARD = {
  'equal': (STUDENT, STUDENT),
  'zero': (0 * STUDENT, 0 * STUDENT),
  'zero student': (0 * STUDENT, TEACHER),
  'duplicates': (STUDENT[[0, 0, 1, 1, 1]], TEACHER[[2, 2, 1, 1, 1]]),
  'sure': (1e4 * np.sign(STUDENT), 1e4 * np.sign(TEACHER)),
  'one-hot and opposed': (
    1e4 * (2 * np.eye(K)[LABELS] - 1),
    1e4 * (2 * np.eye(K)[LABELS - 1] - 1),
  ),
  'one-hot and equal': (1e4 * np.eye(K)[LABELS], 1e4 * np.eye(K)[LABELS]),
}


@ALL
def test_is_finite_where_it_is_hard(case, finite):
  loss, _, arrays, options = case
  many = {}
  for name, logits in HARD.items():
    logits = iter(logits)
    many[name] = [next(logits) if x.dtype == float else x for x in arrays]
  finite(loss, many, options)


def test_by_hand():
  @quick
  def all_of(q, p):  # the student and the teacher
    first, second = jnp.array([0]), jnp.array([1])
    return {
      'kl': losses.kl(q, p),
      'reverse_kl': losses.reverse_kl(q, p),
      'binary_kl': losses.binary_kl(q, p),
      'jensen_shannon': losses.jensen_shannon(q, p),
      'skewed_kl': losses.skewed_kl(q, p, alpha=0.5),
      'skewed_reverse_kl': losses.skewed_reverse_kl(q, p, alpha=0.5),
      'total_variation': losses.total_variation(q, p),
      'soft_cross_entropy': losses.soft_cross_entropy(q, p),
      'logit_mse': losses.logit_mse(q, p),
      'probability_mse': losses.probability_mse(q, p),
      'top_k_kl': losses.top_k_kl(q, p, k=1),
      'renormalize': losses.top_k_kl(q, p, k=1, tail='renormalize'),
      'drop': losses.top_k_kl(q, p, k=1, tail='drop'),
      'decoupled_kl': losses.decoupled_kl(q, p, first, temperature=1.0),
      'dist': losses.dist(q, p),
      'weighted': losses.weighted_soft_labels(q, p, second, temperature=1.0),
      'cross_entropy': losses.cross_entropy(p, second),
      'smoothed': losses.cross_entropy(p, second, label_smoothing=0.5),
      'pseudo_label': losses.pseudo_label(q, p),
      'mlkd': losses.multi_level_logits(q, p, temperatures=(1.0,)),
      'virtual': losses.virtual_teacher(
        q, first, correct=0.75, temperature=1.0
      ),
      'code': losses.virtual_teacher(
        q, first, correct=0.75, temperature=1.0, variant='code'
      ),
    }

  log = np.log
  kl = 0.75 * log(3 / 2) + 0.25 * log(1 / 2)
  soft = 1 / (1 + np.exp(-0.5))  # softmax of the virtual (3/4, 1/4)
  virtual = log(2) + soft * log(soft) + (1 - soft) * log(1 - soft)
  expected = {
    'kl': kl,
    'reverse_kl': log(4 / 3) / 2,
    'binary_kl': (  # sigmoids of 1/3, 1/3; 3/7 and 1/5
      (3 * log(9 / 7) + 4 * log(6 / 7)) / 7 + (log(3 / 5) + 4 * log(6 / 5)) / 5
    ),
    'jensen_shannon': (  # m = (5/8, 3/8)
      0.75 * log(6 / 5) + 0.25 * log(2 / 3) + log(4 / 5) / 2 + log(4 / 3) / 2
    )
    / 2,
    'skewed_kl': 0.75 * log(6 / 5) + 0.25 * log(2 / 3),
    'skewed_reverse_kl': log(4 / 5) / 2 + log(4 / 3) / 2,
    'total_variation': 0.25,
    'soft_cross_entropy': log(2),
    'logit_mse': (log(3 / 2) ** 2 + log(2) ** 2) / 2,
    'probability_mse': 1 / 16,
    'top_k_kl': kl,
    'renormalize': 0,
    'drop': 0.75 * log(3 / 2),
    'decoupled_kl': kl,  # with two classes there is nothing to rank
    'dist': 2,  # a constant correlates with nothing, twice
    'weighted': (1 - np.exp(-1 / 2)) * log(2),  # log 2 / log 4
    'cross_entropy': log(4),
    'smoothed': 0.75 * log(4) + 0.25 * log(4 / 3),
    'pseudo_label': log(2),
    'mlkd': kl  # qᵀq of 1/4; pᵀp of 9/16, 3/16, 3/16, 1/16; 1/2 and 5/8
    + (1 / 8) ** 2
    + ((5 / 16) ** 2 + 2 * (1 / 16) ** 2 + (3 / 16) ** 2) / 2,
    'virtual': virtual,
    'code': virtual / 2,
  }
  found = all_of(
    jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.75, 0.25]]))
  )
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(
      found[name], [value], rtol=1e-5, atol=1e-7, err_msg=name
    )
  np.testing.assert_allclose(
    losses.standardize(jnp.array([1.0, 2.0, 3.0])), [-1, 0, 1], rtol=1e-6
  )


ZERO_AT_EQUALITY = [
  'kl',
  'reverse_kl',
  'binary_kl',
  'jensen_shannon',
  'skewed_kl',
  'skewed_reverse_kl',
  'total_variation',
  'logit_mse',
  'probability_mse',
  'top_k_kl',
  'top_k_kl_renormalize',
  'decoupled_kl',
  'dist',
  'multi_level_logits',
]


@pytest.mark.parametrize('name', ZERO_AT_EQUALITY)
def test_is_zero_and_flat_for_a_student_that_is_the_teacher(name, evaluate):
  loss, _, (_, *rest), options = CASES[name]
  value, slopes = evaluate(loss, [TEACHER, *rest], options)
  np.testing.assert_allclose(value, 0, atol=1e-5)
  np.testing.assert_allclose(slopes[0], 0, atol=1e-5)
  value, _ = evaluate(loss, [-TEACHER, *rest], options)
  assert (value > 0.01).all()


def test_known_values_where_a_student_is_the_teacher(evaluate):
  def at(name):
    loss, _, (_, *rest), options = CASES[name]
    value, slopes = evaluate(loss, [TEACHER, *rest], options)
    p = softmax(TEACHER, options.get('temperature', 1.0))
    entropy = -(p * np.log(p)).sum(-1)
    return value, slopes[0], options.get('temperature', 1.0) ** 2 * entropy

  value, slope, entropy = at('soft_cross_entropy')
  np.testing.assert_allclose(value, entropy, rtol=1e-5)
  np.testing.assert_allclose(slope, 0, atol=1e-5)  # its minimum
  value, _, entropy = at('weighted_soft_labels')
  np.testing.assert_allclose(value, entropy * (1 - np.exp(-1)), rtol=1e-5)
  value, _, _ = at('pseudo_label')
  expected = -np.log(softmax(TEACHER).max(-1))
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  # The least of a virtual teacher is 0, at its own distribution.
  loss, _, _, options = CASES['virtual_teacher']
  made = np.where(np.eye(K, dtype=bool)[LABELS], 0.9, 0.1 / (K - 1))
  value, slopes = evaluate(loss, [made, LABELS], options)
  np.testing.assert_allclose(value, 0, atol=1e-4)
  np.testing.assert_allclose(slopes[0], 0, atol=1e-4)


def test_kl_tends_to_the_regression_of_logits(x64, evaluate):
  """Section 2.1 of the paper: 1/(N T²) (z - v), for centred logits."""
  z, v = (x - x.mean(-1, keepdims=True) for x in BOTH)
  value, slopes = evaluate(losses.kl, [z, v], {'temperature': 1e4}, jnp.float64)
  np.testing.assert_allclose(value, ((z - v) ** 2).mean(-1) / 2, rtol=1e-3)
  slope = slopes[0] / np.cos(value)[:, None]
  np.testing.assert_allclose(slope, (z - v) / K, rtol=5e-3, atol=1e-4)


def test_temperature_squared_holds_the_size_of_the_gradient(evaluate):
  @quick
  def sizes(t):
    def of(loss):
      slope = jax.grad(lambda z: loss(z, V, temperature=t).mean())(Z)
      return jnp.sqrt(jnp.sum(slope**2))

    return [
      of(losses.kl),
      of(losses.reverse_kl),
      of(losses.soft_cross_entropy),
    ]

  ratio = np.divide(sizes(20.0), sizes(40.0))
  assert ((ratio > 0.8) & (ratio < 1.25)).all()


def test_kl_is_summed_over_classes_and_not_over_the_batch(evaluate):
  """The mean is over the batch alone, and does not grow with it."""
  loss, _, _, options = CASES['kl']
  p = softmax(TEACHER, options['temperature'])
  q = softmax(STUDENT, options['temperature'])
  value, _ = evaluate(loss, BOTH, options)
  by_sums = 16 * (p * (np.log(p) - np.log(q))).sum() / B
  np.testing.assert_allclose(value.mean(), by_sums, rtol=1e-5)
  # Ten times the classes, none of which any one believes in: no 1/K in it.
  no = np.full((B, 9 * K), -1e4)
  wide, _ = evaluate(loss, [np.hstack([x, no]) for x in BOTH], options)
  np.testing.assert_allclose(wide, value, rtol=1e-5)


def test_a_class_at_minus_infinity_is_no_class():
  """As in a vocabulary that is padded to a round number."""

  @quick
  def all_of(z, v):
    def value(z, v):
      loss = [
        losses.kl(z, v, temperature=2.0),
        losses.reverse_kl(z, v, temperature=2.0),
        losses.binary_kl(z, v, temperature=2.0),
        losses.jensen_shannon(z, v, beta=0.3, temperature=2.0),
        losses.total_variation(z, v, temperature=2.0),
        losses.soft_cross_entropy(z, v, temperature=2.0),
        losses.decoupled_kl(z, v, Y, alpha=1.0, beta=2.0, temperature=2.0),
      ]
      return jnp.sum(jnp.stack(loss)), loss

    return jax.grad(value, argnums=(0, 1), has_aux=True)(z, v)

  pad = jnp.full((B, 1), -jnp.inf)
  slopes, found = all_of(jnp.hstack([Z, pad]), jnp.hstack([V, pad]))
  expected = [
    np_kl(*BOTH, 2.0),
    np_kl(TEACHER, STUDENT, 2.0),
    np_binary_kl(*BOTH, 2.0),
    np_jensen_shannon(*BOTH, 0.3, 2.0),
    np_total_variation(*BOTH, 2.0),
    np_soft_cross_entropy(*BOTH, 2.0),
    np_decoupled_kl(*LABELLED, 1.0, 2.0, 2.0),
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
  for slope in slopes:
    assert np.isfinite(slope).all()
    assert not slope[:, K].any()


def test_jensen_shannon_at_its_ends_and_in_between():
  @quick
  @jax.vmap
  def js(beta):  # traced, as in a population
    value = lambda beta: losses.jensen_shannon(Z, V, beta=beta)  # noqa: E731
    return value(beta), jax.grad(lambda b: value(b).sum())(beta)

  betas = np.array([0.0, 1e-3, 0.3, 0.5, 1.0])
  found, slopes = js(betas)
  forward, reverse = np_kl(*BOTH, 1.0), np_kl(TEACHER, STUDENT, 1.0)
  np.testing.assert_allclose(found[0], forward, rtol=1e-4)
  np.testing.assert_allclose(found[4], reverse, rtol=1e-4)
  inner = np_jensen_shannon(*BOTH, 0.3, 1.0)
  np.testing.assert_allclose(found[2], inner, rtol=1e-4)
  assert np.isfinite(slopes).all()
  # Next to an end it goes to 0 and not to the end's value: over the share of
  # the teacher, it is the forward divergence.
  assert found[1].max() < 0.01 < found[0].max()
  np.testing.assert_allclose(found[1] / 1e-3, forward, rtol=0.05)

  @quick
  def others(z, v):
    far = 1e4 * jnp.eye(2)
    return [
      losses.jensen_shannon(z, v, beta=0.0),
      losses.jensen_shannon(z, v, beta=1.0),
      losses.jensen_shannon(v, z),
    ], losses.jensen_shannon(far, far[::-1])

  ends, bound = others(Z, V)
  np.testing.assert_allclose(ends, found[np.array([0, 4, 3])], rtol=1e-4)
  np.testing.assert_allclose(bound, np.log(2), rtol=1e-6)


def test_the_universal_distance_does_not_ask_what_classes_mean(evaluate):
  loss, _, _, options = CASES['universal_logit_distance']
  order = np.arange(K)[::-1]
  found, _ = evaluate(loss, [TEACHER, TEACHER[:, order]], options)
  np.testing.assert_allclose(found, 0, atol=1e-6)
  # Nor how many classes there are that neither takes to be likely.
  no = np.full((B, 3), -1e4)
  more, _ = evaluate(loss, [STUDENT, np.hstack([no, TEACHER])], options)
  less, _ = evaluate(loss, [np.hstack([no, STUDENT]), TEACHER], options)
  want = np_universal_logit_distance(*BOTH, **options)
  np.testing.assert_allclose([more, less], [want, want], rtol=1e-5, atol=1e-6)


def test_total_variation_is_bounded():
  far = losses.total_variation(jnp.array([[1e4, 0.0]]), jnp.array([[0.0, 1e4]]))
  assert far.item() == 1


def test_top_k_kl_of_all_classes_is_kl(evaluate):
  for tail in 'bucket', 'renormalize', 'uniform', 'drop':
    options = dict(k=K, tail=tail, temperature=2.0)
    found, _ = evaluate(losses.top_k_kl, BOTH, options)
    np.testing.assert_allclose(found, np_kl(*BOTH, 2.0), rtol=1e-4)


def test_decoupled_kl_recombines_to_kl(evaluate):
  t = 3.0
  p = softmax(TEACHER, t)[np.arange(B), LABELS]

  @quick
  def both():
    target, others = (
      losses.decoupled_kl(Z, V, Y, alpha=a, beta=1.0 - a, temperature=t)
      for a in (1.0, 0.0)
    )
    return target + (1 - p) * others, losses.kl(Z, V, temperature=t)

  found, expected = both()
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_dist_asks_for_a_linear_function_and_not_for_its_opposite(evaluate):
  loss, _, _, options = CASES['dist']
  t, most = options['temperature'], options['beta'] + options['gamma']
  p = softmax(TEACHER, t)
  value, _ = evaluate(loss, [t * np.log(0.3 * p + 0.7 / K), TEACHER], options)
  np.testing.assert_allclose(value, 0, atol=1e-4)
  opposed = (0.5 - 0.3 * p) / (0.5 * K - 0.3)
  value, _ = evaluate(loss, [t * np.log(opposed), TEACHER], options)
  np.testing.assert_allclose(value, 2 * most * t**2, rtol=1e-5)


def test_dist_sees_no_correlation_in_rounding(evaluate):
  """Equal probabilities less their mean are not exactly 0 in float32."""
  value, slopes = evaluate(
    losses.dist, [np.full((11, 3), 0.1), random.normal(size=(11, 3))], {}
  )
  np.testing.assert_allclose(value, 2, rtol=1e-6)
  assert not slopes[0].any()


@pytest.mark.parametrize('name', ['dist', 'multi_level_logits'])
def test_where_is_dropping(name, drops):
  loss, _, arrays, options = CASES[name]
  drops(loss, arrays, options)


@pytest.mark.parametrize('name', ['dist', 'multi_level_logits'])
def test_on_eight_devices(name, shards):
  loss, _, _, options = CASES[name]
  logits = np.random.default_rng(2).normal(size=(2, 8, K))
  shards(loss, list(logits), options)


def test_standardized_logits_forget_shift_and_scale(evaluate):
  found, _ = evaluate(losses.standardize, [STUDENT], {})
  np.testing.assert_allclose(np.mean(found, -1), 0, atol=1e-6)
  np.testing.assert_allclose(np.std(found, -1, ddof=1), 1, rtol=1e-5)
  moved, _ = evaluate(losses.standardize, [5 * STUDENT - 3], {})
  np.testing.assert_allclose(moved, found, rtol=1e-4)
  even, slopes = evaluate(losses.standardize, [np.full((2, 13), 0.1)], {})
  assert not even.any()
  assert not slopes[0].any()


def test_no_gradient_through_the_weight_of_weighted_soft_labels():
  @quick
  def both(z, v):
    def weighted(z, v):
      loss = losses.weighted_soft_labels(z, v, LABELS)
      return loss.sum(), loss

    def plain(z, v):
      loss = losses.soft_cross_entropy(z, v, temperature=2.0)
      return loss.sum(), loss

    return [
      jax.grad(f, argnums=(0, 1), has_aux=True)(z, v) for f in (weighted, plain)
    ]

  (found, weighted), (expected, plain) = both(Z, V)
  weight = (weighted / plain)[:, None]
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, weight * b, rtol=1e-4, atol=1e-6)


def test_weighted_soft_labels_of_a_teacher_that_is_sure(evaluate):
  loss, _, _, options = CASES['weighted_soft_labels']
  sure = 1e4 * np.eye(K)[LABELS]
  # Both are right and sure, 0/0 but for the clamp: nothing is left to learn.
  value, _ = evaluate(loss, [sure, sure, LABELS], options)
  assert not value.any()
  # A student that is behind such a teacher has the full weight.
  value, _ = evaluate(loss, [0 * sure, sure, LABELS], options)
  np.testing.assert_allclose(value, 4 * np.log(K), rtol=1e-5)


def test_virtual_teacher_is_all_but_uniform(evaluate):
  """Softening u, and not log u, at a high temperature: label smoothing of 1."""
  options = dict(temperature=20.0, variant='code')
  value, _ = evaluate(losses.virtual_teacher, [STUDENT, LABELS], options)
  flat = -np.log(K) - np.log(softmax(STUDENT)).mean(-1)
  np.testing.assert_allclose(K * value, flat, rtol=0.1)


def test_labels_that_are_no_class_give_nan_and_no_gradient():
  v = jnp.array(TEACHER[:3])
  labels = jnp.array([-1, K, 2])

  @quick
  def all_of(z):
    def value(z):
      loss = [
        losses.cross_entropy(z, labels),
        losses.cross_entropy(z, labels, label_smoothing=0.1),
        losses.virtual_teacher(z, labels),
        losses.decoupled_kl(z, v, labels),
        losses.weighted_soft_labels(z, v, labels),
      ]
      loss = jnp.stack(loss, axis=1)
      return jnp.where(labels[:, None] == 2, loss, 0).sum(), loss

    return jax.grad(value, has_aux=True)(z)

  slope, loss = all_of(jnp.array(STUDENT[:3]))
  assert np.isnan(loss[:2]).all()
  assert np.isfinite(loss[2]).all()
  assert not slope[:2].any()
  assert np.isfinite(slope[2]).all()
  assert slope[2].any()


def test_any_leading_axes(evaluate):
  """Tokens and pixels, for all that do not couple the batch."""
  coupled = 'dist', 'multi_level_logits'
  own_teacher = ('universal_logit_distance',)  # of other classes
  names = [n for n in CASES if n not in (*coupled, *own_teacher)]

  @quick
  def all_of(z, v, labels, several):
    given = {id(STUDENT): z, id(TEACHER): v, id(LABELS): labels}
    given[id(SEVERAL)] = several
    return [
      loss(*(given[id(x)] for x in arrays), **options)
      for loss, _, arrays, options in (CASES[name] for name in names)
    ]

  two = all_of(
    *(jnp.stack([x, x[::-1]]) for x in (Z, V, Y, jnp.array(SEVERAL)))
  )
  for name, found in zip(names, two, strict=True):
    loss, _, arrays, options = CASES[name]
    expected, _ = evaluate(loss, arrays, options)
    np.testing.assert_allclose(
      found[0], expected, rtol=1e-5, atol=1e-5, err_msg=name
    )


def test_half_precision_does_not_overflow():
  @quick
  def both(z, v):
    return losses.kl(z, v), losses.decoupled_kl(z, v, Y), losses.logit_mse(z, v)

  logits = HARD['one-hot and opposed']
  for loss in both(*(jnp.array(x, jnp.float16) for x in logits)):
    assert loss.dtype == jnp.float32
    assert np.isfinite(loss).all()


def test_options_may_be_traced():
  """A population maps over temperatures and weights."""

  @quick
  @jax.vmap
  def all_of(t):
    return [
      losses.kl(Z, V, temperature=t),
      losses.top_k_kl(Z, V, k=2, temperature=t),
      losses.cross_entropy(Z, Y, label_smoothing=t / 10),
      losses.virtual_teacher(Z, Y, correct=t / 10, temperature=t),
      losses.multi_level_logits(Z, V, temperatures=(t, 2.0)),
      losses.dist(Z, V, beta=t, gamma=t, temperature=t),
      losses.decoupled_kl(Z, V, Y, alpha=t, beta=t, temperature=t),
    ]

  ts = np.array([1.0, 4.0])
  for i, t in enumerate(ts):
    expected = [
      np_kl(*BOTH, t),
      np_top_k_kl(*BOTH, 2, t),
      np_cross_entropy(STUDENT, LABELS, t / 10),
      np_virtual_teacher(STUDENT, LABELS, t / 10, t),
      np_multi_level_logits(*BOTH, (t, 2.0)),
      np_dist(*BOTH, t, t, t),
      np_decoupled_kl(*LABELLED, t, t, t),
    ]
    found = [x[i] for x in all_of(ts)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


BAD = {
  'integer logits': (
    lambda: losses.kl(Y, Y),
    r'student must be float\[..., K\], not int32\[5\]',
  ),
  'no axis': (lambda: losses.kl(Z[0, 0], V), r'student .* not float32\[\]'),
  'shapes': (
    lambda: losses.kl(Z, V[:, :3]),
    r'teacher .* with ...=\(5,\) .*, K=4 as in student, not float32\[5, 3\]',
  ),
  'nothing broadcasts': (lambda: losses.kl(Z, V[:1]), r'teacher .*\[1, 4\]'),
  'rank': (
    lambda: losses.dist(Z[None], V[None]),
    r'student must be float\[B, K',
  ),
  'list': (lambda: losses.kl([0.0], V), 'student must be an array .* not list'),
  'temperature': (
    lambda: losses.kl(Z, V, temperature=0.0),
    'temperature must be a number above 0, not 0.0',
  ),
  'temperature array': (
    lambda: losses.kl(Z, V, temperature=jnp.ones(5)),
    r'temperature must be a number above 0, not an array of shape \(5,\)',
  ),
  'labels dtype': (
    lambda: losses.cross_entropy(Z, Z[:, 0]),
    r'labels must be int\[...\] .*, not float32\[5\]',
  ),
  'labels shape': (
    lambda: losses.decoupled_kl(Z, V, Y[:3]),
    r'labels must be int\[...\] with ...=\(5,\) as in student, not int32\[3\]',
  ),
  'one-hot labels': (
    lambda: losses.cross_entropy(Z, jnp.eye(K, dtype=int)[Y]),
    r'labels must be int\[...\] .* not int32\[5, 4\]',
  ),
  'k': (
    lambda: losses.top_k_kl(Z, V, k=5),
    'k must be an int of at least 1, at most 4, not 5',
  ),
  'fractional k': (lambda: losses.top_k_kl(Z, V, k=2.0), 'k must be an int'),
  'tail': (
    lambda: losses.top_k_kl(Z, V, k=2, tail='rest'),
    "tail must be one of 'bucket', .*, 'drop', not 'rest'",
  ),
  'beta': (
    lambda: losses.jensen_shannon(Z, V, beta=1.5),
    'beta must be a number from 0 to 1, not 1.5',
  ),
  'nan': (
    lambda: losses.decoupled_kl(Z, V, Y, alpha=float('nan')),
    'alpha must be a finite number, not nan',
  ),
  'one class': (
    lambda: losses.standardize(Z[:, :1]),
    r'logits must have a last axis of at least 2, not shape \(5, 1\)',
  ),
  'variant': (
    lambda: losses.virtual_teacher(Z, Y, variant='kd'),
    "variant must be one of 'paper', 'code', not 'kd'",
  ),
  'temperatures': (
    lambda: losses.multi_level_logits(Z, V, temperatures=()),
    'temperatures must be a tuple of numbers above 0',
  ),
  'where': (
    lambda: losses.dist(Z, V, where=jnp.ones(5)),
    r'where must be bool\[B\] or None with B=5 as in student, not float32',
  ),
}


@pytest.mark.parametrize('case', BAD.values(), ids=BAD)
def test_bad_input(case):
  call, message = case
  with pytest.raises(ValueError, match=message):
    call()


def test_bad_input_shows_at_trace_time():
  with pytest.raises(ValueError, match='teacher must be'):
    jax.eval_shape(losses.kl, Z, V[:, :3])
  with pytest.raises(ValueError, match='number above 0'):
    jax.jit(lambda z: losses.kl(z, V, temperature=-1.0))(Z)


def test_noisy_logit_mse():
  student, teacher = (
    np.float32(np.random.default_rng(i).normal(size=(9999, 3))) for i in (1, 2)
  )
  key, options = jax.random.key(3), dict(share=0.25, std=0.5)
  loss = jax.jit(lambda *given: losses.noisy_logit_mse(*given, **options))
  clean = losses.logit_mse(student, teacher)
  found = loss(key, student, teacher)
  same = np.isclose(found, clean, rtol=1e-4)
  assert 0.7 < same.mean() < 0.8  # the others are disturbed
  # At the teacher, what is left is the noise: v² σ² on a share of them.
  left = loss(key, teacher, teacher)
  expected = 0.25 * 0.25 * np.square(teacher).mean()
  np.testing.assert_allclose(left.mean(), expected, rtol=0.1)
  assert not np.allclose(loss(jax.random.key(4), student, teacher), found)
  for off in (dict(share=0.0), dict(std=0.0)):
    found = losses.noisy_logit_mse(key, student, teacher, **off)
    np.testing.assert_allclose(found, clean, rtol=1e-5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [({'share': 1.5}, 'share must'), ({'std': -1.0}, 'std must')],
)
def test_noise_that_cannot_be(options, message):
  logits = jnp.zeros((2, 3))
  with pytest.raises(ValueError, match=message):
    losses.noisy_logit_mse(jax.random.key(0), logits, logits, **options)


@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_cross_entropy_to_probabilities_is_the_mean_over_labels(smoothing):
  logits = jnp.array([[0.0, 2.0, -1.0], [3.0, 0.5, 1.0]])
  first, second = jnp.array([0, 2]), jnp.array([1, 2])
  share = jnp.array([0.25, 0.6])
  one_hot = lambda labels: jax.nn.one_hot(labels, 3)  # noqa: E731
  mixed = share[:, None] * one_hot(first)
  mixed += (1 - share)[:, None] * one_hot(second)
  of = lambda u: losses.cross_entropy(logits, u, label_smoothing=smoothing)  # noqa: E731
  want = share * of(first) + (1 - share) * of(second)
  np.testing.assert_allclose(of(mixed), want, rtol=1e-5)
  np.testing.assert_allclose(of(one_hot(first)), of(first), rtol=1e-5)


def test_a_class_of_no_probability_may_be_ruled_out():
  logits = jnp.array([[0.0, -jnp.inf, 1.0]])
  mixed = jnp.array([[0.5, 0.0, 0.5]])
  value, slope = jax.value_and_grad(
    lambda z: losses.cross_entropy(z, mixed).sum()
  )(logits)
  want = losses.cross_entropy(logits[:, ::2], mixed[:, ::2])[0]
  np.testing.assert_allclose(value, want, rtol=1e-6)
  assert np.isfinite(slope).all()
  assert np.isnan(losses.cross_entropy(logits, mixed.at[0, 1].set(jnp.nan)))


@pytest.mark.parametrize('shape', [(2,), (2, 4), (3, 3)])
def test_probabilities_are_of_the_same_classes(shape):
  with pytest.raises(ValueError, match='labels must be'):
    losses.cross_entropy(jnp.zeros((2, 3)), jnp.zeros(shape))


def test_labels_of_examples_hold_at_every_position():
  logits = np.random.default_rng(0).normal(size=(3, 4, 2, 5))
  labels = np.array([0, 4, 2])
  found = losses.cross_entropy(logits, labels, every=True, label_smoothing=0.1)
  each = np.broadcast_to(labels[:, None, None], (3, 4, 2))
  want = losses.cross_entropy(logits, each, label_smoothing=0.1)
  np.testing.assert_array_equal(found, want)
  mixed = jnp.float32(np.eye(5)[labels] * 0.7 + 0.06)
  found = losses.cross_entropy(logits, mixed, every=True)
  want = losses.cross_entropy(
    logits, jnp.broadcast_to(mixed[:, None, None], logits.shape)
  )
  np.testing.assert_array_equal(found, want)
  with pytest.raises(ValueError, match='labels'):
    losses.cross_entropy(logits, each, every=True)


def test_binary_cross_entropy_leaves_out_labels_that_are_not_known(evaluate):
  valid = np.arange(B * K).reshape(B, K) % 3 > 0
  labels = np.where(valid, SEVERAL, -1)
  odd = np.where(valid, STUDENT, np.nan)

  def loss(z):
    return losses.binary_cross_entropy(
      z, jnp.asarray(labels), valid=jnp.asarray(valid)
    )

  found, (slope,) = evaluate(loss, [odd], {})
  q = np.where(SEVERAL, 1 / (1 + np.exp(-STUDENT)), 1 / (1 + np.exp(STUDENT)))
  np.testing.assert_allclose(found, -(np.log(q) * valid).sum(-1), rtol=1e-5)
  assert (slope[~valid] == 0).all()
  assert np.isfinite(slope).all()
  assert np.isnan(losses.binary_cross_entropy(Z, jnp.asarray(labels))).any()


def test_binary_cross_entropy_of_what_is_certain(evaluate):
  sure = np.array([[np.inf, -np.inf]])
  loss = functools.partial(losses.binary_cross_entropy, labels=jnp.eye(2)[:1])
  value, (slope,) = evaluate(loss, [sure], {})
  assert value == 0
  assert np.isfinite(slope).all()
  assert np.isposinf(loss(-jnp.asarray(sure)))


def test_binary_cross_entropy_is_binary_kl_to_the_labels(evaluate):
  sure = jnp.where(jnp.asarray(SEVERAL) > 0, 1e4, -1e4)
  np.testing.assert_allclose(
    losses.binary_cross_entropy(Z, jnp.asarray(SEVERAL)),
    losses.binary_kl(Z, sure),
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  ('weights', 'message'),
  [
    ((1.0,) * (K - 1), f'must be {K} numbers from 0 on'),
    ((-1.0,) * K, 'from 0 on'),
    ((0.0,) * K, 'not all of them 0'),
    ((float('nan'),) * K, 'from 0 on'),
    ('balanced', 'from 0 on'),
  ],
)
@pytest.mark.parametrize('name', ['cross_entropy', 'binary_cross_entropy'])
def test_weights_that_cannot_be(name, weights, message):
  labels = Y if name == 'cross_entropy' else jnp.asarray(SEVERAL)
  with pytest.raises(ValueError, match=rf'class_weights .*{message}'):
    getattr(losses, name)(Z, labels, class_weights=weights)


def test_weights_of_classes_for_labels_in_other_forms():
  options = dict(class_weights=WEIGHTS, label_smoothing=0.2)
  want = losses.cross_entropy(Z, Y, **options)
  soft = losses.cross_entropy(Z, jnp.eye(K)[Y], **options)
  np.testing.assert_allclose(soft, want, rtol=1e-5)
  factors = Factored(Z, jnp.eye(K))
  np.testing.assert_allclose(
    losses.cross_entropy(factors, Y, class_weights=WEIGHTS),
    losses.cross_entropy(Z, Y, class_weights=WEIGHTS),
    rtol=1e-5,
  )
  with pytest.raises(UserError, match='with class weights and smoothing'):
    losses.cross_entropy(factors, Y, **options)
