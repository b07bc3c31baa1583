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

  python experiments/distill.py --config configs/zhu2019_low_resolution.py \
      --workdir runs/zhu2019_low_resolution
"""

from ml_collections import ConfigDict

from jaxkd import config


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
  sizes = (6, 4) if size == 'tiny' else (14, 7)
  c.data = dict(source='digits' if size == 'tiny' else 'fashion_mnist')
  net = dict(
    model='mlp', kw=dict(widths=(16,) if size == 'tiny' else (256, 256))
  )
  c.teachers = dict(main=dict(**net, per_seed=True))
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
    seen = dict(views=dict(train=view, eval=view))
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
    c.teachers[f'seeing_{pixels}'] = dict(
      made_of=('main',), views=dict(train=view, eval=view)
    )
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
  if size == 'tiny':
    c.train.update(steps=4, batch_size=16, seeds=2, members='vmap')
    c.tune = ()
  return config.complete(c)
