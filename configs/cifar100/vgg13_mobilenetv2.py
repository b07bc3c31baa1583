"""vgg13 to mobilenetv2 on CIFAR-100; see resnet32x4_resnet8x4.py.

MobileNetV2 has half of its widths. DKD has its authors' weight for this pair,
and ReviewKD its usual one, as its authors' code gives none here.

  python experiments/distill.py \
      --config configs/cifar100/vgg13_mobilenetv2.py \
      --workdir runs/vgg13_mobilenetv2
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(
    arg, teacher='vgg13', student='mobilenetv2_half', rate=0.01, decoupled=6.0
  )
