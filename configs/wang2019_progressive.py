"""Early action prediction from a teacher of whole clips (Wang et al., 2019a).

Work [14] of the survey: a clip is cut into ten segments. The teacher, an LSTM
in both directions, has seen the whole clip at each of them; the student, one in
one direction, has seen the segments so far. At each level the student learns
the label, the teacher's features by their squared difference, and their
distribution over the batch by the maximum mean discrepancy (MMD) with a
polynomial kernel. A further arm learns the teacher's soft labels at each level,
which is not in the paper. (What is said of the paper is from its abstract and
accounts of it: which sets its MMD compares was not read. `mmd_of_clips` takes
the levels of each clip as a set, in place of the clips of a batch at a level.)

The area under the curve of accuracy against the observed share is the mean of
top-1 over the ten levels, `auc`; series.png of a run has the curves. The share
that counts is that of the first levels, where a student cannot know the end.

Simplified: clips of 12 frames, made of clothes of Fashion-MNIST that do one of
ten things before a panning camera. The segments are ten of their frames, as the
motion vectors since the first at 16×16 pixels, in place of features of a 3D net
on UCF-101; teacher 2×32 units, student 64.

  python experiments/distill.py --config configs/wang2019_progressive.py \
      --workdir runs/wang2019_progressive

Clips of your own need their options too, since those of `clips` are dropped
where another source is named: `--config.data.source=video:PATH
--config.data.kw.parts="('motion',)" --config.data.kw.count=10
--config.data.kw.resize=16`.

It needs `pip install 'jaxkd[video]'`; encoding takes a few minutes, once. A run
takes an hour on one CPU core.

The claim holds: features and MMD together gain one point of `auc`. But the gain
is from 40 % of a clip on, where the student comes to know as much as the
teacher, and not at its beginning; features alone gain as much, MMD alone and
soft labels lose. The learning rate of the arm without a teacher is the largest
of its grid.

`:paper` takes features of ten segments of UCF-101 from a 3D net, from
data/ucf101_segments.npz, which one has to make, and nets of 2048 units; the
paper's rates and steps were not read, so these are ours.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

LEVELS = 10
LAYOUT = (
  'make features of ten equal segments of each clip of UCF-101 by a 3D net '
  'that was trained on Kinetics, and put them there as numpy.savez makes it: '
  'x_train and x_test, floats [clips, 10, 2048], with y_train and y_test from '
  '0 to 100'
)


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=14,
    objective='accuracy of early predictions',
    data='the student sees the beginning',
    teacher='single, sees the whole clip',
    knowledge='features, soft labels',
    method='intermediate layers',
    student='single, simplified',
    claim='a student that sees parts learns from a teacher that sees all',
    cite='Wang et al., 2019a',
    url='https://doi.org/10.1109/CVPR.2019.00367',
  )
  c.task = 'early'
  c.data = dict(
    source='clips',
    kw=dict(
      train=5000, test=2000, validation=1000, pan=1.5, quantizer=6,
      parts=('motion',), count=LEVELS, resize=16,
    ),
  )  # fmt: skip
  every = dict(
    loss='cross_entropy', at=('levels', 'levels'), kw=dict(every=True)
  )
  net = dict(widths=(8, 16), width=64)
  seen = (
    '' if size == 'paper' else f'standardize(0.502, 0.1)|segments({LEVELS})'
  )
  views = dict(train=seen, eval=seen)
  c.teachers = dict(
    main=dict(
      model='lrcn',
      views=views,
      kw=dict(**net, bidirectional=True),
      cache=dict(outputs=('levels', 'features')),
      distill=dict(labels=every),
    )
  )
  c.students = dict(student=dict(model='lrcn', views=views, kw=net))
  features = dict(at=('features', 'features'), teacher='main')
  mmd = dict(**features, loss='maximum_mean_discrepancy')
  c.distill = dict(
    labels=every,
    mse=dict(**features, loss='hint', weight=0.0),
    mmd=dict(**mmd, kw=dict(across=True), weight=0.0),
    mmd_of_clips=dict(**mmd, weight=0.0),
    soft=dict(
      loss='kl',
      at=('levels', 'levels'),
      teacher='main',
      kw=dict(temperature=2.0),
      weight=0.0,
    ),
  )

  def taught(**weights):
    return dict(distill={n: dict(weight=w) for n, w in weights.items()})

  # This kernel adds up fourth powers of 64 features, so its weight is small.
  c.arms = dict(
    student={},
    mse=taught(mse=1.0),
    mmd=taught(mmd=0.001),
    distilled=taught(mse=1.0, mmd=0.001),
    of_clips=taught(mse=1.0, mmd_of_clips=0.001),
    soft=taught(labels=0.5, soft=0.5),
  )
  # Each arm has three runs on the validation split.
  c.tune = (
    'student:train.learning_rate=2e-3,5e-3,1e-2',
    'mse:distill.mse.weight=0.1,1.0,10.0',
    'mmd:distill.mmd.weight=1e-4,1e-3,1e-2',
    'distilled:distill.mse.weight=0.1,1.0,10.0',
    'of_clips:distill.mmd_of_clips.weight=1e-4,1e-3,1e-2',
    'soft:distill.soft.weight=0.3,1.0,3.0',
  )
  c.tune_seeds = 1
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=5e-3,
    clip=5.0,
    steps=1000,
    batch_size=64,
    seeds=5,
  )
  c.report = dict(
    metric='auc',
    compare=dict(better='distilled', than='student'),
    controls=dict(
      mse=dict(better='mse', than='student'),
      mmd=dict(better='mmd', than='student'),
      both=dict(better='distilled', than='mse'),
      sets_of_clips=dict(better='of_clips', than='mse'),
      soft=dict(better='soft', than='student'),
      soft_or_features=dict(better='soft', than='distilled'),
      at_30_per_cent=dict(better='distilled', than='student', metric='at_30'),
      at_50_per_cent=dict(better='distilled', than='student', metric='at_50'),
    ),
  )
  if size != '':
    c.tune = ()
  if size == 'tiny':
    c.data.kw = dict(
      objects='digits', size=16, codec=False, train=40, test=20, validation=20,
      parts=('motion',), count=LEVELS, resize=8,
    )  # fmt: skip
    c.teachers.main.kw.update(widths=(4,), width=8)
    c.students.student.kw = dict(widths=(4,), width=8)
    c.train.update(steps=4, batch_size=16, seeds=2, members='vmap')
  if size == 'paper':
    c.data = dict(
      source='npz:ucf101_segments.npz',
      dir='data',
      layout=LAYOUT,
      kw=dict(layout='features'),
    )
    c.teachers.main.kw.update(width=2048)
    c.students.student.kw = dict(width=2048)
    c.train.update(steps=20_000, batch_size=128, seeds=3)
  return config.complete(c)
