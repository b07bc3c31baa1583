"""One small student of several unlike teachers.

Work [3] of the survey could not be identified: it is cited for small students
and for students of an ensemble, and is in neither table. What is here is the
class of method that the survey describes, in every form that it may have meant.
Three teachers (an MLP, a deeper one that sees half of the pixels, a mixer)
learn from 10 % of the training images and teach a small MLP that sees 2 %,
which are among those:

- the mean of their probabilities or of their logits, or the mixture that is
  best on validation;
- one of them for each batch, at random or in turn (Fukuda et al., 2017), or
  the losses to all of them, `multi_stream`: their mean is the expectation of
  the loss on a transfer set that is repeated for each teacher, which Fukuda
  et al. go through example by example. Its gradient is that of the loss to the
  mean of the softened probabilities, so this arm differs from `mean` only by
  rounding;
- the mean, with a relative term: for a triplet of examples, which of two is
  closer to the third, by the vote of the teachers (You et al., 2017);
- one teacher with noise on its logits, in place of many (Sau &
  Balasubramanian, 2016);
- no teacher at all: two students that teach each other (Zhang et al., 2018),
  and branches on a shared trunk that learn from their gated ensemble (ONE, Lan
  et al., 2018), of which the first, as large as the student, is used.

They are compared with the student alone and the student of the single teacher
that is best on validation. All arms are tuned in three trials on validation. In
the second part four teachers have a quarter of the data each, and a student of
their size, which sees all inputs and no label, learns from their mean: it
should beat the average teacher. `student_all` has all labels, unlike any of the
teachers.

Fashion-MNIST at 14×14 pixels; every seed has teachers of its own.

  python experiments/distill.py --config configs/multi_teacher.py \
      --workdir runs/multi_teacher

It takes about seven minutes on one CPU core. Means over five seeds: teachers
83.8, 84.3 and 84.6 %, students alone 80.4 %, of the best single teacher 82.7 %,
of all three 82.6 % (mean), 82.7 % (with votes), 82.3 to 82.6 % (other ways). So
teachers help, by 2.2 points, and no variant with three teachers differs
significantly from the best single one; the gains of peers and branches are
within the interval. The student of four teachers with a quarter of the data
each is 1.9 points above them and 0.3 below the one with all labels. With
teachers that see 40 % of the images, several were no better than one either
(two seeds); with 600 steps, before labels are memorised, students alone were
the best.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

UNLIKE = ('wide', 'deep', 'mixer')
BRANCHES = 3


def get_config(arg=None):
  size = config.size(arg, no_paper='work [3] of the survey is not identified')
  c = ConfigDict()
  c.survey = dict(
    work=3,
    objective='simple model',
    data='decrease training data',
    teacher='many',
    knowledge='soft labels',
    method='aggregated',
    student='single, simplified',
    claim='a student of several teachers beats one that learns from labels',
    cite='not identified',
  )
  c.data = dict(
    source='fashion_mnist',
    fraction=dict(teachers=0.1, students=0.02),
    partition=dict(teachers='disjoint'),  # of the members of a group
    draw='shared',
  )
  seen, less = (
    dict.fromkeys(('train', 'eval'), f'resize({n})') for n in (14, 10)
  )
  how = dict(steps=1500, batch_size=64, learning_rate=5e-3)
  each = dict(per_seed=True, train=how)
  kept = dict(cache=dict(outputs=('logits', 'embedding')))
  fold = dict(model='mlp', kw=dict(widths=(64, 64)))
  c.teachers = dict(
    wide=dict(model='mlp', kw=dict(widths=(128,)), views=seen, **each, **kept),
    deep=dict(
      model='mlp', kw=dict(widths=(64, 64, 64)), views=less, **each, **kept
    ),
    mixer=dict(
      model='mixer',
      kw=dict(width=32, depth=2, patch=7),
      views=seen,
      **each,
      **kept,
    ),
    folds=dict(**fold, views=seen, count=4, **each),
  )
  small = dict(model='mlp', kw=dict(widths=(32, 32)))
  c.students = dict(student=dict(**small, views=seen))
  c.distill = dict(labels=dict(loss='cross_entropy', weight=0.1))
  soft = dict(loss='kl', kw=dict(temperature=3.0))
  several = dict(**soft, teacher=UNLIKE)
  mean = dict(**several, fuse='mean_probabilities')
  hard = dict(labels=dict(weight=1.0))
  votes = dict(
    loss='triplet_votes',
    teacher=UNLIKE,
    at=('embedding', 'embedding'),
    weight=1.0,
  )
  noisy = dict(loss='noisy_logit_mse', teacher='wide')
  peers = dict(students=dict(student=dict(count=2)))
  everything = dict(
    data=dict(fraction=dict(students=0.1)), students=dict(student=fold)
  )
  c.arms = dict(
    student=dict(distill=hard),
    best_single=dict(distill=dict(soft=dict(**soft, teacher='wide'))),
    mean=dict(distill=dict(soft=mean)),
    mean_logits=dict(distill=dict(soft={**mean, 'fuse': 'mean_logits'})),
    weighted=dict(distill=dict(soft=dict(**mean, fuse_weights='validation'))),
    switch=dict(distill=dict(soft=dict(**several, fuse='sampled'))),
    in_turn=dict(distill=dict(soft=dict(**several, fuse='round_robin'))),
    multi_stream=dict(distill=dict(soft=several)),
    votes=dict(distill=dict(soft=mean, votes=votes)),
    noisy=dict(distill=dict(noisy=noisy)),
    noiseless=dict(distill=dict(noisy=dict(**noisy, kw=dict(share=0.0)))),
    mutual=dict(
      distill=dict(**hard, peer=dict(**soft, teacher='student')), **peers
    ),
    branches=dict(
      distill=_native_ensemble(soft),
      students=dict(
        student=dict(
          model='branches', kw=dict(trunk=(32,), widths=(32,), count=BRANCHES)
        )
      ),
    ),
    folds=dict(
      distill=dict(labels=dict(weight=0.0), soft={**mean, 'teacher': 'folds'}),
      **everything,
    ),
    student_all=dict(distill=hard, **everything),
  )
  weights, lower = '0.3,1.0,3.0', '0.03,0.1,0.3'
  grids = dict.fromkeys(c.arms, f'distill.soft.weight={weights}')
  branches = ','.join(f'distill.soft{i}.weight' for i in range(BRANCHES))
  grids |= dict(
    student='train.learning_rate=5e-3,1e-2,2e-2',
    best_single=f'distill.soft.teacher={",".join(UNLIKE)}',
    votes='distill.votes.weight=0.1,1.0,10.0',
    noisy=f'distill.noisy.weight={lower}',
    noiseless=f'distill.noisy.weight={lower}',
    mutual=f'distill.peer.weight={weights}',
    branches=f'{branches}*={weights}',
  )
  second = ('folds', 'student_all')
  c.tune = tuple(
    f'{arm}:{grid}' for arm, grid in grids.items() if arm not in second
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-2,
    steps=2000,
    batch_size=32,
    seeds=5,
    eval_every=500,
  )
  ways = ('mean_logits', 'weighted', 'switch', 'in_turn', 'multi_stream')
  c.report = dict(
    compare=dict(better='mean', than='student'),
    controls=dict(
      several_beat_the_best_single=dict(better='mean', than='best_single'),
      single_beats_labels=dict(better='best_single', than='student'),
      **{
        f'{way}_beats_the_mean': dict(better=way, than='mean')
        for way in (*ways, 'votes')
      },
      noise_helps=dict(better='noisy', than='noiseless'),
      mutual_beats_labels=dict(better='mutual', than='student'),
      branches_beat_labels=dict(better='branches', than='student'),
      teachers_beat_peers=dict(better='mean', than='mutual'),
      above_its_teachers=dict(better='folds', than='teacher folds'),
      folds_instead_of_labels=dict(better='folds', than='student_all'),
    ),
  )
  if size == 'tiny':
    _shrink(c)
  return config.complete(c)


def _native_ensemble(soft):
  """Labels for each branch and for what the gate makes, which teaches all."""
  terms = dict(
    labels=dict(at=('ensemble', 'ensemble'), weight=1.0),
  )
  for i in range(BRANCHES):
    at = (f'branches/{i}', 'ensemble')
    terms[f'labels{i}'] = dict(loss='cross_entropy', at=at)
    terms[f'soft{i}'] = dict(**soft, at=at, teacher='student')
  return terms


def _shrink(c):
  c.data.source = 'digits'
  for role in (*c.teachers.values(), c.students.student):
    role.views = dict(train='resize(7)', eval='resize(7)')
  c.teachers.wide.kw.widths = (16,)
  c.teachers.deep.kw.widths = (8, 8)
  c.teachers.mixer.kw.update(width=8, depth=1)
  c.students.student.kw.widths = (8, 8)
  c.train.update(steps=2, batch_size=16, seeds=2, members='vmap', eval_every=2)
  for teacher in c.teachers.values():
    teacher.train.update(steps=2, batch_size=16)
  c.tune = ()
