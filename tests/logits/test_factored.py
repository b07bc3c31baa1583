"""Losses of logits that are factors are those of the logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.logits import Factored, chunks, factored

B, L, V, D, WIDER, CHUNK = 2, 3, 11, 4, 5, 4  # 11 = 4 + 4 + 3
random = np.random.default_rng(0)


def draw(*shape):
  return jnp.asarray(random.normal(size=shape), jnp.float32)


STUDENT = Factored(draw(B, L, D), draw(V, D), draw(V), CHUNK)
TEACHER = Factored(draw(B, L, WIDER), draw(V, WIDER))
LABELS = jnp.asarray(random.integers(0, V, (B, L)))
BOTH = {
  'kl': losses.kl,
  'reverse_kl': losses.reverse_kl,
  'jensen_shannon': functools.partial(losses.jensen_shannon, beta=0.3),
  'skewed_kl': losses.skewed_kl,
  'skewed_reverse_kl': losses.skewed_reverse_kl,
  'total_variation': losses.total_variation,
  'soft_cross_entropy': losses.soft_cross_entropy,
}


def value_and_slopes(loss, *arguments, dense):
  """A loss [B, L] and its gradients, weighed unequally as by a mask."""

  def total(*given):
    if dense:
      given = [x.dense() if factored.is_factored(x) else x for x in given]
    value = loss(*given)
    weights = jnp.arange(value.size, dtype=value.dtype).reshape(value.shape)
    return jnp.sum(weights * value), value

  by = tuple(
    i
    for i, x in enumerate(arguments)
    if all(jnp.issubdtype(y.dtype, jnp.floating) for y in jax.tree.leaves(x))
  )
  run = jax.jit(jax.value_and_grad(total, by, has_aux=True))
  (_, value), slopes = run(*arguments)
  return value, slopes


def agree(loss, *arguments, atol=2e-6, rtol=2e-6):
  found = value_and_slopes(loss, *arguments, dense=False)
  wanted = value_and_slopes(loss, *arguments, dense=True)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    scale = max(1, float(jnp.abs(other).max()))
    np.testing.assert_allclose(one, other, rtol=rtol, atol=atol * scale)


@pytest.mark.parametrize('name', BOTH)
def test_a_divergence_has_the_value_and_the_gradients_of_the_plain_one(name):
  """By both sides, and by the temperature, which a population maps over."""
  temperature = jnp.float32(2.0)
  loss = lambda q, p, t: BOTH[name](q, p, temperature=t)  # noqa: E731
  agree(loss, STUDENT, TEACHER, temperature)


def test_every_loss_that_takes_factors_is_tested():
  found = {loss.__name__ for loss in losses.OF_FACTORED}
  assert found == {*BOTH, 'cross_entropy', 'pseudo_label'}


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_cross_entropy_to_labels(smoothing):
  labels = LABELS.at[0, 0].set(V)  # no class
  loss = functools.partial(losses.cross_entropy, label_smoothing=smoothing)
  value = jax.jit(loss)(STUDENT, labels)
  assert np.isnan(value[0, 0]) and np.isfinite(value[1]).all()
  agree(lambda z: loss(z, LABELS), STUDENT)


def test_one_side_may_be_an_array():
  agree(losses.kl, STUDENT, TEACHER.dense())
  agree(losses.kl, TEACHER.dense(), STUDENT)
  agree(losses.pseudo_label, STUDENT, TEACHER)


def test_options_may_be_traced():
  at = jnp.float32(0.3)
  for name in 'jensen_shannon', 'skewed_kl', 'skewed_reverse_kl':
    loss = getattr(losses, name)
    option = 'beta' if name == 'jensen_shannon' else 'alpha'
    agree(
      lambda q, p, x, f=loss, o=option: f(q, p, **{o: x}), STUDENT, TEACHER, at
    )


def test_a_population_has_heads_of_its_own():
  """As `jax.vmap` maps over members, and a term over its teachers."""
  several = lambda x: jax.tree.map(lambda y: jnp.stack([y, -y]), x)  # noqa: E731
  students, teachers = several(STUDENT), several(TEACHER)
  assert students.shape == (2, B, L, V)
  np.testing.assert_allclose(
    students.dense()[1], jax.tree.map(jnp.negative, STUDENT).dense(), rtol=1e-6
  )
  mapped = jax.vmap(jax.vmap(losses.kl, (None, 0)), (0, None))
  agree(mapped, students, teachers)


def test_what_is_no_number_stays_so():
  """At its position alone; and in the gradient of the head, which sums."""
  lost = STUDENT.hidden.at[0, 1].set(jnp.nan)
  lost = Factored(lost, STUDENT.head, STUDENT.bias, CHUNK)
  for loss in losses.kl, losses.total_variation:
    value, (slope, _) = value_and_slopes(loss, lost, TEACHER, dense=False)
    assert np.isnan(value).sum() == np.isnan(value[0, 1]).sum() == 1
    assert np.isnan(slope.head).all()
    assert np.isnan(slope.hidden).any(-1).sum() == 1
  value, _ = value_and_slopes(
    lambda z: losses.cross_entropy(z, LABELS), lost, dense=False
  )
  assert np.isnan(value).sum() == 1


@pytest.mark.parametrize('name', ['kl', 'reverse_kl', 'jensen_shannon'])
def test_extreme_logits_and_classes_that_are_not_there(name):
  """Logits of 1e4; classes at -inf on both sides, a whole chunk among them."""
  absent = jnp.where(jnp.arange(V) < CHUNK + 1, -jnp.inf, 0.0)

  def hard(side):
    return Factored(1e3 * side.hidden, side.head, absent, side.chunk)

  # Hidden states of 1e3 magnify a rounding of 1e-7.
  agree(BOTH[name], hard(STUDENT), hard(TEACHER), rtol=2e-5, atol=1e-3)
  value, slopes = value_and_slopes(
    BOTH[name], hard(STUDENT), hard(TEACHER), dense=False
  )
  for x in jax.tree.leaves((value, slopes)):
    assert np.isfinite(x).all()


def test_half_precision_is_summed_in_float32():
  half = lambda x: jax.tree.map(lambda y: y.astype(jnp.bfloat16), x)  # noqa: E731
  low, other = half(STUDENT), half(TEACHER)
  value, (slope, _) = value_and_slopes(losses.kl, low, other, dense=False)
  assert value.dtype == low.dtype == jnp.float32
  assert slope.head.dtype == jnp.bfloat16
  with jax.enable_x64(True):
    exact = lambda x: jax.tree.map(lambda y: y.astype(jnp.float64), x)  # noqa: E731
    wanted, (by, _) = value_and_slopes(
      losses.kl, exact(low), exact(other), dense=True
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)
    # Rounded once, at the end.
    np.testing.assert_allclose(slope.head, by.head, rtol=2**-8, atol=1e-5)


def sizes(jaxpr):
  """The sizes of all arrays that a program makes."""
  for equation in jaxpr.eqns:
    yield from (out.aval.size for out in equation.outvars)
    for inner in jaxprs_in_params(equation.params):
      yield from sizes(inner)


@pytest.mark.parametrize('name', ['jensen_shannon', 'cross_entropy'])
def test_nothing_of_the_size_of_the_logits_is_made(name):
  student = Factored(jnp.zeros((32, 4)), jnp.zeros((512, 4)), chunk=64)
  target = student if name in BOTH else jnp.zeros(32, int)
  run = jax.grad(lambda x: getattr(losses, name)(x, target).mean())
  program = jax.make_jaxpr(run)(student).jaxpr
  assert max(sizes(program)) == 32 * 64
  plain = jax.make_jaxpr(lambda x: run(x.dense()))(student).jaxpr
  assert max(sizes(plain)) == 32 * 512


def test_only_what_moves_has_a_gradient():
  """A head that is frozen, as that of a student with adapters, has none."""

  def loss(hidden, head):
    return losses.kl(Factored(hidden, head, chunk=CHUNK), TEACHER).sum()

  def products(by):
    program = jax.make_jaxpr(jax.grad(loss, by))(STUDENT.hidden, STUDENT.head)
    return str(program).count('dot_general')

  assert products(0) < products((0, 1))


def test_the_largest_logit_and_its_class():
  dense = STUDENT.dense()
  np.testing.assert_array_equal(STUDENT.argmax(-1), dense.argmax(-1))
  np.testing.assert_allclose(STUDENT.max(-1), dense.max(-1), rtol=1e-6)
  equal = Factored(jnp.zeros((1, D)), STUDENT.head, chunk=CHUNK)
  assert equal.argmax() == 0  # the first of equals
  ids = jnp.array([[[0, 10], [4, 4], [3, 7]]] * B)
  np.testing.assert_allclose(
    chunks.log_probabilities(STUDENT, ids, temperature=2.0),
    jnp.take_along_axis(jax.nn.log_softmax(dense / 2), ids, -1),
    rtol=1e-5,
  )


def test_the_head_has_no_examples():
  """However like those of the batch its axes are."""
  like = Factored(jnp.ones((V, D, 2)), jnp.ones((V, D)), jnp.ones(V))
  found = factored.tree_map(lambda x: 0 * x, {'logits': like, 'x': jnp.ones(3)})
  assert not found['logits'].hidden.any() and not found['x'].any()
  assert found['logits'].head.all() and found['logits'].bias.all()
  both = factored.tree_map(jnp.add, like, like, head=jnp.subtract)
  assert (both.hidden == 2).all() and not both.head.any()


@pytest.mark.parametrize(
  ('shape', 'size'),
  [
    ((6, 11), 11),
    ((1024, 32_768), 2048),
    ((8192, 128_256), 512),
    ((4, 256, 50_257), 2048),
    ((2048, 1100), 640),  # so that the last is not nearly empty
  ],
)
def test_the_rule_of_the_chunk(shape, size):
  assert factored.chunk_size(shape) == size


@pytest.mark.parametrize('name', ['logit_mse', 'top_k_kl', 'dist', 'hint'])
def test_other_losses_say_what_to_do(name):
  options = {'k': 2} if name == 'top_k_kl' else {}
  flat = Factored(draw(B, D), draw(V, D))
  with pytest.raises(UserError, match=r"set its kw.logits to 'dense'"):
    getattr(losses, name)(flat, flat, **options)


def test_options_of_models_are_checked():
  hidden, head = STUDENT.hidden, STUDENT.head
  dense = factored.product('dense', hidden, head)
  np.testing.assert_allclose(
    dense, factored.product('factored', hidden, head).dense()
  )
  with pytest.raises(UserError, match=r"kw.logits: 'sparse' should be one of"):
    factored.product('sparse', hidden, head)
  with pytest.raises(UserError, match=r'kw.chunk: -1 should be'):
    factored.product('factored', hidden, head, chunk=-1)
  with pytest.raises(UserError, match=r'kw.chunk: 5 has no effect'):
    factored.product('dense', hidden, head, chunk=5)
