"""Numbers of a config are arguments of its programs, not parts of them."""

import io

import numpy as np
import optax
import pytest
from rich.console import Console

from jaxkd.run import checks, jobs, pipeline, recipe, train_job
from jaxkd.run import config as configs


def small(**changes):
  given = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=300)
    ),
    teachers=dict(main=dict(kw=dict(widths=(4,)), train=dict(steps=2))),
    students=dict(student=dict(kw=dict(widths=(4,)))),
    distill=dict(
      labels=dict(loss='cross_entropy'),
      soft=dict(loss='kl', teacher='main'),
      absent=dict(loss='kl', teacher='main', weight=0.0),
    ),
    train=dict(steps=3, seeds=2, batch_size=8, members='vmap'),
    arms=dict(a={}, b={}),
    report=dict(compare=dict(better='b', than='a')),
  )
  return configs.plain(configs.complete(given | changes))


def row(config, directory):
  console = Console(file=io.StringIO())
  return pipeline.run(config, directory, console=console)


def job_of(config, tmp_path):
  source, (part,) = checks.prepare(config, tmp_path)
  return jobs.of_arm(part, 'a', source, jobs.shapes_of(part))


OTHER = dict(
  distill=dict(soft=dict(weight=0.25)), train=dict(learning_rate=0.5)
)


def test_arms_that_differ_in_numbers_alone_have_one_step(tmp_path, monkeypatch):
  made = []
  learner = train_job.learner
  monkeypatch.setattr(
    train_job, 'learner', lambda system: made.append(0) or learner(system)
  )
  both = row(small(arms=dict(a={}, b=OTHER)), tmp_path / 'both')
  assert len(made) == 2  # of the teacher, and of both arms
  # and each has its own numbers.
  alone = row(small(arms=dict(a=OTHER, b=OTHER)), tmp_path / 'alone')
  loss = lambda row, arm: row['arms'][arm]['values']  # noqa: E731
  np.testing.assert_array_equal(loss(both, 'b'), loss(alone, 'b'))
  assert not np.allclose(loss(both, 'b'), loss(both, 'a'), rtol=1e-3)


def test_members_are_given_the_weights_in_use_and_the_rate(tmp_path):
  job = job_of(small(arms=dict(a=OTHER, b={})), tmp_path)
  given = {
    'distill.labels.weight': [1.0, 1.0],
    'distill.soft.weight': [0.25, 0.25],
    'train.learning_rate': [0.5, 0.5],
  }
  assert recipe.numbers_of(job) == given
  tuned = job._replace(hyper={'distill.soft.weight': [1.0, 3.0]})
  assert recipe.numbers_of(tuned) == given | tuned.hyper
  others = job_of(small(), tmp_path)
  assert recipe.without_numbers(job) == recipe.without_numbers(others)
  assert job.distill != others.distill


def halving(learning_rate):
  return optax.sgd(lambda count: learning_rate(count) / 2)


@pytest.mark.parametrize(
  'train',
  [
    dict(schedule='warmup_cosine', schedule_kw=dict(warmup_steps=1)),
    dict(optimizer=dict(name=f'{__name__}:halving')),
    dict(schedule=f'{__name__}:flat'),
    dict(by_path={'nets/student/**': dict(schedule=f'{__name__}:flat')}),
  ],
)
def test_what_may_need_the_number_itself_is_given_it(train, tmp_path):
  changed = small()
  changed = small(train={**changed['train'], **train})
  assert 'train.learning_rate' not in recipe.numbers_of(
    job_of(changed, tmp_path)
  )


def flat(value):
  return lambda count: value if value > 0 else 0.0
