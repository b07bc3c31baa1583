"""Which temperature is best for a small student (Hinton et al., 2015).

Work [1] of the survey, algorithm A, with its temperature swept: the paper
found all temperatures above 8 alike for students of 300 units or more, and
2.5 to 4 best for those of 30 units. Teacher, data and budget are those of
hinton2015_soft_targets; the students have 30 units. `:paper` is the sweep on
MNIST, with all of the data.

  python experiments/distill.py --config configs/hinton2015_temperature.py \
      --workdir runs/hinton2015_temperature
"""

from ml_collections import ConfigDict

from jaxkd.run import config

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 8.0, 20.0)


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=1,
    objective='limited data',
    data='decrease training data',
    teacher='single',
    knowledge='soft labels',
    method='plain',
    student='single, simplified',
    claim='soft targets at T=3 beat hard labels for a student of 30 units',
    cite='Hinton et al., 2015',
    url='https://arxiv.org/abs/1503.02531',
  )
  c.data = dict(source='digits', fraction=dict(students=0.08))
  view = dict(train='noise(0.15)')
  c.teachers = dict(
    main=dict(
      model='mlp',
      kw=dict(widths=(256, 256)),
      views=view,
      train=dict(steps=1500, learning_rate=3e-3),
    )
  )
  c.students = dict(
    student=dict(model='mlp', kw=dict(widths=(30,)), views=view)
  )
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.1),
    soft=dict(loss='kl', teacher='main', weight=0.9, kw=dict(temperature=4.0)),
  )
  hard = dict(labels=dict(weight=1.0), soft=dict(weight=0.0))
  c.arms = dict(student=dict(distill=hard)) | {
    f't{t:g}': dict(distill=dict(soft=dict(kw=dict(temperature=t))))
    for t in TEMPERATURES
  }
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=3e-2,
    steps=1000,
    seeds=10,
  )
  c.report = dict(
    compare=dict(better='t3', than='student'),
    controls=dict(
      too_cold=dict(better='t3', than='t1'),
      too_hot=dict(better='t3', than='t20'),
    ),
  )
  if size == 'tiny':
    c.teachers.main.kw.widths = (32,)
    c.teachers.main.train.steps = 8
    c.students.student.kw.widths = (8,)
    c.train.update(steps=8, seeds=2, members='vmap')
  if size == 'paper':
    c.data = dict(source='tfds:mnist', fraction=dict(students=1.0))
    c.teachers.main = dict(
      model='mlp',
      kw=dict(widths=(1200, 1200), dropout=0.5),
      views=dict(train='shift(2)'),
      train=dict(steps=120_000, learning_rate=1e-3),
    )
    c.students.student = dict(model='mlp', kw=dict(widths=(30, 30)))
    c.train.update(steps=60_000, batch_size=100, learning_rate=1e-3)
  return config.complete(c)
