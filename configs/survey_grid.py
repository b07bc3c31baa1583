"""More teachers, more knowledge, a better start: what does each of them add?

The survey concludes that many teachers and abundant knowledge give the best
accuracy, and that the choice of the student and of its initial values gives a
simple model; none of its works tests that. Here are all combinations of

- one teacher or three, of one architecture;
- soft labels (`soft`), with features of the last hidden layer (`features`),
  with these and the distances between examples (`relations`);
- a random start, or the first layer of a teacher (`started`),

twelve cells, and the student alone. Each is tuned in three trials: the student
alone by its learning rate, the others by the weights of their terms from
teachers, features and relations if they have them.

Nets and data are small: Fashion-MNIST, of which the teachers see half and the
student a fiftieth, and MLPs, the student's with a sixteenth of the teachers'
second layer.

  python experiments/distill.py --config configs/survey_grid.py \
      --workdir runs/survey_grid

Four minutes on one core. The student alone has 80.0 %, the twelve cells 80.3 to
80.8 %: all beat it, and on five seeds none differs significantly from one
teacher with soft labels (80.3 %). Features and relations took the smallest
weight of their grids, and the student alone the largest learning rate.
"""

import itertools

from ml_collections import ConfigDict

from jaxkd.run import config

TEACHERS = {'one': ('first',), 'three': ('first', 'second', 'third')}
KNOWLEDGE = ('soft', 'features', 'relations')  # each with those before it
STARTS = {'': 'random', '_started': 'first/layers/0'}


def get_config(arg=None):
  size = config.size(arg, no_paper='the survey has no data and nets for this')
  tiny = size == 'tiny'
  c = ConfigDict()
  c.survey = dict(
    work='section VIII',
    objective='accuracy, simple model',
    data='decrease training data',
    teacher='single, many',
    knowledge='soft labels, features, relations',
    method='plain, aggregated',
    student='single, simplified, initialised by a teacher',
    claim='three teachers, all kinds of knowledge and a start from a teacher '
    'beat one teacher and soft labels',
    cite='Abbasi et al., 2019',
    url='https://arxiv.org/abs/1912.13179',
  )
  c.data = dict(
    source='digits' if tiny else 'fashion_mnist',
    fraction=dict(teachers=0.5, students=0.5 if tiny else 0.02),
  )
  wide, narrow = ((8, 8), (8, 4)) if tiny else ((64, 64), (64, 16))
  teacher = dict(
    model='mlp',
    kw=dict(widths=wide),
    per_seed=True,
    train=dict(steps=20 if tiny else 1500),
  )
  c.teachers = dict.fromkeys(TEACHERS['three'], teacher)
  c.students = dict(student=dict(model='mlp', kw=dict(widths=narrow)))
  embeddings = ('embedding', 'embedding')
  c.distill = dict(labels=dict(loss='cross_entropy'))
  for count, names in TEACHERS.items():
    c.distill[f'soft_{count}'] = dict(
      loss='kl',
      teacher=names,
      fuse='mean_probabilities',
      kw=dict(temperature=4.0),
      weight=0.0,
    )
  for name in TEACHERS['three']:
    # Each has an adapter of its own, as their features have no common order.
    c.distill[f'features_{name}'] = dict(
      loss='hint', at=embeddings, teacher=name, adapter='linear', weight=0.0
    )
    c.distill[f'relations_{name}'] = dict(
      loss='rkd_distance', at=embeddings, teacher=name, weight=0.0
    )
  c.arms = dict(student=dict())
  c.tune = ('student:train.learning_rate=5e-4,1e-3,2e-3',)
  for count, kind, start in itertools.product(TEACHERS, KNOWLEDGE, STARTS):
    names, arm = TEACHERS[count], f'{count}_{kind}{start}'
    weights = {f'soft_{count}': 1.0}
    for extra in KNOWLEDGE[1 : KNOWLEDGE.index(kind) + 1]:
      weights |= {f'{extra}_{name}': 1.0 / len(names) for name in names}
    c.arms[arm] = dict(
      students=dict(student=dict(init=STARTS[start])),
      distill={name: dict(weight=weight) for name, weight in weights.items()},
    )
    tuned = [name for name in weights if kind == 'soft' or 'soft' not in name]
    entries = ','.join(f'distill.{name}.weight' for name in tuned)
    c.tune += (f'{arm}:{entries}*=0.1,1.0,10.0',)
  c.report = dict(
    compare=dict(better='three_relations_started', than='one_soft'),
    controls=dict(
      several_teachers=dict(better='three_soft', than='one_soft'),
      more_knowledge=dict(better='one_relations', than='one_soft'),
      features_alone=dict(better='one_features', than='one_soft'),
      good_start=dict(better='one_soft_started', than='one_soft'),
      soft_labels=dict(better='one_soft', than='student'),
      all_but_several_teachers=dict(
        better='three_relations_started', than='one_relations_started'
      ),
      all_but_more_knowledge=dict(
        better='three_relations_started', than='three_soft_started'
      ),
      all_but_the_start=dict(
        better='three_relations_started', than='three_relations'
      ),
    ),
    rank=True,
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=4 if tiny else 500,
    batch_size=16 if tiny else 64,
    seeds=2 if tiny else 5,
    members='vmap',
    eval_every=2 if tiny else 250,
    save_every=4 if tiny else 500,
  )
  if tiny:
    c.tune = ()
  return config.complete(c)
