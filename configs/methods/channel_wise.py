"""Channel-wise distillation (CWD, Shu et al., 2021).

Made for segmentation: no recipe for classification is published, so this is a
port, with the weight and the temperature of its logit maps.

  python experiments/distill.py \
      --config configs/methods/channel_wise.py \
      --workdir runs/channel_wise
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: distribution over positions',
    claim='where each channel responds helps a student',
    cite='Shu et al., 2021',
    url='https://arxiv.org/abs/2011.13256',
    distill=dict(
      channels=dict(
        loss='channel_wise',
        teacher='main',
        at=('stages/1', 'stages/1'),
        kw=dict(temperature=4.0),
        weight=3.0,
      )
    ),
  )
