"""Multi-level logits (MLKD, Jin et al., 2023).

The authors' code sees two views of each example; here it is one, with the sum
of their weights. The learning rate is half of that of the other methods, as it
is there.

  python experiments/distill.py \
      --config configs/methods/multi_level_logits.py \
      --workdir runs/multi_level_logits
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels',
    claim='logits of instances, batches and classes say more together',
    cite='Jin et al., 2023',
    url='https://openaccess.thecvf.com/content/CVPR2023/html/'
    'Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html',
    labels=0.2,
    train=dict(learning_rate=base.RATE / 2),
    distill=dict(
      levels=dict(loss='multi_level_logits', teacher='main', weight=0.45),
      **{f'soft{t}': base.soft(0.9, temperature=float(t)) for t in range(2, 7)},
    ),
  )
