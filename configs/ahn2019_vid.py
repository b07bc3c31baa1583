"""Variational information distillation with few data (Ahn et al., 2019).

Work [9] of the survey: the student predicts layers of the teacher as normal
distributions with learned variances, one for each channel, so that channels
that it cannot predict count less. With 100, 20, 10 and 2 % of the training
images it is compared with the student alone, soft targets, hints (a linear map
and the squared error), attention maps, and VID with fixed variances. The
paper's claim is about the loss in accuracy as data become fewer: `NAME_change`
is the accuracy of an arm with 2 % of the images minus that with all. A second
part has a conv net teach MLPs, on 2 %.

Simplified: Fashion-MNIST at 14×14 pixels and mixers of four tokens instead of
CIFAR-10 and wide residual networks, so attention maps have four positions.
Teachers see all of the data and are the same for all seeds. Weights and, for
the student alone, the learning rate are the best of three on validation.

`:paper` has wrn_40_2 teach wrn_16_1 at the three stages, on CIFAR-10 as
tensorflow-datasets prepares it (`cifar10`, 32×32×3 pixels, 10 classes), with
RepDistiller's recipe and as many steps on few data as on all. The paper uses
four layers, and CIFAR-100, MIT-67 and CUB-200, too; it does not describe its
MLPs well enough to rebuild them.

  python experiments/distill.py --config configs/ahn2019_vid.py \
      --workdir runs/ahn2019_vid

About sixteen minutes on one CPU core. Means over five seeds, with 2 and 100 %
of the images: alone 79.3 and 83.6 %, attention 79.7 and 82.9 %, hints 80.4 and
83.2 %, VID 80.9 and 83.6 %, soft targets 82.4 and 83.9 %. So with 2 % VID beats
labels, hints and attention, and loses less than labels alone do; soft targets
are better still, and fixed variances just as good. From 10 % on layers add
nothing to labels. MLPs gained nothing from the layers of the conv net, whose
accuracy of 83.3 % leaves little to gain. With 2 % the largest weights were
chosen, for soft targets and hints, too.
"""

from pathlib import Path

from ml_collections import ConfigDict

from jaxkd.run import config

PERCENT = (100, 20, 10, 2)
RATES, FACTORS = '2e-3,5e-3,1e-2', '0.1,1.0,10.0'
RECIPE = Path(__file__).parent / 'cifar100' / 'resnet32x4_resnet8x4.py'


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=9,
    objective='limited data',
    data='decrease training data',
    teacher='single',
    knowledge='features: mutual information',
    method='plain',
    student='single, simplified',
    claim='with 2 % of the data, what layers tell helps more than labels alone',
    cite='Ahn et al., 2019',
    url='https://arxiv.org/abs/1904.05835',
  )
  c.distill = dict(labels=dict(loss='cross_entropy'))
  if size == 'paper':
    layers = tuple((f'stages/{i}', f'stages/{i}') for i in range(3))
    methods = _methods('main', layers, hint=100.0, attention=1000.0, vid=1.0)
    _as_in_the_paper(c)
  else:
    layers = tuple((f'blocks/{i}', f'blocks/{i}') for i in range(2))
    methods = _methods('main', layers, hint=1.0, attention=100.0, vid=3.0)
    _on_small_images(c, layers)
  percents = PERCENT
  if size == 'tiny':  # every arm is a program of its own, slow to compile
    percents = (100, 20, 2)
    methods = {name: methods[name] for name in ('student', 'hint', 'vid')}
  c.arms, c.tune = {}, ()
  for percent in percents:
    data = dict(fraction=dict(students=percent / 100))
    for method, terms in methods.items():
      _add(c, f'{method}_{percent}', terms, data=data)
  rivals = [method for method in methods if method != 'vid']
  changes = {
    f'{method}_change': {f'{method}_2': 1.0, f'{method}_100': -1.0}
    for method in methods
  }
  half = {arm: x / 2 for arm, x in changes['student_change'].items()}
  controls = {
    f'{rival}_at_{percent}': dict(
      better=f'vid_{percent}', than=f'{rival}_{percent}'
    )
    for percent in percents
    for rival in rivals
  }
  c.report = dict(
    compare=controls.pop('student_at_2'),
    controls=controls
    | dict(
      fewer_data=dict(better='vid_20', than='vid_100'),
      two_percent=dict(better='vid_2', than='vid_100'),
      half_the_loss=dict(better='vid_change', than='half_student_change'),
    )
    | {
      f'loses_less_than_{rival}': dict(
        better='vid_change', than=f'{rival}_change'
      )
      for rival in rivals
    },
    derived=changes | dict(half_student_change=half),
  )
  if size != 'paper':
    _to_mlps(c, methods)
  if size == 'tiny':
    _shrink(c)
  return config.complete(c)


