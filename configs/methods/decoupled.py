"""Decoupled knowledge distillation (DKD, Zhao et al., 2022).

β and the warm-up, a twelfth of the steps, as for resnet32x4 to resnet8x4.

  python experiments/distill.py \
      --config configs/methods/decoupled.py \
      --workdir runs/decoupled
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels',
    claim='classes other than the target deserve a weight of their own',
    cite='Zhao et al., 2022',
    url='https://arxiv.org/abs/2203.08679',
    distill=dict(
      soft=dict(
        loss='decoupled_kl',
        teacher='main',
        kw=dict(alpha=1.0, beta=8.0, temperature=4.0),
        schedule=base.warm_up(base.steps(arg) // 12),
      )
    ),
  )
