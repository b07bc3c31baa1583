"""Distillation of low-precision nets (Mishra and Marr, 2018).

Work [4] of the survey, probably: Apprentice. Students of ternary and of 4-bit
weights, with activations of 8 and of 4 bits, learn from the labels alone
(`labels_...`) or from a teacher too, in three ways, A and C with 8 bits:

- A, `joint_...`: both learn together from the beginning, and no gradient goes
  from the student's loss into the teacher;
- B, `fixed_...`: the teacher was trained before;
- C, `tuned_...`: as B, but the student starts as its full-precision self,
  trained on the labels, at a lower learning rate; `tuned_labels_ternary_8` does
  so without a teacher.

The loss is H(y, teacher) + 0.5 H(y, student) + 0.5 H(teacher, student), the
first in A alone. The survey says that teacher and student are both of low
precision: `low_...` learns from a teacher of 4 bits, and `features_...` from
features of the teacher that are rounded to 4 bits, as the student's are
(Quantization Mimic, Wei et al., 2018; there they are rounded behind the map to
the teacher's size, here before it). The row has the bit-operations of all:
multiplications × bits of the weight × bits of the activation.

Simplified: MLPs on Fashion-MNIST instead of residual nets on ImageNet; students
see 4 % of it and fixed teachers all, so that they know more than the labels,
unlike a teacher that learns together with its student. Every seed has teachers
of its own. The last layer keeps its precision; images keep their 8 bits.
Activations are clipped at 4 instead of 1, as there is no normalisation, and
levels of 4-bit weights end at the largest of an array instead of at 1, from
which the weights of an MLP are far. `:paper` is ImageNet, ResNet-50 to
ResNet-18 (`--config.teachers.main.model=resnet34` and `resnet101` are the
paper's others): images in `imagenet/train`, `imagenet/validation` and
`imagenet/test`, the last with its 50,000 labelled ones, in a folder for each of
the 1,000 classes, brought to [224, 224, 3]. The first layer is of full
precision there too, and activations have 8 bits, as in the paper.

Nine minutes on one core. Means over five seeds: teachers 87.9 %, of 4 bits 87.8
%; student in full precision 82.3 %, taught 83.7 %; ternary weights with 8-bit
activations 81.9 %, taught (B) 83.2 %, by the teacher of 4 bits 83.3 %,
fine-tuned (C) 82.9 %; weights of 4 bits 82.4, 83.7 and 83.5 %. So a fixed
teacher gives back more than the bits have cost. A teacher that learns together
with its student (A) gives nothing, as it knows no more than the labels.
Features that are rounded give 0.3 points, within the interval. Before, teachers
saw the 10 % that the students did (untuned): there nothing helped, nor did the
teacher in full precision.

  python experiments/distill.py --config configs/mishra2018_apprentice.py \
      --workdir runs/mishra2018_apprentice
"""

from ml_collections import ConfigDict

from jaxkd.run import config

WEIGHTS = dict(ternary='ternary({})', four='wrpn(4, scaled=True, {})')

