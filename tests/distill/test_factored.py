"""Students and teachers whose logits are factors learn as with the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxkd import distill, losses
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError
from jaxkd.logits import Factored, factored
from jaxkd.tasks import language
from jaxkd.tasks.metrics import not_a_number
from jaxkd.types import Context

# A head [V, D] has the axes of the mask [B, L], and is no part of a batch.
B, L, V, D = 6, 4, 6, 4
random = np.random.default_rng(0)


class Language(nnx.Module):
  """An embedding, a layer and a head: a language model without context."""

  def __init__(self, kind, width, rngs):
    self.embed = nnx.Embed(V, width, rngs=rngs)
    self.layer = nnx.Linear(width, width, rngs=rngs)
    self.kind, self.chunk = kind, 4 if kind == 'factored' else 0

  def __call__(self, tokens):
    hidden = jnp.tanh(self.layer(self.embed(tokens)))
    head = self.embed.embedding[...]
    logits = factored.product(self.kind, hidden, head, chunk=self.chunk)
    return {'logits': logits, 'hidden': hidden}


@pytest.fixture
def batch():
  tokens = random.integers(0, V, (B, L + 1)).astype(np.int32)
  return {
    'inputs': tokens[:, :-1],
    'labels': tokens[:, 1:],
    'valid': np.arange(L) < np.array([4, 3, 1, 4, 2, 0])[:, None],
    'bytes': np.full((B, L), 2, np.int32),
  }


TERMS = {
  'labels': distill.term(losses.cross_entropy, mask='valid', weight=0.3),
  'soft': distill.term(losses.kl, teacher='main', mask='valid', temperature=2),
}


def stepped(kind, batch, terms=TERMS, **options):
  """What is measured in two steps, and the metrics after them."""
  inputs = batch['inputs']
  teachers = [
    distill.net(Language(kind, D + 1, nnx.Rngs(i)), inputs) for i in range(2)
  ]
  student = distill.net(lambda rngs: Language(kind, D, rngs), inputs)
  step = distill.step(
    student, {'main': teachers}, terms, optax.sgd(0.5), **options
  )
  state = step.init(seed=0)
  for _ in range(2):
    state, measured = step(state, batch)
  return {name: np.asarray(x) for name, x in measured.items()}


@pytest.mark.parametrize(
  'options',
  [{}, {'members': 2}, {'accumulate': 3}],
  ids=['alone', 'population', 'in parts'],
)
def test_a_step_is_that_of_the_logits(batch, options):
  found = stepped('factored', batch, **options)
  wanted = stepped('dense', batch, **options)
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.all_devices
def test_a_step_on_several_devices(batch):
  """Tokens are sharded, and each device has the gradient of the whole head."""
  batch = {k: x[:4] for k, x in batch.items()}
  found = stepped('factored', batch, mesh=distill.mesh(1, 4, data=2))
  wanted = stepped('dense', batch)
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.fixture
def context(batch):
  """A student and two teachers, of factored logits."""
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
  return Context(
    batch={**batch, 'inputs': {'student': batch['inputs']}},
    student={'logits': Factored(draw(B, L, D), draw(V, D), chunk=4)},
    teachers={
      'main': {'logits': Factored(draw(2, B, L, D), draw(2, V, D), chunk=4)}
    },
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(2),
  )


def loss(term, context):
  params, state = term.init(jax.random.key(0), context)
  return term.loss(params, state, context)[0]


def test_what_is_masked_may_be_no_number(context):
  lost = context.student['logits'].hidden.at[0, 3].set(jnp.nan)
  masked = context.batch['valid'].copy()
  masked[0, 3] = False
  term = make('kl', teacher='main', mask='valid')
  batch = {**context.batch, 'valid': masked}
  wanted = loss(term, context._replace(batch=batch))

  def of_student(student):
    return loss(term, context._replace(student=student, batch=batch)).sum()

  head = context.student['logits'].head
  found, slope = jax.value_and_grad(of_student)(
    {'logits': Factored(lost, head)}
  )
  np.testing.assert_allclose(found, wanted.sum(), rtol=1e-5)
  assert np.isfinite(slope['logits'].head).all()


REFUSED = {
  'another loss': ({'loss': 'logit_mse'}, 'term'),
  'an adapter': ({'adapter': 'linear'}, 'term.adapter'),
  'a fusion': ({'fuse': 'mean_probabilities'}, 'term.teacher'),
  'a weight': ({'example_weight': 'teacher_confidence'}, 'term.teacher'),
  'weights of teachers': ({'fuse_weights': 'confidence'}, 'term.teacher'),
}


@pytest.mark.parametrize('case', REFUSED.values(), ids=REFUSED)
def test_what_takes_arrays_alone_says_what_to_do(case, context):
  options, entry = case
  options = {'loss': 'kl', 'mask': 'valid', **options}
  fuse = options.pop('fuse', '')
  term = make(options.pop('loss'), teacher='main', **options)
  if fuse:
    term = distill.fused(term, fuse)
  with pytest.raises(
    UserError, match=f'^{entry}: .* alone, .* as factors; set'
  ):
    loss(term, context)


def test_one_teacher_may_be_drawn(context):
  term = distill.fused(make('kl', teacher='main', mask='valid'), 'sampled')
  (draw,) = term.draws
  drawn = draw.pick(context.teachers, jnp.uint32(0), context.step)
  assert drawn['logits'].shape == (1, B, L, V)
  teachers = {**context.teachers, draw.name: drawn}
  assert loss(term, context._replace(teachers=teachers)).shape == (B,)


def test_metrics_of_language_are_those_of_the_logits(context):
  metrics = {**language.metrics(()), **language.fidelity('main')}
  metrics['nan'] = not_a_number('logits')
  one = jax.tree.map(lambda x: x[:1], context.teachers)

  def dense(tree):
    return jax.tree.map(lambda x: x.dense(), tree, is_leaf=factored.is_factored)

  for name, metric in metrics.items():
    found = metric.measure(context.student, context.batch, one)
    wanted = metric.measure(dense(context.student), context.batch, dense(one))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=name)
  with pytest.raises(UserError, match='the mean of several teachers main'):
    metrics['teacher_kl'].measure(
      context.student, context.batch, context.teachers
    )


def test_outputs_that_are_no_number_are_counted(context):
  logits = context.student['logits']
  lost = Factored(logits.hidden.at[:2, 0, 0].set(jnp.nan), logits.head)
  count, _ = not_a_number('logits').measure({'logits': lost}, context.batch, {})
  assert count == 2
