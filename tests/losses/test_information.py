import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses

quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)
B, D, N = 5, 3, 4
random = np.random.default_rng(0)
STUDENT, TEACHER = random.normal(size=(2, B, D))
NEGATIVES = random.normal(size=(B, N, D))
MEAN, MAP = random.normal(size=(2, B, 2, 3, D))
RAW_SCALE = random.normal(size=D)


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def np_variational_information(mean, raw_scale, teacher, eps):
  loss = np.zeros(len(mean))
  for c in range(mean.shape[-1]):
    variance = np.log(1 + np.exp(raw_scale[c])) + eps
    error = ((teacher[..., c] - mean[..., c]) ** 2).reshape(len(mean), -1)
    loss += (error / variance + np.log(variance)).mean(1) / 2
  return loss / mean.shape[-1]


def np_info_nce(student, teacher, temperature):
  e = np.exp(unit(student) @ unit(teacher).T / temperature)
  return -np.log(np.diag(e) / e.sum(1))


def np_contrastive(
  anchor, positive, negatives, normalizer, num_data, temperature
):
  loss, count = [], negatives.shape[1]
  c, eps = count / num_data, 1e-7
  for a, b, others in zip(
    unit(anchor), unit(positive), unit(negatives), strict=True
  ):
    h = np.exp(a @ b / temperature) / normalizer
    each = -np.log(h / (h + c + eps))
    for other in others:
      h = np.exp(a @ other / temperature) / normalizer
      each -= np.log(c / (h + c + eps))
    loss.append(each)
  return np.array(loss)


def np_contrastive_normalizer(
  anchor, positive, negatives, num_data, temperature
):
  others = np.concatenate([positive[:, None], negatives], axis=1)
  cosines = (unit(anchor)[:, None] * unit(others)).sum(-1)
  return np.exp(cosines / temperature).mean() * num_data