RATES, SLOW = '3e-4,1e-3,3e-3', '1e-4,3e-4,1e-3'  # from scratch, to fine-tune


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=4,
    objective='simple model',
    data='none',
    teacher='single',
    knowledge='soft labels',
    method='plain',
    student='single, quantised',
    claim='a net of few bits learns more with a teacher than without',
    cite='Mishra & Marr, 2018',
    url='https://arxiv.org/abs/1711.05852',
  )
  share = 1.0 if size == 'paper' else 0.04
  c.data = dict(
    source='fashion_mnist', fraction=dict(students=share), draw='shared'
  )
  teacher, student = nets(size)
  low = few('four', 4, size)
  kept = dict(outputs=() if size == 'paper' else ('logits',))
  longer = dict() if size == 'paper' else dict(steps=4000)
  c.teachers = dict(
    main=dict(**teacher, per_seed=True, cache=kept, train=longer),
    low=dict(**teacher, per_seed=True, cache=kept, quantize=low, train=longer),
    full=dict(**student, per_seed=True, data=dict(fraction=share)),
    rounded=dict(
      **teacher,
      per_seed=True,
      init='main',
      freeze='*',
      quantize=mimic(size),
      train=dict(steps=1),
    ),
  )
  c.students = dict(student=student)
  soft = dict(loss='soft_cross_entropy', of='student')
  c.distill = dict(
    labels=dict(loss='cross_entropy', of='student', weight=0.5),
    soft=dict(**soft, teacher='main', weight=0.5),
  )
  hard = dict(labels=dict(weight=1.0), soft=dict(weight=0.0))
  c.arms = dict(student=dict(distill=hard), distilled=dict())
  controls = dict(
    full_precision=dict(better='distilled', than='student'),
    low_precision_teacher=dict(better='low_ternary_8', than='labels_ternary_8'),
    teachers_precision=dict(better='fixed_ternary_8', than='low_ternary_8'),
    features=dict(better='features_ternary_8', than='labels_ternary_8'),
    tuned_without_teacher=dict(
      better='tuned_ternary_8', than='tuned_labels_ternary_8'
    ),
  )
  rate = 1e-3 if size != 'paper' else 0.1
  slower = dict(learning_rate=1e-3) if size == 'paper' else {}
  for name in WEIGHTS:
    for bits in (8,) if size == 'paper' else (8, 4):
      which = f'{name}_{bits}'
      own = dict(student=dict(quantize=few(name, bits, size)))
      c.arms[f'labels_{which}'] = dict(students=own, distill=hard)
      c.arms[f'fixed_{which}'] = dict(students=own)
      for way, than in (('fixed', f'labels_{which}'), ('labels', 'student')):
        controls[f'{way}_{which}'] = dict(better=f'{way}_{which}', than=than)
    which = f'{name}_8'
    own = dict(student=dict(quantize=few(name, 8, size)))
    start = dict(student=dict(**own['student'], init='full'))
    mentor = dict(
      mentor=dict(loss='cross_entropy', of='mentor'),
      soft=dict(teacher='mentor'),
    )
    c.arms[f'joint_{which}'] = dict(
      students=dict(**own, mentor=teacher), distill=mentor
    )
    c.arms[f'tuned_{which}'] = dict(students=start, train=slower)
    for way, than in (
      ('joint', f'labels_{which}'),
      ('tuned', f'fixed_{which}'),
    ):
      controls[f'{way}_{which}'] = dict(better=f'{way}_{which}', than=than)
  own = dict(student=dict(quantize=few('ternary', 8, size)))
  start = dict(student=dict(**own['student'], init='full'))
  mimicking = f'{few("ternary", 8, size)}|{mimic(size)}'
  c.arms.update(
    low_ternary_8=dict(students=own, distill=dict(soft=dict(teacher='low'))),
    tuned_labels_ternary_8=dict(students=start, train=slower, distill=hard),
    features_ternary_8=dict(
      students=dict(student=dict(quantize=mimicking)),
      distill=dict(
        labels=dict(weight=1.0),
        soft=dict(weight=0.0),
        features=dict(
          loss='hint',
          of='student',
          at=(layer(size), layer(size)),
          teacher='rounded',
          adapter='linear',
        ),
      ),
    ),
  )
  claim = controls.pop('fixed_ternary_8')
  c.report = dict(compare=claim, controls=controls)
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=rate,
    steps=1500,
    batch_size=64,
    seeds=5,
  )
  if not size:
    c.tune = tuple(
      f'{arm}:train.learning_rate={SLOW if "tuned" in arm else RATES}'
      for arm in c.arms
    )
  if size == 'tiny':
    c.data = dict(source='digits', draw='shared')
    for name in ('main', 'low'):
      c.teachers[name].train.steps = 4
    c.train.update(steps=4, batch_size=16, seeds=2, members='vmap')
  if size == 'paper':
    c.data = dict(
      source='folder:imagenet',
      layout='sort the images of ImageNet into folders there, as the head of '
      'the config says',
      kw=dict(resize=224),
    )
    epoch = 1_281_167 // 256
    thirds = {30 * i * epoch: 0.1 for i in (1, 2, 3)}
    c.train = dict(
      optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
      learning_rate=rate,
      schedule='piecewise_constant',
      schedule_kw=dict(boundaries_and_scales=thirds),
      weight_decay=1e-4,
      steps=120 * epoch,
      batch_size=256,
      seeds=5,
    )
  return config.complete(c)


def nets(size):
  """The teacher and the student."""
  if size == 'paper':
    seen = 'standardize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))'
    views = dict(train=f'pad_and_crop(28)|flip|{seen}', eval=seen)
    return tuple(dict(model=m, views=views) for m in ('resnet50', 'resnet18'))
  widths = ((8, 8), (4, 4)) if size == 'tiny' else ((128, 128), (32, 32))
  return tuple(dict(model='mlp', kw=dict(widths=w)) for w in widths)


def few(weights, bits, size):
  """The quantisation of a net of so many bits."""
  skip = 'skip="stem|head"' if size == 'paper' else 'skip="head"'
  text = WEIGHTS[weights].format(skip)
  if size == 'paper':
    return f'{text}|activations({bits}, {skip})'
  images = 'activations(8, only="layers/0/*kernel")'
  return f'{text}|{images}|activations({bits}, high=4.0)'


def layer(size):
  """Where features are compared."""
  return 'stages/3' if size == 'paper' else 'layers/1'


def mimic(size):
  """How features are rounded there."""
  return f'features(4, at="{layer(size)}", high=4.0)'
