"""vgg13 to vgg8 on CIFAR-100; see resnet32x4_resnet8x4.py.

DKD has its authors' weight for this pair. ReviewKD has its usual one, as its
authors' code gives none here.

  python experiments/distill.py \
      --config configs/cifar100/vgg13_vgg8.py \
      --workdir runs/vgg13_vgg8
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(arg, teacher='vgg13', student='vgg8', decoupled=6.0)
