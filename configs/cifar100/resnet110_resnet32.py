"""resnet110 to resnet32 on CIFAR-100; see resnet32x4_resnet8x4.py.

DKD and ReviewKD have their authors' weights for this pair.

  python experiments/distill.py \
      --config configs/cifar100/resnet110_resnet32.py \
      --workdir runs/resnet110_resnet32
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(
    arg, teacher='resnet110', student='resnet32', decoupled=2.0, review=1.0
  )
