"""resnet50 to vgg8 on CIFAR-100; see resnet32x4_resnet8x4.py.

resnet50 has the stem for small images. DKD and ReviewKD have their usual
weights, as their authors' code gives none here.

  python experiments/distill.py \
      --config configs/cifar100/resnet50_vgg8.py \
      --workdir runs/resnet50_vgg8
"""

from jaxkd.run import config

base = config.beside(__file__, 'resnet32x4_resnet8x4.py')


def get_config(arg=None):
  return base.pair(arg, teacher='resnet50_cifar', student='vgg8')
