"""Factor transfer (FT, Kim et al., 2018).

A paraphraser, a second teacher that reads the last stage of the first, learns
to reconstruct it from half as many channels; the student's translator imitates
these factors. Weight and form of the loss are RepDistiller's; the authors' 500
belongs to another form of it.

  python experiments/distill.py \
      --config configs/methods/factor_transfer.py \
      --workdir runs/factor_transfer
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='features: factors',
    claim='paraphrased features are easier to imitate',
    cite='Kim et al., 2018',
    url='https://arxiv.org/abs/1802.04977',
    teachers=dict(
      paraphraser=dict(
        model='paraphraser',
        reads=('main', 'stages/2'),
        per_seed=True,
        distill=dict(
          reconstruction=dict(
            loss='hint', teacher='main', at=('reconstruction', 'stages/2')
          )
        ),
        train=dict(steps=2 * base.steps(arg), learning_rate=0.01),
      )
    ),
    distill=dict(
      factors=dict(
        loss='factor_transfer',
        teacher='paraphraser',
        at=('stages/2', 'factors'),
        adapter='translator',
        weight=200.0,
      )
    ),
  )
