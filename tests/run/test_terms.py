import jax
import numpy as np

from jaxkd import losses
from jaxkd.run import config as configs
from jaxkd.run import terms


def entry(**given):
  config = configs.complete(
    dict(
      name='one',
      teachers=dict(main={}),
      students=dict(student={}),
      distill=dict(term=given),
      arms=dict(student={}),
      report=dict(compare=dict(better='student', than='student')),
    )
  )
  return terms.build(configs.plain(config)['distill'], ['student'])['term']


def test_a_teacher_can_weigh_the_examples_of_a_loss_that_has_none(context):
  one = jax.tree.map(lambda x: x[:1], context.teachers)
  context = context._replace(teachers=one)
  made = entry(
    loss='cross_entropy', teacher='main', example_weight='teacher_confidence'
  )
  assert made.teachers == ('main',)
  found, _ = made.loss({}, {}, context)
  expected = losses.teacher_confidence(one['main']['logits'][0])
  expected *= losses.cross_entropy(
    context.student['logits'], context.batch['labels']
  )
  np.testing.assert_allclose(found, expected, rtol=1e-6)
