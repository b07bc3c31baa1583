"""A student of data impressions, without any data (Nayak et al., 2019).

Work [7] of the survey: inputs are optimised until the teacher's predictions
equal soft labels drawn from Dirichlet distributions, whose concentrations are
the similarities of classes by the weights of the teacher's last layer. The
student only sees these inputs, and learns the teacher's soft targets, without
labels. Three controls have as many examples and steps: uniform noise; inputs
optimised for one class each; and impressions with equal similarities of all
classes. The ceiling is a student that has the data. In the paper LeNet-5's half
reaches 98.8 % on MNIST, and 99.3 % with the data.

Simplified: scikit-learn's 8×8 digits, a teacher of 128-128 units and a student
of 64-64, 2,000 impressions of 300 steps for each seed, from a teacher of its
own, kept between 0 and 1; students see them with noise. Nothing is tuned, as
there would be no data to do so on; the learning rate is that of the teacher.
`:paper` is MNIST, LeNet-5 and its half, 24,000 impressions.

Two minutes on one CPU core. The student of impressions has 95.8 %, 97.0 % of
its teacher's 98.8 %; of noise 91.6 %, of inputs for one class each 94.2 %, with
the data 98.5 %. The similarities of classes do not help: with equal ones it is
96.3 %.

  python experiments/distill.py --config configs/nayak2019_zero_shot.py \
      --workdir runs/nayak2019_zero_shot
"""

from ml_collections import ConfigDict

from jaxkd.run import config


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=7,
    objective='limited data',
    data='data impressions',
    teacher='single',
    knowledge='soft labels',
    method='plain',
    student='single, simplified',
    claim='a student needs no data but impressions made of its teacher',
    cite='Nayak et al., 2019',
    url='https://arxiv.org/abs/1905.08114',
  )
  c.data = dict(source='digits')
  c.teachers = dict(
    main=dict(
      model='mlp',
      kw=dict(widths=(128, 128)),
      views=dict(train='noise(0.15)'),
      per_seed=True,
      train=dict(steps=1500, learning_rate=3e-3),
    )
  )
  c.students = dict(
    student=dict(
      model='mlp', kw=dict(widths=(64, 64)), views=dict(train='noise(0.15)')
    )
  )
  c.distill = dict(
    soft=dict(loss='kl', teacher='main', kw=dict(temperature=20.0))
  )
  made = dict(count=2000, kw=dict(steps=300, learning_rate=0.01))

  def generated(name='impressions', **kw):
    options = {**made['kw'], **kw} if name == 'impressions' else {}
    own = dict(name=name, count=made['count'], kw=options)
    return dict(data=dict(generated=own))

  c.arms = dict(
    impressions=generated(),
    noise=generated('noise'),
    one_hot=generated(targets='one_hot'),
    alike_classes=generated(targets='alike_classes'),
    data=dict(),
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=3e-3,
    steps=2000,
    batch_size=64,
    seeds=10,
  )
  c.report = dict(
    compare=dict(better='impressions', than='noise'),
    controls=dict(
      one_hot=dict(better='impressions', than='one_hot'),
      alike_classes=dict(better='impressions', than='alike_classes'),
      ceiling=dict(better='data', than='impressions'),
    ),
    notes=(
      'nothing is tuned, as a student without data has nothing to be tuned on',
      'impressions of equally alike classes were as good or better, too, with '
      'five times the learning rate of the inputs and with students that see '
      'no noise (two seeds each)',
    ),
  )
  if size == 'tiny':
    c.teachers.main.kw.widths = (16,)
    c.teachers.main.train.steps = 20
    c.students.student.kw.widths = (8,)
    for name in c.arms:
      if name != 'data':
        c.arms[name].data.generated.count = 40
      if name not in ('data', 'noise'):
        c.arms[name].data.generated.kw.steps = 4
    c.train.update(steps=6, batch_size=16, seeds=2, members='vmap')
  if size == 'paper':
    c.data = dict(source='tfds:mnist')
    c.teachers.main = dict(
      model='lenet5', train=dict(steps=60_000, learning_rate=1e-3)
    )
    view = dict(train='rotate(10)|shift(2)|noise(0.1)')
    c.students.student = dict(model='lenet5_half', views=view)
    for name in c.arms:
      if name != 'data':
        c.arms[name].data.generated.count = 24_000
      if name not in ('data', 'noise'):
        c.arms[name].data.generated.kw.update(steps=1500, learning_rate=1e-3)
    c.train.optimizer = dict(name='adam')
    c.train.update(steps=75_000, learning_rate=1e-3)
  return config.complete(c)
