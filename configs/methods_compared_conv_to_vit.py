"""The methods that fit transformers, with a conv net as the teacher.

As methods_compared_vit.py, but the teacher is the resnet14 of
methods_compared.py, at 16×16 pixels.

  python experiments/distill.py \
      --config configs/methods_compared_conv_to_vit.py \
      --workdir runs/methods_compared_conv_to_vit
"""

from jaxkd.run import config

base = config.beside(__file__, 'methods_compared_vit.py')


def get_config(arg=None):
  return base.compared(arg)
