"""resnet32x4 to resnet8x4 on CIFAR-100, and the setting of all these pairs.

The thirteen pairs of teacher and student of this folder are those on which
published methods are compared (Tian et al., 2020), with the recipe that they
share: 240 epochs of SGD with momentum 0.9 in batches of 64, weight decay 5e-4,
the rate 0.05 (0.01 for the students MobileNetV2 and ShuffleNet), a tenth of it
after each of 150, 180 and 210 epochs, random crops and flips. Other files give
the pair, and the weights that were published for it.

Arms: the student alone, soft targets (`distilled`), and in place of those
FitNet, CRD, DKD and ReviewKD, with the weights, layers and warm-up of their
authors or of mdistiller. What differs from the published runs: 1,000 training
images are held out for validation; ReviewKD leaves out its level of pooled
features; CRD draws its negatives from all examples.

The data is read from where TFDS has prepared `cifar100`. The teacher is trained
with the same recipe, or restored from a zoo's file (see docs/config.md):

  python experiments/distill.py \
      --config configs/cifar100/resnet32x4_resnet8x4.py \
      --workdir runs/resnet32x4_resnet8x4 \
      --config.teachers.main.restore=pytorch:resnet32x4.safetensors
"""

from ml_collections import ConfigDict

from jaxkd import models
from jaxkd.run import config

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
SEEN = f'standardize({MEAN}, {STD})'
EPOCHS = 240


def get_config(arg=None):
  return pair(arg, teacher='resnet32x4', student='resnet8x4')


def pair(arg, *, teacher, student, rate=0.05, decoupled=8.0, review=5.0):
  """The config of one pair.

  Args:
    arg: the size asked for.
    teacher: the published name of its net.
    student: that of the student's.
    rate: the student's learning rate.
    decoupled: β of DKD.
    review: the weight of ReviewKD.
  """
  tiny = config.size(arg) == 'tiny'
  c = ConfigDict()
  c.survey = dict(
    objective='simple model',
    teacher='single',
    knowledge='soft labels, features',
    method='plain',
    student='single, simplified',
    claim='soft targets beat hard labels',
    cite='Tian et al., 2020',
    url='https://arxiv.org/abs/1910.10699',
  )
  c.data = dict(source='cifar100', kw=dict(validation=1000))
  steps = EPOCHS * 49_000 // 64
  if tiny:
    shape = dict(shape=(8, 8, 3), num_classes=4, size=200)
    c.data = dict(source='synthetic', kw=shape)
    steps = 8

  def after(epoch):
    return epoch * steps // EPOCHS

  views = dict(train=f'pad_and_crop(4)|flip|{SEEN}', eval=SEEN)
  c.train = dict(
    optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
    learning_rate=rate,
    schedule='piecewise_constant',
    schedule_kw=dict(
      boundaries_and_scales={after(epoch): 0.1 for epoch in (150, 180, 210)}
    ),
    weight_decay=5e-4,
    steps=steps,
    batch_size=16 if tiny else 64,
    seeds=2 if tiny else 5,
    members='sequence' if tiny else 'auto',  # the quickest to compile
    eval_every=steps if tiny else 0,
  )
  c.teachers = dict(
    main=dict(**net(teacher, tiny), views=views, train=dict(learning_rate=0.05))
  )
  c.students = dict(student=dict(**net(student, tiny), views=views))
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.1),
    soft=dict(loss='kl', teacher='main', weight=0.9, kw=dict(temperature=4.0)),
  )
  warm_up = dict(
    name='linear_schedule',
    kw=dict(init_value=0.0, end_value=1.0, transition_steps=max(after(20), 1)),
  )
  ours, theirs = (LAYERS[family(name)] for name in (student, teacher))
  methods = dict(
    fitnet=dict(
      loss='hint',
      at=(ours['hint'], theirs['hint']),
      adapter='conv_bn_relu',
      weight=100.0,
    ),
    contrastive=dict(
      term='memory',
      at=('embedding', 'embedding'),
      adapter='embed',
      teacher_adapter='embed',
      teacher_adapter_kw=dict(width=128),
      kw=dict(negatives=32 if tiny else 16_384, momentum=0.5),
      weight=0.8,
    ),
    decoupled=dict(
      loss='decoupled_kl',
      kw=dict(alpha=1.0, beta=decoupled, temperature=4.0),
      schedule=warm_up,
    ),
    review=dict(
      loss='hierarchical_context',
      at=(ours['stages'], theirs['before_relu']),
      adapter='attention_fusion',
      weight=review,
      schedule=warm_up,
    ),
  )
  alone = dict(labels=dict(weight=1.0), soft=dict(weight=0.0))
  c.arms = dict(student=dict(distill=alone), distilled=dict())
  for name, term in methods.items():
    c.arms[name] = dict(distill={**alone, name: dict(**term, teacher='main')})
  c.report = dict(
    controls={name: dict(better=name, than='distilled') for name in methods}
  )
  return c


def family(name):
  """The file of a model of a published name."""
  return models.resolve(name)[0].__module__.rpartition('.')[2]


def net(name, tiny):
  """The entries of a net, shrunken if asked for."""
  if not tiny:
    return dict(model=name)
  return dict(model=family(name), kw=TINY[family(name)])


def _of(stages, pattern='{}'):
  return tuple(f'stages/{pattern.format(i)}' for i in stages)


# Of each family, what FitNet matches, and what ReviewKD does: of a student
# after the ReLU, of a teacher before.
LAYERS = {
  'resnet': dict(
    hint='stages/1',
    stages=_of(range(3)),
    before_relu=_of(range(3), '{}/preactivation'),
  ),
  'resnet_imagenet': dict(
    hint='stages/1',
    stages=_of(range(4)),
    before_relu=_of(range(4), '{}/preactivation'),
  ),
  'wrn': dict(
    hint='stages/1',
    stages=_of(range(3)),
    before_relu=(*_of((1, 2), '{}/blocks/0/norm1'), 'norm'),
  ),
  'vgg': dict(
    hint='stages/2',
    stages=_of(range(1, 5)),
    before_relu=_of(range(1, 5), '{}/preactivation'),
  ),
  'mobilenetv2': dict(hint='stages/2', stages=_of((1, 2, 4, 6))),
  'shufflenetv1': dict(hint='stages/1', stages=_of(range(3))),
  'shufflenetv2': dict(hint='stages/1', stages=_of(range(3))),
}
TINY = {
  'resnet': dict(depth=8, widths=(4, 4, 4, 8)),
  'resnet_imagenet': dict(
    block='basic', sizes=(1, 1, 1, 1), width=4, stem='cifar'
  ),
  'wrn': dict(depth=10, width=1),
  'vgg': dict(widths=(4, 4, 4, 4, 8)),
  'mobilenetv2': dict(
    expansion=2,
    stages=tuple((4, 1, stride) for stride in (1, 1, 2, 2, 1, 2, 1)),
  ),
  'shufflenetv1': dict(widths=(48, 72, 96), sizes=(1, 1, 1)),
  'shufflenetv2': dict(widths=(8, 8, 8, 16), sizes=(0, 0, 0)),
}
