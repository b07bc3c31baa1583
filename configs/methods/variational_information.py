"""Variational information distillation (VID, Ahn et al., 2019).

Work [9] of the survey has a system of its own; this is the method with the
layers of the others. The variances train with the rest.

  python experiments/distill.py \
      --config configs/methods/variational_information.py \
      --workdir runs/variational_information
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: mutual information',
    claim='information kept about the teacher helps a student',
    cite='Ahn et al., 2019',
    url='https://arxiv.org/abs/1904.05835',
    distill={
      f'stage{i}': dict(
        loss='variational_information',
        teacher='main',
        at=(stage, stage),
        adapter='variational',
        weight=1.0,
      )
      for i, stage in enumerate(base.STAGES)
    },
  )
