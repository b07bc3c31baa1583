"""An overhaul of feature distillation (OFD, Heo et al., 2019).

The authors' factors of 1/1000 and of ½ for each stage down are in the weights.
The margin comes from the batch, which the paper allows, since a residual sum
has no BatchNorm of its own; the teacher stays in evaluation mode, which it does
not in the published code.

  python experiments/distill.py \
      --config configs/methods/overhaul.py \
      --workdir runs/overhaul
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: pre-activations',
    claim='what is useful of pre-activations helps a student',
    cite='Heo et al., 2019',
    url='https://arxiv.org/abs/1904.01866',
    distill={
      f'stage{i}': dict(
        loss='overhaul',
        teacher='main',
        at=(layer, layer),
        adapter='conv_bn',
        teacher_adapter='margin',
        weight=0.001 / 2 ** (2 - i),
      )
      for i, layer in enumerate(base.BEFORE_RELU)
    },
  )
