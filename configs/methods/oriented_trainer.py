"""A distillation-oriented trainer (DOT, Zhao et al., 2023).

Soft targets, with a longer momentum for their gradient than for the labels'.
The longer one also makes it four times as large: compare with soft targets of
larger weight.

  python experiments/distill.py \
      --config configs/methods/oriented_trainer.py \
      --workdir runs/oriented_trainer
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels',
    claim='distillation needs a larger momentum than the task',
    cite='Zhao et al., 2023',
    url='https://arxiv.org/abs/2307.08436',
    labels=0.1,
    distill=dict(soft=base.soft(0.9)),
    train=dict(
      optimizer=dict(
        name='jaxkd.distill.dot:dot', kw=dict(momentum=0.9, delta=0.075)
      ),
      parts=dict(task=('labels',), distill=('soft',)),
    ),
  )