THREE = [STUDENT, TEACHER, NEGATIVES]
CRD = dict(num_data=50, temperature=0.5)
CASES = {
  'variational_information': (
    losses.variational_information,
    np_variational_information,
    [MEAN, RAW_SCALE, MAP],
    dict(eps=1e-2),
  ),
  'info_nce': (
    losses.info_nce,
    np_info_nce,
    [STUDENT, TEACHER],
    dict(temperature=0.3),
  ),
  'contrastive': (
    losses.contrastive,
    np_contrastive,
    THREE,
    dict(normalizer=80.0, **CRD),
  ),
  'contrastive_normalizer': (
    losses.contrastive_normalizer,
    np_contrastive_normalizer,
    THREE,
    CRD,
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
  loss, _, arrays, options = CASES[name]
  first, *rest = arrays
  finite(
    loss,
    {
      'equal': [first, *(first if x.shape == first.shape else x for x in rest)],
      'zero': [0 * x for x in arrays],
      'zero student': [0 * first, *rest],
      'zero teacher': [first, *(0 * x for x in rest)],
      'duplicates': [x[[0, 0, 1, 1, 1]] if len(x) == B else x for x in arrays],
      'large': [1e4 * x for x in arrays],
      'small': [1e-10 * x for x in arrays],
    },
    options,
  )


EMBEDDINGS = [n for n in CASES if n != 'variational_information']


@pytest.mark.parametrize('name', EMBEDDINGS)
def test_where_is_dropping(name, drops):
  loss, _, arrays, options = CASES[name]
  drops(loss, arrays, options)


@pytest.mark.parametrize('name', EMBEDDINGS)
def test_on_eight_devices(name, shards):
  loss, _, arrays, options = CASES[name]
  shards(loss, [np.concatenate([x, x[:3]]) for x in arrays], options)


def test_by_hand():
  @quick
  def all_of():
    right, up = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    crd = right, 3 * right, up[:, None]
    return {
      'vid': losses.variational_information(
        jnp.zeros((1, 2)),
        jnp.log(jnp.expm1(jnp.array([1.0, 4.0]))),
        jnp.array([[2.0, 4.0]]),
        eps=1e-12,
      ),
      'info_nce': losses.info_nce(jnp.eye(2), jnp.eye(2), temperature=0.5),
      'contrastive': losses.contrastive(
        *crd, normalizer=2.0, num_data=4, temperature=1.0
      ),
      'normalizer': losses.contrastive_normalizer(
        *crd, num_data=4, temperature=1.0
      ),
    }

  e = np.e
  expected = {
    # (4/1 + log 1)/2 and (16/4 + log 4)/2, their mean
    'vid': [2 + np.log(4) / 4],
    'info_nce': 2 * [np.log(1 + e**-2)],
    # h of e/2 and 1/2, c of 1/4
    'contrastive': [np.log((2 * e + 1) / (2 * e)) + np.log(3)],
    'normalizer': 2 * (e + 1),
  }
  for name, found in all_of().items():
    np.testing.assert_allclose(found, expected[name], rtol=1e-5, err_msg=name)


def test_variance_is_learnt(evaluate):
  """Out of the optimiser it would stay put; its best is the mean error."""
  loss, _, (mean, _, teacher), _ = CASES['variational_information']
  error = ((teacher[:1] - mean[:1]) ** 2).mean((0, 1, 2))
  best = np.log(np.expm1(error - 1e-5))
  # The optimum of one example: the fixture sums the sines of the losses.
  one = [mean[:1], best, teacher[:1]]
  value, slopes = evaluate(loss, one, {})
  np.testing.assert_allclose(slopes[1], 0, atol=1e-6)
  for other in best + 0.5, best - 0.5:
    worse, slopes = evaluate(loss, [mean[:1], other, teacher[:1]], {})
    assert worse > value
    assert (abs(slopes[1]) > 1e-3).all()


def test_variational_information_at_equality_is_the_log_of_the_scale(evaluate):
  loss, _, (mean, raw_scale, _), options = CASES['variational_information']
  value, slopes = evaluate(loss, [mean, raw_scale, mean], options)
  scale = np.log(np.log1p(np.exp(raw_scale)) + options['eps']).mean() / 2
  np.testing.assert_allclose(value, scale, rtol=1e-5)
  assert not slopes[0].any()


def test_variational_information_does_not_care_for_the_layout(evaluate):
  loss, _, (mean, raw_scale, teacher), options = CASES[
    'variational_information'
  ]
  value, _ = evaluate(loss, [mean, raw_scale, teacher], options)
  flat = [mean.reshape(B, 6, D), raw_scale, teacher.reshape(B, 6, D)]
  found, _ = evaluate(loss, flat, options)
  np.testing.assert_allclose(found, value, rtol=1e-6)


def test_info_nce_known_values(evaluate):
  loss, _, _, options = CASES['info_nce']
  value, _ = evaluate(loss, [STUDENT, np.ones((B, D))], options)
  np.testing.assert_allclose(value, np.log(B), rtol=1e-6)
  value, _ = evaluate(loss, [STUDENT, TEACHER], options)
  assert (value > 0).all()
  scaled, _ = evaluate(loss, [7 * STUDENT, 0.1 * TEACHER], options)
  np.testing.assert_allclose(scaled, value, rtol=1e-5)
  order = np.array([3, 1, 4, 0, 2])
  moved, _ = evaluate(loss, [STUDENT[order], TEACHER[order]], options)
  np.testing.assert_allclose(moved, value[order], rtol=1e-5)


def test_contrastive_is_a_classifier_of_the_pair(evaluate):
  """For h = c it is log 2 for the positive and for each negative."""
  loss, _, _, options = CASES['contrastive']
  same = np.ones((B, D))
  options = {**options, 'num_data': 4, 'temperature': 1.0, 'normalizer': np.e}
  value, _ = evaluate(loss, [same, same, np.ones((B, N, D))], options)
  np.testing.assert_allclose(value, (1 + N) * np.log(2), rtol=1e-5)


def test_options_may_be_traced():
  @quick
  @jax.vmap
  def mapped(t):
    return (
      losses.info_nce(jnp.array(STUDENT), jnp.array(TEACHER), temperature=t),
      losses.contrastive(
        *map(jnp.array, THREE), normalizer=100 * t, num_data=50, temperature=t
      ),
    )

  t = np.array([0.5, 0.8], np.float32)
  first, second = mapped(t)
  for i in range(2):
    expected = np_info_nce(STUDENT, TEACHER, t[i])
    np.testing.assert_allclose(first[i], expected, rtol=1e-4)
    expected = np_contrastive(*THREE, 100 * t[i], 50, t[i])
    np.testing.assert_allclose(second[i], expected, rtol=1e-4)


S, T, NEG = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(NEGATIVES)
BAD = {
  'scale per element': (
    lambda: losses.variational_information(MEAN, MEAN, MAP),
    r'raw_scale must be float\[C\] with C=3 as in mean, not float64\[5, 2',
  ),
  'width': (
    lambda: losses.variational_information(MEAN, RAW_SCALE, MAP[..., :2]),
    r'teacher must be float\[B, ..., C\] with .* C=3 as in mean',
  ),
  'dimensions': (
    lambda: losses.info_nce(S, T[:, :2]),
    r'teacher must be float\[B, D\] with B=5 .*, D=3 .*, not float32\[5, 2\]',
  ),
  'integers': (
    lambda: losses.info_nce(S.astype(int), T),
    'student must be float',
  ),
  'one set of negatives': (
    lambda: losses.contrastive(S, T, NEG[0], normalizer=1.0, num_data=9),
    r'negatives must be float\[B, N, D\] .*, not float32\[4, 3\]',
  ),
  'no negatives': (
    lambda: losses.contrastive(S, T, NEG[:, :0], normalizer=1.0, num_data=9),
    r'negatives must have at least 1 per example, not \(5, 0, 3\)',
  ),
  'normalizer': (
    lambda: losses.contrastive(S, T, NEG, normalizer=0.0, num_data=9),
    'normalizer must be a number above 0',
  ),
  'num_data': (
    lambda: losses.contrastive_normalizer(S, T, NEG, num_data=0),
    'num_data must be a number above 0',
  ),
  'temperature': (
    lambda: losses.info_nce(S, T, temperature=-0.1),
    'temperature must be a number above 0',
  ),
  'where': (
    lambda: losses.info_nce(S, T, where=jnp.ones(3, bool)),
    r'where must be bool\[B\] or None with B=5 as in student, not bool\[3\]',
  ),
}


@pytest.mark.parametrize('case', BAD.values(), ids=BAD)
def test_bad_input(case):
  call, message = case
  with pytest.raises(ValueError, match=message):
    call()
