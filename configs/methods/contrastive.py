"""Contrastive representation distillation (CRD, Tian et al., 2020).

The authors' weight, momentum and width of the embeddings. Negatives are 512
of all examples instead of 16,384 of the other classes; positives are this
step's embeddings, as in the paper, and not the memory's.

  python experiments/distill.py \
      --config configs/methods/contrastive.py \
      --workdir runs/contrastive
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: contrast',
    claim='telling the same example from others helps a student',
    cite='Tian et al., 2020',
    url='https://arxiv.org/abs/1910.10699',
    distill=dict(
      contrast=dict(
        term='memory',
        teacher='main',
        at=('embedding', 'embedding'),
        adapter='embed',
        teacher_adapter='embed',
        teacher_adapter_kw=dict(width=128),
        kw=dict(negatives=512, momentum=0.5),
        weight=0.8,
      )
    ),
  )
