"""The stages of a run are known before it begins."""

from jaxkd.run import checks, jobs
from jaxkd.run import config as configs


def planned(tmp_path, **changes):
  given = dict(
    data=dict(
      source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=60)
    ),
    teachers=dict(main=dict(kw=dict(widths=(4,)), train=dict(steps=7))),
    students=dict(student=dict(kw=dict(widths=(4,)))),
    distill=dict(
      hard=dict(loss='cross_entropy'), soft=dict(loss='kl', teacher='main')
    ),
    report=dict(compare=dict(better='distilled', than='student')),
    arms=dict(distilled={}, student=dict(distill=dict(soft=dict(weight=0.0)))),
    train=dict(steps=5, seeds=1, batch_size=8, members='vmap'),
  )
  config = configs.plain(configs.complete(given | changes))
  return jobs.steps_of(checks.prepare(config, tmp_path)[1])


def test_all_that_trains(tmp_path):
  assert planned(tmp_path) == {
    'teachers/main': 7,
    'students/distilled': 5,
    'students/student': 5,
  }


def test_equal_arms_train_once(tmp_path):
  arms = dict(distilled={}, student=dict(distill=dict(soft=dict(weight=1.0))))
  assert planned(tmp_path, arms=arms).keys() == {
    'teachers/main', 'students/distilled',
  }  # fmt: skip
