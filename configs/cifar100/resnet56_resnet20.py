"""resnet56 to resnet20 on CIFAR-100; see resnet32x4_resnet8x4.py.

DKD and ReviewKD have their authors' weights for this pair.

  python experiments/distill.py \
      --config configs/cifar100/resnet56_resnet20.py \
      --workdir runs/resnet56_resnet20
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(
    arg, teacher='resnet56', student='resnet20', decoupled=2.0, review=0.6
  )
