"""wrn_40_2 to shufflenetv1 on CIFAR-100; see resnet32x4_resnet8x4.py.

DKD and ReviewKD have their authors' weights for this pair.

  python experiments/distill.py \
      --config configs/cifar100/wrn_40_2_shufflenetv1.py \
      --workdir runs/wrn_40_2_shufflenetv1
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(arg, teacher='wrn_40_2', student='shufflenetv1', rate=0.01)
