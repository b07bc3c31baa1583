"""Correlation congruence (CC, Peng et al., 2019).

There is no code of the authors; the weight is that of Knowledge-Distillation-
Zoo, whose loss this is. RepDistiller's 0.02 belongs to another loss.

  python experiments/distill.py \
      --config configs/methods/correlation_congruence.py \
      --workdir runs/correlation_congruence
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='relations between examples',
    claim='correlation between examples helps a student',
    cite='Peng et al., 2019',
    url='https://arxiv.org/abs/1904.01802',
    distill=dict(
      correlation=dict(
        loss='correlation_congruence',
        teacher='main',
        at=('embedding', 'embedding'),
        weight=100.0,
      )
    ),
  )
