"""Divergences from the k largest probabilities of a teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.logits import Factored, SparseLogits, packed, sparse

TOKENS, K = 6, 40
T = 1.5
OPTIONS = {
  losses.kl: dict(temperature=T),
  losses.reverse_kl: dict(temperature=T),
  losses.jensen_shannon: dict(temperature=T, beta=0.3),
  losses.skewed_kl: dict(temperature=T, alpha=0.2),
  losses.skewed_reverse_kl: dict(temperature=T, alpha=0.2),
  losses.total_variation: dict(temperature=T),
  losses.soft_cross_entropy: dict(temperature=T),
}


def draw(seed, scale=2.0, dtype=np.float32):
  random = np.random.default_rng(seed)
  return jnp.asarray(random.normal(size=(TOKENS, K)) * scale, dtype)


def put_together(probs, ids):
  """Probabilities of some classes, and the sum of all others, in NumPy."""
  probs = np.asarray(probs, np.float64)
  some = np.take_along_axis(probs, ids, -1)
  others = probs.copy()
  np.put_along_axis(others, ids, 0, -1)
  return np.concatenate([some, others.sum(-1, keepdims=True)], -1)


@functools.partial(jax.jit, static_argnums=0)
def with_slope(loss, student, teacher):
  value, back = jax.vjp(lambda z: loss(z, teacher), student)
  return value, *back(jnp.ones_like(value))


def through(loss, tail, student, teacher, **options):
  pair = sparse.both(
    student, teacher, temperature=options['temperature'], tail=tail
  )
  return loss(*pair, **options)


def test_it_holds_the_largest_and_the_mass_of_the_others():
  logits = draw(0)
  found = SparseLogits.of(logits, 3, temperature=T)
  p = np.array(jax.nn.softmax(logits / T))
  ids = np.argsort(-p, axis=-1)[:, :3]
  np.testing.assert_array_equal(found.ids, ids)
  got = jnp.concatenate([found.log_probs, found.rest[:, None]], -1)
  np.testing.assert_allclose(np.exp(got), put_together(p, ids), rtol=1e-5)
  assert (found.shape, found.ndim, found.k) == ((TOKENS, K), 2, 3)
  assert len(found) == TOKENS
  assert found.dtype == jnp.float32


@pytest.mark.parametrize('loss', losses.OF_SPARSE)
def test_a_bucket_is_the_loss_of_classes_put_together(loss):
  """Its value and gradient are those of the sums themselves, in float64."""
  student, teacher = draw(0), draw(1)
  options = OPTIONS[loss]
  held = SparseLogits.of(teacher, 4, temperature=T)
  value, slope = with_slope(
    functools.partial(through, loss, 'bucket', **options), student, held
  )

  with jax.enable_x64(True):
    p = put_together(jax.nn.softmax(np.float64(teacher) / T), held.ids)
    ids, v = np.asarray(held.ids), T * jnp.log(p)

    def by_sums(z, v):
      q = jax.nn.softmax(z / T)
      some = jnp.take_along_axis(q, ids, -1)
      rest = 1 - some.sum(-1, keepdims=True)
      return loss(T * jnp.log(jnp.concatenate([some, rest], -1)), v, **options)

    expected, wanted = with_slope(by_sums, jnp.asarray(student, float), v)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('tail', sparse.TAILS)
def test_all_classes_are_the_plain_loss_at_any_temperature(tail):
  student, teacher = draw(0), draw(1)
  held = SparseLogits.of(teacher, K, temperature=3.0)
  found = with_slope(
    lambda z, v: losses.top_k_kl(z, v, tail=tail, temperature=T), student, held
  )
  wanted = with_slope(
    lambda z, v: losses.kl(z, v, temperature=T), student, teacher
  )
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('own', [T, 3.0])
def test_a_uniform_tail_is_the_loss_to_what_it_fills_up(own):
  student, held = draw(0), SparseLogits.of(draw(1), 5, temperature=own)
  found = with_slope(
    lambda z, v: losses.top_k_kl(z, v, tail='uniform', temperature=T),
    student,
    held,
  )
  wanted = with_slope(
    lambda z, v: losses.kl(z, v, temperature=T), student, own * held.dense()
  )
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_mass_of_the_others_is_exact_where_it_is_tiny():
  """1 - Σ would be 0 here, and its gradient anything."""
  student = draw(0).at[:, 0].add(40)
  chosen, others = sparse.split(student, jnp.zeros((TOKENS, 1), int))
  with jax.enable_x64(True):
    q = jax.nn.log_softmax(jnp.asarray(student, float))
    wanted = jax.nn.logsumexp(q[:, 1:], -1) - q[:, 0]
  np.testing.assert_allclose(others - chosen[:, 0], wanted, rtol=1e-6)
  slope = jax.grad(
    lambda z: sparse.split(z, jnp.zeros((TOKENS, 1), int))[1].sum()
  )(student)
  np.testing.assert_array_equal(slope[:, 0], 0)
  np.testing.assert_allclose(
    slope[:, 1:], jax.nn.softmax(student[:, 1:]), rtol=1e-5
  )


@pytest.mark.parametrize('noise', [None, 1.0], ids=['untrained', 'trained'])
def test_a_bucket_keeps_the_gradient_that_other_tails_lose(noise):
  """Of a teacher whose probabilities fall as those of words do."""
  random = np.random.default_rng(0)
  teacher = -1.2 * np.log1p(np.arange(2000))[None]
  teacher = teacher + random.normal(size=(16, 2000))
  student = np.zeros_like(teacher)
  if noise:
    student = teacher + noise * random.normal(size=teacher.shape)
  student, teacher = jnp.asarray(student), jnp.asarray(teacher)
  _, whole = with_slope(losses.kl, student, teacher)

  def cosine(tail):
    loss = functools.partial(losses.top_k_kl, k=16, tail=tail)
    _, slope = with_slope(loss, student, teacher)
    return float(jnp.vdot(slope, whole) / norm(slope) / norm(whole))

  norm = jnp.linalg.norm
  found = {tail: cosine(tail) for tail in sparse.TAILS}
  assert found['bucket'] > 0.97
  assert found['renormalize'] < found['bucket'] - (0.02 if noise else 0.1)
  assert found['drop'] < found['bucket'] - 0.1 or not noise


def test_a_nucleus_has_the_mass_and_no_more_classes_than_it_takes():
  logits = draw(0)
  found = SparseLogits.of(logits, 8, top_p=0.7)
  p = np.exp(np.asarray(found.log_probs))
  whole = np.asarray(SparseLogits.of(logits, 8).log_probs)
  kept = np.asarray(found.kept)
  before = np.cumsum(np.exp(whole), -1) - np.exp(whole)
  np.testing.assert_array_equal(kept, before < 0.7)
  np.testing.assert_allclose(p.sum(-1) + np.exp(found.rest), 1, rtol=1e-5)
  # What is beyond it counts for the others on both sides.
  student = draw(1)
  value = losses.top_k_kl(student, found)
  for k in set(kept.sum(-1).tolist()):
    rows = kept.sum(-1) == k
    one = losses.top_k_kl(student, logits, k=k)
    np.testing.assert_allclose(value[rows], one[rows], rtol=1e-4)


def test_what_is_not_a_number_stays_so():
  logits = draw(0).at[0, 7].set(jnp.nan)
  for top_p in (1.0, 0.5):
    found = SparseLogits.of(logits, 3, top_p=top_p)
    assert np.isnan(found.rest[0])
    value = losses.top_k_kl(draw(1), found)
    assert np.isnan(value[0])
    assert np.isfinite(value[1:]).all()
  value = losses.top_k_kl(logits, SparseLogits.of(draw(1), 3))
  assert np.isnan(value[0])


def test_classes_that_both_rule_out_have_no_part():
  student, teacher = draw(0), draw(1)
  wide = [jnp.pad(x, ((0, 0), (0, 9)), constant_values=-jnp.inf)
          for x in (student, teacher)]  # fmt: skip
  for tail in sparse.TAILS:
    one = losses.top_k_kl(student, teacher, k=4, tail=tail)
    other = losses.top_k_kl(*wide, k=4, tail=tail)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('tail', ['bucket', 'renormalize', 'drop'])
def test_factors_of_logits_are_formed_in_chunks(tail):
  random = np.random.default_rng(0)
  hidden, head, bias = (
    jnp.asarray(random.normal(size=size), jnp.float32)
    for size in ((TOKENS, 5), (K, 5), (K,))
  )
  held = SparseLogits.of(draw(1), 4, top_p=0.8)

  def loss(factors, chunk):
    student = factors[0] @ factors[1].T + factors[2][None]
    if chunk:
      student = Factored(*factors, chunk=chunk)
    return losses.top_k_kl(student, held, tail=tail)

  def found(chunk):
    value, back = jax.vjp(lambda x: loss(x, chunk), (hidden, head, bias))
    return jax.tree.leaves((value, back(jnp.ones_like(value))))

  whole = found(0)
  for chunk in (7, 64):
    for one, other in zip(whole, found(chunk), strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_populations_map_over_it():
  student, held = draw(0), SparseLogits.of(draw(1), 4)
  twice = jax.tree.map(lambda x: jnp.stack([x, x]), held)
  found = jax.jit(jax.vmap(losses.top_k_kl, (None, 0)))(student, twice)
  wanted = losses.top_k_kl(student, held)
  np.testing.assert_allclose(found, [wanted, wanted], rtol=1e-6)


@pytest.mark.parametrize('classes', [200, 50_000, 128_256, 262_144])
@pytest.mark.parametrize('k', [1, 7, 64])
def test_what_is_packed_comes_back(k, classes):
  random = np.random.default_rng(0)
  ids = np.stack([random.choice(classes, k, False) for _ in range(3)])
  ids[:, 0] = 0, classes - 1, classes // 2
  logs = -np.sort(random.exponential(size=(3, k)).astype(np.float32))
  held = SparseLogits(
    jnp.asarray(logs), jnp.asarray(ids), jnp.zeros(3), classes, 2.0
  )
  arrays = packed.pack(held, packed.dtype_of(k, classes))
  back = packed.unpack(jax.tree.map(np.asarray, arrays), classes, 2.0)
  np.testing.assert_array_equal(back.ids, ids)
  np.testing.assert_allclose(back.log_probs, logs, rtol=1e-3)
  assert (back.classes, back.temperature) == (classes, 2.0)
  taken = sum(x[0].nbytes for x in arrays.values())
  assert taken == packed.bytes_of(k, classes)


def test_a_token_takes_few_bytes():
  sizes = [packed.bytes_of(64, n) for n in (256, 32_768, 65_536, 128_256)]
  assert sizes == [196, 260, 260, 268]


def test_top_k_sorts_no_vocabulary():
  of = jax.jit(lambda x: SparseLogits.of(x, 64))
  text = of.lower(jnp.zeros((2, 1, 4, 4096))).compile().as_text()
  assert ' sort(' not in text


@pytest.mark.parametrize(
  ('call', 'said'),
  [
    (lambda z, v: SparseLogits.of(z, 41), 'k must be from 1 to the 40 classes'),
    (lambda z, v: SparseLogits.of(z, 2, top_p=0.0), 'top_p must be above 0'),
    (lambda z, v: losses.top_k_kl(z, v, temperature=2.0), 'temperature must'),
    (lambda z, v: losses.top_k_kl(z, v, k=2), 'k must be the 4 of the teacher'),
    (lambda z, v: losses.top_k_kl(z[:, :9], v), r'student must be \[6, 40\]'),
    (lambda z, v: sparse.both(z, v, tail='drop'), 'tail must be one of bucket'),
  ],
)  # fmt: skip
def test_bad_input(call, said):
  with pytest.raises(ValueError, match=said):
    call(draw(0), SparseLogits.of(draw(1), 4))
