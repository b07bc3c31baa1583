"""A student that starts as its teacher, against one that starts at random.

Section VI of the survey holds that a student is trained better from the
teacher's parameters. Each pair of arms has the same net, data, terms and
budget, and differs in where it starts alone:

- `other`: a student of the teacher's architecture, on data that the teacher
  has not seen: a fiftieth as many images, at a quarter of the resolution;
- `narrow`: on that data, a student with a narrower last layer, which takes
  over what has the same shape, the first layer;
- `same`: a student of the teacher's architecture on the teacher's own data,
  where it starts at what it is to become.

All learn from the labels and the teacher's soft targets. Beside the accuracy
at the end stand the steps after which each student first had a set accuracy
on the validation split. Learning rates are the best of three on validation,
for every arm.

What the survey has in mind is [1], whose specialists start as the generalist;
see hinton2015_specialists for these.

  python experiments/distill.py --config configs/init_from_teacher.py \
      --workdir runs/init_from_teacher

Three minutes on one core. From the teacher and from scratch: 81.3 and 78.0 %
on other data, 77.9 and 76.9 % with a narrower layer, 86.8 and 85.1 % on the
teacher's data; 74 % on validation comes 96, 60 and 30 steps sooner. All arms
chose the largest of the three rates, so a larger one might be better still.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

LEVEL = 0.74


def get_config(arg=None):
  size = config.size(arg, no_paper='the survey has no data and nets for this')
  c = ConfigDict()
  c.survey = dict(
    work='section VI',
    objective='learning time, accuracy',
    data='decrease training data, modify resolution',
    teacher='single',
    knowledge='soft labels',
    method='plain',
    student='single, initialised by the teacher',
    claim='a student that starts from its teacher beats one that does not',
    cite='Abbasi et al., 2019',
    url='https://arxiv.org/abs/1912.13179',
  )
  few, pixels = (0.5, 4) if size == 'tiny' else (0.01, 7)
  c.data = dict(
    source='digits' if size == 'tiny' else 'fashion_mnist',
    fraction=dict(teachers=0.5, students=0.5),
    draw='shared',
  )
  widths = (16, 16) if size == 'tiny' else (128, 128)
  net = dict(model='mlp', kw=dict(widths=widths))
  c.teachers = dict(main=dict(**net, per_seed=True, train=dict(steps=2000)))
  c.students = dict(student=net)
  c.distill = dict(
    labels=dict(loss='cross_entropy'),
    soft=dict(loss='kl', teacher='main', kw=dict(temperature=4.0)),
  )
  small = dict(train=f'resolution({pixels})', eval=f'resolution({pixels})')
  other = dict(fraction=dict(students=few), draw='own')
  narrow = dict(widths=(widths[0], widths[1] // 4))
  cases = {
    'other': (other, dict(views=small), 'main'),
    'narrow': (other, dict(views=small, kw=narrow), 'main/layers/0'),
    'same': ({}, {}, 'main'),
  }
  c.arms, controls = {}, {}
  for name, (data, student, init) in cases.items():
    scratch, inherited = f'scratch_{name}', f'inherited_{name}'
    for arm, start in ((scratch, 'random'), (inherited, init)):
      c.arms[arm] = dict(
        data=data, students=dict(student=dict(**student, init=start))
      )
    pair = dict(better=inherited, than=scratch)
    controls |= {
      name: pair,
      f'sooner_{name}': dict(**pair, metric=f'steps_to_{LEVEL}'),
    }
  c.report = dict(compare=controls.pop('other'), controls=controls, reach=LEVEL)
  c.tune = ('train.learning_rate=3e-4,1e-3,3e-3',)
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=600,
    batch_size=64,
    seeds=5,
    members='vmap',
    eval_every=30,
    save_every=600,
  )
  if size == 'tiny':
    c.teachers.main.train.steps = 20
    c.train.update(steps=4, batch_size=16, seeds=2, eval_every=2)
    c.tune = ()
  return config.complete(c)
