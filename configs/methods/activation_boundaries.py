"""Activation boundaries (AB, Heo et al., 2019).

Two phases as in the paper: for the first eighth of the steps, as in
RepDistiller, only the boundaries are matched, from then on only the labels
count. The authors' factors of 3/1000 and of ½ for each stage down are in the
weights.

  python experiments/distill.py \
      --config configs/methods/activation_boundaries.py \
      --workdir runs/activation_boundaries
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  first = base.steps(arg) // 8
  return base.method(
    arg,
    knowledge='features: activation boundaries',
    claim='starting from the boundaries of hidden neurons helps a student',
    cite='Heo et al., 2019',
    url='https://arxiv.org/abs/1811.03233',
    distill={
      'labels': dict(loss='cross_entropy', schedule=base.from_step(first)),
      **{
        f'stage{i}': dict(
          loss='activation_boundary',
          teacher='main',
          at=(layer, layer),
          weight=0.003 / 2 ** (2 - i),
          schedule=base.until_step(first),
        )
        for i, layer in enumerate(base.BEFORE_RELU)
      },
    },
  )
