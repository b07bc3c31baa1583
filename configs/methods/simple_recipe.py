"""A simple recipe of projector, norm and logarithm (SRD, Miles, 2024).

The paper is Miles & Mikolajczyk's. The settings are theirs for ImageNet, the
only ones published: the feature term and soft targets of temperature 1. Their
logarithm is of the sum over the whole batch, ours of each example's.

  python experiments/distill.py \
      --config configs/methods/simple_recipe.py \
      --workdir runs/simple_recipe
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features',
    claim='a normalised projection of features is all it takes',
    cite='Miles & Mikolajczyk, 2024',
    url='https://arxiv.org/abs/2303.11098',
    distill=dict(
      features=dict(
        loss='log_sum',
        teacher='main',
        at=('embedding', 'embedding'),
        adapter='projector',
        teacher_adapter='standardize_features',
        weight=2.0,
      ),
      soft=base.soft(1.0, temperature=1.0),
    ),
  )
