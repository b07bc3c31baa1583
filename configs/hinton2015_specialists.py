"""A generalist and specialists for what it confuses (Hinton et al., 2015).

Work [1] of the survey, algorithm C: classes that a generalist confuses,
clustered by the covariance of its predictions, are given to specialists, copies
of the generalist with a dustbin class for all others. Half of their examples
are of their own classes, half of others. The joint prediction is, for each
example, the distribution with the least sum of KL divergences to theirs. The
control has specialists for random classes. Beyond the paper, the whole system
is distilled into one student, beside a student of the generalist alone.

Simplified: 62 characters in many fonts, no font of which is in two splits,
instead of JFT's 15,000 classes; MLPs; a class has one specialist at most. Nets
are small, as one of 128 and 128 units leaves specialists nothing to gain (95.5
% with and without them).

  python experiments/distill.py --config configs/hinton2015_specialists.py \
      --workdir runs/hinton2015_specialists

Seven minutes on one core. Means over five seeds: generalist 91.2 %, with
specialists 91.8 %, with specialists for random classes 91.5 %, not
significantly different from either. The student of the system has 90.8 %, that
of the generalist 91.0 % and that of the labels 91.2 %: the gain is not
distilled.
"""

from ml_collections import ConfigDict

from jaxkd.run import config


def get_config(arg=None):
  size = config.size(
    arg, no_paper='the images of this experiment were never published'
  )
  c = ConfigDict()
  c.survey = dict(
    work=1,
    objective='accuracy',
    data='specialist subsets',
    teacher='specialists',
    knowledge='soft labels',
    method='aggregated',
    student='single',
    claim='specialists for confused classes improve on a generalist',
    cite='Hinton et al., 2015',
    url='https://arxiv.org/abs/1503.02531',
  )
  c.data = dict(source='glyphs')
  view = dict(train='shift(2)', eval='')
  net = dict(model='mlp', kw=dict(widths=(48,)), views=view)
  special = dict(
    **net,
    count=12,
    per_seed=True,
    init='generalist',
    train=dict(steps=1500, members='vmap'),
  )
  system = dict(fuse='specialists', views=view)
  c.teachers = dict(
    generalist=dict(**net, per_seed=True, train=dict(steps=4000)),
    specialists=dict(**special, specialize=dict(of='generalist', size=4)),
    random=dict(
      **special, specialize=dict(of='generalist', size=4, by='random')
    ),
    system=dict(**system, made_of=('generalist', 'specialists')),
    random_system=dict(**system, made_of=('generalist', 'random')),
  )
  c.students = dict(student=net)
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.5),
    soft=dict(
      loss='kl', teacher='system', weight=0.5, kw=dict(temperature=2.0)
    ),
  )
  c.arms = dict(
    student=dict(distill=dict(labels=dict(weight=1.0), soft=dict(weight=0.0))),
    distilled=dict(),
    of_generalist=dict(distill=dict(soft=dict(teacher='generalist'))),
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=4000,
    batch_size=64,
    seeds=5,
  )
  c.report = dict(
    compare=dict(better='teacher system', than='teacher generalist'),
    controls=dict(
      random_clusters=dict(
        better='teacher system', than='teacher random_system'
      ),
      distilled=dict(better='distilled', than='of_generalist'),
      alone=dict(better='distilled', than='student'),
    ),
  )
  if size == 'tiny':
    c.data = dict(source='digits')
    for role in (
      c.teachers.generalist,
      c.teachers.specialists,
      c.teachers.random,
      c.students.student,
    ):
      role.kw.widths = (16,)
    for group in (c.teachers.specialists, c.teachers.random):
      group.count = 3
      group.train.steps = 6
    c.teachers.generalist.train.steps = 30
    c.train.update(steps=6, batch_size=16, seeds=2, members='vmap')
  return config.complete(c)
