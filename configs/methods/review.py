"""Knowledge review (ReviewKD, Chen et al., 2021).

The student's layers come after their ReLU, the teacher's before, and the term
is warmed up for a twelfth of the steps, as in the authors' code. Three levels:
their fourth, the pooled features, is left out.

  python experiments/distill.py \
      --config configs/methods/review.py \
      --workdir runs/review
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features of several levels',
    claim='early layers of the teacher help late ones of the student',
    cite='Chen et al., 2021',
    url='https://arxiv.org/abs/2104.09044',
    distill=dict(
      review=dict(
        loss='hierarchical_context',
        teacher='main',
        at=(base.STAGES, base.BEFORE_RELU),
        adapter='attention_fusion',
        weight=5.0,
        schedule=base.warm_up(base.steps(arg) // 12),
      )
    ),
  )
