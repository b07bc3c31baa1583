"""Learn from the teacher where it is right (Meng et al., 2019).

Work [10] of the survey: for each example the student learns from the teacher
if its first choice is the label, and from the label if not; nothing is
interpolated. The teacher saw a tenth of what the student sees, and is wrong on
about a sixth of it. The student is compared with plain teacher-student
learning, with labels alone, and with fixed mixtures of both.

Simplified: Fashion-MNIST and MLPs instead of speech and LSTMs. Adaptation to
noise is in meng2019_conditional_noise.

  python experiments/distill.py --config configs/meng2019_conditional.py \
      --workdir runs/meng2019_conditional
"""

from ml_collections import ConfigDict

from jaxkd import config

MIXTURES = (0.2, 0.5, 0.8)  # the teacher's part


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=10,
    objective='accuracy',
    data='none',
    teacher='single',
    knowledge='soft labels',
    method='conditional',
    student='single, as the teacher',
    claim='an imperfect teacher is best followed where it is right',
    cite='Meng et al., 2019',
    url='https://arxiv.org/abs/1904.12399',
  )
  c.data = dict(source='fashion_mnist', fraction=dict(teachers=0.1))
  net = dict(model='mlp', kw=dict(widths=(128, 128)))
  c.teachers = dict(main=dict(**net, per_seed=True, train=dict(steps=1000)))
  c.students = dict(student=net)
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.0),
    soft=dict(
      loss='soft_cross_entropy',
      teacher='main',
      when='teacher_is_correct',
      otherwise='labels',
    ),
  )
  always = dict(when='', otherwise='')
  c.arms = dict(
    conditional=dict(),
    teacher_student=dict(distill=dict(soft=always)),
    student=dict(distill=dict(labels=dict(weight=1.0), soft=dict(weight=0.0))),
  ) | {
    f'mixture_{int(100 * part)}': dict(
      distill=dict(
        labels=dict(weight=1 - part), soft=dict(**always, weight=part)
      )
    )
    for part in MIXTURES
  }
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=4000,
    batch_size=64,
    seeds=5,
  )
  c.report = dict(
    compare=dict(better='conditional', than='teacher_student'),
    controls=dict(labels_alone=dict(better='conditional', than='student'))
    | {
      f'mixture_{int(100 * part)}': dict(
        better='conditional', than=f'mixture_{int(100 * part)}'
      )
      for part in MIXTURES
    },
  )
  if size == 'tiny':
    c.data.source = 'digits'
    for role in (c.teachers.main, c.students.student):
      role.kw.widths = (16,)
    c.teachers.main.train.steps = 20
    c.train.update(steps=6, batch_size=16, seeds=2, members='vmap')
  return config.complete(c)
