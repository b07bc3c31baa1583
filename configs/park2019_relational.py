"""Relations between examples as knowledge (Park et al., 2019).

Work [17] of the survey: metric learning. A teacher embeds images such that
those of one class are close; it learns from triplets, and its embeddings have
length 1. Small students match its distances between the examples of a batch
(RKD-D), its angles (RKD-A) or both (RKD-DA), and see no labels. All are tested
by recall@1 on classes that no net has seen.

Here: five classes of Fashion-MNIST to train, the five others to test, MLPs,
embeddings of 2 to 16 numbers. For each size, students learn from distances,
from angles, from both with the paper's weights 1 and 2, from triplets, and from
triplets and a hint, a linear map of the last hidden layer to the teacher's
(FitNet). As in the paper, embeddings have length 1 where triplets are learnt
and are free where relations are; the other way round is there for triplets
(`triplet_free`) and for both relations (`rkd_da_unit`).

Weights and learning rates are chosen on new images of the classes that are
trained on, since the others are to be new to all that is decided: the best of
three rates, and for the hint the best of three weights.

Simplified: MLPs and clothes instead of ResNets and birds; the mean over all
triplets of a batch instead of drawn ones; a batch of 50 from five classes holds
about ten of each, so none are drawn by class; hint and triplets at once, not
one after the other. The paper reports the best epoch on the test classes, here
it is the last step.

`:paper` has CUB-200-2011, TFDS's `caltech_birds2011`: images of 256 pixels, cut
to 224, and 200 classes, of which the first hundred are trained on (Cars196 is
`tfds:cars196` with the first 98 of 196); ResNet50 with 512 numbers to ResNet18
with 16 to 128. It trains on TFDS's train split of the seen classes and tests on
its test split of the others, half of what the paper takes of each, and nets
start at random, where the paper's come from ImageNet.

  python experiments/distill.py --config configs/park2019_relational.py \
      --workdir runs/park2019_relational

It takes about eight minutes on one CPU core. Recall@1 on the new classes, where
the teacher has 84.9 %, for embeddings of 2, 4, 8 and 16 numbers: 28.2, 48.3,
69.6 and 76.0 % by triplets (39.7, 52.8, 62.7, 63.7 % where they are free) and
43.9, 61.7, 79.8 and 82.7 % by distances and angles, which win at every size,
most at the smallest ones. Distances or angles alone are about as good, a hint
adds nothing to triplets, and it is better not to normalise, but for 16 numbers.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

SIZES = (2, 4, 8, 16)  # of the students' embeddings
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WAYS = dict(
  triplet=dict(triplet=1.0),
  rkd_d=dict(distance=1.0),
  rkd_a=dict(angle=2.0),
  rkd_da=dict(distance=1.0, angle=2.0),
  hint=dict(triplet=1.0, hint=1.0),
)


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=17,
    objective='simple model',
    data='classes not seen',
    teacher='single',
    knowledge='relations',
    method='plain',
    student='single, simplified',
    claim='distances and angles beat triplets at the smallest size',
    cite='Park et al., 2019',
    url='https://arxiv.org/abs/1904.05068',
  )
  c.task = 'retrieval'
  c.data = dict(
    source='fashion_mnist',
    kw=dict(validation=3000),
    classes=dict(train=tuple(range(5)), test=tuple(range(5, 10))),
  )
  c.teachers = dict(
    main=dict(
      **embedder('mlp', dict(widths=(256, 256)), size=64),
      per_seed=True,
      train=dict(learning_rate=1e-3, steps=600, eval_every=600),
    )
  )
  c.students = dict(student=embedder('mlp', dict(widths=(32,))))
  both = ('embedding', 'embedding')
  c.distill = dict(
    triplet=dict(loss='triplet', at=both),
    distance=dict(loss='rkd_distance', at=both, teacher='main', weight=0.0),
    angle=dict(loss='rkd_angle', at=both, teacher='main', weight=0.0),
    hint=dict(
      loss='hint',
      at=('features', 'features'),
      teacher='main',
      adapter='linear',
      weight=0.0,
    ),
  )
  c.train = dict(
    optimizer=dict(name='adam'),
    learning_rate=3e-3,
    steps=400,
    batch_size=50,
    seeds=5,
    members='vmap',
    eval_every=400,
  )
  sizes = SIZES
  if size == 'tiny':
    sizes = SIZES[:1]
    c.data.source, c.data.kw = 'digits', {}
    c.teachers.main.kw.update(of_kw=dict(widths=(16,)), size=8)
    c.teachers.main.train = dict(learning_rate=1e-3)
    c.students.student.kw.of_kw = dict(widths=(8,))
    c.train.update(steps=4, batch_size=16, seeds=2, eval_every=4)
  if size == 'paper':
    sizes = (16, 32, 64, 128)
    published(c)
  c.arms, c.tune, controls = {}, (), {}
  for d in sizes:
    arms = {way: arm(way, d, 'triplet' in WAYS[way]) for way in WAYS}
    arms['triplet_free'] = arm('triplet', d, normalize=False)
    arms['rkd_da_unit'] = arm('rkd_da', d, normalize=True)
    for name, own in arms.items():
      c.arms[f'{name}_{d}'] = own
      grid = 'train.learning_rate=1e-3,3e-3,1e-2'
      if name == 'hint':
        grid = 'distill.hint.weight=0.01,0.1,1.0'
      c.tune += (f'{name}_{d}:{grid}',)
    pairs = dict(
      relations=('rkd_da', 'triplet'),
      relations_of_free_ones=('rkd_da', 'triplet_free'),
      relations_of_unit_ones=('rkd_da_unit', 'triplet'),
      distances=('rkd_d', 'triplet'),
      angles=('rkd_a', 'triplet'),
      instead_of_hints=('rkd_da', 'hint'),
      hints=('hint', 'triplet'),
      without_norm=('rkd_da', 'rkd_da_unit'),
    )
    controls |= {
      f'{name}_at_{d}': dict(better=f'{better}_{d}', than=f'{than}_{d}')
      for name, (better, than) in pairs.items()
    }
  claim = controls.pop(f'relations_at_{sizes[0]}')
  c.report = dict(metric='recall_at_1', compare=claim, controls=controls)
  if size:  # as published, or too short to choose anything
    c.tune = ()
  return config.complete(c)


def embedder(of, of_kw, **kw):
  """A net whose last layer embeds."""
  return dict(model='embedder', kw=dict(of=of, of_kw=of_kw, **kw))


def arm(way, size, normalize):
  """Students of an embedding of a size that learn in a way."""
  return dict(
    students=dict(student=dict(kw=dict(size=size, normalize=normalize))),
    distill={
      term: dict(weight=WAYS[way].get(term, 0.0))
      for term in ('triplet', 'distance', 'angle', 'hint')
    },
  )


def published(c):
  """The paper's birds, nets and schedule."""
  c.data = dict(
    source='tfds:caltech_birds2011',
    kw=dict(resize=256, validation=0.1),
    classes=dict(train=tuple(range(100)), test=tuple(range(100, 200))),
    together=5,
  )
  seen = f'standardize({MEAN}, {STD})'
  views = dict(
    train=f'random_crop(224)|flip|{seen}', eval=f'centre(224)|{seen}'
  )
  drawn = dict(negatives='distance_weighted')
  epoch = 100  # steps, as the authors count them
  schedule = dict(schedule='piecewise_constant', weight_decay=1e-5)
  c.teachers = dict(
    main=dict(
      **embedder('resnet50', {}, size=512),
      views=views,
      distill=dict(
        labels=dict(loss='triplet', at=c.distill.triplet.at, kw=drawn)
      ),
      train=dict(
        steps=40 * epoch,
        schedule_kw=dict(
          boundaries_and_scales={n * epoch: 0.5 for n in (25, 30, 35)}
        ),
      ),
    )
  )
  c.students = dict(student=dict(**embedder('resnet18', {}), views=views))
  c.distill.triplet.kw = drawn
  c.train = dict(
    **schedule,
    optimizer=dict(name='adam'),
    learning_rate=1e-4,
    schedule_kw=dict(boundaries_and_scales={40 * epoch: 0.1, 60 * epoch: 0.1}),
    steps=80 * epoch,
    batch_size=128,
    seeds=5,
  )
