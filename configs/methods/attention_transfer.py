"""Attention transfer (Zagoruyko & Komodakis, 2017).

The weight of each of the three terms is the authors' and RepDistiller's, made
for maps of 1024, 256 and 64 positions: the loss is a mean over positions of
maps of length 1, so on 14×14 pixels it counts for about five times as much.

  python experiments/distill.py \
      --config configs/methods/attention_transfer.py \
      --workdir runs/attention_transfer
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: attention maps',
    claim='maps of where a net looks help a student',
    cite='Zagoruyko & Komodakis, 2017',
    url='https://arxiv.org/abs/1612.03928',
    distill={
      f'stage{i}': dict(
        loss='attention_transfer',
        teacher='main',
        at=(stage, stage),
        weight=1000.0,
      )
      for i, stage in enumerate(base.STAGES)
    },
  )
