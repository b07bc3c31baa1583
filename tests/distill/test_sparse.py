"""Terms whose teacher has sparse logits, from a batch or of a live teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxkd import distill, losses
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError
from jaxkd.logits import SparseLogits

B, L, K, D = 6, 3, 8, 4


@pytest.fixture
def tokens(context):
  """Logits of tokens, [B, L, K], of which some are padding."""
  keys = jax.random.split(jax.random.key(3), 2)
  valid = jnp.arange(L)[None] < 1 + jnp.arange(B)[:, None] % L
  return context._replace(
    batch={**context.batch, 'valid': valid},
    student={'logits': jax.random.normal(keys[0], (B, L, K))},
    teachers={'main': {'logits': jax.random.normal(keys[1], (2, B, L, K))}},
  )


def sparsely(context, k=3, **options):
  """The same context, with the largest of the teachers' logits alone."""
  main = context.teachers['main']
  held = SparseLogits.of(main['logits'], k, **options)
  return context._replace(
    teachers={**context.teachers, 'main': {**main, 'logits': held}}
  )


def value(term, context):
  """The loss of each example and the gradient in the student's logits."""
  params, state = jax.eval_shape(term.init, jax.random.key(0), context)

  def loss(logits):
    seen = context._replace(student={**context.student, 'logits': logits})
    return term.loss(params, state, seen)[0]

  found, back = jax.vjp(loss, context.student['logits'])
  return found, *back(jnp.ones_like(found))


CASES = {
  'kl': {},
  'bucket': dict(tail='bucket', temperature=2.0),
  'renormalize': dict(tail='renormalize'),
  'uniform': dict(tail='uniform'),
  'drop': dict(tail='drop'),
}


@pytest.mark.parametrize('options', CASES.values(), ids=CASES.keys())
def test_a_live_teacher_is_as_one_whose_logits_come_sparse(options, tokens):
  options = dict(teacher='main', mask='valid', **options)
  live = value(make('kl', top=3, **options), tokens)
  held = sparsely(tokens, temperature=options.get('temperature', 1.0))
  found = value(make('kl', **options), held)
  as_loss = {'tail': 'bucket', **options}
  named = value(make('top_k_kl', k=3, **as_loss), tokens)
  for one, *others in zip(live, found, named, strict=True):
    for other in others:
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
  slope = np.asarray(live[1])
  padding = ~np.asarray(tokens.batch['valid'])
  assert not slope[padding].any()
  assert slope[~padding].any(-1).all()


