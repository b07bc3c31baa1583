"""Logit standardisation (Sun et al., 2024).

Both sides' logits have mean 0 and deviation 1 before they are softened; the
authors' weight and base temperature.

  python experiments/distill.py \
      --config configs/methods/logit_standardization.py \
      --workdir runs/logit_standardization
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels',
    claim='the student need not match the scale of the logits',
    cite='Sun et al., 2024',
    url='https://arxiv.org/abs/2403.01427',
    labels=0.1,
    distill=dict(
      soft=dict(
        **base.soft(9.0, temperature=2.0),
        adapter='standardize_logits',
        teacher_adapter='standardize_logits',
      )
    ),
  )