def _methods(teacher, layers, *, hint, attention, vid):
  """The terms of each method, with the weights that are multiplied."""

  def at_each(weight, **entry):
    return {
      f'layer{i}': dict(**entry, teacher=teacher, at=at, weight=weight)
      for i, at in enumerate(layers)
    }

  normal = dict(loss='variational_information', adapter='variational')
  soft = dict(loss='kl', kw=dict(temperature=4.0), teacher=teacher)
  return dict(
    student={},
    soft_targets=dict(soft=soft),
    hint=at_each(hint, loss='hint', adapter='linear'),
    attention=at_each(attention, loss='attention_transfer'),
    vid=at_each(vid, **normal),
    vid_fixed=at_each(vid, **normal, adapter_kw=dict(fixed=True)),
  )


def _add(c, arm, terms, **changes):
  """An arm, and as many trials as all others have."""
  c.arms[arm] = dict(distill=terms, **changes)
  entries = ','.join(f'distill.{term}.weight' for term in terms)
  grid = f'{entries}*={FACTORS}' if terms else f'train.learning_rate={RATES}'
  c.tune += (f'{arm}:{grid}',)


def _on_small_images(c, layers):
  view = dict(train='resize(14)', eval='resize(14)')
  c.data = dict(source='fashion_mnist')
  kept = ('logits', *(teacher for _, teacher in layers))
  c.teachers = dict(
    main=dict(
      model='mixer',
      kw=dict(width=48, depth=2, patch=7),
      views=view,
      cache=dict(outputs=kept),
      train=dict(steps=3000, batch_size=64, learning_rate=3e-3),
    ),
  )
  small = dict(width=24, depth=2, patch=7, channel_ratio=2.0)
  c.students = dict(student=dict(model='mixer', kw=small, views=view))
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=5e-3,
    steps=1000,
    batch_size=32,
    seeds=5,
    eval_every=500,
  )


def _to_mlps(c, chosen):
  """A conv net whose hidden layers teach those of an MLP."""
  layers = tuple((f'layers/{i}', f'layers/{i}') for i in range(2))
  c.teachers.conv = dict(
    model='lenet5',
    views=c.teachers.main.views,
    train=dict(steps=2000, batch_size=64, learning_rate=2e-3),
  )
  student = dict(model='mlp', kw=dict(widths=(32, 32)))
  methods = _methods('conv', layers, hint=1.0, attention=0.0, vid=3.0)
  for method in chosen:
    if method in ('attention', 'vid_fixed'):
      continue
    _add(
      c,
      f'mlp_{method}',
      methods[method],
      data=dict(fraction=dict(students=0.02)),
      students=dict(student=student),
    )
    if method != 'vid':
      pair = dict(better='mlp_vid', than=f'mlp_{method}')
      c.report.controls[f'conv_to_mlp_{method}'] = pair


def _as_in_the_paper(c):
  recipe = config.beside(RECIPE).get_config()
  views = recipe.students.student.views
  c.data = dict(source='tfds:cifar10', kw=dict(validation=1000))
  c.teachers = dict(main=dict(model='wrn_40_2', views=views))
  c.students = dict(student=dict(model='wrn_16_1', views=views))
  c.train = recipe.train


def _shrink(c):
  c.data.source = 'digits'
  for role in (c.teachers.main, c.students.student):
    role.views = dict(train='', eval='')
    role.kw.update(width=8, patch=4)
  c.teachers.conv.views = dict(train='resize(14)', eval='resize(14)')
  c.train.update(steps=2, batch_size=16, seeds=2, members='vmap', eval_every=2)
  for teacher in c.teachers.values():
    teacher.train.steps = 2
  c.tune = ()
