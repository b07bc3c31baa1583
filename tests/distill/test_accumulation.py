import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import logits, losses
from jaxkd.distill import accumulation, roles
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.run import config, terms
from jaxkd.types import Net, Term

MAPS = dict(at=('map', 'map'))
TOKENS = dict(at=('tokens', 'tokens'))


@pytest.fixture
def context(context):
  """With tokens [6, 4, 3], of which some count, and one teacher."""
  keys = jax.random.split(jax.random.key(3), 2)
  valid = np.arange(4)[None] < np.arange(6)[:, None]
  tokens = jax.random.normal(keys[0], (6, 4, 3))
  return context._replace(
    batch={
      **context.batch,
      'valid': valid,
      'rank': np.arange(6, dtype=np.int32),
    },
    student={
      **context.student,
      'map': context.student['map'][:, :4, :4],
      'tokens': tokens,
      'counts': valid,
      'amounts': valid.astype(np.float32),
    },
    teachers={
      'main': {
        **jax.tree.map(lambda x: x[:1], context.teachers['main']),
        'tokens': jax.random.normal(keys[1], (1, 6, 4, 3)),
      }
    },
  )


def own_share(teacher):
  """A weight by example that is none: it knows of the others."""
  sure = jax.nn.softmax(teacher).max(-1)
  return sure / sure.mean()


def own_sure(teacher):
  return jax.nn.softmax(teacher).max(-1)


def entry_of(distill):
  complete = config.plain(
    config.complete({'teachers': {'main': {}}, 'distill': distill})
  )
  built = terms.build(complete['distill'], ['student'], num_data=8)
  return built['term']


def labels(**entry):
  return dict(loss='cross_entropy', **entry)


HERE = __name__
KL = dict(loss='kl', teacher='main')


@pytest.mark.parametrize(
  ('want', 'entry'),
  [
    (True, KL),
    (True, dict(KL, mask='valid', **TOKENS)),
    (True, dict(KL, mask='counts', **TOKENS)),
    (True, dict(KL, mask='amounts', **TOKENS)),
    (True, dict(KL, loss='hint', mask='amounts', **TOKENS)),
    (True, dict(KL, loss='channel_wise', mask='valid', **TOKENS)),
    (True, dict(KL, loss='hint', mask='valid', adapter='linear', **TOKENS)),
    (True, dict(KL, when='teacher_is_correct', otherwise='labels')),
    (True, dict(KL, loss='pairwise_affinity', mask='all', **MAPS)),
    (True, dict(KL, example_weight=f'{HERE}:own_sure')),
    (False, dict(KL, example_weight=f'{HERE}:own_share')),
    (False, dict(KL, example_weight='teacher_confidence')),
    (False, dict(KL, when='teacher_is_correct', otherwise='far')),
    (False, dict(KL, loss='hint', adapter='projector')),
    (
      False,
      dict(
        KL,
        loss='overhaul',
        adapter='linear',
        teacher_adapter='margin',
        mask='all',
        **MAPS,
      ),
    ),
    (False, dict(KL, loss='noisy_logit_mse')),
    (
      False,
      dict(
        teacher='main',
        term='memory',
        adapter='embed',
        teacher_adapter='embed',
        teacher_adapter_kw=dict(width=4),
        kw=dict(negatives=3),
      ),
    ),
  ],
)
def test_terms_that_give_in_parts_what_they_give_at_once(context, want, entry):
  needs_no_field = not {'mask', 'when'} & entry.keys()
  if needs_no_field or 'otherwise' in entry:
    batch = {k: x for k, x in context.batch.items() if k != 'valid'}
    context = context._replace(batch=batch)
  distill = dict(
    term=entry,
    labels=labels(weight=0.0),
    far=dict(loss='rkd_distance', teacher='main', weight=0.0),
  )
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), context
  )
  assert accumulation.adds_up(entry_of(distill), shapes) is want


@pytest.mark.parametrize(
  ('whole', 'want'), [(False, (16, 16)), (True, (300, 40))]
)
def test_rows_of_tokens_are_tried_short_where_they_can_be(context, whole, want):
  """So that logits of long rows over a large vocabulary are never formed."""
  hidden = jax.ShapeDtypeStruct((6, 300, 40), jnp.float32)
  head = jax.ShapeDtypeStruct((50, 40), jnp.float32)
  shapes = context._replace(
    batch={'labels': jax.ShapeDtypeStruct((6, 300), jnp.int32)},
    student={'logits': logits.Factored(hidden, head)},
    teachers={},
  )
  tried = []

  def loss(params, state, context):
    found = context.student['logits']
    assert not whole or found.shape[1] == 300  # as what needs its length
    tried.append(found.hidden.shape[1:])
    return losses.cross_entropy(found, context.batch['labels']).mean(-1), state

  term = Term(
    init=lambda key, context: ({}, {}), loss=loss, count=lambda context: {}
  )
  assert accumulation.adds_up(term, shapes)
  assert set(tried) == {want}


def test_what_is_never_finite_cannot_be_told(context):
  def loss(params, state, context):
    return jnp.sqrt(-1 - jnp.square(context.student['logits'])).sum(-1), state

  term = Term(lambda key, context: ({}, {}), loss)
  assert not accumulation.adds_up(term, context)


def tagger():
  """Logits of each token, and a mask of its own."""

  def init(key):
    return {'params': {'w': jax.random.normal(key, (3, 3))}, 'state': {}}

  def apply(variables, inputs, *, key=None, train=False):
    logits = inputs @ variables['params']['w']
    return {'logits': logits, 'counts': inputs[..., 0] > 0}, {}

  return Net(init, apply)


def test_parts_of_masked_sentences_add_up_to_the_batch():
  """Lengths differ, so that a mean of means would be another number."""
  draw = np.random.default_rng(0)
  valid = np.arange(4)[None] < np.array([4, 4, 1, 0, 2, 1])[:, None]
  batch = {
    'inputs': draw.normal(size=(6, 4, 3)).astype(np.float32),
    'labels': draw.integers(0, 3, (6, 4)).astype(np.int32),
    'valid': valid,
    'id': np.arange(6, dtype=np.int32),
    'epoch': np.zeros(6, np.int32),
  }
  distill = {
    'labels': labels(mask='valid'),
    'words': dict(KL, mask='counts', weight=0.7),
    'channels': dict(KL, loss='channel_wise', mask='valid'),
    'features': dict(KL, loss='hint', mask=('valid', 'counts')),
    'everything': dict(KL, loss='hint', mask='all'),
  }
  complete = config.plain(
    config.complete({'teachers': {'main': {}}, 'distill': distill})
  )['distill']
  frozen = {
    'main': jax.tree.map(lambda x: x[None], tagger().init(jax.random.key(9)))
  }
  found = []
  for parts in (1, 3):
    made = learner(
      System(
        {'student': roles.Role(tagger())},
        {'main': roles.Role(tagger())},
        lambda hyper, parts=parts: Recipe(
          terms.build(complete, ['student']), optax.sgd(1.0), parts
        ),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
      )
    )
    carry = made.init(jnp.uint32(0), {}, frozen)
    new, measured = made.step(carry, batch, frozen, {})
    found.append((new['train'], measured))
  chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)
