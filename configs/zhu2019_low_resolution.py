"""Small images, and a teacher that sees large ones (Zhu et al., 2019).

Work [6] of the survey, deep feature distillation: the teacher sees images as
they are, the student sees the same images with fewer pixels, scaled back so
that the architecture stays the same, and learns the labels and the teacher's
features. For each resolution: the student alone, with features, with soft
targets, with features from the teacher's own parameters as a start, and, as
the lower control, the teacher itself on the small images.

Simplified: Fashion-MNIST (28 pixels, shown as 14 and as 7) and MLPs instead of
CIFAR-10 and conv nets; the features are the last hidden layer, since the
paper's layer and weight are not known. Weights and, for the student alone, the
learning rate are the best of three on validation.

With :paper, CIFAR-10 from TFDS (`cifar10`, 32x32x3, 10 classes) at 16 and 8
pixels and VGG-16, random crops and flips the same for teacher and student; for
SVHN set data.source to tfds:svhn_cropped. How long and how fast the paper
trains is not known: 200 epochs of SGD.

  python experiments/distill.py --config configs/zhu2019_low_resolution.py \
      --workdir runs/zhu2019_low_resolution
"""

from ml_collections import ConfigDict

from jaxkd import config

# Resolutions that students see, the data, the net, how training images are
# changed before.
SIZES = {
  '': ((14, 7), 'fashion_mnist', dict(kw=dict(widths=(128, 128))), ''),
  'tiny': ((6, 4), 'digits', dict(kw=dict(widths=(16,))), ''),
  'paper': ((16, 8), 'tfds:cifar10', dict(model='vgg16'), 'crop(4)|flip'),
}


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=6,
    objective='accuracy on small images',
    data='modify resolution',
    teacher='single',
    knowledge='features',
    method='permuted',
    student='single, as the teacher',
    claim='features of large images help a student of small ones',
    cite='Zhu et al., 2019',
  )
  sizes, source, net, changed = SIZES[size]
  c.data = dict(source=source)
  views = dict(train=changed, eval='')
  c.teachers = dict(main=dict(**net, views=views, per_seed=True))
  c.students = dict(student=net)
  c.distill = dict(
    labels=dict(loss='cross_entropy'),
    features=dict(
      loss='hint', at=('embedding', 'embedding'), teacher='main', weight=0.0
    ),
    soft=dict(loss='kl', teacher='main', kw=dict(temperature=4.0), weight=0.0),
  )
  c.arms, c.tune, controls = {}, (), {}
  for pixels in sizes:
    view = f'resolution({pixels})'
    train = f'{changed}|{view}' if changed else view
    seen = dict(views=dict(train=train, eval=view))
    plain, features = f'student_{pixels}', f'features_{pixels}'
    soft, started = f'soft_targets_{pixels}', f'started_{pixels}'
    ways = {
      plain: dict(students=dict(student=seen)),
      features: dict(
        students=dict(student=seen), distill=dict(features=dict(weight=1.0))
      ),
      soft: dict(
        students=dict(student=seen), distill=dict(soft=dict(weight=1.0))
      ),
      started: dict(
        students=dict(student=dict(**seen, init='main')),
        distill=dict(features=dict(weight=1.0)),
      ),
    }
    c.arms.update(ways)
    c.teachers[f'seeing_{pixels}'] = dict(made_of=('main',), **seen)
    c.tune += (
      f'{plain}:train.learning_rate=5e-4,1e-3,2e-3',
      f'{features}:distill.features.weight=0.1,1.0,10.0',
      f'{soft}:distill.soft.weight=0.1,0.3,1.0',
      f'{started}:distill.features.weight=0.1,1.0,10.0',
    )
    controls |= {
      f'features_at_{pixels}': dict(better=features, than=plain),
      f'soft_targets_at_{pixels}': dict(better=soft, than=plain),
      f'start_at_{pixels}': dict(better=started, than=features),
      f'adapted_at_{pixels}': dict(
        better=plain, than=f'teacher seeing_{pixels}'
      ),
    }
  claim = controls.pop(f'features_at_{sizes[-1]}')
  c.report = dict(compare=claim, controls=controls)
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=3000,
    batch_size=64,
    seeds=5,
  )
  if size == 'paper':
    steps = 200 * 45_000 // 128
    c.train = dict(
      optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
      learning_rate=0.1,
      weight_decay=5e-4,
      steps=steps,
      batch_size=128,
      seeds=5,
    )
    c.tune = tuple(
      text.replace('5e-4,1e-3,2e-3', '0.05,0.1,0.2') for text in c.tune
    )
  if size == 'tiny':
    c.train.update(steps=4, batch_size=16, seeds=2, members='vmap')
    c.tune = ()
  return config.complete(c)
