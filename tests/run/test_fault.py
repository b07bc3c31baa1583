"""What is said of a loss that became infinite or not a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.distill.roles import Role
from jaxkd.run import config, fault
from jaxkd.train.fit import Fault

TERMS = dict(
  labels=dict(loss='cross_entropy'),
  soft=dict(loss='kl', teacher='main'),
)


@pytest.fixture
def said(make_net, batch):
  """The sentence for a fault, of teachers with such weights."""
  net = make_net()
  made = config.complete(
    {'teachers': {'main': {}}, 'students': {'student': {}}, 'distill': TERMS}
  )

  def sentence(found, weights=None, inputs=batch['inputs'], **changes):
    one = net.init(jax.random.key(0))
    frozen = {'main': jax.tree.map(lambda x: x[None], one)}
    if weights is not None:
      frozen['main']['params']['w'] = jnp.full((1, 4, 3), weights)
    given = dict(
      distill=config.plain(made)['distill'],
      students={'student': Role(net, at='students.student')},
      teachers={'main': Role(net, at='teachers.main')},
      frozen=frozen,
      batch={**batch, 'inputs': inputs},
      seed=0,
    )
    return fault.explained(found, **{**given, **changes})

  return sentence


BOTH = Fault((2, 0), 7, ('loss', 'gradient_norm', 'loss/labels', 'loss/soft'))
SOFT = Fault((0,), 7, ('loss', 'loss/soft'), ('loss/labels',))


def test_a_teacher(said, batch):
  start = 'distill.soft became infinite or not a number at step 7 in member 0'
  assert said(SOFT, np.nan) == (
    f"{start}, since 'logits' of teachers.main is, whose weights are "
    '(params/w); train or restore that group again'
  )
  sees = batch['inputs'].copy()
  sees[1, 2] = np.inf
  found = said(SOFT, inputs=sees)
  assert found.startswith(f"{start}, since 'features' of teachers.main is,")
  assert 'teachers.main.views' in found
  # What is kept on disk of its outputs is looked at as they are.
  kept = {'main': {'logits': np.full((6, 1, 3), np.nan, np.float32)}}
  found = said(SOFT, frozen={}, batch={**batch, 'cached_outputs': kept})
  assert found.startswith(f"{start}, since 'logits' of teachers.main is,")


def test_teachers_are_asked_about_the_batch_as_it_was_augmented(said):
  def augment(batch, seed):
    return {**batch, 'inputs': batch['inputs'] * jnp.inf + seed}

  found = said(SOFT, augment=augment)
  assert "since 'features' of teachers.main is" in found
  assert 'teachers.main' not in said(SOFT, augment=lambda batch, seed: batch)


def test_a_class_that_does_not_exist_is_no_fault(said):
  found = said(SOFT, -np.inf, inputs=np.ones((6, 4), np.float32))
  assert 'teachers.main' not in found


def test_a_reader_is_not_blamed_for_what_it_reads(said, make_net):
  net = make_net()
  readers = {
    'reader': Role(net, reads=(('main', 'features'),), at='teachers.reader'),
    'main': Role(net, at='teachers.main'),
  }
  variables = jax.tree.map(lambda x: x[None], net.init(jax.random.key(0)))
  found = said(
    SOFT,
    teachers=readers,
    frozen={'reader': variables, 'main': variables},
    inputs=np.full((6, 4), np.nan, np.float32),
  )
  assert "'features' of teachers.main is" in found


def test_a_term_or_the_training(said):
  assert said(SOFT) == (
    'distill.soft became infinite or not a number at step 7 in member 0, while '
    'distill.labels was still a number; look at the options of distill.soft: '
    'kw, adapter and what it compares'
  )
  assert said(BOTH, at='teachers.big.') == (
    'teachers.big.distill.labels and teachers.big.distill.soft became infinite '
    'or not a number at step 7 in member 2, 0, in the training of '
    'students.student; lower teachers.big.train.learning_rate or set '
    'teachers.big.train.clip, or look at the options of '
    'teachers.big.distill.labels and teachers.big.distill.soft'
  )
  for found, what in (
    (Fault((0,), 7, ('gradient_norm',), ('loss/soft',)), 'the gradient'),
    (Fault((0,), 7, weights='train/nets/student/w'), 'the array train/nets/'),
  ):
    sentence = said(found)
    assert sentence.startswith(what)
    assert sentence.endswith(
      'in the training of students.student; lower train.learning_rate or set '
      'train.clip'
    )