@pytest.mark.parametrize('loss', losses.OF_SPARSE)
def test_all_classes_are_the_plain_term(loss, tokens):
  term = make(loss, teacher='main', mask='valid')
  for one, other in zip(
    value(term, tokens), value(term, sparsely(tokens, K)), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_padding_may_hold_anything(tokens):
  term = make('kl', teacher='main', mask='valid')
  held = sparsely(tokens)
  valid = tokens.batch['valid'][None]
  logits = held.teachers['main']['logits']
  spoilt = jax.tree.map(
    lambda x: jnp.where(valid.reshape(1, B, L, *[1] * (x.ndim - 3)), x,
                        jnp.nan if x.dtype == jnp.float32 else 10**6),
    logits,
  )  # fmt: skip
  bad = held._replace(teachers={'main': {'logits': spoilt}})
  for one, other in zip(value(term, held), value(term, bad), strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_loss_of_ones_own_is_given_the_classes_if_its_tail_is_said(tokens):
  def squares(student, teacher):
    p, q = jax.nn.softmax(teacher), jax.nn.softmax(student)
    assert p.shape == q.shape == (B, L, 4)
    return jnp.square(p - q).sum(-1)

  own = functools.partial(make, squares, teacher='main', mask='valid')
  assert np.isfinite(value(own(tail='bucket'), sparsely(tokens))[0]).all()
  with pytest.raises(UserError, match=r"term\.tail: squares .* write 'bucket'"):
    value(own(), sparsely(tokens))
  with pytest.raises(UserError, match=r'term\.tail: uniform is of the loss kl'):
    own(tail='uniform')


def adapted(**options):
  return make('kl', teacher='main', mask='valid', **options)


REFUSED = {
  'class': (
    lambda: make('decoupled_kl', teacher='main', mask='valid'),
    r'term\.loss: decoupled_kl looks at more .* choose one of kl, reverse_kl',
  ),
  'raw logits': (
    lambda: make('logit_mse', teacher='main', mask='valid'),
    r'logit_mse looks at more than the largest .* \(teachers\.main\.cache\.top',
  ),
  'temperature': (
    lambda: adapted(temperature=4.0),
    r'term\.kw\.temperature: it is 4, .* known at 1 alone; set teachers\.main\.'
    r'cache\.temperature=4',
  ),
  'twice': (lambda: adapted(top=2), r'term\.top: .* is the 3 largest already'),
  'adapter': (
    lambda: adapted(adapter='linear'),
    r'term\.adapter: an adapter takes all logits',
  ),
  'teacher adapter': (
    lambda: adapted(teacher_adapter='linear'),
    r'term\.teacher_adapter: an adapter takes all logits',
  ),
  'fusion': (
    lambda: distill.fused(adapted(), 'mean_probabilities'),
    'what fuses, weighs or judges teachers takes all logits',
  ),
  'mean': (
    lambda: distill.fused(adapted(), 'mean'),
    'what fuses, weighs or judges teachers takes all logits',
  ),
  'weights': (
    lambda: adapted(fuse_weights='confidence'),
    'what fuses, weighs or judges teachers takes all logits',
  ),
  'condition': (
    lambda: distill.weighted(adapted(), 'teacher_confidence'),
    'what fuses, weighs or judges teachers takes all logits',
  ),
  'inputs': (
    lambda: make(
      'kl', teacher='main', mask='valid',
      inputs={'teacher': 'teacher.logits'},
    ),
    r'term\.inputs: the loss kl takes all logits',
  ),
}  # fmt: skip


@pytest.mark.parametrize(('built', 'said'), REFUSED.values(), ids=REFUSED)
def test_what_needs_more_is_refused(built, said, tokens):
  with pytest.raises(UserError, match=said):
    value(built(), sparsely(tokens))


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    (dict(top=-1), r'term\.top: -1 should be how many'),
    (dict(tail='rest'), r"term\.tail: 'rest' should be one of bucket, renorm"),
    (dict(top=9), r'term\.top: there are 8 classes and not 9; use 8 or fewer'),
    (dict(tail='drop'), r'term\.tail: all logits are compared, so drop would'),
  ],
)
def test_bad_options(options, said, tokens):
  with pytest.raises(UserError, match=said):
    value(adapted(**options), tokens)


def test_unequal_vocabularies_are_refused(tokens):
  held = sparsely(tokens)
  shorter = {'logits': held.student['logits'][..., :-1]}
  with pytest.raises(UserError, match=r'\[7\] of the student and \[8\] of'):
    value(adapted(), held._replace(student=shorter))


def test_a_step_takes_sparse_logits_of_the_batch():
  def module(rngs):
    return nnx.Sequential(nnx.Linear(D, K, rngs=rngs))

  random = np.random.default_rng(0)
  inputs = random.normal(size=(B, D)).astype(np.float32)
  logits = random.normal(size=(B, 1, K)).astype(np.float32)
  student = distill.net(module, inputs[:1])
  found = []
  for given in (SparseLogits.of(jnp.asarray(logits), K), logits):
    batch = {'inputs': inputs, 'cached_outputs': {'main': {'logits': given}}}
    step = distill.step(
      student,
      {},
      {'soft': distill.term('kl', teacher='main')},
      optax.sgd(0.1),
      example=batch,
    )
    found.append(float(step(step.init(), batch)[1]['loss']))
  assert found[0] == pytest.approx(found[1], rel=1e-5)
