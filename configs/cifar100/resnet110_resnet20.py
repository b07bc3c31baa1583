"""resnet110 to resnet20 on CIFAR-100; see resnet32x4_resnet8x4.py.

DKD and ReviewKD have the weights of resnet56 to resnet20, as their authors'
code gives none here.

  python experiments/distill.py \
      --config configs/cifar100/resnet110_resnet20.py \
      --workdir runs/resnet110_resnet20
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(
    arg, teacher='resnet110', student='resnet20', decoupled=2.0, review=0.6
  )
