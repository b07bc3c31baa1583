"""resnet32x4 to shufflenetv1 on CIFAR-100; see resnet32x4_resnet8x4.py.

DKD and ReviewKD have their authors' weights for this pair.

  python experiments/distill.py \
      --config configs/cifar100/resnet32x4_shufflenetv1.py \
      --workdir runs/resnet32x4_shufflenetv1
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(arg, teacher='resnet32x4', student='shufflenetv1', rate=0.01)
