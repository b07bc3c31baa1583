"""Relational knowledge distillation (RKD, Park et al., 2019).

Work [17] of the survey has a system of its own, on metric learning; these are
RepDistiller's weights for classification.

  python experiments/distill.py \
      --config configs/methods/relational.py \
      --workdir runs/relational
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='relations between examples',
    claim='distances and angles between examples help a student',
    cite='Park et al., 2019',
    url='https://arxiv.org/abs/1904.05068',
    distill=dict(
      distance=dict(
        loss='rkd_distance',
        teacher='main',
        at=('embedding', 'embedding'),
        weight=25.0,
      ),
      angle=dict(
        loss='rkd_angle',
        teacher='main',
        at=('embedding', 'embedding'),
        weight=50.0,
      ),
    ),
  )
