import numpy as np
import pytest

from jaxkd.data.examples import ArrayExamples
from jaxkd.errors import UserError
from jaxkd.run import arms
from jaxkd.run import config as configs

TRAINING = ArrayExamples(
  np.zeros((60, 1)), np.arange(60) % 3, speaker=np.arange(60) // 6
)


@pytest.fixture(scope='module')
def config():
  return configs.plain(
    configs.complete(
      dict(
        students=dict(student={}),
        distill=dict(labels=dict(loss='cross_entropy')),
        data=dict(fraction=dict(students=0.5)),
        arms=dict(plain={}, heavy=dict(distill=dict(labels=dict(weight=2.0)))),
        train=dict(seeds=3, seed=5),
      )
    )
  )


def test_arms_differ_in_what_they_change(config):
  made = arms.configs_of(config)
  assert made['heavy']['distill']['labels']['weight'] == 2.0
  assert made['plain']['distill']['labels']['weight'] == 1.0
  assert made['plain']['train'] == made['heavy']['train']
  alone = arms.configs_of({**config, 'arms': {}})
  assert list(alone) == ['student']


@pytest.mark.parametrize(
  'partial',
  [
    dict(train=dict(steps=1)),
    dict(train=dict(seed=1)),
    dict(train=dict(batch_size=8)),
    dict(train=dict(eval_every=8)),
    dict(data=dict(source='synthetic')),
    dict(report=dict(metric='nll')),
  ],
)
def test_what_makes_arms_comparable_is_shared(config, partial):
  with pytest.raises(UserError, match=r'arms.a.*all arms share'):
    arms.configs_of({**config, 'arms': dict(a=partial)})


def test_a_seed_is_the_same_in_every_arm(config):
  made = arms.configs_of(config)
  jobs = [
    arms.job(made[arm], {}, {}, stage=arm, training=TRAINING) for arm in made
  ]
  assert jobs[0].seeds == jobs[1].seeds == [5, 6, 7]
  np.testing.assert_array_equal(jobs[0].weights, jobs[1].weights)
  assert ((jobs[0].weights > 0).sum(1) == 30).all()
  # Each seed has its own half of the data.
  assert not np.array_equal(jobs[0].weights[0], jobs[0].weights[1])
  assert set(jobs[0].train) == set(config['train']) - {'seeds', 'seed'}


def test_a_share_of_the_speakers(config):
  """By the name of the field, and with all examples of each."""
  whole = configs.put(config, 'data.unit.students', 'speaker')
  made = arms.job(whole, {}, {}, stage='a', training=TRAINING).weights
  by_speaker = made.reshape(3, 10, 6)
  np.testing.assert_array_equal(by_speaker, by_speaker[..., :1].repeat(6, -1))
  assert (by_speaker[..., 0].sum(1) == 5).all()
  other = configs.put(config, 'data.unit.students', 'speakr')
  message = r"^data\.unit\.students: there is no field .*did you mean 'speaker'"
  with pytest.raises(UserError, match=message):
    arms.job(other, {}, {}, stage='a', training=TRAINING)
