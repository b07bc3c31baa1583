"""Fine-grained feature imitation for object detectors (Wang et al., 2019).

Work [15] of the survey: what the teacher of a detector knows lies near the
objects, so that the student imitates its last features there and nowhere else:
at the positions with an anchor that overlaps an object by more than ψ = .5
times as much as the best one. In the paper a toy detector on KITTI goes from
57.4 to 60.4 mAP with half of the channels and from 48.0 to 52.4 with a quarter,
while its teacher has 62.8.

Simplified: one to three of scikit-learn's digits on canvases of 64×64 pixels,
with boxes; a detector of one grid of 8×8 cells with nine anchors each, focal
loss and GroupNorm; a third of the teacher's channels. The arms imitate the
whole map, the inside of the boxes or what is near the anchors, for three ψ, or
learn the teacher's probabilities of the classes (soft targets). A loss is the
mean over the positions that it compares, whose scale differs with these, so
that the weight of each arm is tuned on the validation split, with one seed.

The rates were chosen on the validation split before: after 2,000 steps labels
alone gave the student an AP50 of .12, .18, .36, .44 and .35 at rates of
1e-3, 2e-3, 5e-3, 1e-2 and 2e-2, and the teacher had .55 after half of its steps
at 2e-3.

The paper's loss is half of the sum over C channels, so that its λ is 2 / C of
the weight here; it is 0 for the first 400 steps there, and never here.

  python experiments/distill.py --config configs/wang2019_imitation.py \
      --workdir runs/wang2019_imitation

It needs `pip install 'jaxkd[detection]'`.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

NEAR = 'near_anchors({psi})'
WEIGHTS = '0.3,1.0,3.0,10.0'
# Heights and widths, for a grid of 24 by 78 cells of KITTI: those of SqueezeDet
# (Wu et al., 2017), whose grid the toy detector has.
KITTI = (
  *((37.0, 36.0), (174.0, 366.0), (59.0, 115.0)),
  *((87.0, 162.0), (90.0, 38.0), (173.0, 258.0)),
  *((108.0, 224.0), (170.0, 78.0), (43.0, 72.0)),
)


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=15,
    objective='simple model',
    data='-',
    teacher='single',
    knowledge='features near objects',
    method='masked',
    student='single, simplified',
    claim='imitation near the anchors of objects beats labels alone',
    cite='Wang et al., 2019b',
    url='https://arxiv.org/abs/1906.03609',
  )
  c.task = 'detection'
  c.data = dict(
    source='scenes',
    kw=dict(labels='boxes', size=64, count=4000, test=1000, most=3),
  )
  outputs = ('logits', 'offsets', 'anchors')
  labels = dict(
    loss='jaxkd.tasks.detection:focal_and_boxes',
    at=(outputs, outputs),
    kw=dict(box_weight=0.2),
  )
  c.teachers = dict(
    main=dict(
      model='detector',
      kw=dict(widths=(24, 48, 96)),
      distill=dict(labels=labels),
      train=dict(learning_rate=2e-3, steps=3000),
      cache=dict(outputs=('features', 'logits')),
    )
  )
  c.students = dict(student=dict(model='detector', kw=dict(widths=(8, 16, 32))))
  c.distill = dict(
    labels=labels,
    soft=dict(loss='binary_kl', teacher='main', mask='all', weight=0.0),
    imitation=dict(
      loss='hint',
      at=('features', 'features'),
      teacher='main',
      adapter='conv3x3',
      mask=NEAR.format(psi=0.5),
      weight=0.0,
    ),
  )

  def imitation(mask, weight=1.0):
    return dict(distill=dict(imitation=dict(mask=mask, weight=weight)))

  c.arms = dict(
    student={},
    soft=dict(distill=dict(soft=dict(weight=1.0))),
    whole_map=imitation('all'),
    boxes=imitation('in_boxes'),
    imitation=imitation(NEAR.format(psi=0.5)),
    psi_20=imitation(NEAR.format(psi=0.2)),
    psi_80=imitation(NEAR.format(psi=0.8)),
  )
  # Of each arm the weight of the term that it has.
  c.tune_seeds = 1
  c.tune = (
    f'distill.imitation.weight={WEIGHTS}',
    f'distill.soft.weight={WEIGHTS}',
  )
  c.train = dict(
    optimizer=dict(name='adam'),
    learning_rate=1e-2,
    clip=10.0,
    steps=2000,
    batch_size=16,
    seeds=3,
    members='sequence',
    eval_every=500,
    save_every=500,
  )
  pair = dict(better='imitation', than='student')
  c.report = dict(
    metric='ap50',
    compare=pair,
    controls=dict(
      at_all_overlaps=dict(**pair, metric='ap'),
      whole_map=dict(better='imitation', than='whole_map'),
      boxes=dict(better='imitation', than='boxes'),
      soft=dict(better='imitation', than='soft'),
      more_positions=dict(better='imitation', than='psi_20'),
      fewer_positions=dict(better='imitation', than='psi_80'),
    ),
  )
  if size == 'tiny':
    c.data.kw.update(count=32, test=16, validation=16, size=24)
    shapes = ((8.0, 8.0), (12.0, 8.0))
    for net in (c.teachers.main, c.students.student):
      net.kw = dict(widths=(4, 4, 8), blocks=0, anchors=shapes)
    c.teachers.main.kw.widths = (4, 8, 12)
    c.teachers.main.train.steps = 4
    c.train.update(steps=4, batch_size=8, seeds=2, members='vmap', eval_every=4)
    c.tune = ()
  if size == 'paper':
    _as_in_the_paper(c, imitation)
  return config.complete(c)


def _as_in_the_paper(c, imitation):
  """KITTI: the toy detector, at half and at a quarter of its channels.

  Its layers, of a modified ShuffleNet, are not published: these are residual
  ones of as many parameters, 1.6 million for the teacher, and the schedule is
  ours. TFDS has eight classes and stores where each object is. Faster R-CNN, on
  VOC and COCO, is not here.
  """
  c.data = dict(
    source='tfds:kitti',
    kw=dict(labels='objects/type', resize=(384, 1248)),
  )
  kw = dict(anchors=KITTI, blocks=1)
  c.teachers.main = dict(
    model='detector', kw=dict(**kw, widths=(16, 32, 64, 224))
  )
  half = dict(widths=(8, 16, 32, 112))
  quarter = dict(students=dict(student=dict(kw=dict(widths=(4, 8, 16, 56)))))
  c.students.student = dict(model='detector', kw={**kw, **half})
  c.distill.labels.kw.box_weight = 1.0
  # λ = .01, and half of it for the smaller student as in the authors' code.
  weight = 0.01 * 224 / 2
  near = NEAR.format(psi=0.5)
  c.arms = dict(
    student={},
    whole_map=imitation('all', weight),
    imitation=imitation(near, weight),
    student_25=quarter,
    imitation_25={**quarter, **imitation(near, weight / 2)},
  )
  c.tune = ()
  c.train = dict(
    optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
    learning_rate=1e-2,
    weight_decay=1e-4,
    clip=10.0,
    steps=60_000,
    batch_size=16,
    seeds=3,
  )
  c.report.controls = dict(
    at_all_overlaps=dict(better='imitation', than='student', metric='ap'),
    whole_map=dict(better='imitation', than='whole_map'),
    of_a_quarter=dict(better='imitation_25', than='student_25'),
  )
