"""Hints: the student regresses a middle layer (FitNets, Romero et al., 2015).

The weight and the regressor, a convolution with BatchNorm and ReLU, are those
of RepDistiller. The paper trains with the hint first and with soft targets
after it; here, as there, both terms are on from the first step.

  python experiments/distill.py \
      --config configs/methods/fitnet.py \
      --workdir runs/fitnet
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features',
    claim='hints from a middle layer help a thinner student',
    cite='Romero et al., 2015',
    url='https://arxiv.org/abs/1412.6550',
    distill=dict(
      hint=dict(
        loss='hint',
        teacher='main',
        at=('stages/1', 'stages/1'),
        adapter='conv_bn_relu',
        weight=100.0,
      )
    ),
  )
