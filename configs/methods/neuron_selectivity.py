"""Neuron selectivity transfer (NST, Huang & Wang, 2017).

Weights and layers as in RepDistiller; the paper takes the last stage alone.

  python experiments/distill.py \
      --config configs/methods/neuron_selectivity.py \
      --workdir runs/neuron_selectivity
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: distribution of channels',
    claim='matching the distributions of neuron selectivity helps a student',
    cite='Huang & Wang, 2017',
    url='https://arxiv.org/abs/1707.01219',
    distill={
      f'stage{i}': dict(
        loss='neuron_selectivity',
        teacher='main',
        at=(stage, stage),
        weight=50.0,
      )
      for i, stage in enumerate(base.STAGES)
    },
  )
