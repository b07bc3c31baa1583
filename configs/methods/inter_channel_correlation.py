"""Inter-channel correlation (ICKD, Liu et al., 2021).

The authors' weight and adapter, without the soft targets that they add.

  python experiments/distill.py \
      --config configs/methods/inter_channel_correlation.py \
      --workdir runs/inter_channel_correlation
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='relations between channels',
    claim='how channels correlate helps a student',
    cite='Liu et al., 2021',
    url='https://arxiv.org/abs/2202.03680',
    distill=dict(
      correlation=dict(
        loss='inter_channel_correlation',
        teacher='main',
        at=('stages/2', 'stages/2'),
        adapter='conv_bn',
        weight=2.5,
      )
    ),
  )
