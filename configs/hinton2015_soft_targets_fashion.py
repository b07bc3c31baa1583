"""Three percent of the data are enough with soft targets (Hinton, 2015).

Work [1] of the survey, algorithm D, on Fashion-MNIST: a teacher of 800-800
units with dropout learns from all training images, students of 32 units see
3 % of them. The paper's second observation is in the row too: on so few
examples the student of hard labels is best long before its last step, the
student of soft targets is not (the curves on the validation split). The arms
`..._all` show the limit of a small student: with all of the data, where hard
labels are no longer scarce, there is little or nothing left to gain.

Simplified: images instead of speech, a student smaller than its teacher
instead of one as large, and 5,000 of the 60,000 training images held out for
validation.

  python experiments/distill.py \
      --config configs/hinton2015_soft_targets_fashion.py \
      --workdir runs/hinton2015_soft_targets_fashion
"""

from ml_collections import ConfigDict

from jaxkd.run import config


def get_config(arg=None):
  size = config.size(
    arg, no_paper='the speech data of this experiment was never published'
  )
  c = ConfigDict()
  c.survey = dict(
    work=1,
    objective='limited data',
    data='decrease training data',
    teacher='single',
    knowledge='soft labels',
    method='plain',
    student='single, simplified',
    claim='with 3 % of the data, soft targets beat hard labels',
    cite='Hinton et al., 2015',
    url='https://arxiv.org/abs/1503.02531',
  )
  c.data = dict(source='fashion_mnist', fraction=dict(students=0.03))
  c.teachers = dict(
    main=dict(
      model='mlp',
      kw=dict(widths=(800, 800), dropout=0.3),
      train=dict(steps=6000, learning_rate=1e-3),
    )
  )
  c.students = dict(student=dict(model='mlp', kw=dict(widths=(32,))))
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.1),
    soft=dict(loss='kl', teacher='main', weight=0.9, kw=dict(temperature=4.0)),
  )
  hard = dict(labels=dict(weight=1.0), soft=dict(weight=0.0))
  everything = dict(fraction=dict(students=1.0))
  c.arms = dict(
    student=dict(distill=hard),
    distilled=dict(),
    student_all=dict(distill=hard, data=everything),
    distilled_all=dict(data=everything),
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-2,
    steps=4000,
    batch_size=64,
    seeds=5,
  )
  c.report = dict(
    compare=dict(better='distilled', than='student'),
    controls=dict(
      all_the_data=dict(better='distilled_all', than='student_all')
    ),
  )
  if size == 'tiny':
    c.data = dict(source='digits', fraction=dict(students=0.1))
    c.teachers.main.kw.widths = (32, 32)
    c.teachers.main.train.steps = 8
    c.students.student.kw.widths = (8,)
    c.train.update(steps=8, batch_size=32, seeds=2, members='vmap')
  return config.complete(c)
