"""Relations of predictions (DIST, Huang et al., 2022).

The authors' settings for CIFAR.

  python experiments/distill.py \
      --config configs/methods/stronger_teacher.py \
      --workdir runs/stronger_teacher
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels',
    claim='correlation with the predictions is enough to match',
    cite='Huang et al., 2022',
    url='https://arxiv.org/abs/2205.10536',
    distill=dict(
      soft=dict(
        loss='dist', teacher='main', kw=dict(temperature=4.0), weight=2.0
      )
    ),
  )
