"""Curriculum temperature (CTKD, Li et al., 2023).

One temperature for all examples is trained against the student, from 1 to 21,
and its reversed gradient grows over a twenty-fourth of the steps.

  python experiments/distill.py \
      --config configs/methods/curriculum_temperature.py \
      --workdir runs/curriculum_temperature
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels',
    claim='a temperature that makes the task harder helps a student',
    cite='Li et al., 2023',
    url='https://arxiv.org/abs/2211.16231',
    labels=0.1,
    distill=dict(
      soft=dict(
        term='adversary',
        teacher='main',
        kw=dict(
          loss='kl',
          option='temperature',
          low=1.0,
          high=21.0,
          ramp=base.steps(arg) // 24,
        ),
        weight=0.9,
      )
    ),
  )
