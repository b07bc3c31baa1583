"""Sequence-level distillation of language models: texts of the teacher."""

import jax
import numpy as np
import pytest

import jaxkd
from jaxkd import models
from jaxkd.data.text.tokens import BOS, EOS
from jaxkd.errors import UserError
from jaxkd.teachers import generated

pytest.importorskip('jaxkd.tasks.on_policy')
K, LENGTH = 9, 7
SIZES = dict(width=8, depth=1, heads=2, mlp_width=8, init=0.5)
random = np.random.default_rng(0)


@pytest.fixture(scope='module')
def teacher():
  shape = jax.ShapeDtypeStruct((LENGTH,), np.int32)
  net = models.build('decoder', num_classes=K, input_shape=shape, **SIZES)
  variables = jax.jit(net.init)(jax.random.key(0))

  def apply(inputs):
    return net.apply(variables, inputs)[0]

  return generated.Teacher(
    lambda x: apply(x)['logits'], apply, variables['params'], shape, K
  )


def examples(size=4):
  stream = random.integers(4, K, (size, LENGTH + 1)).astype(np.int32)
  stream[:, 0] = BOS
  valid = np.ones((size, LENGTH), bool)
  valid[0, :3] = False  # a longer prompt
  return {
    'inputs': stream[:, :-1],
    'labels': stream[:, 1:],
    'valid': valid,
    'bytes': np.ones((size, LENGTH), np.int32),
  }


def test_the_teacher_goes_on_from_the_prompts(teacher):
  given = examples()
  number = np.arange(4, dtype=np.int32)
  make = jax.jit(
    lambda number, given: generated.continuations(
      teacher, number, jax.random.key(1), given, length=4, prompt=2
    )
  )
  made = make(number, given)
  assert made.keys() == {'inputs', 'labels', 'valid'}
  for row, prompt in enumerate((4, 2, 2, 2)):
    np.testing.assert_array_equal(
      made['inputs'][row, :prompt], given['inputs'][row, :prompt]
    )
    own = np.flatnonzero(made['valid'][row])
    assert own[0] == prompt - 1
    assert len(own) <= 4
    written = np.asarray(made['labels'][row, own])
    assert EOS in written or len(own) == 4
    np.testing.assert_array_equal(
      made['inputs'][row, own[:-1] + 1], written[:-1]
    )
  # An example depends on its number alone.
  turned = make(number[::-1], {k: x[::-1] for k, x in given.items()})
  np.testing.assert_array_equal(turned['labels'][::-1], made['labels'])


def config(**kw):
  net = dict(model='decoder', kw=SIZES)
  texts = dict(name='continuations', count=0, kw=kw)
  return dict(
    task='language',
    data=dict(source='markov', kw=dict(size=40, words=5, length=LENGTH)),
    teachers=dict(main=dict(**net, train=dict(steps=2))),
    students=dict(student=net),
    distill=dict(labels=dict(loss='cross_entropy', mask='valid')),
    arms=dict(student={}, sequence=dict(data=dict(generated=texts))),
    train=dict(steps=2, batch_size=4, seeds=1, members='vmap'),
    report=dict(metric='nll', compare=dict(better='sequence', than='student')),
  )


def test_an_arm_learns_texts_of_its_teacher(tmp_path):
  row = jaxkd.run(config(length=4, prompt=2), tmp_path)
  nll = {arm: row['arms'][arm]['values'] for arm in ('student', 'sequence')}
  assert np.isfinite([*nll.values()]).all()
  assert nll['student'] != nll['sequence']


def test_what_no_row_has_room_for_is_refused(tmp_path):
  with pytest.raises(
    UserError, match=r'^data\.generated\.kw\.length: 64 tokens'
  ):
    jaxkd.run(config(), tmp_path)
