"""Sparse teachers: how many of the teacher's logits are worth keeping?

A student learns from the teacher's probabilities of each token alone, of which
a cache has the k largest, for k from 4 to 64, or all. What stands for the
others is the `tail`: all others as one class (`bucket`), nothing, with both
sides divided by what is left (`renormalize`), equal parts of what the teacher
has left (`uniform`), or nothing and no division (`drop`). The arm `full` runs
the teacher in every step, and `labels` is the price of a step without it.

`cost.train_s` beside `bits_per_byte` says what a cache saves, and the notes how
many bytes a token takes on disk.

Simplified: as kd_language_models, whose teacher and smaller student these are.

  python experiments/distill.py --config configs/sparse_teachers.py \
      --workdir runs/sparse_teachers
"""

from ml_collections import ConfigDict

from jaxkd.run import config

KEPT = (4, 16, 64)
TAILS = ('bucket', 'renormalize', 'uniform', 'drop')
SETTING = config.beside(__file__, 'kd_language_models.py')


def get_config(arg=None):
  tiny = config.size(arg, no_paper='it compares tails of several papers')
  kept = (2, 4) if tiny else KEPT
  c = ConfigDict()
  c.survey = dict(
    objective='learning time',
    data='none',
    teacher='single',
    knowledge='the largest soft labels',
    method='plain',
    student='single, simplified',
    claim="a few of the teacher's probabilities tell more than the text",
  )
  setting = SETTING.get_config(arg)
  c.task = 'language'
  c.data, c.train = setting.data, setting.train
  c.teachers = dict(main=setting.teachers.main)
  for k in kept:  # one cache each, of the same net
    c.teachers[f'top_{k}'] = dict(
      made_of=('main',), cache=dict(outputs=('logits',), top=k)
    )
  c.students = setting.students
  soft = dict(loss='kl', mask='valid', weight=0.0)
  c.distill = dict(
    labels=dict(loss='cross_entropy', mask='valid', weight=0.0),
    full=dict(soft, teacher='main'),
    **{
      f'{tail}_{k}': dict(soft, teacher=f'top_{k}', tail=tail)
      for k in kept
      for tail in TAILS
    },
  )
  c.arms = {name: dict(distill={name: dict(weight=1.0)}) for name in c.distill}
  few = kept[0]
  c.report = dict(
    metric='bits_per_byte',
    rank=True,
    compare=dict(better=f'bucket_{kept[1]}', than='labels'),
    controls=dict(
      all_of_them=dict(better='full', than=f'bucket_{kept[-1]}'),
      **{
        f'bucket_or_{tail}': dict(better=f'bucket_{few}', than=f'{tail}_{few}')
        for tail in TAILS[1:]
      },
    ),
  )
  return config.complete(c)
