"""Soft targets beat hard labels when labels are few (Hinton et al., 2015).

Work [1] of the survey, algorithms A and D: a student that sees 8 % of the
training data learns from the softened outputs of a teacher that has seen all
of it. The paper did so on speech, with 3 % of 700 million frames; here it is
scikit-learn's 8×8 digits, a teacher of 256-256 units and students of 32.

About a minute on two CPU cores; 97 % with soft targets against 90 % with hard
labels. `:paper` is the paper's MNIST experiment: teacher of 1200-1200 units
with dropout and jitter, student of 800-800, T=20, all of the data.

  python experiments/distill.py --config configs/hinton2015_soft_targets.py \
      --workdir runs/demo
"""

from ml_collections import ConfigDict

from jaxkd.run import config


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
    claim='with few labels, soft targets beat hard ones',
    cite='Hinton et al., 2015',
    url='https://arxiv.org/abs/1503.02531',
  )
  c.data = dict(source='digits', fraction=dict(teachers=1.0, students=0.08))
  c.teachers = dict(
    main=dict(
      model='mlp',
      kw=dict(widths=(256, 256)),
      views=dict(train='noise(0.15)'),
      train=dict(steps=1500, learning_rate=3e-3),
    )
  )
  c.students = dict(
    student=dict(
      model='mlp', kw=dict(widths=(32,)), views=dict(train='noise(0.15)')
    )
  )
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.1),
    soft=dict(loss='kl', teacher='main', weight=0.9, kw=dict(temperature=4.0)),
  )
  # Learning rates, weight decay and temperature are the best of twelve trials
  # for each arm on the validation split.
  c.arms = dict(
    student=dict(
      distill=dict(labels=dict(weight=1.0), soft=dict(weight=0.0)),
      train=dict(
        learning_rate=0.03, optimizer=dict(kw=dict(weight_decay=1e-3))
      ),
    ),
    distilled=dict(),
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=0.1,
    steps=1000,
    seeds=10,
  )
  c.report = dict(compare=dict(better='distilled', than='student'))
  if size == 'tiny':
    c.teachers.main.kw.widths = (32,)
    c.teachers.main.train.update(steps=20, learning_rate=0.03)
    c.students.student.kw.widths = (8,)
    c.train.steps = 20
    c.train.learning_rate = 0.03  # at 0.1, all units of so few die
    c.train.seeds = 2
    c.train.members = 'vmap'
  if size == 'paper':
    c.data = dict(source='tfds:mnist', fraction=dict(students=1.0))
    c.teachers.main = dict(
      model='mlp',
      kw=dict(widths=(1200, 1200), dropout=0.5),
      views=dict(train='shift(2)'),
      train=dict(steps=120_000, learning_rate=1e-3),
    )
    c.students.student = dict(model='mlp', kw=dict(widths=(800, 800)))
    c.distill.soft.kw.temperature = 20.0
    c.train.update(steps=60_000, batch_size=100, learning_rate=1e-3)
  return config.complete(c)
