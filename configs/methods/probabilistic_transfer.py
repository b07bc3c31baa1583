"""Probabilistic knowledge transfer (PKT, Passalis & Tefas, 2018).

RepDistiller's weight, for batches of 64.

  python experiments/distill.py \
      --config configs/methods/probabilistic_transfer.py \
      --workdir runs/probabilistic_transfer
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='relations between examples',
    claim='the affinities of a batch as probabilities help a student',
    cite='Passalis & Tefas, 2018',
    url='https://arxiv.org/abs/1803.10837',
    distill=dict(
      affinity=dict(
        loss='probabilistic_transfer',
        teacher='main',
        at=('embedding', 'embedding'),
        weight=30000.0,
      )
    ),
  )
