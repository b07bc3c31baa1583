"""Similarity-preserving distillation (SP, Tung & Mori, 2019).

Weight and layer as in RepDistiller, checked there by the authors.

  python experiments/distill.py \
      --config configs/methods/similarity_preserving.py \
      --workdir runs/similarity_preserving
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='relations between examples',
    claim='which examples look alike to the teacher helps a student',
    cite='Tung & Mori, 2019',
    url='https://arxiv.org/abs/1907.09682',
    distill=dict(
      similarity=dict(
        loss='similarity_preserving',
        teacher='main',
        at=('stages/2', 'stages/2'),
        weight=3000.0,
      )
    ),
  )
